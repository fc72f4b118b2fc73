//! What happens to the service itself, rather than to a request: a key is made, a policy is reloaded, a limiter loses its store.
//!
//! Whoever brings it about calls [`tell`]; every [`AuditLayer`](crate::audit::AuditLayer) hears it and records it, unless it
//! was told [not to](crate::audit::AuditLayer::without_events). Policies, key sets, limits and limiters tell by themselves.
//!
//! Keys, their owners and tokens are changed by whoever calls a store, which does not know who asked for it. So the routers of
//! administration and the back-channel logout tell; a `KeyIssuer`, the stores and the methods of `RevocationAdmin` do not. **Code of your
//! own that makes such a change tells it, once it is done**, and so do stores and backends of your own:
//!
//! ```
//! use portcullis::{SecurityContext, Principal, event::{Event, EventKind, tell}};
//!
//! fn revoked(context: &SecurityContext, by: Principal, key_id: &str) {
//!     tell(Event::new(EventKind::KeyRevoked, "support desk").with("key", key_id).by(context.request_id(), by));
//! }
//!
//! tell(Event::new(EventKind::PolicyReloaded, "ledger").with("version", "2026-11-01"));
//! # let _ = revoked;
//! ```
//!
//! Events are for what an operator or an auditor asks about afterwards, some a day. What every request could bring about is
//! told at its turn alone (the limiter lost its store; it has it again), or belongs into the request's record.

use std::{
    fmt,
    sync::{
        PoisonError, RwLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    clock::{Clock, Instants, SystemClock},
    context::RequestId,
    mention::Telling,
    principal::Principal,
};

/// The most details of an event; later ones are dropped.
pub const MAX_DETAILS: usize = 8;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// An API key was made.
    KeyCreated,
    /// An API key was replaced.
    KeyRotated,
    /// An API key was revoked.
    KeyRevoked,
    /// Tokens were revoked.
    TokensRevoked,
    /// All keys of an owner were disabled.
    OwnerDisabled,
    /// The keys of an owner were enabled again.
    OwnerEnabled,
    /// A newer policy runs. Its `version` is among the details.
    PolicyReloaded,
    /// A newer policy is not accepted; the one before runs on.
    PolicyRefused,
    /// Quotas, plans, or which of them a limit names, are others: a newer configuration was taken over.
    LimitsChanged,
    /// The key set of an issuer changed.
    KeySetRotated,
    /// The key set of an issuer cannot be had; what there is, is used as long as it may be.
    KeySetUnavailable,
    /// The key set of an issuer is there again.
    KeySetRestored,
    /// Another count than the shared one decides about limits.
    LimiterDegraded,
    /// The shared count decides about limits again.
    LimiterRestored,
    /// A layer lets requests pass that it could not decide about, because its owner chose so.
    FailedOpen,
    /// A layer that let pass what it could not decide about decides again.
    FailedOpenEnded,
    /// An exchange that outlasted its request ended, because its credential expired or was revoked, or nobody could say.
    ExchangeEnded,
    /// A rule or a limit is tried out: it refuses nothing yet.
    ShadowStarted,
    /// A rule or a limit that was tried out refuses from now on.
    ShadowEnded,
}

impl EventKind {
    /// The word that records show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyCreated => "key_created",
            Self::KeyRotated => "key_rotated",
            Self::KeyRevoked => "key_revoked",
            Self::TokensRevoked => "tokens_revoked",
            Self::OwnerDisabled => "owner_disabled",
            Self::OwnerEnabled => "owner_enabled",
            Self::PolicyReloaded => "policy_reloaded",
            Self::PolicyRefused => "policy_refused",
            Self::LimitsChanged => "limits_changed",
            Self::KeySetRotated => "key_set_rotated",
            Self::KeySetUnavailable => "key_set_unavailable",
            Self::KeySetRestored => "key_set_restored",
            Self::LimiterDegraded => "limiter_degraded",
            Self::LimiterRestored => "limiter_restored",
            Self::FailedOpen => "failed_open",
            Self::FailedOpenEnded => "failed_open_ended",
            Self::ExchangeEnded => "exchange_ended",
            Self::ShadowStarted => "shadow_started",
            Self::ShadowEnded => "shadow_ended",
        }
    }

    /// Whether an operator should look at it.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        match self {
            Self::PolicyRefused | Self::KeySetUnavailable | Self::LimiterDegraded | Self::FailedOpen => true,
            Self::KeyCreated
            | Self::KeyRotated
            | Self::KeyRevoked
            | Self::TokensRevoked
            | Self::OwnerDisabled
            | Self::OwnerEnabled
            | Self::PolicyReloaded
            | Self::LimitsChanged
            | Self::KeySetRotated
            | Self::KeySetRestored
            | Self::LimiterRestored
            | Self::FailedOpenEnded
            | Self::ExchangeEnded
            | Self::ShadowStarted
            | Self::ShadowEnded => false,
        }
    }
}

/// Something that happened to the service: what, to which part of it, by whom if somebody asked for it.
#[derive(Clone)]
#[must_use]
pub struct Event {
    kind: EventKind,
    about: Telling,
    details: Vec<(&'static str, Telling)>,
    unix_nanos: u64,
    request_id: Option<RequestId>,
    by: Option<Principal>,
}

impl Event {
    /// It happened now, to `about`: the name of a policy, a store or an issuer. Records show it whatever they hide of people, so
    /// let it name nobody; a [detail](Self::with) may.
    pub fn new(kind: EventKind, about: impl Into<Box<str>>) -> Self {
        let about: Box<str> = about.into();
        Self::about_whom(kind, about.into())
    }

