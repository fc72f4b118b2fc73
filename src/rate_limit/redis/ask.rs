//! What is asked of Redis, and what it answers.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use redis::{Cmd, Value};
use tokio::sync::oneshot;

use super::{leases::LeaseKey, name};
use crate::{
    clock::Instants,
    rate_limit::{Draw, Taken},
};

/// The latest moment that the script counts with, in microseconds: the year 2112. Beyond it the clock stands, so that no debt
/// is ever paid.
const LATEST: u64 = 1 << 52;

/// The most draws of one call: the server does nothing else meanwhile.
pub(super) const MOST: usize = 128;

/// What the script says instead of a count's index where a key holds something else.
const CORRUPT: u8 = 255;

/// One count, as the script knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) name: String,
    /// Microseconds in which one comes back, rounded up.
    pub(super) interval: u64,
    pub(super) burst: u32,
    /// The longest debt that is believed, in microseconds.
    pub(super) longest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Take,
    /// Take, also if it is refused.
    Count,
    /// Give back.
    Give,
}

/// A draw, or what a lease gives back.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) counts: Vec<Count>,
    pub(super) what: What,
    /// Microseconds; none is the server's time.
    pub(super) time: Option<u64>,
    pub(super) least: u32,
    pub(super) most: u32,
    /// The lease that what is beyond the least goes to.
    pub(super) lease: Option<LeaseKey>,
    pub(super) reply: Option<oneshot::Sender<Result<Answer, Failure>>>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Redis cannot tell now.
    Away,
    /// It answered nonsense.
    Corrupt,
}

/// Of one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// None if it is refused.
    pub(super) units: u32,
    pub(super) charge: usize,
    pub(super) remaining: u32,
    pub(super) micros: u64,
}

impl Answer {
    pub(super) fn taken(&self) -> Taken {
        let nanos = self.micros.saturating_mul(1_000);
        if self.units > 0 {
            Taken::granted(self.charge, self.remaining, nanos)
        } else {
            Taken::refused(self.charge, nanos)
        }
    }
}

/// The counts of a draw; the index of the charge that can never grant it, if there is one.
pub(super) fn counts(draw: &Draw<'_>, prefix: &str) -> Result<Vec<Count>, usize> {
    let mut counts: Vec<Count> = Vec::with_capacity(draw.charges().len());
    for (index, charge) in draw.charges().iter().enumerate() {
        let name = name::of(prefix, charge);
        if counts.iter().any(|other| other.name == name) {
            return Err(index);
        }
        let quota = charge.quota();
        let (interval, longest) = (quota.interval_nanos().div_ceil(1_000), quota.longest_nanos().div_ceil(1_000));
        counts.push(Count { name, interval, burst: quota.burst_size(), longest });
    }
    Ok(counts)
}

impl Ask {
    pub(super) fn new(counts: Vec<Count>, what: What, amount: (u32, u32), at: Option<Instants>) -> Self {
        let time = at.map(|at| (at.unix_nanos() / 1_000).min(LATEST));
        Self { counts, what, time, least: amount.0, most: amount.1, lease: None, reply: None }
    }

    pub(super) const fn giving_back(counts: Vec<Count>, units: u32, time: Option<u64>) -> Self {
        Self { counts, what: What::Give, time, least: 0, most: units, lease: None, reply: None }
    }

    /// Whether somebody still wants to know. What a lease is for goes on without who asked first.
    pub(super) fn is_wanted(&self) -> bool {
        match &self.reply {
            Some(reply) => !reply.is_closed() || self.lease.is_some(),
            None => true,
        }
    }

    /// Whether the script reads the same numbers for both.
    fn is_like(&self, other: &Self) -> bool {
        let numbers = |ask: &Self| (ask.what, ask.time, ask.least, ask.most, ask.counts.len());
        let limits = |count: &Count| (count.interval, count.burst, count.longest);
        numbers(self) == numbers(other) && self.counts.iter().map(limits).eq(other.counts.iter().map(limits))
    }

    /// The part of a name that says where it stands in a cluster.
    fn slot(&self) -> Option<&str> {
        self.counts.first()?.name.split(['{', '}']).nth(1)
    }
}

/// Draws that go to Redis in one call.
#[derive(Debug)]
pub(super) struct Call {
    /// Their places among all that are asked.
    pub(super) asks: Vec<usize>,
}

