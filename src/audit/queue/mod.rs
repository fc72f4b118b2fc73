//! The bounded queue between the requests and one writer.
//!
//! Two lanes, so that strangers crowd nobody else out; a number that both share keeps the order. Positions, not
//! messages, tell what is delivered: the n-th entry accepted is settled once the writer is done with n entries. So a flush
//! needs no place in a full queue, and waits without a runtime.

mod batch;
mod repeats;
mod room;

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

pub(crate) use batch::{Batch, Filled};

use crate::{
    audit::{AuditEntry, AuditRepeats, Lost, WhenFull},
    error::ConfigError,
};
use repeats::Repeats;

/// The most entries that the writer takes at once.
const BATCH: usize = 256;
/// So many waiting entries wake a writer that lingers.
const MANY: usize = 1024;

/// The most entries that a queue may be told to let wait: with a kilobyte each, a gigabyte in each lane. What waits is in memory alone,
/// and lost with the process; where so much has to wait, the writer is what has to change.
pub(crate) const MAX_WAITING: usize = 1_000_000;

/// How much waits for the writer, and what happens to more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) records: NonZeroUsize,
    pub(crate) refusals: NonZeroUsize,
    pub(crate) when_full: WhenFull,
    /// Whether refusals before authentication are counted instead of kept one by one.
    pub(crate) count_repeats: bool,
    /// Whether the writer waits a moment for more, so that who hands an entry over need not wake it.
    pub(crate) lingers: bool,
}

#[derive(Debug)]
pub(crate) struct Queue {
    rules: Rules,
    state: Mutex<State>,
    /// There are entries for the writer, or no more will come.
    work: Condvar,
    /// There is room for entries, or there is no writer.
    room: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// What must not be crowded out: requests of somebody, events.
    Main,
    /// Requests that nobody was authenticated in.
    Strangers,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<(u64, AuditEntry)>,
    /// Those in `entries` and those that the writer has in hand.
    unsettled: usize,
}

#[derive(Debug, Default)]
struct State {
    main: Waiting,
    strangers: Waiting,
    /// Entries ever accepted.
    accepted: u64,
    /// Entries that the writer is done with.
    settled: u64,
    /// The position up to which a flush has told of failures.
    told: u64,
    /// The last position of a batch that failed, and how.
    failure: Option<(u64, io::ErrorKind)>,
    lost: u64,
    /// Of those, how many no gap tells of yet.
    untold: u64,
    repeats: Repeats,
    /// Room that requests under way keep.
    reserved: usize,
    /// For how many more entries the disk is known to have room; none where that is not known.
    headroom: Option<u64>,
    /// Whether the last write failed.
    failing: bool,
    flushes: Vec<(u64, Waker)>,
    writer: Writer,
    /// The writer shall not linger.
    hurry: bool,
    /// The writer shall look whether there is room by now.
    look: bool,
    closed: bool,
    dead: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Works,
    /// It looks again in a moment.
    Lingers,
    Sleeps,
}

/// What a flush waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    from: u64,
    to: u64,
}

