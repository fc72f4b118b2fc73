//! What is done on a connection to PostgreSQL.

use sqlx::{Connection, PgConnection};

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
    sql::{failed, postgres::BACKEND},
};

const PURGE: &str = "DELETE FROM portcullis_api_keys WHERE id IN (SELECT id FROM portcullis_api_keys \
     WHERE LEAST(revoked_at, expires) < $1 LIMIT $2)";

/// Locks the rows in their order first, so that two processes that note the same keys do not wait for each other.
const RECORD_USES: &str = "UPDATE portcullis_api_keys k SET last_used_at = used.at, last_used_from = used.address \
     FROM (SELECT known.id, u.at, u.address FROM portcullis_api_keys known \
     JOIN unnest($1::bytea[], $2::bigint[], $3::text[]) AS u(id, at, address) ON u.id = known.id \
     ORDER BY known.id FOR NO KEY UPDATE OF known) AS used \
     WHERE k.id = used.id AND coalesce(k.last_used_at, 0) <= used.at";

/// Where the version of the tables stands.
pub(super) const SCHEMA: &str = "portcullis_schema";

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
