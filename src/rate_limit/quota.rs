use std::{borrow::Cow, ops::Deref, time::Duration};

use crate::{error::ConfigError, rate_limit::key::fnv};

/// The most quotas that one limiter holds.
pub const MAX_QUOTAS: usize = 4;
/// The longest policy name, in bytes.
pub const MAX_POLICY_NAME_LEN: usize = 64;

const NANOS: u64 = 1_000_000_000;
/// A burst that takes longer to come back (about 146 years) is a mistake, and would come near the end of a `u64` clock.
const LONGEST_CAPACITY: u64 = 1 << 62;

/// How many requests, in how long, and how many at once.
///
/// `Quota::per_minute(600).burst(60)` lets 60 requests through at once; what was used comes back evenly, one every 100 ms,
/// never beyond 60. So in any stretch of time at most `burst` plus `count / period` times its length pass (GCRA, the
/// "generic cell rate algorithm" of ITU-T I.371; a leaky bucket read as a meter).
///
/// | setting | default | bounds |
/// |---|---|---|
/// | count | none | 1 to 2³²-1, and at most one a nanosecond |
/// | burst | the count | 1 to 2³²-1, and it comes back within 146 years |
/// | name | `client` or `default`, as [`RateLimitLayer`](super::RateLimitLayer) says | 1 to [`MAX_POLICY_NAME_LEN`] printable ASCII characters |
///
/// The time between two requests is rounded up to whole nanoseconds, so a quota never passes more than it says.
/// A quota out of bounds is refused when a limiter is made of it; see [`validate`](Self::validate).
///
/// ```
/// use portcullis::rate_limit::Quota;
///
/// let quota = Quota::per_minute(600).burst(60).named("search");
/// assert!(quota.validate().is_ok());
/// assert_eq!(Quota::per_hour(0).validate().unwrap_err().to_string(), "per_hour: 0 must be at least 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Quota {
    count: u32,
    period: Period,
    burst: u32,
    interval: u64,
    /// 2⁶⁴ by the interval, less a little.
    reciprocal: u64,
    capacity: u64,
    /// The longest debt that is believed, in nanoseconds: that of a whole burst, of this quota or of another one that the same
    /// count may be held to.
    longest: u64,
    name: Option<Cow<'static, str>>,
    name_hash: u64,
}

const DEFAULT_NAME: &str = "default";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

impl Period {
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    const fn nanos(self) -> u64 {
        self.seconds().saturating_mul(NANOS)
    }

    const fn setting(self) -> &'static str {
        match self {
            Self::Second => "per_second",
            Self::Minute => "per_minute",
            Self::Hour => "per_hour",
            Self::Day => "per_day",
        }
    }
}

impl Quota {
    /// `count` requests a second: `per_second(50)` is fifty a second, not one in fifty seconds.
    pub const fn per_second(count: u32) -> Self {
        Self::new(count, Period::Second)
    }

    /// `count` requests a minute.
    pub const fn per_minute(count: u32) -> Self {
        Self::new(count, Period::Minute)
    }

    /// `count` requests an hour.
    pub const fn per_hour(count: u32) -> Self {
        Self::new(count, Period::Hour)
    }

    /// `count` requests a day: any 24 hours, whatever the calendar says.
    pub const fn per_day(count: u32) -> Self {
        Self::new(count, Period::Day)
    }

    const fn new(count: u32, period: Period) -> Self {
        // A count of zero never gets as far as a limiter; if it did, its capacity of zero would let nothing pass.
        let interval = if count == 0 { u64::MAX } else { period.nanos().div_ceil(count as u64) };
        let name_hash = fnv(DEFAULT_NAME.as_bytes());
        // The interval is at least one.
        let reciprocal = match u64::MAX.checked_div(interval) {
            Some(reciprocal) => reciprocal,
            None => 0,
        };
        Self { count, period, burst: 0, interval, reciprocal, capacity: 0, longest: 0, name: None, name_hash }
            .burst(count)
    }

