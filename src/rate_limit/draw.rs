use std::num::NonZeroU32;

use crate::rate_limit::{LimitKey, Quota, Taken, gcra};

/// The most charges of one [`Draw`].
pub const MAX_CHARGES: usize = 8;

/// One count: a quota of a key. A store knows it by the key and the [name](Quota::name) of the quota, never by the quota's
/// numbers: those may change from one request to the next, and what was used stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge<'a> {
    key: LimitKey<'a>,
    quota: &'a Quota,
}

impl<'a> Charge<'a> {
    /// Counts this key under this quota.
    #[must_use]
    #[inline]
    pub const fn new(key: LimitKey<'a>, quota: &'a Quota) -> Self {
        Self { key, quota }
    }

    /// Whose requests are counted.
    #[must_use]
    #[inline]
    pub const fn key(&self) -> &LimitKey<'a> {
        &self.key
    }

    /// How many there may be.
    #[inline]
    pub const fn quota(&self) -> &'a Quota {
        self.quota
    }
}

/// What one request takes: its cost, from every charge or from none. This is what a
/// [`RateLimitStore`](super::RateLimitStore) is asked.
///
/// ```
/// use std::num::NonZeroU32;
/// use portcullis::rate_limit::{Charge, Draw, KeyPart, LimitKey, MAX_CHARGES, Quota};
///
/// let alice = [KeyPart::Principal { issuer: "https://id.example.com", tenant: None, subject: "alice" }];
/// let key = LimitKey::new("principal", &alice);
/// let (second, day) = (Quota::per_second(10), Quota::per_day(10_000).named("day"));
/// let charges = [Charge::new(key, &second), Charge::new(key, &day)];
/// let draw = Draw::new(&charges).with_cost(NonZeroU32::new(4).unwrap());
///
/// let mut kept = [0; MAX_CHARGES];
/// assert_eq!(draw.take(&mut kept, 0).remaining(), 6);
/// assert_eq!(draw.take(&mut kept, 0).remaining(), 2);
/// assert_eq!(draw.take(&mut kept, 0).retry_after_nanos(), Some(200_000_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Draw<'a> {
    charges: &'a [Charge<'a>],
    cost: NonZeroU32,
    count_refused: bool,
}

impl<'a> Draw<'a> {
    /// Takes one from each of these, at most [`MAX_CHARGES`] of them, no two of one key and name. Without a charge, or with
    /// more of them, it is refused.
    #[inline]
    pub const fn new(charges: &'a [Charge<'a>]) -> Self {
        Self { charges, cost: NonZeroU32::MIN, count_refused: false }
    }

    /// Takes this many from each.
    #[inline]
    pub const fn with_cost(mut self, cost: NonZeroU32) -> Self {
        self.cost = cost;
        self
    }

    /// Counts it also if it is refused. A refused draw then takes what is left of each quota, up to its cost, so that who
    /// keeps knocking stays out. One whose cost is beyond the burst still takes nothing.
    pub const fn counting_refused(mut self) -> Self {
        self.count_refused = true;
        self
    }

    /// What it takes from.
    #[must_use]
    #[inline]
    pub const fn charges(&self) -> &'a [Charge<'a>] {
        self.charges
    }

    /// How many it takes from each.
    #[must_use]
    #[inline]
    pub const fn cost(&self) -> NonZeroU32 {
        self.cost
    }

    /// Whether it counts also if it is refused.
    #[must_use]
    #[inline]
    pub const fn counts_refused(&self) -> bool {
        self.count_refused
    }

    /// Takes: the arithmetic that a store needs.
    ///
    /// `tats` is what the store keeps, one number for each charge: the moment at which that quota will be whole again
    /// (GCRA's "theoretical arrival time"), in nanoseconds of the clock that `now` is read from. What the store does not know
    /// is zero. The numbers change if the draw is granted, or [counts nevertheless](Self::counting_refused), and never reach
    /// `u64::MAX`.
    pub fn take(&self, tats: &mut [u64], now: u64) -> Taken {
        gcra::take(self, tats, now)
    }

    /// The same for a draw of this one charge: what is answered, and what is kept from now on.
    #[inline]
    pub(super) fn take_one(&self, charge: &Charge<'_>, tat: u64, now: u64) -> (Taken, u64) {
        gcra::take_one(charge.quota(), tat, now, self.cost, self.count_refused)
    }
}

/// The charges of a draw that is being put together.
#[derive(Debug)]
pub(super) struct Charges<'a> {
    charges: [Charge<'a>; MAX_CHARGES],
    len: usize,
}

impl<'a> Charges<'a> {
    pub(super) const fn none() -> Self {
        static PLACEHOLDER: Quota = Quota::per_second(1);
        let charge = Charge::new(LimitKey::new("", &[]), &PLACEHOLDER);
        Self { charges: [charge; MAX_CHARGES], len: 0 }
    }

    /// Adds one of this key for each quota. What finds no room makes the draw one that is refused.
    pub(super) fn add(mut self, key: LimitKey<'a>, quotas: &'a [Quota]) -> Self {
        for (charge, quota) in self.charges.iter_mut().skip(self.len).zip(quotas) {
            *charge = Charge::new(key, quota);
        }
        self.len = self.len.saturating_add(quotas.len());
        self
    }

    pub(super) fn as_slice(&self) -> &[Charge<'a>] {
        self.charges.get(..self.len).unwrap_or_default()
    }
}
