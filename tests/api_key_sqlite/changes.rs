//! What changes, here and in other processes, and who is told of it.

use super::*;

#[tokio::test]
async fn what_another_process_changes_is_found_out() {
    let (_folder, path) = folder();
    let (store, other) = (watching(&path).await, watching(&path).await);
    let heard = Heard::of(&store);
    for round in 0..3 {
        let record = minted("billing").1;
        other.insert(record.clone()).await.unwrap();
        heard.wait_for(&KeyChange::Everything).await;
        assert_eq!(find(&store, record.id()).await, Ok(Some(record)), "what is told can be found");
        assert!(heard.take().iter().all(|change| *change == KeyChange::Everything), "{round}");
    }
}

#[tokio::test]
async fn what_this_process_changes_is_not_taken_for_anothers() {
    let (_folder, path) = folder();
    // It looks several times while all of this is written.
    let store = SqliteKeyStore::builder(&path).watch_every(Duration::from_millis(1)).open().await.unwrap();
    let heard = Heard::of(&store);
    let mut expected = Vec::new();
    for _ in 0..50 {
        let record = minted("billing").1;
        expected.push(KeyChange::Key(*record.id()));
        store.insert(record.clone()).await.unwrap();
        assert_eq!(heard.all(), expected, "told before the method returns");
        assert!(find(&store, record.id()).await.unwrap().is_some());
    }
    assert_eq!(heard.all(), expected);
}

#[tokio::test]
async fn a_feed_that_cannot_look_says_so_and_makes_good() {
    let (_folder, path) = folder();
    let store = SqliteKeyStore::builder(&path)
        .watch_every(Duration::from_millis(10))
        .acquire_timeout(Duration::from_millis(50))
        .busy_timeout(Duration::from_secs(30))
        .open()
        .await
        .unwrap();
    let store = Arc::new(store);
    let heard = Heard::of(&store);
    let mut writer = intruder(&path).await;
    let lock = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let insert = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.insert(minted("billing").1).await }
    });
    heard.wait_for(&KeyChange::Lost).await;
    assert_eq!(heard.take(), [KeyChange::Lost], "it is said once");
    lock.commit().await.unwrap();
    insert.await.unwrap().unwrap();
    heard.wait_for(&KeyChange::Everything).await;
}

#[tokio::test]
async fn a_change_whose_caller_is_gone_is_finished_and_told() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let heard = Heard::of(&store);
    let mut writer = intruder(&path).await;
    let lock = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let record = minted("billing").1;
    let mut insert = store.insert(record.clone());
    let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(insert.as_mut().poll(cx).is_pending())).await;
    assert!(waits);
    drop(insert);
    lock.rollback().await.unwrap();
    heard.wait_for(&KeyChange::Key(*record.id())).await;
    assert_eq!(find(&*store, record.id()).await, Ok(Some(record)));
}

#[tokio::test]
async fn nothing_stays_behind_a_store_that_is_dropped() {
    let (folder, path) = folder();
    let store = watching(&path).await;
    store.insert(minted("billing").1).await.unwrap();
    drop(store);
    // SQLite removes the log when the last connection closes.
    until("all connections are closed", async || fs::read_dir(folder.path()).unwrap().count() == 1).await;
}

#[cfg(all(unix, feature = "tracing"))]
#[tokio::test]
async fn the_log_says_why_changes_are_not_seen() {
    use tracing_subscriber::layer::SubscriberExt;

    let lines = lines::Lines::default();
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
    let (_folder, path) = folder();
    let store = watching(&path).await;
    let heard = Heard::of(&store);
    fs::rename(&path, path.with_file_name("kept.db")).unwrap();
    until("it is noticed that the file is gone", async || heard.take().contains(&KeyChange::Lost)).await;
    let said = lines.here();
    let why = "not seen for now: sqlite: backend unavailable: the file was replaced";
    assert!(said.iter().any(|line| line.contains(why)), "{said:?}");
}

/// A runtime of its own for what a service does before it serves, and its tasks end with it.
#[test]
fn a_store_goes_on_in_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_folder, path) = folder();
    let setup = runtime();
    let store = setup.block_on(watching(&path));
    let heard = Heard::of(&store);
    drop(setup);
    assert!(store.changes().unwrap().is_lost(), "nobody looks what others change");
    assert_eq!(heard.take(), [KeyChange::Lost]);

    runtime().block_on(async {
        let record = minted("billing").1;
        store.insert(record.clone()).await.unwrap();
        until("it looks again", async || heard.take().contains(&KeyChange::Everything)).await;
        let elsewhere = open(&path).await;
        elsewhere.revoke(record.id(), &revocation("leaked")).await.unwrap();
        until("and sees", async || heard.take().contains(&KeyChange::Everything)).await;
        drop(elsewhere);
        for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
            let _ = fs::remove_file(path.with_file_name(name));
        }
        until("that the file is gone too", async || find(&store, record.id()).await.is_err()).await;
    });
}

#[tokio::test]
async fn a_listener_that_panics_keeps_nothing_from_the_others() {
    let (_folder, path) = folder();
    let store = watching(&path).await;
    let bad: Arc<dyn ChangeListener> = Arc::new(|change: &KeyChange| assert_eq!(*change, KeyChange::Lost, "a bug"));
    store.changes().unwrap().subscribe(Arc::downgrade(&bad));
    let heard = Heard::of(&store);
    let record = minted("billing").1;
    store.insert(record.clone()).await.unwrap();
    assert!(heard.take().contains(&KeyChange::Key(*record.id())));
    let elsewhere = open(&path).await;
    for reason in ["leaked", "again"] {
        elsewhere.disable_owner(record.owner(), &revocation(reason)).await.unwrap();
        until("it looks still", async || heard.take().contains(&KeyChange::Everything)).await;
        elsewhere.enable_owner(record.owner()).await.unwrap();
        until("it looks still", async || heard.take().contains(&KeyChange::Everything)).await;
    }
    assert!(!store.changes().unwrap().is_lost());
}
