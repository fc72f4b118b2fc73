//! The question as JSON, in the fields that Rego's input has.

use serde_json::{Map, Value};

use crate::{
    policy::{AccessQuery, Attributes, QueryParts, Resource},
    principal::{Principal, Texts},
};

pub(super) type Fields = Map<String, Value>;

/// A principal's claims do not parse.
pub(super) fn bad_claims(error: &serde_json::Error) -> String {
    format!("the claims of a principal do not parse: {error}")
}

fn put(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    fields.insert(name.to_owned(), value.into());
}

/// What is absent is left out.
fn put_some(fields: &mut Fields, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(fields, name, value);
    }
}

fn put_all(fields: &mut Fields, name: &str, texts: Texts<'_>) {
    put(fields, name, texts.map(Value::from).collect::<Vec<_>>());
}

/// The input document that the local `Rego` gives to the same policy. Only the parts that the policy reads are in it.
pub(super) fn input(query: &AccessQuery<'_>, parts: QueryParts) -> Result<Value, String> {
    let mut input = circumstances(query, parts)?;
    put(&mut input, "action", query.action());
    put(&mut input, "subject", principal(query.subject(), parts)?);
    if let Some(thing) = query.resource()
        && (parts.has(QueryParts::RESOURCE) || parts.has(QueryParts::RESOURCE_FACTS))
    {
        let mut fields = resource(thing, parts);
        if parts.has(QueryParts::RESOURCE_FACTS) {
            put(&mut fields, "attributes", attributes(thing.attributes()));
        }
        put(&mut input, "resource", fields);
    }
    if parts.has(QueryParts::ATTRIBUTES)
        && let Some(given) = query.attributes()
    {
        put(&mut input, "attributes", attributes(given));
    }
    Ok(input.into())
}

/// Everything but subject, action, resource and attributes.
pub(super) fn circumstances(query: &AccessQuery<'_>, parts: QueryParts) -> Result<Fields, String> {
    let mut fields = Fields::new();
    if parts.has(QueryParts::CLIENT)
        && let Some(client) = query.client()
    {
        put(&mut fields, "client", principal(client, QueryParts::ALL)?);
    }
    if parts.has(QueryParts::METHOD) {
        put_some(&mut fields, "method", query.method());
    }
    if parts.has(QueryParts::ROUTE) {
        put_some(&mut fields, "route", query.route());
    }
    if parts.has(QueryParts::ADDRESS) {
        put_some(&mut fields, "address", query.address().map(|address| address.to_string()));
    }
    if parts.has(QueryParts::TIME) {
        put(&mut fields, "time", query.at().unix_seconds());
        put(&mut fields, "time_ns", query.at().unix_nanos());
    }
    Ok(fields)
}

pub(super) fn principal(principal: &Principal, parts: QueryParts) -> Result<Fields, String> {
    let mut fields = Fields::new();
    if parts.has(QueryParts::SUBJECT) {
        put(&mut fields, "issuer", principal.issuer());
        put(&mut fields, "id", principal.subject());
    }
    if parts.has(QueryParts::ROLES) {
        put_all(&mut fields, "roles", principal.roles());
    }
    if parts.has(QueryParts::SCOPES) {
        put_all(&mut fields, "scopes", principal.scopes());
    }
    if parts.has(QueryParts::PERMISSIONS) {
        put_all(&mut fields, "permissions", principal.permissions());
    }
    if parts.has(QueryParts::TENANT) {
        put_some(&mut fields, "tenant", principal.tenant());
    }
    if parts.has(QueryParts::STRENGTH) {
        put_some(&mut fields, "acr", principal.acr());
        put_all(&mut fields, "amr", principal.methods());
        put_some(&mut fields, "auth_time", principal.auth_time());
    }
    if parts.has(QueryParts::CLAIMS) {
        put(&mut fields, "kind", principal.kind().as_str());
        put(&mut fields, "credential", principal.credential());
        put_some(&mut fields, "plan", principal.plan());
        put_some(&mut fields, "expires_at", principal.expires_at());
        if principal.has_claims() {
            // Kept with the principal, so that a token is read once and not at each question.
            let claims = principal.claims_shared::<Value>().map_err(|error| bad_claims(&error))?;
            put(&mut fields, "claims", (*claims).clone());
        }
    }
    Ok(fields)
}

/// Without its attributes.
pub(super) fn resource(resource: &Resource, parts: QueryParts) -> Fields {
    let mut fields = Fields::new();
    if parts.has(QueryParts::RESOURCE) {
        put(&mut fields, "type", resource.kind());
        put(&mut fields, "id", resource.id());
    }
    if parts.has(QueryParts::RESOURCE_FACTS) {
        put_some(&mut fields, "tenant", resource.tenant());
        if let Some((issuer, id)) = resource.owner() {
            let mut owner = Fields::new();
            put(&mut owner, "issuer", issuer);
            put(&mut owner, "id", id);
            put(&mut fields, "owner", owner);
        }
    }
    fields
}

pub(super) fn attributes(attributes: &Attributes) -> Fields {
    attributes.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
}
