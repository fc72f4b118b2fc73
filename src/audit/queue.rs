//! The bounded queue between the requests and one writer thread.
//!
//! Positions, not messages, tell what is delivered: the n-th record accepted is settled once the writer is done with n
//! records. So a flush needs no place in a full queue, and waits without a runtime.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use crate::audit::{AuditRecord, Lost};

/// The most records that the writer takes at once.
const BATCH: usize = 256;

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// There are records for the writer, or no more will come.
    work: Condvar,
    /// There is room for records, or there is no writer.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<AuditRecord>,
    /// Records ever accepted.
    accepted: u64,
    /// Records that the writer is done with.
    settled: u64,
    /// The position up to which a flush has told of failures.
    told: u64,
    /// The last position of a batch that failed, and how.
    failure: Option<(u64, io::ErrorKind)>,
    lost: u64,
    flushes: Vec<Waker>,
    writer_sleeps: bool,
    closed: bool,
    dead: bool,
}

/// What a flush waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    from: u64,
    to: u64,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), room: Condvar::new() }
    }

    /// Takes a record in; if `capacity` records wait already, waits for room or loses it.
    pub(crate) fn push(&self, record: AuditRecord, capacity: NonZeroUsize, wait: bool) -> Result<(), Lost> {
        let capacity = u64::try_from(capacity.get()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        while !state.dead && wait && state.unsettled() >= capacity {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.dead || state.unsettled() >= capacity {
            state.lost = state.lost.saturating_add(1);
            return Err(Lost);
        }
        state.records.push_back(record);
        state.accepted = state.accepted.saturating_add(1);
        // A wake-up is a system call: not while the writer is busy anyway.
        if std::mem::take(&mut state.writer_sleeps) {
            self.work.notify_one();
        }
        Ok(())
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lock().lost
    }

    pub(crate) fn mark(&self) -> Mark {
        let state = self.lock();
        Mark { from: state.told, to: state.accepted }
    }

    /// Once everything up to the mark is settled: how it failed, if some of it did. Until then keeps the waker.
    pub(crate) fn settled(&self, mark: Mark, waker: &Waker) -> Option<Option<io::ErrorKind>> {
        let mut state = self.lock();
        if state.settled < mark.to {
            if !state.flushes.iter().any(|kept| kept.will_wake(waker)) {
                state.flushes.push(waker.clone());
            }
            return None;
        }
        state.told = state.told.max(mark.to);
        Some(state.failure.filter(|(at, _)| *at > mark.from).map(|(_, kind)| kind))
    }

    /// No more records will come; the writer finishes.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn unsettled(&self) -> u64 {
        self.accepted.saturating_sub(self.settled)
    }
}

/// The writer's end of the queue. When it is dropped, also by a panic of the writer, what is unsettled is lost.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    queue: &'a Queue,
    records: Vec<AuditRecord>,
}

impl<'a> Batch<'a> {
    pub(crate) const fn of(queue: &'a Queue) -> Self {
        Self { queue, records: Vec::new() }
    }

    /// Waits for records and takes some; false once the queue is closed and empty.
    pub(crate) fn fill(&mut self) -> bool {
        let mut state = self.queue.lock();
        while state.records.is_empty() {
            if state.closed {
                return false;
            }
            state.writer_sleeps = true;
            state = self.queue.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer_sleeps = false;
        let count = state.records.len().min(BATCH);
        self.records.extend(state.records.drain(..count));
        true
    }

    pub(crate) fn records(&self) -> &[AuditRecord] {
        &self.records
    }

    /// The batch is done, but for this many records.
    pub(crate) fn settle(&mut self, lost: u64, failure: Option<io::ErrorKind>) {
        let count = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        self.records.clear();
        self.advance(count, lost, failure, false);
    }

    fn advance(&self, settled: u64, lost: u64, failure: Option<io::ErrorKind>, dead: bool) {
        let flushes = {
            let mut state = self.queue.lock();
            state.dead = dead;
            state.settled = state.settled.saturating_add(settled);
            state.lost = state.lost.saturating_add(lost);
            if let Some(kind) = failure {
                state.failure = Some((state.settled, kind));
            }
            std::mem::take(&mut state.flushes)
        };
        self.queue.room.notify_all();
        for waker in flushes {
            waker.wake();
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let unsettled = {
            let mut state = self.queue.lock();
            // Nobody pushes from here on, so that the number holds.
            state.dead = true;
            state.records.clear();
            state.unsettled()
        };
        let failure = (unsettled > 0).then_some(io::ErrorKind::BrokenPipe);
        self.advance(unsettled, unsettled, failure, true);
    }
}
