//! The conformance suite of key stores, run on what this crate has and on what a user writes, with and without mistakes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use portcullis::{
    Instants, Now, StoreError, StoreErrorKind,
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, Found, Hit, KeyChange, KeyFilter, KeyHash, KeyId, KeyLife,
        KeyUse, Lookup, MAX_PAGE, MemoryKeyStore, NewApiKey, Owner, RecordFields, Revocation, Rotation,
    },
    conformance,
};

const NOW: u64 = 1_800_000_000;
const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

/// A store as a user writes one: rows of JSON, no `find_now`.
#[derive(Debug, Default)]
struct Table {
    content: Mutex<Content>,
    feed: ChangeFeed,
    fault: Option<Fault>,
}

#[derive(Debug, Default)]
struct Content {
    rows: BTreeMap<KeyId, String>,
    disabled: BTreeMap<Owner, Revocation>,
}

/// What a careless store gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Overwrites,
    ForgetsRoles,
    RevokesAgain,
    RevokesAll,
    HidesRevoked,
    SkipsOnPages,
    ListsBackwards,
    KnowsEverybody,
    TwinsDisagree,
    GetsNothing,
    RotatesTwice,
    RotatesRevoked,
    ProlongsTheOld,
    LeavesTheOldOpen,
    LosesTheNew,
    InsertsBeforeItLooks,
    EarlierUseWins,
    UsesRevoke,
    DisablesSubjects,
    ForgetsDisabledLater,
    DisablesAgain,
    EnablesNobody,
    IgnoresTenants,
    IgnoresCase,
    ListsDisabledAsActive,
    PurgesTheEdge,
    PurgesTheEndless,
    TellsNothing,
    TellsOneOfTwo,
    TellsTooEarly,
    TellsUses,
    // Those that look, let another process in, and write.
    InsertsAfterALook,
    RotatesAfterALook,
    RotationsOverwrite,
    RevocationsOverwrite,
    UsesOverwrite,
}

fn text(record: &ApiKeyRecord) -> String {
    serde_json::to_string(&record.fields()).unwrap()
}

fn row(text: &str) -> ApiKeyRecord {
    serde_json::from_str::<RecordFields>(text).unwrap().decode("table").unwrap()
}

impl Content {
    fn hit(&self, row_text: &str, fault: Option<Fault>) -> Hit {
        let record = row(row_text);
        let same_subject = |owner: &Owner| owner.subject() == record.subject();
        let disabled = match fault {
            Some(Fault::DisablesSubjects) => self.disabled.keys().any(same_subject),
            _ => self.disabled.contains_key(record.owner()),
        };
        Hit::new(Arc::new(record)).with_owner_disabled(disabled)
    }

    fn change(&mut self, id: &KeyId, change: impl FnOnce(ApiKeyRecord) -> ApiKeyRecord) -> bool {
        let Some(kept) = self.rows.get_mut(id) else { return false };
        *kept = text(&change(row(kept)));
        true
    }
}

impl Table {
    fn with(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    fn select(&self, id: &KeyId) -> Option<Hit> {
        let content = self.content();
        match content.rows.get(id).map(|row| content.hit(row, self.fault)) {
            None if self.has(Fault::KnowsEverybody) => {
                let anybody = RecordFields::new(*id, KeyHash::from_bytes([0; 32]), "anybody", 0, None);
                Some(Hit::new(Arc::new(anybody.check().unwrap())))
            }
            hit => hit.filter(|hit| !self.has(Fault::HidesRevoked) || hit.record().revocation().is_none()),
        }
    }

    fn tell(&self, change: &KeyChange) {
        if !self.has(Fault::TellsNothing) {
            self.feed.publish(change);
        }
    }

    /// Writes the whole row as it was before another process came in between.
    async fn overwrite(
        &self,
        id: &KeyId,
        change: impl FnOnce(&ApiKeyRecord) -> ApiKeyRecord + Send,
    ) -> Result<bool, StoreError> {
        let Some(hit) = self.select(id) else { return Ok(false) };
        let changed = text(&change(hit.record()));
        tokio::task::yield_now().await;
        self.content().rows.insert(*id, changed);
        self.tell(&KeyChange::Key(*id));
        Ok(true)
    }

    fn conflict() -> StoreError {
        StoreError::new(StoreErrorKind::Conflict, "table")
    }
}

#[async_trait]
impl ApiKeyStore for Table {
    fn find_now(&self, _: Lookup) -> Now<Found> {
        if self.has(Fault::TwinsDisagree) { Now::Known(Ok(None)) } else { Now::Wait }
    }

