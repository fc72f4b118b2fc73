mod files;
mod full;

use std::{
    io,
    sync::{Mutex, mpsc},
};

use super::*;
use crate::{
    audit::record::{sample, sample_facts, sample_of_alice},
    clock::{Clock, Instants, SystemClock},
    error::StoreErrorKind,
    rejection::RejectionKind,
};

/// Says how each call of `write` goes: so many bytes, or an error. Then all goes well.
#[derive(Debug, Default)]
struct Disk {
    plan: Vec<io::Result<usize>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Disk {
    fn planned(mut plan: Vec<io::Result<usize>>) -> (Self, Arc<Mutex<Vec<u8>>>) {
        plan.reverse();
        let disk = Self { plan, bytes: Arc::default() };
        let bytes = Arc::clone(&disk.bytes);
        (disk, bytes)
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.plan.pop().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        self.bytes.lock().unwrap().extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// What each line is about: the path of a record, the numbers of a gap, nothing if it is no JSON.
fn told(text: &[u8]) -> Vec<String> {
    let about = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) if line["entry"] == "gap" => {
            format!("lost {} torn {}", line["lost"], line["torn"].as_u64().unwrap_or(0))
        }
        Ok(line) if line["entry"] == "repeated" => format!("{} more", line["count"]),
        Ok(line) => line["path"].as_str().unwrap().to_owned(),
        Err(_) => format!("{} bytes", line.len()),
    };
    String::from_utf8(text.to_vec()).unwrap().lines().map(about).collect()
}

fn read(bytes: &Mutex<Vec<u8>>) -> Vec<String> {
    told(&bytes.lock().unwrap())
}

#[test]
fn what_is_written_in_part_is_counted_to_the_record_and_told() {
    let line = serde_json::to_vec(&sample("/0")).unwrap().len() + 1;
    for (name, plan, lost, left) in [
        ("all at once", vec![], 0, &["/0", "/1", "/later"][..]),
        ("in pieces", vec![Ok(7), Ok(300)], 0, &["/0", "/1", "/later"]),
        ("interrupted", vec![Err(io::ErrorKind::Interrupted.into())], 0, &["/0", "/1", "/later"]),
        ("nothing", vec![Err(full())], 2, &["lost 2 torn 0", "/later"]),
        ("one line", vec![Ok(line), Err(full())], 1, &["/0", "lost 1 torn 0", "/later"]),
        ("a line and a half", vec![Ok(line + 9), Err(full())], 1, &["/0", "9 bytes", "lost 1 torn 9", "/later"]),
        ("a line but for its end", vec![Ok(line - 1), Err(full())], 1, &["/0", "lost 1 torn 0", "/later"]),
        ("half a line", vec![Ok(9), Ok(0)], 2, &["9 bytes", "lost 2 torn 9", "/later"]),
    ] {
        let (disk, bytes) = Disk::planned(plan);
        let (mut target, mut lines, now) = (Plain(disk), Lines::new(0), SystemClock.now());
        let written = lines.write(&[sample("/0").into(), sample("/1").into()], 0, now, false, &mut target);
        assert_eq!((written.lost, written.failure.is_some()), (lost, lost > 0), "{name}");
        let written = lines.write(&[sample("/later").into()], lost, now, false, &mut target);
        assert_eq!((written.lost, written.told), (0, true), "{name}");
        assert_eq!(read(&bytes), left, "{name}");
    }
}

#[test]
fn pieces_of_several_attempts_add_up() {
    let (disk, bytes) = Disk::planned(vec![Ok(9), Err(full()), Ok(1), Err(full()), Ok(5), Err(full())]);
    let (mut target, mut lines, now) = (Plain(disk), Lines::new(0), SystemClock.now());
    for _ in 0..3 {
        assert_eq!(lines.write(&[sample("/lost").into()], 0, now, false, &mut target).lost, 1);
    }
    lines.write(&[sample("/later").into()], 3, now, false, &mut target);
    assert_eq!(read(&bytes), ["9 bytes", "5 bytes", "lost 3 torn 14", "/later"]);
}

/// A file that is renamed away once, when it is told.
struct Renamed(Plain<Disk>, bool);

impl Target for Renamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn prepare(&mut self, _: Instants, _: usize) -> bool {
        std::mem::take(&mut self.1)
    }
}

