//! The conformance suite of audit sinks, run on every sink that keeps what it is given.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code, helpers included")]

use std::{
    io,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use portcullis::{
    StoreError, StoreErrorKind,
    audit::{AuditEntry, AuditSink, Channel, Filter, JsonLines, Lost, Receipt, Room, Sample, WhenFull},
    conformance::{audit_sink, audit_sink_that_fails, audit_sink_that_is_full},
    testing::Captured,
};
use tempfile::NamedTempFile;

fn captured(sink: &Captured) -> Vec<String> {
    sink.records().iter().map(|record| record.request_id().to_string()).collect()
}

fn written(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let id = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

#[tokio::test]
async fn captured_conforms() {
    let sink = Captured::new();
    audit_sink(&sink, || captured(&sink)).await;
}

#[tokio::test]
async fn json_lines_conforms() {
    let file = NamedTempFile::new().unwrap();
    let sink = JsonLines::open(file.path()).unwrap();
    audit_sink(&sink, || written(file.path())).await;
}

#[tokio::test]
async fn json_lines_conforms_also_where_requests_are_refused_without_room() {
    let file = NamedTempFile::new().unwrap();
    let sink = JsonLines::builder().when_full(WhenFull::Refuse).open(file.path()).unwrap();
    audit_sink(&sink, || written(file.path())).await;
}

#[tokio::test]
async fn what_takes_nothing_out_conforms() {
    let captured = Captured::new();
    audit_sink(&Filter::new(captured.clone(), |_| true), || self::captured(&captured)).await;
    let captured = Captured::new();
    audit_sink(&Sample::one_in(1, captured.clone()).unwrap(), || self::captured(&captured)).await;
}

#[tokio::test]
async fn a_channel_conforms() {
    for when_full in [WhenFull::Discard, WhenFull::Refuse] {
        let (sink, mut receiver) = Channel::new(10_000, when_full).unwrap();
        let captured = Captured::new();
        // Held while entries are under way: what was taken from the channel is not captured yet.
        let under_way = Arc::new(std::sync::Mutex::new(()));
        let (into, taking) = (captured.clone(), Arc::clone(&under_way));
        let consumer = std::thread::spawn(move || {
            loop {
                let _taking = taking.lock().unwrap();
                let Some(entries) = receiver.receive(std::time::Duration::from_millis(1)) else { break };
                entries.into_iter().try_for_each(|entry| into.accept(entry)).unwrap();
            }
        });
        let delivered = || {
            drop(under_way.lock().unwrap());
            self::captured(&captured)
        };
        audit_sink(&sink, delivered).await;
        drop(sink);
        consumer.join().unwrap();
    }
}

#[tokio::test]
async fn pointers_conform() {
    let sink = Captured::new();
    let shared: Arc<dyn AuditSink> = Arc::new(sink.clone());
    audit_sink(&shared, || captured(&sink)).await;
    let sink = Captured::new();
    let boxed: Box<dyn AuditSink> = Box::new(sink.clone());
    audit_sink(&boxed, || captured(&sink)).await;
}

#[tokio::test]
async fn a_pair_conforms_on_both_sides() {
    for second in [false, true] {
        let (file, first) = (NamedTempFile::new().unwrap(), Captured::new());
        let pair = (first.clone(), JsonLines::open(file.path()).unwrap());
        audit_sink(&pair, || if second { written(file.path()) } else { captured(&first) }).await;
    }
}

/// A sink with a fault, to see that the suite finds it.
#[derive(Debug)]
struct Faulty {
    fault: Fault,
    arrived: Captured,
    held: Mutex<Vec<AuditEntry>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    LosesOne,
    DeliversTwice,
    TurnsAround,
    FlushesNothing,
    StoresLater,
}

#[async_trait]
impl AuditSink for Faulty {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.held.lock().unwrap().push(entry);
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let mut entries = std::mem::take(&mut *self.held.lock().unwrap());
        match self.fault {
            Fault::None | Fault::StoresLater => {}
            Fault::LosesOne => drop(entries.pop()),
            Fault::DeliversTwice => entries.extend(entries.last().cloned()),
            Fault::TurnsAround => entries.reverse(),
            Fault::FlushesNothing => return Ok(()),
        }
        entries.into_iter().try_for_each(|entry| self.arrived.accept(entry)).unwrap();
        Ok(())
    }

    fn reserve(&self) -> Result<Option<Room>, Lost> {
        Ok((self.fault == Fault::StoresLater).then(|| Room::new(())))
    }

    fn accept_reserved(&self, entry: AuditEntry, _: Room) -> Receipt {
        self.accept(entry).unwrap();
        Receipt::done()
    }
}

#[tokio::test]
async fn the_suite_finds_faults() {
    use Fault::{DeliversTwice, FlushesNothing, LosesOne, StoresLater, TurnsAround};
    for fault in [Fault::None, LosesOne, DeliversTwice, TurnsAround, FlushesNothing, StoresLater] {
        let suite = tokio::spawn(async move {
            let arrived = Captured::new();
            let sink = Faulty { fault, arrived: arrived.clone(), held: Mutex::default() };
            let delivered = || captured(&arrived);
            audit_sink(&sink, &delivered).await;
        });
        assert_eq!(suite.await.is_err(), fault != Fault::None, "{fault:?}");
    }
}

/// A file that nothing is written to before the gate is open.
struct Gated {
    gate: mpsc::Receiver<()>,
    file: std::fs::File,
}

impl io::Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The other end is gone once it is open.
        let _ = self.gate.recv();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[tokio::test]
async fn json_lines_that_are_full_conform() {
    for when_full in [WhenFull::Discard, WhenFull::Wait(Duration::from_micros(1)), WhenFull::Refuse] {
        let file = NamedTempFile::new().unwrap();
        let (open, gate) = mpsc::channel();
        let writer = Gated { gate, file: file.reopen().unwrap() };
        let records = NonZeroUsize::new(100).unwrap();
        let sink = JsonLines::builder().capacity(records).when_full(when_full).to_writer(writer).unwrap();
        audit_sink_that_is_full(&sink, || records_of(file.path()), || drop(open)).await;
    }
}

/// The request ids of records; a gap has none.
fn records_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let id = |line| Some(serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"].as_str()?.to_owned());
    text.lines().filter_map(id).collect()
}

#[tokio::test]
async fn a_channel_that_is_full_conforms() {
    for when_full in [WhenFull::Discard, WhenFull::Wait(Duration::from_micros(1)), WhenFull::Refuse] {
        let (sink, mut receiver) = Channel::new(100, when_full).unwrap();
        let captured = Captured::new();
        let under_way = Arc::new(Mutex::new(()));
        let (into, taking) = (captured.clone(), Arc::clone(&under_way));
        let (open, gate) = mpsc::channel::<()>();
        let consumer = std::thread::spawn(move || {
            let _ = gate.recv();
            loop {
                let _taking = taking.lock().unwrap();
                let Some(entries) = receiver.receive(Duration::from_millis(1)) else { break };
                entries.into_iter().try_for_each(|entry| into.accept(entry)).unwrap();
            }
        });
        let delivered = || {
            drop(under_way.lock().unwrap());
            self::captured(&captured)
        };
        audit_sink_that_is_full(&sink, delivered, || drop(open)).await;
        drop(sink);
        consumer.join().unwrap();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn json_lines_that_cannot_be_written_conform() {
    audit_sink_that_fails(&JsonLines::open("/dev/full").unwrap()).await;
    let refusing = JsonLines::builder().when_full(WhenFull::Refuse).open("/dev/full").unwrap();
    audit_sink_that_fails(&refusing).await;
}

#[tokio::test]
async fn a_channel_that_nobody_takes_from_conforms() {
    let (sink, receiver) = Channel::new(10_000, WhenFull::Discard).unwrap();
    drop(receiver);
    audit_sink_that_fails(&sink).await;
}

/// Has room for 100 records, which it delivers when it is flushed, unless it fails.
#[derive(Debug)]
struct Small {
    fault: SmallFault,
    arrived: Captured,
    held: Mutex<Vec<AuditEntry>>,
    lost: AtomicU64,
    fails: bool,
    /// What room is kept for.
    promised: Arc<AtomicUsize>,
    failed: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SmallFault {
    None,
    LosesSilently,
    CountsTwice,
    DeliversWhatItRefused,
    StaysFull,
    CallsItDelivered,
    CountsNoFailure,
    TakesRecordsAlone,
    /// None, in one that lets no request pass whose record it cannot store.
    NoneWithRoom,
    AlwaysHasRoom,
    GivesRoomAway,
    ForgetsFailures,
}

/// Room for one record.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Small {
    fn new(fault: SmallFault, fails: bool) -> Self {
        let (arrived, held, lost) = (Captured::new(), Mutex::default(), AtomicU64::new(0));
        Self { fault, arrived, held, lost, fails, promised: Arc::default(), failed: AtomicBool::new(false) }
    }
}

#[async_trait]
impl AuditSink for Small {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        if self.fault == SmallFault::TakesRecordsAlone && entry.decided().is_none() {
            return Ok(());
        }
        let mut held = self.held.lock().unwrap();
        let promised = if self.fault == SmallFault::GivesRoomAway { 0 } else { self.promised.load(SeqCst) };
        if held.len() + promised < 100 {
            held.push(entry);
            return Ok(());
        }
        match self.fault {
            SmallFault::LosesSilently => {
                self.lost.fetch_max(1, SeqCst);
                return Ok(());
            }
            SmallFault::CountsTwice => self.lost.fetch_add(2, SeqCst),
            SmallFault::DeliversWhatItRefused => {
                held.push(entry);
                self.lost.fetch_add(1, SeqCst)
            }
            _ => self.lost.fetch_add(1, SeqCst),
        };
        Err(Lost::new())
    }

    fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap();
        let entries = if self.fault == SmallFault::StaysFull { held.clone() } else { std::mem::take(&mut *held) };
        if !self.fails {
            entries.into_iter().try_for_each(|entry| self.arrived.accept(entry)).unwrap();
            return Ok(());
        }
        if self.fault != SmallFault::CountsNoFailure {
            self.lost.fetch_add(entries.len().try_into().unwrap(), SeqCst);
        }
        self.failed.store(true, SeqCst);
        if self.fault == SmallFault::CallsItDelivered {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Unavailable, "small"))
    }

    fn reserve(&self) -> Result<Option<Room>, Lost> {
        use SmallFault::{AlwaysHasRoom, ForgetsFailures, GivesRoomAway, NoneWithRoom};
        match self.fault {
            AlwaysHasRoom => return Ok(Some(Room::new(()))),
            NoneWithRoom | GivesRoomAway | ForgetsFailures => {}
            _ => return Ok(None),
        }
        let is_full = self.held.lock().unwrap().len() + self.promised.load(SeqCst) >= 100;
        if is_full || self.failed.load(SeqCst) && self.fault != ForgetsFailures {
            self.lost.fetch_add(1, SeqCst);
            return Err(Lost::new());
        }
        self.promised.fetch_add(1, SeqCst);
        Ok(Some(Room::new(Place(Arc::clone(&self.promised)))))
    }

    fn accept_reserved(&self, entry: AuditEntry, room: Room) -> Receipt {
        drop(room);
        let _ = self.accept(entry);
        Receipt::done()
    }
}