    /// The same where what it happened to may be somebody, or somebody's.
    pub(crate) fn about_whom(kind: EventKind, about: Telling) -> Self {
        let unix_nanos = SystemClock.now().unix_nanos();
        Self { kind, about, details: Vec::new(), unix_nanos, request_id: None, by: None }
    }

    /// Says when it happened.
    pub const fn at(mut self, at: Instants) -> Self {
        self.unix_nanos = at.unix_nanos();
        self
    }

    /// Adds a detail: a version, a reason. Records show it, unless they hide what handlers note; it must not be secret. At most
    /// [`MAX_DETAILS`] are kept.
    pub fn with(self, name: &'static str, value: impl Into<Box<str>>) -> Self {
        let value: Box<str> = value.into();
        self.telling(name, value.into())
    }

    /// Adds a detail that may mention somebody.
    pub(crate) fn telling(mut self, name: &'static str, told: Telling) -> Self {
        if self.details.len() < MAX_DETAILS {
            self.details.push((name, told));
        }
        self
    }

    /// Says which request brought it about, and who asked.
    pub fn by(mut self, request_id: RequestId, principal: Principal) -> Self {
        (self.request_id, self.by) = (Some(request_id), Some(principal));
        self
    }

    /// Says whom it is about, where no request brought it about.
    pub fn whose(mut self, principal: Principal) -> Self {
        self.by = Some(principal);
        self
    }

    /// What happened.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// What it happened to.
    #[must_use]
    pub fn about(&self) -> &str {
        self.about.plain()
    }

    /// The details, in order.
    #[must_use]
    pub fn details(&self) -> impl ExactSizeIterator<Item = (&'static str, &str)> {
        self.details.iter().map(|(name, value)| (*name, value.plain()))
    }

    /// What it happened to, with who is mentioned in it.
    #[cfg(feature = "audit")]
    pub(crate) const fn about_told(&self) -> &Telling {
        &self.about
    }

    /// The details, with who is mentioned in them.
    #[cfg(feature = "audit")]
    pub(crate) fn details_told(&self) -> &[(&'static str, Telling)] {
        &self.details
    }

    /// When it happened, in nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }

    /// The request that brought it about.
    #[must_use]
    pub const fn request_id(&self) -> Option<RequestId> {
        self.request_id
    }

    /// Who asked for it.
    #[must_use]
    pub const fn principal(&self) -> Option<&Principal> {
        self.by.as_ref()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Event");
        shown
            .field("kind", &self.kind)
            .field("about", &self.about)
            .field("details", &self.details)
            .finish_non_exhaustive()
    }
}

/// Hears what is told.
pub(crate) trait Listener: Send + Sync {
    fn hear(&self, event: &Event);
}

static LISTENERS: RwLock<Vec<Weak<dyn Listener>>> = RwLock::new(Vec::new());
/// Their number: where nobody listens, nobody takes the lock.
static LISTENING: AtomicUsize = AtomicUsize::new(0);

/// Tells all who listen in this process, on this thread. Must not be called where a lock is held that a sink could need.
#[expect(clippy::needless_pass_by_value, reason = "an event is made to be told")]
pub fn tell(event: Event) {
    if LISTENING.load(Ordering::Relaxed) == 0 {
        return;
    }
    let listeners: Vec<_> =
        LISTENERS.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    listeners.iter().for_each(|listener| listener.hear(&event));
}

/// Listens as long as it lives.
#[cfg(any(test, feature = "audit"))]
pub(crate) fn listen(listener: Weak<dyn Listener>) {
    let mut listeners = LISTENERS.write().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|listener| listener.strong_count() > 0);
    listeners.push(listener);
    LISTENING.store(listeners.len(), Ordering::Relaxed);
}

/// A state that many requests see, and whose turns alone are told.
#[derive(Debug, Default)]
pub(crate) struct Turn(std::sync::atomic::AtomicBool);

impl Turn {
    /// Whether it is now otherwise than it was before. One load where it is not.
    pub(crate) fn is_new(&self, now: bool) -> bool {
        self.0.load(Ordering::Relaxed) != now && self.0.swap(now, Ordering::Relaxed) != now
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Event>>);

    impl Listener for Heard {
        fn hear(&self, event: &Event) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    impl Heard {
        fn about(&self, about: &str) -> usize {
            self.0.lock().unwrap().iter().filter(|event| event.about() == about).count()
        }
    }

    #[test]
    fn who_listens_hears_as_long_as_it_lives() {
        let (one, other) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
        for heard in [&one, &other] {
            let weak: Weak<Heard> = Arc::downgrade(heard);
            listen(weak);
        }
        tell(Event::new(EventKind::PolicyReloaded, "who listens hears"));
        drop(other);
        tell(Event::new(EventKind::PolicyRefused, "who listens hears").with("why", "line 3"));
        assert_eq!(one.about("who listens hears"), 2);
    }

    #[test]
    fn only_turns_are_new() {
        let turn = Turn::default();
        let seen = [false, true, true, false, false, true].map(|now| turn.is_new(now));
        assert_eq!(seen, [false, true, false, true, false, true]);
    }

    #[test]
    fn details_are_bounded() {
        let event = (0..20).fold(Event::new(EventKind::KeyCreated, "x"), |event, _| event.with("n", "v"));
        assert_eq!(event.details().len(), MAX_DETAILS);
    }
}
