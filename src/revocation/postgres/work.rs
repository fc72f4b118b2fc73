//! What is asked of PostgreSQL.

use sqlx::{Connection, PgConnection};

use crate::{
    clock::Instants,
    error::StoreError,
    revocation::{
        entry::Entry,
        rows::{PAGE, no_room, number},
        state::MARGIN,
    },
    sql::{failed, postgres::BACKEND},
};

/// Where the version of the tables stands.
pub(super) const SCHEMA: &str = "portcullis_revocation_schema";
pub(super) const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("1.sql")), (2, include_str!("2.sql"))];

/// The lock of those who write, which the trigger takes as well.
const LOCK: &str = "LOCK TABLE portcullis_revocation_lock IN SHARE ROW EXCLUSIVE MODE";
/// By the server's clock and by the caller's, whichever is behind: one that is wrong deletes nothing for good. Of many, the one that is
/// told again is among them: what it met would be met again.
const FORGET: &str = "DELETE FROM portcullis_revocations WHERE ends < least(extract(epoch FROM now())::bigint, $3) - $1 \
     AND (id = $4 OR id IN (SELECT id FROM portcullis_revocations \
     WHERE ends < least(extract(epoch FROM now())::bigint, $3) - $1 ORDER BY ends LIMIT $2))";
/// There are no more rows than numbers from the first to the last: they are counted only where that does not say it. The others
/// wait for the lock meanwhile.
const HAS_ROOM: &str = "SELECT EXISTS (SELECT 1 FROM portcullis_revocations WHERE id = $1) \
     OR (SELECT max(number) - min(number) + 1 FROM portcullis_revocations) < $2 \
     OR (SELECT count(*) FROM portcullis_revocations) < $2";
const REVOKE: &str = "INSERT INTO portcullis_revocations AS r (id, number, kind, issuer, value, issued_until, ends) \
     VALUES ($1, 0, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET ends = greatest(r.ends, excluded.ends), \
     issued_until = CASE WHEN r.issued_until IS NULL OR excluded.issued_until IS NULL THEN NULL \
     ELSE greatest(r.issued_until, excluded.issued_until) END";
/// The last row that is known comes again: if it does not, numbers may be given anew.
pub(super) const READ: &str = "SELECT number, kind, issuer, value, issued_until, ends FROM portcullis_revocations \
     WHERE number >= $1 ORDER BY number LIMIT $2";

fn sql(error: sqlx::Error) -> StoreError {
    failed(BACKEND, error)
}

pub(super) async fn revoke(
    connection: &mut PgConnection,
    entry: Entry,
    most: usize,
    at: Instants,
) -> Result<(), StoreError> {
    let (now, margin) = (number(at.unix_seconds()), number(MARGIN));
    let most_rows = i64::try_from(most).unwrap_or(i64::MAX);
    let id = entry.digest();
    let id = id.as_ref();
    let mut transaction = connection.begin().await.map_err(sql)?;
    sqlx::query(LOCK).execute(&mut *transaction).await.map_err(sql)?;
    let forget = sqlx::query(FORGET).bind(margin).bind(i64::from(PAGE)).bind(now).bind(id);
    forget.execute(&mut *transaction).await.map_err(sql)?;
    let has_room = sqlx::query_scalar::<_, bool>(HAS_ROOM).bind(id).bind(most_rows);
    if !has_room.fetch_one(&mut *transaction).await.map_err(sql)? {
        // What has ended is gone all the same, so that there is room some time.
        transaction.commit().await.map_err(sql)?;
        return Err(no_room(BACKEND, most));
    }
    sqlx::query(REVOKE)
        .bind(id)
        .bind(entry.kind)
        .bind(&entry.issuer)
        .bind(&entry.value)
        .bind(entry.last_issue().map(number))
        .bind(number(entry.until))
        .execute(&mut *transaction)
        .await
        .map_err(sql)?;
    transaction.commit().await.map_err(sql)
}
