use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Revocation, RevocationKind, TokenMarks,
    entries::{Entries, Entry, Full},
};
use crate::{
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    now::Now,
    principal::Principal,
    voucher::{Ended, Voucher},
};

/// Beyond its end, a token is good for the leeway, 5 min at most; it may have been issued so far ahead of our clock; and whoever
/// revokes it may be so far behind. A revocation is good for all that longer, and a second.
pub(super) const MARGIN: u64 = 901;

/// How many revocations a process knows, how long it keeps them, and how long it trusts what it heard.
///
/// ```
/// use std::time::Duration;
/// use portcullis::revocation::{MemoryRevocations, RevocationLimits};
///
/// let limits = RevocationLimits::new().capacity(1_000_000).kept_for(Duration::from_secs(3_600));
/// let revocations = MemoryRevocations::with_limits(limits);
/// # let _ = revocations;
/// ```
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationLimits {
    capacity: usize,
    kept_for: Duration,
    max_age: Duration,
}

impl RevocationLimits {
    /// 100 000 revocations, 24 h, 5 s.
    pub const fn new() -> Self {
        Self { capacity: 100_000, kept_for: Duration::from_secs(86_400), max_age: Duration::from_secs(5) }
    }

    /// Sets how many there may be, 1 to 10 000 000; what is out of that is brought there. About 40 bytes each, taken as they
    /// come. Default 100 000.
    pub const fn capacity(mut self, revocations: usize) -> Self {
        self.capacity = match revocations {
            0 => 1,
            1..=10_000_000 => revocations,
            _ => 10_000_000,
        };
        self
    }

    /// Sets how long one is kept that does not say when it [ends](Revocation::until). No token may live longer: whoever checks
    /// revocations refuses it. Default 24 h.
    pub const fn kept_for(mut self, time: Duration) -> Self {
        self.kept_for = time;
        self
    }

    /// Sets how long after the last contact a state is trusted that others may change. Default 5 s: so long a process that
    /// lost its connection may accept what was revoked elsewhere.
    pub const fn max_age(mut self, time: Duration) -> Self {
        self.max_age = time;
        self
    }

    /// How many there may be.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.capacity
    }

    /// How long after the last contact a state is trusted.
    #[must_use]
    pub const fn trusted_for(&self) -> Duration {
        self.max_age
    }

    /// When one ends that does not say it, in seconds since the Unix epoch.
    #[must_use]
    pub const fn end_from(&self, at: Instants) -> u64 {
        at.unix_seconds().saturating_add(self.kept_for.as_secs())
    }
}

/// Whether a state that others change can be kept with these.
#[cfg(any(feature = "revocation-postgres", feature = "revocation-redis", feature = "revocation-sqlite"))]
pub(super) fn check_shared(limits: &RevocationLimits) -> Result<(), crate::error::ConfigError> {
    let age = limits.trusted_for();
    if (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&age) {
        return Ok(());
    }
    Err(crate::error::ConfigError::new("age of revocations", format!("{age:?}"), "is not 100 ms to 1 h"))
}

impl Default for RevocationLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// How a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: good, revoked, or not known")]
pub enum Standing {
    /// No revocation meets it.
    Good,
    /// A revocation of this kind meets it.
    Revoked(RevocationKind),
    /// The state is too old, or was never loaded: nobody can say (`503`).
    Unknown,
}

/// What a process knows of revocations. A clone shares the state and costs one reference count.
///
/// # Cost
/// A principal that was asked about before costs two loads as long as nothing was added since; else one look-up for each fact
/// of its token, at most five, under a lock that readers share. Nothing is allocated, nothing awaited.
#[derive(Clone)]
pub struct RevocationState {
    shared: Arc<Shared>,
}

struct Shared {
    /// Grows with each change, and is never that of another state.
    generation: AtomicU64,
    /// The first nanosecond of the monotonic clock at which the state is not trusted any more.
    good_until: AtomicU64,
    /// The last moment of that clock at which it was distrusted. Held by whoever changes the former.
    distrusted: Mutex<Option<u64>>,
    entries: RwLock<Entries>,
    limits: RevocationLimits,
    is_fed: bool,
    /// Whether somebody in this process asks it, or will: else revoking would change nothing.
    is_asked: AtomicBool,
}

/// Unique in the process: a principal that was cleared by one state is not by another.
fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed).saturating_add(1)
}

impl RevocationState {
    /// A state that nobody else changes: it is trusted for ever.
    #[must_use]
    pub fn own(limits: RevocationLimits) -> Self {
        Self::new(limits, u64::MAX, limits.capacity, false)
    }

    /// A state that is fed by others: it is not trusted until [`confirm`](Self::confirm) is called. It has room for twice as many as
    /// there may be: what is removed from the store by hand stays known here, and must not keep out what comes in its place.
    #[must_use]
    pub fn fed(limits: RevocationLimits) -> Self {
        Self::new(limits, 0, limits.capacity.saturating_mul(2), true)
    }

