//! How a question becomes Cedar's: types, ids, and the attributes that the schema declares.

use std::{collections::HashMap, str::FromStr};

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    error::ConfigError,
    policy::{
        AccessQuery, QueryParts, Resource,
        cedar::{
            builder::Settings,
            compiled::differ,
            shape::{Declared, Namespaces},
        },
    },
    principal::{Principal, PrincipalKind},
};

/// What a principal is in Cedar.
pub(super) struct PrincipalType {
    pub(super) name: EntityTypeName,
    pub(super) declared: Declared,
    /// The type of its roles, if it can be in one.
    pub(super) roles: Option<EntityTypeName>,
}

pub(super) struct ResourceType {
    pub(super) name: EntityTypeName,
    pub(super) declared: Declared,
    /// What its `owner` is.
    owner: Option<EntityTypeName>,
    /// Whether `owner` is declared as that, and not as a text or an entity of another kind.
    owned: bool,
}

pub(super) struct Action {
    pub(super) uid: EntityUid,
    pub(super) context: Declared,
}

pub(super) struct Mapping {
    principals: HashMap<&'static str, PrincipalType>,
    resources: HashMap<String, ResourceType>,
    actions: HashMap<String, Action>,
    /// What questions without a resource are about.
    pub(super) no_resource: Option<EntityUid>,
    issuer: Option<String>,
    pub(super) parts: QueryParts,
}

const KINDS: [PrincipalKind; 3] = [PrincipalKind::User, PrincipalKind::Service, PrincipalKind::Key];

impl Mapping {
    pub(super) fn new(settings: &Settings, schema: &Schema, namespaces: &Namespaces) -> Result<Self, ConfigError> {
        let types: HashMap<String, &EntityTypeName> =
            schema.entity_types().map(|name| (name.to_string(), name)).collect();
        let full = |name: &str| settings.full_name(name);
        let known = |setting: &str, name: &str| {
            let unknown =
                || ConfigError::new(setting.to_owned(), format!("{name:?}"), "is no entity type of the schema");
            types.get(name).copied().cloned().ok_or_else(unknown)
        };

        let role = match &settings.role_type {
            Some(name) => Some(known("role type", &full(name))?),
            None => types.get(&full("Role")).copied().cloned(),
        };
        let mut principals = HashMap::new();
        for kind in KINDS {
            let name = match settings.principal_types.get(kind.as_str()) {
                Some(name) => known("principal type", &full(name))?,
                None => match types.get(&full(default_type(kind))) {
                    Some(name) => (*name).clone(),
                    None => continue,
                },
            };
            let roles = role.clone().filter(|role| within(schema, &name, role));
            let declared = namespaces.of_entity(&name.to_string());
            principals.insert(kind.as_str(), PrincipalType { name, declared, roles });
        }
        if principals.is_empty() {
            let tried = format!("{:?}", full(default_type(PrincipalKind::User)));
            return Err(ConfigError::new(
                "principal type",
                tried,
                "is no entity type of the schema, and none is named",
            ));
        }

        // The type that `owner` is declared as, if principals have it; else the first that there is, which then has to fit.
        let owner_of = |own: &str| {
            let named = namespaces.entity_of(own, "owner");
            let named = principals.values().find(|of| Some(of.name.to_string()) == named);
            let owner = named.or_else(|| KINDS.iter().find_map(|kind| principals.get(kind.as_str())));
            (owner.map(|of| of.name.clone()), named.is_some())
        };
        let resource = |name: &EntityTypeName| {
            let own = name.to_string();
            let declared = namespaces.of_entity(&own);
            let (owner, owned) = owner_of(&own);
            ResourceType { name: name.clone(), declared, owner, owned }
        };
        let mut resources = HashMap::new();
        for name in types.values() {
            let own = name.to_string();
            if let Some(short) = settings.short_name(&own) {
                // `order` is `Order` where no type is called `order`.
                let mut lower = short.to_owned();
                lower.get_mut(..1).into_iter().for_each(str::make_ascii_lowercase);
                if !types.contains_key(&full(&lower)) {
                    resources.insert(lower, resource(name));
                }
                resources.insert(short.to_owned(), resource(name));
            }
            resources.insert(own, resource(name));
        }
        for (kind, name) in &settings.resource_types {
            let name = known("resource type", &full(name))?;
            resources.insert(kind.clone(), resource(&name));
        }
        let no_resource = match &settings.no_resource {
            Some((name, id)) => {
                Some(EntityUid::from_type_name_and_id(known("type of no resource", &full(name))?, EntityId::new(id)))
            }
            None => None,
        };

        let mut actions = HashMap::new();
        for uid in schema.actions() {
            let namespace = uid.type_name().namespace();
            if namespace != settings.namespace.as_deref().unwrap_or_default() {
                continue;
            }
            let id = uid.id().unescaped().to_owned();
            let context = namespaces.of_context(&namespace, &id);
            actions.insert(id, Action { uid: uid.clone(), context });
        }
        if actions.is_empty() {
            let namespace = settings.namespace.as_deref().unwrap_or("none");
            return Err(ConfigError::new("namespace", namespace, "has no action in the schema"));
        }
        let mut mapping = Self {
            principals,
            resources,
            actions,
            no_resource,
            issuer: settings.issuer.clone(),
            parts: QueryParts::NONE,
        };
        mapping.parts = mapping.read_parts();
        Ok(mapping)
    }

