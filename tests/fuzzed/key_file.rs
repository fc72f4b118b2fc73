//! A file of API keys, as TOML and as JSON. What is taken in are the keys and the disabled owners that a second reader finds in
//! it, all of them and nothing else; a change writes what is read again the same; and what is written is refused wherever it is
//! cut off.

use std::{collections::BTreeMap, fs, path::Path};

use portcullis::api_key::{ApiKeyAdmin, FileKeyStore, Hit, KeyFilter, MAX_PAGE, Owner, RecordFields, Revocation};
use serde_json::Value;

use super::{
    json::once,
    memory::{NOW, now},
};

/// Panics if something of that does not hold. Whether it is a file of keys.
pub fn check(text: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    ["toml", "json"].into_iter().filter(|ending| of(text, &folder.path().join("keys").with_extension(ending))).count()
        > 0
}

fn of(text: &str, path: &Path) -> bool {
    fs::write(path, text).unwrap();
    let store = match FileKeyStore::open(path) {
        Ok(store) => store,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return false;
        }
    };
    let document = document(text, path);
    assert_eq!(document["version"], 1);
    assert!(document.keys().all(|name| ["version", "disabled", "keys", "end"].contains(&&**name)));
    assert_eq!(document.contains_key("end"), path.extension().is_some_and(|ending| ending == "toml"));
    let entries = |name: &str| document.get(name).map_or(&[][..], |entries| entries.as_array().unwrap());
    let (keys, disabled) = (entries("keys"), entries("disabled"));
    assert!(keys.iter().chain(disabled).chain(document.get("end")).all(Value::is_object), "{document:?}");
    assert_eq!(store.health().keys, keys.len());
    let hits = hits(&store);
    assert_eq!(hits.len(), keys.len().min(MAX_PAGE));
    for hit in &hits {
        let fields = hit.record().fields();
        let [entry] = keys.iter().filter(|entry| entry["id"] == *fields.id.to_string()).collect::<Vec<_>>()[..] else {
            panic!("not one of {}", fields.id)
        };
        is_as_read(&fields, entry);
        let is_owner = |owner: &&Value| owner["subject"] == *fields.subject && owner["tenant"] == entry["tenant"];
        assert_eq!(hit.owner_disabled(), disabled.iter().filter(is_owner).count() == 1);
    }

    // An owner that nobody else would name.
    let (owner, left) = (Owner::new("somebody-9d2c41").unwrap(), Revocation::new(NOW, "left").unwrap());
    let is_new = now(store.disable_owner(&owner, &left)).unwrap();
    let again = FileKeyStore::open(path).unwrap();
    assert_eq!(self::hits(&again), hits);
    assert!(!is_new || now(again.disablement(&owner)).unwrap() == Some(left));
    if is_new {
        let written = fs::read_to_string(path).unwrap();
        let place = text.len() % written.trim_end().len();
        let cut = (0..=place).rev().find_map(|place| written.get(..place)).unwrap_or_default();
        fs::write(path, cut).unwrap();
        assert!(FileKeyStore::open(path).is_err(), "cut off: {cut:?}");
    }
    true
}

fn hits(store: &FileKeyStore) -> Vec<Hit> {
    now(store.list(&KeyFilter::all(), None, MAX_PAGE)).unwrap()
}

/// The members of a document, as values of JSON.
fn document(text: &str, path: &Path) -> BTreeMap<String, Value> {
    let members = if path.extension().is_some_and(|ending| ending == "json") {
        once(text.as_bytes()).unwrap()
    } else {
        serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
    };
    members.as_object().expect("an object").clone().into_iter().collect()
}

fn is_as_read(fields: &RecordFields, entry: &Value) {
    assert!(entry.is_object());
    let texts = |name: &str| entry.get(name).cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    let written = serde_json::to_value(fields).unwrap();
    for name in ["hash", "scheme", "subject", "created", "expires"] {
        assert_eq!(written[name], entry[name], "{name}");
    }
    // What is not there is left out of what is written.
    for name in ["tenant", "plan", "environment", "not_before", "rotated_from", "rotated_to", "revoked"] {
        assert_eq!(written[name], entry[name], "{name}");
    }
    assert_eq!(entry.get("name").map_or(Some(""), Value::as_str), Some(&*fields.name));
    for (name, read) in [("scopes", &fields.scopes), ("roles", &fields.roles)] {
        assert_eq!(texts(name), serde_json::to_value(read).unwrap(), "{name}");
    }
    assert_eq!(fields.addresses.is_empty(), texts("addresses") == Value::Array(Vec::new()));
}
