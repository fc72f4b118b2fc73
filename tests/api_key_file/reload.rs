//! A file that others change, break, remove and repair.

use std::{fs, sync::Arc};

use portcullis::{
    Now, StoreErrorKind,
    api_key::{ApiKeyAdmin, ApiKeyStore, FileKeyStore, KeyChange},
};

use super::fixture::{FORMATS, Folder, Heard, id, leaked, looked, lookup, owner, record, until};

fn has(store: &FileKeyStore, number: u8) -> bool {
    matches!(store.find_now(lookup(number)), Now::Known(Ok(Some(_))))
}

fn revoked(store: &FileKeyStore, number: u8) -> bool {
    matches!(store.find_now(lookup(number)), Now::Known(Ok(Some(hit))) if hit.record().revocation().is_some())
}

#[tokio::test(start_paused = true)]
async fn what_another_process_writes_is_seen_by_the_task() {
    for format in FORMATS {
        let folder = Folder::new(format);
        let (ours, theirs) = (folder.create(), folder.open());
        let heard = Heard::of(&ours);
        theirs.insert(record(1)).await.unwrap();
        theirs.insert(record(2)).await.unwrap();
        assert!(!has(&ours, 1), "nobody looked yet");
        looked(|| has(&ours, 1) && has(&ours, 2)).await;
        until(|| heard.len() >= 2).await; // told after it can be found
        assert_eq!(heard.take(), [1, 2].map(|number| KeyChange::Key(id(number))));

        theirs.revoke(&id(1), &leaked()).await.unwrap();
        theirs.disable_owner(&owner(), &leaked()).await.unwrap();
        looked(|| revoked(&ours, 1)).await;
        until(|| heard.len() >= 2).await;
        assert_eq!(heard.take(), [KeyChange::Key(id(1)), KeyChange::Owner(owner())]);
        assert_eq!(ours.health().failures, 0);
    }
}

#[tokio::test]
async fn a_record_that_did_not_change_is_the_same_allocation() {
    let folder = Folder::new("toml");
    let (ours, theirs) = (folder.create(), folder.open());
    theirs.insert(record(1)).await.unwrap();
    assert!(ours.reload().await.unwrap() && !ours.reload().await.unwrap());
    let before = ours.find(lookup(1)).await.unwrap().unwrap();
    theirs.insert(record(2)).await.unwrap();
    assert!(ours.reload().await.unwrap());
    let after = ours.find(lookup(1)).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(before.record(), after.record()), "it carries the principal");
    assert_eq!(ours.health().loads, 3);
}

