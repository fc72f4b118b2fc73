use std::{sync::Arc, time::Duration};

use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, Hit, KeyFilter, KeyId, KeyLife, Lookup, MAX_PAGE, NewApiKey, Owner, RecordFields,
        Revocation,
    },
    clock::Instants,
    error::{ConfigError, StoreError, StoreErrorKind},
    now::Now,
};

mod changes;
mod life;
mod owners;
mod races;
mod reading;
mod rest;
mod threads;

pub use reading::read_only_api_key_store;

/// Checks an [`ApiKeyAdmin`], and the [`ApiKeyStore`](crate::api_key::ApiKeyStore) that it is.
///
/// The store may hold other keys, and nobody else may change it meanwhile. The suite adds some hundred keys of owners called
/// `conformance` and leaves most of them there; it purges what ended in the first hour of 1970. `at` is the time that the new
/// records carry. What a store tells it must have made: while a change is under way and was told, the suite looks for it, and
/// lets the change go on after. A store that answers without waiting is asked from several threads as well, which are in no
/// runtime.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use portcullis::{Clock, SystemClock, api_key::MemoryKeyStore, conformance};
///
/// conformance::api_key_store(&MemoryKeyStore::new(), SystemClock::new().now()).await;
/// # });
/// ```
///
/// # Panics
/// If the store breaks the contract of its traits, or fails.
pub async fn api_key_store(store: &dyn ApiKeyAdmin, at: Instants) {
    absence_is_an_answer(store, at).await;
    records_come_back_whole(store, at).await;
    an_id_is_taken_once(store, at).await;
    life::revocation_stays(store, at).await;
    life::rotation_replaces(store, at).await;
    life::uses_are_noted(store, at).await;
    races::one_insert_wins(store, at).await;
    races::one_rotation_wins(store, at).await;
    races::no_revocation_is_lost(store, at).await;
    races::no_rotation_is_lost(store, at).await;
    rest::changes_keep_the_rest(store, at).await;
    threads::one_wins(store, at).await;
    owners::disabling_stops_every_key(store, at).await;
    owners::no_tenant_is_no_other_tenant(store, at).await;
    owners::filters_hold(store, at).await;
    changes::changes_are_told(store, at).await;
    pages_hold_everything_once(store, at).await;
    life::purging_takes_what_ended(store, at).await;
    what_is_held_is_found(store, at).await;
}

async fn absence_is_an_answer(store: &dyn ApiKeyAdmin, at: Instants) {
    let (stranger, id) = (plain(at), *plain(at).id());
    assert!(find(store, &id, at).await.is_none(), "a key that was never inserted is None");
    let revoked = works(store.revoke(&id, &revocation(at, "never was")).await);
    assert!(!revoked, "revoking a key that does not exist is false");
    let rotation = valid(crate::api_key::Rotation::new(id, stranger.clone(), at.unix_seconds()));
    assert!(!works(store.rotate(rotation).await), "rotating a key that does not exist is false");
    for id in [&id, stranger.id()] {
        assert!(find(store, id, at).await.is_none(), "changing a key that does not exist makes none");
    }
}

async fn what_is_held_is_found(store: &dyn ApiKeyAdmin, at: Instants) {
    let tenant = fresh_tenant(at);
    let theirs = |name: &str| minted(named(name).tenant(&*tenant), at);
    let (key, revoked, disabled) = (plain(at), plain(at), theirs("disabled"));
    let expired = minted(named("expired").lives(KeyLife::For(Duration::from_secs(1))), Instants::new(0, 0));
    for record in [&key, &revoked, &disabled, &expired] {
        insert(store, record).await;
    }
    let ended = revocation(at, "left");
    works(store.revoke(revoked.id(), &ended).await);
    let owner = valid(Owner::new("conformance").and_then(|owner| owner.in_tenant(&tenant)));
    works(store.disable_owner(&owner, &ended).await);
    let hit = |record: ApiKeyRecord| Hit::new(Arc::new(record));
    let holds = [hit(key), hit(revoked.revoked(&ended)), hit(expired), hit(disabled).with_owner_disabled(true)];
    read_only_api_key_store(store, &holds, at).await;
}