    pub(super) fn principal_type(&self, kind: PrincipalKind) -> Option<&PrincipalType> {
        self.principals.get(kind.as_str())
    }

    pub(super) fn resource_type(&self, kind: &str) -> Option<&ResourceType> {
        self.resources.get(kind)
    }

    pub(super) fn action(&self, id: &str) -> Option<&Action> {
        self.actions.get(id)
    }

    /// A principal's entity: it is known by issuer and subject together (RFC 8725 §3.8).
    pub(super) fn principal_uid(&self, name: &EntityTypeName, issuer: &str, subject: &str) -> Option<EntityUid> {
        let id = match &self.issuer {
            Some(own) if own == issuer => EntityId::new(subject),
            Some(_) => return None,
            None => EntityId::new(qualified(issuer, subject)),
        };
        Some(EntityUid::from_type_name_and_id(name.clone(), id))
    }

    /// What a credential says of its principal, as far as the schema declares it.
    pub(super) fn principal_attributes(
        &self,
        of: &PrincipalType,
        principal: &Principal,
    ) -> Result<Map<String, Value>, serde_json::Error> {
        let mut attributes = Map::new();
        for name in &of.declared {
            let value = match name.as_str() {
                "issuer" => principal.issuer().into(),
                "subject" => principal.subject().into(),
                "kind" => principal.kind().as_str().into(),
                "credential" => principal.credential().into(),
                "tenant" => principal.tenant().into(),
                "plan" => principal.plan().into(),
                "roles" => principal.roles().collect::<Vec<_>>().into(),
                "scopes" => principal.scopes().collect::<Vec<_>>().into(),
                "permissions" => principal.permissions().collect::<Vec<_>>().into(),
                "acr" => principal.acr().into(),
                "amr" => principal.methods().collect::<Vec<_>>().into(),
                "auth_time" => principal.auth_time().into(),
                other if principal.has_claims() => {
                    let claims = principal.claims_shared::<Value>()?;
                    claims.get(other).cloned().unwrap_or_default()
                }
                _ => Value::Null,
            };
            put(&mut attributes, name, value);
        }
        Ok(attributes)
    }

    /// What the question says of its thing, as far as the schema declares it. The error is an owner that has no entity (left
    /// out, the thing would be nobody's, or that of whom a file names), or an attribute that pretends to be owner or tenant.
    pub(super) fn resource_attributes(
        &self,
        of: &ResourceType,
        resource: &Resource,
    ) -> Result<Map<String, Value>, String> {
        let mut attributes = Map::new();
        for name in &of.declared {
            let given = resource.attribute(name).filter(|given| !given.is_null());
            let value = match (given, name.as_str()) {
                // Where it is declared as something else, the thing's own does not fit, and the attribute is what is meant.
                (Some(given), "tenant") if given.is_string() => whose(name, resource.tenant().into(), given)?,
                (Some(given), "owner") if of.owned => whose(name, self.owner(of, resource)?, given)?,
                (Some(given), _) => given.clone(),
                (None, "tenant") => resource.tenant().into(),
                (None, "owner") => self.owner(of, resource)?,
                (None, _) => Value::Null,
            };
            put(&mut attributes, name, value);
        }
        Ok(attributes)
    }

    fn owner(&self, of: &ResourceType, resource: &Resource) -> Result<Value, String> {
        let Some((issuer, subject)) = resource.owner() else { return Ok(Value::Null) };
        let uid = of.owner.as_ref().and_then(|name| self.principal_uid(name, issuer, subject));
        uid.map(|uid| reference(&uid)).ok_or_else(|| "the owner is of another issuer".to_owned())
    }

