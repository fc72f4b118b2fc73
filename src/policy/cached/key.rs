//! What a verdict is remembered by: the action and the declared parts of a question, written so that two questions that
//! differ in them are written differently.

use serde::Serialize;

use crate::{
    policy::{AccessQuery, Attributes, QueryParts},
    principal::{Confirmation, Principal, Texts},
};

/// Questions that take more room are not remembered.
pub(super) const MAX_KEY: usize = 1024;

/// Writes the key; false if it is too long, or the verdict depends on the time.
pub(super) fn write(into: &mut Vec<u8>, parts: QueryParts, query: &AccessQuery<'_>) -> bool {
    into.clear();
    // What was read before a reload is not taken for what is read after it.
    into.extend_from_slice(&parts.bits().to_le_bytes());
    text(into, query.action());
    principal(into, parts, query.subject());
    if parts.has(QueryParts::CLIENT) {
        match query.client() {
            Some(client) => {
                into.push(1);
                principal(into, QueryParts::ALL, client);
            }
            None => into.push(0),
        }
    }
    let resource = query.resource();
    if parts.has(QueryParts::RESOURCE) {
        optional(into, resource.map(|resource| resource.kind()));
        optional(into, resource.map(|resource| resource.id()));
    }
    if parts.has(QueryParts::RESOURCE_FACTS) {
        // The owner is one in every tenant; who owns it as well, in the thing's alone, whether or not the policy says that it reads
        // the subject's.
        let (owned, owners) = resource.map_or((0, 0), |thing| (thing.owner().iter().len(), thing.owners().count()));
        into.push(u8::from(owned > 0));
        if owners > owned {
            optional(into, query.subject().tenant());
        }
        for (issuer, subject) in resource.iter().flat_map(|resource| resource.owners()) {
            optional(into, Some(issuer));
            optional(into, Some(subject));
        }
        optional(into, None);
        optional(into, resource.and_then(|resource| resource.tenant()));
        attributes(into, resource.map(|resource| resource.attributes()));
    }
    if parts.has(QueryParts::ATTRIBUTES) {
        attributes(into, query.attributes());
    }
    if parts.has(QueryParts::METHOD) {
        optional(into, query.method());
    }
    if parts.has(QueryParts::ROUTE) {
        optional(into, query.route());
    }
    if parts.has(QueryParts::ADDRESS) {
        match query.address() {
            None => into.push(0),
            Some(std::net::IpAddr::V4(address)) => {
                into.push(4);
                into.extend_from_slice(&address.octets());
            }
            Some(std::net::IpAddr::V6(address)) => {
                into.push(6);
                into.extend_from_slice(&address.octets());
            }
        }
    }
    into.len() <= MAX_KEY && !parts.has(QueryParts::TIME)
}

fn principal(into: &mut Vec<u8>, parts: QueryParts, of: &Principal) {
    if parts.has(QueryParts::SUBJECT) {
        text(into, of.issuer());
        text(into, of.subject());
    }
    for (part, list) in [
        (QueryParts::ROLES, of.roles()),
        (QueryParts::SCOPES, of.scopes()),
        (QueryParts::PERMISSIONS, of.permissions()),
    ] {
        if parts.has(part) {
            texts(into, list);
        }
    }
    if parts.has(QueryParts::TENANT) {
        optional(into, of.tenant());
    }
    if parts.has(QueryParts::STRENGTH) {
        optional(into, of.acr());
        texts(into, of.methods());
        number(into, of.auth_time());
    }
    if parts.has(QueryParts::CLAIMS) {
        text(into, of.kind().as_str());
        text(into, of.credential());
        optional(into, of.credential_id());
        optional(into, of.plan());
        number(into, of.expires_at());
        optional(into, of.claims_text());
        let bound = of.confirmation();
        bytes(into, bound.and_then(Confirmation::key_thumbprint));
        bytes(into, bound.and_then(Confirmation::certificate_sha256));
    }
}

fn length(into: &mut Vec<u8>, length: usize) {
    into.extend_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes());
}

fn text(into: &mut Vec<u8>, text: &str) {
    length(into, text.len());
    // What is too long to be remembered is not copied either.
    if text.len() <= MAX_KEY {
        into.extend_from_slice(text.as_bytes());
    } else {
        into.resize(MAX_KEY.saturating_add(1).max(into.len()), 0);
    }
}

