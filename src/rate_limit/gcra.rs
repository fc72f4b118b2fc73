//! The arithmetic, apart from any storage: what is kept of a key is the moment at which its quota is whole again.

use std::num::NonZeroU32;

use crate::rate_limit::{Charge, Draw, MAX_CHARGES, Quota, Taken};

/// The last moment that is ever kept; the one after it is for stores to mark something with.
const LAST: u64 = u64::MAX - 1;

/// A debt that is longer by more than this than that of a whole burst, of this quota and of all others of its plans, was not run up
/// on this clock: the clock was set back, or the quota was made smaller. It is taken as a whole burst, or its key would be shut
/// out for as long as the clock went back. The clocks of a store's users must agree better than this.
pub(super) const JUMP: u64 = 60_000_000_000;

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
#[inline]
fn ask(quota: &Quota, tat: u64, now: u64, cost: NonZeroU32) -> Answer {
    let (interval, capacity) = (quota.interval_nanos(), quota.capacity_nanos());
    let price = if cost.get() == 1 { interval } else { interval.saturating_mul(u64::from(cost.get())) };
    if cost.get() > quota.burst_size() || price > capacity {
        return Answer::TooCostly;
    }
    let reset = tat.saturating_sub(now).saturating_add(price);
    match now.checked_add(reset) {
        Some(tat) if reset <= capacity && tat <= LAST => {
            let left = quota.intervals_in(capacity.saturating_sub(reset));
            Answer::Granted { tat, remaining: u32::try_from(left).unwrap_or(u32::MAX), reset }
        }
        _ => Answer::Refused { retry_after: reset.saturating_sub(capacity).max(1) },
    }
}

/// A debt of a longer quota under the same name is none of this one's to shorten.
#[inline]
fn mend(quota: &Quota, tat: u64, now: u64) -> u64 {
    let most = now.saturating_add(quota.longest_nanos()).saturating_add(JUMP);
    if tat > most { now.saturating_add(quota.capacity_nanos()).min(LAST) } else { tat }
}

/// What a refused request does to a quota: it takes what is left, and keeps it from coming back while it goes on.
fn drain(quota: &Quota, tat: u64, now: u64, cost: NonZeroU32) -> u64 {
    let price = quota.interval_nanos().saturating_mul(u64::from(cost.get()));
    let most = now.saturating_add(quota.capacity_nanos()).min(LAST);
    tat.max(now).saturating_add(price).min(most).max(tat)
}

/// Takes `cost` from all charges, or from none. Moves `tats` only.
pub(super) fn take(draw: &Draw<'_>, tats: &mut [u64], now: u64) -> Taken {
    let (charges, cost) = (draw.charges(), draw.cost());
    if charges.len() > MAX_CHARGES || tats.len() < charges.len() {
        return Taken::too_costly(0);
    }
    for (charge, tat) in charges.iter().zip(tats.iter_mut()) {
        *tat = mend(charge.quota(), *tat, now);
    }
    let taken = look(charges, tats, now, cost);
    if taken.is_granted() {
        for (charge, tat) in charges.iter().zip(tats) {
            if let Answer::Granted { tat: next, .. } = ask(charge.quota(), *tat, now, cost) {
                *tat = next;
            }
        }
    } else if draw.counts_refused() && taken.retry_after_nanos().is_some() {
        for (charge, tat) in charges.iter().zip(tats.iter_mut()) {
            *tat = drain(charge.quota(), *tat, now, cost);
        }
        // When to come back is told by what is left after this.
        return look(charges, tats, now, cost);
    }
    taken
}

/// The same for one quota, without the detours.
#[inline]
pub(super) fn take_one(quota: &Quota, tat: u64, now: u64, cost: NonZeroU32, count_refused: bool) -> (Taken, u64) {
    let tat = mend(quota, tat, now);
    match ask(quota, tat, now, cost) {
        Answer::Granted { tat, remaining, reset } => (Taken::granted(0, remaining, reset), tat),
        Answer::Refused { .. } if count_refused => {
            let tat = drain(quota, tat, now, cost);
            (of(0, ask(quota, tat, now, cost)), tat)
        }
        answer @ (Answer::Refused { .. } | Answer::TooCostly) => (of(0, answer), tat),
    }
}

#[inline]
fn of(charge: usize, answer: Answer) -> Taken {
    match answer {
        Answer::Granted { remaining, reset, .. } => Taken::granted(charge, remaining, reset),
        Answer::Refused { retry_after } => Taken::refused(charge, retry_after),
        Answer::TooCostly => Taken::too_costly(charge),
    }
}

