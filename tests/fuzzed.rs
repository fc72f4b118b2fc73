//! What the fuzz targets for files and fields check, on their seeds, on what is like them, and on whatever comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, reason = "test code")]

#[path = "fuzzed/audit_line.rs"]
mod audit_line;
#[path = "fuzzed/policy_file.rs"]
mod policy_file;
#[path = "fuzzed/structured_fields.rs"]
mod structured_fields;

use std::{sync::LazyLock, time::Duration};

use portcullis::{
    audit::{
        AuditSink, JsonLines,
        chain::{Chain, ChainKey},
    },
    testing::sample_record,
};
use proptest::prelude::*;

const POLICY: &str = include_str!("fuzzed/policy_file.seed");

/// A chained file of a dozen records, with checkpoints.
static LINES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let chain = Chain::new(ChainKey::generate().unwrap()).checkpoint_every(5, Duration::from_secs(600));
    let sink = JsonLines::builder().chain(chain).open(&path).unwrap();
    for number in 0..12 {
        sink.accept(sample_record(&format!("/{number}")).into()).unwrap();
    }
    drop(sink);
    std::fs::read(path).unwrap()
});

/// The text with some of its bytes cut out, doubled or replaced.
fn altered(seed: &[u8]) -> impl Strategy<Value = Vec<u8>> {
    let seed = seed.to_vec();
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u8, any::<u8>());
    prop::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = seed.clone();
        for (one, other, what, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let (one, other) = (one.index(bytes.len()), other.index(bytes.len()));
            let range = one.min(other)..one.max(other);
            match what {
                0 => drop(bytes.drain(range)),
                1 => bytes.extend_from_within(range),
                _ => bytes[one] = byte,
            }
        }
        bytes
    })
}

#[test]
fn the_seeds_are_what_they_should_be() {
    assert!(policy_file::check(POLICY));
    assert!(audit_line::check(&LINES));
    assert!(structured_fields::check("a \"b\" \\c\n600\n60"));
    for (name, text) in [("empty", "\n1"), ("not ASCII", "ä\n1"), ("a control", "a\tb\n1"), ("zero", "a\n0")] {
        assert!(!structured_fields::check(text), "{name}");
    }
    assert!(!audit_line::check(b"{}\n") && !policy_file::check("roles = 1"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn policy_files(bytes in altered(POLICY.as_bytes()), text in ".{0,200}") {
        policy_file::check(&String::from_utf8_lossy(&bytes));
        policy_file::check(&text);
    }

    #[test]
    fn audit_lines(bytes in altered(&LINES), other in prop::collection::vec(any::<u8>(), 0..300)) {
        // What is sound is what was written, or the beginning of it.
        prop_assert!(!audit_line::check(&bytes) || LINES.starts_with(bytes.trim_ascii_end()) || bytes == *LINES);
        audit_line::check(&other);
    }

    #[test]
    fn structured_fields(name in "[ -~]{0,70}", any_name in ".{0,20}", count: u32, burst: u32) {
        structured_fields::check(&format!("{name}\n{count}\n{burst}"));
        structured_fields::check(&format!("{any_name}\n{count}"));
    }
}
