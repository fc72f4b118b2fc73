//! What is done on a connection to SQLite.

use sqlx::{Connection, SqliteConnection};

use super::BACKEND;
use crate::{
    api_key::{
        ApiKeyRecord, Found, Hit, KeyFilter, KeyId, LastUse, Owner, Revocation, Rotation,
        sql::{
            columns::{Columns, corrupt, hit, seconds},
            page::page,
            statements::{self, work},
        },
    },
    error::{StoreError, StoreErrorKind},
    sql::{OpenError, failed},
};

/// Takes the lock for writing before it looks, so that of two who change one key the second one sees what the first did.
const BEGIN: &str = "BEGIN IMMEDIATE";

const PURGE: &str = "DELETE FROM portcullis_api_keys WHERE id IN (SELECT id FROM portcullis_api_keys \
     WHERE coalesce(min(revoked_at, expires), revoked_at, expires) < $1 LIMIT $2)";

const RECORD_USES: &str = "UPDATE portcullis_api_keys SET last_used_at = used.at, last_used_from = used.address \
     FROM (SELECT unhex(value ->> 'id') AS id, value ->> 'at' AS at, value ->> 'address' AS address \
     FROM json_each($1)) AS used \
     WHERE portcullis_api_keys.id = used.id AND coalesce(portcullis_api_keys.last_used_at, 0) <= used.at";

pub(super) const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("1.sql"))];

work! {
    SqliteConnection, BACKEND, begin: BEGIN, find_to_rotate: statements::FIND, purge: PURGE, position: "instr"
}

pub(super) async fn record_uses(
    connection: &mut SqliteConnection,
    uses: Vec<(KeyId, LastUse)>,
) -> Result<(), StoreError> {
    let rows: serde_json::Value = uses
        .iter()
        .map(|(id, last)| {
            let id: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let address = last.address().map(|address| address.to_string());
            serde_json::json!({ "id": id, "at": last.at(), "address": address })
        })
        .collect();
    sqlx::query(RECORD_USES).bind(rows.to_string()).execute(connection).await.map(drop).map_err(sql)
}

/// A number that is another one when somebody else changed the database, as long as this connection is asked.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await.map_err(sql)
}

/// Makes the tables what they have to be, if it may, and checks that they are.
pub(super) async fn migrate(connection: &mut SqliteConnection, may: bool) -> Result<(), OpenError> {
    let needed = MIGRATIONS.len().try_into().unwrap_or(u32::MAX);
    let found = version(connection).await?;
    if found >= needed || !may {
        return OpenError::check_version(BACKEND, found, needed);
    }
    let mut transaction = connection.begin_with(BEGIN).await.map_err(sql)?;
    let found = version(&mut transaction).await?; // another process may have been first
    for (_, text) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*text).execute(&mut *transaction).await.map_err(sql)?;
    }
    let found = version(&mut transaction).await?;
    transaction.commit().await.map_err(sql)?;
    OpenError::check_version(BACKEND, found, needed)
}

async fn version(connection: &mut SqliteConnection) -> Result<u32, StoreError> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'portcullis_schema')";
    if !sqlx::query_scalar::<_, bool>(exists).fetch_one(&mut *connection).await.map_err(sql)? {
        return Ok(0);
    }
    let version: Option<i64> = sqlx::query_scalar(statements::VERSION).fetch_one(connection).await.map_err(sql)?;
    u32::try_from(version.unwrap_or(0)).map_err(|_| corrupt(BACKEND, "the version of the tables"))
}
