use std::{sync::Arc, time::Duration};

use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, KeyId, KeyLife, MAX_PAGE, NewApiKey},
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    now::Now,
};

/// Checks an [`ApiKeyAdmin`], and the [`ApiKeyStore`](crate::api_key::ApiKeyStore) that it is.
///
/// The store may hold other keys; the suite adds seven and leaves them there, and nobody else may change it
/// meanwhile. `at` is the time that the new records carry.
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
    revocation_stays(store, at).await;
    pages_hold_everything_once(store, at).await;
}

async fn absence_is_an_answer(store: &dyn ApiKeyAdmin, at: Instants) {
    let stranger = plain(at);
    assert!(find(store, stranger.id()).await.is_none(), "a key that was never inserted is None");
    let revoked = works(store.revoke(stranger.id(), at, "never was").await);
    assert!(!revoked, "revoking a key that does not exist is false");
    assert!(find(store, stranger.id()).await.is_none(), "revoking a key that does not exist makes none");
}

async fn records_come_back_whole(store: &dyn ApiKeyAdmin, at: Instants) {
    let full = NewApiKey::for_subject("conformance: süb'ject\"")
        .name("näme; DROP TABLE keys")
        .tenant("tenant")
        .plan("plan")
        .scope("a:read")
        .scope("b:write")
        .role("role one")
        .role("röle two")
        .not_before(at.unix_seconds().saturating_add(60));
    for record in [minted(full, at), minted(NewApiKey::for_subject("bare").lives(KeyLife::Never), at)] {
        insert(store, &record).await;
        let found = find(store, record.id()).await;
        assert!(found.as_deref() == Some(&record), "a record comes back as it was inserted: {record:?}, not {found:?}");
    }
    let expired = NewApiKey::for_subject("expired").lives(KeyLife::For(Duration::from_secs(1)));
    let expired = minted(expired, Instants::new(0, 0));
    insert(store, &expired).await;
    assert!(
        find(store, expired.id()).await.is_some(),
        "an expired key is found: the authenticator decides, not the store"
    );
}

async fn an_id_is_taken_once(store: &dyn ApiKeyAdmin, at: Instants) {
    let first = plain(at);
    insert(store, &first).await;
    let second = ApiKeyRecord::new(*first.id(), *plain(at).hash(), "usurper", at.unix_seconds(), None);
    let refused = store.insert(second).await.map_err(|error| error.kind());
    assert_eq!(refused, Err(StoreErrorKind::Conflict), "an id that exists is a conflict");
    assert!(find(store, first.id()).await.as_deref() == Some(&first), "a refused insert leaves the record as it was");
}

async fn revocation_stays(store: &dyn ApiKeyAdmin, at: Instants) {
    let (record, bystander) = (plain(at), plain(at));
    insert(store, &record).await;
    insert(store, &bystander).await;

    let later = Instants::new(at.unix_nanos().saturating_add(1_000_000_000), at.monotonic_nanos());
    assert!(works(store.revoke(record.id(), at, "leaked").await), "revoking a key that exists is true");
    assert!(works(store.revoke(record.id(), later, "again").await), "revoking a second time is true as well");

    let found = find(store, record.id()).await;
    let revocation = found.as_deref().and_then(ApiKeyRecord::revocation);
    assert!(found.is_some(), "a revoked key is still found");
    assert_eq!(
        revocation.map(|revocation| (revocation.at(), revocation.reason())),
        Some((at.unix_seconds(), "leaked")),
        "the first revocation is there at once, and stays"
    );
    if let (Some(found), Some(revocation)) = (&found, revocation) {
        assert!(**found == record.with_revocation(revocation.clone()), "revoking changes nothing else");
    }
    let other = find(store, bystander.id()).await;
    assert!(other.as_deref() == Some(&bystander), "revoking a key leaves the others as they are");
}

async fn pages_hold_everything_once(store: &dyn ApiKeyAdmin, at: Instants) {
    let ours = plain(at);
    insert(store, &ours).await;
    assert!(works(store.list(None, 0).await).is_empty(), "a page of none is empty");
    let whole = works(store.list(None, usize::MAX).await);
    assert!(whole.len() <= MAX_PAGE, "a page has MAX_PAGE records at most");

    let mut walked = Vec::new();
    let mut last: Option<KeyId> = None;
    loop {
        let page = works(store.list(last.as_ref(), 2).await);
        assert!(page.len() <= 2, "a page is not longer than its limit");
        if page.is_empty() {
            break;
        }
        for record in page {
            let id = *record.id();
            assert!(last.is_none_or(|last| last < id), "ids ascend, within a page and from page to page");
            assert!(find(store, &id).await.as_deref() == Some(&*record), "what is listed is what is found");
            walked.push(id);
            last = Some(id);
        }
    }
    let same = whole.iter().map(|record| record.id()).eq(walked.iter().take(whole.len()));
    assert!(same && walked.contains(ours.id()), "every key is on a page, whatever its length");
    assert!(works(store.list(last.as_ref(), 2).await).is_empty(), "after the last key there is nothing");
}

/// Asks both twins.
async fn find(store: &dyn ApiKeyAdmin, id: &KeyId) -> Option<Arc<ApiKeyRecord>> {
    let waited = works(store.find(id).await);
    match store.find_now(id) {
        Now::Known(at_once) => assert!(works(at_once) == waited, "find_now and find agree"),
        Now::Wait => {}
    }
    waited
}

async fn insert(store: &dyn ApiKeyAdmin, record: &ApiKeyRecord) {
    works(store.insert(record.clone()).await);
}

#[expect(clippy::panic, reason = "a suite says by a panic what is broken")]
fn works<T>(answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("the store fails: {error}"))
}

fn plain(at: Instants) -> ApiKeyRecord {
    minted(NewApiKey::for_subject("conformance"), at)
}

#[expect(clippy::panic, reason = "a suite says by a panic what is broken")]
fn minted(key: NewApiKey, at: Instants) -> ApiKeyRecord {
    key.mint(at).map_or_else(|error| panic!("no key can be made: {error}"), |(_, record)| record)
}
