//! The conformance suite of audit sinks, run on every sink that keeps what it is given.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code, helpers included")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use portcullis::{
    StoreError,
    audit::{AuditEntry, AuditSink, Channel, Filter, JsonLines, Lost, Receipt, Room, Sample, WhenFull},
    conformance::audit_sink,
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