    async fn find(&self, lookup: Lookup) -> Found {
        tokio::task::yield_now().await;
        Ok(self.select(lookup.id()))
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        Some(&self.feed)
    }
}

#[async_trait]
impl ApiKeyAdmin for Table {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        let id = *record.id();
        let mut fields = record.fields();
        if self.has(Fault::ForgetsRoles) {
            fields.roles.clear();
        }
        if self.has(Fault::InsertsAfterALook) {
            if self.content().rows.contains_key(&id) {
                return Err(Self::conflict());
            }
            tokio::task::yield_now().await;
        }
        {
            let mut content = self.content();
            let overwrites = self.has(Fault::Overwrites) || self.has(Fault::InsertsAfterALook);
            if content.rows.contains_key(&id) && !overwrites {
                return Err(Self::conflict());
            }
            if self.has(Fault::ForgetsDisabledLater) {
                content.disabled.remove(record.owner());
            }
            content.rows.insert(id, serde_json::to_string(&fields).unwrap());
        }
        self.tell(&KeyChange::Key(id));
        Ok(())
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        let (old_id, new) = (*rotation.old(), rotation.record().clone());
        let new_id = *new.id();
        if self.has(Fault::InsertsBeforeItLooks) {
            self.content().rows.insert(new_id, text(&new));
        }
        let Some(old) = self.content().rows.get(&old_id).map(|text| row(text)) else { return Ok(false) };
        let mut shortened = rotation.shorten(&old);
        if self.has(Fault::RotatesTwice) && old.revocation().is_none()
            || self.has(Fault::RotatesRevoked) && old.rotated_to().is_none()
        {
            shortened = Some(shortened.unwrap_or_else(|| old.clone()));
        }
        tokio::task::yield_now().await; // where another rotation of the same key gets in between
        {
            let mut content = self.content();
            let unchanged = match self.fault {
                Some(Fault::RotatesAfterALook) => true,
                Some(Fault::RotationsOverwrite) => row(content.rows.get(&old_id).unwrap()).rotated_to().is_none(),
                _ => content.rows.get(&old_id) == Some(&text(&old)),
            };
            let taken = content.rows.contains_key(&new_id) && !self.has(Fault::InsertsBeforeItLooks);
            let Some(shortened) = shortened.filter(|_| unchanged && !taken) else { return Err(Self::conflict()) };
            let mut fields = shortened.fields();
            if self.has(Fault::ProlongsTheOld) {
                fields.expires = Some(rotation.old_ends());
            }
            if self.has(Fault::LeavesTheOldOpen) {
                fields.expires = old.expires();
            }
            content.rows.insert(old_id, serde_json::to_string(&fields).unwrap());
            if !self.has(Fault::LosesTheNew) {
                content.rows.insert(new_id, text(&new));
            }
        }
        self.tell(&KeyChange::Key(old_id));
        if !self.has(Fault::TellsOneOfTwo) {
            self.tell(&KeyChange::Key(new_id));
        }
        Ok(true)
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        if self.has(Fault::RevocationsOverwrite) {
            return self.overwrite(id, |record| record.revoked(revocation)).await;
        }
        if self.has(Fault::TellsTooEarly) {
            self.tell(&KeyChange::Key(*id));
            tokio::task::yield_now().await; // the database is asked
        }
        let exists = {
            let mut content = self.content();
            if self.has(Fault::RevokesAll) {
                content.rows.values_mut().for_each(|kept| *kept = text(&row(kept).revoked(revocation)));
            }
            content.change(id, |record| {
                let mut fields = record.fields();
                if self.has(Fault::RevokesAgain) {
                    fields.revoked = None;
                }
                fields.check().unwrap().revoked(revocation)
            })
        };
        if !self.has(Fault::TellsTooEarly) {
            self.tell(&KeyChange::Key(*id));
        }
        Ok(exists)
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        let new = {
            let mut content = self.content();
            let new = !content.disabled.contains_key(owner);
            if new || self.has(Fault::DisablesAgain) {
                content.disabled.insert(owner.clone(), disablement.clone());
            }
            new
        };
        self.tell(&KeyChange::Owner(owner.clone()));
        Ok(new)
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        let mut content = self.content();
        let was = match self.has(Fault::EnablesNobody) {
            true => content.disabled.contains_key(owner),
            false => content.disabled.remove(owner).is_some(),
        };
        drop(content);
        self.tell(&KeyChange::Owner(owner.clone()));
        Ok(was)
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        Ok(self.content().disabled.get(owner).cloned())
    }

