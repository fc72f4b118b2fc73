//! Keys in an SQLite file: the contract, other processes, and what goes wrong; in `changes` what is told of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "api_key_sqlite/changes.rs"]
mod changes;
#[path = "support/keys.rs"]
mod keys;
#[cfg(all(unix, feature = "tracing"))]
#[path = "support/lines.rs"]
mod lines;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use keys::{
    AT, Heard, NOW, Store, find, many_are_noted_and_purged, minted, one_rotation_wins, refusal, revocation,
    texts_stay_texts, until,
};
use portcullis::{
    RejectionKind, StoreError, StoreErrorKind,
    api_key::{
        ApiKeyAdmin, ApiKeyStore, ChangeListener, KeyChange, KeyFilter, KeyId, OpenError, Rotation, SqliteKeyStore,
    },
    conformance,
};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::time::timeout;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.db");
    (folder, file)
}

async fn open(path: &Path) -> Store {
    Arc::new(SqliteKeyStore::open(path).await.unwrap())
}

/// Somebody else with the file in hand.
async fn intruder(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10)).connect().await.unwrap()
}

#[tokio::test]
async fn the_store_keeps_its_contract() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    conformance::api_key_store(&store, AT).await;
    conformance::api_key_store(&store, AT).await; // one that holds keys already
}

#[tokio::test]
async fn texts_are_never_statements() {
    let (_folder, path) = folder();
    texts_stay_texts(&open(&path).await).await;
}

#[tokio::test]
async fn batches_have_no_seams() {
    let (_folder, path) = folder();
    many_are_noted_and_purged(&open(&path).await).await;
}

#[tokio::test]
async fn keys_survive_reopening() {
    let (_folder, path) = folder();
    let (key, record) = minted("billing");
    let (gone, revoked) = minted("billing");
    let store = open(&path).await;
    store.insert(record.clone()).await.unwrap();
    store.insert(revoked.clone()).await.unwrap();
    store.revoke(revoked.id(), &revocation("leaked")).await.unwrap();
    drop(store);
    let store = open(&path).await;
    assert_eq!(find(&*store, record.id()).await, Ok(Some(record)));
    assert_eq!(refusal(&store, &key).await, None);
    assert_eq!(refusal(&store, &gone).await, Some(RejectionKind::InvalidCredential));
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, path) = folder();
    let store = open(&path).await;
    store.insert(minted("billing").1).await.unwrap();
    let mut files: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        files.push(entry.file_name().into_string().unwrap());
    }
    files.sort();
    assert_eq!(files, ["keys.db", "keys.db-shm", "keys.db-wal"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_everybody_may_write_is_not_opened() {
    use std::{error::Error, os::unix::fs::PermissionsExt};

    let (_folder, path) = folder();
    drop(open(&path).await);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = SqliteKeyStore::open(&path).await.unwrap_err();
    let mut causes =
        std::iter::successors(Some(&error as &dyn Error), |error| (**error).source()).map(ToString::to_string);
    assert!(causes.any(|cause| cause == "may be written by everybody (mode 0666): say chmod 0600"), "{error:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    drop(open(&path).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_new_file_at_once() {
    for _ in 0..5 {
        let (_folder, path) = folder();
        let opening: Vec<_> = (0..6)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { SqliteKeyStore::open(path).await })
            })
            .collect();
        let mut stores = Vec::new();
        for store in opening {
            stores.push(store.await.unwrap().unwrap());
        }
        let record = minted("billing").1;
        stores[0].insert(record.clone()).await.unwrap();
        for store in &stores {
            assert_eq!(find(store, record.id()).await, Ok(Some(record.clone())));
        }
        let mut intruder = intruder(&path).await;
        let versions: i64 =
            sqlx::query_scalar("SELECT count(*) FROM portcullis_schema").fetch_one(&mut intruder).await.unwrap();
        assert_eq!(versions, 1);
    }
}

