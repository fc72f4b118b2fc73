//! What a file says, as requests see it and as changes are made.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;

use super::conflict;
use crate::{
    api_key::{ApiKeyRecord, Hit, KeyChange, KeyFilter, KeyId, KeyUse, LastUse, MAX_PAGE, Owner, Revocation, Rotation},
    clock::Instants,
    error::StoreError,
};

/// More changes than this are told as one of everything.
const MOST_TOLD: usize = 1_000;

/// The keys, by ascending id, and the owners that are disabled. Never changed: a change makes another one.
#[derive(Debug, Default)]
pub(super) struct Content {
    hits: Box<[Hit]>,
    places: HashMap<KeyId, usize, RandomState>,
    disabled: BTreeMap<Owner, Revocation>,
}

impl Content {
    pub(super) fn find(&self, id: &KeyId) -> Option<&Hit> {
        self.places.get(id).and_then(|place| self.hits.get(*place))
    }

    pub(super) const fn len(&self) -> usize {
        self.hits.len()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &ApiKeyRecord> {
        self.hits.iter().map(|hit| &**hit.record())
    }

    pub(super) const fn disabled(&self) -> &BTreeMap<Owner, Revocation> {
        &self.disabled
    }

    pub(super) fn page(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Vec<Hit> {
        let first = after.map_or(0, |after| self.hits.partition_point(|hit| hit.record().id() <= after));
        let hits = self.hits.iter().skip(first).filter(|hit| filter.fits(hit));
        hits.take(limit.min(MAX_PAGE)).cloned().collect()
    }

    /// What is different in `newer`, last uses apart.
    pub(super) fn changes(&self, newer: &Self) -> Vec<KeyChange> {
        let mut changes = Vec::new();
        for hit in &self.hits {
            let id = hit.record().id();
            if newer.find(id).is_none_or(|other| !same_but_use(hit.record(), other.record())) {
                changes.push(KeyChange::Key(*id));
            }
        }
        let inserted = newer.hits.iter().map(|hit| hit.record().id()).filter(|id| self.find(id).is_none());
        changes.extend(inserted.map(|id| KeyChange::Key(*id)));
        let owners: HashSet<&Owner> = self.disabled.keys().chain(newer.disabled.keys()).collect();
        let changed = |owner: &&Owner| self.disabled.contains_key(*owner) != newer.disabled.contains_key(*owner);
        changes.extend(owners.into_iter().filter(changed).cloned().map(KeyChange::Owner));
        if changes.len() > MOST_TOLD { vec![KeyChange::Everything] } else { changes }
    }
}

fn same_but_use(one: &ApiKeyRecord, other: &ApiKeyRecord) -> bool {
    one == other
        || one.last_used() != other.last_used() && {
            let mut fields = one.fields();
            fields.last_used = other.last_used();
            fields == other.fields()
        }
}

/// A content in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) records: BTreeMap<KeyId, Arc<ApiKeyRecord>>,
    pub(super) disabled: BTreeMap<Owner, Revocation>,
}

/// What a change comes to.
#[derive(Debug)]
pub(super) struct Outcome<T> {
    pub(super) value: T,
    /// Whether there is something to write.
    pub(super) modified: bool,
    pub(super) changes: Vec<KeyChange>,
}

impl<T> Outcome<T> {
    const fn nothing(value: T) -> Self {
        Self { value, modified: false, changes: Vec::new() }
    }

    fn told(value: T, changes: impl Into<Vec<KeyChange>>) -> Self {
        Self { value, modified: true, changes: changes.into() }
    }
}

impl Draft {
    pub(super) fn of(content: &Content) -> Self {
        let records = content.hits.iter().map(|hit| (*hit.record().id(), Arc::clone(hit.record())));
        Self { records: records.collect(), disabled: content.disabled.clone() }
    }

    /// The content; records that are as they were stay the same allocation, with the principal that they carry.
    pub(super) fn freeze(self, older: &Content) -> Content {
        let Self { records, disabled } = self;
        let kept = |record: Arc<ApiKeyRecord>| match older.find(record.id()) {
            Some(hit) if **hit.record() == *record => Arc::clone(hit.record()),
            _ => record,
        };
        let hit = |record: Arc<ApiKeyRecord>| {
            let owner_disabled = !disabled.is_empty() && disabled.contains_key(record.owner());
            Hit::new(record).with_owner_disabled(owner_disabled)
        };
        let hits: Box<[Hit]> = records.into_values().map(kept).map(hit).collect();
        let places = hits.iter().enumerate().map(|(place, hit)| (*hit.record().id(), place)).collect();
        Content { hits, places, disabled }
    }

