//! What the suite of key stores finds in stores that lose a column, miss an edge, or look and write in two steps.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use portcullis::{
    Instants, StoreError, StoreErrorKind,
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, Found, Hit, KeyFilter, KeyId, KeyUse, Lookup, MAX_PAGE, Owner,
        RecordFields, Revocation, Rotation,
    },
    conformance,
};

const AT: Instants = Instants::new(1_800_000_000_000_000_000, 0);

/// What is wrong with a store that answers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NewKeyLosesNetworks,
    NewKeyLosesScopes,
    OldKeyLosesMetadata,
    RevokedKeyLosesPlan,
    RotatedKeyLosesItsUse,
    UsedKeyLosesNetworks,
    LastOfOneBatchWins,
    ActiveAtItsEnd,
    CursorMustExist,
    UnknownCursorIsTheEnd,
    IgnoresOwnersWithoutTenant,
    OwnersWithoutTenantHaveEveryTenant,
    PurgesRevokedAtTheEdge,
    PurgesBeforeTheEpoch,
    InsertsInTwoSteps,
    RotatesInTwoSteps,
    RevokesInTwoSteps,
}

#[derive(Debug)]
struct Rows {
    fault: Fault,
    rows: Mutex<BTreeMap<KeyId, ApiKeyRecord>>,
    disabled: Mutex<BTreeMap<Owner, Revocation>>,
}

type Held<'a> = MutexGuard<'a, BTreeMap<KeyId, ApiKeyRecord>>;

impl Rows {
    fn with(fault: Fault) -> Self {
        Self { fault, rows: Mutex::default(), disabled: Mutex::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn rows(&self) -> Held<'_> {
        self.rows.lock().unwrap()
    }

    /// The row, but for what the fault loses.
    fn losing(&self, fault: Fault, record: &ApiKeyRecord, lose: impl FnOnce(&mut RecordFields)) -> ApiKeyRecord {
        let mut fields = record.fields();
        if self.has(fault) {
            lose(&mut fields);
        }
        fields.check().unwrap()
    }

    /// Where the lock is let go between the look and the write, for as long as threads need to come in between.
    fn reopened<'a>(&'a self, fault: Fault, held: Held<'a>) -> Held<'a> {
        if !self.has(fault) {
            return held;
        }
        drop(held);
        (0..20).for_each(|_| std::thread::yield_now());
        self.rows()
    }

    fn hit(&self, record: &ApiKeyRecord) -> Hit {
        let disabled = self.disabled.lock().unwrap().keys().any(|owner| {
            let everywhere = self.has(Fault::OwnersWithoutTenantHaveEveryTenant) && owner.tenant().is_none();
            owner == record.owner() || everywhere && owner.subject() == record.subject()
        });
        let forgotten = self.has(Fault::IgnoresOwnersWithoutTenant) && record.owner().tenant().is_none();
        Hit::new(Arc::new(record.clone())).with_owner_disabled(disabled && !forgotten)
    }

    fn conflict() -> StoreError {
        StoreError::new(StoreErrorKind::Conflict, "rows")
    }
}

#[async_trait]
impl ApiKeyStore for Rows {
    async fn find(&self, lookup: Lookup) -> Found {
        self.get(lookup.id()).await
    }
}

#[async_trait]
impl ApiKeyAdmin for Rows {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        let rows = self.rows();
        if rows.contains_key(record.id()) {
            return Err(Self::conflict());
        }
        self.reopened(Fault::InsertsInTwoSteps, rows).insert(*record.id(), record);
        Ok(())
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        let rows = self.rows();
        let Some(old) = rows.get(rotation.old()) else { return Ok(false) };
        let Some(shortened) = rotation.shorten(old).filter(|_| !rows.contains_key(rotation.record().id())) else {
            return Err(Self::conflict());
        };
        let shortened = self.losing(Fault::OldKeyLosesMetadata, &shortened, |fields| fields.metadata.clear());
        let shortened = self.losing(Fault::RotatedKeyLosesItsUse, &shortened, |fields| fields.last_used = None);
        let new = self.losing(Fault::NewKeyLosesNetworks, rotation.record(), |fields| fields.addresses.clear());
        let new = self.losing(Fault::NewKeyLosesScopes, &new, |fields| fields.scopes.clear());
        let mut rows = self.reopened(Fault::RotatesInTwoSteps, rows);
        rows.insert(*shortened.id(), shortened);
        rows.insert(*new.id(), new);
        Ok(true)
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        let rows = self.rows();
        let Some(revoked) = rows.get(id).map(|record| record.revoked(revocation)) else { return Ok(false) };
        let revoked = self.losing(Fault::RevokedKeyLosesPlan, &revoked, |fields| fields.plan = None);
        self.reopened(Fault::RevokesInTwoSteps, rows).insert(*id, revoked);
        Ok(true)
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        let mut disabled = self.disabled.lock().unwrap();
        let new = !disabled.contains_key(owner);
        disabled.entry(owner.clone()).or_insert_with(|| disablement.clone());
        Ok(new)
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        Ok(self.disabled.lock().unwrap().remove(owner).is_some())
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        Ok(self.disabled.lock().unwrap().get(owner).cloned())
    }

