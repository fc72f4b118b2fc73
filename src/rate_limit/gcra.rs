//! The arithmetic, apart from any storage: what is kept of a key is the moment at which its quota is whole again.

use std::num::NonZeroU32;

use crate::rate_limit::{MAX_QUOTAS, Quota, Taken};

/// What one quota says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Keep `tat`.
    Granted { tat: u64, remaining: u32, reset: u64 },
    /// Keep nothing; this many nanoseconds from now it would be granted.
    Refused { retry_after: u64 },
    /// It would never be granted.
    TooCostly,
}

/// Takes `cost` at `now` from a quota that is whole again at `tat`.
///
/// Total over all of `u64`: where a sum would not fit, the request is refused.
fn ask(quota: &Quota, tat: u64, now: u64, cost: NonZeroU32) -> Answer {
    let (interval, capacity) = (quota.interval_nanos(), quota.capacity_nanos());
    let price = interval.saturating_mul(u64::from(cost.get()));
    if cost.get() > quota.burst_size() || price > capacity {
        return Answer::TooCostly;
    }
    let reset = tat.saturating_sub(now).saturating_add(price);
    match now.checked_add(reset) {
        Some(tat) if reset <= capacity => {
            let left = capacity.saturating_sub(reset).checked_div(interval).unwrap_or(0);
            Answer::Granted { tat, remaining: u32::try_from(left).unwrap_or(u32::MAX), reset }
        }
        _ => Answer::Refused { retry_after: reset.saturating_sub(capacity).max(1) },
    }
}