    fn new(limits: RevocationLimits, good_until: u64, room: usize, is_fed: bool) -> Self {
        let shared = Shared {
            generation: AtomicU64::new(next_generation()),
            good_until: AtomicU64::new(good_until),
            distrusted: Mutex::default(),
            entries: RwLock::new(Entries::with_room(room)),
            limits,
            is_fed,
            is_asked: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How a principal's token stands.
    #[inline]
    pub fn check(&self, principal: &Principal, at: Instants) -> Standing {
        self.note_asked();
        if !self.is_fresh(at) {
            return Standing::Unknown;
        }
        // Before the look-up: what is added meanwhile has a later one.
        let generation = self.shared.generation.load(Acquire);
        if principal.is_cleared_under(generation) {
            return Standing::Good;
        }
        let standing = self.look_up(&principal.revocation_marks(), at);
        if standing == Standing::Good {
            principal.note_cleared(generation);
        }
        standing
    }

    /// How a token with these marks stands.
    pub fn check_marks(&self, marks: &TokenMarks, at: Instants) -> Standing {
        self.note_asked();
        self.standing_of(marks, at)
    }

    /// The same for who admits nobody by it.
    pub(crate) fn standing_of(&self, marks: &TokenMarks, at: Instants) -> Standing {
        if self.is_fresh(at) { self.look_up(marks, at) } else { Standing::Unknown }
    }

    fn look_up(&self, marks: &TokenMarks, at: Instants) -> Standing {
        let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
        let (now, issued) = (at.unix_seconds(), marks.issue_time());
        let met = marks.each().find(|(_, hash)| {
            entries.get(*hash).is_some_and(|entry| issued <= entry.issued_until && now < entry.until)
        });
        met.map_or(Standing::Good, |(kind, _)| Standing::Revoked(kind))
    }

    /// Whether the state is trusted now.
    #[must_use]
    #[inline]
    pub fn is_fresh(&self, at: Instants) -> bool {
        at.monotonic_nanos() < self.shared.good_until.load(Acquire)
    }

    /// Adds revocations, all or none. What is there already is kept for the longer of both times. What has ended by this clock
    /// counts again if the clock was ahead; it is dropped where the room is needed.
    ///
    /// # Errors
    /// [`Conflict`](StoreErrorKind::Conflict) if there is no room, also once those that have ended are dropped.
    pub fn add<'r>(
        &self,
        revocations: impl IntoIterator<Item = &'r Revocation>,
        at: Instants,
    ) -> Result<(), StoreError> {
        let (now, limits) = (at.unix_seconds(), &self.shared.limits);
        let entry = |revocation: &Revocation| {
            let end = revocation.end_with(limits, at);
            let issued_until = revocation.last_issue().unwrap_or(u64::MAX);
            (revocation.hash(), Entry { issued_until, until: end.saturating_add(MARGIN) })
        };
        let new = revocations.into_iter().map(entry).collect();
        let mut entries = self.shared.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.add(new, now).map_err(|Full { room }| {
            let error = StoreError::new(StoreErrorKind::Conflict, "revocations");
            error.caused_by(format!("there is room for {room} and no more"))
        })?;
        self.shared.generation.store(next_generation(), Release);
        Ok(())
    }

    /// Says that at this moment nothing was missing: the moment before the question was asked, not after the answer. An
    /// earlier moment than the last changes nothing, nor does one that is not after the last [distrust](Self::distrust).
    pub fn confirm(&self, at: Instants) {
        let at = at.monotonic_nanos();
        let age = u64::try_from(self.shared.limits.max_age.as_nanos()).unwrap_or(u64::MAX);
        let distrusted = self.shared.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if distrusted.is_none_or(|distrusted| distrusted < at) {
            self.shared.good_until.fetch_max(at.saturating_add(age), Release);
        }
    }

    /// Says that at this moment something is missing: the state is not trusted until a later moment is confirmed. What was asked
    /// before may be answered after it, and says nothing of what is missing. A clock that stands still, in a test, must be moved on
    /// for that.
    pub fn distrust(&self, at: Instants) {
        let mut distrusted = self.shared.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        *distrusted = distrusted.max(Some(at.monotonic_nanos()));
        self.shared.good_until.store(0, Release);
    }

    /// How long a token may live at most, so that its revocation is kept until it ends.
    #[must_use]
    pub fn longest_life(&self) -> Duration {
        self.shared.limits.kept_for
    }

    /// How many revocations are known; those that have ended may be among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses what has ended by the caller's clock, leeways included: it would be met by nobody, and must not be called revoked. A
    /// store asks it in [`revoke`](crate::revocation::RevocationStore::revoke), before it writes; `backend` is its name.
    ///
    /// # Errors
    /// [`Conflict`](StoreErrorKind::Conflict) if it has ended.
    pub fn check_end(&self, revocation: &Revocation, at: Instants, backend: &'static str) -> Result<(), StoreError> {
        if !self.has_ended(revocation, at) {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Conflict, backend).caused_by("what it would meet has ended by this clock"))
    }
}