/// What all charges together say.
fn look(charges: &[Charge<'_>], tats: &[u64], now: u64, cost: NonZeroU32) -> Taken {
    let mut tightest: Option<(u32, Taken)> = None;
    let mut refused: Option<(u64, Taken)> = None;
    for ((index, charge), tat) in charges.iter().enumerate().zip(tats) {
        match ask(charge.quota(), *tat, now, cost) {
            Answer::Granted { remaining, reset, .. } => {
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
        (None, Some((_, granted))) => granted,
        (Some((_, refused)), _) => refused,
        (None, None) => Taken::too_costly(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rate_limit::LimitKey;

    fn cost(cost: u32) -> NonZeroU32 {
        NonZeroU32::new(cost).unwrap()
    }

    fn take(quotas: &[Quota], tats: &mut [u64], now: u64, cost: NonZeroU32) -> Taken {
        let charges: Vec<_> = quotas.iter().map(|quota| Charge::new(LimitKey::new("x", &[]), quota)).collect();
        super::take(&Draw::new(&charges).with_cost(cost), tats, now)
    }

    fn take_counting_refused(quotas: &[Quota], tats: &mut [u64], now: u64, cost: NonZeroU32) -> Taken {
        let charges: Vec<_> = quotas.iter().map(|quota| Charge::new(LimitKey::new("x", &[]), quota)).collect();
        super::take(&Draw::new(&charges).with_cost(cost).counting_refused(), tats, now)
    }

    /// One quota, driven from the outside.
    struct Meter(Quota, [u64; MAX_CHARGES]);

    impl Meter {
        fn new(quota: Quota) -> Self {
            quota.validate().unwrap();
            Self(quota, [0; MAX_CHARGES])
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
        let mut tats = [0; MAX_CHARGES];
        assert_eq!(take(&quotas, &mut tats, 7, cost(1)), Taken::granted(0, 0, 1_000_000_000));
        let kept = tats;
        assert_eq!(take(&quotas, &mut tats, 7, cost(1)), Taken::refused(1, 3_600_000_000_000));
        assert_eq!(take(&quotas, &mut tats, 7, cost(2)), Taken::too_costly(0));
        assert_eq!(tats, kept, "a refusal keeps nothing");
    }

    #[test]
    fn no_quota_grants_nothing() {
        assert!(!take(&[], &mut [0; MAX_CHARGES], 0, cost(1)).is_granted());
        for zero in [Quota::per_second(0), Quota::per_second(0).burst(9), Quota::per_second(9).burst(0)] {
            assert!(!take(&[zero], &mut [0; MAX_CHARGES], 0, cost(1)).is_granted());
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
        fn one_quota_is_as_several_are(
            quota in quotas(),
            tat in prop_oneof![any::<u64>(), 0..100_000_000_000_u64],
            now in prop_oneof![any::<u64>(), 0..100_000_000_000_u64],
            amount in 1..300_u32,
            count_refused: bool,
        ) {
            let mut tats = [tat];
            let take = if count_refused { take_counting_refused } else { take };
            let taken = take(std::slice::from_ref(&quota), &mut tats, now, cost(amount));
            prop_assert_eq!(take_one(&quota, tat, now, cost(amount), count_refused), (taken, tats[0]));
        }

        #[test]
        fn later_is_never_worse(quota in quotas(), tat: u64, now: u64, later: u64, amount in 1..8_u32) {
            let later = now.saturating_add(later);
            let at = |now| take(std::slice::from_ref(&quota), &mut [tat; MAX_CHARGES], now, cost(amount));
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
            let mut tats = [tat; MAX_CHARGES];
            let taken = take(std::slice::from_ref(&quota), &mut tats, now, cost(amount));
            prop_assert!(tats[0] < u64::MAX || tat == u64::MAX);
            if !taken.is_granted() && tats[0] != tat {
                prop_assert!(tat > now.saturating_add(quota.longest_nanos()).saturating_add(JUMP), "mended");
                prop_assert!(tats[0] == now.saturating_add(quota.capacity_nanos()).min(LAST), "to a whole burst");
            }
            if taken.is_granted() {
                prop_assert!(tats[0] > tat);
                prop_assert!(amount <= burst);
                prop_assert!(tats[0] - now <= quota.capacity_nanos());
            }
            if amount > burst {
                prop_assert!(!taken.is_granted() && taken.retry_after_nanos().is_none());
            }
        }
    }

    proptest! {
        #[test]
        fn several_quotas_grant_what_each_grants_alone(
            several in prop::collection::vec(quotas(), 1..5),
            start: u32,
            arrivals in prop::collection::vec((0..2_000_000_000_u64, 1..8_u32), 1..120),
        ) {
            let mut now = u64::from(start);
            let mut together = [0; MAX_CHARGES];
            for (wait, amount) in arrivals {
                now += wait;
                let before = together;
                let alone: Vec<bool> = several
                    .iter()
                    .zip(before)
                    .map(|(quota, tat)| take(std::slice::from_ref(quota), &mut [tat], now, cost(amount)).is_granted())
                    .collect();
                let taken = take(&several, &mut together, now, cost(amount));
                prop_assert_eq!(taken.is_granted(), alone.iter().all(|granted| *granted));
                if taken.is_granted() {
                    prop_assert!(together.iter().zip(before).take(several.len()).all(|(after, before)| *after > before));
                } else {
                    prop_assert_eq!(together, before, "a refusal takes from none");
                    prop_assert!(!alone[taken.charge()]);
                }
                prop_assert!(together[several.len()..].iter().all(|tat| *tat == 0));
            }
        }

        #[test]
        fn counting_refused_is_stricter_and_bounded(quota in quotas(), start: u32, arrivals in arrivals()) {
            let (mut lax, mut strict) = ([0; MAX_CHARGES], [0; MAX_CHARGES]);
            let mut now = u64::from(start);
            for (quarters, amount) in arrivals {
                now += quarters * quota.interval_nanos() / 4;
                let _ = take(std::slice::from_ref(&quota), &mut lax, now, cost(amount));
                let taken = take_counting_refused(std::slice::from_ref(&quota), &mut strict, now, cost(amount));
                prop_assert!(strict[0] <= now + quota.capacity_nanos(), "never more than empty");
                if let Some(wait) = taken.retry_after_nanos() {
                    let price = quota.interval_nanos() * u64::from(amount);
                    prop_assert!(wait <= price);
                    prop_assert!(take(std::slice::from_ref(&quota), &mut strict.clone(), now + wait, cost(amount)).is_granted());
                }
            }
        }
    }

    #[test]
    fn a_refused_draw_that_counts_takes_what_is_left() {
        let quotas = [Quota::per_second(10).burst(5), Quota::per_hour(100).burst(50).named("hour")];
        let mut tats = [0; MAX_CHARGES];
        assert!(take(&quotas, &mut tats, 0, cost(4)).is_granted());
        assert_eq!(take_counting_refused(&quotas, &mut tats, 0, cost(2)), Taken::refused(0, 200_000_000));
        assert_eq!(tats[..2], [500_000_000, 6 * 36_000_000_000], "one of the first was left, two of the second go");
        assert_eq!(take_counting_refused(&quotas, &mut tats, 50_000_000, cost(1)), Taken::refused(0, 100_000_000));
        assert_eq!(take_counting_refused(&quotas, &mut tats, 50_000_000, cost(6)), Taken::too_costly(0));
        assert_eq!(tats[..2], [550_000_000, 7 * 36_000_000_000], "who costs too much takes nothing");
    }

    #[test]
    fn a_clock_that_was_set_back_shuts_nobody_out() {
        let quota = Quota::per_second(10);
        let hour = 3_600_000_000_000;
        let mut meter = Meter::new(quota);
        assert!(meter.take(hour, 10).is_granted());
        assert_eq!(meter.take(hour - 1_000_000_000, 1), Taken::refused(0, 1_100_000_000), "a second is kept");
        assert_eq!(meter.take(0, 1), Taken::refused(0, 100_000_000), "an hour is not");
        assert_eq!(meter.take(100_000_000, 1), Taken::granted(0, 0, 1_000_000_000));
        // A quota that was made smaller is the same: half a day of debt is a second's.
        let mut tats = [0; MAX_CHARGES];
        assert!(take(&[Quota::per_day(100)], &mut tats, hour, cost(50)).is_granted());
        assert_eq!(take(&[Quota::per_second(10)], &mut tats, hour, cost(1)), Taken::refused(0, 100_000_000));
    }

    #[test]
    fn a_debt_of_a_longer_quota_stays_whole() {
        let (day, minute) = (Quota::per_day(100), Quota::per_minute(5));
        let minute = minute.believing(day.longest_nanos());
        let (mut tats, start) = ([0; MAX_CHARGES], 86_400_000_000_000);
        assert!(take(std::slice::from_ref(&day), &mut tats, start, cost(50)).is_granted());
        let debt = 43_200_000_000_000;
        for take in [take, take_counting_refused] {
            let taken = take(std::slice::from_ref(&minute), &mut tats, start, cost(1));
            assert_eq!(taken, Taken::refused(0, debt - 48_000_000_000), "until one of the five has come back");
            assert_eq!(tats[0], start + debt);
        }
        // What neither explains is a clock that was set back.
        let _ = take(std::slice::from_ref(&minute), &mut tats, 0, cost(1));
        assert_eq!(tats[0], minute.capacity_nanos());
    }

    #[test]
    fn at_the_end_of_time_nothing_passes() {
        let mut meter = Meter::new(Quota::per_second(1));
        assert!(!meter.take(u64::MAX, 1).is_granted());
    }
}
