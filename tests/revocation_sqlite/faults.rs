//! A file that is held, damaged, replaced, removed or open to all, and settings that make no sense.

use super::*;
use crate::revocable::impatient;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_another_process_writes_to_is_unavailable_for_revocations_alone() {
    let (_folder, path) = folder();
    let builder = SqliteRevocations::builder(&path).timeout(Duration::from_millis(250)).limits(impatient());
    let store = builder.open().await.unwrap();
    store.loaded().await;
    let mut writer = intruder(&path).await;
    for begin in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let lock = writer.begin_with(begin).await.unwrap();
        for _ in 0..3 {
            let error = store.revoke(&token("t"), now()).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{begin}: {error:?}");
        }
        // Longer than what was known before is believed.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        until("it is read all the same", || store.state().is_fresh(now())).await;
        assert!(!is_revoked(&store, "t"), "{begin}: what was refused was not done");
        lock.rollback().await.unwrap();
    }
    revoke(&store, "t").await;
    assert!(is_revoked(&store, "t"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_waits_for_another_process_and_is_finished_though_nobody_waits_for_it() {
    let (_folder, path) = folder();
    let builder = SqliteRevocations::builder(&path).timeout(Duration::from_secs(30)).limits(patient());
    let store = builder.open().await.unwrap();
    store.loaded().await;
    let mut writer = intruder(&path).await;
    let lock = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let client = Revocation::client(ISSUER, "dropped").unwrap();
    let (mut waited_for, mut dropped) = (
        tokio::spawn({
            let store = store.clone();
            async move { store.revoke(&token("waited-for"), now()).await }
        }),
        Box::pin(store.revoke(&client, now())),
    );
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut waited_for).await.is_err(), "it waits");
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut dropped).await.is_err());
    drop(dropped);
    lock.rollback().await.unwrap();
    waited_for.await.unwrap().unwrap();
    assert!(is_revoked(&store, "waited-for"));
    let marks = TokenMarks::new(ISSUER).client("dropped");
    until("it counts", || store.state().check_marks(&marks, now()) != Standing::Good).await;
    assert_eq!(count(&path, "SELECT count(*) FROM portcullis_revocations").await, 2);
}

/// Of a later release, or damaged: nobody knows what it revokes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_nobody_can_read_is_503_until_it_is_gone() {
    let (_folder, path) = folder();
    let store = open(&path, patient()).await;
    let (jwt, good) = (authenticator(&store), minted("good"));
    for row in [
        "('galaxy', 'i', 'v', 9)",
        "('token', '', 'v', 9)",
        "('token', CAST(x'ff' AS TEXT), 'v', 9)",
        "('token', 'i', 'v', -1)",
    ] {
        assert_eq!(status(&jwt, &good), 200);
        let insert = format!("INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES {row}");
        by_hand(&path, &format!("PRAGMA ignore_check_constraints = 1; {insert}")).await;
        until("nobody can say", || status(&jwt, &good) == 503).await;
        let later = SqliteRevocations::builder(&path).limits(patient()).open().await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!later.state().is_fresh(now()), "{row}");
        }
        by_hand(&path, "DELETE FROM portcullis_revocations WHERE ends < 10").await;
        until("it passes again", || status(&jwt, &good) == 200).await;
        until("who came meanwhile too", || later.state().is_fresh(now())).await;
    }
}

/// The table is gone and comes back: what was written meanwhile is known before anything is trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_is_503_once_its_state_is_old_and_read_anew() {
    let (_folder, path) = folder();
    let store = open(&path, impatient()).await;
    let (jwt, good, missed) = (authenticator(&store), minted("good"), minted("missed"));
    revoke(&*store, "before").await;
    assert_eq!(status(&jwt, &missed), 200);
    by_hand(&path, "ALTER TABLE portcullis_revocations RENAME TO elsewhere").await;
    until("nobody can say", || status(&jwt, &good) == 503).await;
    let error = store.revoke(&token("meanwhile"), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let row =
        format!("INSERT INTO elsewhere (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', 'missed', 9000000000)");
    by_hand(&path, &format!("{row}; ALTER TABLE elsewhere RENAME TO portcullis_revocations")).await;
    until("it is known", || match status(&jwt, &missed) {
        503 => false,
        401 => true,
        other => panic!("{other}: trusted before it was whole"),
    })
    .await;
    assert_eq!((status(&jwt, &minted("before")), status(&jwt, &good)), (401, 200));
    revoke(&*store, "meanwhile").await;
    assert_eq!(status(&jwt, &minted("meanwhile")), 401);
}

