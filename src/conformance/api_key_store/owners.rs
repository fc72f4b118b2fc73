use std::time::Duration;

use super::{find, fresh_tenant, insert, minted, named, plain, revocation, valid, walk, works};
use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, Hit, KeyFilter, KeyId, KeyLife, NewApiKey, Owner, Rotation},
    clock::Instants,
};

pub(super) async fn disabling_stops_every_key(store: &dyn ApiKeyAdmin, at: Instants) {
    let tenant = fresh_tenant(at);
    let owner = valid(Owner::new("conformance").and_then(|owner| owner.in_tenant(&tenant)));
    let theirs = || named("theirs").tenant(&*tenant);
    let (one, two) = (minted(theirs(), at), minted(theirs(), at));
    let bystanders = [plain(at), minted(NewApiKey::for_subject("conformance-other").tenant(&*tenant), at)];
    for record in [&one, &two].into_iter().chain(&bystanders) {
        insert(store, record).await;
    }
    assert_eq!(works(store.disablement(&owner).await), None, "an owner is not disabled unless somebody did it");
    assert!(!works(store.enable_owner(&owner).await), "enabling an owner who is not disabled is false");

    let first = revocation(at, "left the company");
    assert!(works(store.disable_owner(&owner, &first).await), "disabling an owner is true");
    assert!(!works(store.disable_owner(&owner, &revocation(at, "again")).await), "disabling a second time is false");
    assert_eq!(works(store.disablement(&owner).await), Some(first), "the first disablement stays");

    let (later, rotated) = (minted(theirs(), at), minted(theirs(), at));
    insert(store, &later).await;
    let rotation = valid(Rotation::new(*two.id(), rotated.clone(), at.unix_seconds()));
    works(store.rotate(rotation).await);
    for (record, name) in [(&one, "of before"), (&two, "rotated"), (&later, "of later"), (&rotated, "of a rotation")] {
        assert_eq!(
            disabled(store, record, at).await,
            Some(true),
            "every key of a disabled owner is disabled: one {name}"
        );
    }
    for record in &bystanders {
        assert_eq!(disabled(store, record, at).await, Some(false), "disabling an owner leaves the others as they are");
    }
    let found = find(store, one.id(), at).await;
    assert!(found.is_some_and(|hit| **hit.record() == one), "disabling an owner changes no record");

    assert!(works(store.enable_owner(&owner).await), "enabling a disabled owner is true");
    assert_eq!(works(store.disablement(&owner).await), None, "an owner who was enabled is not disabled");
    for record in [&one, &two, &later, &rotated] {
        assert_eq!(disabled(store, record, at).await, Some(false), "enabling an owner enables every key");
    }
}

/// Where no tenant is a null in a table, nothing equals it.
pub(super) async fn no_tenant_is_no_other_tenant(store: &dyn ApiKeyAdmin, at: Instants) {
    let subject = fresh_tenant(at);
    let key = || NewApiKey::for_subject(&*subject);
    let (free, bound) = (minted(key(), at), minted(key().tenant("conformance"), at));
    insert(store, &free).await;
    insert(store, &bound).await;
    for (owner, stopped) in [
        (Owner::new(&subject), [true, false]),
        (Owner::new(&subject).and_then(|owner| owner.in_tenant("conformance")), [false, true]),
    ] {
        let owner = valid(owner);
        let why = if owner.tenant().is_none() { "no tenant" } else { "a tenant" };
        let left = revocation(at, "left");
        assert!(works(store.disable_owner(&owner, &left).await), "disabling an owner of {why} is true");
        assert_eq!(works(store.disablement(&owner).await), Some(left), "an owner of {why} is disabled");
        for (record, stopped) in [&free, &bound].into_iter().zip(stopped) {
            let is_disabled = disabled(store, record, at).await;
            assert_eq!(
                is_disabled,
                Some(stopped),
                "disabling an owner of {why} stops the keys of {why}, and no others"
            );
        }
        assert!(works(store.enable_owner(&owner).await), "enabling an owner of {why} is true");
        assert_eq!(disabled(store, &free, at).await, Some(false), "enabling an owner of {why} enables every key");
    }
}

async fn disabled(store: &dyn ApiKeyAdmin, record: &ApiKeyRecord, at: Instants) -> Option<bool> {
    find(store, record.id(), at).await.as_ref().map(Hit::owner_disabled)
}

pub(super) async fn filters_hold(store: &dyn ApiKeyAdmin, at: Instants) {
    let (tenant, now) = (fresh_tenant(at), at.unix_seconds());
    let subject = format!("subject-{tenant}");
    let key = |name: &str| NewApiKey::for_subject(&*subject).name(name);
    let live = |key: NewApiKey| {
        let mut fields = minted(key.tenant(&*tenant), at).fields();
        fields.environment = Some("live".to_owned());
        valid(fields.check())
    };
    let (plain, lives, named) = (minted(key("plain"), at), live(key("nightly 100% a_b")), live(key("Nightly")));
    let (revoked, early) = (live(key("revoked")), live(key("early").not_before(now.saturating_add(60))));
    // Ends at the second at which the other begins.
    let late = live(key("late").lives(KeyLife::For(Duration::from_secs(60))));
    let other = live(NewApiKey::for_subject("conformance-other"));
    for record in [&plain, &lives, &named, &revoked, &early, &late, &other] {
        insert(store, record).await;
    }
    works(store.revoke(revoked.id(), &revocation(at, "leaked")).await);
    let disabled = valid(Owner::new("conformance-other").and_then(|owner| owner.in_tenant(&tenant)));
    works(store.disable_owner(&disabled, &revocation(at, "left")).await);

    let ours = || KeyFilter::all().subject(&*subject);
    for (name, filter, expected) in [
        ("of the subject", ours(), vec![&plain, &lives, &named, &revoked, &early, &late]),
        ("of the tenant", KeyFilter::all().tenant(&*tenant), vec![&lives, &named, &revoked, &early, &late, &other]),
        ("of the subject in the tenant", ours().tenant(&*tenant), vec![&lives, &named, &revoked, &early, &late]),
        ("of the subject in no tenant", ours().without_tenant(), vec![&plain]),
        ("of the environment", ours().environment("live"), vec![&lives, &named, &revoked, &early, &late]),
        ("of another environment", ours().environment("test"), vec![]),
        ("of no environment", ours().without_environment(), vec![&plain]),
        ("active", KeyFilter::all().tenant(&*tenant).active_at(now), vec![&lives, &named, &late]),
        ("active later", ours().tenant(&*tenant).active_at(now.saturating_add(60)), vec![&lives, &named, &early]),
        ("active at the end of time", ours().active_at(crate::api_key::MAX_TIME), vec![]),
        ("name, byte for byte", ours().name_contains("ightly"), vec![&lives, &named]),
        ("name, in its case", ours().name_contains("nightly"), vec![&lives]),
        ("name with a percent sign", ours().name_contains("0% a"), vec![&lives]),
        ("name with an underscore", ours().name_contains("a_b"), vec![&lives]),
        ("name with an underscore that is not there", ours().name_contains("N_ghtly"), vec![]),
        ("name with a quote", ours().name_contains("'"), vec![]),
        ("every name", ours().without_tenant().name_contains(""), vec![&plain]),
        ("of nobody", KeyFilter::all().subject("conformance' OR '1'='1"), vec![]),
    ] {
        let mut expected: Vec<KeyId> = expected.iter().map(|record| *record.id()).collect();
        expected.sort_unstable();
        assert_eq!(walk(store, &filter, at).await, expected, "a filter gives what fits, and nothing else: {name}");
    }
}
