use std::{fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use http::{HeaderName, header};

use crate::{
    api_key::{
        ApiKeyFormat, ApiKeyStore, Found, HashScheme, Hit, KeyHash, KeyIssuer, KeyUse, LastUse, LegacyFormat, Lookup,
        PepperId, Peppers, UseLog,
        format::Presented,
        place::{self, Carried, Formats, Others},
        voucher::KeyVoucher,
    },
    attempt::{Attempt, Fare},
    authn::{Authenticator, Claim, Identity, Outcome},
    challenge::{Challenge, Challenges},
    client::{ClientInfo, Connection},
    clock::Instants,
    credential::fields::TAKEN,
    error::{ConfigError, StoreError},
    head::RequestHead,
    log,
    now::Now,
    rejection::{Rejection, RejectionKind},
    voucher::Voucher,
};

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Compared with when there is no such key, so that a miss does the work of a hit. It admits nobody, whatever hashes to it.
const NO_SUCH_KEY: KeyHash = KeyHash::from_bytes([0; KeyHash::LEN]);

/// Why a presented key is none that is held here.
enum Mismatch {
    /// As anybody may make them up.
    Guess(&'static str),
    /// The record's fault.
    Unusable(&'static str),
}

/// Authenticates requests by API key. See the [module docs](crate::api_key) for where a key is read and what is refused.
///
/// A store that answers at once costs one SHA-256, one HMAC if there are peppers, and a few reference counts: no box, no
/// allocation once a key has been used.
///
/// ```
/// use portcullis::api_key::{ApiKeyAuthenticator, ApiKeyFormat, MemoryKeyStore};
///
/// let authenticator = ApiKeyAuthenticator::new(MemoryKeyStore::new())
///     .with_format(ApiKeyFormat::new("acme")?.environment("live")?)
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
    voucher: Arc<dyn Voucher>,
    formats: Formats,
    header: HeaderName,
    peppers: Option<Peppers>,
    accept_unpeppered: bool,
    tenant: Option<Box<str>>,
    uses: Option<UseLog>,
    strip_credential: bool,
    store_name: Arc<str>,
    offer: Vec<Challenge>,
    refusal: Challenges,
}

impl ApiKeyAuthenticator {
    /// Asks this store. Keys have the prefix `pc` and no environment, the realm is `api`, the store's name is `api-keys`.
    pub fn new(store: impl ApiKeyStore) -> Self {
        // A constant realm makes no error; a unit test checks it.
        let (offer, refusal) = challenges("api").unwrap_or_default();
        let store: Arc<dyn ApiKeyStore> = Arc::new(store);
        let shared = Shared {
            voucher: Arc::new(KeyVoucher::new(Arc::downgrade(&store))),
            store,
            formats: Formats { own: ApiKeyFormat::default(), legacy: None, others: Vec::new() },
            header: X_API_KEY.clone(),
            peppers: None,
            accept_unpeppered: false,
            tenant: None,
            uses: None,
            strip_credential: false,
            store_name: "api-keys".into(),
            offer,
            refusal,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes keys of this format, and of its environment alone.
    pub fn with_format(self, format: ApiKeyFormat) -> Self {
        self.set(|shared| shared.formats.own = format)
    }

    /// Takes keys that were hashed under one of these peppers, and no others: whoever can write to the store but has no pepper
    /// makes no key, unless [`accept_unpeppered`](Self::accept_unpeppered) or [`accept_legacy`](Self::accept_legacy) lets one in.
    pub fn with_peppers(self, peppers: Peppers) -> Self {
        self.set(|shared| shared.peppers = Some(peppers))
    }

    /// Beside peppers, takes keys as well that were made before there was one. Until they are rotated, who can write to the
    /// store can make a key.
    pub fn accept_unpeppered(self) -> Self {
        self.set(|shared| shared.accept_unpeppered = true)
    }

    /// Takes keys as well that another system made: see [`LegacyFormat`]. Their hashes have no pepper, also where there are
    /// peppers: until they are rotated, and this is taken back, who can write to the store can make a key.
    pub fn accept_legacy(self, format: LegacyFormat) -> Self {
        self.set(|shared| shared.formats.legacy = Some(format))
    }

    /// Leaves the keys of another authenticator to it, in the fields that both of them read: what begins with its prefix, of its format or
    /// its `LegacyFormat`. Say it to each of the two, once their formats and fields are set, and put them into
    /// [`one_of`](crate::authn::one_of): without, each refuses the keys of the other, and the stack does not build. For two stores of
    /// keys that have one prefix, write an [`ApiKeyStore`] that asks both.
    ///
    /// ```
    /// use portcullis::{
    ///     api_key::{ApiKeyAuthenticator, ApiKeyFormat, MemoryKeyStore},
    ///     authn::one_of,
    /// };
    ///
    /// let ours = ApiKeyAuthenticator::new(MemoryKeyStore::new()).with_format(ApiKeyFormat::new("acme")?);
    /// let partners = ApiKeyAuthenticator::new(MemoryKeyStore::new())
    ///     .with_format(ApiKeyFormat::new("partner")?)
    ///     .with_store_name("partner-keys")?;
    /// let keys = one_of((ours.clone().beside(&partners)?, partners.beside(&ours)?));
    /// # let _ = keys;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Security
    /// What begins like the other's keys is no credential to this one. Where the other does not stand beside it, nobody refuses that, and the
    /// request is anonymous.
    ///
    /// # Errors
    /// If a key of the one could be taken for one of the other: they have one prefix, or one of their prefixes begins like another, or the
    /// other has a `LegacyFormat` without a prefix.
    pub fn beside(self, other: &Self) -> Result<Self, ConfigError> {
        let (own, theirs) = (self.shared.formats.beginnings(), other.shared.formats.beginnings());
        let alike = |one: &str| own.iter().any(|own| own.starts_with(one) || one.starts_with(&**own));
        if let Some(beginning) = theirs.iter().find(|beginning| beginning.is_empty() || alike(beginning)) {
            let problem = "begins keys of both authenticators: give each a prefix of its own, or one of them a store that asks both";
            return Err(ConfigError::new("API key prefix", format!("{beginning:?}"), problem));
        }
        let others = Others { formats: other.shared.formats.alone(), header: other.shared.header.clone() };
        Ok(self.set(|shared| shared.formats.others.push(others)))
    }

    /// Takes keys of owners in this tenant alone. A key of another one is refused like one that does not exist.
    ///
    /// # Errors
    /// If the tenant is empty, has more than 256 bytes or a control character.
    pub fn for_tenant(self, tenant: &str) -> Result<Self, ConfigError> {
        super::bounds::tenant(tenant)?;
        Ok(self.set(|shared| shared.tenant = Some(tenant.into())))
    }

    /// Reads keys from this header field, instead of `X-API-Key`.
    ///
    /// # Errors
    /// If it is a field that carries something else: `Authorization`, `Proxy-Authorization`, `Cookie`, `Set-Cookie`, `Host`,
    /// `Origin`, `Referer`, `Sec-WebSocket-Protocol`.
    pub fn with_header(self, name: HeaderName) -> Result<Self, ConfigError> {
        if TAKEN.contains(&name) {
            return Err(ConfigError::new("API key header", name.as_str(), "carries something else"));
        }
        Ok(self.set(|shared| shared.header = name))
    }

    /// Notes when keys are used, and from where.
    pub fn record_uses(self, log: UseLog) -> Self {
        self.set(|shared| shared.uses = Some(log))
    }

    /// Removes the field that the key came in, once it is found good: neither the handler nor what the handler calls sees it.
    pub fn strip_credential(self) -> Self {
        self.set(|shared| shared.strip_credential = true)
    }

    /// Sets the realm that challenges name. Default `api`.
    ///
    /// # Errors
    /// If the realm is empty or has a character that a challenge cannot carry, as [`Challenge::new`] says.
    pub fn with_realm(self, realm: &str) -> Result<Self, ConfigError> {
        let (offer, refusal) = challenges(realm)?;
        Ok(self.set(|shared| (shared.offer, shared.refusal) = (offer, refusal)))
    }

    /// Sets the store's name: the [`issuer`](crate::Principal::issuer) of the principals. Two stores that name their
    /// subjects independently need two names, or `billing` of the one counts as `billing` of the other. Default `api-keys`.
    ///
    /// It is no URL, as most issuers of tokens are: whoever makes keys under the name of one would make people of that issuer. Where an
    /// issuer is a plain word, take another one; nobody compares the two.
    ///
    /// # Errors
    /// If the name is not 1 to 64 letters, digits, `-` and `_` of ASCII.
    pub fn with_store_name(self, name: &str) -> Result<Self, ConfigError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(fits) {
            let shown: String = name.chars().take(80).collect();
            return Err(ConfigError::new(
                "key store name",
                format!("{shown:?}"),
                "must be 1 to 64 letters, digits, - and _",
            ));
        }
        Ok(self.set(|shared| shared.store_name = name.into()))
    }

    /// What makes the keys that this takes: of its format, under its current pepper. Give it to whoever makes keys, such as
    /// `KeyAdmin::with_issuer`, so that both are set up in one place.
    ///
    /// ```
    /// # use portcullis::{SystemClock, Clock, api_key::{ApiKeyAuthenticator, ApiKeyFormat, MemoryKeyStore, NewApiKey}};
    /// let keys = ApiKeyAuthenticator::new(MemoryKeyStore::new()).with_format(ApiKeyFormat::new("acme")?);
    /// let (key, _) = keys.issuer().mint(NewApiKey::for_subject("billing"), SystemClock::new().now())?;
    /// assert!(key.expose().starts_with("acme_"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn issuer(&self) -> KeyIssuer {
        let issuer = KeyIssuer::new().with_format(self.shared.formats.own.clone());
        match &self.shared.peppers {
            Some(peppers) => issuer.with_peppers(peppers.clone()),
            None => issuer,
        }
    }

    fn set(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// The key that the request carries, and where; None if it carries none of ours.
    fn carried(&self, head: &RequestHead<'_>) -> Result<Option<(Presented, Carried)>, Rejection> {
        match place::find(&self.shared.formats, &self.shared.header, head)? {
            None => Ok(None),
            Some((Some(key), carried)) => Ok(Some((key, carried))),
            Some((None, _)) => Err(self.refuse("API key: malformed, or of another format".into())),
        }
    }

    fn conclude(
        &self,
        head: &RequestHead<'_>,
        (presented, carried): &(Presented, Carried),
        found: Found,
        at: Instants,
        fare: &mut Fare<'_>,
    ) -> Outcome {
        // Only a guess is in vain: neither a key that ended nor a store that fails.
        fare.is_due = false;
        let hit = match found {
            Ok(hit) => hit,
            Err(error) => return unanswered(&error).into(),
        };
        let reason = match self.check_secret(presented, hit.as_ref(), at) {
            Ok(hit) => match self.refusal(head, presented, hit, at) {
                None => return Outcome::Verified(self.verified(head, hit, *carried, at)),
                Some(reason) => reason,
            },
            Err(Mismatch::Guess(reason)) => {
                fare.is_due = true;
                reason
            }
            Err(Mismatch::Unusable(reason)) => reason,
        };
        self.refuse(format!("API key {}: {reason}", presented.id).into()).into()
    }

    /// Gives the record whose key the presented one is. The same work, whatever was found: one HMAC if there are peppers, one
    /// comparison.
    fn check_secret<'a>(&self, presented: &Presented, hit: Option<&'a Hit>, at: Instants) -> Result<&'a Hit, Mismatch> {
        let peppers = self.shared.peppers.as_ref();
        let pepper = hit.and_then(|hit| match hit.record().scheme() {
            HashScheme::HmacSha256 { pepper } => Some(pepper),
            HashScheme::Sha256 | HashScheme::LegacySha256 => None,
        });
        let keyed = peppers.and_then(|peppers| presented.keyed(peppers, pepper));
        let made = if pepper.is_some() { keyed.as_ref().unwrap_or(&NO_SUCH_KEY) } else { &presented.sha256 };
        let same = *made == *hit.map_or(&NO_SUCH_KEY, |hit| hit.record().hash());

        let hit = hit.ok_or(Mismatch::Guess("unknown id"))?;
        let scheme = hit.record().scheme();
        if presented.is_legacy() != (scheme == HashScheme::LegacySha256) {
            return Err(Mismatch::Guess("wrong secret"));
        }
        match scheme {
            HashScheme::HmacSha256 { pepper } if !peppers.is_some_and(|peppers| peppers.holds(pepper)) => {
                not_held(hit, pepper, at);
                Err(Mismatch::Unusable("cannot be verified: its pepper is not held"))
            }
            _ if !same => Err(Mismatch::Guess("wrong secret")),
            HashScheme::Sha256 if peppers.is_some() && !self.shared.accept_unpeppered => {
                Err(Mismatch::Unusable("was hashed without a pepper"))
            }
            HashScheme::Sha256 | HashScheme::HmacSha256 { .. } | HashScheme::LegacySha256 => Ok(hit),
        }
    }

    /// Why a key whose secret is right is not accepted.
    fn refusal(&self, head: &RequestHead<'_>, presented: &Presented, hit: &Hit, at: Instants) -> Option<&'static str> {
        let (shared, record) = (&*self.shared, hit.record());
        if !presented.in_environment || record.environment() != shared.formats.own.in_environment() {
            return Some("of another environment");
        }
        if shared.tenant.is_some() && record.tenant() != shared.tenant.as_deref() {
            return Some("of another tenant");
        }
        if hit.owner_disabled() {
            return Some("owner disabled");
        }
        record.refusal(at.unix_seconds()).or_else(|| {
            let vouched = || head.client().map_or_else(|| peer(head), ClientInfo::vouched_address);
            (!record.addresses().is_empty() && !record.allows(vouched())).then_some("address not allowed")
        })
    }

    fn verified(&self, head: &RequestHead<'_>, hit: &Hit, carried: Carried, at: Instants) -> Identity {
        let (shared, record) = (&*self.shared, hit.record());
        if let Some(log) = &shared.uses
            && record.is_first_use_in_a_while(at.unix_seconds())
        {
            log.note(KeyUse::new(*record.id(), LastUse::new(at.unix_seconds(), client(head))));
        }
        let identity = Identity::from(record.principal(&shared.store_name, &shared.voucher));
        let (identity, field) = match carried {
            // What stood in there leaves an `Authorization` unread.
            Carried::InOwnField => (identity.leaving_authorization(), &shared.header),
            Carried::InAuthorization => (identity, &header::AUTHORIZATION),
        };
        if shared.strip_credential { identity.stripping(field.clone()) } else { identity }
    }

    /// One answer for every bad key; only the operator learns why.
    fn refuse(&self, reason: std::borrow::Cow<'static, str>) -> Rejection {
        Rejection::new(RejectionKind::InvalidCredential, reason).with_challenges(self.shared.refusal.clone())
    }
}

#[async_trait]
impl Authenticator for ApiKeyAuthenticator {
    fn challenges(&self) -> Vec<Challenge> {
        static UNPEPPERED: log::Once = log::Once::new();
        if self.shared.peppers.is_none() {
            UNPEPPERED.warn("API keys are hashed without a pepper: who can write to their store can make keys");
        }
        self.shared.offer.clone()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![header::AUTHORIZATION, self.shared.header.clone()]
    }

    fn claims(&self) -> Vec<Claim> {
        const INSTEAD: &str = "say .beside(&other)? of each, or ask both stores in one authenticator";
        let Shared { formats, header, .. } = &*self.shared;
        let left = |others: &mut dyn Iterator<Item = &Others>| others.flat_map(|it| it.formats.beginnings()).collect();
        let in_field = left(&mut formats.others.iter().filter(|others| others.header == *header));
        vec![
            Claim::all(format!("the field {header}"), INSTEAD).all_but(formats.beginnings(), in_field),
            Claim::all("the scheme ApiKey", INSTEAD).all_but(formats.beginnings(), left(&mut formats.others.iter())),
        ]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        match self.carried(head) {
            // What is in memory costs nothing that an attacker could use up.
            Ok(Some(key)) => {
                let found = self.shared.store.find_now(lookup(head, &key.0, at));
                let mut free = Fare::new(Attempt::uncounted(), None, false);
                found.map(|found| self.conclude(head, &key, found, at, &mut free))
            }
            Ok(None) => Now::Known(Outcome::Absent),
            Err(rejection) => Now::Known(rejection.into()),
        }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match self.carried(head) {
            Ok(Some(key)) => {
                let attempt = head.attempt();
                let id = attempt.is_counted().then(|| key.0.id.to_string());
                // One question for a key that exists, now and then, is no use to an attacker; its neighbours' guesses must not shut
                // it out.
                let is_due = id.is_some() && !self.shared.store.remembers(&key.0.id);
                if is_due && let Err(rejection) = attempt.before(id.as_deref()) {
                    return rejection.into();
                }
                let mut fare = Fare::new(attempt, id.as_deref(), is_due);
                let found = self.shared.store.find(lookup(head, &key.0, at)).await;
                self.conclude(head, &key, found, at, &mut fare)
            }
            Ok(None) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        }
    }
}

impl fmt::Debug for ApiKeyAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyAuthenticator")
            .field("store", &self.shared.store)
            .field("formats", &self.shared.formats)
            .field("peppers", &self.shared.peppers)
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
    // Borrowed, where it can be: a copy counts a reference.
    let peer = match head.extension::<Connection>() {
        Some(connection) => connection.peer(),
        None => head.connection().and_then(|connection| connection.peer()),
    };
    peer.map(|peer| peer.ip().to_canonical())
}

/// The store did not answer.
fn unanswered(error: &StoreError) -> Rejection {
    Rejection::unanswered(error, format!("API key: {error}"))
}

/// An operator's mistake: the client is refused like anybody.
fn not_held(hit: &Hit, pepper: PepperId, at: Instants) {
    static SAID: log::Seldom = log::Seldom::new();
    let id = hit.record().id();
    SAID.error(
        at,
        &format!("API key {id} was hashed under the pepper {pepper}, which is not held: add it as a previous one"),
    );
}

/// What a request without a key is offered, and what one with a bad key gets: written once.
fn challenges(realm: &str) -> Result<(Vec<Challenge>, Challenges), ConfigError> {
    let offer = Challenge::new(place::SCHEME, realm)?;
    let refusal = offer.clone().with("error", "invalid_key")?;
    Ok((vec![offer], [refusal].into_iter().collect()))
}

#[cfg(test)]
mod tests;
