mod clock_watch;
mod file;
mod lines;
mod lock;
mod rotated;
mod target;
mod writer;

use std::{
    fmt,
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;

#[cfg(feature = "audit-chain")]
use crate::audit::chain::Chain;
use crate::{
    audit::{
        AuditEntry, AuditSink, Lost, Receipt, Room, WhenFull, channel,
        json_lines::{
            file::TargetFile,
            lines::Lines,
            target::{Plain, Target},
        },
        queue::{Queue, Rules},
    },
    error::{ConfigError, StoreError},
};

#[cfg(feature = "audit-chain")]
pub(crate) use lines::{End, Line};

const BACKEND: &str = "json_lines";

/// When what was written is forced to the disk (`fdatasync`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: never, now and then, always")]
pub enum Fsync {
    /// The operating system decides. A crash of the machine loses what it held; a crash of the process does not.
    #[default]
    Never,
    /// At most so long after it was written.
    Every(Duration),
    /// Before it counts as delivered. Entries that wait together share one.
    Each,
}

/// Writes one JSON object a line to a file, from a thread of its own.
///
/// At most 10 000 records wait for the writer, and as many of requests without an identity, which have a lane of their own; 2 000
/// of those may be refusals, which are counted by source and second ([`JsonLinesBuilder`] has these and all other settings). An
/// entry that cannot be written is counted as lost and said in the log, at most once a minute; as soon as something can be written again, a `gap` tells
/// how many are missing. Entries are handed to the operating system within a few milliseconds, in batches under load.
///
/// If the file is renamed or removed, a new one is begun. If it ends in the middle of a line, because somebody died while
/// writing, that is left alone, and a `gap` tells of it.
///
/// Dropping it writes what is queued, and waits for that, at most for the
/// [time at the end](JsonLinesBuilder::shutdown_within); so does [`flush`](AuditSink::flush) without dropping it.
///
/// ```no_run
/// use std::sync::Arc;
/// use portcullis::audit::{AuditLayer, AuditSink, JsonLines};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let sink = Arc::new(JsonLines::open("audit.jsonl")?);
/// let audit = AuditLayer::new(Arc::clone(&sink));
/// // serve ..
/// sink.flush().await?;
/// # let _ = audit;
/// # Ok(())
/// # }
/// ```
pub struct JsonLines {
    queue: Arc<Queue>,
    shutdown: Duration,
    writer: Option<JoinHandle<()>>,
}

/// The settings of [`JsonLines`].
///
/// ```no_run
/// use std::time::Duration;
/// use portcullis::audit::{Fsync, JsonLines, WhenFull};
///
/// # fn example() -> Result<(), portcullis::ConfigError> {
/// let sink = JsonLines::builder()
///     .rotate_at_size(256 << 20)
///     .rotate_every(Duration::from_secs(24 * 60 * 60))
///     .keep_for(Duration::from_secs(90 * 24 * 60 * 60))
///     .fsync(Fsync::Each)
///     .when_full(WhenFull::Refuse) // no request without its record
///     .open("/var/log/orders/audit.jsonl")?;
/// # let _ = sink;
/// # Ok(())
/// # }
/// ```
///
/// | setting | default |
/// |---|---|
/// | records that wait | 10 000 |
/// | records of requests without an identity that wait | as many |
/// | refusals before authentication among them | 2 000 |
/// | without room | [waits](WhenFull::Wait), at most for one second; not for requests without an identity |
/// | repeated refusals | counted |
/// | rotation | none |
/// | fsync | [`Never`](Fsync::Never) |
/// | time at the end | 5 s |
#[must_use]
#[derive(Debug)]
pub struct JsonLinesBuilder {
    rules: Rules,
    pub(super) rotation: Rotation,
    pub(super) fsync: Fsync,
    shutdown: Duration,
    #[cfg(feature = "audit-chain")]
    chain: Option<Chain>,
}

/// When a file is closed and another one begun, and which are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rotation {
    pub(crate) size: Option<u64>,
    pub(crate) every: Option<Duration>,
    pub(crate) keep_files: Option<usize>,
    pub(crate) keep_for: Option<Duration>,
}