/// One call for up to [`MOST`] of them; in a cluster, of those of one slot.
pub(super) fn calls(asks: &[Ask], in_cluster: bool) -> Vec<Call> {
    if !in_cluster && asks.len() <= MOST {
        return vec![Call { asks: (0..asks.len()).collect() }];
    }
    let mut calls: Vec<Call> = Vec::new();
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for (index, ask) in asks.iter().enumerate() {
        let slot = if in_cluster { ask.slot().unwrap_or_default() } else { "" };
        let call = newest.get(slot).and_then(|call| calls.get_mut(*call));
        match call.filter(|call| call.asks.len() < MOST) {
            Some(call) => call.asks.push(index),
            None => {
                newest.insert(slot, calls.len());
                calls.push(Call { asks: vec![index] });
            }
        }
    }
    calls
}

impl Call {
    /// The command: with the script's hash, or with its text.
    pub(super) fn command(&self, name: &str, script: &str, asks: &[Ask], outlives_millis: u64) -> Cmd {
        let mut names: Vec<&str> = Vec::with_capacity(self.asks.len());
        let mut places: HashMap<&str, u16, RandomState> =
            HashMap::with_capacity_and_hasher(self.asks.len(), RandomState::default());
        let mut kinds: Vec<&Ask> = Vec::new();
        let mut draws = Vec::with_capacity(self.asks.len().saturating_mul(3));
        for ask in self.asks.iter().filter_map(|index| asks.get(*index)) {
            let known = kinds.iter().rposition(|kind| kind.is_like(ask));
            let kind = known.unwrap_or_else(|| {
                kinds.push(ask);
                kinds.len().saturating_sub(1)
            });
            // As many as there are draws at the most.
            draws.push(u8::try_from(kind.saturating_add(1)).unwrap_or(u8::MAX));
            for count in &ask.counts {
                let place = *places.entry(&count.name).or_insert_with(|| {
                    names.push(&count.name);
                    u16::try_from(names.len()).unwrap_or(u16::MAX)
                });
                draws.extend_from_slice(&place.to_be_bytes());
            }
        }
        let mut command = redis::cmd(name);
        command.arg(script).arg(names.len()).arg(&names).arg(outlives_millis).arg(draws);
        for kind in kinds {
            command.arg(match kind.what {
                What::Take => "take",
                What::Count => "count",
                What::Give => "give",
            });
            match kind.time {
                Some(time) => command.arg(time),
                None => command.arg(""),
            };
            command.arg(kind.least).arg(kind.most).arg(kind.counts.len());
            for count in &kind.counts {
                command.arg(count.interval).arg(count.burst).arg(count.longest);
            }
        }
        command
    }
}

/// Reads what the script returned for so many draws.
pub(super) fn answers(value: &Value, asked: usize) -> Option<Vec<Result<Answer, Failure>>> {
    let Value::BulkString(bytes) = value else { return None };
    let (answers, []) = bytes.as_chunks::<17>() else { return None };
    (answers.len() == asked).then(|| answers.iter().map(answer).collect())?
}

