use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    asking::{Asking, Notices},
    authenticator::{Introspection, Shared},
    client::ClientAuthentication,
    opaque::{Memory, Opaque},
};
#[cfg(feature = "dpop")]
use crate::jwt::bound::Dpop;
use crate::{
    error::ConfigError,
    http_client::{Endpoint, FetchLimits, HttpClient, HttpFetch, HttpsFetch, LastAnswer, UrlText},
    jwt::{
        ClaimPath, KeySet, TokenCache,
        builder::{DEFAULT_LEEWAY, check_leeway},
        entrance::EntranceRules,
        keys::Keys,
        path::Mapped,
        profile::{Lacks, ScopeForm, TokenKind, Untyped},
        resource_metadata::MetadataUrl,
        revoked::Revocations,
        rules::{Bind, NameRule, Rules},
    },
    revocation::RevocationStore,
};

/// Configures an [`Introspection`]; made by [`Introspection::builder`]. [`issuer`](Self::issuer),
/// [`endpoint`](Self::endpoint), [`client`](Self::client) and [`audience`](Self::audience) must be said.
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Clone, Debug)]
pub struct IntrospectionBuilder {
    issuer: String,
    endpoint: Option<UrlText>,
    client: Option<ClientAuthentication>,
    audiences: Vec<String>,
    http: Option<Arc<dyn HttpFetch>>,
    limits: FetchLimits,
    max_in_flight: usize,
    http_on_loopback: bool,
    rules: Rules,
    lacks: Lacks,
    leeway: Duration,
    cache: Option<TokenCache>,
    remember_for: Duration,
    max_refused: usize,
    refused_for: Duration,
    revocations: Option<Arc<dyn RevocationStore>>,
    jwts_too: bool,
    prefixes: Option<Vec<String>>,
    entrance: EntranceRules,
    chosen: Option<&'static str>,
}

impl IntrospectionBuilder {
    /// How long a request to the endpoint may take unless it is said.
    pub const DEFAULT_TIME: Duration = Duration::from_secs(2);
    /// The largest answer unless it is said.
    pub const DEFAULT_BYTES: usize = 64 * 1024;
    /// The most requests at once unless it is said.
    pub const DEFAULT_IN_FLIGHT: usize = 64;
    /// The longest that a good token is remembered.
    pub const MAX_REMEMBERED: Duration = Duration::from_secs(60);
    /// How long a token that was refused is remembered unless it is said.
    pub const DEFAULT_REFUSED: Duration = Duration::from_secs(2);
    /// How many tokens that were refused are remembered unless it is said.
    pub const DEFAULT_MAX_REFUSED: usize = 16_384;

    pub(super) fn new() -> Self {
        let kind = TokenKind::Access(Untyped::WithoutIdClaims);
        Self {
            issuer: String::new(),
            endpoint: None,
            client: None,
            audiences: Vec::new(),
            http: None,
            limits: FetchLimits::new(Self::DEFAULT_TIME, Self::DEFAULT_BYTES),
            max_in_flight: Self::DEFAULT_IN_FLIGHT,
            http_on_loopback: false,
            rules: Rules::new(kind, Bind::Audience(Vec::new())),
            lacks: Lacks::default(),
            leeway: DEFAULT_LEEWAY,
            cache: Some(TokenCache::new()),
            remember_for: Self::MAX_REMEMBERED,
            max_refused: Self::DEFAULT_MAX_REFUSED,
            refused_for: Self::DEFAULT_REFUSED,
            revocations: None,
            jwts_too: false,
            prefixes: None,
            entrance: EntranceRules::new(),
            chosen: None,
        }
    }

    /// Names the issuer, as principals have it. An answer that has an `iss` must have this one, byte for byte; one that has
    /// none is taken at the word of the [`endpoint`](Self::endpoint).
    pub fn issuer(mut self, name: impl Into<String>) -> Self {
        self.issuer = name.into();
        self
    }

