use std::{io, sync::PoisonError, time::Duration};

use super::{BATCH, Lane, Queue, State, Writer};
use crate::audit::{AuditEntry, entry::weight};

/// How long the writer waits for more entries before it writes few.
const LINGER: Duration = Duration::from_millis(2);
/// How often it looks in vain before it sleeps until it is woken.
const LOOKS: u32 = 25;
/// How long it sleeps while there is something to tell that nobody hands over: repeats, a gap that could not be written.
const RETRY: Duration = Duration::from_millis(250);

/// The writer's end of the queue. When it is dropped, also by a panic of the writer, what is unsettled is lost, unless it is
/// [left](Self::leave).
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    queue: Option<&'a Queue>,
    entries: Vec<AuditEntry>,
    /// How many of them are of which lane.
    of_main: usize,
    /// Entries that were lost before these.
    gap: u64,
}

/// What there is to do for a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There are entries, or a gap to tell of.
    Entries,
    /// Nothing came for a while.
    Nothing,
    /// Nothing will come any more. There may be a gap to tell of, once.
    Closed,
}

impl<'a> Batch<'a> {
    pub(crate) const fn of(queue: &'a Queue) -> Self {
        Self { queue: Some(queue), entries: Vec::new(), of_main: 0, gap: 0 }
    }

    /// Waits for entries, at most for about this long, and takes some.
    pub(crate) fn fill(&mut self, at_most: Duration) -> Filled {
        let Some(queue) = self.queue else { return Filled::Closed };
        let mut state = queue.lock();
        let (mut lingered, mut looks, mut slept) = (false, 0, false);
        loop {
            let repeats_due = state.repeats.due_in();
            // Whatever else is there, or keeps coming.
            if repeats_due == Some(Duration::ZERO) {
                state.tell_repeats(&queue.rules);
            }
            let waiting = state.waiting();
            let now = lingered || slept || state.hurry || state.closed || waiting >= BATCH || !queue.rules.lingers;
            if waiting > 0 && now {
                self.take(&mut state);
                return Filled::Entries;
            }
            if waiting == 0 && state.closed {
                self.take(&mut state);
                return Filled::Closed;
            }
            if waiting == 0 && (slept || std::mem::take(&mut state.look)) {
                let filled = if state.untold > 0 { Filled::Entries } else { Filled::Nothing };
                self.take(&mut state);
                return filled;
            }
            state.hurry = false;
            let lingers = waiting > 0 || (looks < LOOKS && queue.rules.lingers);
            let time = match lingers {
                true => LINGER,
                false if state.untold > 0 => at_most.min(RETRY),
                false => repeats_due.map_or(at_most, |due| at_most.min(due)),
            };
            state.writer = if lingers { Writer::Lingers } else { Writer::Sleeps };
            let (woken, timeout) = queue.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.writer = Writer::Works;
            match (lingers, timeout.timed_out()) {
                (true, _) if waiting > 0 => lingered = true,
                (true, _) => looks += 1,
                (false, true) => slept = true,
                (false, false) => {}
            }
        }
    }

    /// In the order in which they were accepted. By the run: who hands entries over waits meanwhile.
    fn take(&mut self, state: &mut State) {
        state.hurry = false;
        self.gap = std::mem::take(&mut state.untold);
        loop {
            let room = BATCH.saturating_sub(self.entries.len());
            let number = |lane: &super::Waiting| lane.entries.front().map_or(u64::MAX, |(number, _)| *number);
            let (main, strangers) = (number(&state.main), number(&state.strangers));
            let is_main = main <= strangers;
            let lane = state.lane_mut(if is_main { Lane::Main } else { Lane::Strangers });
            let run = lane.entries.partition_point(|(number, _)| *number < main.max(strangers)).min(room);
            if run == 0 {
                break;
            }
            self.of_main = self.of_main.saturating_add(if is_main { run } else { 0 });
            self.entries.extend(lane.entries.drain(..run).map(|(_, entry)| entry));
        }
    }