    /// Sets how many requests may come at once after a pause. Default: the count.
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self.capacity = if self.count == 0 { 0 } else { self.interval.saturating_mul(burst as u64) };
        // As a store has it that counts in microseconds.
        let interval = self.interval.div_ceil(1_000).saturating_mul(1_000);
        self.longest = if self.count == 0 { 0 } else { interval.saturating_mul(burst as u64) };
        self
    }

    /// Believes debts of this length, and those of its own burst.
    pub(super) fn believing(self, longest: u64) -> Self {
        let burst = self.burst;
        let own = self.burst(burst);
        Self { longest: own.longest.max(longest), ..own }
    }

    /// Names the policy, in the `RateLimit` and `RateLimit-Policy` fields and in stores: of one key, each name is counted
    /// apart.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        self.name_hash = fnv(name.as_bytes());
        self.name = Some(name);
        self
    }

    /// Checks the bounds. Limiters do so when they are made.
    ///
    /// # Errors
    /// [`ConfigError`] that names the setting and its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let setting = self.period.setting();
        if self.count == 0 {
            return Err(ConfigError::new(setting, "0", "must be at least 1"));
        }
        if u64::from(self.count) > self.period.nanos() {
            return Err(ConfigError::new(setting, self.count.to_string(), "is more than one request a nanosecond"));
        }
        if self.burst == 0 {
            return Err(ConfigError::new("burst", "0", "must be at least 1"));
        }
        if self.capacity > LONGEST_CAPACITY {
            return Err(ConfigError::new("burst", self.burst.to_string(), "takes more than 146 years to come back"));
        }
        match &self.name {
            Some(name) => valid_name(name),
            None => Ok(()),
        }
    }

    /// How many requests in each [`period`](Self::period).
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// A second, a minute, an hour or a day.
    #[must_use]
    pub const fn period(&self) -> Duration {
        Duration::from_secs(self.period.seconds())
    }

    /// How many requests at once.
    #[must_use]
    #[inline]
    pub const fn burst_size(&self) -> u32 {
        self.burst
    }

    /// The nanoseconds in which one request comes back, rounded up.
    #[must_use]
    #[inline]
    pub const fn interval_nanos(&self) -> u64 {
        self.interval
    }

    /// The nanoseconds in which a whole burst comes back.
    #[must_use]
    #[inline]
    pub const fn capacity_nanos(&self) -> u64 {
        self.capacity
    }

    /// The longest debt that is believed, in nanoseconds.
    #[inline]
    pub(super) const fn longest_nanos(&self) -> u64 {
        self.longest
    }

    /// `nanos` by the interval, by a multiplication.
    #[inline]
    pub(super) fn intervals_in(&self, nanos: u64) -> u64 {
        let upper = u128::from(nanos).wrapping_mul(u128::from(self.reciprocal)) >> 64;
        let mut number = u64::try_from(upper).unwrap_or(u64::MAX);
        // It is one too small at times, and never too large, so nothing wraps.
        while nanos.wrapping_sub(number.wrapping_mul(self.interval)) >= self.interval {
            number = number.saturating_add(1);
        }
        number
    }

    /// The policy's name; `default` if none was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_NAME)
    }

    pub(super) fn named_if_not(self, name: &'static str) -> Self {
        if self.name.is_none() { self.named(name) } else { self }
    }

    /// That many times as much, under the same name.
    pub(super) fn times(&self, factor: u32) -> Self {
        let burst = self.burst.saturating_mul(factor);
        let mut times = Self::new(self.count.saturating_mul(factor), self.period).burst(burst);
        (times.name, times.name_hash) = (self.name.clone(), self.name_hash);
        times.believing(self.longest)
    }

    /// This many hundredths of it, under the same name; a burst that has room for `cost` has it still.
    #[cfg(feature = "rate-limit-redis")]
    pub(super) fn share(&self, percent: u32, cost: u32) -> Self {
        let hundredths = u64::from(self.burst).saturating_mul(u64::from(percent)) / 100;
        let burst = u32::try_from(hundredths).unwrap_or(u32::MAX).max(cost.min(self.burst)).max(1);
        let interval = self.interval.saturating_mul(100).div_ceil(u64::from(percent.max(1)));
        let reciprocal = u64::MAX.checked_div(interval).unwrap_or(0);
        // Whatever costs more than the share may have run up a debt of the whole burst.
        let longest = Self { interval, ..self.clone() }.burst(self.burst).longest;
        let others = self.longest.saturating_mul(100).div_ceil(u64::from(percent.max(1)));
        Self { interval, reciprocal, ..self.clone() }.burst(burst).believing(longest.max(others))
    }

    /// A number for the name, the same in every process.
    #[inline]
    pub(super) const fn name_hash(&self) -> u64 {
        self.name_hash
    }
}

