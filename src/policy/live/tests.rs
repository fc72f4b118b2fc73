use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use super::*;

impl Versioned for u32 {
    fn version(&self) -> &str {
        "of tests"
    }
}

/// A policy that is a number, from a file that says one.
fn number(texts: &[SourceText]) -> Result<u32, ConfigError> {
    let [SourceText { name, text }] = texts else { panic!("one file") };
    text.trim().parse().map_err(|error| ConfigError::new(name, text, "is no number").caused_by(error))
}

fn write(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn live(dir: &tempfile::TempDir) -> (PathBuf, Arc<Live<u32>>) {
    let path = dir.path().join("policy");
    write(&path, "1");
    let live = Live::from_files(Files::new([&path], 8), number).unwrap();
    (path, Arc::new(live))
}

fn told(live: &Live<u32>) -> (u32, u64, u64, u64, bool) {
    let state = live.state();
    (*live.load(), live.generation(), state.reloads(), state.failures(), state.failing().is_some())
}

#[test]
fn a_bad_policy_never_runs_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, live) = live(&dir);
    assert_eq!(live.reload().unwrap(), Reloaded::Unchanged);
    assert_eq!(told(&live), (1, 0, 0, 0, false));
    write(&path, "two");
    assert!(live.reload().is_err() && live.reload().is_err(), "also at the second look");
    assert_eq!(told(&live), (1, 0, 0, 1, true));
    assert!(live.state().failing().unwrap().contains("policy: two is no number: invalid digit"));
    write(&path, "three");
    assert!(live.reload().is_err());
    assert_eq!(told(&live), (1, 0, 0, 2, true));
    write(&path, "2");
    assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
    assert_eq!(told(&live), (2, 1, 1, 2, false));
    write(&path, "more than 8");
    assert!(live.reload().unwrap_err().to_string().contains("has more than 8 bytes"));
    std::fs::remove_file(&path).unwrap();
    assert!(live.reload().is_err() && live.reload().is_err());
    assert_eq!(told(&live), (2, 1, 1, 4, true));
    // The file is back as it was: what runs is what it says.
    write(&path, "2");
    assert_eq!(live.reload().unwrap(), Reloaded::Unchanged);
    assert_eq!(told(&live), (2, 1, 1, 4, false));
}

#[test]
fn what_was_put_by_hand_stays_until_the_file_says_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, live) = live(&dir);
    live.replace(|_| Ok(9)).unwrap();
    for trouble in ["missing", "bad", "too long to be read"] {
        std::fs::remove_file(&path).unwrap();
        if trouble != "missing" {
            write(&path, trouble);
        }
        assert!(live.reload().is_err(), "{trouble}");
        write(&path, "1");
        assert_eq!(live.reload().unwrap(), Reloaded::Unchanged, "{trouble}");
        assert_eq!((*live.load(), live.state().failing()), (9, None), "{trouble}");
    }
    write(&path, "2");
    assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
    write(&path, "1");
    assert_eq!(live.reload().unwrap(), Reloaded::Replaced, "it is not what was accepted last");
    assert_eq!(*live.load(), 1);
}

#[test]
fn a_file_that_is_still_bad_is_told_also_after_a_policy_was_put_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let (path, live) = live(&dir);
    write(&path, "two");
    assert!(live.reload().is_err());
    live.replace(|_| Ok(9)).unwrap();
    assert_eq!(told(&live), (9, 1, 1, 1, true));
    assert!(live.state().failing().unwrap().contains("two is no number"));
    assert!(live.reload().is_err());
    assert_eq!(told(&live), (9, 1, 1, 1, true), "it stays as it is, and counts once");
    write(&path, "2");
    assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
    assert_eq!(told(&live), (2, 2, 2, 1, false));
}

#[test]
fn a_policy_that_was_refused_by_hand_is_told_until_the_next_look_at_good_files() {
    let dir = tempfile::tempdir().unwrap();
    let (path, live) = live(&dir);
    let nonsense = || live.replace(|_| Err(ConfigError::new("policy", "3", "is odd")));
    assert!(nonsense().is_err());
    assert_eq!(told(&live), (1, 0, 0, 1, true));
    assert_eq!(live.reload().unwrap(), Reloaded::Unchanged);
    assert_eq!(told(&live), (1, 0, 0, 1, false));
    write(&path, "two");
    assert!(live.reload().is_err() && nonsense().is_err() && live.reload().is_err());
    assert_eq!(told(&live), (1, 0, 0, 3, true), "files that are bad are told as long as they are");
}

#[test]
fn files_on_which_the_parser_panics_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy");
    write(&path, "1");
    let explode = |texts: &[SourceText]| if texts[0].text == "boom" { panic!("boom") } else { number(texts) };
    let live = Arc::new(Live::from_files(Files::new([&path], 8), explode).unwrap());
    write(&path, "boom");
    assert!(live.reload().is_err() && live.reload().is_err());
    assert_eq!(told(&live), (1, 0, 0, 1, true));
    assert!(live.state().failing().unwrap().contains("panics"));
    write(&path, "2");
    assert_eq!(live.reload().unwrap(), Reloaded::Replaced);
    assert_eq!(told(&live), (2, 1, 1, 1, false));
}

#[test]
fn who_asks_never_frees_a_policy() {
    let live = Live::new(1);
    let asked = live.load();
    live.replace(|_| Ok(2)).unwrap();
    let kept = |live: &Live<u32>| lock(&live.replacing).replaced.iter().map(|policy| **policy).collect::<Vec<_>>();
    assert_eq!(kept(&live), [1], "it is still asked");
    drop(asked);
    assert_eq!(kept(&live), [1], "and not freed when it is no more");
    live.replace(|_| Ok(3)).unwrap();
    assert!(kept(&live).is_empty());
}

#[test]
fn replaced_by_hand() {
    let live = Arc::new(Live::new(1));
    live.replace(|old| Ok(old + 1)).unwrap();
    live.amend(|old| old + 10);
    assert!(live.replace(|_| Err(ConfigError::new("policy", "3", "is odd"))).is_err());
    assert_eq!(told(&live), (12, 1, 1, 1, true));
    assert!(live.reload().unwrap_err().to_string().contains("no file"));
    assert!(live.watch(Duration::from_secs(9)).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_files_are_looked_at_until_the_policy_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (path, live) = live(&dir);
    assert!(live.watch(Duration::from_millis(999)).is_err());
    live.watch(Duration::from_secs(5)).unwrap();
    write(&path, "2");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(*live.load(), 1);
    until(|| *live.load() == 2).await;
    write(&path, "nonsense");
    until(|| live.state().failing().is_some()).await;
    assert_eq!(*live.load(), 2);
    let gone = Arc::downgrade(&live);
    drop(live);
    until(|| gone.strong_count() == 0).await;
}

/// A look runs on a thread of its own: time that stands still passes by itself, but only while nobody else runs.
async fn until(is: impl Fn() -> bool) {
    for _ in 0..100 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it never came");
}
