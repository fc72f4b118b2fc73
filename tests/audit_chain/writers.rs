//! A chain has one writer at a time.

use super::*;

fn opened(trail: &Trail, set: impl Fn(JsonLinesBuilder) -> JsonLinesBuilder) -> Result<JsonLines, String> {
    let chain = Chain::new(ChainKey::from_file_or_new(&trail.key).unwrap());
    set(JsonLines::builder()).chain(chain).open(trail.path()).map_err(|error| error.to_string())
}

/// As a process does that starts while the old one still drains.
#[cfg(unix)]
#[tokio::test]
async fn a_second_writer_is_told_so_until_the_first_one_ends() {
    for (name, size) in [("one file", u64::MAX), ("rotated files", 1)] {
        let trail = Trail::new();
        let open = || opened(&trail, |builder| builder.rotate_at_size(size).keep_files(100));
        let first = open().unwrap();
        for n in 0..3 {
            let error = open().unwrap_err();
            assert!(
                error.contains("is written by another process") && error.contains("audit.jsonl"),
                "{name}: {error}"
            );
            first.accept(sample_record(&format!("/{n}")).into()).unwrap();
            first.flush().await.unwrap();
        }
        assert_eq!(trail.files().len() > 1, size == 1, "{name}");
        drop(first);
        let second = open().unwrap();
        second.accept(sample_record("/second").into()).unwrap();
        drop(second);
        let report = trail.verify();
        assert!(report.is_sound() && report.uncovered() == 0, "{name}: {report}");
    }
}

/// Between two files, and where the next one stands there already.
#[cfg(unix)]
#[tokio::test]
async fn who_rotates_stays_the_only_writer() {
    let trail = Trail::new();
    let first = opened(&trail, |builder| builder).unwrap();
    first.accept(sample_record("/0").into()).unwrap();
    first.flush().await.unwrap();
    std::fs::rename(trail.path(), trail.directory.path().join("audit.jsonl.20270115T080000.000000000")).unwrap();
    for n in 1..3 {
        let error = opened(&trail, |builder| builder).unwrap_err();
        assert!(error.contains("is written by another process"), "{error}");
        first.accept(sample_record(&format!("/{n}")).into()).unwrap();
        first.flush().await.unwrap();
    }
    drop(first);
    let report = trail.verify();
    assert!(report.is_sound() && report.uncovered() == 0 && trail.files().len() == 2, "{report}");
}

/// Lines that are in no chain would break it.
#[cfg(target_os = "linux")]
#[test]
fn a_chain_is_not_begun_in_a_file_that_others_write_to() {
    let trail = Trail::new();
    let plain = [JsonLines::open(trail.path()).unwrap(), JsonLines::open(trail.path()).unwrap()];
    assert!(opened(&trail, |builder| builder).unwrap_err().contains("is written by another process"));
    drop(plain);
    drop(opened(&trail, |builder| builder).unwrap());
}
