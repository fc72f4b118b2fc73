//! Who may write the files and has not the key makes lines of their own, with numbers and hashes that hang together.

use aws_lc_rs::digest::{Context, SHA256};

use super::*;

/// The number and the hash of a line; those of before the first one, if there is none.
pub(super) fn link(line: Option<&String>) -> (u64, [u8; 32]) {
    let Some(line) = line else { return (0, [0; 32]) };
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let hash = line["hash"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hash[2 * at..][..2], 16).unwrap();
    (line["seq"].as_u64().unwrap(), std::array::from_fn(byte))
}

pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds a line with these members after a line of this number and hash.
pub(super) fn add_after((seq, hash): (u64, [u8; 32]), lines: &mut Vec<String>, members: &str) {
    let text = format!(r#"{{"seq":{},{members}"#, seq + 1);
    let mut context = Context::new(&SHA256);
    context.update(&hash);
    context.update(text.as_bytes());
    lines.push(format!(r#"{text},"hash":"{}"}}"#, hex(context.finish().as_ref())));
}

pub(super) fn add(lines: &mut Vec<String>, members: &str) {
    add_after(link(lines.last()), lines, members);
}

/// A history of so many records, after a line of this number and hash.
pub(super) fn history(after: (u64, [u8; 32]), records: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let opened = format!(r#""schema":1,"entry":"opened","time":"2027-01-15T08:00:00Z","previous":"{}""#, hex(&after.1));
    add_after(after, &mut lines, &opened);
    (0..records).for_each(|n| add(&mut lines, &format!(r#""schema":1,"entry":"decided","path":"/forged/{n}""#)));
    lines
}

#[test]
fn a_line_behind_a_checkpoint_that_was_kept_elsewhere_is_not_covered() {
    let trail = Trail::new();
    trail.run(30, |builder| builder);
    let (lines, kept) = (trail.lines(), trail.sent.lock().unwrap()[1].clone());
    let upto = usize::try_from(kept.upto()).unwrap();
    let verified = |lines: &[String]| {
        trail.rewrite(lines);
        verify([trail.path()], &[trail.public()], std::slice::from_ref(&kept)).unwrap()
    };
    let mut forged = lines[..upto].to_vec();
    assert_eq!(verified(&forged).uncovered(), 0);
    for behind in 1..3 {
        add(&mut forged, r#""entry":"decided","outcome":"allowed""#);
        let report = verified(&forged);
        assert!(report.is_sound() && report.checkpoint.as_ref() == Some(&kept), "{report}");
        assert_eq!(report.uncovered(), behind, "{report}");
    }
    assert_eq!(verified(&lines[..=upto]).uncovered(), 0, "the line that holds it stands there");
    assert_eq!(verified(&lines[..upto + 3]).uncovered(), 2);
}

#[test]
fn lines_that_are_not_there_are_not_uncovered() {
    let trail = Trail::new();
    trail.rewrite(&history((1_000, [7; 32]), 4));
    let report = trail.verify();
    assert!(report.is_sound() && report.checkpoint.is_none(), "{report}");
    assert_eq!((report.first, report.uncovered()), (Some(1_001), 5), "{report}");
}

#[test]
fn checkpoints_that_were_kept_elsewhere_meet_files_that_begin_behind_them() {
    let trail = Trail::new();
    trail.run(30, |builder| builder);
    let (lines, sent) = (trail.lines(), trail.sent.lock().unwrap().clone());
    let newest = sent.last().unwrap().upto();
    let before = usize::try_from(sent[1].upto()).unwrap();
    let true_link = link(lines[..before].last());
    for (name, after, kind, seq) in [
        ("behind all of them", newest + 1, ProblemKind::BeginsLater { first: newest + 2 }, sent[0].upto()),
        ("right behind the last", newest, ProblemKind::NotAsSigned { from: newest + 1 }, newest + 1),
        ("behind some", sent[1].upto() + 1, ProblemKind::NotAsSigned { from: sent[1].upto() + 2 }, sent[2].upto()),
        ("right behind one", sent[1].upto(), ProblemKind::NotAsSigned { from: sent[1].upto() + 1 }, sent[1].upto() + 1),
    ] {
        trail.rewrite(&history((after, [7; 32]), 40));
        assert!(trail.verify().is_sound(), "{name}: the hashes alone hang together");
        let report = trail.verify_with_sent();
        let problem = report.problem.clone().unwrap_or_else(|| panic!("{name}: {report}"));
        assert_eq!((problem.kind, problem.seq), (kind, seq), "{name}: {report}");
    }
    // What says truly what it follows: the older ones alone are missed.
    trail.rewrite(&history(true_link, 3));
    let report = verify_retained([trail.path()], &[trail.public()], &sent[..2], sent[1].upto() + 1).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.missed, report.uncovered()), (1, 4), "{report}");
}
