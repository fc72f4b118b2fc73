//! How many ids that nothing is known of may reach the store: GCRA over a table of fixed size.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::quality::RandomState;

use super::config::Rate;
use crate::client::source;

/// 1 024 buckets of eight sources, 16 bytes each. A source that has no room for takes the place of the one whose budget is
/// whole again soonest; what many sources do together is held by the budget for all.
const BUCKETS: usize = 1_024;
const WAYS: usize = 8;
/// What a /48 has of the budget of a source.
const NETWORK: u64 = 8;

pub(super) struct Budget {
    source: Rate,
    network: Rate,
    all: Rate,
    buckets: Box<[Mutex<[Cell; WAYS]>]>,
    whole_at: Mutex<u64>,
    /// The latest time that anybody came with: who has waited is not measured by what others took meanwhile.
    latest: AtomicU64,
    seed: RandomState,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    fingerprint: u64,
    whole_at: u64,
}

/// What was taken, to be given back.
#[derive(Debug)]
pub(super) struct Charge {
    client: Option<IpAddr>,
}

/// Whose budget is used up, and for how many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    Source(u64),
    All(u64),
}

impl Budget {
    pub(super) fn new(source: Rate, all: Rate) -> Self {
        Self {
            source,
            network: source.times(NETWORK),
            all,
            buckets: std::iter::repeat_with(|| Mutex::new([Cell::default(); WAYS])).take(BUCKETS).collect(),
            whole_at: Mutex::new(0),
            latest: AtomicU64::new(0),
            seed: RandomState::default(),
        }
    }

    /// Takes one of every budget, or of none. A look-up for nobody in particular counts for all alone.
    pub(super) fn take(&self, client: Option<IpAddr>, now: u64) -> Result<Charge, Spent> {
        let now = self.now(now);
        self.spent(client, now).map_or(Ok(()), Err)?;
        for (key, rate) in self.sources(client) {
            let mut cells = self.bucket(key);
            let whole_at = ask(rate, find(&cells, key), now).map_err(Spent::Source)?;
            keep(&mut cells, Cell { fingerprint: key, whole_at });
        }
        let mut whole_at = self.all();
        *whole_at = ask(self.all, *whole_at, now).map_err(Spent::All)?;
        Ok(Charge { client })
    }

    /// Whether nothing can be taken, without taking.
    pub(super) fn spent(&self, client: Option<IpAddr>, now: u64) -> Option<Spent> {
        let now = self.now(now);
        self.sources(client)
            .find_map(|(key, rate)| ask(rate, find(&self.bucket(key), key), now).err().map(Spent::Source))
            .or_else(|| ask(self.all, *self.all(), now).err().map(Spent::All))
    }

    pub(super) fn give_back(&self, charge: &Charge) {
        for (key, rate) in self.sources(charge.client) {
            let mut cells = self.bucket(key);
            if let Some(cell) = cells.iter_mut().find(|cell| cell.fingerprint == key) {
                cell.whole_at = cell.whole_at.saturating_sub(rate.interval);
            }
        }
        let mut whole_at = self.all();
        *whole_at = whole_at.saturating_sub(self.all.interval);
    }

    fn now(&self, came: u64) -> u64 {
        self.latest.fetch_max(came, Relaxed).max(came)
    }

