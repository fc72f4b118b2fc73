use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::HeaderName;

use super::{builder::IntrospectionBuilder, opaque::Opaque};
use crate::{
    attempt::Attempt,
    authn::{Authenticator, Claim, Outcome},
    challenge::Challenge,
    clock::Instants,
    head::RequestHead,
    http_client::LastAnswer,
    jwt::{
        CacheStats,
        entrance::{Entrance, Verify},
        token::is_jwt,
    },
    now::Now,
    principal::Principal,
    rejection::Rejection,
};

/// Authenticates requests by an opaque token in `Authorization: Bearer`, of which its issuer is asked. See the
/// [module docs](crate::jwt::introspection).
///
/// It claims Bearer tokens that are not shaped like a JWT, unless [`jwts_too`](IntrospectionBuilder::jwts_too) is said, and that
/// [begin](IntrospectionBuilder::only_beginning_with) as they should; other credentials are [`Absent`](Outcome::Absent). In
/// [`one_of`](crate::authn::one_of) it only gets what nobody else has verified or refused: an API key is
/// [not disclosed](Authenticator::discloses). What is remembered it answers at once, without allocation; the rest waits. A
/// clone costs one reference count and shares what is remembered.
#[derive(Clone)]
pub struct Introspection {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) opaque: Opaque,
    pub(super) entrance: Entrance,
    pub(super) jwts_too: bool,
    /// Of which one begins every token; none where any may come.
    pub(super) prefixes: Option<Box<[Box<str>]>>,
    /// A setting of the way in that somebody chose.
    pub(super) chosen: Option<&'static str>,
}

impl Introspection {
    /// Starts a configuration.
    pub fn builder() -> IntrospectionBuilder {
        IntrospectionBuilder::new()
    }

    /// Checks a token that came by another way than `Authorization`, in the first message of a WebSocket for example.
    ///
    /// # Errors
    /// [`InvalidCredential`](crate::RejectionKind::InvalidCredential) (`401`) for a token that is not good, and for one that is
    /// [bound](crate::jwt::bound) to a key or certificate: nothing here shows that its sender has it.
    /// [`Unavailable`](crate::RejectionKind::Unavailable) (`503`) if nobody can say.
    ///
    /// # Cancel safety
    /// May be dropped at any time; who waits for the same answer asks in its place.
    pub async fn verify(&self, token: &str, at: Instants) -> Result<Principal, Rejection> {
        let Shared { opaque, entrance, .. } = &*self.shared;
        let verified = opaque.verify(token, at, Attempt::uncounted(), entrance).await;
        verified.and_then(|principal| entrance.bound_to_nothing(principal))
    }

    /// What the cache of good tokens has done, and holds now; none without a cache. Costs a walk over the table.
    #[must_use]
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.shared.opaque.memory.stats()
    }

    /// The URL of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.shared.opaque.asking.endpoint.shown()
    }

    /// How long a question that had no answer says that the endpoint is away. It may be back, and nobody has asked.
    pub const RECENT: Duration = LastAnswer::RECENT;

    /// Why the last question had no answer, for the operator; none if it had one, or none was asked. Looking asks nothing. A
    /// question that the endpoint does not take (`400`, `413`, `414`, `422`, `431`) does not count, since its token may be to blame.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.opaque.asking.last.failure()
    }

    /// The same if that question was asked within the last [`RECENT`](Self::RECENT) seconds, and its token alone is not to blame,
    /// as it may be for `403` without an error code, `429`, `500`, a redirect, and an answer that is too large or too odd to be read.
    #[must_use]
    pub fn recent_failure(&self, at: Instants) -> Option<Arc<str>> {
        self.shared.opaque.asking.last.recent_failure(at)
    }

    /// Whether a token in `Authorization` is one to ask about.
    #[inline]
    pub(super) fn is_ours(&self, token: &[u8]) -> bool {
        let begins = |prefixes: &[Box<str>]| prefixes.iter().any(|prefix| token.starts_with(prefix.as_bytes()));
        (self.shared.jwts_too || !is_jwt(token)) && self.shared.prefixes.as_deref().is_none_or(begins)
    }

    /// Forgets all tokens, good and bad, and answers that are on their way: each is asked about again. For who hears that
    /// many were revoked; of single tokens a [`RevocationStore`](crate::revocation::RevocationStore) tells.
    pub fn forget_all(&self) {
        self.shared.opaque.memory.forget_all();
    }
}

impl Verify for Introspection {
    fn takes(&self, token: &str) -> bool {
        self.is_ours(token.as_bytes())
    }

    #[inline]
    fn recall(&self, token: &[u8], at: Instants) -> Option<Result<Principal, Rejection>> {
        // One that came by another way may be remembered, and in a request is somebody else's.
        if !self.is_ours(token) {
            return None;
        }
        self.shared.opaque.recall(token, at, &self.shared.entrance)
    }

    fn verify_now(
        &self,
        token: &str,
        at: Instants,
        _: Attempt<'_>,
        recalled: bool,
    ) -> Now<Result<Principal, Rejection>> {
        let found = if recalled { None } else { self.recall(token.as_bytes(), at) };
        found.map_or(Now::Wait, Now::Known)
    }

    async fn verify(&self, token: &str, at: Instants, attempt: Attempt<'_>) -> Result<Principal, Rejection> {
        self.shared.opaque.verify(token, at, attempt, &self.shared.entrance).await
    }
}

#[async_trait]
impl Authenticator for Introspection {
    fn challenges(&self) -> Vec<Challenge> {
        self.shared.entrance.offers.clone()
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        self.shared.entrance.credential_headers()
    }

    /// Of tokens in `Authorization` it gets what nobody else has taken; [`discloses`](Self::discloses) tells two of them apart.
    fn claims(&self) -> Vec<Claim> {
        self.shared.entrance.places.claims()
    }

    fn discloses(&self, head: &RequestHead<'_>) -> bool {
        let token = self.shared.entrance.places.in_authorization(head);
        token.is_some_and(|token| self.is_ours(token))
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        self.shared.entrance.authenticate_now(self, head, at)
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.shared.entrance.authenticate(self, head, at).await
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection")
            .field("tokens", &self.shared.opaque)
            .field("places", &self.shared.entrance.places)
            .field("offers", &self.shared.entrance.offers)
            .field("jwts_too", &self.shared.jwts_too)
            .field("prefixes", &self.shared.prefixes)
            .finish_non_exhaustive()
    }
}