#[tokio::test]
async fn the_suite_finds_faults_of_sinks_that_are_full_or_fail() {
    use SmallFault::{
        AlwaysHasRoom, CallsItDelivered, CountsNoFailure, CountsTwice, DeliversWhatItRefused, ForgetsFailures,
        GivesRoomAway, LosesSilently, None, NoneWithRoom, StaysFull, TakesRecordsAlone,
    };
    let full = async |fault| {
        let suite = async move {
            let sink = Small::new(fault, false);
            audit_sink_that_is_full(&sink, || captured(&sink.arrived), || {}).await;
        };
        tokio::spawn(suite).await.is_err()
    };
    for fault in [None, NoneWithRoom] {
        assert!(!full(fault).await, "{fault:?}");
    }
    for fault in [LosesSilently, CountsTwice, DeliversWhatItRefused, StaysFull, AlwaysHasRoom, GivesRoomAway] {
        assert!(full(fault).await, "{fault:?}");
    }
    let failing =
        async |fault| tokio::spawn(async move { audit_sink_that_fails(&Small::new(fault, true)).await }).await.is_err();
    for fault in [None, NoneWithRoom] {
        assert!(!failing(fault).await, "{fault:?}");
    }
    for fault in [CallsItDelivered, CountsNoFailure, TakesRecordsAlone, AlwaysHasRoom, ForgetsFailures] {
        assert!(failing(fault).await, "{fault:?}");
    }
}