/// Who goes on with what has no name any more hears of no revocation, and what it writes is gone when it closes the file.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_or_removed_is_not_gone_on_with() {
    let (_folder, path) = folder();
    let store = open(&path, patient()).await;
    let (jwt, good) = (authenticator(&store), minted("good"));
    revoke(&*store, "before").await;
    let (kept, other) = (path.with_file_name("kept.db"), path.with_file_name("other.db"));
    fs::rename(&path, &kept).unwrap();
    // At once, before anybody has looked.
    let error = store.revoke(&token("lost"), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    until("nobody can say", || status(&jwt, &good) == 503).await;
    assert_eq!(status(&jwt, &minted("before")), 503);
    // Another one in its place is not taken for it.
    drop(open(&other, patient()).await);
    fs::rename(&other, &path).unwrap();
    for _ in 0..5 {
        assert_eq!(store.revoke(&token("lost"), now()).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert_eq!(status(&jwt, &good), 503);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // As it was before.
    fs::rename(&kept, &path).unwrap();
    until("it passes again", || status(&jwt, &good) == 200).await;
    assert_eq!(status(&jwt, &minted("before")), 401);
    fs::remove_file(&path).unwrap();
    until("nobody can say", || status(&jwt, &good) == 503).await;
    let error = SqliteRevocations::builder(&path).without_migrating().open().await.unwrap_err();
    assert!(error.to_string().contains("revocations.db"), "who starts then may refuse to begin anew: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_file_is_never_trusted() {
    let (folder, path) = folder();
    let store = open(&path, patient()).await;
    for number in 0..300 {
        revoke(&*store, &format!("{number}-{}", "x".repeat(200))).await;
    }
    drop(store);
    until("all connections are closed", || fs::read_dir(folder.path()).unwrap().count() == 1).await;
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 20 * 4_096);
    let never_trusted = async |name: &str| match SqliteRevocations::builder(&path).limits(patient()).open().await {
        Ok(store) => {
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert!(!store.state().is_fresh(now()), "{name}");
            }
            "it opens"
        }
        Err(OpenError::Store(error)) => {
            assert!(matches!(error.kind(), StoreErrorKind::Corrupt | StoreErrorKind::Unavailable), "{name}: {error}");
            assert!(error.to_string().contains("revocations.db") || name != "no database", "{error}");
            "it does not"
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let mut torn = whole.clone();
    torn[10 * 4_096..].fill(0x5a);
    fs::write(&path, &torn).unwrap();
    assert_eq!(never_trusted("most pages are damaged").await, "it opens");
    for (name, bytes) in [
        ("half of it is missing", &whole[..whole.len() / 2 / 4_096 * 4_096]),
        ("all but the first page is missing", &whole[..4_096]),
        ("no database", &[b'x'; 8_192][..]),
    ] {
        for beside in ["revocations.db-wal", "revocations.db-shm"] {
            let _ = fs::remove_file(path.with_file_name(beside));
        }
        fs::write(&path, bytes).unwrap();
        never_trusted(name).await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, path) = folder();
    let store = open(&path, patient()).await;
    revoke(&*store, "t").await;
    let mut files: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        files.push(entry.file_name().into_string().unwrap());
    }
    files.sort();
    assert_eq!(files, ["revocations.db", "revocations.db-shm", "revocations.db-wal"]);
    drop(store);
    until("all connections are closed", || fs::read_dir(folder.path()).unwrap().count() == 1).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = SqliteRevocations::open(&path).await.unwrap_err();
    assert!(format!("{error:?}").contains("may be written by everybody"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_file_is_refused() {
    let (folder, path) = folder();
    for path in [folder.path().to_owned(), folder.path().join("missing/revocations.db")] {
        let error = SqliteRevocations::open(&path).await.unwrap_err();
        assert!(matches!(&error, OpenError::Store(error) if error.kind() == StoreErrorKind::Unavailable), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    // The names that SQLite takes for something else than a file.
    for name in [":memory:", "file:revocations.db?mode=memory", "revocations?immutable=1", "r%41"] {
        let path = folder.path().join(name);
        revoke(&*open(&path, patient()).await, "t").await;
        assert!(path.is_file(), "{name}");
        assert!(is_revoked(&*open(&path, patient()).await, "t"), "{name}");
    }
    let builder = || SqliteRevocations::builder(&path);
    for builder in [
        builder().timeout(Duration::ZERO),
        builder().timeout(Duration::MAX),
        builder().watch_every(Duration::ZERO),
        builder().watch_every(Duration::from_secs(61)),
        builder().limits(RevocationLimits::new().max_age(Duration::from_millis(99))),
        builder().limits(RevocationLimits::new().max_age(Duration::from_secs(3_601))),
    ] {
        assert!(matches!(builder.open().await.unwrap_err(), OpenError::Config(_)));
    }
    assert!(!path.exists());
    // However seldom it is told to look, it does before the state is too old.
    let seldom = builder().watch_every(Duration::from_secs(60)).limits(impatient()).open().await.unwrap();
    seldom.loaded().await;
    revoke(&*open(&path, patient()).await, "t").await;
    until("it is heard", || is_revoked(&seldom, "t")).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    until("it is trusted", || seldom.state().is_fresh(now())).await;
}

/// The superuser may write everywhere.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_may_not_be_written_is_an_error_of_the_start() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, path) = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let may_write = fs::write(folder.path().join("probe"), "").is_ok();
    let opened = SqliteRevocations::open(&path).await;
    assert_eq!(opened.is_ok(), may_write, "{opened:?}");
    assert_eq!(path.exists(), may_write);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where nobody makes files.
    #[cfg(target_os = "linux")]
    {
        let error = SqliteRevocations::open("/proc/revocations.db").await.unwrap_err();
        assert!(matches!(&error, OpenError::Store(error) if error.kind() == StoreErrorKind::Unavailable), "{error:?}");
    }
}

/// The task that looks is gone with the runtime that it ran in.
#[test]
fn a_store_whose_runtime_has_ended_is_trusted_no_longer() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_folder, path) = folder();
    let setup = runtime();
    let store = setup.block_on(open(&path, RevocationLimits::new().max_age(Duration::from_millis(500))));
    drop(setup);
    runtime().block_on(until("nobody can say", || !store.state().is_fresh(now())));
}

#[cfg(all(unix, feature = "tracing"))]
#[tokio::test]
async fn the_log_says_once_that_it_cannot_be_read_and_once_that_it_can() {
    use tracing_subscriber::layer::SubscriberExt;

    const AWAY: &str = "ERROR revocations: what others revoke is not read from";
    const BACK: &str = "WARN revocations: the file can be read again, and all that it has is known";
    let lines = crate::lines::Lines::default();
    // For the whole binary: what other tests make the library say elsewhere is not of this thread.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines.clone())).unwrap();
    let (_folder, path) = folder();
    let store = SqliteRevocations::builder(&path).watch_every(Duration::from_millis(5)).open().await.unwrap();
    store.loaded().await;
    let kept = path.with_file_name("kept.db");
    for round in 1..=2 {
        fs::rename(&path, &kept).unwrap();
        until("nobody can say", || !store.state().is_fresh(now())).await;
        // It tries more than once, and says it once.
        tokio::time::sleep(Duration::from_millis(300)).await;
        fs::rename(&kept, &path).unwrap();
        store.loaded().await;
        until("it is trusted again", || store.state().is_fresh(now())).await;
        until("it is said", || lines.count(BACK) == round).await;
        assert_eq!(lines.count(AWAY), round, "{:?}", lines.here());
    }
    let said = lines.here();
    assert!(said.iter().any(|line| line.contains("the file was replaced, or removed")), "{said:?}");
}
