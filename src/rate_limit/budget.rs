use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    attempt::Meter,
    clock::{Clock, Instants},
    error::ConfigError,
    rate_limit::{
        Draw, KeyPart, LimitScope, MemoryLimits, Quota, RateLimitStore, Taken, draw::Charges, headers::retry_after,
        plan::WIDE_FACTOR,
    },
    rejection::{Rejection, RejectionKind},
};

const SOURCE: LimitScope<'static> = LimitScope::new("failures");
const KEY: LimitScope<'static> = LimitScope::new("failures-by-key");

/// A budget for credentials that cost a signature check or a look-up in a store, and turn out to be bad.
///
/// Failures are counted for each source (an IPv4 address, an IPv6 /64 with the /48 around it), and for each source together
/// with the id of the key that the credential claims. While one of the two is used up, credentials of that source, or of that
/// source and key id, which were not verified before are refused with `429` and `Retry-After`, without the check. What was
/// verified before and is remembered passes all the time, behind the same address as well: a client is never shut out by its
/// neighbour while it uses a token that is known here.
///
/// # Security
/// Nothing is ever counted against a key id, a subject or an account alone: who floods with somebody else's name shuts out
/// nobody but those behind the same address, or, for IPv6, in the same /48, who come with a new credential. Nothing sleeps.
/// Credentials that merely ended do not count, and neither do those that are refused for other reasons before they cost
/// anything. Requests that are refused here do not count either.
///
/// A failure is taken from the budget once it is known. Taken before the step and given back after, it would be a limit on good
/// credentials that are looked up at the same time behind one address. What is under way while the budget runs out is therefore
/// still tried: of steps that do not wait one for each thread, of others as many as wait at the same time.
///
/// A request without an address, as over a Unix socket, is not counted: all of them would share one budget, and one could shut
/// out the rest. Those that a trusted proxy tells no address of do share one, since a client can bring it about to be among them.
/// One of which nobody told the [`Connection`](crate::Connection) is refused with `500`: a forgotten `ConnectInfo` is no way around.
///
/// | setting | default |
/// |---|---|
/// | each source | 100 at once, 300 a minute |
/// | each source and key id | 20 at once, 60 a minute |
/// | memory | room for 65 536 counts, 1.9 MB, as [`MemoryLimits`] has it |
///
/// ```
/// use portcullis::rate_limit::{FailureBudget, Quota};
///
/// let strict = FailureBudget::new().per_source(Quota::per_minute(60))?.per_key(Quota::per_minute(10))?;
/// # let _ = strict;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone)]
pub struct FailureBudget {
    source: Quota,
    /// Of the network around an IPv6 /64.
    around: Quota,
    key: Quota,
    counts: Arc<Counts>,
}

