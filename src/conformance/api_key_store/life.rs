use std::{net::IpAddr, time::Duration};

use super::{find, insert, minted, named, plain, record, revocation, valid, works};
use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, Hit, KeyLife, KeyUse, LastUse, Rotation},
    clock::Instants,
    error::StoreErrorKind,
};

pub(super) async fn revocation_stays(store: &dyn ApiKeyAdmin, at: Instants) {
    let (key, bystander) = (plain(at), plain(at));
    insert(store, &key).await;
    insert(store, &bystander).await;

    let first = revocation(at, "leaked");
    let later = revocation(Instants::new(at.unix_nanos().saturating_add(1_000_000_000), 0), "again");
    assert!(works(store.revoke(key.id(), &first).await), "revoking a key that exists is true");
    assert!(works(store.revoke(key.id(), &later).await), "revoking a second time is true as well");

    let found = record(store, key.id(), at).await;
    assert!(found.is_some(), "a revoked key is still found");
    let kept = found.as_deref().and_then(ApiKeyRecord::revocation);
    assert_eq!(kept, Some(&first), "the first revocation is there at once, and stays");
    assert!(found.as_deref() == Some(&key.revoked(&first)), "revoking changes nothing else");
    let other = record(store, bystander.id(), at).await;
    assert!(other.as_deref() == Some(&bystander), "revoking a key leaves the others as they are");
}

pub(super) fn rotation(old: &ApiKeyRecord, new: &ApiKeyRecord, ends: u64) -> Rotation {
    valid(Rotation::new(*old.id(), new.clone(), ends))
}

async fn conflicts(store: &dyn ApiKeyAdmin, rotation: Rotation, why: &str) {
    let refused = store.rotate(rotation).await.map_err(|error| error.kind());
    assert_eq!(refused, Err(StoreErrorKind::Conflict), "{why}");
}

pub(super) async fn rotation_replaces(store: &dyn ApiKeyAdmin, at: Instants) {
    let now = at.unix_seconds();
    let day = || named("day").lives(KeyLife::For(Duration::from_secs(86_400)));
    for (old, ends) in [
        (minted(day(), at), now.saturating_add(60)),
        (minted(day(), at), now.saturating_add(1_000_000)),
        (minted(named("endless").lives(KeyLife::Never), at), now),
    ] {
        let new = plain(at);
        insert(store, &old).await;
        assert!(works(store.rotate(rotation(&old, &new, ends)).await), "rotating a key that exists is true");

        let shortened = rotation(&old, &new, ends).shorten(&old);
        let found = record(store, old.id(), at).await;
        let end = found.as_ref().and_then(|record| record.expires());
        let earlier = old.expires().map_or(ends, |end| end.min(ends));
        assert_eq!(end, Some(earlier), "a rotated key ends with the overlap, and never later than before");
        assert!(found.as_deref() == shortened.as_ref(), "rotating changes nothing else in the old record");
        let found = record(store, new.id(), at).await;
        assert!(
            found.as_deref() == Some(rotation(&old, &new, ends).record()),
            "the new record is there, and names the old key"
        );

        let again = plain(at);
        conflicts(store, rotation(&old, &again, ends), "rotating a second time is a conflict").await;
        assert!(find(store, again.id(), at).await.is_none(), "a refused rotation inserts nothing");
        assert!(
            record(store, old.id(), at).await.as_deref() == shortened.as_ref(),
            "a refused rotation changes nothing"
        );
    }

    let (revoked, new) = (plain(at), plain(at));
    insert(store, &revoked).await;
    works(store.revoke(revoked.id(), &revocation(at, "leaked")).await);
    conflicts(store, rotation(&revoked, &new, now), "rotating a revoked key is a conflict").await;
    assert!(find(store, new.id(), at).await.is_none(), "a refused rotation inserts nothing");

    let (old, taken) = (plain(at), plain(at));
    insert(store, &old).await;
    insert(store, &taken).await;
    conflicts(store, rotation(&old, &taken, now), "a new id that exists is a conflict").await;
    for kept in [&old, &taken] {
        assert!(record(store, kept.id(), at).await.as_deref() == Some(kept), "a refused rotation changes nothing");
    }
}

