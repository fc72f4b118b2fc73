//! Keys in PostgreSQL: the contract, other processes, and what goes wrong. Each test has a server of its own.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "support/keys.rs"]
mod keys;
#[path = "support/postgres.rs"]
mod postgres;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use keys::{
    AT, Heard, NOW, Store, find, many_are_noted_and_purged, minted, one_rotation_wins, refusal, revocation,
    texts_stay_texts, until,
};
use portcullis::{
    RejectionKind, StoreErrorKind,
    api_key::{ApiKeyAdmin, ApiKeyStore, KeyChange, KeyUse, LastUse, OpenError, Owner, PostgresKeyStore},
    conformance,
};
use postgres::Server;
use sqlx::{Connection, PgConnection, postgres::PgPoolOptions};

async fn connect(server: &Server) -> PostgresKeyStore {
    PostgresKeyStore::connect(&server.address()).await.unwrap()
}

/// Waits until it hears what changes.
async fn listening(server: &Server) -> PostgresKeyStore {
    let store = connect(server).await;
    hears(&store).await;
    store
}

async fn hears(store: &PostgresKeyStore) {
    until("the store hears what changes", async || !store.changes().unwrap().is_lost()).await;
}

async fn intruder(server: &Server) -> PgConnection {
    PgConnection::connect(&server.address()).await.unwrap()
}

