//! One question for all who ask the same at the same time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use foldhash::quality::RandomState;
use tokio::sync::OnceCell;

type Open<K, T> = HashMap<K, Weak<OnceCell<T>>, RandomState>;

/// All questions under way: as many as there are requests that wait, at most.
#[derive(Debug)]
pub(crate) struct Flights<K, T>(Mutex<Open<K, T>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T: Clone> Flights<K, T> {
    /// Who comes first asks; if they go away before the answer, the next one asks again.
    pub(crate) fn board(&self, key: K) -> Seat<'_, K, T> {
        let mut open = self.lock();
        let aboard = open.get(&key).and_then(Weak::upgrade).filter(|cell| !cell.initialized());
        let cell = aboard.unwrap_or_else(|| {
            let cell = Arc::new(OnceCell::new());
            open.insert(key.clone(), Arc::downgrade(&cell));
            cell
        });
        Seat { flights: self, key, cell: Some(cell) }
    }
}

impl<K, T> Flights<K, T> {
    fn lock(&self) -> MutexGuard<'_, Open<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits. The last one to leave takes the flight away.
#[derive(Debug)]
pub(crate) struct Seat<'a, K: Eq + Hash, T> {
    flights: &'a Flights<K, T>,
    key: K,
    cell: Option<Arc<OnceCell<T>>>,
}

impl<K: Eq + Hash, T: Clone> Seat<'_, K, T> {
    /// The answer, by whoever asks.
    pub(crate) async fn landing<F: Future<Output = T>>(&self, ask: impl FnOnce() -> F) -> T {
        match &self.cell {
            Some(cell) => cell.get_or_init(ask).await.clone(),
            None => ask().await,
        }
    }
}

impl<K: Eq + Hash, T> Drop for Seat<'_, K, T> {
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