    async fn get(&self, id: &KeyId) -> Found {
        Ok(self.select(id).filter(|_| !self.has(Fault::GetsNothing)))
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        let content = self.content();
        let fits = |hit: &Hit| match self.fault {
            Some(Fault::IgnoresTenants) => filter.by_subject().is_none_or(|subject| subject == hit.record().subject()),
            Some(Fault::IgnoresCase) => {
                let same = filter
                    .by_name()
                    .is_none_or(|name| hit.record().name().to_ascii_lowercase().contains(&name.to_ascii_lowercase()));
                filter.fits(hit) || same && filter.by_name().is_some_and(|name| name == "nightly")
            }
            Some(Fault::ListsDisabledAsActive) => filter.fits(&hit.clone().with_owner_disabled(false)),
            _ => filter.fits(hit),
        };
        let skip = usize::from(self.has(Fault::SkipsOnPages) && after.is_some());
        let rows = content.rows.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        let hits = rows.map(|(_, row)| content.hit(row, self.fault)).filter(fits).skip(skip);
        let mut page: Vec<Hit> = hits.take(limit.min(MAX_PAGE)).collect();
        if self.has(Fault::ListsBackwards) {
            page.reverse();
        }
        Ok(page)
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        let before = at.unix_seconds().saturating_sub(kept.as_secs());
        let mut content = self.content();
        let len = content.rows.len();
        content.rows.retain(|_, text| match row(text).ended() {
            None => !self.has(Fault::PurgesTheEndless),
            Some(end) if self.has(Fault::PurgesTheEdge) => end > before,
            Some(end) => end >= before,
        });
        Ok(u64::try_from(len - content.rows.len()).unwrap())
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        if self.has(Fault::UsesOverwrite) {
            for used in uses {
                self.overwrite(used.id(), |record| record.used(used.last())).await?;
            }
            return Ok(());
        }
        let mut content = self.content();
        for used in uses {
            content.change(used.id(), |record| {
                let mut fields = record.fields();
                if self.has(Fault::EarlierUseWins) {
                    fields.last_used = None;
                }
                if self.has(Fault::UsesRevoke) {
                    fields.expires = Some(used.last().at());
                }
                fields.check().unwrap().used(used.last())
            });
        }
        drop(content);
        if self.has(Fault::TellsUses) {
            uses.iter().for_each(|used| self.tell(&KeyChange::Key(*used.id())));
        }
        Ok(())
    }
}

#[tokio::test]
async fn key_stores_keep_their_contract() {
    conformance::api_key_store(&MemoryKeyStore::new(), AT).await;
    let shared: Arc<dyn ApiKeyAdmin> = Arc::new(MemoryKeyStore::new());
    conformance::api_key_store(&shared, AT).await;
    let boxed: Box<dyn ApiKeyAdmin> = Box::new(Arc::new(MemoryKeyStore::new()));
    conformance::api_key_store(&boxed, AT).await;
    let own = Table::default();
    conformance::api_key_store(&own, AT).await;
    conformance::api_key_store(&own, AT).await; // a store that holds other keys already
}

/// A store that somebody else fills, with and without a mistake.
#[derive(Debug)]
struct ReadOnly {
    holds: BTreeMap<KeyId, Hit>,
    mistake: Option<Mistake>,
    misses: Mutex<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    HidesExpired,
    HidesFromClients,
    AnswersAnother,
    EnablesOwners,
    TwinsDisagree,
    ForgetsAfterMisses,
}

