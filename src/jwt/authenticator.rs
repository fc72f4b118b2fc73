use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    authn::{Authenticator, Outcome},
    challenge::{Challenge, Challenges},
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    jwt::{
        CacheStats, IssuerProfile, Refusal, TokenCache,
        cache::{Cache, Terms},
        claims::Claims,
        profile::Profile,
        token::{self, Buffer},
    },
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// Authenticates requests by a JWT in `Authorization: Bearer`. See the [module docs](crate::jwt).
///
/// It claims a Bearer token that has a dot in it; one without is somebody else's opaque token, and another scheme somebody
/// else's credential. It always answers at once. A clone costs one reference count.
#[derive(Clone)]
pub struct JwtAuthenticator {
    shared: Arc<Shared>,
}

struct Shared {
    profiles: Box<[Profile]>,
    /// The claims that any profile maps.
    names: Box<[Box<str>]>,
    leeway: Duration,
    cache: Option<Cache>,
    challenge: Challenge,
    invalid_token: Challenges,
}

impl JwtAuthenticator {
    /// Starts a configuration.
    pub fn builder() -> JwtAuthenticatorBuilder {
        JwtAuthenticatorBuilder {
            profiles: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            realm: "api".to_owned(),
            cache: Some(TokenCache::new()),
        }
    }

    /// Checks a token that came by another way than `Authorization`, in the first message of a WebSocket for example.
    ///
    /// # Errors
    /// [`InvalidCredential`](RejectionKind::InvalidCredential) (`401`) with a Bearer challenge of `invalid_token`, whatever
    /// is wrong; the reason is for the operator and holds nothing of the token.
    pub fn verify(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        self.shared.verify(token, at).map_err(|Refusal(reason)| {
            Rejection::new(RejectionKind::InvalidCredential, reason).with_challenges(self.shared.invalid_token.clone())
        })
    }

    /// What the cache of verified tokens has done, and holds now; none without a cache. Costs a walk over the table: for a
    /// metric that is read every few seconds, not for each request.
    #[must_use]
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.shared.cache.as_ref().map(Cache::stats)
    }
}

impl Shared {
    /// A token that comes again is looked up. What may change while it lives must be checked on both ways.
    fn verify(&self, token: &str, at: Instants) -> Result<Principal, Refusal> {
        let Some(cache) = &self.cache else { return self.verify_anew(token, at) };
        match cache.get(token, at, |issuer| self.profiles.get(issuer).map(Profile::generation)) {
            Some(principal) => Ok(principal),
            None => self.verify_anew(token, at),
        }
    }

    /// Cheap checks come first; the signature, which costs most, comes last and before anything is believed.
    fn verify_anew(&self, token: &str, at: Instants) -> Result<Principal, Refusal> {
        let parts = token::split(token)?;
        let mut buffer = Buffer::for_token(token);
        let mut rest = buffer.rest();
        let header = token::read_header(token::text(token::decode(parts.header, &mut rest)?)?)?;
        let claims_text = token::text(token::decode(parts.claims, &mut rest)?)?;
        let claims = Claims::read(claims_text, &self.names)?;
        // The issuer comes first, then its keys: keys are never pooled across issuers (RFC 8725 §3.8).
        let issuer = claims.iss.as_deref().and_then(|iss| self.profiles.iter().position(|known| *known.issuer == *iss));
        let known = issuer.and_then(|issuer| Some((issuer, self.profiles.get(issuer)?)));
        let (issuer, profile) = known.ok_or(Refusal("iss is missing or not known"))?;
        profile.check(&header, &claims, Duration::from_nanos(at.unix_nanos()), self.leeway)?;
        let signature = token::decode(parts.signature, &mut rest)?;
        // Read before the keys are: a change between the two makes the entry one of the past.
        let generation = profile.generation();
        profile.check_signature(&header, parts.signed.as_bytes(), signature)?;
        let principal = profile.principal(&claims, claims_text)?;
        if let (Some(cache), Some((from, until))) = (&self.cache, profile.window(&claims, self.leeway))
            && let Some(terms) = Terms::new(nanos(from), nanos(until), issuer, generation)
        {
            cache.insert(token, &principal, terms, at);
        }
        Ok(principal)
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("issuers", &self.shared.profiles)
            .field("leeway", &self.shared.leeway)
            .field("challenge", &self.shared.challenge)
            .field("cache", &self.shared.cache)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    fn challenges(&self) -> Vec<Challenge> {
        vec![self.shared.challenge.clone()]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        Now::Known(match head.authorization() {
            Ok(Some(credential)) if credential.is_scheme("Bearer") && credential.token().contains('.') => {
                self.verify(credential.token(), at).map_or_else(Outcome::from, Outcome::verified)
            }
            Ok(_) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        })
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        match self.authenticate_now(head, at) {
            Now::Known(outcome) => outcome,
            Now::Wait => Rejection::new(RejectionKind::Unavailable, "the JWT authenticator did not answer").into(),
        }
    }
}

fn nanos(date: Duration) -> u64 {
    u64::try_from(date.as_nanos()).unwrap_or(u64::MAX)
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
    cache: Option<TokenCache>,
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

    /// Sets the size and the kind of the cache of verified tokens. Default [`TokenCache::new`].
    pub fn cache(mut self, cache: TokenCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Remembers no tokens: each request pays for its signature check.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// Finishes the authenticator.
    ///
    /// # Errors
    /// If there is no issuer or one stands twice; an issuer or audience is empty; an issuer has no algorithm, lacks a key
    /// for one, or mixes symmetric with asymmetric keys; a mapped claim is empty or registered; an access-token option is
    /// set for ID tokens; the leeway is above 300 s; the cache has no or too many entries, or no bytes; the realm is not printable ASCII without quotes.
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
                cache: self.cache.as_ref().map(TokenCache::build).transpose()?,
                challenge,
                invalid_token: [invalid_token].into_iter().collect(),
            }),
        })
    }
}