async fn records_come_back_whole(store: &dyn ApiKeyAdmin, at: Instants) {
    let mut fields = full(at).fields();
    fields.rotated_from = Some(*plain(at).id());
    let last = minted(named("last").lives(KeyLife::Never).not_before(MAX), at);
    for record in [valid(fields.check()), largest(at), last, minted(named("bare").lives(KeyLife::Never), at)] {
        insert(store, &record).await;
        let found = find(store, record.id(), at).await;
        let found = found.as_ref().map(Hit::record);
        assert!(
            found.map(|found| &**found) == Some(&record),
            "a record comes back as it was inserted: {record:?}, not {found:?}"
        );
    }
    let expired = minted(named("expired").lives(KeyLife::For(Duration::from_secs(1))), Instants::new(0, 0));
    insert(store, &expired).await;
    assert!(
        find(store, expired.id(), at).await.is_some(),
        "an expired key is found: the authenticator decides, not the store"
    );
}

const MAX: u64 = crate::api_key::MAX_TIME;

/// Something in every field that a new key may have.
fn full(at: Instants) -> ApiKeyRecord {
    let full = NewApiKey::for_subject("conformance: süb'ject\"%_\\")
        .name("näme; DROP TABLE keys")
        .tenant("ten'ant")
        .plan("plan")
        .scope("a:read")
        .scope("b:write")
        .role("role one")
        .role("röle, two")
        .address(network("10.0.0.0/8"))
        .address(network("2001:db8::/32"))
        .metadata("team", "blue; \"green\"")
        .metadata("tïcket", "")
        .not_before(at.unix_seconds().saturating_add(60));
    let mut fields = minted(full, at).fields();
    fields.environment = Some("live".to_owned());
    fields.scheme = crate::api_key::HashScheme::HmacSha256 { pepper: valid("2026-01".parse()) };
    valid(fields.check())
}

/// Every field as long as it may be.
fn largest(at: Instants) -> ApiKeyRecord {
    let text = |length: usize| "ä".repeat(length / 2);
    let mut fields = plain(at).fields();
    (fields.name, fields.subject, fields.tenant, fields.plan) = (text(256), text(256), Some(text(256)), Some(text(64)));
    fields.scopes = (0..128).map(|number| format!("{number:#<128}")).collect();
    fields.roles = (0..64).map(|number| format!("{number:1<128}")).collect();
    fields.addresses = (0..64).map(|number| network(&format!("10.{number}.0.0/16"))).collect();
    fields.metadata = (0..32).map(|number| (format!("{number:1<64}"), text(512))).collect();
    (fields.created, fields.expires) = (MAX, Some(MAX));
    valid(fields.check())
}

async fn an_id_is_taken_once(store: &dyn ApiKeyAdmin, at: Instants) {
    let first = plain(at);
    insert(store, &first).await;
    let second = RecordFields::new(*first.id(), *plain(at).hash(), "usurper", at.unix_seconds(), None);
    let refused = store.insert(valid(second.check())).await.map_err(|error| error.kind());
    assert_eq!(refused, Err(StoreErrorKind::Conflict), "an id that exists is a conflict");
    let kept = find(store, first.id(), at).await;
    assert!(kept.is_some_and(|hit| **hit.record() == first), "a refused insert leaves the record as it was");
}

