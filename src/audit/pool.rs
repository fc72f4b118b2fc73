//! Records that were written are used again, so that a request whose record goes into a queue allocates nothing for it.
//!
//! Each thread has a few at hand; between threads they go by the batch, so that the lock is taken once in a while.

use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
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

/// Takes facts back, unless somebody else still has them.
pub(crate) fn give_back(facts: Arc<Facts>) {
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
        give_back(facts);
        let again = take();
        assert_eq!((again.path.as_str(), again.status), ("", None));
        assert_eq!(Arc::as_ptr(&again.shareable()), address);
    }

    #[test]
    fn what_somebody_still_has_stays_as_it_is() {
        let mut facts = take();
        facts.status = Some(200);
        let facts = facts.shareable();
        give_back(facts.clone());
        assert_eq!(facts.status, Some(200));
    }

    #[test]
    fn batches_go_from_thread_to_thread() {
        let written: Vec<_> = (0..4 * BATCH).map(|_| take().shareable()).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| written.into_iter().for_each(give_back));
        });
        assert!(!SHELF.lock().unwrap().is_empty() || !AT_HAND.with(|at_hand| at_hand.borrow().is_empty()));
    }
}
