//! Revocations in an SQLite file: the contract, other processes, restarts, bounds, clocks and rows by hand; in `faults` what goes wrong.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

#[path = "revocation_sqlite/faults.rs"]
mod faults;
#[cfg(feature = "tracing")]
#[path = "support/lines.rs"]
mod lines;
#[cfg(unix)]
#[path = "revocation_sqlite/processes.rs"]
mod processes;
#[path = "support/revocable.rs"]
mod revocable;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use portcullis::{
    Clock, Instants, StoreErrorKind, conformance,
    revocation::{
        OpenError, Revocation, RevocationKind, RevocationLimits, RevocationStore, SqliteRevocations, Standing,
        TokenMarks,
    },
    testing::TestClock,
};
use revocable::{authenticator, is_revoked, mint::ISSUER, minted, now, patient, revoke, status, until};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revocations.db");
    (folder, file)
}

async fn open(path: &Path, limits: RevocationLimits) -> Arc<dyn RevocationStore> {
    let store = SqliteRevocations::builder(path).limits(limits).open().await.unwrap();
    store.loaded().await;
    Arc::new(store)
}

async fn open_by(path: &Path, clock: &TestClock) -> Arc<dyn RevocationStore> {
    let store = SqliteRevocations::builder(path).limits(patient()).clock(clock.clone()).open().await.unwrap();
    store.loaded().await;
    Arc::new(store)
}

/// Somebody else with the file in hand.
async fn intruder(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10)).connect().await.unwrap()
}

async fn by_hand(path: &Path, statement: &str) {
    let mut intruder = intruder(path).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut intruder).await.unwrap();
    intruder.close().await.unwrap();
}

async fn count(path: &Path, of: &'static str) -> i64 {
    sqlx::query_scalar(of).fetch_one(&mut intruder(path).await).await.unwrap()
}

