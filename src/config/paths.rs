//! Which files a document names, and that no record is written into one of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    config::{document::Document, problem::Report, secret::SecretRef},
    file::{folder, identity},
};

/// Notes if the audit records would go into a file that the document names for something else: a policy, keys, secrets.
pub(super) fn check(document: &Document, report: &mut Report<'_>) {
    let Some(path) = document.audit.as_ref().and_then(|audit| audit.value.path.as_ref()) else { return };
    let Some(records) = Place::of(Path::new(&path.value)) else { return };
    let mut named = read(document, report);
    if report.sheet().is_file {
        named.push(("this document".to_owned(), report.sheet().file.to_string()));
    }
    let same = named.into_iter().find(|(_, other)| Place::of(Path::new(other)).is_some_and(|other| other == records));
    if let Some((field, _)) = same {
        let advice = format!("is the file of {field} as well, and records would be written into it: name another one");
        report.add(path.at, "audit.path", format!("{:?}", path.value), advice);
    }
}

/// The other files of a document, and the fields that name them.
fn read(document: &Document, report: &Report<'_>) -> Vec<(String, String)> {
    let mut named = Vec::new();
    let mut add = |field: &str, path: Option<&str>| named.extend(path.map(|path| (field.to_owned(), path.to_owned())));
    let policy = document.policy.as_ref();
    add("policy.file", policy.map(|policy| policy.value.file.value.as_str()));
    add("routes_file", document.routes_file.as_ref().map(|file| file.value.as_str()));
    for (index, issuer) in document.issuers.iter().enumerate() {
        let file = issuer.value.keys.as_ref().and_then(|keys| keys.value.file.as_ref());
        let field = format!("{}.keys.file", report.item("issuers", index));
        add(&field, file.map(|file| file.value.as_str()));
    }
    if let Some(keys) = document.api_keys.as_ref().map(|keys| &keys.value) {
        add("api_keys.path", keys.path.as_ref().map(|path| path.value.as_str()));
        add("api_keys.address", keys.address.as_ref().and_then(|address| file_of(&address.value)));
        for (index, pepper) in keys.peppers.iter().flat_map(|peppers| peppers.value.iter().enumerate()) {
            let field = format!("{}.secret", report.item("api_keys.peppers", index));
            add(&field, file_of(&pepper.value.secret.value));
        }
    }
    add("redis.address", document.redis.as_ref().and_then(|redis| file_of(&redis.value.address.value)));
    named
}

fn file_of(secret: &SecretRef) -> Option<&str> {
    match secret {
        SecretRef::File { path, .. } => Some(path),
        SecretRef::Env(_) => None,
    }
}

/// Where a file is or is to be, whichever way it is named.
struct Place {
    path: PathBuf,
    /// Tells hard links of one file, where there are such.
    identity: Option<(u64, u64)>,
}

impl Place {
    /// None if the directory is not there.
    fn of(path: &Path) -> Option<Self> {
        let there = path.canonicalize().ok();
        let path = there.or_else(|| Some(folder(path).canonicalize().ok()?.join(path.file_name()?)))?;
        let identity = fs::metadata(&path).ok().and_then(|metadata| identity(&metadata));
        Some(Self { path, identity })
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path || self.identity.is_some() && self.identity == other.identity
    }
}
