use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
};

use triomphe::{Arc, UniqueArc};

use super::Envelope;

/// The most empty envelopes that a thread keeps: of more requests than that, few are under way at once.
const MAX_SPARE: usize = 64;

thread_local!(static SPARE: RefCell<Vec<UniqueArc<Mutex<Envelope>>>> = const { RefCell::new(Vec::new()) });

/// Somebody's hold of an envelope. With the last of them the envelope is emptied, and another request's: a request allocates none.
#[derive(Clone)]
pub(super) struct Held {
    /// Without weak references, so that whether it is shared is told by looking. None only while this is dropped.
    envelope: Option<Arc<Mutex<Envelope>>>,
}

impl Held {
    pub(super) fn empty() -> Self {
        let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok()?.pop()).ok().flatten();
        Self { envelope: Some(spare.unwrap_or_else(|| UniqueArc::new(Mutex::default())).shareable()) }
    }

    #[cfg(feature = "audit")]
    pub(super) fn is_shared(&self) -> bool {
        self.envelope.as_ref().is_some_and(|envelope| !envelope.is_unique())
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Envelope) -> T) -> T {
        match &self.envelope {
            Some(envelope) => change(&mut envelope.lock().unwrap_or_else(PoisonError::into_inner)),
            None => change(&mut Envelope::default()),
        }
    }

    /// Without a lock where nobody else has it.
    pub(super) fn with_mut<T>(&mut self, change: impl FnOnce(&mut Envelope) -> T) -> T {
        match self.envelope.as_mut().and_then(Arc::get_mut) {
            Some(envelope) => change(envelope.get_mut().unwrap_or_else(PoisonError::into_inner)),
            None => self.with(change),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(envelope) = self.envelope.take() else { return };
        // Whoever still has it empties it.
        let Ok(mut envelope) = Arc::try_unique(envelope) else { return };
        // A poisoned one is left to the allocator.
        let Ok(inside) = envelope.get_mut() else { return };
        // As a whole, so that no field of it is ever forgotten; and before the list is touched, since what is in it may be the
        // user's own.
        *inside = Envelope::default();
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < MAX_SPARE
            {
                spare.push(envelope);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Principal, PrincipalKind};

    fn spare() -> usize {
        SPARE.with(|spare| spare.borrow().len())
    }

    #[test]
    fn the_next_request_finds_nothing_of_the_last() {
        let mut first = Held::empty();
        first.with_mut(|envelope| {
            envelope.subject = Some(Principal::builder(PrincipalKind::User, "idp", "alice", "test").build());
            envelope.trail.note("secret", "of alice");
        });
        let other = first.clone();
        drop(first);
        assert_eq!(spare(), 0, "somebody still has it");
        assert!(other.with(|envelope| envelope.subject.is_some()));
        drop(other);
        assert_eq!(spare(), 1);
        let next = Held::empty();
        assert_eq!(spare(), 0, "it is used again");
        next.with(|envelope| {
            assert!(envelope.subject.is_none() && envelope.trail.rare().notes.is_empty());
            assert_eq!(format!("{envelope:?}"), format!("{:?}", Envelope::default()));
        });
    }

    #[test]
    fn a_thread_keeps_so_many_and_no_poisoned_one() {
        let many: Vec<_> = (0..=MAX_SPARE).map(|_| Held::empty()).collect();
        drop(many);
        assert_eq!(spare(), MAX_SPARE);
        let poisoned = Held::empty();
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poisoned.with(|_| panic!("poisons it"))));
        assert!(panicked.is_err());
        drop(poisoned);
        assert_eq!(spare(), MAX_SPARE - 1);
    }
}