fn version(error: &OpenError) -> (u32, u32) {
    match error {
        OpenError::Version { found, needed, .. } => (*found, *needed),
        other => panic!("another error: {other:?}"),
    }
}

#[tokio::test]
async fn tables_of_another_version_are_refused() {
    let newest = SqliteKeyStore::migrations().last().unwrap().0;
    let (_folder, path) = folder();
    assert!(SqliteKeyStore::open_without_migrating(&path).await.is_err() && !path.exists(), "none is made");
    std::fs::write(&path, "").unwrap();
    assert_eq!(version(&SqliteKeyStore::open_without_migrating(&path).await.unwrap_err()), (0, newest));
    assert_eq!(std::fs::read(&path).unwrap(), b"", "and none is changed");

    // By hand, as whoever may change the schema does it.
    let mut connection = intruder(&path).await;
    for (_, text) in SqliteKeyStore::migrations() {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::raw_sql(text).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let store: Store = Arc::new(SqliteKeyStore::open_without_migrating(&path).await.unwrap());
    conformance::api_key_store(&store, AT).await;
    drop(store);

    sqlx::query("INSERT INTO portcullis_schema (version) VALUES ($1)")
        .bind(newest + 1)
        .execute(&mut connection)
        .await
        .unwrap();
    for error in [
        SqliteKeyStore::open(&path).await.unwrap_err(),
        SqliteKeyStore::open_without_migrating(&path).await.unwrap_err(),
    ] {
        assert_eq!(version(&error), (newest + 1, newest));
        assert!(error.to_string().contains("newer release"), "{error}");
    }
}

#[tokio::test]
async fn a_broken_row_is_an_error_and_nobody_gets_in() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let mut intruder = intruder(&path).await;
    sqlx::query("PRAGMA ignore_check_constraints = 1").execute(&mut intruder).await.unwrap();
    for damage in [
        "UPDATE portcullis_api_keys SET hash = x'00' WHERE id = $1",
        "UPDATE portcullis_api_keys SET scheme = 'none' WHERE id = $1",
        "UPDATE portcullis_api_keys SET subject = '' WHERE id = $1",
        "UPDATE portcullis_api_keys SET scopes = '[\"a' WHERE id = $1",
        "UPDATE portcullis_api_keys SET roles = '{}' WHERE id = $1",
        "UPDATE portcullis_api_keys SET addresses = '[\"anywhere\"]' WHERE id = $1",
        "UPDATE portcullis_api_keys SET expires = -1 WHERE id = $1",
        "UPDATE portcullis_api_keys SET revoked_at = 1 WHERE id = $1",
        "UPDATE portcullis_api_keys SET name = CAST(x'ff' AS TEXT) WHERE id = $1",
    ] {
        let ((key, record), (fine, other)) = (minted("billing"), minted("billing"));
        store.insert(record.clone()).await.unwrap();
        store.insert(other).await.unwrap();
        let changed = sqlx::query(damage).bind(record.id().as_bytes().to_vec()).execute(&mut intruder).await.unwrap();
        assert_eq!(changed.rows_affected(), 1);
        for error in
            [store.get(record.id()).await.unwrap_err(), store.list(&KeyFilter::all(), None, 10).await.unwrap_err()]
        {
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{damage}");
            assert!(error.to_string().contains(&record.id().to_string()), "{damage}: {error}");
        }
        assert_eq!(refusal(&store, &key).await, Some(RejectionKind::Unavailable), "{damage}");
        assert_eq!(refusal(&store, &fine).await, None, "{damage}");
        sqlx::query("DELETE FROM portcullis_api_keys").execute(&mut intruder).await.unwrap();
    }
}

