use std::sync::Arc;

use super::*;
use crate::{principal::PrincipalKind, voucher::Voucher};

fn fields() -> RecordFields {
    RecordFields::new(KeyId::from_bytes([1; 10]), KeyHash::from_bytes([2; 32]), "billing", 100, Some(200))
}

fn voucher() -> Arc<dyn Voucher> {
    let nowhere: std::sync::Weak<crate::api_key::MemoryKeyStore> = std::sync::Weak::new();
    Arc::new(crate::api_key::voucher::KeyVoucher::new(nowhere))
}

fn with(change: impl FnOnce(&mut RecordFields)) -> ApiKeyRecord {
    let mut fields = fields();
    change(&mut fields);
    fields.check().unwrap()
}

fn revocation(at: u64) -> Revocation {
    Revocation::new(at, "leaked").unwrap()
}

#[test]
fn a_key_is_accepted_from_its_start_until_its_end() {
    let record = || with(|_| {});
    let waiting = with(|fields| fields.not_before = Some(150));
    for (name, record, seconds, accepted) in [
        ("fresh", record(), 100, true),
        ("the last second", record(), 199, true),
        ("the end itself", record(), 200, false),
        ("the end of time", record(), u64::MAX, false),
        ("before its start", waiting.clone(), 149, false),
        ("at its start", waiting, 150, true),
        ("revoked later than now", record().revoked(&revocation(500)), 100, false),
    ] {
        assert_eq!(record.is_active(seconds), accepted, "{name}");
    }
}

#[test]
fn the_first_end_counts() {
    assert_eq!(with(|_| {}).ended(), Some(200));
    assert_eq!(with(|fields| fields.expires = None).ended(), None);
    assert_eq!(with(|_| {}).revoked(&revocation(150)).ended(), Some(150));
    assert_eq!(with(|_| {}).revoked(&revocation(250)).ended(), Some(200));
    assert_eq!(with(|_| {}).revoked(&revocation(150)).revoked(&revocation(120)).ended(), Some(150));
}

#[test]
fn a_request_needs_the_first_two_lines() {
    // After the two counts of the `Arc`.
    let end = |field: usize, size: usize| 16 + field + size;
    assert_eq!(end(std::mem::offset_of!(ApiKeyRecord, not_before), 8), 64);
    assert!(end(std::mem::offset_of!(ApiKeyRecord, environment), 16) <= 128);
    assert!(end(std::mem::offset_of!(ApiKeyRecord, scheme), size_of::<HashScheme>()) <= 144);
}

#[test]
fn an_overlap_never_outlives_the_old_end() {
    let new = KeyId::from_bytes([9; 10]);
    for (name, expires, ends, expected) in [
        ("shortened", Some(200), 150, 150),
        ("ends before", Some(200), 250, 200),
        ("never ended", None, 250, 250),
        ("at once", Some(200), 0, 0),
    ] {
        let old = with(|fields| fields.expires = expires).replaced_by(new, ends);
        assert_eq!((old.expires(), old.rotated_to()), (Some(expected), Some(&new)), "{name}");
        assert_eq!(old.principal(&"api-keys".into(), &voucher()).expires_at(), Some(expected), "{name}");
    }
}

#[test]
fn an_unknown_address_is_in_no_network() {
    let record =
        with(|fields| fields.addresses = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
    for (address, allowed) in
        [("10.1.2.3", true), ("11.0.0.1", false), ("2001:db8::1", true), ("2001:db9::1", false), ("::", false)]
    {
        assert_eq!(record.allows(Some(address.parse().unwrap())), allowed, "{address}");
    }
    assert!(!record.allows(None));
    assert!(with(|_| {}).allows(None));
}

#[test]
fn the_principal_is_made_once_for_each_store_name() {
    let record = with(|fields| {
        fields.tenant = Some("acme".into());
        fields.plan = Some("gold".into());
        fields.roles = vec!["clerk".into()];
        fields.scopes = vec!["orders:read".into()];
    });
    let (one, two): (Arc<str>, Arc<str>) = ("api-keys".into(), "partners".into());
    let vouching = voucher();
    let principal = record.principal(&one, &vouching);
    assert_eq!((principal.kind(), principal.issuer()), (PrincipalKind::Key, "api-keys"));
    assert_eq!((principal.subject(), principal.credential()), ("billing", "api_key"));
    assert_eq!(principal.credential_id(), Some(record.id().to_string().as_str()));
    assert_eq!((principal.tenant(), principal.plan()), (Some("acme"), Some("gold")));
    assert!(principal.has_role("clerk") && principal.has_scope("orders:read"));
    assert_eq!(principal.expires_at(), Some(200));
    assert_eq!(record.principal(&one, &vouching), principal);
    assert_eq!(record.principal(&two, &vouching).issuer(), "partners");
    let again = allocation_counter::measure(|| drop(record.principal(&one, &vouching)));
    assert_eq!(again.count_total, 0);
    let same_name: Arc<str> = "api-keys".into();
    let elsewhere = allocation_counter::measure(|| drop(record.principal(&same_name, &vouching)));
    assert_eq!(elsewhere.count_total, 0, "another name that reads the same");
    let other = voucher();
    let vouched = record.principal(&one, &other);
    assert_eq!(vouched, principal);
    assert!(vouched.voucher().is_some_and(|held| Arc::ptr_eq(held, &other)), "each authenticator vouches for its own");
}

#[test]
fn a_use_changes_nothing_else_and_a_later_one_stays() {
    let last = |at| LastUse::new(at, Some([198, 51, 100, 7].into()));
    let record = with(|_| {}).used(last(150));
    assert_eq!(record.used(last(120)).last_used(), Some(last(150)));
    assert_eq!(record.used(last(160)).last_used(), Some(last(160)));
    assert_eq!(record.fields(), {
        let mut fields = fields();
        fields.last_used = Some(last(150));
        fields
    });
}