    pub(super) fn insert(&mut self, record: ApiKeyRecord) -> Result<Outcome<()>, StoreError> {
        let id = *record.id();
        self.add(record)?;
        Ok(Outcome::told((), [KeyChange::Key(id)]))
    }

    fn add(&mut self, record: ApiKeyRecord) -> Result<(), StoreError> {
        let id = *record.id();
        if self.records.contains_key(&id) {
            return Err(conflict(&id));
        }
        self.records.insert(id, Arc::new(record));
        Ok(())
    }

    pub(super) fn rotate(&mut self, rotation: &Rotation) -> Result<Outcome<bool>, StoreError> {
        let (old_id, new_id) = (*rotation.old(), *rotation.record().id());
        let Some(old) = self.records.get(&old_id) else { return Ok(Outcome::nothing(false)) };
        let shortened = rotation.shorten(old).ok_or_else(|| conflict(&old_id))?;
        self.add(rotation.record().clone())?;
        self.records.insert(old_id, Arc::new(shortened));
        Ok(Outcome::told(true, [KeyChange::Key(old_id), KeyChange::Key(new_id)]))
    }

    pub(super) fn revoke(&mut self, id: &KeyId, revocation: &Revocation) -> Outcome<bool> {
        match self.records.get_mut(id) {
            None => Outcome::nothing(false),
            Some(record) if record.revocation().is_some() => Outcome::nothing(true),
            Some(record) => {
                *record = Arc::new(record.revoked(revocation));
                Outcome::told(true, [KeyChange::Key(*id)])
            }
        }
    }

    pub(super) fn disable(&mut self, owner: Owner, disablement: Revocation) -> Outcome<bool> {
        if self.disabled.contains_key(&owner) {
            return Outcome::nothing(false);
        }
        self.disabled.insert(owner.clone(), disablement);
        Outcome::told(true, [KeyChange::Owner(owner)])
    }

    pub(super) fn enable(&mut self, owner: Owner) -> Outcome<bool> {
        if self.disabled.remove(&owner).is_none() {
            return Outcome::nothing(false);
        }
        Outcome::told(true, [KeyChange::Owner(owner)])
    }

    pub(super) fn purge(&mut self, at: Instants, kept: Duration) -> Outcome<u64> {
        let before = at.unix_seconds().saturating_sub(kept.as_secs());
        let len = self.records.len();
        self.records.retain(|_, record| record.ended().is_none_or(|end| end >= before));
        let purged = len.saturating_sub(self.records.len());
        Outcome { value: u64::try_from(purged).unwrap_or(u64::MAX), modified: purged > 0, changes: Vec::new() }
    }

    /// Writes last uses into the records. Whether there was one.
    pub(super) fn note(&mut self, uses: &Uses) -> Outcome<()> {
        let mut modified = false;
        for (id, last) in &uses.0 {
            if let Some(record) = self.records.get_mut(id) {
                *record = Arc::new(record.used(*last));
                modified = true;
            }
        }
        Outcome { value: (), modified, changes: Vec::new() }
    }
}

/// Last uses that are not in the file yet: one for each key that there is, at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses(HashMap<KeyId, LastUse, RandomState>);

impl Uses {
    pub(super) fn note(&mut self, content: &Content, uses: &[KeyUse]) {
        for used in uses {
            let (id, last) = (used.id(), used.last());
            if content.find(id).is_some() && self.0.get(id).is_none_or(|known| known.at() <= last.at()) {
                self.0.insert(*id, last);
            }
        }
    }

    /// The hit, with the last use that is known.
    pub(super) fn apply(&self, hit: Hit) -> Hit {
        match self.0.get(hit.record().id()) {
            Some(last) => Hit::new(Arc::new(hit.record().used(*last))).with_owner_disabled(hit.owner_disabled()),
            None => hit,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what was written, and what came of keys that are gone.
    pub(super) fn written(&mut self, written: &Self, content: &Content) {
        self.0.retain(|id, last| written.0.get(id) != Some(last) && content.find(id).is_some());
    }
}
