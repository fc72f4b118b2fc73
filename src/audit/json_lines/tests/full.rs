//! A writer that stands still, and a queue that is full.

use super::*;

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
    let sink = JsonLines::builder().capacity(two).refusal_capacity(two).when_full(when_full).to_writer(writer).unwrap();
    let room = sink.reserve().unwrap();
    match room {
        Some(room) => drop(sink.accept_reserved(sample_of_alice("/0").into(), room)),
        None => assert_eq!(sink.accept(sample_of_alice("/0").into()), Ok(())),
    }
    has_begun.recv().unwrap();
    (sink, open, bytes)
}

#[test]
fn a_full_queue_discards_counts_and_tells() {
    let (sink, open, bytes) = standing_still(WhenFull::Discard);
    assert_eq!(sink.accept(sample_of_alice("/1").into()), Ok(()));
    assert_eq!(sink.accept(sample_of_alice("/2").into()), Err(Lost));
    assert_eq!(sink.lost(), 1);
    drop(open);
    drop(sink);
    assert_eq!(read(&bytes), ["/0", "lost 1 torn 0", "/1"]);
}

#[test]
fn a_full_queue_waits_and_loses_nothing() {
    let (sink, open, bytes) = standing_still(WhenFull::Wait(Duration::from_secs(600)));
    let sink = Arc::new(sink);
    std::thread::scope(|scope| {
        let waits =
            scope.spawn(|| (1..100).map(|n| sink.accept(sample_of_alice(&format!("/{n}")).into())).collect::<Vec<_>>());
        drop(open);
        assert!(waits.join().unwrap().iter().all(Result::is_ok));
    });
    assert_eq!(sink.lost(), 0);
    drop(sink);
    assert_eq!(read(&bytes).len(), 100);
}

#[test]
fn waiting_has_an_end() {
    let (sink, open, bytes) = standing_still(WhenFull::Wait(Duration::from_millis(1)));
    assert_eq!(sink.accept(sample_of_alice("/1").into()), Ok(()));
    assert_eq!(sink.accept(sample_of_alice("/2").into()), Err(Lost), "after a millisecond");
    drop(open);
    drop(sink);
    assert_eq!(read(&bytes), ["/0", "lost 1 torn 0", "/1"]);
}

#[test]
fn without_room_nothing_begins() {
    let (sink, open, bytes) = standing_still(WhenFull::Refuse);
    let room = sink.reserve().unwrap();
    assert!(room.is_some());
    assert!(sink.reserve().is_err(), "two are under way");
    drop(room);
    let room = sink.reserve().unwrap().unwrap();
    drop(sink.accept_reserved(sample_of_alice("/1").into(), room));
    assert!(sink.reserve().is_err());
    drop(open);
    drop(sink);
    assert_eq!(read(&bytes), ["/0", "lost 2 torn 0", "/1"]);
}

#[test]
fn a_flood_of_refusals_leaves_room_for_the_rest_and_is_counted() {
    let (sink, open, bytes) = standing_still(WhenFull::Discard);
    for n in 0..1000 {
        assert_eq!(sink.accept(refusal("/flood", n)), Ok(()), "the first is a record, the others are counted");
    }
    assert_eq!(sink.accept(sample_of_alice("/allowed").into()), Ok(()));
    assert_eq!(sink.lost(), 0);
    drop(open);
    drop(sink);
    assert_eq!(read(&bytes), ["/0", "/flood", "/allowed", "999 more"]);
}

#[test]
fn a_writer_that_stands_still_does_not_hold_up_the_end() {
    let (sink, open, _) = standing_still(WhenFull::Discard);
    let shut = JsonLines { shutdown: Duration::from_millis(1), queue: Arc::clone(&sink.queue), writer: None };
    drop(shut);
    let mut sink = sink;
    sink.shutdown = Duration::from_millis(1);
    drop(sink);
    drop(open);
}

#[test]
fn a_queue_that_no_machine_has_room_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let number = |number| NonZeroUsize::new(number).unwrap();
    for (name, builder, setting) in [
        ("records", JsonLines::builder().capacity(number(1_000_001)), "capacity"),
        ("all that there are", JsonLines::builder().capacity(NonZeroUsize::MAX), "capacity"),
        ("refusals", JsonLines::builder().refusal_capacity(number(1_000_001)), "refusal capacity"),
    ] {
        assert_eq!(builder.open(&path).unwrap_err().setting(), setting, "{name}");
        assert!(!path.exists(), "{name}: no file is made");
    }
    assert!(JsonLines::builder().capacity(number(1_000_000)).refusal_capacity(number(1_000_000)).open(&path).is_ok());
}
