//! What both databases are asked in the same words. Each text is prepared once for a connection.

use std::collections::BTreeMap;

use crate::api_key::{KeyId, KeyUse, LastUse};

macro_rules! select {
    () => {
        "SELECT k.id, k.scheme, k.hash, k.name, k.subject, k.tenant, k.plan, k.environment, k.scopes, k.roles, \
         k.addresses, k.metadata, k.created, k.not_before, k.expires, k.rotated_from, k.rotated_to, k.revoked_at, \
         k.revoked_reason, k.last_used_at, k.last_used_from, d.subject IS NOT NULL AS owner_disabled \
         FROM portcullis_api_keys k \
         LEFT JOIN portcullis_disabled_owners d ON d.tenant = k.tenant AND d.subject = k.subject"
    };
}

pub(super) const SELECT: &str = select!();

pub(super) const FIND: &str = concat!(select!(), " WHERE k.id = $1");

/// The row stays as it is until the transaction ends.
#[cfg(feature = "api-key-postgres")]
pub(super) const FIND_AND_LOCK: &str = concat!(select!(), " WHERE k.id = $1 FOR UPDATE OF k");

pub(super) const INSERT: &str = "INSERT INTO portcullis_api_keys \
     (id, scheme, hash, name, subject, tenant, plan, environment, scopes, roles, addresses, metadata, created, not_before, \
     expires, rotated_from, rotated_to, revoked_at, revoked_reason, last_used_at, last_used_from) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) \
     ON CONFLICT (id) DO NOTHING";

pub(super) const SHORTEN: &str = "UPDATE portcullis_api_keys SET rotated_to = $2, expires = $3 WHERE id = $1";

pub(super) const REVOKE: &str =
    "UPDATE portcullis_api_keys SET revoked_at = $2, revoked_reason = $3 WHERE id = $1 AND revoked_at IS NULL";

pub(super) const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM portcullis_api_keys WHERE id = $1)";

pub(super) const DISABLE: &str = "INSERT INTO portcullis_disabled_owners (tenant, subject, disabled_at, reason) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, subject) DO NOTHING";

pub(super) const ENABLE: &str = "DELETE FROM portcullis_disabled_owners WHERE tenant = $1 AND subject = $2";

pub(super) const DISABLEMENT: &str =
    "SELECT disabled_at, reason FROM portcullis_disabled_owners WHERE tenant = $1 AND subject = $2";

/// The most rows that one statement removes or notes: a writer holds up others that long.
pub(super) const BATCH: usize = 500;

/// One use for each key, the latest, by ascending id.
pub(super) fn latest(uses: &[KeyUse]) -> Vec<(KeyId, LastUse)> {
    let mut latest: BTreeMap<KeyId, LastUse> = BTreeMap::new();
    for used in uses {
        let last = latest.entry(*used.id()).or_insert_with(|| used.last());
        if last.at() <= used.last().at() {
            *last = used.last();
        }
    }
    latest.into_iter().collect()
}