impl JsonLines {
    /// The most records that wait for the writer, unless said otherwise.
    pub const CAPACITY: NonZeroUsize = match NonZeroUsize::new(10_000) {
        Some(records) => records,
        None => NonZeroUsize::MIN,
    };

    /// Starts the settings.
    pub fn builder() -> JsonLinesBuilder {
        JsonLinesBuilder {
            rules: Rules {
                records: Self::CAPACITY,
                refusals: NonZeroUsize::MIN.saturating_add(1_999),
                when_full: WhenFull::DEFAULT,
                count_repeats: true,
                lingers: true,
            },
            rotation: Rotation::default(),
            fsync: Fsync::Never,
            shutdown: Duration::from_secs(5),
            #[cfg(feature = "audit-chain")]
            chain: None,
        }
    }

    /// Appends to this file, with the default settings. See [`JsonLinesBuilder::open`].
    ///
    /// # Errors
    /// As [`JsonLinesBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::builder().open(path)
    }
}

impl JsonLinesBuilder {
    /// Sets how many records may wait for the writer, and how many of requests without an identity. Default 10 000, at
    /// most a million: a record takes about a kilobyte, and a few dozen at most, and what waits is lost with the process.
    pub const fn capacity(mut self, records: NonZeroUsize) -> Self {
        self.rules.records = records;
        self
    }

    /// Sets how many refusals before authentication may wait for the writer, in the lane of requests without an identity. Default
    /// 2 000, at most a million.
    pub const fn refusal_capacity(mut self, refusals: NonZeroUsize) -> Self {
        self.rules.refusals = refusals;
        self
    }

    /// Sets what happens without room. Default: it [waits](WhenFull::Wait), at most for one second.
    pub const fn when_full(mut self, when_full: WhenFull) -> Self {
        self.rules.when_full = when_full;
        self
    }

    /// Writes each refusal before authentication by itself, also those that are like another of the same second. Whoever floods
    /// the service then fills the disk.
    pub const fn dangerous_keep_repeats(mut self) -> Self {
        self.rules.count_repeats = false;
        self
    }

    /// Begins a new file before this one would have more bytes. The old one is renamed to its name and the time (UTC):
    /// `audit.jsonl.20270115T080000.000000000`, so that the names sort as the files follow each other. At least one
    /// byte. Default: never.
    pub const fn rotate_at_size(mut self, bytes: u64) -> Self {
        self.rotation.size = Some(bytes);
        self
    }

    /// Begins a new file when the time since the Unix epoch is a multiple of this: 24 hours means at midnight UTC. Not zero.
    /// Default: never.
    pub const fn rotate_every(mut self, period: Duration) -> Self {
        self.rotation.every = Some(period);
        self
    }

    /// Keeps so many rotated files, and removes older ones, whatever their age: a bound on the disk, and no time. Default: all.
    ///
    /// # Security
    /// With [`rotate_at_size`](Self::rotate_at_size) whoever sends enough requests to a public route has the files removed that tell of
    /// others. Say how long with [`keep_for`](Self::keep_for), and let the disk have the room, or collect the files elsewhere.
    pub const fn keep_files(mut self, files: usize) -> Self {
        self.rotation.keep_files = Some(files);
        self
    }

    /// Removes rotated files when so much time passed since they were closed; not for the day after the clock was seen to be set ahead by
    /// more than an hour, nor after a start that finds the last record a week old, as where a machine comes up with a wrong
    /// clock; the log says both. Default: never.
    pub const fn keep_for(mut self, time: Duration) -> Self {
        self.rotation.keep_for = Some(time);
        self
    }

