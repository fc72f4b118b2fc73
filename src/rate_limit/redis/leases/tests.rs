use tokio::sync::oneshot;

use super::*;
use crate::rate_limit::{Charge, KeyPart, LimitKey, Quota, redis::ask::What};

/// One count, as Redis keeps it: the moment, in microseconds, when it is whole.
struct Redis {
    whole: u64,
    asked: u64,
}

impl Redis {
    fn take(&mut self, count: &Count, now: u64, least: u32, most: u32) -> Answer {
        self.asked += 1;
        let debt = self.whole.saturating_sub(now);
        let room = count.interval * u64::from(count.burst) - debt;
        let units = most.min(u32::try_from(room / count.interval).unwrap());
        if units < least {
            let micros = count.interval * u64::from(least) - room;
            return Answer { units: 0, charge: 0, remaining: 0, micros };
        }
        let debt = debt + count.interval * u64::from(units);
        self.whole = now + debt;
        let remaining = u32::try_from((count.interval * u64::from(count.burst) - debt) / count.interval).unwrap();
        Answer { units, charge: 0, remaining, micros: debt }
    }
}

/// What became of the decisions of two processes that share a quota.
#[derive(Debug)]
struct Seen {
    decisions: u64,
    passed: u64,
    asked: u64,
}

/// Two processes decide in turn, one decision every so many microseconds, for so long.
fn simulate(quota: &Quota, every: u64, micros: u64) -> Seen {
    let parts = [KeyPart::Custom("a")];
    let charges = [Charge::new(LimitKey::new("test", &parts), quota)];
    let draw = Draw::new(&charges);
    let interval = quota.interval_nanos().div_ceil(1_000);
    let count = Count { name: "a".into(), interval, burst: quota.burst_size(), longest: u64::MAX };
    let tables = [Table::new(Leases::new()), Table::new(Leases::new())];
    let (start, mut redis) = (Instant::now(), Redis { whole: 0, asked: 0 });
    let (mut seen, mut sweep) = (Seen { decisions: 0, passed: 0, asked: 0 }, 1_000_000);
    let mut ask = |table: &Table, slice: Slice, fetches: bool, now: u64, at: Instant| {
        let least = 1;
        let mut ask = Ask::new(vec![count.clone()], What::Take, (least, slice.most), None);
        ask.lease = Some(slice.key);
        ask.reply = (!fetches).then(|| oneshot::channel().0);
        let answer = redis.take(&count, now, least, slice.most);
        table.fill(&mut ask, Ok(answer), at);
        (answer.units > 0, redis.asked)
    };
    for (table, now) in tables.iter().cycle().zip((0..micros).step_by(usize::try_from(every).unwrap())) {
        let at = start + Duration::from_micros(now);
        if now >= sweep {
            sweep = now + 1_000_000;
            // Nobody pauses here, so there is nothing to give back but by chance.
            tables.iter().for_each(|table| drop(table.unused(at, false)));
        }
        seen.decisions += 1;
        match table.spend(&draw, at) {
            Some((taken, fetch)) => {
                seen.passed += u64::from(taken.is_granted());
                if let Some(slice) = fetch {
                    seen.asked = ask(table, slice, true, now, at).1;
                }
            }
            None => {
                let slice = table.plan(&draw, at).unwrap();
                let (granted, asked) = ask(table, slice, false, now, at);
                seen.passed += u64::from(granted);
                seen.asked = asked;
            }
        }
    }
    seen
}

#[test]
fn of_all_loads_five_decisions_in_a_hundred_ask_at_most_and_the_quota_is_had() {
    let quota = Quota::per_minute(10_000);
    // One comes back in 6 ms. Ten minutes, so that the burst is a small part of it.
    let minutes = 10;
    for (name, every) in [
        ("half of the quota", 12_000),
        ("nine tenths", 6_666),
        ("just the quota", 6_000),
        ("a tenth more", 5_454),
        ("half as much again", 4_000),
        ("twice", 3_000),
        ("ten times", 600),
        ("fifty times", 120),
    ] {
        let seen = simulate(&quota, every, minutes * 60_000_000);
        assert!(seen.asked * 100 <= seen.decisions * 5, "{name}: {seen:?}");
        let quota = 10_000 * (minutes + 1);
        assert!(seen.passed <= quota + quota / 100, "{name}: {seen:?}");
        assert!(seen.passed * 100 >= quota.min(seen.decisions) * 97, "{name}: {seen:?}");
    }
}

/// A quota of which less than one comes back while a slice is held: the times that are told are exact.
#[test]
fn of_a_slow_quota_the_time_that_redis_tells_is_told() {
    let quota = Quota::per_day(10_000);
    let parts = [KeyPart::Custom("a")];
    let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
    let (draw, table) = (Draw::new(&charges), Table::new(Leases::new()));
    let count = Count { name: "a".into(), interval: 8_640_000, burst: 10_000, longest: u64::MAX };
    let mut at = Instant::now();
    for _ in 0..20 {
        assert!(table.spend(&draw, at).is_none(), "what was told before is over");
        let slice = table.plan(&draw, at).unwrap();
        let mut ask = Ask::new(vec![count.clone()], What::Take, (1, slice.most), None);
        (ask.lease, ask.reply) = (Some(slice.key), Some(oneshot::channel().0));
        table.fill(&mut ask, Ok(Answer { units: 0, charge: 0, remaining: 0, micros: 700_000 }), at);
        assert_eq!(table.spend(&draw, at).unwrap().0, Taken::refused(0, 700_000_000));
        at += Duration::from_millis(700);
    }
}

/// Redis stands still, for longer than anybody is believed to ask, and then answers all.
#[test]
fn what_comes_late_is_no_more_than_a_slice() {
    let quota = Quota::per_day(20_000);
    let parts = [KeyPart::Custom("a")];
    let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
    let (draw, table) = (Draw::new(&charges), Table::new(Leases::new()));
    let count = Count { name: "a".into(), interval: 4_320_000, burst: 20_000, longest: u64::MAX };
    let fill = |slice: Slice, at| {
        let mut ask = Ask::new(vec![count.clone()], What::Take, (1, slice.most), None);
        (ask.lease, ask.reply) = (Some(slice.key), Some(oneshot::channel().0));
        let answer = Answer { units: slice.most, charge: 0, remaining: 9, micros: 1 };
        table.fill(&mut ask, Ok(answer), at)
    };
    let mut at = Instant::now();
    // Until slices are of full size, and all is used.
    for _ in 0..8 {
        fill(table.plan(&draw, at).unwrap(), at);
    }
    while table.spend(&draw, at).is_some_and(|(taken, _)| taken.is_granted()) {}
    let (start, mut asked) = (at, Vec::new());
    at += Duration::from_millis(1_100);
    for _ in 0..6 {
        asked.extend(table.plan(&draw, at));
        at += Duration::from_millis(1_100);
    }
    assert!(asked.len() > 1, "{asked:?} in {:?}", at - start);
    let taken: u32 = asked.iter().map(|slice| slice.most).sum();
    let spent = u32::try_from(asked.len()).unwrap();
    let given_back: u32 = asked.into_iter().filter_map(|slice| fill(slice, at).1).map(|ask| ask.most).sum();
    let mut held = 0;
    while table.spend(&draw, at).is_some_and(|(taken, _)| taken.is_granted()) {
        held += 1;
    }
    assert!(held <= 100, "{held} of a slice of 100");
    assert_eq!(held + given_back + spent, taken, "and nothing is lost");
}
