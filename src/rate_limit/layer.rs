#[cfg(feature = "stack")]
use std::collections::BTreeSet;
use std::{
    borrow::Cow,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::quality::RandomState;
use tower::Layer;

use crate::{
    clock::{Clock, SystemClock},
    error::ConfigError,
    event::{self, Event, EventKind, Turn},
    gate::Gate,
    rate_limit::{
        LimitBy, LimitRequest, LimitScope, Limits, MemoryLimits, OnMissingKey, Quota, RateLimitStore, XRateLimitReset,
        key::valid_scope,
        plan::{Held, Plans, Tier},
    },
    shadow::{Shadow, ShadowMode},
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

/// Applies a [`Quota`] to each client, to each principal, or to [what you say](LimitBy). See the
/// [module docs](crate::rate_limit).
///
/// Clones share one count: axum calls `layer` once for each route, and clones the service for each connection.
///
/// | setting | default |
/// |---|---|
/// | store | [`MemoryLimits`] of the default capacity, for this layer alone |
/// | scope | `client`, `principal`, or `custom` |
/// | policy name | `client` for a ceiling per client, `default` otherwise |
/// | cost of a request | 1 |
/// | over the quota | refused with `429`, and not counted |
/// | no key | refused; without an identity, a limit that goes by it lets pass, and leaves the rest to the guard |
/// | IPv6 | a /64 has the quota, and its /48 sixteen times that |
/// | response fields | `RateLimit` and `RateLimit-Policy` |
/// | store error | [`Refuse`](OnStoreError::Refuse) |
/// | jitter on `Retry-After` | none |
#[must_use]
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    pub(super) shared: Arc<Shared>,
}

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) by: LimitBy,
    pub(super) on_missing: Option<OnMissingKey>,
    pub(super) scope: Cow<'static, str>,
    pub(super) scope_hash: u64,
    pub(super) tiers: Tiers,
    pub(super) wide: bool,
    pub(super) cost: Cost,
    pub(super) count_refused: bool,
    pub(super) mode: Mode,
    pub(super) shadow: Option<Shadow>,
    pub(super) send_fields: bool,
    pub(super) x_fields: Option<XRateLimitReset>,
    pub(super) store: Arc<dyn RateLimitStore>,
    pub(super) on_store_error: OnStoreError,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tally: Arc<Tally>,
    /// The most seconds, and where chance comes from.
    pub(super) jitter: Option<(u64, RandomState)>,
}

#[derive(Clone, Debug)]
pub(super) enum Tiers {
    One(Arc<Tier>),
    Plans(Plans),
}

#[derive(Clone)]
pub(super) enum Cost {
    Fixed(NonZeroU32),
    By(Arc<CostFn>),
}

pub(super) type CostFn = dyn Fn(&LimitRequest<'_>) -> u32 + Send + Sync;

/// What becomes of a request over the quota.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    Reject,
    #[cfg(feature = "throttle")]
    Throttle(Arc<super::throttle::Queue>),
}

/// What a limiter did since it was made.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) refused: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) degraded: AtomicU64,
    pub(super) failed: AtomicU64,
    degraded_now: Turn,
    open_now: Turn,
}

impl Tally {
    /// Tells of the turns: requests by the thousand see the same.
    pub(super) fn tell(&self, scope: &str, degraded: bool, open: bool) {
        let turn = |turn: &Turn, now, began, ended| {
            if turn.is_new(now) {
                event::tell(Event::new(if now { began } else { ended }, format!("limit {scope}")));
            }
        };
        turn(&self.degraded_now, degraded, EventKind::LimiterDegraded, EventKind::LimiterRestored);
        turn(&self.open_now, open, EventKind::FailedOpen, EventKind::FailedOpenEnded);
    }
}

/// What a limiter did since it was made, for a metric. What passes at once is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitCounts {
    /// Requests that were refused for the quota.
    pub refused: u64,
    /// Requests that would have been refused, and passed because of [shadow mode](RateLimitLayer::shadow).
    pub would_refuse: u64,
    /// Requests that passed after they waited.
    pub waited: u64,
    /// Requests that another count than the right one decided about.
    pub degraded: u64,
    /// Requests that the store failed for.
    pub failed: u64,
}

impl RateLimitLayer {
    /// A ceiling for each client network: one IPv4 address, or an IPv6 /64. It stands before authentication, so that a flood
    /// of bad credentials costs little.
    ///
    /// # Errors
    /// [`ConfigError`] if a quota is out of its bounds, see [`Quota::validate`], or plans go by a claim without a name.
    pub fn per_client(limits: impl Into<Limits>) -> Result<Self, ConfigError> {
        let limits = match limits.into() {
            Limits(Held::Quota(quota)) => quota.named_if_not("client").into(),
            plans => plans,
        };
        Self::new(LimitBy::source(), limits, "client")
    }

