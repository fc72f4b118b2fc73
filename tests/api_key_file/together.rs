//! Two processes that change one file lose nothing of each other. A second store is a second process as far as locks go.

use std::{fs, sync::Arc, time::Duration};

use portcullis::{
    Now, StoreErrorKind,
    api_key::{ApiKeyAdmin, ApiKeyStore, Cached, KeyId, RecordFields, Rotation},
};

use super::fixture::{FORMATS, Folder, Heard, fields, id, leaked, lookup, record};

fn numbered(number: u16) -> RecordFields {
    let [high, low] = number.to_be_bytes();
    let mut fields = fields(0);
    fields.id = KeyId::from_bytes([high, low, 1, 1, 1, 1, 1, 1, 1, 1]);
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_take_turns_and_lose_nothing() {
    for format in FORMATS {
        let folder = Arc::new(Folder::new(format));
        drop(folder.create());
        let tasks: Vec<_> = (0..4_u16)
            .map(|writer| {
                let folder = Arc::clone(&folder);
                tokio::spawn(async move {
                    let store = folder.open();
                    for number in 0..25 {
                        store.insert(numbered(writer * 100 + number).check().unwrap()).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(folder.open().health().keys, 100, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_who_rotate_one_key_one_wins() {
    let folder = Folder::new("toml");
    let (one, other) = (folder.create(), folder.open());
    for round in 0..10_u8 {
        let old = id(100 + round);
        one.insert(record(100 + round)).await.unwrap();
        let rotation = |new: u8| Rotation::new(old, record(new), 0).unwrap();
        let answers = tokio::join!(one.rotate(rotation(2 * round)), other.rotate(rotation(2 * round + 1)));
        let kinds = [answers.0, answers.1].map(|answer| answer.map_err(|error| error.kind()));
        let lost = Err(StoreErrorKind::Conflict);
        assert!(kinds == [Ok(true), lost] || kinds == [lost, Ok(true)], "{kinds:?}");
    }
    assert_eq!(folder.open().health().keys, 20);
}

#[tokio::test]
async fn a_change_takes_in_what_others_changed_and_tells_it() {
    let folder = Folder::new("toml");
    let (ours, theirs) = (folder.create(), folder.open());
    theirs.insert(record(1)).await.unwrap();
    let heard = Heard::of(&ours);
    ours.insert(record(2)).await.unwrap();
    let told = heard.take();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(ours.find(lookup(1)).await.unwrap().is_some());
    assert_eq!(ours.insert(record(1)).await.unwrap_err().kind(), StoreErrorKind::Conflict);
    assert!(theirs.revoke(&id(2), &leaked()).await.unwrap(), "a key that only the other one has seen");
    assert!(!ours.revoke(&id(9), &leaked()).await.unwrap());
}

#[tokio::test]
async fn a_change_that_changes_nothing_writes_nothing() {
    let folder = Folder::new("json");
    let store = folder.create();
    store.insert(record(1)).await.unwrap();
    store.revoke(&id(1), &leaked()).await.unwrap();
    let before = fs::metadata(folder.path()).unwrap().modified().unwrap();
    assert!(store.revoke(&id(1), &leaked()).await.unwrap());
    assert!(!store.revoke(&id(2), &leaked()).await.unwrap());
    assert!(store.insert(record(1)).await.is_err());
    assert_eq!(store.purge(super::AT, Duration::from_secs(60)).await.unwrap(), 0);
    store.flush().await.unwrap();
    assert_eq!(fs::metadata(folder.path()).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn a_lock_that_nobody_gives_back_is_an_error_after_a_while() {
    let folder = Folder::new("toml");
    let store = folder.create();
    let lock = fs::File::options().read(true).write(true).open(folder.file("keys.toml.lock")).unwrap();
    fs4::FileExt::lock(&lock).unwrap();
    let error = store.insert(record(1)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("lock"), "{error}");
    drop(lock); // as when its process ends
    store.insert(record(1)).await.unwrap();
}

/// A change that waits for another process does not keep this one from reading what a hand has revoked.
#[tokio::test]
async fn who_waits_for_the_lock_keeps_nobody_from_reading() {
    let folder = Folder::new("toml");
    let store = Arc::new(folder.create());
    let empty = folder.text();
    store.insert(record(1)).await.unwrap();
    let lock = fs::File::options().read(true).write(true).open(folder.file("keys.toml.lock")).unwrap();
    fs4::FileExt::lock(&lock).unwrap();
    let waiting: Vec<_> = [2, 3]
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.insert(record(number)).await })
        })
        .into();
    tokio::time::sleep(Duration::from_millis(100)).await;
    folder.put(&empty);
    assert!(store.reload().await.unwrap());
    assert!(matches!(store.find_now(lookup(1)), Now::Known(Ok(None))));
    assert!(waiting.iter().all(|change| !change.is_finished()), "they wait for the lock");
    drop(lock);
    for change in waiting {
        change.await.unwrap().unwrap();
    }
    assert_eq!(folder.open().health().keys, 2);
}

#[tokio::test]
async fn a_cache_before_a_file_knows_what_the_file_knows() {
    let folder = Folder::new("toml");
    let cached = Cached::new(folder.create());
    cached.insert(record(1)).await.unwrap();
    assert!(cached.find(lookup(1)).await.unwrap().is_some());
    let theirs = folder.open();
    theirs.revoke(&id(1), &leaked()).await.unwrap();
    cached.store().reload().await.unwrap();
    let found = cached.find(lookup(1)).await.unwrap().unwrap();
    assert!(found.record().revocation().is_some());
}