    /// Sets when what was written is forced to the disk. Default [`Never`](Fsync::Never): [`Each`](Fsync::Each) costs an `fdatasync` a
    /// batch.
    pub const fn fsync(mut self, fsync: Fsync) -> Self {
        self.fsync = fsync;
        self
    }

    /// Sets how long dropping the sink waits for what is queued. What is not written by then is lost. Default
    /// 5 s.
    pub const fn shutdown_within(mut self, time: Duration) -> Self {
        self.shutdown = time;
        self
    }

    /// Chains the lines by hashes, so that it shows if one was altered, taken out or moved. See [`chain`](crate::audit::chain).
    #[cfg(feature = "audit-chain")]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chain = Some(chain);
        self
    }

    /// Appends to this file. It is made if it is missing, on Unix for its owner alone (mode `0600`); a file that is there
    /// keeps its owner and mode, and a symbolic link is followed. So let nobody else write to the directory.
    ///
    /// # Errors
    /// If the file cannot be opened for appending, a period or size is zero, a capacity is above its bound, or the thread cannot be started. Where the lines are
    /// chained, also if another process writes to the file (on Unix, by its lock), or the key does not vouch for what
    /// stands there.
    pub fn open(self, path: impl AsRef<Path>) -> Result<JsonLines, ConfigError> {
        let path: PathBuf = path.as_ref().into();
        self.rules.validate()?;
        for (setting, zero) in [
            ("rotate_at_size", self.rotation.size == Some(0)),
            ("rotate_every", self.rotation.every.is_some_and(|period| period.is_zero())),
        ] {
            if zero {
                return Err(ConfigError::new(setting, "0", "must be more than nothing"));
            }
        }
        let syncs = self.fsync != Fsync::Never;
        #[cfg(feature = "audit-chain")]
        if self.chain.is_some() {
            let file = TargetFile::claim(path, self.rotation, syncs)?;
            return self.start(file);
        }
        let file = TargetFile::open(path, self.rotation, syncs)?;
        self.start(file)
    }

    /// Writes to this instead of a file: a pipe, memory. It is flushed after each batch. Rotation and fsync are for files alone.
    ///
    /// # Errors
    /// If a capacity is above its bound, or the thread cannot be started.
    pub fn to_writer(self, writer: impl Write + Send + 'static) -> Result<JsonLines, ConfigError> {
        self.rules.validate()?;
        self.start(Plain(writer))
    }

    fn start(self, target: impl Target + 'static) -> Result<JsonLines, ConfigError> {
        let lines = Lines::new(target.torn());
        #[cfg(feature = "audit-chain")]
        let lines = lines.chained(self.chain, &target)?;
        let queue = Arc::new(Queue::new(self.rules));
        let mut writer = writer::Writer::new(Arc::clone(&queue), target, lines, self.fsync);
        writer.look_for_room();
        let thread = std::thread::Builder::new()
            .name("portcullis-audit".into())
            .spawn(move || writer.run())
            .map_err(|error| ConfigError::new("audit writer", "its thread", "cannot be started").caused_by(error))?;
        Ok(JsonLines { queue, shutdown: self.shutdown, writer: Some(thread) })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AuditSink for JsonLines {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.queue.push(entry)
    }

    fn lost(&self) -> u64 {
        self.queue.lost()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        channel::flush(&self.queue, BACKEND).await
    }

    fn reserve(&self) -> Result<Option<Room>, Lost> {
        self.queue.reserve()
    }

    fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
        self.queue.push_reserved(entry, room)
    }
}

impl Drop for JsonLines {
    fn drop(&mut self) {
        self.queue.close();
        let Some(writer) = self.writer.take() else { return };
        let mark = self.queue.mark();
        if self.queue.settled_within(mark, self.shutdown) {
            // If it panicked, what it had is counted as lost, and the panic was reported where it happened.
            let _ = writer.join();
        } else {
            crate::log::error("the audit writer did not finish in time; what it had left is lost");
        }
    }
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines")
            .field("rules", self.queue.rules())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