/// A runtime of its own for what a service does before it serves, and its tasks end with it.
#[test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
fn a_store_goes_on_in_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server, setup) = (Server::start(), runtime());
    let store = setup.block_on(listening(&server));
    let heard = Heard::of(&store);
    drop(setup);
    assert!(store.changes().unwrap().is_lost(), "nobody hears what others change");

    runtime().block_on(async {
        let record = minted("billing").1;
        let elsewhere = connect(&server).await;
        elsewhere.insert(record.clone()).await.unwrap();
        // Its connections are gone as well.
        until("it answers", async || matches!(find(&store, record.id()).await, Ok(Some(_)))).await;
        hears(&store).await;
        heard.take();
        elsewhere.revoke(record.id(), &revocation("leaked")).await.unwrap();
        until("it hears", async || heard.has(&KeyChange::Key(*record.id()))).await;
    });
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn the_store_keeps_its_contract() {
    let (server, address) = match std::env::var(postgres::ADDRESS) {
        Ok(address) => (None, address),
        Err(_) => {
            let server = Server::start();
            let address = server.address();
            (Some(server), address)
        }
    };
    let store: Store = Arc::new(PostgresKeyStore::connect(&address).await.unwrap());
    conformance::api_key_store(&store, AT).await;
    conformance::api_key_store(&store, AT).await; // one that holds keys already
    let pool = PgPoolOptions::new().max_connections(2).connect(&address).await.unwrap();
    let store: Store = Arc::new(PostgresKeyStore::with_pool(pool).await.unwrap());
    conformance::api_key_store(&store, AT).await;
    drop(server);
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn the_listener_connects_as_its_pool_does_by_then() {
    let server = Server::start();
    let mut intruder = intruder(&server).await;
    let roles = "CREATE ROLE before LOGIN SUPERUSER; CREATE ROLE after LOGIN SUPERUSER";
    sqlx::raw_sql(roles).execute(&mut intruder).await.unwrap();
    let pool = PgPoolOptions::new().connect(&server.address().replace("test@", "before@")).await.unwrap();
    let store = PostgresKeyStore::with_pool(pool.clone()).await.unwrap();
    hears(&store).await;
    pool.set_connect_options(pool.connect_options().as_ref().clone().username("after"));
    let leave =
        "ALTER ROLE before NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'before'";
    sqlx::raw_sql(leave).execute(&mut intruder).await.unwrap();
    // Nobody uses the pool meanwhile.
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'after'";
    for _ in 0..1_000 {
        if sqlx::query_scalar::<_, i64>(listening).fetch_one(&mut intruder).await.unwrap() > 0 {
            return hears(&store).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not connect again");
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn texts_are_never_statements_and_batches_have_no_seams() {
    let server = Server::start();
    let store: Store = Arc::new(connect(&server).await);
    texts_stay_texts(&store).await;
    many_are_noted_and_purged(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn of_two_processes_that_rotate_a_key_one_wins() {
    let server = Server::start();
    let (one, other): (Store, Store) = (Arc::new(connect(&server).await), Arc::new(connect(&server).await));
    one_rotation_wins(&one, &other, 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn processes_that_note_the_same_keys_do_not_block_each_other() {
    let server = Server::start();
    let stores = [Arc::new(connect(&server).await), Arc::new(connect(&server).await)];
    let mut uses = Vec::new();
    for number in 0..200 {
        stores[0].insert(keys::record(number)).await.unwrap();
        uses.push(KeyUse::new(*keys::record(number).id(), LastUse::new(150, None)));
    }
    let noting: Vec<_> = (0..16)
        .map(|number| {
            let (store, mut uses) = (Arc::clone(&stores[number % 2]), uses.clone());
            uses.rotate_left(number * 12);
            tokio::spawn(async move { store.record_uses(&uses).await })
        })
        .collect();
    for noted in noting {
        noted.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn many_may_make_the_tables_at_once_and_another_version_is_refused() {
    let server = Server::start();
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let address = server.address();
            tokio::spawn(async move { PostgresKeyStore::connect(&address).await })
        })
        .collect();
    for store in opening {
        store.await.unwrap().unwrap();
    }
    let mut connection = intruder(&server).await;
    let versions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM portcullis_schema").fetch_one(&mut connection).await.unwrap();
    assert_eq!(versions, 1);

    let newest = PostgresKeyStore::migrations().last().unwrap().0;
    let later = i32::try_from(newest).unwrap() + 1;
    sqlx::query("INSERT INTO portcullis_schema (version) VALUES ($1)")
        .bind(later)
        .execute(&mut connection)
        .await
        .unwrap();
    for error in [
        PostgresKeyStore::connect(&server.address()).await.unwrap_err(),
        PostgresKeyStore::connect_without_migrating(&server.address()).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, OpenError::Version { found, needed, .. } if (found, needed) == (newest + 1, newest)),
            "{error:?}"
        );
    }
}

/// A service that may only read, and whoever may change the schema.
#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn an_account_without_rights_to_the_schema_needs_none() {
    let server = Server::start();
    let mut owner = intruder(&server).await;
    sqlx::raw_sql("CREATE ROLE reader LOGIN; CREATE ROLE clerk LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .execute(&mut owner)
        .await
        .unwrap();
    let address = |role: &str| server.address().replace("test@", &format!("{role}@"));
    let error = PostgresKeyStore::connect_without_migrating(&address("reader")).await.unwrap_err();
    assert!(matches!(error, OpenError::Version { found: 0, .. }), "{error:?}");
    let error = PostgresKeyStore::connect(&address("reader")).await.unwrap_err();
    assert!(matches!(error, OpenError::Store(_)), "{error:?}");

    for (_, text) in PostgresKeyStore::migrations() {
        let mut transaction = owner.begin().await.unwrap();
        sqlx::raw_sql(text).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let grants = "GRANT SELECT ON portcullis_schema, portcullis_api_keys, portcullis_disabled_owners TO reader, clerk; \
                  GRANT INSERT, UPDATE, DELETE ON portcullis_api_keys, portcullis_disabled_owners TO clerk";
    sqlx::raw_sql(grants).execute(&mut owner).await.unwrap();

    let clerk: Store = Arc::new(PostgresKeyStore::connect_without_migrating(&address("clerk")).await.unwrap());
    conformance::api_key_store(&clerk, AT).await;
    let (key, record) = minted("billing");
    let reader: Store = Arc::new(PostgresKeyStore::connect(&address("reader")).await.unwrap());
    assert_eq!(reader.insert(record.clone()).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    clerk.insert(record).await.unwrap();
    assert_eq!(refusal(&reader, &key).await, None);
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_server_proves_itself_by_its_certificate() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let server = Server::start_with_tls(&cert.pem(), &signing_key.serialize_pem());
    let folder = tempfile::tempdir().unwrap();
    let (trusted, other) = (folder.path().join("trusted.pem"), folder.path().join("other.pem"));
    std::fs::write(&trusted, cert.pem()).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&other, stranger.cert.pem()).unwrap();

    let named = server.address().replace("127.0.0.1", "localhost");
    let strict = |address: &str, roots: &std::path::Path| {
        format!("{address}?sslmode=verify-full&sslrootcert={}", roots.display())
    };
    let store: Store = Arc::new(PostgresKeyStore::connect(&strict(&named, &trusted)).await.unwrap());
    conformance::api_key_store(&store, AT).await;
    for (name, address) in [
        ("another root", strict(&named, &other)),
        ("a name that is not in the certificate", strict(&server.address(), &trusted)),
        ("public roots alone", format!("{named}?sslmode=verify-full")),
    ] {
        let error = PostgresKeyStore::connect(&address).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::Store(error) if error.kind() == StoreErrorKind::Unavailable),
            "{name}: {error:?}"
        );
        assert!(
            std::error::Error::source(&error).is_some_and(|why| why.to_string().contains("certificate")),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_broken_row_is_an_error_and_nobody_gets_in() {
    let server = Server::start();
    let store: Store = Arc::new(connect(&server).await);
    let mut intruder = intruder(&server).await;
    let checks = "ALTER TABLE portcullis_api_keys DROP CONSTRAINT portcullis_api_keys_hash_check, \
                  DROP CONSTRAINT portcullis_api_keys_expires_check, DROP CONSTRAINT portcullis_api_keys_check";
    sqlx::raw_sql(checks).execute(&mut intruder).await.unwrap();
    for damage in [
        "UPDATE portcullis_api_keys SET hash = '\\x00' WHERE id = $1",
        "UPDATE portcullis_api_keys SET scheme = 'none' WHERE id = $1",
        "UPDATE portcullis_api_keys SET scopes = '[\"a' WHERE id = $1",
        "UPDATE portcullis_api_keys SET addresses = '[\"anywhere\"]' WHERE id = $1",
        "UPDATE portcullis_api_keys SET expires = -1 WHERE id = $1",
        "UPDATE portcullis_api_keys SET revoked_at = 1 WHERE id = $1",
        "UPDATE portcullis_api_keys SET name = E'a\\nb' WHERE id = $1",
    ] {
        let ((key, record), (fine, other)) = (minted("billing"), minted("billing"));
        store.insert(record.clone()).await.unwrap();
        store.insert(other).await.unwrap();
        let changed = sqlx::query(damage).bind(record.id().as_bytes().to_vec()).execute(&mut intruder).await.unwrap();
        assert_eq!(changed.rows_affected(), 1);
        let error = store.get(record.id()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{damage}");
        assert!(error.to_string().contains(&record.id().to_string()), "{damage}: {error}");
        assert_eq!(refusal(&store, &key).await, Some(RejectionKind::Unavailable), "{damage}");
        assert_eq!(refusal(&store, &fine).await, None, "{damage}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn what_others_change_is_heard_by_hand_too() {
    let server = Server::start();
    let (store, other) = (listening(&server).await, connect(&server).await);
    let heard = Heard::of(&store);
    let (record, new) = (minted("billing").1, minted("billing").1);
    let (old_id, new_id) = (*record.id(), *new.id());
    let owner = Owner::new("bil'ling").unwrap().in_tenant("acme \"ä\"").unwrap();

    other.insert(record.clone()).await.unwrap();
    heard.wait_for(&KeyChange::Key(old_id)).await;
    heard.take();
    let rotation = portcullis::api_key::Rotation::new(old_id, new, NOW + 60).unwrap();
    other.rotate(rotation).await.unwrap();
    heard.wait_for(&KeyChange::Key(old_id)).await;
    heard.wait_for(&KeyChange::Key(new_id)).await;
    heard.take();
    other.revoke(&new_id, &revocation("leaked")).await.unwrap();
    heard.wait_for(&KeyChange::Key(new_id)).await;
    other.disable_owner(&owner, &revocation("left")).await.unwrap();
    heard.wait_for(&KeyChange::Owner(owner.clone())).await;
    heard.take();
    other.enable_owner(&owner).await.unwrap();
    heard.wait_for(&KeyChange::Owner(owner)).await;

    // A use is nothing to hear of; what comes after it is.
    heard.take();
    let mut intruder = intruder(&server).await;
    other.record_uses(&[KeyUse::new(old_id, LastUse::new(NOW, None))]).await.unwrap();
    let revoke = "UPDATE portcullis_api_keys SET revoked_at = 1, revoked_reason = 'by hand' WHERE id = $1";
    sqlx::query(revoke).bind(new_id.as_bytes().to_vec()).execute(&mut intruder).await.unwrap();
    heard.wait_for(&KeyChange::Key(new_id)).await;
    assert_eq!(heard.take(), [KeyChange::Key(new_id)]);
    sqlx::query("INSERT INTO portcullis_disabled_owners VALUES ('', 'by hand', 1, '')")
        .execute(&mut intruder)
        .await
        .unwrap();
    heard.wait_for(&KeyChange::Owner(Owner::new("by hand").unwrap())).await;
    sqlx::query("DELETE FROM portcullis_api_keys").execute(&mut intruder).await.unwrap();
    heard.wait_for(&KeyChange::Key(old_id)).await;
    sqlx::query("TRUNCATE portcullis_api_keys").execute(&mut intruder).await.unwrap();
    heard.wait_for(&KeyChange::Everything).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_lost_connection_is_told_and_everything_comes_before_what_is_later() {
    let server = Server::start();
    let (store, other) = (listening(&server).await, connect(&server).await);
    let heard = Heard::of(&store);
    let mut intruder = intruder(&server).await;
    let record = minted("billing").1;
    other.insert(record.clone()).await.unwrap();
    for round in 0..3_u64 {
        heard.take();
        // The listening connection alone, as a firewall or an administrator ends it.
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query LIKE '%pg_notify%' OR query = 'SELECT 1')";
        let ended: i64 = sqlx::query_scalar(end).fetch_one(&mut intruder).await.unwrap();
        assert!(ended >= 1, "{round}");
        // While it is away.
        let missed = minted("billing").1;
        other.insert(missed.clone()).await.unwrap();
        heard.wait_for(&KeyChange::Lost).await;
        heard.wait_for(&KeyChange::Everything).await;
        let later = minted("billing").1;
        other.insert(later.clone()).await.unwrap();
        heard.wait_for(&KeyChange::Key(*later.id())).await;

        let all = heard.take();
        let place = |change: &KeyChange| all.iter().position(|heard| heard == change);
        let (lost, everything) = (place(&KeyChange::Lost).unwrap(), place(&KeyChange::Everything).unwrap());
        assert!(lost < everything && everything < place(&KeyChange::Key(*later.id())).unwrap(), "{all:?}");
        assert!(place(&KeyChange::Key(*missed.id())).is_none_or(|place| place < lost || place > everything), "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_server_that_stops_and_starts_under_load_admits_nobody_wrong_and_is_found_again() {
    let mut server = Server::start();
    let store = Arc::new(
        PostgresKeyStore::builder(&server.address())
            .acquire_timeout(Duration::from_millis(300))
            .connect()
            .await
            .unwrap(),
    );
    hears(&store).await;
    let admin: Store = Arc::<PostgresKeyStore>::clone(&store);
    let heard = Heard::of(&*store);
    let (good, record) = minted("billing");
    let (bad, revoked) = minted("billing");
    let (unknown, _) = minted("billing");
    admin.insert(record.clone()).await.unwrap();
    admin.insert(revoked.clone()).await.unwrap();
    admin.revoke(revoked.id(), &revocation("leaked")).await.unwrap();

    // Counts what the three keys get until it is told to stop.
    let (stop, admitted, away) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
    let (admitted, away): (Arc<AtomicUsize>, Arc<AtomicUsize>) = (admitted, away);
    let load: Vec<_> = [(good, true), (bad, false), (unknown, false)]
        .into_iter()
        .map(|(key, valid)| {
            let (admin, stop) = (Arc::clone(&admin), Arc::clone(&stop));
            let (admitted, away) = (Arc::clone(&admitted), Arc::clone(&away));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    match (refusal(&admin, &key).await, valid) {
                        (None, true) => drop(admitted.fetch_add(1, SeqCst)),
                        (Some(RejectionKind::Unavailable), _) => drop(away.fetch_add(1, SeqCst)),
                        (Some(RejectionKind::InvalidCredential), false) => {}
                        (refusal, valid) => panic!("a key that is {valid} gets {refusal:?}"),
                    }
                }
            })
        })
        .collect();

    for _ in 0..2 {
        heard.take();
        let (before, away_before) = (admitted.load(SeqCst), away.load(SeqCst));
        until("the key is accepted", async || admitted.load(SeqCst) > before).await;
        server.stop();
        until("503 while it is away", async || away.load(SeqCst) > away_before + 3).await;
        heard.wait_for(&KeyChange::Lost).await;
        assert!(admin.insert(minted("billing").1).await.is_err());
        server.restart();
        let before = admitted.load(SeqCst);
        until("the key is accepted again", async || admitted.load(SeqCst) > before + 3).await;
        heard.wait_for(&KeyChange::Everything).await;
    }
    stop.store(true, SeqCst);
    for load in load {
        load.await.unwrap();
    }
    // A revocation by another process is heard after all this.
    let other = connect(&server).await;
    other.revoke(record.id(), &revocation("leaked")).await.unwrap();
    heard.wait_for(&KeyChange::Key(*record.id())).await;
    assert_eq!(find(&*store, record.id()).await, Ok(Some(record.revoked(&revocation("leaked")))));
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_server_that_falls_silent_is_unavailable_in_time() {
    let mut server = Server::start();
    let store = PostgresKeyStore::builder(&server.address())
        .acquire_timeout(Duration::from_millis(500))
        .statement_timeout(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    hears(&store).await;
    let heard = Heard::of(&store);
    let store: Store = Arc::new(store);
    let (key, record) = minted("billing");
    store.insert(record.clone()).await.unwrap();
    let other: Store = Arc::new(connect(&server).await);

    server.freeze();
    for _ in 0..3 {
        assert_eq!(refusal(&store, &key).await, Some(RejectionKind::Unavailable));
    }
    heard.wait_for(&KeyChange::Lost).await;
    heard.take();
    server.thaw();

    until("it answers again", async || find(&*store, record.id()).await == Ok(Some(record.clone()))).await;
    heard.wait_for(&KeyChange::Everything).await;
    assert_eq!(heard.take().first(), Some(&KeyChange::Everything));
    until("it can be revoked", async || other.revoke(record.id(), &revocation("leaked")).await.is_ok()).await;
    heard.wait_for(&KeyChange::Key(*record.id())).await;
    assert_eq!(refusal(&store, &key).await, Some(RejectionKind::InvalidCredential));
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_change_whose_caller_is_gone_is_finished_and_told() {
    let server = Server::start();
    let store = listening(&server).await;
    let heard = Heard::of(&store);
    let record = minted("billing").1;
    let mut intruder = intruder(&server).await;
    let mut lock = intruder.begin().await.unwrap();
    sqlx::query("LOCK TABLE portcullis_api_keys IN SHARE MODE").execute(&mut *lock).await.unwrap();
    let mut insert = store.insert(record.clone());
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let mut observer = self::intruder(&server).await;
    let waiting = async {
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut observer).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = &mut insert => panic!("it does not wait: {answer:?}"),
        () = waiting => {}
    }
    drop(insert);
    lock.rollback().await.unwrap();
    heard.wait_for(&KeyChange::Key(*record.id())).await;
    assert_eq!(find(&store, record.id()).await, Ok(Some(record)));
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_row_that_another_process_holds_is_unavailable_in_time() {
    let server = Server::start();
    let store = PostgresKeyStore::builder(&server.address()).statement_timeout(Duration::from_millis(200));
    let store: Store = Arc::new(store.connect().await.unwrap());
    let (key, record) = minted("billing");
    store.insert(record.clone()).await.unwrap();
    let mut intruder = intruder(&server).await;
    let mut lock = intruder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM portcullis_api_keys FOR UPDATE").execute(&mut *lock).await.unwrap();
    let rotation = || portcullis::api_key::Rotation::new(*record.id(), minted("billing").1, NOW).unwrap();
    for error in [
        store.revoke(record.id(), &revocation("leaked")).await.unwrap_err(),
        store.rotate(rotation()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    }
    assert_eq!(refusal(&store, &key).await, None, "who reads does not wait for who writes");
    lock.rollback().await.unwrap();
    assert!(store.rotate(rotation()).await.unwrap());
}

#[tokio::test]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn nothing_stays_behind_a_store_that_is_dropped() {
    let server = Server::start();
    let mut observer = intruder(&server).await;
    let store = listening(&server).await;
    store.insert(minted("billing").1).await.unwrap();
    let others =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, i64>(others).fetch_one(&mut observer).await.unwrap() >= 2);
    drop(store);
    let mut gone = false;
    for _ in 0..2_000 {
        gone = sqlx::query_scalar::<_, i64>(others).fetch_one(&mut observer).await.unwrap() == 0;
        if gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone, "connections are left");
}
