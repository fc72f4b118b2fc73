//! What a change must leave as it is: a statement that names each column forgets one.

use std::net::{IpAddr, Ipv4Addr};

use super::{full, insert, life::rotation, plain, revocation, works};
use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, KeyUse, LastUse},
    clock::Instants,
};

pub(super) async fn changes_keep_the_rest(store: &dyn ApiKeyAdmin, at: Instants) {
    let now = at.unix_seconds();
    let last = LastUse::new(now.saturating_add(1), Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))));
    let (old, new) = (full(at), full(at));
    insert(store, &old).await;
    works(store.record_uses(&[KeyUse::new(*old.id(), last)]).await);
    let used = old.used(last);
    is_kept(store, &used, "a use keeps the rest of the record").await;

    let rotation = rotation(&old, &new, now.saturating_add(600));
    let shortened = rotation.shorten(&used).unwrap_or_else(|| used.clone());
    let whole = rotation.record().clone();
    assert!(works(store.rotate(rotation).await), "rotating a key that exists is true");
    is_kept(store, &shortened, "a rotation keeps the rest of the old record, with its last use").await;
    is_kept(store, &whole, "a rotation stores the whole new record").await;

    let leaked = revocation(at, "leaked");
    for record in [&shortened, &whole] {
        assert!(works(store.revoke(record.id(), &leaked).await), "revoking a key that exists is true");
        is_kept(store, &record.revoked(&leaked), "a revocation keeps the rest of the record").await;
    }

    let busy = plain(at);
    insert(store, &busy).await;
    let uses = [2, 9, 4].map(|later| LastUse::new(now.saturating_add(later), None));
    works(store.record_uses(&uses.map(|last| KeyUse::new(*busy.id(), last))).await);
    let latest = uses.iter().fold(busy, |busy, last| busy.used(*last));
    is_kept(store, &latest, "of several uses in one call the latest is noted").await;
}

async fn is_kept(store: &dyn ApiKeyAdmin, wanted: &ApiKeyRecord, why: &str) {
    let got = works(store.get(wanted.id()).await);
    let got = got.as_ref().map(|hit| &**hit.record());
    assert!(got == Some(wanted), "{why}: {wanted:?}, not {got:?}");
}