    /// Sets the URL of the introspection endpoint (RFC 7662 §2): `https`.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(UrlText(url.into()));
        self
    }

    /// Sets how this service authenticates at the endpoint.
    pub fn client(mut self, client: ClientAuthentication) -> Self {
        self.client = Some(client);
        self
    }

    /// Takes tokens for this audience; called again, for this one as well. `aud` must be there and hold one of them, byte for
    /// byte.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Sends requests with this client. Default: an [`HttpsFetch`] that trusts the system's certificates and keeps as many
    /// connections as requests may be on their way.
    pub fn http(mut self, client: impl HttpFetch) -> Self {
        self.http = Some(Arc::new(client));
        self
    }

    /// Sets the limits of a request. Default 2 s from its start to the last byte of the answer, connecting included, and
    /// 64 KiB.
    pub const fn limits(mut self, limits: FetchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many requests may be on their way at once, 1 to 10 000. Default 64. A token beyond it is `503`: an endpoint that
    /// is slow must not pile up requests here.
    pub const fn max_in_flight(mut self, most: usize) -> Self {
        self.max_in_flight = most;
        self
    }

    /// Takes an `http` URL whose host is this machine: a sidecar, or tests.
    ///
    /// # Security
    /// Whoever can listen on the port then says who is who, and gets all tokens.
    pub const fn dangerous_http_on_loopback(mut self) -> Self {
        self.http_on_loopback = true;
        self
    }

    /// Sets the size of the cache of good tokens. Default [`TokenCache::new`]. It keeps the SHA-256 of a token and never the token,
    /// also without [`digest_keys`](TokenCache::digest_keys).
    pub const fn cache(mut self, cache: TokenCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Remembers no good tokens: each request asks the endpoint, but for those that ask for the same token at the same time. Tokens
    /// that were refused are remembered all the same.
    pub const fn without_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// Sets how long a good token is remembered after it was asked about, and so how long one that was revoked at the provider
    /// may still pass: 1 to 60 s, and never past its `exp`. Default 60 s.
    pub const fn remember_for(mut self, time: Duration) -> Self {
        self.remember_for = time;
        self
    }

    /// Sets how long a token that was refused is refused again without asking, 1 to 5 s from the refusal. Default 2 s.
    pub const fn refused_for(mut self, time: Duration) -> Self {
        self.refused_for = time;
        self
    }

    /// Sets how many tokens that were refused are remembered, 1 to 4 194 304. Default 16 384, of about 100 bytes each. They
    /// stand apart from the good ones: random tokens push out one another.
    pub const fn max_refused(mut self, most: usize) -> Self {
        self.max_refused = most;
        self
    }

    /// Sets how far the issuer's clock may be off, for `exp`, `nbf` and `iat` alike. Default 60 s, at most 300 s. What is
    /// remembered ends at `exp` without it.
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Takes tokens without `exp`, which end only when the provider says so. By default `exp` is required. Not together with
    /// [`revocations`](Self::revocations), which are kept for tokens that end.
    ///
    /// An exchange that outlasts its request, a stream for example, ends when the answer about such a token is as old as
    /// [`remember_for`](Self::remember_for) says; see [long-lived exchanges](crate::manual::long_lived).
    pub const fn without_exp(mut self) -> Self {
        self.lacks.exp = true;
        self
    }

    /// Takes answers without `sub` for tokens of their client: the principal is a
    /// [`Service`](crate::PrincipalKind::Service) whose subject is `client_id`, by which it is revoked as well. By default `sub` is
    /// required.
    ///
    /// # Security
    /// Only for providers that leave `sub` out of nothing but the tokens that clients get for themselves: where it is missing
    /// from a user's token as well, the user would act as the client.
    pub const fn clients_without_sub(mut self) -> Self {
        self.lacks.sub = true;
        self
    }

    /// Introspects tokens that are shaped like a JWT as well, all that come as Bearer. By default they are somebody else's: see
    /// [`by_shape`](super::by_shape).
    pub const fn jwts_too(mut self) -> Self {
        self.jwts_too = true;
        self
    }

    /// Takes only those tokens in `Authorization` that begin with one of these, and leaves the others to who stands beside it in
    /// [`one_of`](crate::authn::one_of): two providers of opaque tokens are told apart by it. Called again, it adds to them. By
    /// default any beginning will do.
    pub fn only_beginning_with<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        self.prefixes.get_or_insert_default().extend(prefixes.into_iter().map(Into::into));
        self
    }

    /// Requires these members to be there, of whatever value.
    pub fn required<T: Into<ClaimPath>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.rules.required.extend(claims.into_iter().map(|claim| vec![claim.into()]));
        self
    }

    /// Requires this member to be a string, and one of these. Several such rules must all hold. Of the registered ones, `acr`, `azp`,
    /// `client_id` and `jti` may be named.
    pub fn claim_must_be<T: Into<String>>(
        mut self,
        claim: impl Into<ClaimPath>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.rules.expected.push((claim.into(), values.into_iter().map(Into::into).collect()));
        self
    }

    /// Reads the scopes from this member, a string with spaces. Default: `scope` (RFC 7662 §2.2).
    pub fn scope_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.scope = Some((claim.into(), ScopeForm::Text));
        self
    }

    /// Reads the scopes from this member, an array of strings.
    pub fn scope_array_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.scope = Some((claim.into(), ScopeForm::Array));
        self
    }

    /// Reads the roles from this member, an array of strings, as
    /// [`IssuerProfile::roles_claim`](crate::jwt::IssuerProfile::roles_claim). Default: no roles.
    pub fn roles_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.roles = Some(claim.into());
        self
    }

    /// Reads permissions from this member, an array of strings. Default: none.
    pub fn permissions_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.permissions = Some(claim.into());
        self
    }

    /// Reads the tenant from this member, a string. Default: no tenant. Once named it is required.
    pub fn tenant_claim(mut self, claim: impl Into<ClaimPath>) -> Self {
        self.rules.tenant = Some(claim.into());
        self
    }

    /// Refuses tokens that live longer, from `iat` to `exp`; both are then required. Default: any lifetime.
    pub const fn max_lifetime(mut self, longest: Duration) -> Self {
        self.rules.max_lifetime = Some(longest);
        self
    }

    /// Refuses tokens that were issued longer ago than this, whatever their `exp`; `iat` is then required. The leeway is
    /// added. Default: any age.
    pub const fn max_age(mut self, oldest: Duration) -> Self {
        self.rules.max_age = Some(oldest);
        self
    }

    /// Refuses tokens that this store was told of: on every request, remembered tokens included. Default: none.
    ///
    /// An answer must then have `iat` and `exp`, and a token may not live longer than the store
    /// [keeps](crate::revocation::RevocationLimits::kept_for) revocations; its `sid`, if it has one, must be a string. While the store
    /// cannot say what was revoked, requests are refused with `503` and the endpoint is not asked.
    pub fn revocations(mut self, store: impl RevocationStore) -> Self {
        self.revocations = Some(Arc::new(store));
        self
    }

    /// Sets the realm of the challenge. Default `api`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.entrance.realm = realm.into();
        self.chosen = Some("a realm");
        self
    }

    /// Names the URL of the metadata of this API in its challenges (RFC 9728 §5.1); see
    /// [`JwtAuthenticatorBuilder::resource_metadata`](crate::jwt::JwtAuthenticatorBuilder::resource_metadata).
    pub fn resource_metadata(mut self, url: impl Into<MetadataUrl>) -> Self {
        self.entrance.resource_metadata = Some(url.into());
        self.chosen = Some("resource metadata");
        self
    }

    /// Takes tokens with the scheme `DPoP` as well, each with a proof of the key that it is bound to (RFC 9449 §6.2). Without
    /// it, a token whose `cnf` names a key is refused.
    #[cfg(feature = "dpop")]
    pub fn dpop(mut self, dpop: Dpop) -> Self {
        self.entrance.dpop = Some(dpop);
        self.chosen = Some("DPoP");
        self
    }

    /// Refuses tokens that are not bound to a certificate (`cnf.x5t#S256`, RFC 8705 §3.2). By default they pass; one that is
    /// bound never does without its certificate.
    pub const fn certificate_bound(mut self) -> Self {
        self.entrance.certificate_bound = true;
        self.chosen = Some("certificate_bound");
        self
    }

    /// Finishes the authenticator. Nothing is asked yet.
    ///
    /// # Errors
    /// If the issuer, the endpoint, the client or the audience was not said or is empty; the URL is not `https`, or has a user
    /// name or a fragment; a beginning of tokens is empty or one that no token has, or none is named; a limit, a time or a number is out
    /// of its bounds; a mapped claim is empty or registered; tokens may lack `exp` though there are revocations; the leeway is above
    /// 300 s; the realm is not printable ASCII without quotes; the HTTP client cannot be made.
    pub fn build(mut self) -> Result<Introspection, ConfigError> {
        let missing = |setting: &str| ConfigError::new(setting, "none", "must be said");
        if self.issuer.is_empty() {
            return Err(missing("issuer of introspected tokens"));
        }
        let endpoint = self.endpoint.as_ref().ok_or_else(|| missing("introspection endpoint"))?;
        let endpoint = Endpoint::parse(&endpoint.0, self.http_on_loopback)?;
        let client =
            self.client.take().ok_or_else(|| missing("client authentication at the introspection endpoint"))?;
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return Err(ConfigError::new("audience of introspected tokens", "\"\"", "must not be empty"));
        }
        if self.lacks.exp && self.revocations.is_some() {
            let problem = "cannot be: a token without an end outlives its revocation, and would be refused";
            return Err(ConfigError::new("introspected tokens", "revocations beside without_exp", problem));
        }
        let prefixes = self.prefixes.take().map(check_prefixes).transpose()?;
        self.check_numbers()?;
        let mut mapped = Mapped::new();
        let mut rules = self.rules;
        rules.bind = Bind::Audience(self.audiences);
        let names = vec![NameRule::exactly(self.issuer.clone())];
        let mut profile = rules.profile(names, Keys::Fixed(KeySet::none()), &mut mapped)?;
        (profile.lacks, profile.credential) = (self.lacks, "introspection");
        let entrance = self.entrance.build(vec![&self.issuer])?;
        let http = match self.http {
            Some(http) => http,
            None => Arc::new(HttpsFetch::builder().keep_connections(self.max_in_flight).build()?),
        };
        let asking = Asking {
            endpoint,
            http: HttpClient::new(http, self.limits),
            client,
            issuer: self.issuer.into(),
            in_flight: Semaphore::new(self.max_in_flight),
            last: LastAnswer::default(),
            said: Notices::new(),
        };
        let good = self.cache.as_ref().map(TokenCache::build_for_digests).transpose()?;
        let opaque = Opaque {
            asking,
            profile,
            revocations: self.revocations.map(|store| Revocations::new(store, &mut mapped)).transpose()?,
            mapped,
            leeway: self.leeway,
            memory: Memory::new(good, self.remember_for, self.max_refused, self.refused_for),
        };
        let shared = Shared { opaque, entrance, jwts_too: self.jwts_too, prefixes, chosen: self.chosen };
        Ok(Introspection { shared: Arc::new(shared) })
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        check_leeway(self.leeway)?;
        self.limits.check("questions to an introspection endpoint")?;
        let seconds = |most| Duration::from_secs(1)..=Duration::from_secs(most);
        if !seconds(60).contains(&self.remember_for) {
            let value = format!("{:?}", self.remember_for);
            return Err(ConfigError::new("time that introspected tokens are remembered", value, "is not 1 to 60 s"));
        }
        if !seconds(5).contains(&self.refused_for) {
            let value = format!("{:?}", self.refused_for);
            return Err(ConfigError::new("time that refused tokens are remembered", value, "is not 1 to 5 s"));
        }
        if self.max_in_flight == 0 || self.max_in_flight > 10_000 {
            let value = self.max_in_flight.to_string();
            return Err(ConfigError::new(
                "requests in flight to an introspection endpoint",
                value,
                "is not 1 to 10000",
            ));
        }
        if self.max_refused == 0 || self.max_refused > 1 << 22 {
            let value = self.max_refused.to_string();
            return Err(ConfigError::new("refused tokens that are remembered", value, "is not 1 to 4194304"));
        }
        Ok(())
    }
}

fn check_prefixes(prefixes: Vec<String>) -> Result<Box<[Box<str>]>, ConfigError> {
    let fits = |prefix: &String| !prefix.is_empty() && prefix.bytes().all(is_of_token);
    if let Some(bad) = prefixes.iter().find(|prefix| !fits(prefix)) {
        let shown: String = bad.chars().take(64).collect();
        let problem = "must be of [A-Za-z0-9._~+/-], and not empty";
        return Err(ConfigError::new("beginning of opaque tokens", format!("{shown:?}"), problem));
    }
    if prefixes.is_empty() {
        return Err(ConfigError::new("beginnings of opaque tokens", "[]", "must name one"));
    }
    Ok(prefixes.into_iter().map(Into::into).collect())
}

/// What a token may have before its padding (RFC 9110 §11.2).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}
