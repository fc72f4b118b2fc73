//! Tasks that look at files again and again: whether they can, and whether one still does.

use std::panic::catch_unwind;
#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
use crate::log;

/// Whether the runtime that this is called in has a timer, without which a task that waits panics. Nothing else tells.
pub(crate) fn has_timer() -> bool {
    catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// Whether somebody looks, on the side of whoever is looked after.
#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    tasks: Arc<Mutex<Tasks>>,
}

#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
#[derive(Debug, Default)]
struct Tasks {
    running: usize,
    /// Whether one ended and none is left.
    ended: bool,
}

#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
impl Lookout {
    /// One more task looks, for as long as it holds the mark.
    pub(crate) fn begin(&self, what: String) -> TaskMark {
        let mut tasks = lock(&self.tasks);
        tasks.running = tasks.running.saturating_add(1);
        tasks.ended = false;
        TaskMark { tasks: Arc::downgrade(&self.tasks), what }
    }

    /// Why what is newer is not seen, if somebody looked and nobody does any more.
    pub(crate) fn ended(&self) -> Option<&'static str> {
        lock(&self.tasks).ended.then_some("nobody looks at the files any more: the runtime of the task is gone")
    }
}

/// Says that the task is gone, however it ends; unless it has nothing to look after any more.
#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
#[derive(Debug)]
pub(crate) struct TaskMark {
    tasks: Weak<Mutex<Tasks>>,
    what: String,
}

#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
impl Drop for TaskMark {
    fn drop(&mut self) {
        let Some(tasks) = self.tasks.upgrade() else { return };
        let mut tasks = lock(&tasks);
        tasks.running = tasks.running.saturating_sub(1);
        tasks.ended = tasks.running == 0;
        let ended = tasks.ended;
        drop(tasks);
        if ended {
            log::warn(&format!("{}: nobody looks at the files any more: the runtime of the task is gone", self.what));
        }
    }
}

#[cfg(any(feature = "policy-files", feature = "tls-listener"))]
fn lock(tasks: &Mutex<Tasks>) -> MutexGuard<'_, Tasks> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}
