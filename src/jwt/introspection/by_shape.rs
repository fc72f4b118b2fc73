use std::fmt;

use async_trait::async_trait;
use http::HeaderName;

use super::authenticator::Introspection;
use crate::{
    attempt::Attempt,
    authn::{Authenticator, Claim, Outcome},
    challenge::Challenge,
    clock::Instants,
    error::ConfigError,
    head::RequestHead,
    jwt::{
        JwtAuthenticator,
        entrance::{Entrance, Verify},
        token::is_jwt,
    },
    now::Now,
    principal::Principal,
    rejection::Rejection,
};

/// Takes both kinds of tokens in one place: those that are shaped like a JWT are verified here, the rest is introspected.
///
/// Shaped like a JWT is what begins as a JSON object in base64url does and has at least two dots. The shape decides alone: a
/// JWT that is refused is never introspected, and an opaque token costs no signature check. As with
/// [`Introspection`], an opaque token is in [`one_of`](crate::authn::one_of) what nobody else has verified or refused.
///
/// Where tokens come from is the [`JwtAuthenticator`]'s to say, and so are the challenge, DPoP, and whether tokens must be bound to
/// a certificate. So are the metadata: they name an issuer that is only introspected with
/// [`MetadataUrl::beside`](crate::jwt::MetadataUrl::beside). Leeway, audience, mapping and revocations are each one's own; tokens of
/// both kinds that are to be revoked together need the same store in both.
///
/// ```
/// use portcullis::{
///     Secret,
///     jwt::{
///         Algorithm, Issuer, JwtAuthenticator, Key, KeySet,
///         introspection::{ClientAuthentication, Introspection, by_shape},
///     },
/// };
///
/// # let secret = "s3cret".to_owned();
/// let keys = KeySet::new([Key::hmac(Algorithm::HS256, Secret::new(vec![7; 32]))?])?;
/// let issuer = Issuer::fixed("https://id.example.com", keys).access_tokens("orders-api").algorithms([Algorithm::HS256]);
/// let jwt = JwtAuthenticator::builder().issuer(issuer).build()?;
/// let introspection = Introspection::builder()
///     .issuer("https://id.example.com")
///     .endpoint("https://id.example.com/introspect")
///     .client(ClientAuthentication::basic("orders-api", &Secret::from(secret))?)
///     .audience("orders-api")
///     .build()?;
/// let tokens = by_shape(jwt, introspection)?;
/// # let _ = tokens;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Errors
/// If the [`Introspection`] was told to take JWTs too, which would never come to it, or was told of a realm, of metadata, of DPoP
/// or of certificates, which are not its to say here.
pub fn by_shape(jwt: JwtAuthenticator, introspection: Introspection) -> Result<ByShape, ConfigError> {
    if introspection.shared.jwts_too {
        return Err(ConfigError::new("introspection", "jwts_too", "has no effect beside a JwtAuthenticator"));
    }
    if let Some(chosen) = introspection.shared.chosen {
        let problem = "is the JwtAuthenticator's to say where both take tokens";
        return Err(ConfigError::new("introspection", chosen, problem));
    }
    Ok(ByShape { jwt, introspection })
}

/// Made by [`by_shape`].
#[derive(Clone)]
pub struct ByShape {
    jwt: JwtAuthenticator,
    introspection: Introspection,
}

impl ByShape {
    /// Checks a token that came by another way than `Authorization`, as [`Introspection::verify`] and
    /// [`JwtAuthenticator::verify_waiting`].
    ///
    /// # Errors
    /// As these.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn verify(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        let verified = Verify::verify(self, token, at, Attempt::uncounted()).await;
        verified.and_then(|principal| self.entrance().bound_to_nothing(principal))
    }

    fn entrance(&self) -> &Entrance {
        self.jwt.entrance()
    }
}

impl Verify for ByShape {
    fn takes(&self, token: &str) -> bool {
        is_jwt(token.as_bytes()) || self.introspection.is_ours(token.as_bytes())
    }

    #[inline]
    fn recall(&self, token: &[u8], at: Instants) -> Option<Result<Principal, Rejection>> {
        if is_jwt(token) {
            self.jwt.recall(token, at)
        } else if !self.introspection.is_ours(token) {
            None
        } else {
            self.introspection.shared.opaque.recall(token, at, self.entrance())
        }
    }

    fn verify_now(
        &self,
        token: &str,
        at: Instants,
        attempt: Attempt<'_>,
        recalled: bool,
    ) -> Now<Result<Principal, Rejection>> {
        if is_jwt(token.as_bytes()) {
            return self.jwt.verify_now(token, at, attempt, recalled);
        }
        let found = if recalled { None } else { self.recall(token.as_bytes(), at) };
        found.map_or(Now::Wait, Now::Known)
    }

    async fn verify(&self, token: &str, at: Instants, attempt: Attempt<'_>) -> Result<Principal, Rejection> {
        if is_jwt(token.as_bytes()) {
            Verify::verify(&self.jwt, token, at, attempt).await
        } else {
            self.introspection.shared.opaque.verify(token, at, attempt, self.entrance()).await
        }
    }
}

#[async_trait]
impl Authenticator for ByShape {
    fn challenges(&self) -> Vec<Challenge> {
        self.entrance().offers.clone()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        self.entrance().credential_headers()
    }

    fn claims(&self) -> Vec<Claim> {
        self.jwt.claims()
    }

    fn discloses(&self, head: &RequestHead<'_>) -> bool {
        let token = self.entrance().places.in_authorization(head);
        token.is_some_and(|token| !is_jwt(token) && self.introspection.is_ours(token))
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        self.entrance().authenticate_now(self, head, at)
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.entrance().authenticate(self, head, at).await
    }
}

impl fmt::Debug for ByShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByShape").field("jwt", &self.jwt).field("introspection", &self.introspection).finish()
    }
}
