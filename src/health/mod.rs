//! How what the layers depend on is doing: for probes, for people and for metrics.
//!
//! A [`Health`] watches sources. Each is ready; or stale: it works with what it had, since something newer cannot be had; or
//! failing: requests that need it are refused, mostly with `503`. A look waits for nobody and asks nobody, however often there is
//! one; the first one at tokens starts the task that fetches their keys, if no request has.
//!
//! ```
//! use portcullis::{Clock, SystemClock, health::{Condition, Health, SourceHealth}};
//!
//! let health = Health::new().watch("ledger", |_| SourceHealth::stale("the feed is 40 s behind"));
//! let report = health.look(SystemClock::new().now());
//! assert_eq!(report.condition(), Condition::Stale);
//! assert!(report.is_ready(), "it goes on with what it had");
//! ```

#[cfg(feature = "axum")]
mod router;

use std::{fmt, sync::Arc};
#[cfg(feature = "audit")]
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

#[cfg(feature = "axum")]
pub use router::{LIVE_PATH, READY_PATH, probes, report_router};

use crate::{clock::Instants, policy::PolicyBackend};

/// How a source is doing. In this order: the worst is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: new, old, or none")]
pub enum Condition {
    /// All is well.
    Ready,
    /// It works with what it had, and what is newer cannot be had. Somebody should look after it before it is too old.
    Stale,
    /// Requests that need it are refused.
    Failing,
}

impl Condition {
    /// `ready`, `stale` or `failing`: the label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Failing => "failing",
        }
    }
}

/// The condition of one source, and why it is not ready. The cause is for the operator; no probe shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct SourceHealth {
    condition: Condition,
    cause: Option<Arc<str>>,
}

impl SourceHealth {
    /// All is well.
    pub const fn ready() -> Self {
        Self { condition: Condition::Ready, cause: None }
    }

    /// It works with what it had, for this cause.
    pub fn stale(cause: impl Into<Arc<str>>) -> Self {
        Self { condition: Condition::Stale, cause: Some(cause.into()) }
    }

    /// Requests that need it are refused, for this cause.
    pub fn failing(cause: impl Into<Arc<str>>) -> Self {
        Self { condition: Condition::Failing, cause: Some(cause.into()) }
    }

    /// The condition.
    #[must_use]
    pub const fn condition(&self) -> Condition {
        self.condition
    }

    /// Why it is not ready.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

/// How long a lost audit entry is told: one minute.
#[cfg(feature = "audit")]
pub const AUDIT_MEMORY: Duration = Duration::from_secs(60);

type Look = dyn Fn(Instants, &mut Report) + Send + Sync;

/// Watches sources, in the order in which they were named. A clone watches the same.
#[derive(Clone, Default)]
#[must_use]
pub struct Health {
    sources: Vec<Arc<Look>>,
}

impl Health {
    /// Watches nothing yet: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a source of your own. The look must not wait for anything: it is called for each probe.
    pub fn watch(self, name: &str, look: impl Fn(Instants) -> SourceHealth + Send + Sync + 'static) -> Self {
        let name: Arc<str> = name.into();
        self.with(move |at, report| report.push(Arc::clone(&name), look(at)))
    }

    /// Watches the keys of each issuer, as `jwt:` and the issuer's name. Stale while a refresh fails and the keys that are
    /// there are trusted, or none of them fits the issuer's profile; failing while there are none, or they are too old.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub fn watch_tokens(self, authenticator: &crate::jwt::JwtAuthenticator) -> Self {
        let authenticator = authenticator.clone();
        self.with(move |at, report| {
            for (issuer, keys) in authenticator.readiness(at) {
                let health = match (keys.is_ready(), keys.cause()) {
                    (true, None) => SourceHealth::ready(),
                    (true, Some(cause)) => SourceHealth::stale(cause),
                    (false, _) => SourceHealth::failing(keys.cause().unwrap_or("no keys")),
                };
                report.push(format!("jwt:{issuer}").into(), health);
            }
        })
    }

    /// Watches the reloading of a policy, as `policy:` and the backend's name. Stale while the newest policy is refused, and
    /// the one before it runs.
    pub fn watch_policy(self, policy: impl PolicyBackend) -> Self {
        let name: Arc<str> = format!("policy:{}", policy.name()).into();
        self.with(move |_, report| {
            let state = policy.reload_state();
            let failing = state.as_ref().and_then(|state| state.failing());
            report.push(Arc::clone(&name), failing.map_or_else(SourceHealth::ready, SourceHealth::stale));
        })
    }

    /// Watches a decision point, as `decision_point:` and its URL. Failing if a question of the last 10 s had no answer; stale if
    /// an older one had none, since it may be back and nobody has asked. Nothing is asked for a probe. A question that it does not take
    /// (`400`, `413`, `414`, `422`, `431`) does not count, and one at which it fails (`500`), or that it answers by JSON of another
    /// form, makes it stale: what a client has sent may be to blame.
    #[cfg(feature = "policy-remote")]
    pub fn watch_decision_point(self, point: crate::policy::PointHealth) -> Self {
        let name = format!("decision_point:{}", point.name());
        self.watch(&name, move |at| match (point.recent_failure(at), point.failure()) {
            (Some(cause), _) => SourceHealth::failing(cause),
            (None, Some(cause)) => SourceHealth::stale(cause),
            (None, None) => SourceHealth::ready(),
        })
    }

