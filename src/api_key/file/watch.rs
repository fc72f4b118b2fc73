use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::shared::Shared;

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How many looks there are between two writes of last uses.
const LOOKS: u32 = 60;

/// Says that the task is gone, when it goes.
pub(super) struct TaskMark(pub(super) Weak<Shared>);

impl Drop for TaskMark {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.unwatched(std::thread::panicking());
        }
    }
}

/// Looks at the file until the store is dropped, which ends it at once.
pub(super) async fn watch(mark: TaskMark, mut dropped: watch::Receiver<()>) {
    let mut looks = 0_u32;
    loop {
        if timeout(PERIOD, dropped.changed()).await.is_ok() {
            return;
        }
        looks = looks.wrapping_add(1);
        let Some(shared) = mark.0.upgrade() else { return };
        if looks.is_multiple_of(LOOKS) {
            // Not waited for: while another process holds the file's lock, the file is looked at all the same.
            let shared = Arc::clone(&shared);
            drop(tokio::task::spawn_blocking(move || shared.try_flush()));
        }
        // Fails if the runtime ends, which ends this task as well.
        let _ = tokio::task::spawn_blocking(move || shared.look()).await;
    }
}
