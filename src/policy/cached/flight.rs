//! One question to the policy for all who ask the same at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use foldhash::quality::RandomState;
use tokio::sync::OnceCell;

use super::Entry;

type Open = HashMap<Box<[u8]>, Weak<OnceCell<Entry>>, RandomState>;

/// All questions under way: as many as there are requests that wait, at most.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Open>);

impl Flights {
    /// Who comes first asks; if they go away before the answer, the next one asks again.
    pub(super) fn board(&self, key: &[u8]) -> Seat<'_> {
        let mut open = self.lock();
        let aboard = open.get(key).and_then(Weak::upgrade).filter(|cell| !cell.initialized());
        let cell = aboard.unwrap_or_else(|| {
            let cell = Arc::new(OnceCell::new());
            open.insert(key.into(), Arc::downgrade(&cell));
            cell
        });
        Seat { flights: self, key: key.into(), cell: Some(cell) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits. The last one to leave takes the flight away.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    flights: &'a Flights,
    key: Box<[u8]>,
    cell: Option<Arc<OnceCell<Entry>>>,
}

impl Seat<'_> {
    /// The answer, by whoever asks.
    pub(super) async fn landing<F: Future<Output = Entry>>(&self, ask: impl FnOnce() -> F) -> Entry {
        match &self.cell {
            Some(cell) => cell.get_or_init(ask).await.clone(),
            None => ask().await,
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut open = self.flights.lock();
        // Let go of under the lock, so that exactly one finds itself to be the last.
        let Some(cell) = self.cell.take() else { return };
        let own = open.get(&self.key).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&cell)));
        if own && Arc::strong_count(&cell) == 1 {
            open.remove(&self.key);
        }
        drop(cell);
        drop(open);
    }
}