    /// Watches an introspection endpoint, as `introspection:` and its URL. Failing if a question of the last 10 s had no answer;
    /// stale if an older one had none, since it may be back and nobody has asked. Nothing is asked for a probe. A question that the
    /// endpoint does not take (`400`, `413`, `414`, `422`, `431`) does not count, and `403` without an error code, `429`, `500`, a redirect
    /// and an answer that is too large or too odd to be read make it stale: its token may be to blame.
    ///
    /// # Security
    /// What makes the endpoint, or a firewall before it, answer otherwise or not in time looks like an outage, and strangers may find
    /// such a token. Where that is a danger, watch it for an alarm and not for readiness.
    #[cfg(feature = "introspection")]
    pub fn watch_introspection(self, tokens: crate::jwt::introspection::Introspection) -> Self {
        let name = format!("introspection:{}", tokens.endpoint());
        self.watch(&name, move |at| match (tokens.recent_failure(at), tokens.failure()) {
            (Some(cause), _) => SourceHealth::failing(cause),
            (None, Some(cause)) => SourceHealth::stale(cause),
            (None, None) => SourceHealth::ready(),
        })
    }

    /// Watches a file of API keys, as `api_keys`. Stale while the file is broken, and what was read before is in use.
    #[cfg(feature = "api-key-file")]
    pub fn watch_key_file(self, store: Arc<crate::api_key::FileKeyStore>) -> Self {
        self.watch("api_keys", move |_| store.health().failing.map_or_else(SourceHealth::ready, SourceHealth::stale))
    }

    /// Watches limits in Redis, as `limits`. While Redis is away it is stale if this process decides by itself, and failing if
    /// nobody does.
    #[cfg(feature = "rate-limit-redis")]
    pub fn watch_limits(self, limits: &crate::rate_limit::RedisLimits) -> Self {
        use crate::rate_limit::{RedisState, WhenAway};

        let limits = limits.clone();
        self.watch("limits", move |_| match (limits.state(), limits.when_away()) {
            (RedisState::Away, WhenAway::Fail) => SourceHealth::failing("Redis does not answer"),
            (RedisState::Away, WhenAway::InProcess { .. }) => SourceHealth::stale("Redis does not answer"),
            (RedisState::Up | RedisState::Connecting, _) => SourceHealth::ready(),
        })
    }

    /// Watches the proofs that are remembered in Redis, as `replays`. Failing while Redis does not answer, or may have forgotten
    /// proofs that could be used again.
    #[cfg(feature = "dpop-redis")]
    pub fn watch_replays(self, replays: &crate::jwt::bound::RedisReplays) -> Self {
        let replays = replays.clone();
        self.watch("replays", move |_| match replays.is_ready() {
            true => SourceHealth::ready(),
            false => SourceHealth::failing("Redis does not answer, or may have forgotten proofs"),
        })
    }

    /// Watches the state of revocations, as `revocations`. Failing while it is older than it may be, or not loaded yet.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub fn watch_revocations(self, store: &dyn crate::revocation::RevocationStore) -> Self {
        let state = store.state().clone();
        self.watch("revocations", move |at| match state.is_fresh(at) {
            true => SourceHealth::ready(),
            false => SourceHealth::failing("their state is too old, or was never loaded"),
        })
    }

    /// Watches a sink of audit records, as `audit`. Stale for [`AUDIT_MEMORY`] after a look has found that entries were lost since the
    /// look before.
    #[cfg(feature = "audit")]
    pub fn watch_audit(self, sink: impl crate::audit::AuditSink) -> Self {
        let seen = Mutex::new((sink.lost(), None::<Instants>));
        self.watch("audit", move |at| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let (known, grown) = &mut *seen;
            let lost = sink.lost();
            if lost > *known {
                (*known, *grown) = (lost, Some(at));
            }
            match grown {
                Some(grown) if at.since(*grown) < AUDIT_MEMORY => {
                    SourceHealth::stale(format!("entries are lost: {lost} since the sink was made"))
                }
                Some(_) | None => SourceHealth::ready(),
            }
        })
    }

    /// Looks at all sources.
    pub fn look(&self, at: Instants) -> Report {
        let mut report = Report::default();
        for look in &self.sources {
            look(at, &mut report);
        }
        report
    }

    fn with(mut self, look: impl Fn(Instants, &mut Report) + Send + Sync + 'static) -> Self {
        self.sources.push(Arc::new(look));
        self
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

/// What a look at all sources found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    sources: Vec<(Arc<str>, SourceHealth)>,
}

impl Report {
    fn push(&mut self, name: Arc<str>, health: SourceHealth) {
        self.sources.push((name, health));
    }

    /// The worst condition of all; ready if nothing is watched.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.sources.iter().map(|(_, health)| health.condition).max().unwrap_or(Condition::Ready)
    }

    /// Whether no source is failing. A stale one serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition() < Condition::Failing
    }

    /// Each source's name and health.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &SourceHealth)> {
        self.sources.iter().map(|(name, health)| (&**name, health))
    }
}
