//! What bounds fetches: pure decisions over nanoseconds of the monotonic clock.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// What a bucket holds.
const BUCKET: u64 = 5;
/// How long one of them takes to come back.
const REFILL: u64 = 10 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// How long a `kid` that the origin does not have is remembered.
const ABSENT_FOR: u64 = 30 * SECOND;
/// The most kids that are remembered.
const MAX_ABSENT: usize = 64;
/// A longer `kid` that is not in the set never leads to a fetch.
pub(super) const MAX_KID_LEN: usize = 256;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Five unknown kids, and one more every ten seconds (GCRA).
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// How long until one can be taken; zero if it can be now.
    pub(super) fn wait(&self, now: u64) -> u64 {
        let after = self.full_at.max(now).saturating_add(REFILL);
        after.saturating_sub(now.saturating_add(BUCKET * REFILL))
    }

    pub(super) fn take(&mut self, now: u64) {
        self.full_at = self.full_at.max(now).saturating_add(REFILL);
    }
}

/// Kids that the origin does not have. Bounded: the oldest is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Absent {
    kids: VecDeque<(Box<str>, u64)>,
}

impl Absent {
    pub(super) fn holds(&self, kid: &str, now: u64) -> bool {
        self.kids.iter().any(|(known, until)| now < *until && **known == *kid)
    }

    pub(super) fn add(&mut self, kid: Box<str>, now: u64) {
        self.kids.retain(|(known, until)| now < *until && *known != kid);
        while self.kids.len() >= MAX_ABSENT {
            self.kids.pop_front();
        }
        self.kids.push_back((kid, now.saturating_add(ABSENT_FOR)));
    }
}

/// When to try again after this many failures in a row: 250 ms, doubled up to 60 s, of which the latter half is random.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let whole = doubled.min(LAST_RETRY);
    whole / 2 + random_part(whole / 2)
}

/// When to refresh a set that is fresh for `life`: at 70 to 80 % of it, so that a fleet does not ask all at once.
pub(super) fn refresh_after(life: Duration) -> Duration {
    life / 10 * 7 + random_part(life / 10)
}

/// Up to `whole`. It spreads load and guards nothing.
fn random_part(whole: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() >> 32;
    let part = whole.as_nanos() * u128::from(random) / (1 << 32);
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_and_one_more_every_ten_seconds() {
        let mut bucket = Bucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.wait(SECOND), 0);
            bucket.take(SECOND);
        }
        assert_eq!(bucket.wait(SECOND), 10 * SECOND);
        assert_eq!(bucket.wait(9 * SECOND), 2 * SECOND);
        assert_eq!(bucket.wait(11 * SECOND), 0);
        bucket.take(11 * SECOND);
        assert_eq!(bucket.wait(11 * SECOND), 10 * SECOND);
        assert_eq!(bucket.wait(1_000 * SECOND), 0);
        assert_eq!(Bucket { full_at: u64::MAX }.wait(u64::MAX), 0, "no overflow");
    }

    #[test]
    fn absent_kids_are_forgotten_and_bounded() {
        let mut absent = Absent::default();
        absent.add("a".into(), 0);
        assert!(absent.holds("a", ABSENT_FOR - 1) && !absent.holds("a", ABSENT_FOR) && !absent.holds("b", 0));
        for number in 0..10_000 {
            absent.add(format!("kid {number}").into(), 1);
        }
        assert_eq!(absent.kids.len(), MAX_ABSENT);
        assert!(absent.holds("kid 9999", 2) && !absent.holds("kid 0", 2));
    }

    #[test]
    fn delays_stay_within_their_bounds() {
        for (failures, longest) in [(1, 250), (2, 500), (3, 1_000), (8, 32_000), (9, 60_000), (40, 60_000)] {
            let longest = Duration::from_millis(longest);
            for _ in 0..50 {
                let delay = backoff(failures);
                assert!(delay >= longest / 2 && delay <= longest, "{failures}: {delay:?}");
            }
        }
        let life = Duration::from_secs(600);
        let delays: Vec<_> = (0..50).map(|_| refresh_after(life)).collect();
        assert!(delays.iter().all(|delay| (420..=480).contains(&delay.as_secs())), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay != delays[0]), "random");
    }
}