/// Takes `cost` from all quotas, or from none.
pub(super) fn take(quotas: &[Quota], tats: &mut [u64; MAX_QUOTAS], now: u64, cost: NonZeroU32) -> Taken {
    let mut after = *tats;
    let mut tightest: Option<(u32, Taken)> = None;
    let mut refused: Option<(u64, Taken)> = None;
    for ((index, quota), tat) in quotas.iter().enumerate().zip(&mut after) {
        match ask(quota, *tat, now, cost) {
            Answer::Granted { tat: next, remaining, reset } => {
                *tat = next;
                if tightest.as_ref().is_none_or(|(least, _)| remaining < *least) {
                    tightest = Some((remaining, Taken::granted(index, remaining, reset)));
                }
            }
            Answer::Refused { retry_after } => {
                if refused.as_ref().is_none_or(|(longest, _)| retry_after > *longest) {
                    refused = Some((retry_after, Taken::refused(index, retry_after)));
                }
            }
            Answer::TooCostly => return Taken::too_costly(index),
        }
    }
    match (refused, tightest) {
        (None, Some((_, granted))) => {
            *tats = after;
            granted
        }
        (Some((_, refused)), _) => refused,
        (None, None) => Taken::too_costly(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cost(cost: u32) -> NonZeroU32 {
        NonZeroU32::new(cost).unwrap()
    }

    /// One quota, driven from the outside.
    struct Meter(Quota, [u64; MAX_QUOTAS]);

    impl Meter {
        fn new(quota: Quota) -> Self {
            quota.validate().unwrap();
            Self(quota, [0; MAX_QUOTAS])
        }

        fn take(&mut self, now: u64, amount: u32) -> Taken {
            take(std::slice::from_ref(&self.0), &mut self.1, now, cost(amount))
        }
    }

    #[test]
    fn a_burst_then_one_at_a_time() {
        let mut meter = Meter::new(Quota::per_second(10).burst(3));
        let start = 5_000_000_000;
        for remaining in [2, 1, 0] {
            assert_eq!(meter.take(start, 1), Taken::granted(0, remaining, u64::from(3 - remaining) * 100_000_000));
        }
        assert_eq!(meter.take(start, 1), Taken::refused(0, 100_000_000));
        assert_eq!(meter.take(start + 99_999_999, 1), Taken::refused(0, 1));
        assert_eq!(meter.take(start + 100_000_000, 1), Taken::granted(0, 0, 300_000_000));
        assert_eq!(meter.take(start + 10_000_000_000, 3), Taken::granted(0, 0, 300_000_000));
    }

    #[test]
    fn the_refusal_is_the_one_that_lasts_longest() {
        let quotas = [Quota::per_second(1), Quota::per_hour(1).named("hour"), Quota::per_day(9).named("day")];
        let mut tats = [0; MAX_QUOTAS];
        assert_eq!(take(&quotas, &mut tats, 7, cost(1)), Taken::granted(0, 0, 1_000_000_000));
        let kept = tats;
        assert_eq!(take(&quotas, &mut tats, 7, cost(1)), Taken::refused(1, 3_600_000_000_000));
        assert_eq!(take(&quotas, &mut tats, 7, cost(2)), Taken::too_costly(0));
        assert_eq!(tats, kept, "a refusal keeps nothing");
    }

    #[test]
    fn no_quota_grants_nothing() {
        assert!(!take(&[], &mut [0; MAX_QUOTAS], 0, cost(1)).is_granted());
        for zero in [Quota::per_second(0), Quota::per_second(0).burst(9), Quota::per_second(9).burst(0)] {
            assert!(!take(&[zero], &mut [0; MAX_QUOTAS], 0, cost(1)).is_granted());
        }
    }

    fn quotas() -> impl Strategy<Value = Quota> {
        (0..4_u8, 1..2_000_u32, 1..200_u32).prop_map(|(period, count, burst)| {
            match period {
                0 => Quota::per_second(count),
                1 => Quota::per_minute(count),
                2 => Quota::per_hour(count),
                _ => Quota::per_day(count),
            }
            .burst(burst)
        })
    }

    /// Waits in intervals of the quota, in quarters, so that every quota is met both full and empty.
    fn arrivals() -> impl Strategy<Value = Vec<(u64, u32)>> {
        prop::collection::vec((0..40_u64, 1..8_u32), 1..120)
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_in_any_window(quota in quotas(), start: u32, arrivals in arrivals()) {
            let mut meter = Meter::new(quota.clone());
            let mut now = u64::from(start);
            let mut passed: Vec<(u64, u32)> = Vec::new();
            for (quarters, amount) in arrivals {
                now += quarters * quota.interval_nanos() / 4;
                if meter.take(now, amount).is_granted() {
                    passed.push((now, amount));
                }
            }
            let period = quota.period().as_nanos();
            for (first, &(from, _)) in passed.iter().enumerate() {
                let mut sum = 0_u128;
                for &(to, amount) in &passed[first..] {
                    sum += u128::from(amount);
                    let allowed = u128::from(quota.burst_size()) * period + u128::from(to - from) * u128::from(quota.count());
                    prop_assert!(sum * period <= allowed, "{sum} in {} ns", to - from);
                }
            }
        }

        #[test]
        fn waiting_as_told_is_enough_and_no_less_is(quota in quotas(), start: u32, arrivals in arrivals()) {
            let mut meter = Meter::new(quota.clone());
            let mut now = u64::from(start);
            for (quarters, amount) in arrivals {
                now += quarters * quota.interval_nanos() / 16;
                let taken = meter.take(now, amount);
                match taken.retry_after_nanos() {
                    Some(wait) => {
                        let again = |now| take(std::slice::from_ref(&quota), &mut meter.1.clone(), now, cost(amount));
                        prop_assert!(again(now + wait).is_granted());
                        prop_assert!(!again(now + wait - 1).is_granted());
                    }
                    None => prop_assert!(taken.is_granted() || amount > quota.burst_size()),
                }
            }
        }

        #[test]
        fn what_remains_can_be_taken_and_not_one_more(quota in quotas(), used in 1..200_u32, now: u32) {
            let mut meter = Meter::new(quota.clone());
            let taken = meter.take(u64::from(now), used);
            prop_assert_eq!(taken.is_granted(), used <= quota.burst_size());
            if taken.is_granted() {
                prop_assert_eq!(taken.remaining(), quota.burst_size() - used);
                for _ in 0..taken.remaining() {
                    prop_assert!(meter.take(u64::from(now), 1).is_granted());
                }
                prop_assert!(!meter.take(u64::from(now), 1).is_granted());
            }
        }

        #[test]
        fn later_is_never_worse(quota in quotas(), tat: u64, now: u64, later: u64, amount in 1..8_u32) {
            let later = now.saturating_add(later);
            let at = |now| take(std::slice::from_ref(&quota), &mut [tat; MAX_QUOTAS], now, cost(amount));
            // The last moments of the clock, where the sum does not fit, are the exception: nothing passes.
            if at(now).is_granted() && later.checked_add(quota.capacity_nanos()).is_some() {
                prop_assert!(at(later).is_granted());
                prop_assert!(at(later).remaining() >= at(now).remaining());
            }
        }

        #[test]
        fn while_the_clock_stands_the_order_does_not_matter(quota in quotas(), amounts in prop::collection::vec(1..8_u32, 1..9)) {
            let run = |amounts: &[u32]| {
                let mut meter = Meter::new(quota.clone());
                let granted = amounts.iter().all(|&amount| meter.take(1, amount).is_granted());
                (granted, meter.1)
            };
            let reversed: Vec<u32> = amounts.iter().rev().copied().collect();
            let (there, back) = (run(&amounts), run(&reversed));
            prop_assert_eq!(there.0, back.0);
            if there.0 {
                prop_assert_eq!(there.1, back.1);
            }
        }

        #[test]
        fn no_number_panics_or_opens(count in 1..=u32::MAX, burst: u32, tat: u64, now: u64, amount in 1..=u32::MAX) {
            let quota = Quota::per_hour(count).burst(burst);
            let mut tats = [tat; MAX_QUOTAS];
            let taken = take(std::slice::from_ref(&quota), &mut tats, now, cost(amount));
            prop_assert_eq!(tats[0] != tat, taken.is_granted());
            if taken.is_granted() {
                prop_assert!(amount <= burst);
                prop_assert!(tats[0] - now <= quota.capacity_nanos());
            }
            if amount > burst {
                prop_assert!(!taken.is_granted() && taken.retry_after_nanos().is_none());
            }
        }
    }

    #[test]
    fn at_the_end_of_time_nothing_passes() {
        let mut meter = Meter::new(Quota::per_second(1));
        assert!(!meter.take(u64::MAX, 1).is_granted());
    }
}
