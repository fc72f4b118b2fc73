use std::{
    fmt,
    fs::{File, OpenOptions},
    future::poll_fn,
    io::{self, Read, Seek, SeekFrom, Write},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    task::Poll,
    thread::JoinHandle,
};

use async_trait::async_trait;

use crate::{
    audit::{
        AuditRecord, AuditSink, Lost,
        lines::Lines,
        queue::{Batch, Queue},
    },
    error::{ConfigError, StoreError, StoreErrorKind},
    log,
};

const BACKEND: &str = "json_lines";

/// What happens to a record while the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: wait or do not")]
pub enum WhenFull {
    /// The thread that serves the request waits for the writer. Nothing is lost, and a disk that stands still stops the
    /// service.
    #[default]
    Wait,
    /// The record is discarded and counted.
    Discard,
}

/// Writes one JSON object a line to a file, from a thread of its own.
///
/// At most 10 000 records wait for the writer ([`with_capacity`](Self::with_capacity)); when that many do, the next request
/// waits ([`when_full`](Self::when_full)). A record that cannot be written is counted as lost and said once in the log.
/// Records are handed to the operating system as soon as they come, in batches under load; nothing calls `fsync`.
///
/// Dropping it writes what is queued, and waits for that; so does [`flush`](AuditSink::flush) without dropping it.
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
    capacity: NonZeroUsize,
    when_full: WhenFull,
    writer: Option<JoinHandle<()>>,
}

impl JsonLines {
    /// The most records that wait for the writer, unless said otherwise.
    pub const CAPACITY: NonZeroUsize = match NonZeroUsize::new(10_000) {
        Some(records) => records,
        None => NonZeroUsize::MIN,
    };

    /// Appends to this file. It is made if it is missing, on Unix for its owner alone (mode `0600`); a file that is there
    /// keeps its owner and mode, and a symbolic link is followed. So let nobody else write to the directory.
    ///
    /// If the file ends in the middle of a line, because somebody died while writing, a new line is begun.
    ///
    /// # Errors
    /// If the file cannot be opened for appending, or the thread cannot be started.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| {
            ConfigError::new("audit file", path.display().to_string(), "cannot be opened for appending")
                .caused_by(error)
        })?;
        Self::start(file, ends_within_a_line(path))
    }

    /// Writes to this instead of a file: a pipe, memory. It is flushed after each batch.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn to_writer(writer: impl Write + Send + 'static) -> Result<Self, ConfigError> {
        Self::start(writer, false)
    }

    /// Sets what happens while the queue is full. Default: [`WhenFull::Wait`].
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets how many records may wait for the writer. Default: [`CAPACITY`](Self::CAPACITY). A record takes about a
    /// kilobyte, and a few dozen at most.
    #[must_use]
    pub fn with_capacity(mut self, records: NonZeroUsize) -> Self {
        self.capacity = records;
        self
    }

    fn start(writer: impl Write + Send + 'static, torn: bool) -> Result<Self, ConfigError> {
        let queue = Arc::new(Queue::new());
        let lines = Lines::to(writer, torn);
        let thread = std::thread::Builder::new()
            .name("portcullis-audit".into())
            .spawn({
                let queue = Arc::clone(&queue);
                move || write_all(&queue, lines)
            })
            .map_err(|error| ConfigError::new("audit writer", "its thread", "cannot be started").caused_by(error))?;
        Ok(Self { queue, capacity: Self::CAPACITY, when_full: WhenFull::default(), writer: Some(thread) })
    }
}

#[async_trait]
impl AuditSink for JsonLines {
    fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
        self.queue.push(record, self.capacity, self.when_full == WhenFull::Wait)
    }

    fn lost(&self) -> u64 {
        self.queue.lost()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let mark = self.queue.mark();
        let failure = poll_fn(|cx| match self.queue.settled(mark, cx.waker()) {
            Some(failure) => Poll::Ready(failure),
            None => Poll::Pending,
        });
        match failure.await {
            None => Ok(()),
            Some(kind) => Err(StoreError::new(StoreErrorKind::Unavailable, BACKEND).caused_by(io::Error::from(kind))),
        }
    }
}

