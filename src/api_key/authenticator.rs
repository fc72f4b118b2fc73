use std::{fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, header};
use zeroize::Zeroizing;

use crate::{
    api_key::{
        ApiKeyFormat, ApiKeyRecord, ApiKeyStore, Found, HashScheme, Hit, KeyHash, Lookup,
        format::{MAX_TEXT, Presented},
    },
    authn::{Authenticator, Identity, Outcome},
    challenge::{Challenge, Challenges},
    client::ClientInfo,
    clock::Instants,
    error::{ConfigError, StoreError, StoreErrorKind},
    head::RequestHead,
    now::Now,
    rejection::{Rejection, RejectionKind},
};

const SCHEME: &str = "ApiKey";
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Compared with when there is no such key, so that a miss does the work of a hit. It admits nobody, whatever hashes to it.
const NO_SUCH_KEY: KeyHash = KeyHash::from_bytes([0; KeyHash::LEN]);

/// Authenticates requests by API key. See the [module docs](crate::api_key) for where a key is read and what is refused.
///
/// A store that answers at once costs one SHA-256 and a few reference counts: no box, no allocation once a key has been
/// used.
///
/// ```
/// use portcullis::api_key::{ApiKeyAuthenticator, ApiKeyFormat, MemoryKeyStore};
///
/// let authenticator = ApiKeyAuthenticator::new(MemoryKeyStore::new())
///     .with_format(ApiKeyFormat::new("acme")?)
///     .with_realm("orders")?;
/// # let _ = authenticator;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone)]
pub struct ApiKeyAuthenticator {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    store: Arc<dyn ApiKeyStore>,
    format: ApiKeyFormat,
    store_name: Arc<str>,
    offer: Vec<Challenge>,
    refusal: Challenges,
}

