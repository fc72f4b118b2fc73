use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::shared::Shared;
use crate::lookout::has_timer;

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How many looks there are between two writes of last uses.
const LOOKS: u32 = 60;

/// Says that the task is gone, when it goes.
pub(super) struct TaskMark {
    shared: Weak<Shared>,
    /// Whether another one in this runtime would fare no better. That a thread panics as this goes tells nothing: its runtime may
    /// go with it.
    is_blind: bool,
}

impl TaskMark {
    pub(super) const fn new(shared: Weak<Shared>) -> Self {
        Self { shared, is_blind: false }
    }
}

impl Drop for TaskMark {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.unwatched(self.is_blind);
        }
    }
}

/// Looks at the file until the store is dropped, which ends it at once.
pub(super) async fn watch(mut mark: TaskMark, mut dropped: watch::Receiver<()>) {
    if !has_timer() {
        mark.is_blind = true;
        return;
    }
    let mut looks = 0_u32;
    loop {
        if timeout(PERIOD, dropped.changed()).await.is_ok() {
            return;
        }
        looks = looks.wrapping_add(1);
        let Some(shared) = mark.shared.upgrade() else { return };
        if looks.is_multiple_of(LOOKS) {
            // Not waited for: while another process holds the file's lock, the file is looked at all the same.
            let shared = Arc::clone(&shared);
            drop(tokio::task::spawn_blocking(move || shared.try_flush()));
        }
        // Fails if the runtime ends, which ends this task as well.
        let _ = tokio::task::spawn_blocking(move || shared.look()).await;
    }
}