#[tokio::test]
async fn a_torn_file_is_an_error() {
    let (_folder, path) = folder();
    let mut connection = {
        let store = open(&path).await;
        for _ in 0..200 {
            store.insert(minted("billing").1).await.unwrap();
        }
        intruder(&path).await
    };
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // All pages but the first, which has the schema.
    bytes[4096..].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(path.with_file_name(format!("keys.db{suffix}")));
    }
    match SqliteKeyStore::open(&path).await {
        Err(OpenError::Store(error)) => assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}"),
        Err(error) => panic!("another error: {error:?}"),
        Ok(store) => assert_eq!(find(&store, minted("billing").1.id()).await, Err(StoreErrorKind::Corrupt)),
    }

    fs::write(&path, "# keys.db is a text\n".repeat(500)).unwrap();
    match SqliteKeyStore::open(&path).await.unwrap_err() {
        OpenError::Store(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(error.to_string().contains("keys.db"), "{error}");
        }
        error => panic!("another error: {error:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_a_file_is_refused() {
    let (folder, _) = folder();
    for path in [folder.path().to_owned(), folder.path().join("missing/keys.db")] {
        let error = SqliteKeyStore::open(&path).await.unwrap_err();
        assert!(matches!(&error, OpenError::Store(error) if error.kind() == StoreErrorKind::Unavailable), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let builder = || SqliteKeyStore::builder(folder.path().join("keys.db"));
    for builder in [
        builder().readers(0),
        builder().acquire_timeout(Duration::ZERO),
        builder().statement_timeout(Duration::ZERO),
        builder().watch_every(Duration::ZERO),
    ] {
        assert!(matches!(builder.open().await.unwrap_err(), OpenError::Config(_)));
    }
    assert!(!folder.path().join("keys.db").exists());
}

/// The names that SQLite takes for something else than a file.
#[tokio::test]
async fn a_name_is_always_a_file() {
    let (folder, _) = folder();
    for name in [":memory:", "file:keys.db?mode=memory", "keys?immutable=1", "k%41y"] {
        let path = folder.path().join(name);
        let record = minted("billing").1;
        open(&path).await.insert(record.clone()).await.unwrap();
        assert!(path.is_file(), "{name}");
        assert_eq!(find(&*open(&path).await, record.id()).await, Ok(Some(record)), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_another_process_writes_to_is_unavailable_for_changes_alone() {
    let (_folder, path) = folder();
    let store = SqliteKeyStore::builder(&path).busy_timeout(Duration::from_millis(50)).open().await.unwrap();
    let ((key, kept), (other, refused)) = (minted("billing"), minted("billing"));
    store.insert(kept.clone()).await.unwrap();

    let mut writer = intruder(&path).await;
    let lock = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let store: Store = Arc::new(store);
    let rotation = portcullis::api_key::Rotation::new(*kept.id(), refused.clone(), keys::NOW).unwrap();
    for (name, error) in [
        ("insert", store.insert(refused.clone()).await.unwrap_err()),
        ("revoke", store.revoke(kept.id(), &revocation("leaked")).await.unwrap_err()),
        ("rotate", store.rotate(rotation).await.unwrap_err()),
        ("disable", store.disable_owner(kept.owner(), &revocation("left")).await.unwrap_err()),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{name}");
        assert!(error.source().unwrap().to_string().contains("locked"), "{name}: {error:?}");
    }
    assert_eq!(refusal(&store, &key).await, None, "who reads does not wait for who writes");
    assert_eq!(refusal(&store, &other).await, Some(RejectionKind::InvalidCredential));
    lock.rollback().await.unwrap();

    assert_eq!(find(&*store, kept.id()).await, Ok(Some(kept.clone())), "what was refused was not done");
    store.insert(refused).await.unwrap();
    assert!(store.revoke(kept.id(), &revocation("leaked")).await.unwrap());
    assert_eq!(refusal(&store, &key).await, Some(RejectionKind::InvalidCredential));
}

#[tokio::test]
async fn a_change_waits_for_another_process_within_its_time() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let mut writer = intruder(&path).await;
    let lock = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let record = minted("billing").1;
    let mut insert = store.insert(record.clone());
    assert!(timeout(Duration::from_millis(100), &mut insert).await.is_err(), "it waits");
    lock.rollback().await.unwrap();
    insert.await.unwrap();
    assert_eq!(find(&*store, record.id()).await, Ok(Some(record)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_processes_that_rotate_a_key_one_wins() {
    let (_folder, path) = folder();
    let (one, other) = (open(&path).await, open(&path).await);
    one_rotation_wins(&one, &other, 15).await;
}

async fn watching(path: &Path) -> SqliteKeyStore {
    SqliteKeyStore::builder(path).watch_every(Duration::from_millis(20)).open().await.unwrap()
}

/// A backup takes the place of the file while it is open: who goes on with what has no name any more hears of no revocation.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_replaced_is_not_gone_on_with() {
    let (_folder, path) = folder();
    let store = watching(&path).await;
    let heard = Heard::of(&store);
    let record = minted("billing").1;
    store.insert(record.clone()).await.unwrap();
    let (kept, backup) = (path.with_file_name("kept.db"), path.with_file_name("backup.db"));
    let mut reader = intruder(&path).await;
    let copy = sqlx::query("VACUUM INTO ?").bind(backup.to_str().unwrap());
    copy.execute(&mut reader).await.unwrap();
    reader.close().await.unwrap();
    assert!(find(&store, record.id()).await.unwrap().is_some());

    fs::rename(&path, &kept).unwrap();
    until("it is noticed that the file is gone", async || heard.take().contains(&KeyChange::Lost)).await;
    fs::rename(&backup, &path).unwrap();
    assert_eq!(find(&store, record.id()).await, Err(StoreErrorKind::Unavailable));
    let refused = store.revoke(record.id(), &revocation("stolen")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    assert!(refused.source().unwrap().to_string().contains("replaced"), "{refused:?}");

    // As it was before.
    fs::rename(&kept, &path).unwrap();
    until("it is there again", async || find(&store, record.id()).await.is_ok()).await;
    until("what was missed is looked for", async || heard.take().contains(&KeyChange::Everything)).await;
}

/// The same test, as a process whose files may not grow beyond some hundred kilobytes.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_over_once_there_is_room() {
    let (_folder, path) = folder();
    let child = std::process::Command::new("sh")
        .args([
            "-c",
            r#"trap '' XFSZ; ulimit -S -f 400; exec "$0" --exact as_a_child_whose_disk_is_full --ignored --nocapture"#,
        ])
        .arg(std::env::current_exe().unwrap())
        .env("PORTCULLIS_TEST_KEYS_FILE", &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "started by another test, as a process of its own"]
async fn as_a_child_whose_disk_is_full() {
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_KEYS_FILE") else { return };
    let store = open(Path::new(&path)).await;
    let mut kept = Vec::new();
    let refused = loop {
        assert!(kept.len() < 5_000, "the limit holds");
        let (_, record) = minted("billing");
        let id = *record.id();
        match store.insert(record).await {
            Ok(()) => kept.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!((kept.is_empty(), refused.kind()), (false, StoreErrorKind::Unavailable));
    for _ in 0..3 {
        assert!(store.revoke(&kept[0], &revocation("leaked")).await.is_err());
        assert!(one_rotation(&store, kept[0]).await.is_err());
    }
    for id in &kept {
        assert!(store.get(id).await.unwrap().is_some(), "look-ups go on");
    }
    let own = std::process::id().to_string();
    let raised = std::process::Command::new("prlimit").args(["--fsize=unlimited", "--pid", &own]).status();
    assert!(raised.unwrap().success());
    assert!(one_rotation(&store, kept[0]).await.unwrap(), "there is room again");
    assert!(store.revoke(&kept[1], &revocation("leaked")).await.unwrap());
}

#[cfg(target_os = "linux")]
async fn one_rotation(store: &Store, old: KeyId) -> Result<bool, StoreError> {
    let (_, new) = minted("billing");
    store.rotate(Rotation::new(old, new, NOW + 60).unwrap()).await
}
