//! Room that is kept for the records of requests under way.

use std::{future::poll_fn, sync::Arc, task::Poll};

use super::{Lane, Mark, Queue};
use crate::audit::{AuditEntry, Lost, Receipt, Room, WhenFull};

/// Room for one entry.
#[derive(Debug)]
struct Place(Arc<Queue>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reserved = state.reserved.saturating_sub(1);
    }
}

impl Queue {
    /// Keeps room for a record, where requests are refused without.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Option<Room>, Lost> {
        if self.rules.when_full != WhenFull::Refuse {
            return Ok(None);
        }
        let mut state = self.lock();
        let promised = state.main.unsettled.saturating_add(state.strangers.unsettled).saturating_add(state.reserved);
        let on_disk = state.headroom.is_none_or(|room| u64::try_from(promised).unwrap_or(u64::MAX) < room);
        // Whose the request is, and so its lane, is not known yet.
        let fuller = state.main.unsettled.max(state.strangers.unsettled);
        let full = fuller.saturating_add(state.reserved) >= self.rules.records.get();
        if state.dead || state.failing || !on_disk || full {
            // What the disk has room for may have changed: the writer looks again.
            state.look = true;
            self.wake(&mut state, false);
            state.lose(1);
            return Err(Lost);
        }
        state.reserved = state.reserved.saturating_add(1);
        drop(state);
        Ok(Some(Room::new(Place(Arc::clone(self)))))
    }

    /// Takes in what room was kept for. The receipt is there when the writer is done with it.
    pub(crate) fn push_reserved(self: &Arc<Self>, entry: AuditEntry, room: Room) -> Receipt {
        let lane = Lane::of(&entry);
        let to = {
            let mut state = self.lock();
            if state.dead {
                state.lose(entry.weight());
                return Receipt::done();
            }
            if lane == Lane::Strangers && self.counts(&mut state, &entry) {
                return Receipt::done();
            }
            state.put(lane, entry);
            let to = state.accepted;
            self.wake(&mut state, true);
            to
        };
        drop(room);
        let (queue, mark) = (Arc::clone(self), Mark { from: to, to });
        Receipt::when(poll_fn(move |cx| match queue.is_settled(mark, cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }

    /// As [`settled`](Self::settled), without telling of failures: a flush does.
    fn is_settled(&self, mark: Mark, waker: &std::task::Waker) -> bool {
        let mut state = self.lock();
        if state.settled < mark.to {
            state.flushes.push((mark.to, waker.clone()));
            return false;
        }
        true
    }

    /// Says for how many entries, beyond those that it is done with, the disk has room.
    pub(crate) fn set_headroom(&self, entries: Option<u64>) {
        self.lock().headroom = entries;
    }

    /// Entries that may come: those that wait, and those that room is kept for.
    pub(crate) fn promised(&self) -> u64 {
        let state = self.lock();
        let reserved = u64::try_from(state.reserved).unwrap_or(u64::MAX);
        state.unsettled().saturating_add(reserved)
    }
}
