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
const SHORTEST: Duration = Duration::from_millis(1);

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
    /// Whether what came last could not be written.
    has_failed: bool,
}

impl<T: Target> Writer<T> {
    pub(super) fn new(queue: Arc<Queue>, target: T, lines: Lines, fsync: Fsync) -> Self {
        let failed = log::Seldom::new();
        Self { queue, target, lines, fsync, unsynced: None, failed, is_full: false, has_failed: false }
    }

    pub(super) fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        let mut batch = Batch::of(&queue);
        loop {
            let filled = batch.fill(self.patience(SystemClock.now()));
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
                self.has_failed = written.failure.is_some();
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
    fn patience(&self, now: Instants) -> Duration {
        let period = match (self.fsync, self.unsynced) {
            (Fsync::Every(period), Some(_)) => period,
            _ => SECOND,
        };
        // What could not be written is due all the time, and tried once a second.
        let due = if self.has_failed { None } else { self.lines.due_in(now) };
        due.unwrap_or(SECOND).min(period).clamp(SHORTEST, SECOND)
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

#[cfg(all(test, feature = "audit-chain"))]
mod tests {
    use super::*;
    use crate::audit::{
        JsonLines,
        chain::{Chain, ChainKey},
        json_lines::target::Plain,
        record::sample,
    };

    #[test]
    fn the_writer_waits_no_longer_than_until_a_checkpoint_is_due() {
        let millis = Duration::from_millis;
        for (name, fsync, every, waits) in [
            ("soon", Fsync::Never, 100, [1_000, 100, 60, 1, 1, 1_000]),
            ("later", Fsync::Each, 10_000, [1_000, 1_000, 1_000, 1_000, 1_000, 1_000]),
            ("after the disk", Fsync::Every(millis(50)), 100, [1_000, 50, 50, 1, 1, 50]),
        ] {
            let chain = Chain::new(ChainKey::generate().unwrap()).checkpoint_every(1_000, millis(every)).unwrap();
            let target = Plain(Vec::new());
            let lines = Lines::new(0).chained(Some(chain), &target).unwrap();
            let queue = Arc::new(Queue::new(JsonLines::builder().rules));
            let mut writer = Writer::new(queue, target, lines, fsync);
            let at = |time: u64| Instants::new(0, 0).later(millis(time));
            let before = writer.patience(at(0));
            let written = writer.lines.write(&[sample("/").into()], 0, at(0), false, &mut writer.target);
            assert!(written.failure.is_none(), "{name}");
            writer.unsynced = Some(at(0));
            let mut waited = [before; 6];
            waited[1..5].copy_from_slice(&[0, 40, 100, 5_000].map(|time| writer.patience(at(time))));
            writer.has_failed = true;
            waited[5] = writer.patience(at(5_000));
            assert_eq!(waited, waits.map(millis), "{name}");
        }
    }
}