impl Queue {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, state: Mutex::default(), work: Condvar::new(), room: Condvar::new() }
    }

    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes an entry in; if there is no room, waits for it or loses it.
    pub(crate) fn push(&self, entry: AuditEntry) -> Result<(), Lost> {
        let lane = Lane::of(&entry);
        let mut state = self.lock();
        if lane == Lane::Strangers && self.counts(&mut state, &entry) {
            return Ok(());
        }
        let room = self.rules.room(lane, entry.is_refusal());
        if state.is_full(lane, room) && !state.dead {
            // Who refuses requests has kept room for their records; what comes without any never waits. Nor does what a stranger
            // brings about: strangers must not stop the threads that everybody's requests need.
            if let (Lane::Main, WhenFull::Wait(at_most)) = (lane, self.rules.when_full) {
                self.wake(&mut state, true);
                let full = |state: &mut State| !state.dead && state.is_full(lane, room);
                let waited = self.room.wait_timeout_while(state, at_most, full);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        if state.dead || state.is_full(lane, room) {
            state.lose(entry.weight());
            return Err(Lost);
        }
        state.put(lane, entry);
        self.wake(&mut state, false);
        Ok(())
    }

    /// Whether it is one more of those that were seen this second.
    fn counts(&self, state: &mut State, entry: &AuditEntry) -> bool {
        let (true, Some(record)) = (self.rules.count_repeats && !state.dead, entry.decided()) else { return false };
        let mut due = Vec::new();
        let was_pending = state.repeats.is_pending();
        let counted = state.repeats.count(record, &mut due);
        state.tell(due, &self.rules);
        if !was_pending && state.repeats.is_pending() {
            // A writer that sleeps would not know that there will be something to tell.
            self.wake(state, false);
        }
        counted
    }

    /// A wake-up is a system call: not while the writer is busy anyway, or will look again by itself.
    fn wake(&self, state: &mut State, hurry: bool) {
        state.hurry |= hurry;
        let wake = match state.writer {
            Writer::Works => false,
            Writer::Lingers => state.hurry || !self.rules.lingers || state.waiting() >= MANY,
            Writer::Sleeps => true,
        };
        if wake {
            state.writer = Writer::Works;
            self.work.notify_one();
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Everything up to now, also what is only counted so far.
    pub(crate) fn mark(&self) -> Mark {
        let mut state = self.lock();
        state.tell_repeats(&self.rules);
        let mark = Mark { from: state.told, to: state.accepted };
        if state.settled < mark.to {
            self.wake(&mut state, true);
        }
        mark
    }

    /// Once everything up to the mark is settled: how it failed, if some of it did. Until then keeps the waker.
    pub(crate) fn settled(&self, mark: Mark, waker: &Waker) -> Option<Option<io::ErrorKind>> {
        let mut state = self.lock();
        if state.settled < mark.to {
            state.flushes.push((mark.to, waker.clone()));
            return None;
        }
        state.told = state.told.max(mark.to);
        Some(state.failure.filter(|(at, _)| *at > mark.from).map(|(_, kind)| kind))
    }

    /// Waits on this thread until everything up to the mark is settled. False if it took longer than this.
    pub(crate) fn settled_within(&self, mark: Mark, at_most: Duration) -> bool {
        let pending = |state: &mut State| state.settled < mark.to;
        let waited = self.room.wait_timeout_while(self.lock(), at_most, pending);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// No more entries will come; the writer finishes.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.tell_repeats(&self.rules);
        state.closed = true;
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn of(entry: &AuditEntry) -> Self {
        if entry.is_of_stranger() { Self::Strangers } else { Self::Main }
    }
}

impl Rules {
    /// Refuses more than a machine has room for, which would be no bound.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        for (setting, records) in [("capacity", self.records), ("refusal capacity", self.refusals)] {
            if records.get() > MAX_WAITING {
                let problem = format!("is not 1 to {MAX_WAITING}: what waits is in memory, and lost with the process");
                return Err(ConfigError::new(setting, records.to_string(), problem));
            }
        }
        Ok(())
    }

    /// How many entries wait in a lane when there is no room for one more. A flood consists of refusals, which leave most of
    /// their lane to strangers who are served.
    const fn room(&self, lane: Lane, refusal: bool) -> NonZeroUsize {
        match lane {
            Lane::Strangers if refusal => self.refusals,
            Lane::Strangers | Lane::Main => self.records,
        }
    }
}

impl State {
    const fn lane_mut(&mut self, lane: Lane) -> &mut Waiting {
        match lane {
            Lane::Main => &mut self.main,
            Lane::Strangers => &mut self.strangers,
        }
    }

    /// What is kept for requests under way is not counted: strangers keep some as well, and their number must not be the end of
    /// an admin's entry. So no more than twice the room is taken.
    const fn is_full(&self, lane: Lane, room: NonZeroUsize) -> bool {
        match lane {
            Lane::Main => self.main.unsettled >= room.get(),
            Lane::Strangers => self.strangers.unsettled >= room.get(),
        }
    }

    fn put(&mut self, lane: Lane, entry: AuditEntry) {
        self.accepted = self.accepted.saturating_add(1);
        let number = self.accepted;
        let waiting = self.lane_mut(lane);
        waiting.entries.push_back((number, entry));
        waiting.unsettled = waiting.unsettled.saturating_add(1);
    }

    const fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
        self.untold = self.untold.saturating_add(count);
    }

    fn waiting(&self) -> usize {
        self.main.entries.len().saturating_add(self.strangers.entries.len())
    }

    fn tell_repeats(&mut self, rules: &Rules) {
        let mut due = Vec::new();
        self.repeats.take(&mut due);
        self.tell(due, rules);
    }

    /// Bounded by the groups of a second, and those of many seconds by the room of their lane: a writer may stand still.
    fn tell(&mut self, due: Vec<AuditRepeats>, rules: &Rules) {
        for repeats in due {
            if self.dead || self.is_full(Lane::Strangers, rules.refusals) {
                self.lose(repeats.count());
            } else {
                self.put(Lane::Strangers, AuditEntry::Repeated(repeats));
            }
        }
    }

    const fn unsettled(&self) -> u64 {
        self.accepted.saturating_sub(self.settled)
    }
}
