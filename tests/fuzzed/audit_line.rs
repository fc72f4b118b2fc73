//! Lines of a chained audit file. Whatever stands there is read to a report; and what the report calls sound is lines that
//! follow each other, by the count of a second reader of their JSON.

use std::io::Write;

use portcullis::audit::chain::verify;

/// Verifies it as a file. True if it is sound and has lines.
pub fn check(data: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(data).expect("it is written");
    let report = verify([file.path()], &[], &[]).expect("it can be read");
    assert!(!report.to_string().is_empty());
    assert!(report.checkpoint.is_none(), "no key vouches for anything");
    let (Some(first), Some(last)) = (report.first, report.last) else { return false };
    assert_eq!(report.uncovered(), last);
    let whole = data.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let numbers = whole.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok()?["seq"].as_u64());
    let numbers: Vec<u64> = numbers.collect();
    let verified: Vec<u64> = (first..=last).collect();
    if report.is_sound() {
        assert_eq!(numbers, verified, "every line that is one is in the chain");
    } else {
        assert!(numbers.starts_with(&verified), "{numbers:?} {verified:?}");
    }
    report.is_sound()
}
