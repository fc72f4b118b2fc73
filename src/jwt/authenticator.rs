use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    authn::{Authenticator, Outcome},
    challenge::{Challenge, Challenges},
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    jwt::{
        IssuerProfile, Refusal,
        claims::Claims,
        keys::{KeyHealth, KeySource, KeysUnavailable, Refresh},
        profile::{NO_KEY, NoKey, Profile},
        token::{self, Buffer},
    },
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// Authenticates requests by a JWT in `Authorization: Bearer`. See the [module docs](crate::jwt).
///
/// It claims a Bearer token that has a dot in it; one without is somebody else's opaque token, and another scheme somebody
/// else's credential. It answers at once, unless it has to fetch keys first. A clone costs one reference count.
#[derive(Clone)]
pub struct JwtAuthenticator {
    shared: Arc<Shared>,
}

struct Shared {
    profiles: Box<[Profile]>,
    /// The claims that any profile maps.
    names: Box<[Box<str>]>,
    leeway: Duration,
    challenge: Challenge,
    invalid_token: Challenges,
}

impl JwtAuthenticator {
    /// Starts a configuration.
    pub fn builder() -> JwtAuthenticatorBuilder {
        JwtAuthenticatorBuilder { profiles: Vec::new(), leeway: DEFAULT_LEEWAY, realm: "api".to_owned() }
    }

    /// Checks a token that came by another way than `Authorization`, in the first message of a WebSocket for example.
    ///
    /// # Errors
    /// [`InvalidCredential`](RejectionKind::InvalidCredential) (`401`) with a Bearer challenge of `invalid_token`, whatever
    /// is wrong; the reason is for the operator and holds nothing of the token. [`Unavailable`](RejectionKind::Unavailable)
    /// (`503`) if keys have to be fetched first: use [`verify_waiting`](Self::verify_waiting) where they may.
    pub fn verify(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        match self.verify_now(token, at, Due::Ignored) {
            Now::Known(result) => result,
            Now::Wait => Err(KeysUnavailable::new("keys must be fetched first", 1).into()),
        }
    }

    /// Checks a token as [`verify`](Self::verify), and waits for keys where that may help.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); `503` only if the keys cannot be had.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn verify_waiting(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        let shared = &*self.shared;
        let fault = match shared.verify(token, at, Due::Asked) {
            Ok(principal) => return Ok(principal),
            Err(fault) => fault,
        };
        let Fault::Keys(fault) = fault else { return Err(shared.refuse(fault)) };
        let refresh = fault.source.refresh_for(fault.kid.as_deref(), fault.seen, at).await;
        shared.after(refresh, token, at, fault.gap)
    }

    /// Waits until every issuer has keys: for a service that would rather not start without them. By default it starts, is
    /// not [ready](Self::is_ready), and answers `503` until the keys are there.
    ///
    /// # Errors
    /// If an issuer has none and cannot get any now.
    pub async fn fail_fast(&self, at: Instants) -> Result<(), KeysUnavailable> {
        for profile in &self.shared.profiles {
            let source = profile.keys.source();
            if source.snapshot(at).is_err()
                && let Refresh::Unavailable(cause) = source.refresh_for(None, 0, at).await
            {
                return Err(cause);
            }
        }
        Ok(())
    }

    /// Whether every issuer has keys.
    #[must_use]
    pub fn is_ready(&self, at: Instants) -> bool {
        self.readiness(at).all(|(_, health)| health.is_ready())
    }

    /// How the keys of each issuer are doing, by the issuer's name.
    pub fn readiness(&self, at: Instants) -> impl Iterator<Item = (&str, KeyHealth)> {
        self.shared.profiles.iter().map(move |profile| (&*profile.issuer, profile.keys.source().health(at)))
    }

    fn verify_now(&self, token: &str, at: Instants, due: Due) -> Now<Result<Principal, Rejection>> {
        let shared = &*self.shared;
        match shared.verify(token, at, due) {
            Ok(principal) => Now::Known(Ok(principal)),
            Err(Fault::Keys(fault)) => fault
                .source
                .refresh_now(fault.kid.as_deref(), fault.seen, at)
                .map(|refresh| shared.after(refresh, token, at, fault.gap)),
            Err(fault) => Now::Known(Err(shared.refuse(fault))),
        }
    }
}

/// Why a token is not verified.
enum Fault<'a> {
    Refused(Refusal),
    /// For lack of keys, which asking the source may change.
    Keys(KeyFault<'a>),
}

struct KeyFault<'a> {
    source: &'a dyn KeySource,
    kid: Option<Box<str>>,
    seen: u64,
    gap: Gap,
}

/// What is lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// Any keys.
    All,
    /// The one that the token asks for.
    One,
    /// Nothing, but the source would like to be refreshed.
    Refresh,
}

impl From<Refusal> for Fault<'_> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What to do when keys are good and yet due for a refresh that nobody but the requests can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Asked,
    Ignored,
}

