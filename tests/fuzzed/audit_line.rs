//! Lines of a chained audit file. Whatever stands there is read to a report, which believes no checkpoint without a key and
//! counts no more lines than there are.

use std::io::Write;

use portcullis::audit::chain::{PublicKey, verify};

/// Verifies it as a file, by these keys. The number of the last line that is as it was written, zero if there is none.
pub fn check(data: &[u8], keys: &[PublicKey]) -> u64 {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(data).expect("it is written");
    let report = verify([file.path()], keys, &[]).expect("it can be read");
    assert!(!report.to_string().is_empty());
    assert!(report.checkpoint.is_none() || !keys.is_empty(), "without a key nothing is vouched for");
    let (Some(first), Some(last)) = (report.first, report.last) else { return 0 };
    assert!(report.uncovered() <= last && first <= last);
    let lines = data.iter().filter(|byte| **byte == b'\n').count();
    assert!(last - first < u64::try_from(lines).unwrap_or(u64::MAX), "each of them ends in a line feed");
    last
}