    /// A quota for each principal, by issuer, tenant and subject. It stands inside authentication; requests without an identity
    /// pass uncounted, so give them a ceiling per client.
    ///
    /// # Errors
    /// [`ConfigError`] if a quota is out of its bounds, see [`Quota::validate`], or plans go by a claim without a name.
    pub fn per_principal(limits: impl Into<Limits>) -> Result<Self, ConfigError> {
        Self::new(LimitBy::principal(), limits.into(), "principal")
    }

    /// A quota for each of what you say. It stands inside authentication if that takes an identity, else outside.
    ///
    /// # Errors
    /// [`ConfigError`] if a quota is out of its bounds, see [`Quota::validate`], or plans go by a claim without a name.
    pub fn per(by: LimitBy, limits: impl Into<Limits>) -> Result<Self, ConfigError> {
        Self::new(by, limits.into(), "custom")
    }

    fn new(by: LimitBy, limits: Limits, scope: &'static str) -> Result<Self, ConfigError> {
        let shared = Shared {
            by,
            on_missing: None,
            scope: Cow::Borrowed(scope),
            scope_hash: LimitScope::new(scope).hash(),
            tiers: match limits.0 {
                Held::Quota(quota) => Tiers::One(Arc::new(Tier::new([quota])?)),
                Held::Plans(plans) => {
                    plans.validate()?;
                    Tiers::Plans(plans)
                }
            },
            wide: true,
            cost: Cost::Fixed(NonZeroU32::MIN),
            count_refused: false,
            mode: Mode::Reject,
            shadow: None,
            send_fields: true,
            x_fields: None,
            store: Arc::new(MemoryLimits::new()),
            on_store_error: OnStoreError::Refuse,
            clock: Arc::new(SystemClock),
            tally: Arc::default(),
            jitter: None,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn edit(mut self, edit: impl FnOnce(&mut Shared)) -> Self {
        edit(Arc::make_mut(&mut self.shared));
        self
    }

    /// Adds a quota that holds as well: 10 a second and 1 000 a day, say. A request takes from all of them or from none.
    ///
    /// # Errors
    /// [`ConfigError`] if the quota is out of its bounds, has the name of another one, or is the fifth; or if the limiter has
    /// [`Plans`], which hold several quotas themselves.
    pub fn and(self, quota: Quota) -> Result<Self, ConfigError> {
        let Tiers::One(tier) = &self.shared.tiers else {
            return Err(ConfigError::new("quota", quota.name(), "is added to plans: add it to each of them"));
        };
        let tier = Tiers::One(Arc::new(Tier::new(tier.quotas.iter().cloned().chain([quota]))?));
        Ok(self.edit(|shared| shared.tiers = tier))
    }

    /// Counts in this store.
    pub fn with_store(self, store: impl RateLimitStore) -> Self {
        self.edit(|shared| shared.store = Arc::new(store))
    }

    /// Names this limiter within its store: limiters that share a store, and not their counts, need different scopes.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is 1 to 64 lower-case letters, digits, hyphens and underscores.
    pub fn with_scope(self, scope: impl Into<Cow<'static, str>>) -> Result<Self, ConfigError> {
        let scope = scope.into();
        valid_scope(&scope)?;
        Ok(self.edit(|shared| {
            shared.scope_hash = LimitScope::new(&scope).hash();
            shared.scope = scope;
        }))
    }

    /// Reads this clock, if this layer is the outermost of the crate's: whoever is outermost reads the time for all.
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.edit(|shared| shared.clock = Arc::new(clock))
    }

    /// Says what a request takes. A cost beyond the burst is refused for good, without `Retry-After`.
    ///
    /// # Errors
    /// [`ConfigError`] if it is zero.
    pub fn with_cost(self, cost: u32) -> Result<Self, ConfigError> {
        let cost = NonZeroU32::new(cost).ok_or_else(|| ConfigError::new("cost", "0", "must be at least 1"))?;
        Ok(self.edit(|shared| shared.cost = Cost::Fixed(cost)))
    }

    /// Asks this function what a request takes: by its route, its `Content-Length`. One that costs nothing passes uncounted.
    /// The function must not panic; if it does, that request is refused with `503`, and nothing was taken.
    pub fn with_cost_by(self, cost: impl Fn(&LimitRequest<'_>) -> u32 + Send + Sync + 'static) -> Self {
        self.edit(|shared| shared.cost = Cost::By(Arc::new(cost)))
    }

    /// Counts requests also if they are refused: who keeps knocking stays out. By default they are not, so that a client that
    /// tries again too early is no worse off. A limiter that
    /// [throttles](Self::throttle) never counts them.
    pub fn counting_refused(self) -> Self {
        self.edit(|shared| shared.count_refused = true)
    }

    /// Says what happens to requests without a key.
    pub fn on_missing_key(self, choice: OnMissingKey) -> Self {
        self.edit(|shared| shared.on_missing = Some(choice))
    }

    /// Counts no /48 around an IPv6 /64. Whoever has one, and a provider rents them out for nothing, then has 65 536 times
    /// the quota.
    pub fn dangerous_without_wide_networks(self) -> Self {
        self.edit(|shared| shared.wide = false)
    }

    /// Tries the limit out on live traffic until a day: it counts, refuses nobody and delays nobody, and marks in the audit
    /// record who would have been refused, with `limit_would_refuse`. It sends no response fields. From that day on it
    /// refuses.
    pub fn shadow(self, mode: ShadowMode) -> Self {
        self.edit(|shared| shared.shadow = Some(Shadow::new(mode)))
    }

    /// How long a request may wait for its turn.
    #[cfg(feature = "stack")]
    pub(crate) fn longest_wait(&self) -> std::time::Duration {
        match &self.shared.mode {
            Mode::Reject => std::time::Duration::ZERO,
            #[cfg(feature = "throttle")]
            Mode::Throttle(queue) => queue.longest(),
        }
    }

    /// Tells at start, and in audit, that it is in shadow mode.
    #[cfg(feature = "stack")]
    pub(crate) fn announce(&self, at: crate::clock::Instants) {
        if let Some(shadow) = &self.shared.shadow {
            shadow.announce(at, &format!("limit {}", self.shared.scope));
        }
    }

    /// Lets requests over the quota wait their turn instead of refusing them.
    #[cfg(feature = "throttle")]
    pub fn throttle(self, throttle: super::Throttle) -> Self {
        self.edit(|shared| shared.mode = Mode::Throttle(Arc::new(throttle.queue())))
    }

    /// Says what happens when the store fails.
    pub fn on_store_error(self, choice: OnStoreError) -> Self {
        self.edit(|shared| shared.on_store_error = choice)
    }

    /// Sends no `RateLimit` and no `RateLimit-Policy`. `Retry-After` stays.
    pub fn without_headers(self) -> Self {
        self.edit(|shared| shared.send_fields = false)
    }

    /// Sends `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` as well, for clients that know only them.
    pub fn with_x_ratelimit_headers(self, reset: XRateLimitReset) -> Self {
        self.edit(|shared| shared.x_fields = Some(reset))
    }

    /// Adds up to this much to `Retry-After`, by chance, so that those who were refused at the same moment do not all come back
    /// at the same moment. It is never less than the true time, which `RateLimit` goes on to tell. None by default.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is 1 s to 1 h.
    pub fn with_retry_jitter(self, most: Duration) -> Result<Self, ConfigError> {
        if most < Duration::from_secs(1) || most > Duration::from_secs(3_600) {
            return Err(ConfigError::new("retry jitter", format!("{most:?}"), "is not 1 s to 1 h"));
        }
        Ok(self.edit(|shared| shared.jitter = Some((most.as_secs(), RandomState::default()))))
    }

    /// The fields that it counts by.
    #[cfg(feature = "stack")]
    pub(crate) fn fields(&self) -> impl Iterator<Item = &http::HeaderName> {
        self.shared.by.fields()
    }

    #[cfg(feature = "stack")]
    pub(crate) fn scope(&self) -> &str {
        &self.shared.scope
    }

    /// The names of quotas that clients are told of; none where no response fields are sent.
    #[cfg(feature = "stack")]
    pub(crate) fn told_names(&self) -> BTreeSet<String> {
        let names = |tier: &Tier| tier.quotas.iter().map(|quota| quota.name().to_owned()).collect();
        match &self.shared.tiers {
            _ if !self.shared.send_fields => BTreeSet::new(),
            Tiers::One(tier) => names(tier),
            Tiers::Plans(plans) => plans.quota_names(),
        }
    }

    /// What this limiter and its clones did so far.
    #[must_use]
    pub fn counts(&self) -> LimitCounts {
        let tally = &self.shared.tally;
        LimitCounts {
            refused: tally.refused.load(Relaxed),
            would_refuse: self.shared.shadow.as_ref().map_or(0, Shadow::would_refuse),
            waited: tally.waited.load(Relaxed),
            degraded: tally.degraded.load(Relaxed),
            failed: tally.failed.load(Relaxed),
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = Gate<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, self.clone())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("by", &self.by)
            .field("scope", &self.scope)
            .field("quotas", &self.tiers)
            .field("mode", &self.mode)
            .field("shadow", &self.shadow)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