    /// Whether there is neither an entry nor a gap.
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.gap == 0
    }

    /// Lets the queue be: another batch may go on with it.
    pub(crate) fn leave(mut self) {
        self.queue = None;
    }

    pub(crate) fn entries(&self) -> &[AuditEntry] {
        &self.entries
    }

    /// How many entries were lost before these, and are told of with them.
    pub(crate) const fn gap(&self) -> u64 {
        self.gap
    }

    /// Hands the entries over to somebody else.
    pub(crate) fn take_entries(&mut self) -> Vec<AuditEntry> {
        let taken = std::mem::take(&mut self.entries);
        self.finish(taken.len(), 0, None, true, false);
        taken
    }

    /// The batch is done, but for this many entries. `told` says whether the gap is.
    pub(crate) fn settle(&mut self, lost: u64, failure: Option<io::ErrorKind>, told: bool) {
        let count = self.entries.len();
        self.entries.clear();
        self.finish(count, lost, failure, told, false);
    }

    fn finish(&mut self, count: usize, lost: u64, failure: Option<io::ErrorKind>, told: bool, dead: bool) {
        let (of_main, gap) = (std::mem::take(&mut self.of_main), std::mem::take(&mut self.gap));
        let Some(queue) = self.queue else { return };
        let flushes = {
            let mut state = queue.lock();
            state.dead |= dead;
            state.settled = state.settled.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            state.main.unsettled = state.main.unsettled.saturating_sub(of_main);
            state.strangers.unsettled = state.strangers.unsettled.saturating_sub(count.saturating_sub(of_main));
            state.lose(lost);
            if !told {
                state.untold = state.untold.saturating_add(gap);
            }
            state.failing = failure.is_some();
            if let Some(kind) = failure {
                state.failure = Some((state.settled, kind));
            }
            let settled = state.settled;
            let (due, later) = std::mem::take(&mut state.flushes).into_iter().partition(|(at, _)| *at <= settled);
            state.flushes = later;
            due
        };
        let flushes: Vec<(u64, std::task::Waker)> = flushes;
        queue.room.notify_all();
        flushes.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let Some(queue) = self.queue else { return };
        let (unsettled, lost) = {
            let mut state = queue.lock();
            // Nobody pushes from here on, so that the numbers hold.
            state.dead = true;
            let (main, strangers) =
                (std::mem::take(&mut state.main.entries), std::mem::take(&mut state.strangers.entries));
            let waiting = main.iter().chain(&strangers).map(|(_, entry)| entry);
            self.of_main = state.main.unsettled;
            (state.unsettled(), weight(waiting.chain(&self.entries)))
        };
        let failure = (unsettled > 0).then_some(io::ErrorKind::BrokenPipe);
        self.finish(usize::try_from(unsettled).unwrap_or(usize::MAX), lost, failure, true, true);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::audit::{
        WhenFull,
        queue::Rules,
        record::{sample, sample_of_alice},
    };

    #[test]
    fn both_lanes_come_in_the_order_in_which_they_were_accepted() {
        let many = NonZeroUsize::new(4 * BATCH).unwrap();
        let when_full = WhenFull::Discard;
        let queue =
            Queue::new(Rules { records: many, refusals: many, when_full, count_repeats: false, lingers: false });
        let is_strangers = |n: usize| n % 7 < 3 || (300..400).contains(&n);
        for n in 0..2 * BATCH {
            let make = if is_strangers(n) { sample } else { sample_of_alice };
            queue.push(make(&n.to_string()).into()).unwrap();
        }
        let mut batch = Batch::of(&queue);
        let mut taken = Vec::new();
        for _ in 0..2 {
            assert_eq!(batch.fill(Duration::ZERO), Filled::Entries);
            assert_eq!(batch.of_main, batch.entries.iter().filter(|entry| !entry.is_of_stranger()).count());
            taken.extend(batch.take_entries().iter().map(|entry| entry.decided().unwrap().path().into_owned()));
        }
        batch.leave();
        assert_eq!(taken, (0..2 * BATCH).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
