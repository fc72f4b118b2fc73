//! The task that finds out what others change.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::{runtime::Handle, task::JoinSet};

use crate::api_key::{ChangeFeed, KeyChange};

/// One task at a time. It ends with the runtime that it runs in: whoever uses the store in another one begins it again there.
pub(super) struct Watcher {
    feed: Arc<ChangeFeed>,
    runs: Arc<AtomicBool>,
    /// Aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl Watcher {
    pub(super) fn new(feed: Arc<ChangeFeed>) -> Self {
        Self { feed, runs: Arc::default(), tasks: Mutex::default() }
    }

    /// Begins the task unless it runs, or there is no runtime for it.
    pub(super) fn begin<F>(&self, task: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.runs.load(SeqCst) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if self.runs.swap(true, SeqCst) {
            return;
        }
        let mark = Mark { feed: Arc::clone(&self.feed), runs: Arc::clone(&self.runs) };
        let task = task();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        *tasks = JoinSet::new();
        tasks.spawn_on(
            async move {
                let _mark = mark;
                task.await;
            },
            &runtime,
        );
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("runs", &self.runs).finish_non_exhaustive()
    }
}

/// Tells that nobody looks any more, however the task ends.
struct Mark {
    feed: Arc<ChangeFeed>,
    runs: Arc<AtomicBool>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        // First told, then begun anew: what the next one tells comes after.
        self.feed.publish(&KeyChange::Lost);
        self.runs.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn a_task_that_is_gone_is_told_and_begins_again_elsewhere() {
        let feed = Arc::new(ChangeFeed::new());
        let watcher = Watcher::new(Arc::clone(&feed));
        let begun = Arc::new(Mutex::new(0));
        let begin = || {
            watcher.begin(|| {
                *begun.lock().unwrap() += 1;
                std::future::pending()
            });
        };
        begin();
        assert_eq!(*begun.lock().unwrap(), 0, "there is no runtime");
        let first = runtime();
        first.block_on(async { (begin(), begin()) });
        assert_eq!((*begun.lock().unwrap(), feed.is_lost()), (1, false));
        drop(first); // it was never polled
        assert!(feed.is_lost());
        let second = runtime();
        second.block_on(async {
            begin();
            tokio::task::yield_now().await;
        });
        assert_eq!(*begun.lock().unwrap(), 2);
        feed.publish(&KeyChange::Everything);
        drop(second);
        assert!(feed.is_lost());
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_too() {
        let feed = Arc::new(ChangeFeed::new());
        let watcher = Watcher::new(Arc::clone(&feed));
        watcher.begin(|| async { panic!("a bug") });
        while watcher.runs.load(SeqCst) {
            tokio::task::yield_now().await;
        }
        assert!(feed.is_lost());
    }
}
