use std::{
    sync::{Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{Begin, Cycle, MAX_LIFE};

/// Says that the task of a cycle is gone, when it goes.
pub(super) struct TaskMark(pub(super) Weak<Cycle>);

impl Drop for TaskMark {
    fn drop(&mut self) {
        if let Some(cycle) = self.0.upgrade() {
            cycle.has_task.store(false, Ordering::Relaxed);
        }
    }
}

/// Refreshes until the cycle is dropped.
pub(super) async fn keep(mark: TaskMark) {
    loop {
        let Some(cycle) = mark.0.upgrade() else { return };
        let mut flights = cycle.flights.subscribe();
        let now = cycle.clock.now();
        let wait = match cycle.due.load(Ordering::Relaxed) {
            due if due <= now.monotonic_nanos() => {
                if let Begin::Start(flight, _) = cycle.begin(None, u64::MAX, now) {
                    drop(cycle);
                    flight.fly().await;
                }
                continue;
            }
            // Under way: the end wakes the task.
            u64::MAX => MAX_LIFE,
            due => Duration::from_nanos(due - now.monotonic_nanos()),
        };
        drop(cycle);
        // Wakes when it is due, when a flight is over, and when the cycle is dropped.
        if matches!(timeout(wait, flights.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}