impl Drop for JsonLines {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // If it panicked, what it had is counted as lost, and the panic was reported where it happened.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines")
            .field("capacity", &self.capacity)
            .field("when_full", &self.when_full)
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

fn write_all(queue: &Queue, mut lines: Lines<impl Write>) {
    let failed = log::Once::new();
    let mut batch = Batch::of(queue);
    while batch.fill() {
        let (lost, failure) = lines.write(batch.records());
        if let Some(error) = &failure {
            failed.error(&format!("cannot write an audit record: {error}; it is said once, the sink has the count"));
        }
        batch.settle(lost, failure.map(|error| error.kind()));
    }
}

/// Whether the last byte of a file is something other than a line feed. What cannot be read, a pipe for example, is not.
fn ends_within_a_line(path: &Path) -> bool {
    let last = || -> io::Result<Option<u8>> {
        if !path.metadata()?.is_file() {
            return Ok(None);
        }
        let mut file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(Some(u8::from_ne_bytes(byte)))
    };
    !matches!(last(), Ok(Some(b'\n') | None) | Err(_))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::audit::{
        lines::test_disk::{Disk, full, paths},
        record::sample,
    };

    #[tokio::test]
    async fn a_failed_write_is_told_by_one_flush_and_counted_for_good() {
        let (disk, bytes) = Disk::planned(vec![Err(full())]);
        let sink = JsonLines::to_writer(disk).unwrap();
        assert_eq!(sink.accept(sample("/lost")), Ok(()));
        assert_eq!(sink.flush().await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert_eq!(sink.lost(), 1);
        assert_eq!(sink.accept(sample("/kept")), Ok(()));
        assert!(sink.flush().await.is_ok());
        assert_eq!(sink.lost(), 1);
        assert_eq!(paths(&bytes), [Some("/kept".to_owned())]);
    }

    /// Writes when told to.
    #[derive(Debug)]
    struct Gated {
        begun: mpsc::Sender<()>,
        gate: mpsc::Receiver<()>,
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.gate.recv();
            self.bytes.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink for two records whose writer has taken the first and stands still.
    fn standing_still(when_full: WhenFull) -> (JsonLines, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let ((begun, has_begun), (open, gate)) = (mpsc::channel(), mpsc::channel());
        let bytes = Arc::default();
        let writer = Gated { begun, gate, bytes: Arc::clone(&bytes) };
        let two = NonZeroUsize::new(2).unwrap();
        let sink = JsonLines::to_writer(writer).unwrap().with_capacity(two).when_full(when_full);
        assert_eq!(sink.accept(sample("/0")), Ok(()));
        has_begun.recv().unwrap();
        (sink, open, bytes)
    }

    #[test]
    fn a_full_queue_discards_and_counts() {
        let (sink, open, bytes) = standing_still(WhenFull::Discard);
        assert_eq!(sink.accept(sample("/1")), Ok(()));
        assert_eq!(sink.accept(sample("/2")), Err(Lost));
        assert_eq!(sink.lost(), 1);
        drop(open);
        drop(sink);
        assert_eq!(paths(&bytes), [Some("/0".to_owned()), Some("/1".to_owned())]);
    }

    #[test]
    fn a_full_queue_waits_and_loses_nothing() {
        let (sink, open, bytes) = standing_still(WhenFull::Wait);
        let sink = Arc::new(sink);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| (1..100).map(|n| sink.accept(sample(&format!("/{n}")))).collect::<Vec<_>>());
            drop(open);
            assert!(waits.join().unwrap().iter().all(Result::is_ok));
        });
        assert_eq!(sink.lost(), 0);
        drop(sink);
        assert_eq!(paths(&bytes).len(), 100);
    }

    #[derive(Debug)]
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("broken")
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_writer_that_panics_loses_what_it_counts() {
        let sink = JsonLines::to_writer(Broken).unwrap();
        assert_eq!(sink.accept(sample("/0")), Ok(()));
        assert!(sink.flush().await.is_err());
        assert_eq!(sink.accept(sample("/1")), Err(Lost));
        assert_eq!(sink.lost(), 2);
    }

    #[tokio::test]
    async fn a_torn_last_line_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"path\":").unwrap();
        let sink = JsonLines::open(file.path()).unwrap();
        assert_eq!(sink.accept(sample("/0")), Ok(()));
        sink.flush().await.unwrap();
        let bytes = Mutex::new(std::fs::read(file.path()).unwrap());
        assert_eq!(paths(&bytes), [None, Some("/0".to_owned())]);
        drop(sink);
        assert!(!ends_within_a_line(file.path()));
    }
}
