//! The question as Rego's input document.

use std::{collections::BTreeMap, sync::LazyLock};

use regorus::Value;

use crate::{
    policy::{AccessQuery, Attributes, QueryParts, Resource},
    principal::{Principal, Texts},
};

/// A principal's claims do not parse.
pub(super) struct BadClaims(pub(super) serde_json::Error);

macro_rules! words {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// The names of the document's fields: made once, a reference count for each question.
        struct Words { $($name: Value),* }
        static WORDS: LazyLock<Words> = LazyLock::new(|| Words { $($name: Value::from($text)),* });
    };
}

words! {
    acr = "acr", action = "action", address = "address", amr = "amr", attributes = "attributes", auth_time = "auth_time",
    claims = "claims", client = "client", credential = "credential", expires_at = "expires_at", id = "id", issuer = "issuer",
    kind = "kind", method = "method", owner = "owner", permissions = "permissions", plan = "plan", resource = "resource",
    roles = "roles", route = "route", scopes = "scopes", subject = "subject", tenant = "tenant", time = "time",
    time_ns = "time_ns", r#type = "type",
}

/// An object under construction. What is absent is left out, so that Rego finds it undefined.
#[derive(Default)]
struct Fields(BTreeMap<Value, Value>);

impl Fields {
    fn put(&mut self, name: &Value, value: impl Into<Value>) {
        self.0.insert(name.clone(), value.into());
    }

    fn put_some(&mut self, name: &Value, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn put_all(&mut self, name: &Value, texts: Texts<'_>) {
        self.put(name, texts.map(Value::from).collect::<Vec<_>>());
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::from(fields.0)
    }
}

/// Only the parts that the policy reads are in it.
pub(super) fn document(query: &AccessQuery<'_>, parts: QueryParts) -> Result<Value, BadClaims> {
    let words = &*WORDS;
    let mut input = Fields::default();
    input.put(&words.action, query.action());
    input.put(&words.subject, principal(query.subject(), parts)?);
    if parts.has(QueryParts::CLIENT)
        && let Some(client) = query.client()
    {
        input.put(&words.client, principal(client, QueryParts::ALL)?);
    }
    if let Some(thing) = query.resource()
        && (parts.has(QueryParts::RESOURCE) || parts.has(QueryParts::RESOURCE_FACTS))
    {
        input.put(&words.resource, resource(thing, parts));
    }
    if parts.has(QueryParts::ATTRIBUTES)
        && let Some(given) = query.attributes()
    {
        input.put(&words.attributes, attributes(given));
    }
    if parts.has(QueryParts::METHOD) {
        input.put_some(&words.method, query.method());
    }
    if parts.has(QueryParts::ROUTE) {
        input.put_some(&words.route, query.route());
    }
    if parts.has(QueryParts::ADDRESS) {
        input.put_some(&words.address, query.address().map(|address| address.to_string()));
    }
    if parts.has(QueryParts::TIME) {
        input.put(&words.time, query.at().unix_seconds());
        input.put(&words.time_ns, query.at().unix_nanos());
    }
    Ok(input.into())
}

fn principal(principal: &Principal, parts: QueryParts) -> Result<Value, BadClaims> {
    let words = &*WORDS;
    let mut fields = Fields::default();
    if parts.has(QueryParts::SUBJECT) {
        fields.put(&words.issuer, principal.issuer());
        fields.put(&words.id, principal.subject());
    }
    if parts.has(QueryParts::ROLES) {
        fields.put_all(&words.roles, principal.roles());
    }
    if parts.has(QueryParts::SCOPES) {
        fields.put_all(&words.scopes, principal.scopes());
    }
    if parts.has(QueryParts::PERMISSIONS) {
        fields.put_all(&words.permissions, principal.permissions());
    }
    if parts.has(QueryParts::TENANT) {
        fields.put_some(&words.tenant, principal.tenant());
    }
    if parts.has(QueryParts::STRENGTH) {
        fields.put_some(&words.acr, principal.acr());
        fields.put_all(&words.amr, principal.methods());
        fields.put_some(&words.auth_time, principal.auth_time());
    }
    if parts.has(QueryParts::CLAIMS) {
        fields.put(&words.kind, principal.kind().as_str());
        fields.put(&words.credential, principal.credential());
        fields.put_some(&words.plan, principal.plan());
        fields.put_some(&words.expires_at, principal.expires_at());
        if principal.has_claims() {
            // Kept with the principal, so that a token is read once and not at each question.
            let claims = principal.claims_shared::<serde_json::Value>().map_err(BadClaims)?;
            fields.put(&words.claims, Value::from((*claims).clone()));
        }
    }
    Ok(fields.into())
}

fn resource(resource: &Resource, parts: QueryParts) -> Value {
    let words = &*WORDS;
    let mut fields = Fields::default();
    if parts.has(QueryParts::RESOURCE) {
        fields.put(&words.r#type, resource.kind());
        fields.put(&words.id, resource.id());
    }
    if parts.has(QueryParts::RESOURCE_FACTS) {
        fields.put_some(&words.tenant, resource.tenant());
        if let Some((issuer, id)) = resource.owner() {
            let mut owner = Fields::default();
            owner.put(&words.issuer, issuer);
            owner.put(&words.id, id);
            fields.put(&words.owner, owner);
        }
        fields.put(&words.attributes, attributes(resource.attributes()));
    }
    fields.into()
}

fn attributes(attributes: &Attributes) -> Value {
    let fields: BTreeMap<Value, Value> =
        attributes.iter().map(|(name, value)| (Value::from(name), Value::from(value.clone()))).collect();
    Value::from(fields)
}