impl ApiKeyAuthenticator {
    /// Asks this store. Keys have the prefix `pc`, the realm is `api`, the store's name is `api-keys`.
    pub fn new(store: impl ApiKeyStore) -> Self {
        // A constant realm makes no error; a unit test checks it.
        let (offer, refusal) = challenges("api").unwrap_or_default();
        let shared = Shared {
            store: Arc::new(store),
            format: ApiKeyFormat::default(),
            store_name: "api-keys".into(),
            offer,
            refusal,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes keys of this format, and no others.
    pub fn with_format(mut self, format: ApiKeyFormat) -> Self {
        Arc::make_mut(&mut self.shared).format = format;
        self
    }

    /// Sets the realm that challenges name.
    ///
    /// # Errors
    /// If the realm is empty or has a character that a challenge cannot carry, as [`Challenge::new`] says.
    pub fn with_realm(mut self, realm: &str) -> Result<Self, ConfigError> {
        let (offer, refusal) = challenges(realm)?;
        let shared = Arc::make_mut(&mut self.shared);
        (shared.offer, shared.refusal) = (offer, refusal);
        Ok(self)
    }

    /// Sets the store's name: the [`issuer`](crate::Principal::issuer) of the principals. Two stores that name their
    /// subjects independently need two names, or `billing` of the one counts as `billing` of the other.
    ///
    /// # Errors
    /// If the name is empty.
    pub fn with_store_name(mut self, name: &str) -> Result<Self, ConfigError> {
        if name.is_empty() {
            return Err(ConfigError::new("key store name", "\"\"", "must not be empty"));
        }
        Arc::make_mut(&mut self.shared).store_name = name.into();
        Ok(self)
    }

    /// The key that the request carries, hashed; None if it carries none of ours.
    fn presented(&self, head: &RequestHead<'_>) -> Result<Option<Presented>, Rejection> {
        let own_header = head.single_header(&X_API_KEY)?.map(|text| self.shared.format.read(text));
        let found = match (own_header, self.in_authorization(head)?) {
            (Some(_), Some(_)) => {
                return Err(Rejection::new(RejectionKind::InvalidRequest, "API key: presented in two places"));
            }
            (found, None) | (None, found) => found,
        };
        found.map(|key| key.ok_or_else(|| self.refuse("API key: malformed, or of another format"))).transpose()
    }

    /// What `Authorization` holds: nothing of ours, or a key, or what was meant to be one.
    fn in_authorization(&self, head: &RequestHead<'_>) -> Result<Option<Option<Presented>>, Rejection> {
        let format = &self.shared.format;
        let Some(credential) = head.authorization()? else { return Ok(None) };
        let (scheme, token) = (|scheme| credential.is_scheme(scheme), credential.token());
        Ok(if scheme(SCHEME) || (scheme("Bearer") && format.claims(token)) {
            Some(format.read(token))
        } else if scheme("Basic") {
            in_basic(format, token)
        } else {
            None
        })
    }

    /// The key's owner. What stood in `X-API-Key` leaves an `Authorization` unread.
    fn identity(&self, head: &RequestHead<'_>, record: &ApiKeyRecord) -> Identity {
        let identity = Identity::from(record.principal(&self.shared.store_name));
        if head.headers().contains_key(&X_API_KEY) { identity.leaving_authorization() } else { identity }
    }

    fn conclude(&self, head: &RequestHead<'_>, presented: &Presented, found: Found, at: Instants) -> Outcome {
        let hit = match found {
            Ok(hit) => hit,
            Err(error) => return unanswered(&error).into(),
        };
        let same = presented.hash == *hit.as_ref().map_or(&NO_SUCH_KEY, |hit| hit.record().hash());
        let reason = match &hit {
            None => "API key: unknown id",
            Some(_) if !same => "API key: wrong secret",
            Some(hit) => match self.refusal(head, presented, hit, at) {
                None => return Outcome::Verified(self.identity(head, hit.record())),
                Some(reason) => reason,
            },
        };
        self.refuse(reason).into()
    }

    /// Why a key whose secret is right is not accepted.
    fn refusal(&self, head: &RequestHead<'_>, presented: &Presented, hit: &Hit, at: Instants) -> Option<&'static str> {
        let record = hit.record();
        if record.scheme() != HashScheme::Sha256 {
            return Some("API key: hashed in another way");
        }
        if !presented.in_environment || record.environment() != self.shared.format.in_environment() {
            return Some("API key: of another environment");
        }
        if hit.owner_disabled() {
            return Some("API key: owner disabled");
        }
        record.refusal(at.unix_seconds()).or_else(|| {
            let vouched = || head.client().map_or_else(|| peer(head), ClientInfo::vouched_address);
            (!record.addresses().is_empty() && !record.allows(vouched())).then_some("API key: address not allowed")
        })
    }

    /// One answer for every bad key; only the operator learns why.
    fn refuse(&self, reason: &'static str) -> Rejection {
        Rejection::new(RejectionKind::InvalidCredential, reason).with_challenges(self.shared.refusal.clone())
    }
}

#[async_trait]
impl Authenticator for ApiKeyAuthenticator {
    fn challenges(&self) -> Vec<Challenge> {
        self.shared.offer.clone()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![header::AUTHORIZATION, X_API_KEY.clone()]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        match self.presented(head) {
            Ok(Some(key)) => {
                self.shared.store.find_now(lookup(head, &key, at)).map(|found| self.conclude(head, &key, found, at))
            }
            Ok(None) => Now::Known(Outcome::Absent),
            Err(rejection) => Now::Known(rejection.into()),
        }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match self.presented(head) {
            Ok(Some(key)) => self.conclude(head, &key, self.shared.store.find(lookup(head, &key, at)).await, at),
            Ok(None) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        }
    }
}

impl fmt::Debug for ApiKeyAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyAuthenticator")
            .field("store", &self.shared.store)
            .field("format", &self.shared.format)
            .field("store_name", &self.shared.store_name)
            .finish_non_exhaustive()
    }
}

fn lookup(head: &RequestHead<'_>, presented: &Presented, at: Instants) -> Lookup {
    Lookup::new(presented.id, at).from_client(client(head))
}

/// The address that misses are charged to.
fn client(head: &RequestHead<'_>) -> Option<IpAddr> {
    head.client().map_or_else(|| peer(head), ClientInfo::address)
}

/// Where the connection comes from, for an authenticator that no other layer helps.
fn peer(head: &RequestHead<'_>) -> Option<IpAddr> {
    head.connection().and_then(|connection| connection.peer()).map(|peer| peer.ip().to_canonical())
}

/// The store did not answer.
fn unanswered(error: &StoreError) -> Rejection {
    let kind = match error.kind() {
        StoreErrorKind::Throttled => RejectionKind::RateLimited,
        StoreErrorKind::Unavailable | StoreErrorKind::Corrupt | StoreErrorKind::Conflict => RejectionKind::Unavailable,
    };
    let rejection = Rejection::new(kind, format!("API key: {error}"));
    match error.retry_after() {
        Some(wait) => rejection.with_retry_after(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX)),
        None => rejection,
    }
}