impl ReadOnly {
    fn new(mistake: Option<Mistake>) -> (Self, Vec<Hit>) {
        let hit = |record: ApiKeyRecord| Hit::new(Arc::new(record));
        let record = |subject: &str| NewApiKey::for_subject(subject).mint(AT).unwrap().1;
        let ended = Revocation::new(NOW, "left").unwrap();
        let expired = NewApiKey::for_subject("expired").lives(KeyLife::For(Duration::from_secs(1)));
        let hits = vec![
            hit(record("plain")),
            hit(record("revoked").revoked(&ended)),
            hit(expired.mint(Instants::new(0, 0)).unwrap().1),
            hit(record("disabled")).with_owner_disabled(true),
        ];
        let holds = hits.iter().map(|hit| (*hit.record().id(), hit.clone())).collect();
        (Self { holds, mistake, misses: Mutex::default() }, hits)
    }

    fn look(&self, lookup: Lookup) -> Option<Hit> {
        let hit = self.holds.get(lookup.id()).cloned();
        let mut misses = self.misses.lock().unwrap();
        *misses += u32::from(hit.is_none());
        let hit = hit?;
        match self.mistake {
            Some(Mistake::HidesExpired) => hit.record().is_active(lookup.at().unix_seconds()).then_some(hit),
            Some(Mistake::HidesFromClients) => lookup.client().is_none().then_some(hit),
            Some(Mistake::AnswersAnother) => self.holds.values().next().cloned(),
            Some(Mistake::EnablesOwners) => Some(hit.with_owner_disabled(false)),
            Some(Mistake::ForgetsAfterMisses) => (*misses == 0).then_some(hit),
            Some(Mistake::TwinsDisagree) | None => Some(hit),
        }
    }
}

#[async_trait]
impl ApiKeyStore for ReadOnly {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        if self.mistake == Some(Mistake::TwinsDisagree) {
            Now::Known(Ok(None))
        } else {
            Now::Known(Ok(self.look(lookup)))
        }
    }

    async fn find(&self, lookup: Lookup) -> Found {
        Ok(self.look(lookup))
    }
}

#[tokio::test]
async fn a_store_that_is_read_alone_has_a_suite_of_its_own() {
    let (store, holds) = ReadOnly::new(None);
    conformance::read_only_api_key_store(&store, &holds, AT).await;
    let shared: Arc<dyn ApiKeyStore> = Arc::new(store);
    conformance::read_only_api_key_store(&shared, &holds, AT).await;
    for (mistake, expected) in [
        (Mistake::HidesExpired, "what a store holds is found whole, whoever asks and when"),
        (Mistake::HidesFromClients, "what a store holds is found whole, whoever asks and when"),
        (Mistake::AnswersAnother, "what a store holds is found whole, whoever asks and when"),
        (Mistake::EnablesOwners, "what a store holds is found whole, whoever asks and when"),
        (Mistake::TwinsDisagree, "find_now and find agree"),
        (Mistake::ForgetsAfterMisses, "a key is still found after others that nobody has were asked for"),
    ] {
        let (store, holds) = ReadOnly::new(Some(mistake));
        let suite = tokio::spawn(async move { conformance::read_only_api_key_store(&store, &holds, AT).await });
        assert_broken(suite.await, mistake, expected);
    }
}

#[cfg(feature = "api-key-cached")]
#[tokio::test]
async fn a_cache_before_a_users_store_keeps_the_contract() {
    let cached = portcullis::api_key::Cached::new(Table::default());
    conformance::api_key_store(&cached, AT).await;
    conformance::api_key_store(&cached, AT).await;
    conformance::api_key_store(&portcullis::api_key::Cached::new(Arc::new(Table::default())), AT).await;
}

