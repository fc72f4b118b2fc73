//! What is done on a connection to SQLite.

use sqlx::{Connection, SqliteConnection};

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
    sql::{
        failed,
        sqlite::{BACKEND, BEGIN},
    },
};

const PURGE: &str = "DELETE FROM portcullis_api_keys WHERE id IN (SELECT id FROM portcullis_api_keys \
     WHERE coalesce(min(revoked_at, expires), revoked_at, expires) < $1 LIMIT $2)";

const RECORD_USES: &str = "UPDATE portcullis_api_keys SET last_used_at = used.at, last_used_from = used.address \
     FROM (SELECT unhex(value ->> 'id') AS id, value ->> 'at' AS at, value ->> 'address' AS address \
     FROM json_each($1)) AS used \
     WHERE portcullis_api_keys.id = used.id AND coalesce(portcullis_api_keys.last_used_at, 0) <= used.at";

/// Where the version of the tables stands.
pub(super) const SCHEMA: &str = "portcullis_schema";
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