/// What an RFC 9651 String may hold, and not too much of it.
pub(super) fn valid_name(name: &str) -> Result<(), ConfigError> {
    let problem = if name.is_empty() {
        "must not be empty"
    } else if name.len() > MAX_POLICY_NAME_LEN {
        "is longer than 64 bytes"
    } else if !name.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        "must be printable ASCII"
    } else {
        return Ok(());
    };
    Err(ConfigError::new("policy name", format!("{name:?}"), problem))
}

/// One to [`MAX_QUOTAS`] quotas that were checked: each within its bounds, no two of one name.
///
/// Only [`new`](Self::new) makes them, so a limiter never has a quota of zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    quotas: Box<[Quota]>,
}

impl Quotas {
    /// Checks the quotas and keeps them, in this order.
    ///
    /// # Errors
    /// [`ConfigError`] if there is none or there are more than [`MAX_QUOTAS`], if two have one name, or if one is out of
    /// its bounds.
    pub fn new(quotas: impl IntoIterator<Item = Quota>) -> Result<Self, ConfigError> {
        let quotas: Box<[Quota]> = quotas.into_iter().collect();
        if quotas.is_empty() || quotas.len() > MAX_QUOTAS {
            return Err(ConfigError::new(
                "quotas",
                quotas.len().to_string(),
                "is not 1 to 4: a limit has at least one quota",
            ));
        }
        let mut names: Vec<&str> = Vec::new();
        for quota in &quotas {
            quota.validate()?;
            if names.contains(&quota.name()) {
                let name = format!("{:?}", quota.name());
                return Err(ConfigError::new("policy name", name, "is the name of two quotas of one limiter"));
            }
            names.push(quota.name());
        }
        Ok(Self { quotas })
    }

    /// The same, which believe debts as long as this says of their names.
    pub(super) fn believing(&self, longest: impl Fn(&str) -> u64) -> Self {
        let told = |quota: &Quota| quota.clone().believing(longest(quota.name()));
        Self { quotas: self.quotas.iter().map(told).collect() }
    }
}

impl Deref for Quotas {
    type Target = [Quota];

