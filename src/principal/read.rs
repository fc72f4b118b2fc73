//! What handlers read the claims of a principal into.

use std::{
    any::{Any, TypeId},
    sync::{Arc, OnceLock},
};

/// The most types that the claims of one principal are kept in.
const MAX_TYPES: usize = 4;

/// The claims as types of handlers' own, each of them at most once: a list that only grows. It is no part of what a principal
/// is: it is never compared or shown, and a copy begins without.
#[derive(Default)]
pub(super) struct ReadClaims(OnceLock<Box<ReadAs>>);

struct ReadAs {
    kind: TypeId,
    claims: Arc<dyn Any + Send + Sync>,
    next: ReadClaims,
}

impl ReadClaims {
    pub(super) fn get_or_keep<T: Send + Sync + 'static, E>(
        &self,
        read: impl Fn() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut place = self;
        let mut fresh = None;
        for _ in 0..MAX_TYPES {
            if place.0.get().is_none() {
                let claims = match fresh {
                    Some(claims) => claims,
                    None => Arc::new(read()?),
                };
                fresh = Some(Arc::clone(&claims));
                // If another thread was faster, its entry is looked at below.
                let _ = place.0.set(Box::new(ReadAs { kind: TypeId::of::<T>(), claims, next: Self::default() }));
            }
            let Some(entry) = place.0.get() else { break };
            if entry.kind == TypeId::of::<T>()
                && let Ok(claims) = Arc::clone(&entry.claims).downcast()
            {
                return Ok(claims);
            }
            place = &entry.next;
        }
        fresh.map_or_else(|| read().map(Arc::new), Ok)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }
}

impl Clone for ReadClaims {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for ReadClaims {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ReadClaims {}
