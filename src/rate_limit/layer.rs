use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, StatusCode};
use tower::Layer;

use crate::{
    clock::{Clock, SystemClock},
    context::{Envelope, NO_PEER, Stage, misordered},
    error::{ConfigError, StoreError},
    gate::{Amend, Gate, Step},
    head::RequestHead,
    now::Now,
    rate_limit::{
        Draw, KeyPart, LimitKey, MemoryLimits, Quota, Quotas, RateLimitStore, Taken,
        draw::Charges,
        headers::{self, Fields, RATELIMIT, RATELIMIT_POLICY},
        key::valid_scope,
    },
    rejection::{Rejection, RejectionKind},
    trail::Trail,
};

/// What happens to a request when the [store](RateLimitStore) fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStoreError {
    /// Refuse it with `503`.
    #[default]
    Refuse,
    /// Let it pass uncounted. The audit record shows `limit_failed_open`.
    Admit,
}

/// Applies a [`Quota`] to each client or to each principal. See the [module docs](crate::rate_limit).
///
/// Clones share one count: axum calls `layer` once for each route, and clones the service for each connection.
///
/// | setting | default |
/// |---|---|
/// | store | [`MemoryLimits`] of the default capacity, for this layer alone |
/// | scope | `client` or `principal` |
/// | policy name | `client` for a ceiling per client, `default` for a quota per principal |
/// | response fields | sent |
/// | store error | [`Refuse`](OnStoreError::Refuse) |
#[must_use]
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    counted: Counted,
    scope: Cow<'static, str>,
    quotas: Quotas,
    fields: Fields,
    send_fields: bool,
    store: Arc<dyn RateLimitStore>,
    on_store_error: OnStoreError,
    clock: Arc<dyn Clock>,
}

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Client,
    Principal,
}

impl RateLimitLayer {
    /// A ceiling for each client network: one IPv4 address, or an IPv6 /64. It stands before authentication, so that a flood
    /// of bad credentials costs little.
    ///
    /// # Errors
    /// [`ConfigError`] if the quota is out of its bounds; see [`Quota::validate`].
    pub fn per_client(quota: Quota) -> Result<Self, ConfigError> {
        Self::new(Counted::Client, quota.named_if_not("client"))
    }

    /// A quota for each principal, by issuer and subject. It stands inside authentication; requests without an identity pass
    /// uncounted, so give them a ceiling per client.
    ///
    /// # Errors
    /// [`ConfigError`] if the quota is out of its bounds; see [`Quota::validate`].
    pub fn per_principal(quota: Quota) -> Result<Self, ConfigError> {
        Self::new(Counted::Principal, quota)
    }

    fn new(counted: Counted, quota: Quota) -> Result<Self, ConfigError> {
        let quotas = Quotas::new([quota])?;
        let shared = Shared {
            counted,
            scope: Cow::Borrowed(match counted {
                Counted::Client => "client",
                Counted::Principal => "principal",
            }),
            fields: Fields::of(&quotas)?,
            send_fields: true,
            quotas,
            store: Arc::new(MemoryLimits::new()),
            on_store_error: OnStoreError::Refuse,
            clock: Arc::new(SystemClock),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Adds a quota that holds as well: 10 a second and 1 000 a day, say. A request takes from all of them or from none.
    ///
    /// # Errors
    /// [`ConfigError`] if the quota is out of its bounds, has the name of another one, or is the fifth.
    pub fn and(mut self, quota: Quota) -> Result<Self, ConfigError> {
        let quotas = Quotas::new(self.shared.quotas.iter().cloned().chain([quota]))?;
        let shared = Arc::make_mut(&mut self.shared);
        shared.fields = Fields::of(&quotas)?;
        shared.quotas = quotas;
        Ok(self)
    }

    /// Counts in this store.
    pub fn with_store(mut self, store: impl RateLimitStore) -> Self {
        Arc::make_mut(&mut self.shared).store = Arc::new(store);
        self
    }

    /// Names this limiter within its store: limiters that share a store, and not their counts, need different scopes.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is 1 to 64 lower-case letters, digits, hyphens and underscores.
    pub fn with_scope(mut self, scope: impl Into<Cow<'static, str>>) -> Result<Self, ConfigError> {
        let scope = scope.into();
        valid_scope(&scope)?;
        Arc::make_mut(&mut self.shared).scope = scope;
        Ok(self)
    }

    /// Reads this clock, if this layer is the outermost of the crate's: whoever is outermost reads the time for all.
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        Arc::make_mut(&mut self.shared).clock = Arc::new(clock);
        self
    }

    /// Says what happens when the store fails.
    pub fn on_store_error(mut self, choice: OnStoreError) -> Self {
        Arc::make_mut(&mut self.shared).on_store_error = choice;
        self
    }

    /// Sends no `RateLimit` and no `RateLimit-Policy`. `Retry-After` stays.
    pub fn without_headers(mut self) -> Self {
        Arc::make_mut(&mut self.shared).send_fields = false;
        self
    }
}

impl Shared {
    /// Whose request it is; none if it is not counted here.
    fn part<'a>(&self, head: &RequestHead<'_>, envelope: &'a mut Envelope) -> Result<Option<KeyPart<'a>>, Rejection> {
        match self.counted {
            Counted::Client => {
                let client = envelope.client_or_connection(|| head.connection())?;
                let address = client.address().ok_or_else(|| misordered(NO_PEER))?;
                Ok(Some(KeyPart::network(address)))
            }
            Counted::Principal if !envelope.has_run(Stage::Authentication) => {
                Err(misordered("the limit per principal has no authentication outside it: put it inside"))
            }
            Counted::Principal => Ok(envelope.subject.as_ref().map(KeyPart::principal)),
        }
    }