    fn deref(&self) -> &[Quota] {
        &self.quotas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_for_the_whole_period() {
        for (name, quota, interval, capacity) in [
            ("fifty a second", Quota::per_second(50), 20_000_000, 1_000_000_000),
            ("with a burst", Quota::per_minute(600).burst(60), 100_000_000, 6_000_000_000),
            ("one an hour", Quota::per_hour(1), 3_600_000_000_000, 3_600_000_000_000),
            ("one a day", Quota::per_day(1), 86_400_000_000_000, 86_400_000_000_000),
            ("rounded up", Quota::per_second(7).burst(1), 142_857_143, 142_857_143),
            ("one a nanosecond", Quota::per_second(1_000_000_000).burst(5), 1, 5),
        ] {
            assert!(quota.validate().is_ok(), "{name}");
            assert_eq!((quota.interval_nanos(), quota.capacity_nanos()), (interval, capacity), "{name}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (quota, error) in [
            (Quota::per_second(0), "per_second: 0 must be at least 1"),
            (Quota::per_minute(0).burst(5), "per_minute: 0 must be at least 1"),
            (Quota::per_day(5).burst(0), "burst: 0 must be at least 1"),
            (Quota::per_second(1_000_000_001), "per_second: 1000000001 is more than one request a nanosecond"),
            (Quota::per_day(1).burst(u32::MAX), "burst: 4294967295 takes more than 146 years to come back"),
            (Quota::per_day(1).named(""), "policy name: \"\" must not be empty"),
            (Quota::per_day(1).named("a\r\nb"), r#"policy name: "a\r\nb" must be printable ASCII"#),
            (Quota::per_day(1).named("täglich"), "policy name: \"täglich\" must be printable ASCII"),
        ] {
            assert_eq!(quota.validate().unwrap_err().to_string(), error);
            assert!(Quotas::new([quota]).is_err());
        }
        let long = Quota::per_day(1).named("x".repeat(65)).validate().unwrap_err();
        assert_eq!(long.setting(), "policy name");
        assert!(Quota::per_day(u32::MAX).validate().is_ok());
    }

    #[test]
    fn a_multiplication_divides() {
        for quota in [
            Quota::per_second(1),
            Quota::per_second(3),
            Quota::per_second(1_000_000_000),
            Quota::per_second(999_999_999),
            Quota::per_day(u32::MAX),
            Quota::per_day(1),
            Quota::per_minute(7),
        ] {
            let each = quota.interval_nanos();
            let most = LONGEST_CAPACITY / each;
            for number in [0, 1, 2, 3, 1_000, most / 3, most - 1, most] {
                for nanos in [number * each, number * each + each / 2, number * each + (each - 1)] {
                    assert_eq!(quota.intervals_in(nanos), nanos / each, "{nanos} by {each}");
                }
            }
            assert_eq!(quota.intervals_in(u64::MAX), u64::MAX / each);
        }
    }

    #[test]
    fn a_multiple_is_as_much_more() {
        let quota = Quota::per_minute(600).burst(60).named("search");
        assert_eq!(quota.times(16), Quota::per_minute(9_600).burst(960).named("search"));
        let most = Quota::per_second(1_000_000_000).burst(u32::MAX).times(16);
        assert_eq!((most.interval_nanos(), most.burst_size()), (1, u32::MAX), "no number overflows");
        assert!(Quota::per_day(1).burst(50_000).times(16).validate().is_ok());
    }

    #[cfg(feature = "rate-limit-redis")]
    #[test]
    fn shares_believe_each_others_debts() {
        let quota = Quota::per_day(10);
        for (percent, days) in [(100, 1), (50, 2), (1, 100)] {
            for cost in [1, 10] {
                let share = quota.share(percent, cost);
                assert_eq!(share.longest_nanos(), days * 86_400 * NANOS, "{percent} %, {cost}");
                assert!(share.capacity_nanos() <= share.longest_nanos());
            }
        }
        let short = Quota::per_minute(5).believing(quota.longest_nanos());
        assert_eq!(short.share(50, 1).longest_nanos(), 2 * 86_400 * NANOS);
        assert_eq!(short.times(16).longest_nanos(), 86_400 * NANOS);
    }

    #[test]
    fn one_to_four_quotas_of_different_names() {
        let numbered = |n: usize| (0..n).map(|i| Quota::per_day(1).named(i.to_string()));
        assert!(Quotas::new(numbered(0)).is_err());
        assert_eq!(Quotas::new(numbered(4)).unwrap().len(), 4);
        assert!(Quotas::new(numbered(5)).is_err());
        let twice = Quotas::new([Quota::per_second(1), Quota::per_day(9)]).unwrap_err();
        assert_eq!(twice.to_string(), "policy name: \"default\" is the name of two quotas of one limiter");
    }
}
