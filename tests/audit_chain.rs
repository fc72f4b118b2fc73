//! The chain of an audit file: whatever is altered, taken out or moved is found, and the first of it named.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "test code, helpers included"
)]

#[path = "audit_chain/forged.rs"]
mod forged;
#[path = "audit_chain/resumed.rs"]
mod resumed;
#[path = "audit_chain/writers.rs"]
mod writers;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portcullis::{
    audit::{
        AuditSink, JsonLines, JsonLinesBuilder,
        chain::{Chain, ChainKey, Checkpoint, ProblemKind, PublicKey, Report, verify, verify_retained},
    },
    testing::sample_record,
};
use tempfile::TempDir;

struct Trail {
    directory: TempDir,
    key: PathBuf,
    sent: Arc<Mutex<Vec<Checkpoint>>>,
}

impl Trail {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("chain.key");
        Self { directory, key, sent: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    fn public(&self) -> PublicKey {
        ChainKey::from_file_or_new(&self.key).unwrap().public_key()
    }

    fn chain(&self) -> Chain {
        let sent = Arc::clone(&self.sent);
        Chain::new(ChainKey::from_file_or_new(&self.key).unwrap())
            .checkpoint_every(10, Duration::from_secs(600))
            .unwrap()
            .on_checkpoint(move |checkpoint| sent.lock().unwrap().push(checkpoint.clone()))
    }

    /// Starts a process, so to say, which writes so many records and ends.
    fn run(&self, records: usize, set: impl Fn(JsonLinesBuilder) -> JsonLinesBuilder) {
        let sink = set(JsonLines::builder()).chain(self.chain()).open(self.path()).unwrap();
        for n in 1..=records {
            sink.accept(sample_record(&format!("/{}", n - 1)).into()).unwrap();
            // No more than the queue has room for: the records are of nobody, for whom it does not wait.
            if n % 5_000 == 0 {
                // Made here: in a test that has a runtime, another one must not be dropped.
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(sink.flush()).unwrap();
            }
        }
        drop(sink);
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            std::fs::read_dir(self.directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with("audit.jsonl."));
        files.sort();
        files.push(self.path());
        files
    }

    fn verify(&self) -> Report {
        verify(self.files(), &[self.public()], &[]).unwrap()
    }

    fn verify_with_sent(&self) -> Report {
        verify(self.files(), &[self.public()], &self.sent.lock().unwrap()).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn rewrite(&self, lines: &[String]) {
        std::fs::write(self.path(), lines.concat_lines()).unwrap();
    }
}

trait Lines {
    fn concat_lines(&self) -> String;
}

impl Lines for [String] {
    fn concat_lines(&self) -> String {
        self.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn what_was_written_is_sound_also_after_restarts() {
    let trail = Trail::new();
    for records in [25, 0, 3, 40] {
        trail.run(records, |builder| builder);
        let report = trail.verify_with_sent();
        assert!(report.is_sound() && report.torn_tail.is_none() && report.torn.is_empty(), "{report}");
        assert_eq!((report.first, report.uncovered()), (Some(1), 0), "a checkpoint ends it: {report}");
    }
    let decided = trail.lines().iter().filter(|line| line.contains(r#""entry":"decided""#)).count();
    assert_eq!(decided, 68);
    assert_eq!(trail.lines().iter().filter(|line| line.contains(r#""entry":"opened""#)).count(), 3);
    assert!(trail.sent.lock().unwrap().len() >= 6);
}

#[test]
fn rotation_and_retention_keep_the_chain() {
    let trail = Trail::new();
    for _ in 0..4 {
        trail.run(300, |builder| builder.rotate_at_size(20_000));
    }
    assert!(trail.files().len() > 3, "{:?}", trail.files());
    let report = trail.verify_with_sent();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.first, Some(1));
    let all = trail.files();
    std::fs::remove_file(&all[0]).unwrap();
    let problem = trail.verify_with_sent().problem.unwrap();
    let first = trail.verify().first.unwrap();
    assert!(first > 1 && problem.kind == ProblemKind::BeginsLater { first }, "{problem}");
    let sent = trail.sent.lock().unwrap().clone();
    for (from, is_sound) in [(1, false), (first - 1, false), (first, true), (first + 1, true)] {
        let report = verify_retained(trail.files(), &[trail.public()], &sent, from).unwrap();
        assert_eq!((report.is_sound(), report.first), (is_sound, Some(first)), "{from}: {report}");
        assert_eq!(report.missed, sent.iter().filter(|sent| sent.upto() < first - 1).count() as u64, "{report}");
    }
    std::fs::remove_file(&all[2]).unwrap();
    let problem = trail.verify().problem.unwrap();
    assert!(matches!(problem.kind, ProblemKind::Missing { .. }), "{problem}");
    assert_eq!((&problem.file, problem.line), (&all[3], 1));
}

#[test]
fn what_is_altered_missing_or_moved_is_named() {
    let trail = Trail::new();
    trail.run(30, |builder| builder);
    let lines = trail.lines();
    let check = |name: &str, changed: Vec<String>, seq: u64, is: fn(&ProblemKind) -> bool| {
        trail.rewrite(&changed);
        let report = trail.verify();
        let problem = report.problem.clone().unwrap_or_else(|| panic!("{name}: {report}"));
        assert_eq!(problem.seq, seq, "{name}: {report}");
        assert!(is(&problem.kind), "{name}: {report}");
        assert!(report.to_string().contains("NOT SOUND") && report.to_string().contains(&format!("record {seq} ")));
    };
    let mut altered = lines.clone();
    altered[6] = altered[6].replace("allowed", "denied");
    check("altered", altered, 7, |kind| *kind == ProblemKind::Altered);
    let mut missing = lines.clone();
    missing.remove(6);
    check("missing", missing, 7, |kind| *kind == ProblemKind::Missing { found: 8 });
    let mut moved = lines.clone();
    moved.swap(6, 8);
    check("moved", moved, 7, |kind| *kind == ProblemKind::Missing { found: 9 });
    let mut repeated = lines.clone();
    repeated.insert(7, lines[6].clone());
    check("repeated", repeated, 8, |kind| *kind == ProblemKind::Reordered { found: 7 });
    let mut put_in = lines.clone();
    put_in.insert(7, r#"{"entry":"decided"}"#.into());
    check("put in", put_in, 8, |kind| *kind == ProblemKind::Unreadable);
    let mut replaced = lines.clone();
    replaced[6] = r#"{"entry":"decided"}"#.into();
    check("replaced", replaced, 7, |kind| *kind == ProblemKind::Unreadable);
    check("the beginning cut off", lines[3..].to_vec(), 1, |kind| *kind == ProblemKind::NotOpened);
    trail.rewrite(&lines);
    assert!(trail.verify().is_sound());
}

#[test]
fn who_has_not_the_key_cannot_make_the_chain_anew() {
    let (trail, forger) = (Trail::new(), Trail::new());
    trail.run(30, |builder| builder);
    forger.run(30, |builder| builder);
    let other = verify([forger.path()], &[trail.public()], &[]).unwrap();
    assert_eq!(other.problem.unwrap().kind, ProblemKind::BadSignature);
    // Lines of another history, up to a checkpoint that is the true one's.
    let (mut lines, truth) = (forger.lines(), trail.lines());
    let at = lines.iter().position(|line| line.contains("checkpoint")).unwrap();
    lines[at].clone_from(&truth[at]);
    trail.rewrite(&lines);
    assert_eq!(trail.verify().problem.unwrap().kind, ProblemKind::Altered);
    // What is cut off is missed by what was sent elsewhere.
    trail.rewrite(&truth[..14]);
    assert!(trail.verify().is_sound(), "nobody can tell from the file alone");
    let problem = trail.verify_with_sent().problem.unwrap();
    assert_eq!((problem.kind, problem.seq), (ProblemKind::CutOff, 15));
    let forged = forger.sent.lock().unwrap().clone();
    assert!(
        verify([trail.path()], &[trail.public()], &forged).unwrap().is_sound(),
        "what is not signed is not believed"
    );
    for checkpoint in trail.sent.lock().unwrap().iter() {
        let text = checkpoint.to_string();
        assert_eq!(&text.parse::<Checkpoint>().unwrap(), checkpoint);
        assert!(checkpoint.is_signed_by(&[trail.public()]) && !checkpoint.is_signed_by(&[forger.public()]));
        let other = text.replace(r#""upto":"#, r#""upto":1"#).parse::<Checkpoint>().unwrap();
        assert!(!other.is_signed_by(&[trail.public()]));
    }
}

/// Every byte of a file, flipped in one bit: the verification names the line that holds it, or tells of a torn end.
fn flip(trail: &Trail, positions: impl Iterator<Item = usize>) {
    let good = std::fs::read(trail.path()).unwrap();
    for at in positions {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(trail.path(), &bad).unwrap();
        let report = trail.verify();
        let line = u64::try_from(good[..at].iter().filter(|byte| **byte == b'\n').count()).unwrap() + 1;
        match (&report.problem, &report.torn_tail) {
            (Some(problem), _) => assert!(problem.line == line || problem.line == line + 1, "byte {at}: {report}"),
            (None, Some(_)) => assert!(at + 1 == good.len(), "byte {at}: {report}"),
            (None, None) => assert_eq!(at, usize::MAX, "byte {at} of line {line}: {report}"),
        }
    }
    std::fs::write(trail.path(), good).unwrap();
}

#[test]
fn one_byte_flipped_anywhere_is_found() {
    let trail = Trail::new();
    trail.run(12, |builder| builder);
    let len = std::fs::metadata(trail.path()).unwrap().len();
    flip(&trail, (0..usize::try_from(len).unwrap()).step_by(1));
}

/// A million of them with `cargo test --release`: without optimization that takes minutes.
#[test]
fn one_byte_flipped_in_many_records_is_found() {
    const RECORDS: u64 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let trail = Trail::new();
    let count = usize::try_from(RECORDS).unwrap();
    trail.run(count, |builder| builder);
    let report = trail.verify_with_sent();
    assert!(report.is_sound() && report.last > Some(RECORDS), "{report}");
    let len = usize::try_from(std::fs::metadata(trail.path()).unwrap().len()).unwrap();
    flip(&trail, [len / 7, len / 2, len - 100_000].into_iter());
}

#[test]
fn a_torn_end_is_told_and_never_repaired() {
    let trail = Trail::new();
    trail.run(12, |builder| builder);
    let whole = std::fs::read(trail.path()).unwrap();
    for cut in [1, 2, 40, 200] {
        let torn = &whole[..whole.len() - cut];
        std::fs::write(trail.path(), torn).unwrap();
        let bytes = torn.len() - torn.iter().rposition(|byte| *byte == b'\n').unwrap() - 1;
        let report = trail.verify();
        assert!(report.is_sound(), "{report}");
        assert_eq!(report.torn_tail.unwrap().bytes, bytes as u64, "{cut}");
        trail.run(3, |builder| builder);
        let after = std::fs::read(trail.path()).unwrap();
        assert!(after.starts_with(torn), "what was there is left alone");
        let report = trail.verify();
        assert!(report.is_sound() && report.torn_tail.is_none(), "{report}");
        if cut == 1 {
            assert!(
                report.torn.is_empty(),
                "it lacked its line feed alone, and its hash says that it is whole: {report}"
            );
            continue;
        }
        assert_eq!(report.torn.iter().map(|torn| torn.bytes).collect::<Vec<_>>(), [bytes as u64], "{cut}");
    }
    // A fragment that no line tells of was put there.
    let mut lines = trail.lines();
    let at = lines.iter().position(|line| line.contains("torn")).unwrap();
    lines[at - 1].push('x');
    trail.rewrite(&lines);
    assert_eq!(trail.verify().problem.unwrap().kind, ProblemKind::Unreadable);
}

/// A disk that has room for all of the first batch but its last byte, and then for everything.
struct StopsShort(Arc<Mutex<Vec<u8>>>, usize);

impl std::io::Write for StopsShort {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1 += 1;
        let written = match self.1 {
            1 => &bytes[..bytes.len() - 1],
            2 => return Err(std::io::ErrorKind::StorageFull.into()),
            _ => bytes,
        };
        self.0.lock().unwrap().extend(written);
        Ok(written.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_that_lacks_its_line_feed_alone_is_a_link() {
    let trail = Trail::new();
    let bytes = Arc::default();
    let chain = Chain::new(ChainKey::from_file_or_new(&trail.key).unwrap());
    let sink = JsonLines::builder().chain(chain).to_writer(StopsShort(Arc::clone(&bytes), 0)).unwrap();
    sink.accept(sample_record("/0").into()).unwrap();
    assert!(sink.flush().await.is_err(), "the disk is full");
    sink.accept(sample_record("/1").into()).unwrap();
    assert!(sink.flush().await.is_ok());
    assert_eq!(sink.lost(), 0);
    drop(sink);
    std::fs::write(trail.path(), &*bytes.lock().unwrap()).unwrap();
    let report = trail.verify();
    assert!(report.is_sound() && report.torn.is_empty() && report.torn_tail.is_none(), "{report}");
    for path in ["/0", "/1"] {
        assert_eq!(trail.lines().iter().filter(|line| line.contains(&format!("\"path\":\"{path}\""))).count(), 1);
    }
}

/// Keeps what it cannot deliver, and delivers it later, as a writer with a buffer does where the disk is full for a moment.
#[derive(Clone, Default)]
struct Buffered {
    delivered: Arc<Mutex<Vec<u8>>>,
    buffer: Arc<Mutex<Vec<u8>>>,
    is_full: Arc<AtomicBool>,
}

impl std::io::Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.delivered.lock().unwrap().append(&mut self.buffer.lock().unwrap());
        Ok(())
    }
}

#[tokio::test]
async fn what_a_buffer_delivers_late_is_no_fork() {
    let trail = Trail::new();
    let writer = Buffered::default();
    let chain = Chain::new(ChainKey::from_file_or_new(&trail.key).unwrap());
    let sink = JsonLines::builder().chain(chain).to_writer(writer.clone()).unwrap();
    let write = async |path: &str| {
        sink.accept(sample_record(path).into()).unwrap();
        sink.flush().await.is_ok()
    };
    assert!(write("/0").await);
    writer.is_full.store(true, Ordering::SeqCst);
    assert!(!write("/1").await, "nobody can count on it");
    writer.is_full.store(false, Ordering::SeqCst);
    assert!(write("/2").await);
    assert_eq!(sink.lost(), 1);
    drop(sink);
    std::fs::write(trail.path(), &*writer.delivered.lock().unwrap()).unwrap();
    let report = trail.verify();
    assert!(report.is_sound(), "{report}");
    for path in ["/0", "/1", "/2"] {
        assert_eq!(trail.lines().iter().filter(|line| line.contains(&format!("\"path\":\"{path}\""))).count(), 1);
    }
}

/// The file that lacks the line feed gets it, not the one that begins.
#[test]
fn a_line_that_lacks_its_line_feed_alone_is_a_link_also_where_a_file_begins() {
    let trail = Trail::new();
    trail.run(3, |builder| builder);
    let whole = std::fs::read(trail.path()).unwrap();
    std::fs::write(trail.path(), &whole[..whole.len() - 1]).unwrap();
    trail.run(1, |builder| builder.rotate_at_size(1));
    let files = trail.files();
    assert!(files.len() > 1 && std::fs::read(&files[0]).unwrap() == whole);
    let report = trail.verify();
    assert!(report.is_sound() && report.torn.is_empty(), "{report}");
}

/// Who may write the file and has not the key puts something in the place of what a crash left, as long as that.
#[test]
fn what_stands_for_a_torn_line_does_not_read_as_one() {
    let trail = Trail::new();
    trail.run(12, |builder| builder);
    let whole = std::fs::read(trail.path()).unwrap();
    std::fs::write(trail.path(), &whole[..whole.len() - 200]).unwrap();
    trail.run(3, |builder| builder);
    let lines = trail.lines();
    let at = lines.iter().position(|line| line.contains("torn")).unwrap();
    let len = lines[at - 1].len();
    let forged = r#"{"entry":"decided","outcome":"denied","path":"/x"}"#;
    let fill = |text: &str, with: &str| format!("{text}{}", with.repeat(len - text.len()));
    let mut altered = lines[at - 1].clone();
    altered.replace_range(12..13, "#");
    for (name, instead, is_sound) in [
        ("nothing", vec![lines[at - 1].clone()], true),
        ("two pieces of it", vec![lines[at - 1][..40].to_owned(), lines[at - 1][40..].to_owned()], true),
        ("noise", vec![fill("", "x")], true),
        ("another beginning of a line", vec![altered], true),
        ("an object", vec![fill(forged, " ")], false),
        ("an object after spaces", vec![fill("", " ")[..len - forged.len()].to_owned() + forged], false),
        ("an object and noise", vec![fill(forged, "x")], false),
        ("an object that is not text", vec![fill(&forged.replace("/x", "\u{fffd}"), " ")], false),
        ("two objects", vec![forged.to_owned(), fill(forged, " ")[..len - forged.len()].to_owned()], false),
        ("noise, and an object", vec![fill("", "x")[..len - forged.len()].to_owned(), forged.to_owned()], false),
        ("behind a carriage return", vec![fill(&format!("x\r{forged}"), " ")], false),
        ("behind a line separator", vec![fill(&format!("x\u{2028}{forged}"), " ")], false),
        (
            "of many lists",
            vec![{
                let deep = (len - 6) / 2;
                fill(&format!(r#"{{"a":{}{}}}"#, "[".repeat(deep), "]".repeat(deep)), " ")
            }],
            false,
        ),
    ] {
        let line = instead.iter().position(|line| line.contains('{') && line.contains('}'));
        let changed: Vec<_> = lines[..at - 1].iter().cloned().chain(instead).chain(lines[at..].to_vec()).collect();
        trail.rewrite(&changed);
        let report = trail.verify_with_sent();
        assert_eq!(report.is_sound(), is_sound, "{name}: {report}");
        let Some(problem) = report.problem else { continue };
        assert_eq!(problem.kind, ProblemKind::Unreadable, "{name}");
        assert_eq!(problem.line, (at + line.unwrap()) as u64, "{name}: the line itself is named");
    }

    // At the end, and at the beginning.
    for (name, text) in [
        ("the end", format!("{}{forged}", lines.concat_lines())),
        ("the end, and noise", format!("{}{forged}x", lines.concat_lines())),
        ("a line of another chain", format!("{}{}", lines.concat_lines(), lines[1])),
        ("the beginning", format!("{forged}\n{}", lines.concat_lines())),
    ] {
        std::fs::write(trail.path(), text).unwrap();
        let report = trail.verify();
        assert!(!report.is_sound(), "{name}: {report}");
    }
}

/// Who may write the file and has not the key cuts off the beginning, and puts something before a line of theirs.
#[test]
fn the_first_line_that_is_kept_must_open_its_file() {
    let trail = Trail::new();
    trail.run(30, |builder| builder);
    let lines = trail.lines();
    let theirs = lines[5].replace("allowed", "denied");
    let with = |members: &str| theirs.replacen(r#","entry":"#, &format!(r#",{members},"entry":"#), 1);
    let opened = format!(r#""torn":1,"previous":"{}""#, "0".repeat(64));
    let opened = with(&opened).replacen(r#""entry":"decided""#, r#""entry":"opened""#, 1);
    for (name, before, line, seq, kind) in [
        ("nothing", None, theirs.clone(), 1, ProblemKind::NotOpened),
        ("an empty line", Some(""), theirs.clone(), 1, ProblemKind::Unreadable),
        ("a fragment that the line tells of", Some("x"), with(r#""torn":1"#), 1, ProblemKind::NotOpened),
        ("a fragment, and the line opens the file", Some("x"), opened, 6, ProblemKind::Unreadable),
    ] {
        let rest = lines[6..].iter().cloned();
        trail.rewrite(&before.map(str::to_owned).into_iter().chain([line]).chain(rest).collect::<Vec<_>>());
        let report = trail.verify();
        let problem = report.problem.clone().unwrap_or_else(|| panic!("{name}: {report}"));
        assert_eq!((problem.seq, problem.kind), (seq, kind), "{name}: {report}");
        assert_eq!(report.first, None, "{name}: {report}");
    }
    let mut put_in = lines.clone();
    put_in.insert(7, String::new());
    trail.rewrite(&put_in);
    let problem = trail.verify().problem.unwrap();
    assert_eq!((problem.line, problem.seq, problem.kind), (8, 8, ProblemKind::Unreadable));
}

#[test]
fn a_file_may_begin_with_a_line_that_was_never_finished() {
    let trail = Trail::new();
    std::fs::write(trail.path(), r#"{"seq":1,"schema":1"#).unwrap();
    trail.run(12, |builder| builder);
    let report = trail.verify_with_sent();
    assert!(report.is_sound() && report.first == Some(1), "{report}");
    assert_eq!(report.torn.iter().map(|torn| torn.bytes).collect::<Vec<_>>(), [19]);
}

/// While a chain is written, a log rotation takes its file away, and somebody else begins another one and dies.
#[tokio::test]
async fn a_file_that_somebody_else_left_torn_is_gone_on_with() {
    let trail = Trail::new();
    let chain = Chain::new(ChainKey::from_file_or_new(&trail.key).unwrap());
    let sink = JsonLines::builder().chain(chain).open(trail.path()).unwrap();
    for (name, left) in [("/0", None), ("/1", Some("{\"path\":")), ("/2", None)] {
        if let Some(left) = left {
            let away = trail.directory.path().join("audit.jsonl.20270115T080000.000000000");
            std::fs::rename(trail.path(), away).unwrap();
            std::fs::write(trail.path(), left).unwrap();
        }
        sink.accept(sample_record(name).into()).unwrap();
        sink.flush().await.unwrap();
    }
    drop(sink);
    let report = trail.verify();
    assert!(report.is_sound() && report.torn_tail.is_none(), "{report}");
    assert_eq!(report.torn.iter().map(|torn| (torn.file.clone(), torn.bytes)).collect::<Vec<_>>(), [(trail.path(), 8)]);
    assert_eq!(trail.lines().iter().filter(|line| line.contains("\"path\":\"/")).count(), 2);
}

#[test]
fn a_chain_is_not_begun_in_the_middle_of_a_file() {
    let trail = Trail::new();
    std::fs::write(trail.path(), "{\"entry\":\"decided\"}\n").unwrap();
    let chain = Chain::new(ChainKey::generate().unwrap());
    let error = JsonLines::builder().chain(chain).open(trail.path()).unwrap_err();
    assert!(error.to_string().contains("no line of the chain"), "{error}");
    std::fs::write(trail.path(), "some notes\n").unwrap();
    let chain = Chain::new(ChainKey::generate().unwrap());
    let error = JsonLines::builder().chain(chain).open(trail.path()).unwrap_err();
    assert!(error.to_string().contains("in no chain"), "{error}");
    assert!(ChainKey::from_pkcs8(b"nonsense").is_err());
    assert!("xyz".parse::<PublicKey>().is_err());
}

#[test]
fn a_checkpoint_has_lines_and_comes_in_time() {
    for (lines, millis, taken) in
        [(0, 1_000, false), (1, 0, false), (1, 99, false), (1, 100, true), (1, 3_600_000, true), (1, 3_600_001, false)]
    {
        let chain = Chain::new(ChainKey::generate().unwrap()).checkpoint_every(lines, Duration::from_millis(millis));
        assert_eq!(chain.is_ok(), taken, "{lines} {millis}");
    }
}

#[test]
fn a_key_file_that_holds_nothing_of_the_kind_or_is_open_to_everybody_is_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chain.key");
    let refusal = || ChainKey::from_file_or_new(&path).unwrap_err().to_string();
    let key = ChainKey::from_file_or_new(&path).unwrap().public_key();
    #[cfg(unix)]
    {
        let open_to =
            |mode| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        for (mode, shown) in [(0o666, "0666"), (0o644, "0644"), (0o602, "0602")] {
            open_to(mode);
            let problem = format!("may be read or written by everybody (mode {shown}): say chmod 0600");
            assert_eq!(refusal(), format!("chain key: {} {problem}", path.display()));
        }
        open_to(0o640);
    }
    assert_eq!(ChainKey::from_file_or_new(&path).unwrap().public_key(), key);
    std::fs::write(&path, "x").unwrap();
    assert_eq!(refusal(), format!("chain key: {} holds no Ed25519 key in PKCS #8", path.display()));
}

/// Processes that start together for the first time sign with the key that stays.
#[test]
fn of_several_that_make_a_key_all_have_the_one_that_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chain.key");
    let made = || ChainKey::from_file_or_new(&path).unwrap().public_key();
    let keys: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(made)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == made()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
}

/// A mount that is not there yet: no key is made in its place.
#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chain.key");
    std::os::unix::fs::symlink(directory.path().join("absent/key"), &path).unwrap();
    let error = ChainKey::from_file_or_new(&path).unwrap_err().to_string();
    assert_eq!(error, format!("chain key: {} cannot be read or made", path.display()));
}

#[test]
fn the_example_says_the_same() {
    let trail = Trail::new();
    trail.run(12, |builder| builder);
    trail.run(12, |builder| builder);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run_with = |more: &[&str]| {
        let mut command = std::process::Command::new(&cargo);
        command.args(["run", "--quiet", "--all-features", "--example", "audit_verify", "--", "--key"]);
        let output = command.arg(trail.public().to_string()).args(more).arg(trail.path()).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), out + &err)
    };
    let run = || run_with(&[]);
    let (code, text) = run();
    assert!(code == Some(0) && text.contains("signed up to line"), "{text}");
    // A chain that hangs together is no proof without its checkpoints.
    let written = trail.lines();
    trail.rewrite(&forged::history((0, [0; 32]), 12));
    let (code, text) = run();
    assert!(code == Some(1) && text.contains("NOT PROVEN: no checkpoint"), "{text}");
    // Nor are lines after the last of them, or after the last that was kept elsewhere.
    let signed = written.iter().position(|line| line.contains("checkpoint")).unwrap();
    trail.rewrite(&written[..signed + 3]);
    let (code, text) = run_with(&["--unsigned", "1"]);
    assert!(code == Some(1) && text.contains("NOT PROVEN: 2 lines at the end"), "{text}");
    let kept = trail.directory.path().join("kept");
    let kept_as = kept.to_str().unwrap();
    std::fs::write(&kept, trail.sent.lock().unwrap()[0].to_string()).unwrap();
    let opened = written.iter().rposition(|line| line.contains(r#""entry":"opened""#)).unwrap();
    trail.rewrite(&written[opened..]);
    let (code, text) = run_with(&["--checkpoints", kept_as]);
    assert!(code == Some(1) && text.contains("before the first line") && text.contains("say with --from"), "{text}");
    let from = serde_json::from_str::<serde_json::Value>(&written[opened]).unwrap()["seq"].to_string();
    let (_, text) = run_with(&["--checkpoints", kept_as, "--from", &from]);
    assert!(text.contains("\nsound\n"), "{text}");
    let stranger = Trail::new();
    stranger.run(12, |builder| builder);
    std::fs::write(&kept, stranger.sent.lock().unwrap()[0].to_string()).unwrap();
    let (code, text) = run_with(&["--checkpoints", kept_as]);
    assert!(code == Some(2) && text.contains("by none of the keys"), "{text}");
    trail.rewrite(&written);
    let mut lines = trail.lines();
    lines[4] = lines[4].replace("allowed", "denied");
    trail.rewrite(&lines);
    let (code, text) = run();
    assert!(code == Some(1) && text.contains("record 5 (") && text.contains("line 5): altered"), "{text}");
}
