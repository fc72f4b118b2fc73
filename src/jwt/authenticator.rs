use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::HeaderName;

use crate::{
    authn::{Authenticator, Outcome},
    challenge::{Challenge, Challenges},
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    jwt::{
        CacheStats, CookiePlace, IssuerProfile, Refusal, TokenCache,
        cache::{Cache, Terms},
        claims::Claims,
        path::Mapped,
        place::Places,
        profile::Profile,
        routes::Routes,
        token::{self, Buffer},
    },
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// Authenticates requests by a JWT in `Authorization: Bearer`, or where the builder says. See the
/// [module docs](crate::jwt).
///
/// It claims a Bearer token that has a dot in it; one without is somebody else's opaque token, and another scheme somebody
/// else's credential. A header field or cookie that it was given is its own, whatever stands there. It always answers at once. A clone costs one reference count.
#[derive(Clone)]
pub struct JwtAuthenticator {
    shared: Arc<Shared>,
}

struct Shared {
    routes: Routes,
    /// The claims that any profile maps.
    mapped: Mapped,
    leeway: Duration,
    places: Places,
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
            authorization: true,
            headers: Vec::new(),
            cookies: Vec::new(),
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
        match cache.get(token, at, |issuer| self.routes.profile(issuer).map(Profile::generation)) {
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
        let claims = Claims::read(claims_text, &self.mapped)?;
        // The issuer comes first, then its keys: keys are never pooled across issuers (RFC 8725 §3.8).
        let known = claims.iss.as_deref().and_then(|iss| self.routes.find(iss));
        let (issuer, profile, name) = known.ok_or(Refusal("iss is missing or not known"))?;
        profile.check(name, &header, &claims, Duration::from_nanos(at.unix_nanos()), self.leeway)?;
        let signature = token::decode(parts.signature, &mut rest)?;
        // Read before the keys are: a change between the two makes the entry one of the past.
        let generation = profile.generation();
        profile.check_signature(&header, parts.signed.as_bytes(), signature)?;
        let principal = profile.principal(name, &claims, claims_text)?;
        if let (Some(cache), Some((from, until))) = (&self.cache, profile.window(&claims, self.leeway)) {
            let terms = Terms { from: nanos(from), until: nanos(until), issuer, generation };
            cache.insert(token, &principal, terms, at);
        }
        Ok(principal)
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("issuers", &self.shared.routes)
            .field("leeway", &self.shared.leeway)
            .field("places", &self.shared.places)
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

    fn credential_headers(&self) -> Vec<HeaderName> {
        self.shared.places.fields()
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        Now::Known(match self.shared.places.find(head, &self.shared.invalid_token) {
            Ok(Some(presented)) => presented.conclude(self.verify(presented.token, at)),
            Ok(None) => Outcome::Absent,
            Err(outcome) => outcome,
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
    authorization: bool,
    headers: Vec<String>,
    cookies: Vec<CookiePlace>,
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

    /// Takes tokens from this header field as well, for a proxy that authenticates people and hands on who they are:
    /// `x-goog-iap-jwt-assertion`, for example. The value is the bare token, on one line.
    ///
    /// A request with tokens in two places is refused with `400`, and so is one with an `Authorization` besides, which nobody
    /// would look at.
    ///
    /// # Security
    /// The token is verified as any other, so a client that sends the field itself gains nothing. But a proxy that logs people
    /// in by a cookie must guard against cross-site requests itself: nothing here can tell them.
    pub fn header(mut self, name: impl Into<String>) -> Self {
        self.headers.push(name.into());
        self
    }

    /// Takes tokens from this cookie as well, where no `Authorization` and no header field of
    /// [`header`](Self::header) came. A bad cookie makes a request anonymous, and refuses it only where an identity is needed.
    pub fn cookie(mut self, place: CookiePlace) -> Self {
        self.cookies.push(place);
        self
    }

    /// Takes no tokens from `Authorization`, only from the header fields and cookies that are named.
    pub fn without_authorization(mut self) -> Self {
        self.authorization = false;
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
    /// set for ID tokens; the leeway is above 300 s; there is no place for tokens, one stands twice, or a header field has another
    /// meaning; the cache has no or too many entries, or no bytes; the realm is not printable ASCII without quotes.
    pub fn build(self) -> Result<JwtAuthenticator, ConfigError> {
        if self.profiles.is_empty() {
            return Err(ConfigError::new("JWT issuers", "none", "must be at least one"));
        }
        if self.leeway > MAX_LEEWAY {
            return Err(ConfigError::new("JWT leeway", format!("{:?}", self.leeway), "must be at most 300 s"));
        }
        let mut mapped = Mapped::new();
        let mut routes = Routes::default();
        for profile in self.profiles {
            routes.add(profile.accept(&mut mapped)?)?;
        }
        let places = Places::new(self.authorization, self.headers, self.cookies)?;
        let challenge = Challenge::new(places.scheme(), &self.realm)?;
        let invalid_token = challenge.clone().with("error", "invalid_token")?;
        Ok(JwtAuthenticator {
            shared: Arc::new(Shared {
                routes,
                mapped,
                leeway: self.leeway,
                places,
                cache: self.cache.as_ref().map(TokenCache::build).transpose()?,
                challenge,
                invalid_token: [invalid_token].into_iter().collect(),
            }),
        })
    }
}