fn optional(into: &mut Vec<u8>, of: Option<&str>) {
    match of {
        Some(of) => {
            into.push(1);
            text(into, of);
        }
        None => into.push(0),
    }
}

fn bytes(into: &mut Vec<u8>, of: Option<&[u8; 32]>) {
    into.push(u8::from(of.is_some()));
    into.extend_from_slice(of.map_or(&[], <[u8; 32]>::as_slice));
}

fn texts(into: &mut Vec<u8>, list: Texts<'_>) {
    length(into, list.len());
    for of in list {
        text(into, of);
    }
}

fn number(into: &mut Vec<u8>, of: Option<u64>) {
    match of {
        Some(of) => {
            into.push(1);
            into.extend_from_slice(&of.to_le_bytes());
        }
        None => into.push(0),
    }
}

/// JSON text ends by itself: nothing that follows it can be taken for a part of it. None are written otherwise than an empty
/// object is: a policy may tell a thing without facts from no thing.
fn attributes(into: &mut Vec<u8>, of: Option<&Attributes>) {
    match of {
        Some(of) => {
            into.push(1);
            let mut writer = serde_json::Serializer::new(&mut *into);
            if of.serialize(&mut writer).is_err() {
                into.resize(MAX_KEY.saturating_add(1), 0);
            }
        }
        None => into.push(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Instants, PrincipalKind, policy::Resource};

    /// Each fact of a principal that a policy may read is in the key of the part that names it.
    #[test]
    fn principals_that_differ_have_other_keys() {
        let alice = || Principal::builder(PrincipalKind::User, "i", "alice", "jwt");
        let bound = |key| Confirmation::new().with_key_thumbprint([key; 32]);
        let by_certificate = Confirmation::new().with_certificate_sha256([1; 32]);
        let all = [
            alice(),
            Principal::builder(PrincipalKind::Service, "i", "alice", "jwt"),
            Principal::builder(PrincipalKind::User, "j", "alice", "jwt"),
            Principal::builder(PrincipalKind::User, "i", "bob", "jwt"),
            Principal::builder(PrincipalKind::User, "i", "alice", "other"),
            alice().credential_id("1"),
            alice().methods(["pwd"]),
            alice().acr("gold"),
            alice().auth_time(1),
            alice().scopes(["a"]),
            alice().roles(["a"]),
            alice().permissions(["a"]),
            alice().tenant("a"),
            alice().plan("a"),
            alice().expires_at(1),
            alice().claims("{}"),
            alice().confirmation(bound(1)),
            alice().confirmation(bound(2)),
            alice().confirmation(by_certificate),
            alice().confirmation(by_certificate.with_key_thumbprint([1; 32])),
        ];
        let keys: std::collections::HashSet<Vec<u8>> = all
            .map(|principal| {
                let (principal, mut key) = (principal.build(), Vec::new());
                let query = AccessQuery::new(&principal, "read", Instants::new(0, 0));
                assert!(!write(&mut key, QueryParts::ALL, &query), "it depends on the time");
                assert!(write(&mut key, QueryParts::ALL.without(QueryParts::TIME), &query));
                key
            })
            .into();
        assert_eq!(keys.len(), 20);
    }

    /// Also where the type and the id of a thing are no part of the key.
    #[test]
    fn nothing_is_not_something_empty() {
        let alice = Principal::builder(PrincipalKind::User, "i", "alice", "jwt").build();
        let (thing, empty) = (Resource::new("", ""), Attributes::new());
        let asked = AccessQuery::new(&alice, "read", Instants::new(0, 0));
        for (parts, other) in [
            (QueryParts::RESOURCE, asked.on(&thing)),
            (QueryParts::RESOURCE_FACTS, asked.on(&thing)),
            (QueryParts::RESOURCE.and(QueryParts::RESOURCE_FACTS), asked.on(&thing)),
            (QueryParts::ATTRIBUTES, asked.with_attributes(&empty)),
        ] {
            let key = |query: &AccessQuery<'_>| {
                let mut key = Vec::new();
                assert!(write(&mut key, parts, query), "{parts}");
                key
            };
            assert_ne!(key(&asked), key(&other), "{parts}");
            assert_eq!(key(&other), key(&other), "{parts}");
        }
    }
}