#[tokio::test]
async fn a_careless_store_is_found_out() {
    for (fault, expected) in [
        (Fault::Overwrites, "an id that exists is a conflict"),
        (Fault::ForgetsRoles, "a record comes back as it was inserted"),
        (Fault::RevokesAgain, "the first revocation is there at once, and stays"),
        (Fault::RevokesAll, "revoking a key leaves the others as they are"),
        (Fault::HidesRevoked, "a revoked key is still found"),
        (Fault::ListsBackwards, "ids ascend"),
        (Fault::SkipsOnPages, "a filter gives what fits, and nothing else"),
        (Fault::KnowsEverybody, "a key that was never inserted is None"),
        (Fault::TwinsDisagree, "find_now and find agree"),
        (Fault::GetsNothing, "find and get agree"),
        (Fault::RotatesTwice, "rotating a second time is a conflict"),
        (Fault::RotatesRevoked, "rotating a revoked key is a conflict"),
        (Fault::ProlongsTheOld, "a rotated key ends with the overlap, and never later than before"),
        (Fault::LeavesTheOldOpen, "a rotated key ends with the overlap"),
        (Fault::LosesTheNew, "the new record is there"),
        (Fault::InsertsBeforeItLooks, "changing a key that does not exist makes none"),
        (Fault::EarlierUseWins, "the latest use is noted"),
        (Fault::UsesRevoke, "a use changes nothing else"),
        (Fault::DisablesSubjects, "disabling an owner leaves the others as they are"),
        (Fault::ForgetsDisabledLater, "every key of a disabled owner is disabled"),
        (Fault::DisablesAgain, "the first disablement stays"),
        (Fault::EnablesNobody, "an owner who was enabled is not disabled"),
        (Fault::IgnoresTenants, "what is listed fits the filter"),
        (Fault::IgnoresCase, "what is listed fits the filter"),
        (Fault::ListsDisabledAsActive, "what is listed fits the filter"),
        (Fault::PurgesTheEdge, "a key that ended then stays"),
        (Fault::PurgesTheEndless, "a key that never ends stays"),
        (Fault::TellsNothing, "an insert is told before it returns"),
        (Fault::TellsOneOfTwo, "a rotation is told before it returns"),
        (Fault::TellsTooEarly, "a revocation is told before it returns, once it can be found"),
        (Fault::TellsUses, "a use is no change, and is not told"),
        (Fault::InsertsAfterALook, "of two inserts of one id at the same time one wins"),
        (Fault::RotatesAfterALook, "of two rotations at the same time one wins"),
        (Fault::RotationsOverwrite, "a revocation stands, and so does a rotation before it"),
        (Fault::RevocationsOverwrite, "a revocation stands, and so does a use that is noted meanwhile"),
        (Fault::UsesOverwrite, "a revocation stands, and so does a use that is noted meanwhile"),
    ] {
        let store = Table::with(fault);
        let suite = tokio::spawn(async move { conformance::api_key_store(&store, AT).await });
        assert_broken(suite.await, fault, expected);
    }
}

fn assert_broken(suite: Result<(), tokio::task::JoinError>, fault: impl std::fmt::Debug, expected: &str) {
    let panic = suite.expect_err(expected).into_panic();
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    assert!(said.contains(expected), "{fault:?}: {said:?} does not say {expected:?}");
}

#[test]
fn a_broken_row_names_its_key_and_is_never_none() {
    let good = RecordFields::new(KeyId::from_bytes([1; 10]), KeyHash::from_bytes([2; 32]), "billing", NOW, None);
    let mut broken = good.clone();
    broken.subject = String::new();
    let error = broken.decode("table").unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains(&good.id.to_string()), "{error}");

    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<RecordFields>(&text).unwrap(), good);
    assert!(text.contains(r#""expires":"never""#), "{text}");
    for (name, from, to) in [
        ("an end that is not said", r#","expires":"never""#, ""),
        ("an end that makes no sense", r#""never""#, r#""nevr""#),
        ("no end", r#""never""#, "null"),
        ("a scheme that nobody knows", "\"sha256\"", "\"md5\""),
        ("a hash that is too short", "0202", "02"),
        ("a hash that is too long", "0202", "020202"),
        ("a hash in upper case", "0202", "0B02"),
        ("an id in upper case", &good.id.to_string(), &good.id.to_string().to_uppercase()),
        ("an unknown field", r#""subject""#, r#""super":true,"subject""#),
        ("a negative time", "1800000000", "-1"),
    ] {
        assert!(text.contains(from), "{name}");
        assert!(serde_json::from_str::<RecordFields>(&text.replacen(from, to, 1)).is_err(), "{name}");
    }
    let toml = toml::to_string(&good).unwrap();
    assert_eq!(toml::from_str::<RecordFields>(&toml).unwrap(), good);
}
