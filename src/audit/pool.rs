//! Records that were written are used again, so that a request whose record goes into a queue allocates nothing for it.
//!
//! Each thread has a few at hand; between threads they go by the batch, so that the lock is taken once in a while.

use std::{
    cell::RefCell,
    ops::Deref,
    sync::{Mutex, OnceLock, PoisonError},
};

use triomphe::{Arc, UniqueArc};

use crate::audit::record::Facts;

type Spare = Vec<UniqueArc<Facts>>;

/// How many go between threads at once.
const BATCH: usize = 64;
/// The most batches that lie around for all threads: what a full queue had.
const MAX_BATCHES: usize = 160;

static SHELF: Mutex<Vec<Spare>> = Mutex::new(Vec::new());

thread_local!(static AT_HAND: RefCell<Spare> = const { RefCell::new(Vec::new()) });

/// Empty facts.
pub(crate) fn take() -> UniqueArc<Facts> {
    let spare = AT_HAND.try_with(|at_hand| {
        let mut at_hand = at_hand.try_borrow_mut().ok()?;
        if at_hand.is_empty()
            && let Some(batch) = SHELF.lock().unwrap_or_else(PoisonError::into_inner).pop()
        {
            *at_hand = batch;
        }
        at_hand.pop()
    });
    spare.ok().flatten().unwrap_or_else(|| UniqueArc::new(Facts::default()))
}

/// The facts of a record. The last of its clones gives them back.
#[derive(Clone)]
pub(crate) struct Pooled(Option<Arc<Facts>>);

impl Pooled {
    pub(crate) const fn new(facts: Arc<Facts>) -> Self {
        Self(Some(facts))
    }
}

impl Deref for Pooled {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        static NOTHING: OnceLock<Facts> = OnceLock::new();
        // They are only missing once the record is gone.
        self.0.as_deref().unwrap_or_else(|| NOTHING.get_or_init(Facts::default))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(facts) = self.0.take() {
            give_back(facts);
        }
    }
}

/// Takes facts back, unless somebody else still has them.
fn give_back(facts: Arc<Facts>) {
    let Ok(mut facts) = Arc::try_unique(facts) else { return };
    facts.clear();
    let _ = AT_HAND.try_with(|at_hand| {
        let Ok(mut at_hand) = at_hand.try_borrow_mut() else { return };
        at_hand.push(facts);
        // Who gives back more than it takes, a writer, hands them on.
        if at_hand.len() >= 2 * BATCH {
            let batch = at_hand.split_off(BATCH);
            let mut shelf = SHELF.lock().unwrap_or_else(PoisonError::into_inner);
            if shelf.len() < MAX_BATCHES {
                shelf.push(batch);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_and_empty() {
        let mut facts = take();
        facts.path.push_str("/orders");
        facts.status = Some(200);
        let facts = facts.shareable();
        let address = Arc::as_ptr(&facts);
        drop(Pooled::new(facts));
        let again = take();
        assert_eq!((again.path.as_str(), again.status), ("", None));
        assert_eq!(Arc::as_ptr(&again.shareable()), address);
    }

    #[test]
    fn what_somebody_still_has_stays_as_it_is() {
        let mut facts = take();
        facts.status = Some(200);
        let facts = facts.shareable();
        let (one, other) = (Pooled::new(facts.clone()), Pooled::new(facts));
        drop(one);
        assert_eq!(other.status, Some(200));
    }

    #[test]
    fn batches_go_from_thread_to_thread() {
        let written: Vec<_> = (0..4 * BATCH).map(|_| Pooled::new(take().shareable())).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(written));
        });
        assert!(!SHELF.lock().unwrap().is_empty() || !AT_HAND.with(|at_hand| at_hand.borrow().is_empty()));
    }
}