    /// The circumstances, as far as the schema declares them for the action.
    pub(super) fn context(&self, action: &Action, query: &AccessQuery<'_>) -> Map<String, Value> {
        let mut context = Map::new();
        for name in &action.context {
            let subject = query.subject();
            let value = match name.as_str() {
                "method" => query.method().into(),
                "route" => query.route().into(),
                "address" => query.address().map(|address| address.to_string()).into(),
                "time" => datetime(query.at().unix_seconds()).into(),
                "unix_time" => query.at().unix_seconds().into(),
                "acr" => subject.acr().into(),
                "amr" => subject.methods().collect::<Vec<_>>().into(),
                "auth_time" => subject.auth_time().into(),
                "scopes" => subject.scopes().collect::<Vec<_>>().into(),
                "client" => query.client().map(|client| qualified(client.issuer(), client.subject())).into(),
                other => query.attribute(other).cloned().unwrap_or_default(),
            };
            put(&mut context, name, value);
        }
        context
    }

    fn read_parts(&self) -> QueryParts {
        // The kind of a principal, which is among what its credential says, is its type.
        let mut parts = QueryParts::SUBJECT.and(QueryParts::CLAIMS).and(QueryParts::RESOURCE);
        for of in self.principals.values() {
            if of.roles.is_some() {
                parts = parts.and(QueryParts::ROLES);
            }
            for name in &of.declared {
                parts = parts.and(match name.as_str() {
                    "tenant" => QueryParts::TENANT,
                    "roles" => QueryParts::ROLES,
                    "scopes" => QueryParts::SCOPES,
                    "permissions" => QueryParts::PERMISSIONS,
                    "acr" | "amr" | "auth_time" => QueryParts::STRENGTH,
                    _ => QueryParts::CLAIMS,
                });
            }
        }
        if self.resources.values().any(|of| !of.declared.is_empty()) {
            parts = parts.and(QueryParts::RESOURCE_FACTS);
        }
        for name in self.actions.values().flat_map(|action| &action.context) {
            parts = parts.and(match name.as_str() {
                "method" => QueryParts::METHOD,
                "route" => QueryParts::ROUTE,
                "address" => QueryParts::ADDRESS,
                "time" | "unix_time" => QueryParts::TIME,
                "acr" | "amr" | "auth_time" => QueryParts::STRENGTH,
                "scopes" => QueryParts::SCOPES,
                "client" => QueryParts::CLIENT,
                _ => QueryParts::ATTRIBUTES,
            });
        }
        parts
    }
}

/// Whose the thing is, beside an attribute that says it, too. Attributes may be the word of a client.
fn whose(name: &str, own: Value, given: &Value) -> Result<Value, String> {
    if own.is_null() {
        return Ok(given.clone());
    }
    if differ(Some(&own), Some(given)) {
        return Err(format!("the thing has another {name} than its attribute of that name says"));
    }
    Ok(own)
}

/// The first `#` ends the issuer, so that no two principals share a name.
fn qualified(issuer: &str, subject: &str) -> String {
    format!("{}#{subject}", issuer.replace('%', "%25").replace('#', "%23"))
}

const fn default_type(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "User",
        PrincipalKind::Service => "Service",
        PrincipalKind::Key => "Key",
    }
}

/// Whether entities of one type may be in one of the other.
fn within(schema: &Schema, name: &EntityTypeName, group: &EntityTypeName) -> bool {
    schema.ancestors(name).is_some_and(|mut ancestors| ancestors.any(|ancestor| ancestor == group))
}

/// What is not known is left out; Cedar has no null.
fn put(attributes: &mut Map<String, Value>, name: &str, value: Value) {
    if !value.is_null() {
        attributes.insert(name.to_owned(), value);
    }
}

/// An entity as a value of an attribute.
pub(super) fn reference(uid: &EntityUid) -> Value {
    json!({ "type": uid.type_name().to_string(), "id": uid.id().unescaped() })
}

/// In the form that Cedar's `datetime` reads.
fn datetime(unix_seconds: u64) -> Option<String> {
    let time = Timestamp::from_second(i64::try_from(unix_seconds).ok()?).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(super) fn uid_of(kind: &str, id: &str) -> Result<EntityUid, String> {
    let name = EntityTypeName::from_str(kind).map_err(|_| format!("{kind:?} is no name of an entity type"))?;
    Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
}