fn token(jti: &str) -> Revocation {
    Revocation::token(ISSUER, jti).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_its_contract() {
    let (_folder, path) = folder();
    let open = async || open(&path, patient()).await;
    conformance::revocation_store(&open().await, "first", now()).await;
    let pause = async || tokio::time::sleep(Duration::from_millis(10)).await;
    conformance::revocation_store_that_is_shared(open, pause, "second", now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_revokes_counts_at_once_and_the_other_refuses_it_too() {
    let (_folder, path) = folder();
    let (here, there) = (open(&path, patient()).await, open(&path, patient()).await);
    let (own, jwt) = (authenticator(&here), authenticator(&there));
    let each = |jti: &str| {
        [
            Revocation::token(ISSUER, jti).unwrap(),
            Revocation::session(ISSUER, &format!("sid-{jti}")).unwrap(),
            Revocation::subject(ISSUER, &format!("sub-{jti}"), now().unix_seconds()).unwrap(),
            Revocation::client(ISSUER, &format!("client-{jti}")).unwrap(),
        ]
    };
    for number in 0..4 {
        let token = minted(&format!("t-{number}"));
        assert_eq!((status(&own, &token), status(&jwt, &token)), (200, 200));
        here.revoke(&each(&format!("t-{number}"))[number], now()).await.unwrap();
        assert_eq!(status(&own, &token), 401, "nothing is waited for");
        until("the other one refuses", || status(&jwt, &token) == 401).await;
        // Who starts now never takes it for good.
        let store = SqliteRevocations::builder(&path).limits(patient()).open().await.unwrap();
        let later = authenticator(&(Arc::new(store) as Arc<dyn RevocationStore>));
        until("it is loaded", || match status(&later, &token) {
            503 => false,
            401 => true,
            other => panic!("{other}"),
        })
        .await;
    }
    // As long as ids may be, and what a statement would be.
    let long = "x\u{1}".repeat(1_024);
    for jti in [&*long, "'); DROP TABLE portcullis_revocations; --", "a b\n\"é"] {
        revoke(&*here, jti).await;
        until("it is known", || is_revoked(&*there, jti)).await;
    }
    let good = minted("t-9");
    assert_eq!(status(&jwt, &good), 200);
    there.revoke(&Revocation::key(ISSUER, "k-1").unwrap(), now()).await.unwrap();
    until("the key is refused", || status(&own, &good) == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_revoked_is_known_after_a_restart() {
    let (folder, path) = folder();
    let store = open(&path, patient()).await;
    // More than one page.
    for number in 0..1_010 {
        revoke(&*store, &format!("t-{number}")).await;
    }
    drop(store);
    // SQLite removes the log when the last connection closes.
    until("all connections are closed", || fs::read_dir(folder.path()).unwrap().count() == 1).await;
    let store = open(&path, patient()).await;
    assert_eq!(store.state().len(), 1_010);
    for number in [0, 999, 1_000, 1_009] {
        assert_eq!(status(&authenticator(&store), &minted(&format!("t-{number}"))), 401, "{number}");
    }
    assert_eq!(status(&authenticator(&store), &minted("t-1010")), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_is_taken_in_whole_while_requests_pass() {
    const WRITERS: usize = 4;
    const EACH: usize = 150;
    let (_folder, path) = folder();
    let there = open(&path, patient()).await;
    let jwt = authenticator(&there);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        // They wait for each other, however long that takes on a busy disk.
        let store = SqliteRevocations::builder(&path).timeout(Duration::from_secs(60)).open().await.unwrap();
        writers.push(tokio::spawn(async move {
            for number in 0..EACH {
                revoke(&store, &format!("flood-{writer}-{number}")).await;
            }
        }));
    }
    let good = minted("good");
    until("all are known", || {
        assert_eq!(status(&jwt, &good), 200);
        there.state().len() == WRITERS * EACH
    })
    .await;
    for writer in writers {
        writer.await.unwrap();
    }
    for (writer, number) in (0..WRITERS).flat_map(|writer| (0..EACH).map(move |number| (writer, number))) {
        assert!(is_revoked(&*there, &format!("flood-{writer}-{number}")), "{writer} {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_a_bound_and_what_has_ended_makes_room() {
    let (_folder, path) = folder();
    let store = open(&path, patient().capacity(3)).await;
    let past = now().unix_seconds() - 10_000;
    let then = Instants::new(past * 1_000_000_000, now().monotonic_nanos());
    store.revoke(&token("old").until(past + 1_000), then).await.unwrap();
    let ended = store.revoke(&token("ended").until(past), now()).await.unwrap_err();
    assert_eq!(ended.kind(), StoreErrorKind::Conflict, "it would be met by nobody");
    for jti in ["one", "two", "two", "three"] {
        revoke(&*store, jti).await;
    }
    let error = store.revoke(&token("four"), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Conflict);
    revoke(&*store, "three").await; // it is there already
    for (jti, standing) in [("one", 401), ("two", 401), ("three", 401), ("four", 200)] {
        assert_eq!(status(&authenticator(&store), &minted(jti)), standing, "{jti}");
    }
    assert_eq!(count(&path, "SELECT count(*) FROM portcullis_revocations").await, 3, "what has ended is gone");
    // Who cannot take in all of it trusts nothing.
    let small = SqliteRevocations::builder(&path).limits(patient().capacity(1)).open().await.unwrap();
    let whole = open(&path, patient().capacity(3)).await;
    assert_eq!(whole.state().len(), 3);
    for _ in 0..50 {
        assert!(!small.state().is_fresh(now()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Room that is made by hand is room.
    by_hand(&path, "DELETE FROM portcullis_revocations").await;
    revoke(&*whole, "four").await;
    until("all know it", || is_revoked(&*store, "four")).await;
    assert!(is_revoked(&*store, "one"), "it goes on to count");
}

/// What has ended is removed a thousand at a time; one of many that is told again is not what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_does_not_come_back_with_another_one() {
    let (_folder, path) = folder();
    let store = open(&path, patient()).await;
    let past = now().unix_seconds() - 10_000;
    let rows = format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1001) \
         INSERT INTO portcullis_revocations (kind, issuer, value, ends) \
         SELECT 'token', '{ISSUER}', 'old-' || i, {past} + 1000 FROM n"
    );
    by_hand(&path, &rows).await;
    // Suspended for half an hour, whatever is issued.
    let then = Instants::new(past * 1_000_000_000, now().monotonic_nanos());
    let suspended = Revocation::subject(ISSUER, "alice", u64::MAX).unwrap().until(past + 1_800);
    store.revoke(&suspended, then).await.unwrap();
    assert_eq!(count(&path, "SELECT count(*) FROM portcullis_revocations").await, 1_002, "nothing has ended then");
    let second = now().unix_seconds();
    store.revoke(&Revocation::subject(ISSUER, "alice", second).unwrap(), now()).await.unwrap();
    assert_eq!(count(&path, "SELECT count(*) FROM portcullis_revocations").await, 2);
    let marks = |issued| TokenMarks::new(ISSUER).subject("alice").issued_at(issued);
    let another = open(&path, patient()).await;
    for state in [store.state(), another.state()] {
        let standing = |issued| state.check_marks(&marks(issued), now());
        assert_eq!(standing(second), Standing::Revoked(RevocationKind::Subject));
        assert_eq!(standing(second + 1), Standing::Good, "she has logged in again");
    }
}

/// The system's clock is ahead of the process, or one process is ahead of the system's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_ahead_deletes_nothing() {
    let (_folder, path) = folder();
    let yesterday = TestClock::at_unix(now().unix_seconds() - 100_000);
    let one = open_by(&path, &yesterday).await;
    one.revoke(&token("bad").until(yesterday.now().unix_seconds() + 3_600), yesterday.now()).await.unwrap();
    // Whatever is revoked next would remove what has ended.
    one.revoke(&token("other"), yesterday.now()).await.unwrap();
    let two = open_by(&path, &yesterday).await;
    for store in [one, two] {
        let standing = store.state().check_marks(&TokenMarks::new(ISSUER).token("bad"), yesterday.now());
        assert_eq!(standing, Standing::Revoked(RevocationKind::Token));
    }

    let (_folder, path) = folder();
    let right = open(&path, patient()).await;
    right.revoke(&token("bad").until(now().unix_seconds() + 3_600), now()).await.unwrap();
    let tomorrow = TestClock::at_unix(now().unix_seconds() + 100_000);
    let hasty = open_by(&path, &tomorrow).await;
    hasty.revoke(&token("other"), tomorrow.now()).await.unwrap();
    let fresh = open(&path, patient()).await;
    assert_eq!(status(&authenticator(&fresh), &minted("bad")), 401, "one process is a day ahead");
    // And once that one is right again, it refuses what it heard of meanwhile.
    tomorrow.set_unix(now().unix_seconds());
    let standing = hasty.state().check_marks(&TokenMarks::new(ISSUER).token("bad"), tomorrow.now());
    assert_eq!(standing, Standing::Revoked(RevocationKind::Token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_by_hand_are_heard_and_changed_ones_too() {
    let (_folder, path) = folder();
    let store = open(&path, patient()).await;
    let ends = now().unix_seconds() + 3_600;
    by_hand(
        &path,
        &format!(
            "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', 'a', {ends})"
        ),
    )
    .await;
    until("the row is read", || is_revoked(&*store, "a")).await;
    revoke(&*store, "b").await;
    // The first row is another thing by now; what it was goes on to count here.
    by_hand(&path, "UPDATE portcullis_revocations SET value = 'c', number = 1 WHERE value = 'a'").await;
    until("the change is read", || is_revoked(&*store, "c")).await;
    // The same thing is one row, whoever wrote it.
    revoke(&*store, "c").await;
    assert_eq!(count(&path, "SELECT count(*) FROM portcullis_revocations").await, 2);
    // No row that says nothing finds its way in.
    for row in ["('galaxy', 'i', 'v', 9)", "('token', '', 'v', 9)", "('token', 'i', '', 9)", "('token', 'i', 'v', -1)"]
    {
        let insert = format!("INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES {row}");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut intruder(&path).await).await;
        assert!(refused.unwrap_err().to_string().contains("constraint"), "{row}");
    }
}

/// As where SQLite itself puts a backup back (`.restore`) while processes run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_numbered_anew_are_read() {
    let (_folder, path) = folder();
    let (store, other) = (open(&path, patient()).await, open(&path, patient()).await);
    for jti in ["a", "b", "c"] {
        revoke(&*store, jti).await;
    }
    until("both know them", || other.state().len() == 3).await;
    let anew = "DELETE FROM portcullis_revocations; DELETE FROM sqlite_sequence;";
    by_hand(&path, anew).await;
    revoke(&*other, "d").await;
    until("the first one is heard", || is_revoked(&*store, "d")).await;
    // At the very number that was read last.
    let row = format!(
        "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', 'e', 9000000000)"
    );
    by_hand(&path, &format!("BEGIN; {anew} {row}; COMMIT")).await;
    until("the second one is read", || is_revoked(&*store, "e") && is_revoked(&*other, "e")).await;
    assert_eq!(store.state().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_new_file_at_once() {
    let (_folder, path) = folder();
    let opening: Vec<_> =
        (0..6).map(|_| tokio::spawn(SqliteRevocations::builder(&path).limits(patient()).open())).collect();
    let mut stores = Vec::new();
    for store in opening {
        stores.push(store.await.unwrap().unwrap());
    }
    revoke(&stores[0], "t").await;
    for store in &stores {
        until("each knows it", || is_revoked(store, "t")).await;
    }
    assert_eq!(count(&path, "SELECT count(*) FROM portcullis_revocation_schema").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_are_refused() {
    let newest = SqliteRevocations::migrations().last().unwrap().0;
    let (_folder, path) = folder();
    let found = |error: OpenError| match error {
        OpenError::Version { found, needed, .. } if needed == newest => found,
        other => panic!("another error: {other:?}"),
    };
    let as_it_is = || SqliteRevocations::builder(&path).limits(patient()).without_migrating();
    assert!(as_it_is().open().await.is_err() && !path.exists(), "none is made");
    fs::write(&path, "").unwrap();
    assert_eq!(found(as_it_is().open().await.unwrap_err()), 0);
    assert_eq!(fs::read(&path).unwrap(), b"", "and none is changed");
    // By hand, as whoever may change the schema does it.
    for (_, text) in SqliteRevocations::migrations() {
        by_hand(&path, &format!("BEGIN; {text} COMMIT")).await;
    }
    let store = as_it_is().open().await.unwrap();
    store.loaded().await;
    conformance::revocation_store(&store, "by hand", now()).await;
    by_hand(&path, &format!("INSERT INTO portcullis_revocation_schema (version) VALUES ({})", newest + 1)).await;
    for error in [as_it_is().open().await.unwrap_err(), SqliteRevocations::open(&path).await.unwrap_err()] {
        assert!(error.to_string().contains("newer release"), "{error}");
        assert_eq!(found(error), newest + 1);
    }
}

/// Both look when the other one writes, and take nothing of it for their own.
#[cfg(feature = "api-key-sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_keys_may_be_in_the_same_file() {
    let (_folder, path) = folder();
    let keys = portcullis::api_key::SqliteKeyStore::open(&path).await.unwrap();
    let (here, there) = (open(&path, patient()).await, open(&path, patient()).await);
    conformance::api_key_store(&keys, now()).await;
    revoke(&*here, "t").await;
    until("it is heard", || is_revoked(&*there, "t")).await;
    conformance::api_key_store(&keys, now()).await;
    assert_eq!((here.state().len(), there.state().len()), (1, 1));
}
