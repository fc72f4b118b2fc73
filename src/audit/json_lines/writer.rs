//! The thread that writes.

use std::{io, sync::Arc, time::Duration};

use crate::{
    audit::{
        WhenFull,
        entry::{MAX_ENTRY_LEN, weight},
        json_lines::{Fsync, lines::Lines, target::Target},
        queue::{Batch, Filled, Queue},
    },
    clock::{Clock, Instants, SystemClock},
    log,
};

/// What a line needs at most, with its links.
const LINE: u64 = MAX_ENTRY_LEN as u64 + 512;
/// For so many records there is room before they are asked for.
const AHEAD: u64 = 2048;
const PAUSE: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Writer<T> {
    queue: Arc<Queue>,
    target: T,
    lines: Lines,
    fsync: Fsync,
    /// Since when something is written and not synchronised.
    unsynced: Option<Instants>,
    failed: log::Seldom,
    /// Whether the disk has no room for a single record.
    is_full: bool,
}

impl<T: Target> Writer<T> {
    pub(super) fn new(queue: Arc<Queue>, target: T, lines: Lines, fsync: Fsync) -> Self {
        Self { queue, target, lines, fsync, unsynced: None, failed: log::Seldom::new(), is_full: false }
    }

    pub(super) fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        let mut batch = Batch::of(&queue);
        loop {
            let filled = batch.fill(self.patience());
            let now = SystemClock.now();
            let last = filled == Filled::Closed;
            if !batch.is_empty() || (last && self.lines.has_end()) || self.lines.is_due(now) {
                let mut written = self.lines.write(batch.entries(), batch.gap(), now, last, &mut self.target);
                self.unsynced.get_or_insert(now);
                if (self.fsync == Fsync::Each || last)
                    && written.failure.is_none()
                    && let Err(error) = self.sync()
                {
                    // It is written, and nobody knows for how long.
                    written.failure = Some(error);
                    written.lost = weight(batch.entries());
                }
                if let Some(error) = &written.failure {
                    let text = format!("cannot write an audit record: {error}; the sink has the count");
                    self.failed.error(now, &text);
                }
                self.look_for_room();
                batch.settle(written.lost, written.failure.map(|error| error.kind()), written.told);
            } else {
                self.look_for_room();
            }
            if last {
                return batch.leave();
            }
            if self.is_full {
                // Every request asks again: not more often than this.
                std::thread::sleep(PAUSE);
            }
            if let (Fsync::Every(period), Some(since)) = (self.fsync, self.unsynced)
                && now.since(since) >= period
                && let Err(error) = self.sync()
            {
                self.failed.error(now, &format!("cannot force audit records to the disk: {error}"));
            }
        }
    }

    /// How long nothing may come before there is something else to do.
    fn patience(&self) -> Duration {
        match (self.fsync, self.unsynced) {
            (Fsync::Every(period), Some(_)) => period.clamp(Duration::from_millis(1), SECOND),
            _ => SECOND,
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.fsync != Fsync::Never {
            self.target.sync()?;
        }
        self.unsynced = None;
        Ok(())
    }

    /// Sees to it that the disk has room for the records of all requests that may be under way.
    pub(super) fn look_for_room(&mut self) {
        if self.queue.rules().when_full != WhenFull::Refuse {
            return;
        }
        let most = u64::try_from(self.queue.rules().records.get()).unwrap_or(u64::MAX);
        let wanted = self.queue.promised().saturating_mul(2).saturating_add(AHEAD).min(most);
        let headroom = match self.target.keep_room(wanted.saturating_mul(LINE)) {
            None => None,
            Some(true) => Some(wanted),
            // Less than for all of them: as many as there is room for, to the next half.
            Some(false) => {
                let mut entries = wanted / 2;
                while entries > 0 && self.target.keep_room(entries.saturating_mul(LINE)) != Some(true) {
                    entries /= 2;
                }
                Some(entries)
            }
        };
        self.is_full = headroom == Some(0);
        self.queue.set_headroom(headroom);
    }
}