struct Counts {
    limits: MemoryLimits,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl FailureBudget {
    /// The default budget.
    pub fn new() -> Self {
        let source = Quota::per_minute(300).burst(100);
        Self {
            around: source.times(WIDE_FACTOR),
            source,
            key: Quota::per_minute(60).burst(20),
            counts: Arc::new(Counts {
                limits: MemoryLimits::new(),
                failed: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
        }
    }

    /// Sets how many may fail from one source.
    ///
    /// # Errors
    /// [`ConfigError`] if the quota is out of its bounds; see [`Quota::validate`].
    pub fn per_source(mut self, quota: Quota) -> Result<Self, ConfigError> {
        quota.validate()?;
        (self.around, self.source) = (quota.times(WIDE_FACTOR), quota);
        Ok(self)
    }

    /// Sets how many may fail from one source with one key id.
    ///
    /// # Errors
    /// [`ConfigError`] if the quota is out of its bounds; see [`Quota::validate`].
    pub fn per_key(mut self, quota: Quota) -> Result<Self, ConfigError> {
        quota.validate()?;
        self.key = quota;
        Ok(self)
    }

    /// Sets the room, in counts; see [`MemoryLimits::with_capacity`]. What was counted is forgotten.
    ///
    /// # Errors
    /// [`ConfigError`] if it is zero or above 67 108 864.
    pub fn with_capacity(mut self, counts: usize) -> Result<Self, ConfigError> {
        let limits = MemoryLimits::with_capacity(counts)?;
        self.counts = Arc::new(Counts { limits, failed: AtomicU64::new(0), refused: AtomicU64::new(0) });
        Ok(self)
    }

    /// How many failed, and how many were refused for that, since the budget was made.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.failed.load(Relaxed), self.counts.refused.load(Relaxed))
    }

    /// The attempts of one request from this address, of which so many were counted when it was asked before: what was tried without
    /// waiting is tried again beside what waits.
    pub(crate) const fn attempts(&self, address: Option<IpAddr>, at: Instants, counted: u8) -> Attempts<'_> {
        let (failed, counted) = (AtomicU8::new(0), AtomicU8::new(counted));
        Attempts { budget: self, address, at, passing: None, failed, counted }
    }
}

impl Default for FailureBudget {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FailureBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureBudget")
            .field("per_source", &self.source)
            .field("per_key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The attempts of one request.
pub(crate) struct Attempts<'a> {
    budget: &'a FailureBudget,
    /// None is one source: all that a trusted proxy tells no address of.
    address: Option<IpAddr>,
    at: Instants,
    /// The clock that tells what passed since then, where a step may wait.
    passing: Option<(&'a dyn Clock, Instants)>,
    /// How many were in vain.
    failed: AtomicU8,
    /// How many of those to come were counted before.
    counted: AtomicU8,
}

impl<'a> Attempts<'a> {
    /// Those of steps that wait: `at` was, by this clock, `then`. What fails late is taken from the budget as it is by then. Taken
    /// from that of before, it would have come back meanwhile, and slow steps would be free.
    pub(crate) fn that_wait(mut self, clock: &'a dyn Clock, then: Instants) -> Self {
        self.passing = Some((clock, then));
        self
    }

    fn now(&self) -> Instants {
        self.passing.map_or(self.at, |(clock, then)| self.at.later(clock.now().since(then)))
    }

    /// How many were in vain so far.
    pub(crate) fn failed_so_far(&self) -> u8 {
        self.failed.load(Relaxed)
    }

    /// Asks with what the failure would take.
    fn with_draw<T>(&self, key_id: Option<&str>, ask: impl FnOnce(&Draw<'_>) -> T) -> T {
        let FailureBudget { source, around: wide, key, .. } = self.budget;
        let one = std::slice::from_ref;
        let network = self.address.map_or(KeyPart::Missing, KeyPart::network);
        let (alone, around) = ([network], [self.address.map_or(KeyPart::Missing, KeyPart::wide_network)]);
        let with_key = [network, KeyPart::Custom(key_id.unwrap_or_default())];
        let mut charges = Charges::none().add(SOURCE.key(&alone), one(source));
        if matches!(network, KeyPart::Network { prefix: IpAddr::V6(_), .. }) {
            charges = charges.add(SOURCE.key(&around), one(wide));
        }
        if key_id.is_some() {
            charges = charges.add(KEY.key(&with_key), one(key));
        }
        ask(&Draw::new(charges.as_slice()))
    }
}

impl Meter for Attempts<'_> {
    fn may_try(&self, key_id: Option<&str>) -> Result<(), Rejection> {
        if self.counted.load(Relaxed) > 0 {
            return Ok(());
        }
        let counts = &self.budget.counts;
        let left: Taken = self.with_draw(key_id, |draw| counts.limits.look(draw, self.now()));
        if left.is_granted() {
            return Ok(());
        }
        counts.refused.fetch_add(1, Relaxed);
        let wait = std::time::Duration::from_secs(retry_after(&left).unwrap_or(1));
        let rejection = Rejection::new(RejectionKind::RateLimited, "too many bad credentials from this source");
        Err(rejection.with_retry_after(wait).with_violated_policy("failures"))
    }

    fn failed(&self, key_id: Option<&str>) {
        let _ = self.failed.fetch_update(Relaxed, Relaxed, |failed| failed.checked_add(1));
        if self.counted.fetch_update(Relaxed, Relaxed, |counted| counted.checked_sub(1)).is_ok() {
            return;
        }
        let counts = &self.budget.counts;
        counts.failed.fetch_add(1, Relaxed);
        // What finds the budget empty, because others failed at the same time, takes what is left.
        let _ = self.with_draw(key_id, |draw| counts.limits.take_now(&draw.counting_refused(), self.now()));
    }
}