/// What a request without a key is offered, and what one with a bad key gets: written once.
fn challenges(realm: &str) -> Result<(Vec<Challenge>, Challenges), ConfigError> {
    let offer = Challenge::new(SCHEME, realm)?;
    let refusal = offer.clone().with("error", "invalid_key")?;
    Ok((vec![offer], [refusal].into_iter().collect()))
}

/// A key as the user name of Basic, with an empty password (RFC 7617 §2). Anything else is somebody's password, not ours,
/// and is let go; a key with a password is ours and bad.
fn in_basic(format: &ApiKeyFormat, token: &str) -> Option<Option<Presented>> {
    let mut buffer = Zeroizing::new([0_u8; (MAX_TEXT + 1).div_ceil(3) * 3]);
    // Fails as well if it is too long for a key with a colon after it.
    let length = STANDARD.decode_slice(token, &mut *buffer).ok()?;
    let (user, password) = std::str::from_utf8(buffer.get(..length)?).ok()?.split_once(':')?;
    format.claims(user).then(|| if password.is_empty() { format.read(user) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::MemoryKeyStore;

    #[test]
    fn the_default_realm_makes_challenges() {
        let authenticator = ApiKeyAuthenticator::new(MemoryKeyStore::new());
        assert_eq!(authenticator.challenges()[0].to_string(), r#"ApiKey realm="api""#);
        let refusal = authenticator.refuse("test");
        assert_eq!(refusal.challenges().values(), [r#"ApiKey realm="api", error="invalid_key""#]);
    }

    #[test]
    fn settings_are_checked() {
        let new = || ApiKeyAuthenticator::new(MemoryKeyStore::new());
        assert!(new().with_realm("").is_err());
        assert!(new().with_realm("a\"b").is_err());
        assert!(new().with_store_name("").is_err());
        assert_eq!(new().with_realm("orders").unwrap().challenges()[0].to_string(), r#"ApiKey realm="orders""#);
    }

    #[test]
    fn basic_is_read_strictly() {
        let format = ApiKeyFormat::new("acme").unwrap(); // a length that base64 pads
        let key = format.generate().unwrap();
        let key = key.expose();
        let encode = |text: &str| STANDARD.encode(text);
        let good = encode(&format!("{key}:"));
        let read = |token: &str| in_basic(&format, token).map(|key| key.is_some());
        assert_eq!(read(&good), Some(true), "a key and no password");
        for (name, token, expected) in [
            ("a key and a password", encode(&format!("{key}:x")), Some(false)),
            ("meant to be a key", encode("acme_v1_short:"), Some(false)),
            ("a key of another prefix", encode(&format!("{key}:").replace("acme", "pc")), None),
            ("no colon", encode(key), None),
            ("a person", encode("alice:hunter2"), None),
            ("a key as password", encode(&format!(":{key}")), None),
            ("not base64", "!!!!".to_owned(), None),
            ("padding left out", good.trim_end_matches('=').to_owned(), None),
            ("too much padding", format!("{good}="), None),
            ("not UTF-8", STANDARD.encode([0xff, b':']), None),
            ("very long", encode(&format!("{key}:{}", "x".repeat(10_000))), None),
        ] {
            assert_ne!(token, good, "{name}");
            assert_eq!(read(&token), expected, "{name}");
        }
        let longest = ApiKeyFormat::new("abcdefghijklmnop").unwrap().environment("abcdefghijklmnop").unwrap();
        let key = longest.generate().unwrap();
        let token = encode(&format!("{}:", key.expose()));
        assert!(in_basic(&longest, &token).is_some_and(|key| key.is_some()), "the longest key fits");
    }
}