#[test]
fn what_is_torn_in_the_file_before_is_told_by_the_first_line_that_can_be_written() {
    let (disk, bytes) = Disk::planned(vec![Ok(9), Err(full()), Err(full()), Ok(5), Err(full())]);
    let (mut target, mut lines, now) = (Renamed(Plain(disk), false), Lines::new(0), SystemClock.now());
    assert_eq!(lines.write(&[sample("/0").into()], 0, now, false, &mut target).lost, 1);
    assert_eq!(std::mem::take(&mut *bytes.lock().unwrap()).len(), 9);
    target.1 = true;
    for _ in 0..2 {
        assert_eq!(lines.write(&[sample("/1").into()], 1, now, false, &mut target).lost, 1);
    }
    assert_eq!(lines.write(&[sample("/2").into()], 3, now, false, &mut target).lost, 0);
    assert_eq!(read(&bytes), ["5 bytes", "lost 3 torn 14", "/2"]);
}

/// A record that is there but for its line feed is there: it is not lost, and nothing stands between it and its end.
#[test]
fn a_line_that_lacks_its_end_alone_gets_it_first() {
    let line = serde_json::to_vec(&sample("/0")).unwrap().len() + 1;
    let (disk, bytes) = Disk::planned(vec![Ok(line - 1), Err(full()), Err(full())]);
    let (mut target, mut lines, now) = (Plain(disk), Lines::new(0), SystemClock.now());
    let written = lines.write(&[sample("/0").into()], 0, now, false, &mut target);
    assert_eq!((written.lost, written.failure.is_some()), (0, true));
    let written = lines.write(&[sample("/1").into()], 0, now, false, &mut target);
    assert_eq!((written.lost, written.failure.is_some(), written.told), (1, true, true), "no room for the end either");
    assert_eq!(read(&bytes), ["/0"]);
    let written = lines.write(&[sample("/2").into()], 1, now, false, &mut target);
    assert_eq!((written.lost, written.failure.is_some(), written.told), (0, false, true));
    assert_eq!(read(&bytes), ["/0", "lost 1 torn 0", "/2"]);
}