/// Implements what is done on a connection of one database. `$find_to_rotate` is how a key is found that this transaction
/// is about to change, so that no other one changes it meanwhile; `$begin` begins the transaction.
macro_rules! work {
    ($connection:ty, $backend:expr, begin: $begin:expr, find_to_rotate: $find_to_rotate:expr, purge: $purge:expr,
     position: $position:expr) => {
        fn sql(error: sqlx::Error) -> StoreError {
            failed($backend, error)
        }

        fn conflict(id: &KeyId) -> StoreError {
            StoreError::new(StoreErrorKind::Conflict, $backend).about(format!("key {id}"))
        }

        async fn select(connection: &mut $connection, statement: &'static str, id: KeyId) -> Found {
            let row = sqlx::query(statement).bind(id.as_bytes().to_vec()).fetch_optional(connection).await;
            let Some(row) = row.map_err(sql)? else { return Ok(None) };
            let hit = hit(&row, $backend)?;
            // Whatever went wrong on the connection before: no key is accepted for another one's id.
            if *hit.record().id() == id { Ok(Some(hit)) } else { Err(corrupt($backend, &format!("key {id}"))) }
        }

        pub(super) async fn find(connection: &mut $connection, id: KeyId) -> Found {
            select(connection, statements::FIND, id).await
        }

        pub(super) async fn insert(connection: &mut $connection, record: ApiKeyRecord) -> Result<(), StoreError> {
            let insert = Columns::of(&record).bind(sqlx::query(statements::INSERT));
            let inserted = insert.execute(connection).await.map_err(sql)?.rows_affected();
            if inserted == 0 { Err(conflict(record.id())) } else { Ok(()) }
        }

        pub(super) async fn rotate(connection: &mut $connection, rotation: Rotation) -> Result<bool, StoreError> {
            let mut transaction = connection.begin_with($begin).await.map_err(sql)?;
            let Some(hit) = select(&mut transaction, $find_to_rotate, *rotation.old()).await? else { return Ok(false) };
            let Some(old) = rotation.shorten(hit.record()) else { return Err(conflict(rotation.old())) };
            insert(&mut transaction, rotation.record().clone()).await?;
            sqlx::query(statements::SHORTEN)
                .bind(old.id().as_bytes().to_vec())
                .bind(old.rotated_to().map(|new| new.as_bytes().to_vec()))
                .bind(old.expires().map(seconds))
                .execute(&mut *transaction)
                .await
                .map_err(sql)?;
            transaction.commit().await.map_err(sql)?;
            Ok(true)
        }

        pub(super) async fn revoke(
            connection: &mut $connection,
            id: KeyId,
            revocation: Revocation,
        ) -> Result<bool, StoreError> {
            let revoke = sqlx::query(statements::REVOKE)
                .bind(id.as_bytes().to_vec())
                .bind(seconds(revocation.at()))
                .bind(revocation.reason().to_owned());
            if revoke.execute(&mut *connection).await.map_err(sql)?.rows_affected() > 0 {
                return Ok(true);
            }
            let exists = sqlx::query_scalar(statements::EXISTS).bind(id.as_bytes().to_vec());
            exists.fetch_one(connection).await.map_err(sql)
        }

        pub(super) async fn disable(
            connection: &mut $connection,
            owner: Owner,
            disablement: Revocation,
        ) -> Result<bool, StoreError> {
            let disable = sqlx::query(statements::DISABLE)
                .bind(owner.tenant().unwrap_or_default().to_owned())
                .bind(owner.subject().to_owned())
                .bind(seconds(disablement.at()))
                .bind(disablement.reason().to_owned());
            Ok(disable.execute(connection).await.map_err(sql)?.rows_affected() > 0)
        }

        pub(super) async fn enable(connection: &mut $connection, owner: Owner) -> Result<bool, StoreError> {
            let enable = sqlx::query(statements::ENABLE)
                .bind(owner.tenant().unwrap_or_default().to_owned())
                .bind(owner.subject().to_owned());
            Ok(enable.execute(connection).await.map_err(sql)?.rows_affected() > 0)
        }

        pub(super) async fn disablement(
            connection: &mut $connection,
            owner: Owner,
        ) -> Result<Option<Revocation>, StoreError> {
            let disablement = sqlx::query_as::<_, (i64, String)>(statements::DISABLEMENT)
                .bind(owner.tenant().unwrap_or_default().to_owned())
                .bind(owner.subject().to_owned());
            let Some((at, reason)) = disablement.fetch_optional(connection).await.map_err(sql)? else {
                return Ok(None);
            };
            let broken = || corrupt($backend, &format!("the disablement of {owner:?}"));
            let at = u64::try_from(at).map_err(|_| broken())?;
            Revocation::new(at, &reason).map(Some).map_err(|error| broken().caused_by(error))
        }

        pub(super) async fn list(
            connection: &mut $connection,
            filter: KeyFilter,
            after: Option<KeyId>,
            limit: usize,
        ) -> Result<Vec<Hit>, StoreError> {
            let Some(mut page) = page(&filter, after.as_ref(), limit, $position) else { return Ok(Vec::new()) };
            let rows = page.build().fetch_all(connection).await.map_err(sql)?;
            rows.iter().map(|row| hit(row, $backend)).collect()
        }

        /// Removes some of the keys that ended before that time, and says how many.
        pub(super) async fn purge(connection: &mut $connection, before: u64) -> Result<u64, StoreError> {
            let batch = i64::try_from(statements::BATCH).unwrap_or(i64::MAX);
            let purge = sqlx::query($purge).bind(seconds(before)).bind(batch);
            Ok(purge.execute(connection).await.map_err(sql)?.rows_affected())
        }
    };
}
pub(super) use work;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::sql::columns::Columns;

    #[test]
    fn of_two_uses_of_a_key_the_later_one_counts() {
        let used = |id, at| KeyUse::new(KeyId::from_bytes([id; 10]), LastUse::new(at, None));
        let latest = latest(&[used(2, 5), used(1, 3), used(2, 4), used(1, 9)]);
        let expected = [(1, 9), (2, 5)].map(|(id, at)| (*used(id, at).id(), LastUse::new(at, None)));
        assert_eq!(latest, expected);
    }

    #[test]
    fn the_statements_name_the_columns_in_their_order() {
        let listed = |text: &'static str, from: &str, to: &str| {
            let (_, rest) = text.split_once(from).unwrap();
            let (list, _) = rest.split_once(to).unwrap();
            list.split(", ").map(|name| name.trim_start_matches("k.")).collect::<Vec<_>>()
        };
        assert_eq!(listed(SELECT, "SELECT ", ", d.subject"), Columns::NAMES);
        assert_eq!(listed(INSERT, "(", ") VALUES"), Columns::NAMES);
        assert!(INSERT.contains(&format!("${})", Columns::NAMES.len())));
    }
}
