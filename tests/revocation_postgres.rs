//! Revocations in PostgreSQL: what is told in the channel is no more than a hint, and the pool's owner may change how it connects.
//! Each test has a server of its own.

#![cfg(unix)]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "test code, helpers included")]

#[path = "support/revocations.rs"]
mod revocations;

use std::{sync::Arc, time::Duration};

use portcullis::{
    StoreErrorKind,
    revocation::{
        OpenError, PostgresRevocations, Revocation, RevocationKind, RevocationLimits, RevocationStore, Standing,
        TokenMarks,
    },
};
use revocations::{
    authenticator, impatient, mint::ISSUER, minted, now, open, patient, postgres::Server, revoke, status, until,
};
use sqlx::{Connection, PgConnection, PgPool};

async fn by_hand(server: &Server, statements: &[&str]) {
    let mut connection = PgConnection::connect(&server.address()).await.unwrap();
    for statement in statements {
        sqlx::raw_sql(sqlx::AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await.unwrap();
    }
}

async fn tell(server: &Server, payload: &str) {
    let mut connection = PgConnection::connect(&server.address()).await.unwrap();
    let notify = sqlx::query("SELECT pg_notify('portcullis_revocations', $1)").bind(payload);
    notify.execute(&mut connection).await.unwrap();
}

fn is_revoked(store: &Arc<dyn RevocationStore>, jti: &str) -> bool {
    store.state().check_marks(&TokenMarks::new(ISSUER).token(jti), now()) == Standing::Revoked(RevocationKind::Token)
}

/// Whoever may connect to the database may also notify.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn what_is_told_without_a_row_revokes_nobody() {
    let server = Server::start();
    let store = open(&server.address(), patient()).await;
    let jwt = authenticator(&store);
    tell(&server, &format!(r#"[0,"client","{ISSUER}","client-good",null,9000000000]"#)).await;
    tell(&server, &format!(r#"[0,"key","{ISSUER}","k-1",null,253402300799]"#)).await;
    tell(&server, r#"[3,"galaxy","i","x",null,9]"#).await;
    // Notifications arrive in their order.
    revoke(&*open(&server.address(), patient()).await, "marker").await;
    until("the marker is known", || is_revoked(&store, "marker")).await;
    assert_eq!(status(&jwt, &minted("good")), 200);
    assert_eq!(store.state().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn what_is_told_without_a_row_hides_no_row() {
    let server = Server::start();
    let store = open(&server.address(), RevocationLimits::new().max_age(Duration::from_secs(2))).await;
    let jwt = authenticator(&store);
    revoke(&*store, "first").await;
    for number in 2..10 {
        tell(&server, &format!(r#"[{number},"token","x","y",null,9000000000]"#)).await;
    }
    revoke(&*store, "second").await;
    let row = format!(
        "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', 'third', 9000000000)"
    );
    by_hand(&server, &["ALTER TABLE portcullis_revocations DISABLE TRIGGER portcullis_tell", &row]).await;
    until("the row is read", || status(&jwt, &minted("third")) == 401).await;
    assert_eq!(status(&jwt, &minted("good")), 200);
}

/// As where a backup is put back under processes that run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn rows_that_are_numbered_anew_are_read() {
    let server = Server::start();
    let store = open(&server.address(), RevocationLimits::new().max_age(Duration::from_secs(2))).await;
    for jti in ["a", "b", "c"] {
        revoke(&*store, jti).await;
    }
    let anew = "DELETE FROM portcullis_revocations; ALTER SEQUENCE portcullis_revocation_numbers RESTART";
    by_hand(&server, &[anew]).await;
    let other = open(&server.address(), patient()).await;
    revoke(&*other, "d").await;
    until("the first one is heard", || is_revoked(&store, "d")).await;
    // At the very number that was read last, and unheard.
    let row = format!(
        "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', 'e', 9000000000)"
    );
    by_hand(&server, &["ALTER TABLE portcullis_revocations DISABLE TRIGGER portcullis_tell", anew, &row]).await;
    until("the second one is read", || is_revoked(&store, "e")).await;
    assert_eq!(store.state().len(), 5);
}

/// As after a restore of the table alone, or a switch by logical replication: the rows stay, and the numbers begin anew. In tables of
/// the first version, those that were revoked then were heard by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn numbers_that_are_behind_the_rows_are_brought_above_them() {
    let server = Server::start();
    let (_, first) = PostgresRevocations::migrations().next().unwrap();
    by_hand(&server, &["CREATE ROLE clerk LOGIN; CREATE ROLE later LOGIN", first]).await;
    // What was enough for the first version.
    let grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON portcullis_revocations TO clerk; \
         GRANT USAGE ON SEQUENCE portcullis_revocation_numbers TO clerk; \
         GRANT SELECT ON portcullis_revocation_schema TO clerk, later";
    by_hand(&server, &[grants]).await;
    let of = |role: &str| server.address().replace("test@", &format!("{role}@"));
    let row = |jti: &str| {
        format!(
            "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', '{jti}', 9000000000)"
        )
    };
    by_hand(&server, &[&row("a"), &row("b"), &row("c"), "DELETE FROM portcullis_revocations WHERE value = 'a'"]).await;
    let error = PostgresRevocations::builder(&server.address()).without_migrating().connect().await.unwrap_err();
    assert!(matches!(error, OpenError::Version { found: 1, needed: 2, .. }), "{error}");

    let limits = RevocationLimits::new().max_age(Duration::from_secs(2));
    let owner = open(&server.address(), limits).await;
    assert_eq!(owner.state().len(), 2);
    // What the documentation asks for by now.
    let grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON portcullis_revocations TO later; \
         GRANT UPDATE ON portcullis_revocation_lock, portcullis_revocation_numbers TO later";
    by_hand(&server, &[grants]).await;
    let (clerk, later) = (open(&of("clerk"), limits).await, open(&of("later"), limits).await);
    let anew = "SELECT setval('portcullis_revocation_numbers', 1, false)";
    for (store, jti) in [(&owner, "d"), (&clerk, "e"), (&later, "l")] {
        by_hand(&server, &[anew]).await;
        revoke(&**store, jti).await;
        until("both know it", || is_revoked(&owner, jti) && is_revoked(&clerk, jti)).await;
    }
    // By hand as well, several at once, and from another schema.
    by_hand(&server, &[anew, &format!("{}, ('token', '{ISSUER}', 'g', 9000000000)", row("f"))]).await;
    until("both are known", || is_revoked(&clerk, "f") && is_revoked(&clerk, "g")).await;
    let elsewhere = format!("{}?options[search_path]=elsewhere", server.address());
    by_hand(&server, &["CREATE SCHEMA elsewhere"]).await;
    drop(open(&elsewhere, limits).await);
    let into = row("h").replace("INTO portcullis", "INTO public.portcullis");
    by_hand(&server, &[&format!("SET search_path = elsewhere; {into}")]).await;
    until("it is known", || is_revoked(&clerk, "h")).await;
}

/// Whoever may connect to the database may take any advisory lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn who_has_no_right_to_the_tables_keeps_nobody_from_revoking() {
    let server = Server::start();
    let store = open(&server.address(), patient()).await;
    by_hand(&server, &["CREATE ROLE guest LOGIN"]).await;
    let mut guest = PgConnection::connect(&server.address().replace("test@", "guest@")).await.unwrap();
    // The one of the first version.
    sqlx::query("SELECT pg_advisory_lock(8101820099123836524)").execute(&mut guest).await.unwrap();
    revoke(&*store, "stolen").await;
    for mode in ["ACCESS SHARE", "SHARE ROW EXCLUSIVE"] {
        let lock = format!("BEGIN; LOCK TABLE portcullis_revocation_lock IN {mode} MODE");
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut guest).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
        sqlx::raw_sql("ROLLBACK").execute(&mut guest).await.unwrap();
    }
    // Writers wait for each other all the same.
    let mut owner = PgConnection::connect(&server.address()).await.unwrap();
    let row = format!(
        "BEGIN; INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', '{ISSUER}', 'a', 9000000000)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(row)).execute(&mut owner).await.unwrap();
    let error = store.revoke(&Revocation::token(ISSUER, "b").unwrap(), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    sqlx::raw_sql("COMMIT").execute(&mut owner).await.unwrap();
    revoke(&*store, "b").await;
    until("both are known", || is_revoked(&store, "a") && is_revoked(&store, "b")).await;
}

/// Both tell in one channel, for a channel belongs to the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn services_in_two_schemas_of_one_database_share_nothing() {
    let server = Server::start();
    by_hand(&server, &["CREATE SCHEMA one", "CREATE SCHEMA two"]).await;
    let of = |schema: &str| format!("{}?options[search_path]={schema}", server.address());
    let (one, two) = (open(&of("one"), patient()).await, open(&of("two"), patient()).await);
    for number in 0..5 {
        revoke(&*two, &format!("two-{number}")).await;
    }
    revoke(&*open(&of("one"), patient()).await, "one-0").await;
    until("its own is known", || is_revoked(&one, "one-0")).await;
    assert_eq!((one.state().len(), two.state().len()), (1, 5));
    assert!(!is_revoked(&one, "two-0") && !is_revoked(&two, "one-0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn the_listener_connects_as_its_pool_does_by_then() {
    let server = Server::start();
    by_hand(&server, &["CREATE ROLE before LOGIN SUPERUSER", "CREATE ROLE after LOGIN SUPERUSER"]).await;
    let pool = PgPool::connect(&server.address().replace("test@", "before@")).await.unwrap();
    let store = PostgresRevocations::builder_with_pool(pool.clone()).limits(impatient()).connect().await.unwrap();
    store.loaded().await;
    let options = pool.connect_options().as_ref().clone();
    pool.set_connect_options(options.username("after"));
    let leave = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'before'";
    by_hand(&server, &["ALTER ROLE before NOLOGIN", leave]).await;
    revoke(&*open(&server.address(), patient()).await, "later").await;
    let marks = TokenMarks::new(ISSUER).token("later");
    let revoked = Standing::Revoked(RevocationKind::Token);
    until("it hears again", || store.state().check_marks(&marks, now()) == revoked).await;
    store.revoke(&Revocation::token(ISSUER, "own").unwrap(), now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn to_revoke_does_not_read_the_whole_table() {
    const ROWS: i64 = 20_000;
    const REVOKED: i64 = 20;
    let server = Server::start();
    let store = open(&server.address(), patient()).await;
    let rows = format!(
        "INSERT INTO portcullis_revocations (kind, issuer, value, ends) \
         SELECT 'token', '{ISSUER}', number, 9000000000 FROM generate_series(1, {ROWS}) AS number"
    );
    by_hand(&server, &[&rows, "ANALYZE portcullis_revocations"]).await;
    for number in 0..REVOKED {
        revoke(&*store, &format!("next-{number}")).await;
    }
    // A session tells what it did once it rests, all of it together.
    let counts = "SELECT n_tup_ins, (seq_tup_read + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes \
         WHERE relname = 'portcullis_revocations'))::bigint FROM pg_stat_user_tables WHERE relname = 'portcullis_revocations'";
    for _ in 0..1_000 {
        let mut connection = PgConnection::connect(&server.address()).await.unwrap();
        let (added, read): (i64, i64) = sqlx::query_as(counts).fetch_one(&mut connection).await.unwrap();
        if added == ROWS + REVOKED {
            assert!(read < ROWS * 5, "{read} rows were read");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server does not count");
}