async fn pages_hold_everything_once(store: &dyn ApiKeyAdmin, at: Instants) {
    let ours = plain(at);
    insert(store, &ours).await;
    let all = KeyFilter::all();
    assert!(works(store.list(&all, None, 0).await).is_empty(), "a page of none is empty");
    let whole = works(store.list(&all, None, usize::MAX).await);
    assert!(whole.len() <= MAX_PAGE, "a page has MAX_PAGE records at most");

    let walked = walk(store, &all, at).await;
    let same = whole.iter().map(|hit| hit.record().id()).eq(walked.iter().take(whole.len()));
    assert!(same && walked.contains(ours.id()), "every key is on a page, whatever its length");
    // A cursor whose key was purged, or that the filter leaves out.
    for cursor in [KeyId::from_bytes([0; KeyId::LEN]), *plain(at).id(), *plain(at).id(), *plain(at).id()] {
        let page = works(store.list(&all, Some(&cursor), 2).await);
        let on_page = page.iter().map(|hit| hit.record().id());
        // Of an empty page, whether there is none.
        let begins = walked.iter().filter(|id| **id > cursor).take(page.len().max(1)).eq(on_page);
        assert!(begins, "a page begins after its cursor, be there such a key or not");
    }
}

/// All ids that fit, two a page.
async fn walk(store: &dyn ApiKeyAdmin, filter: &KeyFilter, at: Instants) -> Vec<KeyId> {
    let mut walked = Vec::new();
    let mut last: Option<KeyId> = None;
    loop {
        let page = works(store.list(filter, last.as_ref(), 2).await);
        assert!(page.len() <= 2, "a page is not longer than its limit");
        if page.is_empty() {
            break;
        }
        for hit in page {
            let id = *hit.record().id();
            assert!(last.is_none_or(|last| last < id), "ids ascend, within a page and from page to page");
            assert!(works(store.get(&id).await).as_ref() == Some(&hit), "what is listed is what get gives");
            assert!(find(store, &id, at).await.is_some(), "what is listed is found");
            assert!(filter.fits(&hit), "what is listed fits the filter");
            walked.push(id);
            last = Some(id);
        }
    }
    assert!(works(store.list(filter, last.as_ref(), 2).await).is_empty(), "after the last key there is nothing");
    walked
}

/// Asks both twins, and `get`, whose record must be the same but for its last use.
async fn find(store: &dyn ApiKeyAdmin, id: &KeyId, at: Instants) -> Option<Hit> {
    let lookup = Lookup::new(*id, at);
    let waited = works(store.find(lookup).await);
    match store.find_now(lookup) {
        Now::Known(at_once) => assert!(works(at_once) == waited, "find_now and find agree"),
        Now::Wait => {}
    }
    let got = works(store.get(id).await);
    let plain = |hit: &Hit| {
        let mut fields = hit.record().fields();
        fields.last_used = None;
        (fields, hit.owner_disabled())
    };
    assert!(got.as_ref().map(plain) == waited.as_ref().map(plain), "find and get agree");
    waited
}

async fn record(store: &dyn ApiKeyAdmin, id: &KeyId, at: Instants) -> Option<Arc<ApiKeyRecord>> {
    find(store, id, at).await.map(|hit| Arc::clone(hit.record()))
}

async fn insert(store: &dyn ApiKeyAdmin, record: &ApiKeyRecord) {
    works(store.insert(record.clone()).await);
}

#[expect(clippy::panic, reason = "a suite says by a panic what is broken")]
fn works<T>(answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("the store fails: {error}"))
}

#[expect(clippy::panic, reason = "the suite's own values are in their bounds")]
fn valid<T>(value: Result<T, ConfigError>) -> T {
    value.unwrap_or_else(|error| panic!("{error}"))
}

#[expect(clippy::panic, reason = "the suite's own values are in their bounds")]
fn network(text: &str) -> ipnet::IpNet {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn revocation(at: Instants, reason: &str) -> Revocation {
    valid(Revocation::new(at.unix_seconds(), reason))
}

fn named(name: &str) -> NewApiKey {
    NewApiKey::for_subject("conformance").name(name)
}

fn plain(at: Instants) -> ApiKeyRecord {
    minted(named(""), at)
}

/// A tenant that nobody else has.
fn fresh_tenant(at: Instants) -> String {
    format!("conformance-{}", plain(at).id())
}

#[expect(clippy::panic, reason = "a suite says by a panic what is broken")]
fn minted(key: NewApiKey, at: Instants) -> ApiKeyRecord {
    key.mint(at).map_or_else(|error| panic!("no key can be made: {error}"), |(_, record)| record)
}