impl Shared {
    /// Cheap checks come first; the signature, which costs most, comes last and before anything is believed.
    fn verify(&self, token: &str, at: Instants, due: Due) -> Result<Principal, Fault<'_>> {
        let parts = token::split(token)?;
        let mut buffer = Buffer::for_token(token);
        let mut rest = buffer.rest();
        let header = token::read_header(token::text(token::decode(parts.header, &mut rest)?)?)?;
        let claims_text = token::text(token::decode(parts.claims, &mut rest)?)?;
        let claims = Claims::read(claims_text, &self.names)?;
        // The issuer comes first, then its keys: keys are never pooled across issuers (RFC 8725 §3.8).
        let profile = claims.iss.as_deref().and_then(|iss| self.profiles.iter().find(|known| *known.issuer == *iss));
        let profile = profile.ok_or(Refusal("iss is missing or not known"))?;
        profile.check(&header, &claims, Duration::from_nanos(at.unix_nanos()), self.leeway)?;
        let signature = token::decode(parts.signature, &mut rest)?;
        let fault = |seen, gap| {
            let kid = header.key_id.as_deref().map(Box::from);
            Fault::Keys(KeyFault { source: profile.keys.source(), kid, seen, gap })
        };
        let held = profile.keys.now(at).map_err(|_| fault(0, Gap::All))?;
        if held.is_due() && due == Due::Asked {
            return Err(fault(held.generation(), Gap::Refresh));
        }
        match Profile::check_signature(held.keys(), &header, parts.signed.as_bytes(), signature) {
            Ok(()) => Ok(profile.principal(&claims, claims_text)?),
            Err(NoKey::Final(refusal)) => Err(refusal.into()),
            Err(NoKey::Unknown) => Err(fault(held.generation(), Gap::One)),
        }
    }

    /// The answer once the source was asked for keys: the token gets one more try, and no third.
    fn after(&self, refresh: Refresh, token: &str, at: Instants, gap: Gap) -> Result<Principal, Rejection> {
        match (refresh, gap) {
            (Refresh::LookAgain, _) | (_, Gap::Refresh) => {
                self.verify(token, at, Due::Ignored).map_err(|fault| self.refuse(fault))
            }
            (Refresh::NothingNew, _) => Err(self.refuse(Refusal(NO_KEY).into())),
            (Refresh::Unavailable(cause), _) => Err(cause.into()),
        }
    }

    fn refuse(&self, fault: Fault<'_>) -> Rejection {
        let reason = match fault {
            Fault::Refused(Refusal(reason)) => reason,
            Fault::Keys(KeyFault { gap: Gap::One | Gap::Refresh, .. }) => NO_KEY,
            Fault::Keys(KeyFault { gap: Gap::All, .. }) => {
                return KeysUnavailable::new("no keys to verify with", 1).into();
            }
        };
        Rejection::new(RejectionKind::InvalidCredential, reason).with_challenges(self.invalid_token.clone())
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("issuers", &self.shared.profiles)
            .field("leeway", &self.shared.leeway)
            .field("challenge", &self.shared.challenge)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    fn challenges(&self) -> Vec<Challenge> {
        vec![self.shared.challenge.clone()]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        match token_of(head) {
            Ok(Some(token)) => self.verify_now(token, at, Due::Asked).map(outcome),
            Ok(None) => Now::Known(Outcome::Absent),
            Err(rejection) => Now::Known(rejection.into()),
        }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match token_of(head) {
            Ok(Some(token)) => outcome(self.verify_waiting(token, at).await),
            Ok(None) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        }
    }
}

/// The token of a request, if it has one of our kind.
fn token_of<'h>(head: &RequestHead<'h>) -> Result<Option<&'h str>, Rejection> {
    let credential = head.authorization()?;
    Ok(credential
        .filter(|credential| credential.is_scheme("Bearer"))
        .map(|credential| credential.token())
        .filter(|token| token.contains('.')))
}

fn outcome(result: Result<Principal, Rejection>) -> Outcome {
    result.map_or_else(Outcome::from, Outcome::verified)
}

const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// Configures a [`JwtAuthenticator`]; made by [`JwtAuthenticator::builder`].
#[must_use]
#[derive(Clone, Debug)]
pub struct JwtAuthenticatorBuilder {
    profiles: Vec<IssuerProfile>,
    leeway: Duration,
    realm: String,
}

impl JwtAuthenticatorBuilder {
    /// Trusts an issuer, at least one. Each has its own keys, algorithms and audience.
    pub fn issuer(mut self, profile: IssuerProfile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Sets how far the issuer's clock may be off, for `exp`, `nbf` and `iat` alike. Default 60 s, at most 300 s (RFC 7519
    /// §4.1.4: "no more than a few minutes").
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets the realm of the challenge. Default `api`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// Finishes the authenticator.
    ///
    /// # Errors
    /// If there is no issuer or one stands twice; an issuer or audience is empty; an issuer has no algorithm, lacks a key
    /// for one, or mixes symmetric with asymmetric keys; a mapped claim is empty or registered; an access-token option is
    /// set for ID tokens; the leeway is above 300 s; the realm is not printable ASCII without quotes.
    pub fn build(self) -> Result<JwtAuthenticator, ConfigError> {
        if self.profiles.is_empty() {
            return Err(ConfigError::new("JWT issuers", "none", "must be at least one"));
        }
        if self.leeway > MAX_LEEWAY {
            return Err(ConfigError::new("JWT leeway", format!("{:?}", self.leeway), "must be at most 300 s"));
        }
        let mut names: Vec<Box<str>> = vec!["scope".into()];
        let mut profiles: Vec<Profile> = Vec::with_capacity(self.profiles.len());
        for profile in self.profiles {
            if profiles.iter().any(|known| *known.issuer == *profile.name()) {
                return Err(ConfigError::new("JWT issuer", format!("{:?}", profile.name()), "stands twice"));
            }
            profiles.push(profile.accept(&mut names)?);
        }
        let challenge = Challenge::new("Bearer", &self.realm)?;
        let invalid_token = challenge.clone().with("error", "invalid_token")?;
        Ok(JwtAuthenticator {
            shared: Arc::new(Shared {
                profiles: profiles.into(),
                names: names.into(),
                leeway: self.leeway,
                challenge,
                invalid_token: [invalid_token].into_iter().collect(),
            }),
        })
    }
}