    async fn get(&self, id: &KeyId) -> Found {
        Ok(self.rows().get(id).map(|record| self.hit(record)))
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        let rows = self.rows();
        let known = after.filter(|after| rows.contains_key(after));
        let after = match self.fault {
            Fault::CursorMustExist => known,
            Fault::UnknownCursorIsTheEnd if known.is_none() && after.is_some() => return Ok(Vec::new()),
            _ => after,
        };
        let fits = |hit: &Hit| {
            let end = filter.by_activity().filter(|_| self.has(Fault::ActiveAtItsEnd));
            let ends_then = end.filter(|end| hit.record().expires() == Some(*end));
            filter.fits(hit) || ends_then.is_some_and(|end| filter.clone().active_at(end - 1).fits(hit))
        };
        let after = rows.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        Ok(after.map(|(_, record)| self.hit(record)).filter(fits).take(limit.min(MAX_PAGE)).collect())
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        let (now, kept) = (at.unix_seconds(), kept.as_secs());
        let wraps = self.has(Fault::PurgesBeforeTheEpoch);
        let before = if wraps { now.wrapping_sub(kept) } else { now.saturating_sub(kept) };
        let mut rows = self.rows();
        let len = rows.len();
        rows.retain(|_, record| match record.ended() {
            None => true,
            Some(end) if self.has(Fault::PurgesRevokedAtTheEdge) && record.revocation().is_some() => end > before,
            Some(end) => end >= before,
        });
        Ok(u64::try_from(len - rows.len()).unwrap())
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        let before = rows.clone();
        for used in uses {
            // One statement joined with the batch sees each row as it was.
            let seen = if self.has(Fault::LastOfOneBatchWins) { &before } else { &*rows };
            let Some(record) = seen.get(used.id()).map(|record| record.used(used.last())) else { continue };
            let record = self.losing(Fault::UsedKeyLosesNetworks, &record, |fields| fields.addresses.clear());
            rows.insert(*used.id(), record);
        }
        Ok(())
    }
}

async fn found(fault: Fault) -> String {
    let suite = tokio::spawn(async move { conformance::api_key_store(&Rows::with(fault), AT).await });
    let Err(broken) = suite.await else { return String::new() };
    let said = broken.into_panic();
    said.downcast_ref::<String>().cloned().unwrap_or_else(|| (*said.downcast_ref::<&str>().expect("a text")).to_owned())
}

#[tokio::test]
async fn rows_that_lose_nothing_conform() {
    assert_eq!(found(Fault::None).await, "");
}

#[tokio::test]
async fn what_a_row_loses_and_which_edge_it_misses_is_found() {
    for (fault, expected) in [
        (Fault::NewKeyLosesNetworks, "a rotation stores the whole new record"),
        (Fault::NewKeyLosesScopes, "a rotation stores the whole new record"),
        (Fault::OldKeyLosesMetadata, "a rotation keeps the rest of the old record, with its last use"),
        (Fault::RotatedKeyLosesItsUse, "a rotation stands, and so does a use that is noted meanwhile"),
        (Fault::RevokedKeyLosesPlan, "a revocation keeps the rest of the record"),
        (Fault::UsedKeyLosesNetworks, "a use keeps the rest of the record"),
        (Fault::LastOfOneBatchWins, "of several uses in one call the latest is noted"),
        (Fault::ActiveAtItsEnd, "what is listed fits the filter"),
        (Fault::CursorMustExist, "a page begins after its cursor, be there such a key or not"),
        (Fault::UnknownCursorIsTheEnd, "a page begins after its cursor, be there such a key or not"),
        (
            Fault::IgnoresOwnersWithoutTenant,
            "disabling an owner of no tenant stops the keys of no tenant, and no others",
        ),
        (
            Fault::OwnersWithoutTenantHaveEveryTenant,
            "disabling an owner of no tenant stops the keys of no tenant, and no others",
        ),
        (Fault::PurgesRevokedAtTheEdge, "a key that was revoked then stays"),
        (Fault::PurgesBeforeTheEpoch, "nothing ended before time began"),
    ] {
        let said = found(fault).await;
        assert!(said.contains(expected), "{fault:?}: {said:?} does not say {expected:?}");
    }
}

#[tokio::test]
async fn two_steps_are_found_by_threads() {
    for (fault, expected) in [
        (Fault::InsertsInTwoSteps, "of threads that insert one id at the same time one wins"),
        (Fault::RotatesInTwoSteps, "of threads that rotate one key at the same time one wins"),
        (Fault::RevokesInTwoSteps, "of threads that revoke one key and rotate it"),
    ] {
        let said = found(fault).await;
        assert!(said.contains(expected), "{fault:?}: {said:?} does not say {expected:?}");
    }
}