impl RevocationState {
    /// Whether all that it could meet has ended by the caller's clock, leeways included.
    pub(crate) fn has_ended(&self, revocation: &Revocation, at: Instants) -> bool {
        at.unix_seconds() >= revocation.end_with(&self.shared.limits, at).saturating_add(MARGIN)
    }

    /// Somebody admits whom this lets pass, or will.
    #[inline]
    pub(crate) fn note_asked(&self) {
        // Mostly it is known, and then nothing is written that other threads read.
        if !self.shared.is_asked.load(Relaxed) {
            self.shared.is_asked.store(true, Relaxed);
        }
    }

    /// Whether what is added here counts for anybody, as far as this process can tell: others may ask what feeds it.
    #[cfg(feature = "revocation-admin")]
    pub(crate) fn counts_for_somebody(&self) -> bool {
        self.shared.is_fed || self.shared.is_asked.load(Relaxed)
    }

    /// Whether others feed it: what one of them is told, another hears of a moment later.
    #[cfg(feature = "revocation-admin")]
    pub(crate) fn is_fed(&self) -> bool {
        self.shared.is_fed
    }

    /// Whether a principal still counts.
    pub(crate) fn vouch(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
        match self.check(principal, at) {
            Standing::Good => Ok(()),
            Standing::Revoked(_) => Err(Ended::Revoked),
            Standing::Unknown => Err(Ended::Unknown),
        }
    }
}

/// Answers from memory, always.
#[async_trait]
impl Voucher for RevocationState {
    fn vouches_now(&self, principal: &Principal, at: Instants) -> Now<Result<(), Ended>> {
        Now::Known(self.vouch(principal, at))
    }

    async fn vouches(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
        self.vouch(principal, at)
    }
}

impl fmt::Debug for RevocationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &*self.shared;
        f.debug_struct("RevocationState")
            .field("len", &self.len())
            .field("limits", &shared.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://id.example.com";
    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> Instants {
        Instants::new((NOW + seconds) * 1_000_000_000, seconds * 1_000_000_000)
    }

    fn token(jti: &str) -> Revocation {
        Revocation::token(ISSUER, jti).unwrap()
    }

    #[test]
    fn a_full_state_forgets_nothing_that_counts() {
        let state = RevocationState::own(RevocationLimits::new().capacity(2));
        let marks = |jti: &str| TokenMarks::new(ISSUER).token(jti);
        state.add([&token("a").until(NOW + 10), &token("b"), &token("b")], at(0)).unwrap();
        assert!(state.add([&token("b")], at(0)).is_ok(), "it is there already");
        for _ in 0..3 {
            assert_eq!(state.add([&token("c")], at(910)).unwrap_err().kind(), StoreErrorKind::Conflict);
            assert_eq!(state.check_marks(&marks("a"), at(910)), Standing::Revoked(RevocationKind::Token));
        }
        assert_eq!(state.check_marks(&marks("a"), at(911)), Standing::Good, "its token has ended, leeway included");
        state.add([&token("c")], at(911)).unwrap();
        assert_eq!(state.len(), 2);
        assert_eq!(state.check_marks(&marks("c"), at(911)), Standing::Revoked(RevocationKind::Token));
    }

    #[test]
    fn what_is_added_between_two_looks_is_seen() {
        let state = RevocationState::own(RevocationLimits::new());
        let other = RevocationState::own(RevocationLimits::new());
        let alice = Principal::builder(crate::PrincipalKind::User, ISSUER, "alice", "jwt").credential_id("a").build();
        assert_eq!(state.check(&alice, at(0)), Standing::Good);
        assert_eq!(state.check(&alice, at(0)), Standing::Good);
        other.add([&token("a")], at(0)).unwrap();
        assert_eq!(state.check(&alice, at(0)), Standing::Good);
        assert_eq!(other.check(&alice, at(0)), Standing::Revoked(RevocationKind::Token), "cleared by another state");
        state.add([&token("a")], at(0)).unwrap();
        assert_eq!(state.check(&alice, at(0)), Standing::Revoked(RevocationKind::Token));
    }

    #[test]
    fn trust_ends_and_does_not_come_back_by_itself() {
        let state = RevocationState::fed(RevocationLimits::new());
        let marks = TokenMarks::new(ISSUER).token("a");
        assert_eq!(state.check_marks(&marks, at(0)), Standing::Unknown);
        state.confirm(at(1));
        state.confirm(at(0));
        assert_eq!(state.check_marks(&marks, at(5)), Standing::Good);
        assert_eq!(state.check_marks(&marks, at(6)), Standing::Unknown);
        state.confirm(at(7));
        assert_eq!(state.check_marks(&marks, at(7)), Standing::Good);
        state.distrust(at(8));
        assert_eq!(state.check_marks(&marks, at(7)), Standing::Unknown);
    }
}
