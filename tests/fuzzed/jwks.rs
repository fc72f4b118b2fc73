//! The input is a JWK Set. What of it is taken are public keys that a second reader of the JSON finds in it, for the purpose
//! and algorithm that it finds there, no more than there are; every other one is told by its place.

use std::collections::{BTreeMap, BTreeSet};

use portcullis::jwt::{Algorithm, Key, KeySet};
use serde_json::{Value, value::RawValue};

const MOST: usize = 100;

/// Panics if something of that does not hold.
pub fn check(text: &str) {
    let Ok(set) = KeySet::from_jwks(text) else { return };
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).unwrap();
    let members: Vec<Box<RawValue>> = serde_json::from_str(members["keys"].get()).unwrap();
    let told: Vec<&str> = set.skipped().iter().map(|error| error.setting()).collect();
    let looked_at = members.iter().take(MOST).enumerate();
    let taken = looked_at.filter(|(place, _)| !told.contains(&&*format!("key {place} of the JWK Set")));
    let taken: Vec<Value> = taken.map(|(_, member)| serde_json::from_str(member.get()).unwrap()).collect();
    assert!(!taken.is_empty());
    assert_eq!(taken.len(), set.keys().len());
    let too_many = usize::from(members.len() > MOST);
    assert_eq!(told.len(), members.len().min(MOST) - taken.len() + too_many);
    for (key, member) in set.keys().iter().zip(&taken) {
        is_as_read(key, member);
        // Alone it is the same key.
        let alone = Key::from_jwk(None, &member.to_string()).unwrap();
        assert_eq!((alone.algorithm(), alone.id(), alone.issuer()), (key.algorithm(), key.id(), key.issuer()));
    }
}

fn is_as_read(key: &Key, member: &Value) {
    let text = |name: &str| member.get(name).and_then(Value::as_str);
    assert_eq!(key.id(), text("kid"));
    assert_eq!(key.issuer(), text("issuer"));
    assert!(member.get("issuer").is_none_or(|issuer| issuer.is_null() || issuer.is_string()));
    assert!(!key.algorithm().is_symmetric());
    let (family, of_curve) = match (text("kty").unwrap(), text("crv")) {
        ("RSA", _) => (&["RS", "PS"][..], Algorithm::RS256),
        ("EC", Some("P-256")) => (&["ES"][..], Algorithm::ES256),
        ("EC", Some("P-384")) => (&["ES"][..], Algorithm::ES384),
        ("EC", Some("P-521")) => (&["ES"][..], Algorithm::ES512),
        ("OKP", Some("Ed25519")) => (&["Ed"][..], Algorithm::EdDSA),
        other => panic!("{other:?}"),
    };
    assert!(family.iter().any(|family| key.algorithm().name().starts_with(family)));
    match text("alg") {
        Some(name) => assert_eq!(Algorithm::from_name(name), Some(key.algorithm())),
        None => assert_eq!(key.algorithm(), of_curve),
    }
    if text("kty") == Some("EC") {
        assert_eq!(key.algorithm(), of_curve);
    }
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth"] {
        assert!(member.get(name).is_none_or(Value::is_null), "{name}");
    }
    assert!(matches!(text("use"), None | Some("sig")));
    if let Some(Value::Array(operations)) = member.get("key_ops") {
        assert!(operations.contains(&"verify".into()));
        let distinct: BTreeSet<&str> = operations.iter().map(|operation| operation.as_str().unwrap()).collect();
        assert_eq!(distinct.len(), operations.len());
        let others = ["encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"];
        assert!(text("use").is_none() || !others.iter().any(|other| distinct.contains(other)));
    }
}