    fn refuse(&self, taken: &Taken) -> Rejection {
        let reason = match (self.counted, taken.retry_after_nanos()) {
            (Counted::Client, Some(_)) => "over the quota per client",
            (Counted::Principal, Some(_)) => "over the quota per principal",
            (Counted::Client | Counted::Principal, None) => "costs more than the whole quota",
        };
        let mut rejection = Rejection::new(RejectionKind::RateLimited, reason);
        if let Some(seconds) = headers::retry_after(taken) {
            rejection = rejection.with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX));
        }
        if self.send_fields {
            rejection = rejection.with_header(RATELIMIT_POLICY, self.fields.policy());
            if let Some(limit) = self.fields.limit(taken) {
                rejection = rejection.with_header(RATELIMIT, limit);
            }
        }
        rejection
    }
}

impl RateLimitLayer {
    fn conclude(&self, answer: Result<Taken, StoreError>, trail: &mut Trail) -> Result<Report, Rejection> {
        let shared = &self.shared;
        if answer.as_ref().is_ok_and(Taken::is_degraded) {
            trail.flag("limit_degraded");
        }
        match (answer, shared.on_store_error) {
            (Ok(taken), _) if !taken.is_granted() => Err(shared.refuse(&taken)),
            (Ok(taken), _) if shared.send_fields => Ok(Report(Some((Arc::clone(shared), taken)))),
            (Ok(_), _) => Ok(Report(None)),
            (Err(_), OnStoreError::Admit) => {
                trail.flag("limit_failed_open");
                Ok(Report(None))
            }
            (Err(error), OnStoreError::Refuse) => {
                Err(Rejection::new(RejectionKind::Unavailable, format!("rate limit store: {error}")))
            }
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = Gate<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, self.clone())
    }
}

impl Step for RateLimitLayer {
    type Memo = Report;

    fn stage(&self) -> Stage {
        match self.shared.counted {
            Counted::Client => Stage::ClientLimit,
            Counted::Principal => Stage::PrincipalLimit,
        }
    }

    fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<Report, Rejection>> {
        let (shared, at) = (&*self.shared, envelope.at);
        let parts = match shared.part(head, envelope) {
            Ok(Some(part)) => [part],
            Ok(None) => return Now::Known(Ok(Report(None))),
            Err(rejection) => return Now::Known(Err(rejection)),
        };
        let charges = Charges::none().add(LimitKey::new(&shared.scope, &parts), &shared.quotas);
        let answer = shared.store.take_now(&Draw::new(charges.as_slice()), at);
        answer.map(|answer| self.conclude(answer, &mut envelope.trail))
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<Report, Rejection> {
        let (shared, at) = (&*self.shared, envelope.at);
        let Some(part) = shared.part(&head, envelope)? else { return Ok(Report(None)) };
        let parts = [part];
        let charges = Charges::none().add(LimitKey::new(&shared.scope, &parts), &shared.quotas);
        let answer = shared.store.take(&Draw::new(charges.as_slice()), at).await;
        self.conclude(answer, &mut envelope.trail)
    }
}

/// What the response tells of the quota.
#[derive(Debug)]
pub(crate) struct Report(Option<(Arc<Shared>, Taken)>);

impl Amend for Report {
    fn amend(self, _: StatusCode, headers: &mut HeaderMap) {
        if let Some((shared, taken)) = self.0 {
            headers.append(RATELIMIT_POLICY, shared.fields.policy());
            if let Some(limit) = shared.fields.limit(&taken) {
                headers.append(RATELIMIT, limit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Instants, error::StoreErrorKind};

    fn conclude(choice: OnStoreError) -> (Result<Report, Rejection>, Vec<&'static str>) {
        let layer = RateLimitLayer::per_client(Quota::per_second(1)).unwrap().on_store_error(choice);
        let mut envelope = Envelope::new(Instants::new(0, 0));
        let failed = Err(StoreError::new(StoreErrorKind::Unavailable, "elsewhere"));
        let answer = layer.conclude(failed, &mut envelope.trail);
        (answer, envelope.trail.flags)
    }

    #[test]
    fn opening_on_failure_leaves_a_trace() {
        let (answer, flags) = conclude(OnStoreError::Admit);
        assert!(answer.is_ok());
        assert_eq!(flags, ["limit_failed_open"]);
        let (answer, flags) = conclude(OnStoreError::Refuse);
        assert_eq!(answer.unwrap_err().reason(), "rate limit store: elsewhere: backend unavailable");
        assert!(flags.is_empty());
    }

    #[test]
    fn what_is_refused_says_by_which_limit() {
        let client = RateLimitLayer::per_client(Quota::per_second(1)).unwrap();
        let principal = RateLimitLayer::per_principal(Quota::per_second(1)).unwrap();
        for (layer, taken, reason) in [
            (&client, Taken::refused(0, 1), "over the quota per client"),
            (&principal, Taken::refused(0, 1), "over the quota per principal"),
            (&principal, Taken::too_costly(0), "costs more than the whole quota"),
        ] {
            assert_eq!(layer.shared.refuse(&taken).reason(), reason);
        }
    }
}