fn answer(bytes: &[u8; 17]) -> Option<Result<Answer, Failure>> {
    let [charge, rest @ ..] = bytes;
    let (units, rest) = rest.split_first_chunk()?;
    let (remaining, micros) = rest.split_first_chunk()?;
    if *charge == CORRUPT {
        return Some(Err(Failure::Corrupt));
    }
    Some(Ok(Answer {
        units: u32::from_be_bytes(*units),
        charge: usize::from(*charge),
        remaining: u32::from_be_bytes(*remaining),
        micros: u64::from_be_bytes(*micros.first_chunk()?),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rate_limit::{Charge, KeyPart, LimitKey, Quota};

    #[test]
    fn what_redis_answers_is_read_strictly() {
        let told = |charge: u8, units: u32, remaining: u32, micros: u64| {
            let numbers = [&units.to_be_bytes()[..], &remaining.to_be_bytes(), &micros.to_be_bytes()].concat();
            [vec![charge], numbers].concat()
        };
        let granted = Answer { units: 1, charge: 0, remaining: 4, micros: 1_000_000 };
        let bytes = told(0, 1, 4, 1_000_000);
        let corrupt = told(255, 0, 0, 0);
        assert_eq!(answers(&Value::BulkString(bytes.clone()), 1), Some(vec![Ok(granted)]));
        assert_eq!(answers(&Value::BulkString(corrupt.clone()), 1), Some(vec![Err(Failure::Corrupt)]));
        let both = Value::BulkString([corrupt, bytes.clone()].concat());
        assert_eq!(answers(&both, 2), Some(vec![Err(Failure::Corrupt), Ok(granted)]));
        assert_eq!(granted.taken(), Taken::granted(0, 4, 1_000_000_000));
        assert_eq!(Answer { units: 0, ..granted }.taken(), Taken::refused(0, 1_000_000_000));
        for (value, asked) in [
            (Value::BulkString(bytes[1..].to_vec()), 1),
            (Value::BulkString([&bytes[..], &[0]].concat()), 1),
            (Value::BulkString(bytes.clone()), 2),
            (Value::BulkString([&bytes[..], &bytes].concat()), 1),
            (Value::BulkString(vec![]), 1),
            (Value::SimpleString("text".into()), 0),
            (Value::Nil, 0),
            (Value::Okay, 1),
            (Value::Array(vec![Value::Int(1); 17]), 1),
        ] {
            assert_eq!(answers(&value, asked), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn each_answer_is_its_own_bytes_and_no_other(bytes in proptest::collection::vec(any::<u8>(), 0..120), asked in 0..8_usize) {
            let whole = bytes.len() == 17 * asked;
            let read = answers(&Value::BulkString(bytes.clone()), asked);
            prop_assert_eq!(read.is_some(), whole);
            for (told, bytes) in read.unwrap_or_default().into_iter().zip(bytes.chunks(17)) {
                let written = told.map(|told| {
                    let charge = u8::try_from(told.charge).unwrap();
                    let numbers = [told.units.to_be_bytes(), told.remaining.to_be_bytes()].concat();
                    [&[charge], &numbers[..], &told.micros.to_be_bytes()].concat()
                });
                match written {
                    Ok(written) => prop_assert_eq!(written, bytes),
                    Err(failure) => prop_assert!(failure == Failure::Corrupt && bytes[0] == CORRUPT),
                }
            }
        }

        #[test]
        fn what_is_written_is_read(answers in proptest::collection::vec(any::<(u8, u32, u32, u64)>(), 0..8)) {
            let bytes = answers.iter().flat_map(|(charge, units, remaining, micros)| {
                [&[*charge][..], &units.to_be_bytes(), &remaining.to_be_bytes(), &micros.to_be_bytes()].concat()
            });
            let read = super::answers(&Value::BulkString(bytes.collect()), answers.len()).unwrap();
            let expected = answers.into_iter().map(|(charge, units, remaining, micros)| {
                if charge == CORRUPT {
                    return Err(Failure::Corrupt);
                }
                Ok(Answer { units, charge: charge.into(), remaining, micros })
            });
            prop_assert_eq!(read, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_key_that_several_draw_from_is_named_once() {
        let quota = Quota::per_second(1);
        let (one, other) = ([KeyPart::Custom("a")], [KeyPart::Custom("b")]);
        let ask = |parts: &[KeyPart<'_>]| {
            let charges = [Charge::new(LimitKey::new("x", parts), &quota)];
            Ask::new(counts(&Draw::new(&charges), "p:").unwrap(), What::Take, (1, 1), None)
        };
        let asks = [ask(&one), ask(&other), ask(&one)];
        let [call] = &calls(&asks, false)[..] else { panic!("one call") };
        let command = call.command("EVALSHA", "hash", &asks, 0);
        let packed = String::from_utf8(command.get_packed_command()).unwrap();
        assert_eq!(packed.matches("custom=").count(), 2, "{packed}");
        let slots = calls(&asks, true);
        assert_eq!(slots.iter().map(|call| call.asks.clone()).collect::<Vec<_>>(), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn no_call_has_more_than_its_share() {
        let quota = Quota::per_second(1);
        let ask = |number: usize| {
            let name = (number % 2).to_string();
            let parts = [KeyPart::Custom(&name)];
            let charges = [Charge::new(LimitKey::new("x", &parts), &quota)];
            Ask::new(counts(&Draw::new(&charges), "p:").unwrap(), What::Take, (1, 1), None)
        };
        let asks: Vec<Ask> = (0..3 * MOST).map(ask).collect();
        let sizes = |calls: &[Call]| calls.iter().map(|call| call.asks.len()).collect::<Vec<_>>();
        let all = calls(&asks, false);
        assert_eq!(sizes(&all), [MOST; 3]);
        assert!(all.iter().flat_map(|call| &call.asks).copied().eq(0..3 * MOST), "in their order");
        assert_eq!(sizes(&calls(&asks, true)), [MOST, MOST, MOST / 2, MOST / 2]);
    }

    #[test]
    fn one_count_twice_is_refused() {
        let quota = Quota::per_second(1);
        let charges = [Charge::new(LimitKey::new("x", &[]), &quota); 2];
        assert_eq!(counts(&Draw::new(&charges), "p:"), Err(1));
    }
}