#[tokio::test]
async fn a_torn_file_changes_nothing_and_is_told() {
    for format in FORMATS {
        let folder = Folder::new(format);
        let store = folder.create();
        for number in [1, 2] {
            store.insert(record(number)).await.unwrap();
        }
        store.revoke(&id(2), &leaked()).await.unwrap();
        let (heard, whole) = (Heard::of(&store), folder.text());
        let mut failures = 0;
        for cut in (0..whole.trim_end().len()).step_by(7) {
            folder.put(&whole[..cut]);
            let error = store.reload().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{format}, {cut}");
            assert!(has(&store, 1) && revoked(&store, 2), "{format}, {cut}");
            failures += 1;
            let health = store.health();
            assert_eq!((health.keys, health.failures), (2, failures));
            assert!(health.failing.unwrap().contains(&format!("keys.{format}:")), "{format}, {cut}");
        }
        assert_eq!(heard.take(), [KeyChange::Lost], "who remembers answers is told that others' changes are not heard");
        let error = store.insert(record(3)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "what somebody is writing is not overwritten");
        assert!(!folder.text().contains(&id(3).to_string()));

        folder.put(&whole);
        store.reload().await.unwrap();
        assert_eq!((store.health().failing, heard.take()), (None, vec![KeyChange::Everything]));
        store.insert(record(3)).await.unwrap();
        assert_eq!(heard.take(), [KeyChange::Key(id(3))]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_finds_what_is_broken_gone_and_repaired() {
    let folder = Folder::new("toml");
    let store = folder.create();
    store.insert(record(1)).await.unwrap();
    let whole = folder.text();
    folder.put(&whole[..whole.len() / 2]);
    looked(|| store.health().failing.is_some()).await;
    let failures = store.health().failures;
    fs::remove_file(folder.path()).unwrap();
    looked(|| store.health().failures > failures).await;
    assert!(has(&store, 1) && store.health().failing.unwrap().contains("No such file"));

    folder.put(&whole.replace(&id(1).to_string(), &id(2).to_string()));
    looked(|| has(&store, 2)).await;
    until(|| store.health().failing.is_none()).await;
    assert!(!has(&store, 1), "a key that was taken out is gone");
}

#[tokio::test(start_paused = true)]
async fn two_writes_that_a_coarse_clock_cannot_tell_apart() {
    let folder = Folder::new("json");
    let store = folder.create();
    store.insert(record(1)).await.unwrap();
    store.reload().await.unwrap();
    let (one, two) = (folder.text(), folder.text().replace(&id(1).to_string(), &id(2).to_string()));
    let file = fs::File::options().write(true).open(folder.path()).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    assert_eq!(one.len(), two.len());
    folder.put(&two);
    file.set_modified(modified).unwrap(); // the same length, inode and time
    looked(|| has(&store, 2)).await;
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_store() {
    let folder = Folder::new("toml");
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let store = folder.create();
    assert!(has(&store, 1) || tokio::runtime::Handle::current().metrics().num_alive_tasks() == before + 1);
    drop(store);
    until(|| tokio::runtime::Handle::current().metrics().num_alive_tasks() == before).await;
}

#[test]
fn the_task_starts_with_the_first_look_up_in_a_runtime() {
    let folder = Folder::new("toml");
    let (ours, theirs) = (folder.create(), folder.open());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for number in 1..3 {
        // The runtime of the first round is gone in the second, and its task with it.
        runtime().block_on(async {
            assert!(!has(&ours, number));
            tokio::task::yield_now().await; // the task begins to wait
            theirs.insert(record(number)).await.unwrap();
            looked(|| has(&ours, number)).await;
        });
    }
}

/// Between two runtimes nobody looks, and a cache must know.
#[test]
fn a_task_that_went_with_its_runtime_is_told() {
    let folder = Folder::new("toml");
    let (ours, theirs) = (folder.create(), folder.open());
    let heard = Heard::of(&ours);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime().block_on(async {
        assert!(!has(&ours, 1));
        tokio::task::yield_now().await;
    });
    assert_eq!(heard.take(), [KeyChange::Lost]);
    assert!(ours.changes().unwrap().is_lost());
    runtime().block_on(async {
        theirs.insert(record(1)).await.unwrap();
        assert!(!has(&ours, 1));
        tokio::task::yield_now().await;
        looked(|| !ours.changes().unwrap().is_lost()).await;
        assert!(has(&ours, 1) && heard.take().contains(&KeyChange::Everything), "and nothing is missed");
    });
}

#[test]
fn without_a_timer_it_says_that_nobody_looks() {
    let folder = Folder::new("toml");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = folder.create();
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        until(|| store.changes().unwrap().is_lost()).await;
        for number in 0..100 {
            assert!(!has(&store, number));
            tokio::task::yield_now().await;
        }
        assert!(tokio::runtime::Handle::current().metrics().num_alive_tasks() <= before, "it is not begun again");
        let failing = store.health().failing.unwrap();
        assert!(failing.contains("no timer"), "{failing}");
        store.insert(record(1)).await.unwrap();
        assert!(has(&store, 1) && store.changes().unwrap().is_lost(), "what it changes itself is seen");
    });
}

#[tokio::test]
async fn many_changes_at_once_are_told_as_one() {
    let folder = Folder::new("json");
    let store = folder.create();
    let heard = Heard::of(&store);
    let key = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        let id = portcullis::api_key::KeyId::from_bytes([a, b, c, d, 0, 0, 0, 0, 0, 0]);
        format!(
            r#"{{"id": "{id}", "scheme": "sha256", "hash": "{}", "subject": "x", "created": 1, "expires": "never"}}"#,
            "0".repeat(64)
        )
    };
    let keys: Vec<String> = (0..1_500).map(key).collect();
    folder.put(&format!("{{\"version\": 1, \"keys\": [{}]}}", keys.join(",\n")));
    assert!(store.reload().await.unwrap());
    assert_eq!((store.health().keys, heard.take()), (1_500, vec![KeyChange::Everything]));
}

/// A server that panics takes its runtime along. Whoever starts it again has the file looked at.
#[test]
fn a_task_that_went_with_a_panic_elsewhere_begins_again() {
    let folder = Folder::new("toml");
    let (ours, theirs) = (Arc::new(folder.create()), folder.open());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let served = Arc::clone(&ours);
    let server = std::thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async {
            assert!(!has(&served, 1));
            tokio::task::yield_now().await; // the task begins to wait
        });
        panic!("a bug of the server, whose runtime goes with it");
    });
    assert!(server.join().is_err());
    assert!(ours.changes().unwrap().is_lost() && ours.health().failing.is_none());
    runtime().block_on(async {
        assert!(!has(&ours, 1));
        tokio::task::yield_now().await;
        theirs.insert(record(1)).await.unwrap();
        looked(|| has(&ours, 1)).await;
    });
}
