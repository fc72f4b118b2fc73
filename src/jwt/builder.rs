use std::{sync::Arc, time::Duration};

#[cfg(feature = "dpop")]
use crate::jwt::bound::Dpop;
use crate::{
    error::ConfigError,
    jwt::{
        CookiePlace, IssuerProfile, JwtAuthenticator, TokenCache, authenticator::Shared, entrance::EntranceRules,
        headers::Headers, path::Mapped, resource_metadata::MetadataUrl, revoked::Revocations, routes::Routes,
        vouchers::Vouchers,
    },
    log,
    revocation::RevocationStore,
};

pub(super) const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);

/// Refuses a leeway beyond what is "no more than a few minutes" (RFC 7519 §4.1.4).
pub(super) fn check_leeway(leeway: Duration) -> Result<(), ConfigError> {
    if leeway > Duration::from_secs(300) {
        return Err(ConfigError::new("JWT leeway", format!("{leeway:?}"), "must be at most 300 s"));
    }
    Ok(())
}

/// Configures a [`JwtAuthenticator`]; made by [`JwtAuthenticator::builder`].
#[must_use]
#[derive(Clone, Debug)]
pub struct JwtAuthenticatorBuilder {
    profiles: Vec<IssuerProfile>,
    leeway: Duration,
    entrance: EntranceRules,
    cache: Option<TokenCache>,
    revocations: Option<Arc<dyn RevocationStore>>,
}

impl JwtAuthenticatorBuilder {
    pub(super) fn new() -> Self {
        Self {
            profiles: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            entrance: EntranceRules::new(),
            cache: Some(TokenCache::new()),
            revocations: None,
        }
    }

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
        self.entrance.realm = realm.into();
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
        self.entrance.headers.push(name.into());
        self
    }

    /// Takes tokens from this cookie as well, where no `Authorization` and no header field of
    /// [`header`](Self::header) came. A bad cookie makes a request anonymous, and refuses it only where an identity is needed.
    pub fn cookie(mut self, place: CookiePlace) -> Self {
        self.entrance.cookies.push(place);
        self
    }

    /// Takes no tokens from `Authorization`, only from the header fields and cookies that are named.
    pub fn without_authorization(mut self) -> Self {
        self.entrance.authorization = false;
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

    /// Takes tokens with the scheme `DPoP` as well, each with a proof of the key that it is bound to (RFC 9449).
    #[cfg(feature = "dpop")]
    pub fn dpop(mut self, dpop: Dpop) -> Self {
        self.entrance.dpop = Some(dpop);
        self
    }

    /// Refuses tokens that are not bound to a certificate (`cnf.x5t#S256`, RFC 8705 §3). By default they pass; one that is bound
    /// never does without its certificate.
    pub const fn certificate_bound(mut self) -> Self {
        self.entrance.certificate_bound = true;
        self
    }

    /// Names the URL of the metadata of this API in its challenges (RFC 9728 §5.1), where clients read which issuer to go to.
    ///
    /// Given a [`ResourceMetadata`](crate::jwt::ResourceMetadata), the URL is that of the document, and
    /// [`build`](Self::build) refuses a document that is not true of this authenticator. An address where somebody else serves the
    /// metadata is given as text, and taken as it is.
    pub fn resource_metadata(mut self, url: impl Into<MetadataUrl>) -> Self {
        self.entrance.resource_metadata = Some(url.into());
        self
    }

    /// Refuses tokens that this store was told of: on every request, remembered tokens included. Default: none, and a token is
    /// good until it expires.
    ///
    /// A token must then have `iat`, and may not live longer than the store [keeps](crate::revocation::RevocationLimits::kept_for)
    /// revocations; its `sid`, if it has one, must be a string. While the store cannot say what was revoked, requests are
    /// refused with `503`.
    pub fn revocations(mut self, store: impl RevocationStore) -> Self {
        self.revocations = Some(Arc::new(store));
        self
    }

    /// Finishes the authenticator. Of several issuers that assert tenants, the log warns of each that may assert any: see
    /// [`claim_must_be`](IssuerProfile::claim_must_be).
    ///
    /// # Errors
    /// If there is no issuer or one stands twice; an issuer or audience is empty; an issuer has no algorithm, lacks a key
    /// for one, or mixes symmetric with asymmetric keys; a mapped claim is empty or registered; an access-token option is
    /// set for ID tokens; the leeway is above 300 s; there is no place for tokens, one stands twice, or a header field has another
    /// meaning; the cache has no or too many entries, or no bytes; the realm is not printable ASCII without quotes; the URL of the metadata is not an
    /// `https` URL of such characters, or its document names an issuer that is not trusted or a way to present tokens that is not
    /// taken; DPoP has no algorithm or a symmetric one, or there is no `Authorization` to have it in.
    pub fn build(self) -> Result<JwtAuthenticator, ConfigError> {
        if self.profiles.iter().any(IssuerProfile::is_of_logout_tokens) {
            return Err(ConfigError::new(
                "JWT issuer",
                "logout tokens",
                "are nobody's identity: they are for LogoutTokens",
            ));
        }
        self.warn_of_shared_tenants();
        self.build_any(Mapped::new())
    }

    fn warn_of_shared_tenants(&self) {
        for name in self.of_any_tenant() {
            log::warn(&format!(
                "issuer {name:?} may assert any tenant, also those of another issuer: list its own by claim_must_be, in a \
                 document as claims",
            ));
        }
    }

    /// The issuers that may assert the tenants of others. A tenant is a name, whoever asserts it: of several issuers, each should assert
    /// its own ones alone.
    pub(crate) fn of_any_tenant(&self) -> Vec<&str> {
        let asserting: Vec<&IssuerProfile> = self.profiles.iter().filter(|profile| profile.maps_tenant()).collect();
        if asserting.len() < 2 {
            return Vec::new();
        }
        let open = asserting.into_iter().filter(|profile| !profile.has_own_tenants());
        open.map(IssuerProfile::name).collect()
    }

    /// Finishes it, whatever tokens it takes.
    pub(super) fn build_any(self, mut mapped: Mapped) -> Result<JwtAuthenticator, ConfigError> {
        if self.profiles.is_empty() {
            return Err(ConfigError::new("JWT issuers", "none", "must be at least one"));
        }
        check_leeway(self.leeway)?;
        let mut routes = Routes::default();
        for profile in self.profiles {
            routes.add(profile.accept(&mut mapped)?)?;
        }
        let revocations = self.revocations.map(|store| Revocations::new(store, &mut mapped)).transpose()?;
        let entrance = self.entrance.build(routes.names().collect())?;
        Ok(JwtAuthenticator::new(Shared {
            vouchers: Vouchers::new(revocations.as_ref().map(Revocations::state)),
            routes,
            mapped,
            leeway: self.leeway,
            entrance,
            cache: self.cache.as_ref().map(TokenCache::build).transpose()?,
            revocations,
            headers: Headers::default(),
        }))
    }
}
