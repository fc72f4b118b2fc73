//! What is done on a connection to PostgreSQL.

use sqlx::{Connection, PgConnection};

use super::BACKEND;
use crate::{
    api_key::{
        ApiKeyRecord, Found, Hit, KeyFilter, KeyId, LastUse, Owner, Revocation, Rotation,
        sql::{
            OpenError,
            columns::{Columns, corrupt, hit, seconds},
            error::failed,
            page::page,
            statements::{self, work},
        },
    },
    error::{StoreError, StoreErrorKind},
};

const PURGE: &str = "DELETE FROM portcullis_api_keys WHERE id IN (SELECT id FROM portcullis_api_keys \
     WHERE LEAST(revoked_at, expires) < $1 LIMIT $2)";

/// Locks the rows in their order first, so that two processes that note the same keys do not wait for each other.
const RECORD_USES: &str = "UPDATE portcullis_api_keys k SET last_used_at = used.at, last_used_from = used.address \
     FROM (SELECT known.id, u.at, u.address FROM portcullis_api_keys known \
     JOIN unnest($1::bytea[], $2::bigint[], $3::text[]) AS u(id, at, address) ON u.id = known.id \
     ORDER BY known.id FOR NO KEY UPDATE OF known) AS used \
     WHERE k.id = used.id AND coalesce(k.last_used_at, 0) <= used.at";

/// Any number that nobody else locks: `portcull` in ASCII.
const MIGRATION_LOCK: i64 = 0x706f_7274_6375_6c6c;

pub(super) const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("1.sql"))];

work! {
    PgConnection, BACKEND, begin: "BEGIN", find_to_rotate: statements::FIND_AND_LOCK, purge: PURGE, position: "strpos"
}

pub(super) async fn record_uses(connection: &mut PgConnection, uses: Vec<(KeyId, LastUse)>) -> Result<(), StoreError> {
    let ids: Vec<Vec<u8>> = uses.iter().map(|(id, _)| id.as_bytes().to_vec()).collect();
    let times: Vec<i64> = uses.iter().map(|(_, last)| seconds(last.at())).collect();
    let address = |last: &LastUse| last.address().map(|address| address.to_string());
    let addresses: Vec<Option<String>> = uses.iter().map(|(_, last)| address(last)).collect();
    let record = sqlx::query(RECORD_USES).bind(ids).bind(times).bind(addresses);
    record.execute(connection).await.map(drop).map_err(sql)
}

/// Makes the tables what they have to be, if it may, and checks that they are.
pub(super) async fn migrate(connection: &mut PgConnection, may: bool) -> Result<(), OpenError> {
    let needed = MIGRATIONS.len().try_into().unwrap_or(u32::MAX);
    let found = version(connection).await?;
    if found >= needed || !may {
        return OpenError::check_version(BACKEND, found, needed);
    }
    let mut transaction = connection.begin().await.map_err(sql)?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await.map_err(sql)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
    lock.execute(&mut *transaction).await.map_err(sql)?;
    let found = version(&mut transaction).await?; // another process may have been first
    for (_, text) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*text).execute(&mut *transaction).await.map_err(sql)?;
    }
    let found = version(&mut transaction).await?;
    transaction.commit().await.map_err(sql)?;
    OpenError::check_version(BACKEND, found, needed)
}

async fn version(connection: &mut PgConnection) -> Result<u32, StoreError> {
    // Not `to_regclass`: it may remember that there was no such table before this transaction waited for another one.
    let exists = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'portcullis_schema' \
         AND pg_catalog.pg_table_is_visible(oid))";
    let exists = sqlx::query_scalar::<_, bool>(exists);
    if !exists.fetch_one(&mut *connection).await.map_err(sql)? {
        return Ok(0);
    }
    let version: Option<i32> = sqlx::query_scalar(statements::VERSION).fetch_one(connection).await.map_err(sql)?;
    u32::try_from(version.unwrap_or(0)).map_err(|_| corrupt(BACKEND, "the version of the tables"))
}
