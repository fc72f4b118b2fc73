//! What is asked of SQLite.

use sqlx::{Connection, SqliteConnection};

use crate::{
    clock::Instants,
    error::StoreError,
    revocation::{
        Revocation,
        entry::Entry,
        rows::{self, PAGE, Rows, no_room, number},
        state::MARGIN,
    },
    sql::{
        failed,
        sqlite::{BACKEND, BEGIN},
    },
};

/// Where the version of the tables stands.
pub(super) const SCHEMA: &str = "portcullis_revocation_schema";
pub(super) const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("1.sql"))];

/// By the system's clock and by the caller's, whichever is behind: one that is wrong deletes nothing for good. What is told again goes
/// first, if it has ended: what it met would be met again.
const FORGET_THIS: &str = "DELETE FROM portcullis_revocations WHERE kind = $1 AND issuer = $2 AND value = $3 \
     AND ends < min(unixepoch(), $4) - $5";
const FORGET: &str = "DELETE FROM portcullis_revocations WHERE number IN (SELECT number FROM portcullis_revocations \
     WHERE ends < min(unixepoch(), $1) - $2 ORDER BY ends LIMIT $3)";
/// There are no more rows than numbers from the first to the last: they are counted only where that does not say it. The others
/// wait for the lock meanwhile.
const HAS_ROOM: &str = "SELECT EXISTS (SELECT 1 FROM portcullis_revocations WHERE kind = $1 AND issuer = $2 AND value = $3) \
     OR coalesce((SELECT max(number) FROM portcullis_revocations) - (SELECT min(number) FROM portcullis_revocations) + 1, 0) < $4 \
     OR (SELECT count(*) FROM portcullis_revocations) < $4";
const REVOKE: &str = "INSERT INTO portcullis_revocations AS r (kind, issuer, value, issued_until, ends) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind, issuer, value) DO UPDATE SET ends = max(r.ends, excluded.ends), \
     issued_until = CASE WHEN r.issued_until IS NULL OR excluded.issued_until IS NULL THEN NULL \
     ELSE max(r.issued_until, excluded.issued_until) END";
/// The last row that is known comes again: if it does not, numbers may be given anew.
const READ: &str = "SELECT number, kind, issuer, value, issued_until, ends FROM portcullis_revocations \
     WHERE number >= $1 ORDER BY number LIMIT $2";

fn sql(error: sqlx::Error) -> StoreError {
    failed(BACKEND, error)
}

pub(super) async fn revoke(
    connection: &mut SqliteConnection,
    entry: Entry,
    most: usize,
    at: Instants,
) -> Result<(), StoreError> {
    let (now, margin) = (number(at.unix_seconds()), number(MARGIN));
    let what = |statement: &'static str| sqlx::query(statement).bind(entry.kind).bind(&entry.issuer).bind(&entry.value);
    let mut transaction = connection.begin_with(BEGIN).await.map_err(sql)?;
    what(FORGET_THIS).bind(now).bind(margin).execute(&mut *transaction).await.map_err(sql)?;
    let forget = sqlx::query(FORGET).bind(now).bind(margin).bind(i64::from(PAGE));
    forget.execute(&mut *transaction).await.map_err(sql)?;
    let has_room = sqlx::query_scalar::<_, bool>(HAS_ROOM).bind(entry.kind).bind(&entry.issuer).bind(&entry.value);
    let has_room = has_room.bind(i64::try_from(most).unwrap_or(i64::MAX)).fetch_one(&mut *transaction).await;
    if !has_room.map_err(sql)? {
        // What has ended is gone all the same, so that there is room some time.
        transaction.commit().await.map_err(sql)?;
        return Err(no_room(BACKEND, most));
    }
    let revoke = what(REVOKE).bind(entry.last_issue().map(number)).bind(number(entry.until));
    revoke.execute(&mut *transaction).await.map_err(sql)?;
    transaction.commit().await.map_err(sql)
}

impl Rows for SqliteConnection {
    const BACKEND: &'static str = BACKEND;

    async fn page(&mut self, from: i64) -> Result<Vec<(i64, Revocation)>, StoreError> {
        let read = sqlx::query(READ).bind(from).bind(i64::from(PAGE)).fetch_all(self);
        read.await.map_err(sql)?.iter().map(|row| rows::read(row, BACKEND)).collect()
    }
}
