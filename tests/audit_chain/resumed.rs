//! A process that starts goes on with what its key vouches for, and signs nothing that it only found.

use super::{
    forged::{add, history, link},
    *,
};

impl Trail {
    fn refusal(&self) -> String {
        let opened = JsonLines::builder().chain(self.chain()).open(self.path());
        opened.err().map_or_else(|| "it was opened".to_owned(), |error| error.to_string())
    }

    fn rotated(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl.20270115T080000.000000000")
    }
}

fn decided(lines: &mut Vec<String>, count: usize) {
    (0..count).for_each(|n| add(lines, &format!(r#""schema":1,"entry":"decided","path":"/forged/{n}""#)));
}

fn is_checkpoint(line: &str) -> bool {
    line.contains(r#""entry":"checkpoint""#)
}

/// Who may write the files and has not the key replaces them while the service is down.
#[test]
fn what_the_key_does_not_vouch_for_is_not_signed_after_a_restart() {
    let trail = Trail::new();
    trail.run(30, |builder| builder);
    let lines = trail.lines();
    let last = lines.iter().rposition(|line| is_checkpoint(line)).unwrap();
    let stranger = Trail::new();
    stranger.run(30, |builder| builder);
    let forge = |change: &dyn Fn(&mut Vec<String>)| {
        let mut forged = lines.clone();
        change(&mut forged);
        forged
    };
    for (name, forged, says) in [
        ("an invented history", history((0, [0; 32]), 30), "has no checkpoint"),
        ("one of a single record", history((0, [0; 32]), 1), "has no checkpoint"),
        ("one that follows what is gone", history((1_000, [7; 32]), 30), "record 1: missing"),
        ("a first line that follows what is gone", history((1_000, [7; 32]), 0), "record 1: missing"),
        ("a first line after nothing known", history((0, [7; 32]), 0), "record 1: altered"),
        ("another key's", stranger.lines(), "a checkpoint that no known key signed (Chain::with_former_keys"),
        (
            "an altered line behind the last checkpoint",
            forge(&|lines| {
                decided(lines, 3);
                let at = lines.len() - 2;
                lines[at] = lines[at].replace("forged", "FORGED");
            }),
            "altered: its hash",
        ),
        (
            "a line put in behind it",
            forge(&|lines| lines.push(r#"{"entry":"decided"}"#.into())),
            "no line of the chain",
        ),
        (
            "lines before it made anew, and it chained to them",
            forge(&|lines| {
                let members = lines[last].split_once(',').unwrap().1.rsplit_once(r#","hash""#).unwrap().0.to_owned();
                lines.truncate(last - 2);
                decided(lines, 2);
                add(lines, &members);
            }),
            "altered: its hash",
        ),
        ("more behind it than can be", forge(&|lines| decided(lines, 1_001)), "more than 1000 records"),
        ("much more behind it", forge(&|lines| decided(lines, 100_000)), "more than 1000 records"),
    ] {
        trail.rewrite(&forged);
        let refusal = trail.refusal();
        assert!(refusal.contains(says), "{name}: {refusal}");
        assert!(refusal.starts_with(&format!("audit chain: {}", trail.path().display())), "{name}: {refusal}");
        assert!(refusal.contains("move it away with its rotated files, and a new chain begins"), "{name}: {refusal}");
        assert_eq!(trail.lines(), forged, "{name}: nothing was written");
        // The same where it was rotated away, and the next file is not begun yet.
        std::fs::rename(trail.path(), trail.rotated()).unwrap();
        let refusal = trail.refusal();
        assert!(refusal.contains(says) && refusal.contains("audit chain"), "{name}, rotated: {refusal}");
        std::fs::remove_file(trail.rotated()).unwrap();
    }
    trail.rewrite(&lines);
    trail.run(1, |builder| builder);
    assert!(trail.verify_with_sent().is_sound());
    // What a true checkpoint at the end contradicts stays contradicted.
    let mut forged = lines[..last - 2].to_vec();
    decided(&mut forged, 2);
    forged.extend_from_slice(&lines[last..]);
    trail.rewrite(&forged);
    trail.run(1, |builder| builder);
    let problem = trail.verify().problem.unwrap();
    assert_eq!((problem.line, problem.kind), (last as u64 + 1, ProblemKind::Altered));
}

/// As many as a crash may leave are gone on with, and told.
#[test]
fn lines_behind_the_last_checkpoint_are_told_as_unsigned() {
    for rotates in [false, true] {
        let trail = Trail::new();
        trail.run(30, |builder| builder);
        let mut lines = trail.lines();
        decided(&mut lines, 1_000);
        trail.rewrite(&lines);
        assert!(trail.verify().found_unsigned.is_empty());
        if rotates {
            std::fs::rename(trail.path(), trail.rotated()).unwrap();
        }
        let end = link(lines.last()).0;
        for _ in 0..3 {
            trail.run(3, |builder| builder);
            let report = trail.verify();
            assert!(report.is_sound() && report.uncovered() == 0, "{report}");
            assert_eq!(report.found_unsigned, [end - 999..=end], "{report}");
            assert!(report.to_string().contains("were found without a signature at a start"), "{report}");
        }
    }
}

/// Wherever a crash cuts off a batch that was being written, the next process goes on, and nothing is wrong.
#[test]
fn a_crash_at_any_byte_is_gone_on_after() {
    for rotates in [false, true] {
        let trail = Trail::new();
        if rotates {
            trail.run(12, |builder| builder);
            std::fs::rename(trail.path(), trail.rotated()).unwrap();
        }
        trail.run(12, |builder| builder);
        let whole = std::fs::read(trail.path()).unwrap();
        let feeds = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').flat_map(|(at, _)| at - 2..at + 3);
        let begin = trail.lines()[..3].concat_lines().len();
        let cuts: std::collections::BTreeSet<_> =
            (0..begin).chain((begin..whole.len()).step_by(41)).chain(feeds).collect();
        for cut in cuts {
            std::fs::write(trail.path(), whole.get(..cut).unwrap_or(&whole)).unwrap();
            trail.run(1, |builder| builder);
            let report = trail.verify();
            assert!(report.is_sound() && report.uncovered() == 0, "{cut}: {report}");
            // And where the process that went on died as well.
            let again = std::fs::read(trail.path()).unwrap();
            std::fs::write(trail.path(), &again[..again.len() - cut % 600]).unwrap();
            trail.run(1, |builder| builder);
            let report = trail.verify();
            assert!(report.is_sound() && report.uncovered() == 0, "{cut} and {}: {report}", cut % 600);
        }
    }
}

/// A line that was never finished stands at the end of a file, and the next one was not begun.
#[test]
fn a_torn_end_of_the_file_before_is_told() {
    let trail = Trail::new();
    trail.run(12, |builder| builder);
    let whole = std::fs::read(trail.path()).unwrap();
    std::fs::write(trail.rotated(), &whole[..whole.len() - 40]).unwrap();
    std::fs::remove_file(trail.path()).unwrap();
    trail.run(1, |builder| builder);
    let report = trail.verify();
    assert!(report.is_sound() && report.torn.len() == 1, "{report}");
}

#[test]
fn each_file_has_a_checkpoint_before_its_first_record() {
    let trail = Trail::new();
    trail.run(3, |builder| builder);
    trail.run(0, |builder| builder);
    trail.run(300, |builder| builder.rotate_at_size(20_000));
    let files = trail.files();
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.contains(r#""entry":"opened""#) {
                assert!(lines.next().is_some_and(is_checkpoint), "{line}");
            }
        }
    }
}

/// A disk that takes so many bytes, then none once, and then all.
struct Fills(Arc<Mutex<Vec<u8>>>, Option<usize>);

impl std::io::Write for Fills {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = match self.1 {
            Some(0) => {
                self.1 = None;
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            Some(left) => left.min(bytes.len()),
            None => bytes.len(),
        };
        self.1 = self.1.map(|left| left - taken);
        self.0.lock().unwrap().extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The first record has a checkpoint before it, also if the disk had no room for that at first.
#[tokio::test]
async fn what_begins_a_file_is_signed_however_it_is_written() {
    for room in (0..700).step_by(7) {
        let trail = Trail::new();
        let bytes = Arc::default();
        let sink = JsonLines::builder().chain(trail.chain()).to_writer(Fills(Arc::clone(&bytes), Some(room))).unwrap();
        sink.accept(sample_record("/0").into()).unwrap();
        assert!(sink.flush().await.is_err(), "{room}");
        sink.accept(sample_record("/1").into()).unwrap();
        assert!(sink.flush().await.is_ok(), "{room}");
        // As if it died here.
        std::fs::write(trail.path(), &*bytes.lock().unwrap()).unwrap();
        trail.run(1, |builder| builder);
        let report = trail.verify();
        assert!(report.is_sound() && report.uncovered() == 0, "{room}: {report}");
    }
}

#[test]
fn a_key_that_was_replaced_is_named() {
    let trail = Trail::new();
    trail.run(12, |builder| builder);
    let former = trail.public();
    std::fs::remove_file(&trail.key).unwrap();
    assert!(trail.refusal().contains("with_former_keys"));
    let open = |chain: Chain| JsonLines::builder().chain(chain).open(trail.path());
    let stranger = ChainKey::generate().unwrap().public_key();
    assert!(open(trail.chain().with_former_keys([stranger])).is_err());
    let sink = open(trail.chain().with_former_keys([stranger, former])).unwrap();
    sink.accept(sample_record("/0").into()).unwrap();
    drop(sink);
    trail.run(1, |builder| builder);
    let report = verify(trail.files(), &[former, trail.public()], &[]).unwrap();
    assert!(report.is_sound() && report.uncovered() == 0, "{report}");
}