pub(super) async fn uses_are_noted(store: &dyn ApiKeyAdmin, at: Instants) {
    let (key, bystander, stranger) = (plain(at), plain(at), plain(at));
    insert(store, &key).await;
    insert(store, &bystander).await;
    let now = at.unix_seconds();
    let last = |offset: u64, address: &str| LastUse::new(now.saturating_add(offset), address.parse::<IpAddr>().ok());
    let noted = |record: &ApiKeyRecord, last| KeyUse::new(*record.id(), last);

    works(store.record_uses(&[]).await);
    works(store.record_uses(&[noted(&stranger, last(1, "198.51.100.7")), noted(&key, last(5, "2001:db8::1"))]).await);
    works(store.record_uses(&[noted(&key, last(3, "198.51.100.7"))]).await);
    let got = works(store.get(key.id()).await);
    let kept = got.as_ref().and_then(|hit| hit.record().last_used());
    assert_eq!(kept, Some(last(5, "2001:db8::1")), "the latest use is noted, with its address");
    assert!(got.is_some_and(|hit| **hit.record() == key.used(last(5, "2001:db8::1"))), "a use changes nothing else");
    assert!(works(store.get(stranger.id()).await).is_none(), "a use of a key that does not exist makes none");
    let other = works(store.get(bystander.id()).await);
    assert!(other.is_some_and(|hit| **hit.record() == bystander), "a use of a key leaves the others as they are");

    works(store.record_uses(&[noted(&key, last(9, ""))]).await);
    let kept = works(store.get(key.id()).await).and_then(|hit| hit.record().last_used());
    assert_eq!(kept, Some(last(9, "")), "a later use without an address is noted without one");
}

pub(super) async fn purging_takes_what_ended(store: &dyn ApiKeyAdmin, at: Instants) {
    let birth = Instants::new(0, 0);
    let ending = |end| minted(named("ending").lives(KeyLife::For(Duration::from_secs(end))), birth);
    let (gone, edge) = (ending(599), ending(600));
    let (revoked, endless) = (plain(at), minted(named("endless").lives(KeyLife::Never), birth));
    let (revoked_then, owner) = (plain(at), plain(at));
    for record in [&gone, &edge, &revoked, &revoked_then, &endless, &owner] {
        insert(store, record).await;
    }
    for (record, second) in [(&revoked, 599), (&revoked_then, 600)] {
        works(store.revoke(record.id(), &revocation(Instants::new(second * 1_000_000_000, 0), "early")).await);
    }

    let purge = || store.purge(Instants::new(1_000_000_000_000, 0), Duration::from_secs(400));
    assert!(works(purge().await) >= 2, "purging says how many records went");
    for (record, stays, why) in [
        (&gone, false, "a key that ended before goes"),
        (&revoked, false, "a key that was revoked before goes"),
        (&edge, true, "a key that ended then stays"),
        (&revoked_then, true, "a key that was revoked then stays"),
        (&endless, true, "a key that never ends stays"),
        (&owner, true, "a key that has not ended stays"),
    ] {
        assert_eq!(find(store, record.id(), at).await.as_ref().map(Hit::record).is_some(), stays, "{why}");
    }
    assert_eq!(works(purge().await), 0, "purging a second time finds nothing");
    for kept in [Duration::from_secs(1_001), Duration::from_secs(u64::MAX / 1_000), Duration::MAX] {
        let gone = works(store.purge(Instants::new(1_000_000_000_000, 0), kept).await);
        assert_eq!(gone, 0, "nothing ended before time began, which is {kept:?} before a thousand seconds after it");
    }
}