#[tokio::test]
async fn a_failed_write_is_told_by_one_flush_and_by_a_gap() {
    let (disk, bytes) = Disk::planned(vec![Err(full())]);
    let sink = JsonLines::builder().to_writer(disk).unwrap();
    assert_eq!(sink.accept(sample("/lost").into()), Ok(()));
    assert_eq!(sink.flush().await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert_eq!(sink.lost(), 1);
    assert_eq!(sink.accept(sample("/kept").into()), Ok(()));
    assert!(sink.flush().await.is_ok());
    assert_eq!(sink.lost(), 1);
    assert_eq!(read(&bytes), ["lost 1 torn 0", "/kept"]);
}

fn refusal(path: &str, nanos: u64) -> AuditEntry {
    let mut facts = sample_facts(path);
    facts.unix_nanos += nanos;
    facts.rejection = Some((RejectionKind::Unauthenticated, "no credential".into()));
    crate::audit::AuditRecord::new(facts.shareable()).into()
}

/// Says when it has written.
struct Telling(mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>);

impl Write for Telling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.lock().unwrap().extend(bytes);
        let _ = self.0.send(());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_counted_is_told_soon_without_a_flush() {
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let (tell, written) = mpsc::channel();
    let sink = JsonLines::builder().to_writer(Telling(tell, Arc::clone(&bytes))).unwrap();
    for n in 0..3 {
        assert_eq!(sink.accept(refusal("/flood", n)), Ok(()));
    }
    while !read(&bytes).contains(&"2 more".to_owned()) {
        written.recv().unwrap();
    }
}

#[test]
fn what_is_counted_is_told_soon_also_while_other_entries_keep_coming() {
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let (tell, written) = mpsc::channel();
    let sink = JsonLines::builder().to_writer(Telling(tell, Arc::clone(&bytes))).unwrap();
    for n in 0..3 {
        assert_eq!(sink.accept(refusal("/flood", n)), Ok(()));
    }
    let began = SystemClock.now();
    while !read(&bytes).contains(&"2 more".to_owned()) {
        assert!(SystemClock.now().since(began) < Duration::from_secs(20), "it is never told");
        assert_eq!(sink.accept(sample("/steady").into()), Ok(()));
        written.recv().unwrap();
    }
    assert!(SystemClock.now().since(began) > Duration::from_millis(900), "once a second");
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
    let sink = JsonLines::builder().to_writer(Broken).unwrap();
    assert_eq!(sink.accept(sample("/0").into()), Ok(()));
    assert!(sink.flush().await.is_err());
    assert_eq!(sink.accept(sample("/1").into()), Err(Lost));
    assert_eq!(sink.lost(), 2);
}

/// Refusals that were counted, so many, after a record of their own.
fn repeated(count: u64) -> AuditEntry {
    let AuditEntry::Decided(first) = refusal("/flood", 0) else { panic!("a record") };
    AuditEntry::Repeated(crate::audit::AuditRepeats { first, count, many_sources: false })
}

/// What one line stands for is missing without it.
#[tokio::test]
async fn refusals_that_were_counted_are_lost_one_by_one() {
    let (disk, bytes) = Disk::planned(vec![Err(full())]);
    let sink = JsonLines::builder().to_writer(disk).unwrap();
    assert_eq!(sink.accept(repeated(5)), Ok(()));
    assert!(sink.flush().await.is_err());
    assert_eq!(sink.lost(), 5);
    assert_eq!(sink.accept(sample("/kept").into()), Ok(()));
    assert!(sink.flush().await.is_ok());
    assert_eq!((sink.lost(), read(&bytes)), (5, vec!["lost 5 torn 0".to_owned(), "/kept".to_owned()]));

    // Of several lines, those that are not there.
    let line = |entry: &AuditEntry| serde_json::to_vec(entry).unwrap().len() + 1;
    let entries = [repeated(7), sample("/1").into(), repeated(5)];
    let (first, second) = (line(&entries[0]), line(&entries[1]));
    for (name, written, lost) in [
        ("none", 0, 13),
        ("half of the first", first / 2, 13),
        ("the first", first, 6),
        ("two", first + second, 5),
        ("nearly all", first + second + 1, 5),
    ] {
        let (disk, _) = Disk::planned(vec![Ok(written), Err(full())]);
        let written = Lines::new(0).write(&entries, 0, SystemClock.now(), false, &mut Plain(disk));
        assert_eq!(written.lost, lost, "{name}");
    }

    // Those that a writer that panics had, those that wait for it, and those that come then.
    let sink = JsonLines::builder().to_writer(Broken).unwrap();
    assert_eq!(sink.accept(repeated(5)), Ok(()));
    assert!(sink.flush().await.is_err());
    assert_eq!(sink.accept(repeated(7)), Err(Lost));
    assert_eq!(sink.lost(), 12);
}

/// A device that takes what is written and cannot say that it is stored.
#[derive(Debug)]
struct Unflushed;

impl Write for Unflushed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(full())
    }
}

#[tokio::test]
async fn what_is_not_known_to_be_stored_is_lost_one_by_one() {
    let sink = JsonLines::builder().to_writer(Unflushed).unwrap();
    assert_eq!(sink.accept(repeated(5)), Ok(()));
    assert!(sink.flush().await.is_err());
    assert_eq!(sink.lost(), 5);
}

#[tokio::test]
async fn a_torn_last_line_is_left_alone_and_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"path\":").unwrap();
    let sink = JsonLines::open(file.path()).unwrap();
    assert_eq!(sink.accept(sample("/0").into()), Ok(()));
    sink.flush().await.unwrap();
    assert_eq!(told(&std::fs::read(file.path()).unwrap()), ["8 bytes", "lost 0 torn 8", "/0"]);
}

#[tokio::test]
async fn a_file_that_somebody_else_began_and_left_torn_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("audit.jsonl"), folder.path().join("away"));
    let sink = JsonLines::open(&path).unwrap();
    let write = async |name: &str| {
        assert_eq!(sink.accept(sample(name).into()), Ok(()));
        sink.flush().await.unwrap();
        told(&std::fs::read(&path).unwrap())
    };
    assert_eq!(write("/0").await, ["/0"]);
    std::fs::rename(&path, &away).unwrap();
    std::fs::write(&path, "{\"path\":").unwrap();
    assert_eq!(write("/1").await, ["8 bytes", "lost 0 torn 8", "/1"]);
    assert_eq!(write("/2").await, ["8 bytes", "lost 0 torn 8", "/1", "/2"]);
    assert_eq!(told(&std::fs::read(&away).unwrap()), ["/0"]);
}