    /// The address, or the /64 and the /48 around it.
    fn sources(&self, client: Option<IpAddr>) -> impl Iterator<Item = (u64, Rate)> {
        let (one, network) = match client.map(source) {
            None => (None, None),
            Some(address @ IpAddr::V4(_)) => (Some(address), None),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                let first = |d| IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0));
                (Some(first(d)), Some(first(0)))
            }
        };
        let one = one.map(|address| (self.seed.hash_one((64, address)), self.source));
        let network = network.map(|address| (self.seed.hash_one((48, address)), self.network));
        one.into_iter().chain(network)
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is within the table")]
    fn bucket(&self, key: u64) -> MutexGuard<'_, [Cell; WAYS]> {
        let index = usize::try_from(key % BUCKETS as u64).unwrap_or(0);
        self.buckets[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, u64> {
        self.whole_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the bucket is whole again after one more is taken; or how long until one can be.
fn ask(rate: Rate, whole_at: u64, now: u64) -> Result<u64, u64> {
    let after = whole_at.max(now).saturating_add(rate.interval);
    let missing = after.saturating_sub(now).saturating_sub(rate.capacity);
    // At the end of time the sum stands still, and nothing passes.
    if missing == 0 && after > now { Ok(after) } else { Err(missing.max(1)) }
}

fn find(cells: &[Cell; WAYS], fingerprint: u64) -> u64 {
    cells.iter().find(|cell| cell.fingerprint == fingerprint).map_or(0, |cell| cell.whole_at)
}

fn keep(cells: &mut [Cell; WAYS], new: Cell) {
    let same = cells.iter().position(|cell| cell.fingerprint == new.fingerprint);
    let soonest = || cells.iter().enumerate().min_by_key(|(_, cell)| cell.whole_at).map(|(index, _)| index);
    if let Some(cell) = same.or_else(soonest).and_then(|index| cells.get_mut(index)) {
        *cell = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(burst: u64, per_second: u64) -> Rate {
        Rate { interval: SECOND / per_second, capacity: burst * SECOND / per_second }
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn taken(budget: &Budget, client: Option<IpAddr>, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| budget.take(client, now).is_ok()).count()
    }

    #[test]
    fn a_source_has_a_burst_and_a_rate_of_its_own() {
        let budget = Budget::new(rate(20, 10), rate(1_000, 10));
        let (one, other) = (address("198.51.100.7"), address("198.51.100.8"));
        assert_eq!(taken(&budget, one, SECOND, 100), 20);
        assert_eq!(budget.spent(one, SECOND), Some(Spent::Source(SECOND / 10)));
        assert_eq!(taken(&budget, other, SECOND, 100), 20);
        assert_eq!(taken(&budget, one, 2 * SECOND, 100), 10);
        assert_eq!(taken(&budget, one, 1_000 * SECOND, 100), 20);
        assert_eq!(taken(&budget, address("::ffff:198.51.100.7"), 1_000 * SECOND, 100), 0, "the same address");
    }

    #[test]
    fn an_ipv6_source_is_a_64_and_a_48_is_bounded() {
        let budget = Budget::new(rate(20, 10), rate(1_000_000, 10));
        assert_eq!(taken(&budget, address("2001:db8:1:1::1"), SECOND, 100), 20);
        assert_eq!(taken(&budget, address("2001:db8:1:1::2"), SECOND, 100), 0);
        let many: usize =
            (0..1_000).map(|net| taken(&budget, address(&format!("2001:db8:1:{net:x}::1")), SECOND, 1)).sum();
        assert_eq!(many, 8 * 20 - 20);
        assert_eq!(taken(&budget, address("2001:db8:2:1::1"), SECOND, 100), 20);
    }

    #[test]
    fn all_sources_together_are_bounded_whatever_is_forgotten() {
        let budget = Budget::new(rate(20, 10), rate(5_000, 10));
        let many: usize =
            (0..100_000_u32).map(|number| taken(&budget, Some(IpAddr::V4(number.into())), SECOND, 1)).sum();
        assert_eq!(many, 5_000);
        assert_eq!(budget.spent(address("198.51.100.7"), SECOND), Some(Spent::All(SECOND / 10)));
        assert_eq!(taken(&budget, None, SECOND, 1), 0);
        assert_eq!(taken(&budget, None, 2 * SECOND, 100), 10);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = Budget::new(rate(3, 1), rate(4, 1));
        let client = address("2001:db8::1");
        for _ in 0..1_000 {
            let charge = budget.take(client, SECOND).unwrap();
            budget.give_back(&charge);
        }
        assert_eq!(taken(&budget, client, SECOND, 10), 3);
        assert_eq!(taken(&budget, None, SECOND, 10), 1);
    }

    #[test]
    fn a_refused_take_takes_nothing() {
        let budget = Budget::new(rate(10, 1), rate(2, 1));
        let client = address("198.51.100.7");
        assert_eq!(taken(&budget, client, SECOND, 100), 2);
        assert_eq!(taken(&budget, client, 3 * SECOND, 100), 2, "the source was not charged for what all were refused");
        assert_eq!(budget.spent(client, 3 * SECOND), Some(Spent::All(SECOND)));
    }

    #[test]
    fn at_the_end_of_time_nothing_passes() {
        let budget = Budget::new(rate(3, 1), rate(4, 1));
        assert_eq!(taken(&budget, address("198.51.100.7"), u64::MAX, 10), 0);
    }

    #[test]
    fn who_came_early_is_not_measured_by_what_was_taken_since() {
        let budget = Budget::new(rate(3, 1), rate(4, 1));
        let client = address("198.51.100.7");
        assert_eq!(taken(&budget, client, 100 * SECOND, 1), 1);
        assert_eq!(taken(&budget, client, SECOND, 10), 2, "it took over what another one gave up");
    }
}
