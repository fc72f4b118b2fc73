//! What a schema declares: the names of attributes, in Cedar's JSON form of schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// How deep a name of a type may lead to another one.
const MAX_DEPTH: usize = 32;

/// The namespaces of a schema, merged from its parts.
#[derive(Default)]
pub(super) struct Namespaces(Map<String, Value>);

/// Names of attributes.
pub(super) type Declared = BTreeSet<String>;

impl Namespaces {
    /// Adds the namespaces of one part. Cedar refuses a type or action that stands twice, and a namespace may stand in several.
    pub(super) fn add(&mut self, part: Value) {
        let Value::Object(namespaces) = part else { return };
        for (name, space) in namespaces {
            match (self.0.get_mut(&name), space) {
                (Some(Value::Object(known)), Value::Object(more)) => join(known, more),
                (_, space) => drop(self.0.insert(name, space)),
            }
        }
    }

    /// The same types without actions: entities are checked against it, and no action is looked at for that.
    pub(super) fn without_actions(&self) -> Value {
        let mut namespaces = self.0.clone();
        for namespace in namespaces.values_mut() {
            if let Some(actions) = namespace.get_mut("actions") {
                *actions = Value::Object(Map::new());
            }
        }
        Value::Object(namespaces)
    }

    /// The attributes of an entity type, by its full name.
    pub(super) fn of_entity(&self, full_name: &str) -> Declared {
        self.record_of(full_name).map(|(_, record)| record.keys().cloned().collect()).unwrap_or_default()
    }

    /// The full name of the entity type that an attribute of an entity type has; None if it is no entity.
    pub(super) fn entity_of(&self, full_name: &str, attribute: &str) -> Option<String> {
        let (home, record) = self.record_of(full_name)?;
        let (home, written) = self.resolved(record.get(attribute)?, home, 0)?;
        let (own, name) = split(named(written)?);
        let home = homes(own, home).into_iter().find(|home| self.names_entity(home, name))?;
        Some(if home.is_empty() { name.to_owned() } else { format!("{home}::{name}") })
    }

    fn names_entity(&self, namespace: &str, name: &str) -> bool {
        self.0.get(namespace).and_then(|space| space.get("entityTypes")?.get(name)).is_some()
    }

    fn record_of<'n>(&'n self, full_name: &'n str) -> Option<(&'n str, &'n Map<String, Value>)> {
        let (namespace, name) = split(full_name);
        let shape = self.0.get(namespace)?.get("entityTypes")?.get(name)?.get("shape")?;
        self.record(shape, namespace)
    }

    /// The attributes of the context of an action.
    pub(super) fn of_context(&self, namespace: &str, action: &str) -> Declared {
        let context = self.0.get(namespace).and_then(|space| {
            let applies = space.get("actions")?.get(action)?.get("appliesTo")?;
            applies.get("context")
        });
        let record = context.and_then(|context| self.record(context, namespace));
        record.map(|(_, record)| record.keys().cloned().collect()).unwrap_or_default()
    }

    /// The attributes of a record, and the namespace in which it is written.
    fn record<'n>(&'n self, shape: &'n Value, namespace: &'n str) -> Option<(&'n str, &'n Map<String, Value>)> {
        let (home, shape) = self.resolved(shape, namespace, 0)?;
        Some((home, shape.get("attributes")?.as_object()?))
    }

    /// What stands behind the names of common types, and the namespace in which it is written.
    fn resolved<'n>(&'n self, written: &'n Value, namespace: &'n str, depth: usize) -> Option<(&'n str, &'n Value)> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let (own, name) = split(named(written)?);
        let is_entity = written.get("type").and_then(Value::as_str) == Some("Entity");
        for home in homes(own, namespace).into_iter().filter(|_| !is_entity) {
            let space = self.0.get(home);
            if let Some(common) = space.and_then(|space| space.get("commonTypes")?.get(name)) {
                return self.resolved(common, home, depth + 1);
            }
            if self.names_entity(home, name) {
                break;
            }
        }
        Some((namespace, written))
    }
}

/// Adds types and actions to those that a namespace has already.
fn join(known: &mut Map<String, Value>, more: Map<String, Value>) {
    for (kind, named) in more {
        match (known.get_mut(&kind), named) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (_, named) => drop(known.insert(kind, named)),
        }
    }
}

/// The name of a type.
fn named(written: &Value) -> Option<&str> {
    written.get("name").or_else(|| written.get("type"))?.as_str()
}

/// Where a name is looked for: without a namespace at home first.
const fn homes<'n>(own: &'n str, namespace: &'n str) -> [&'n str; 2] {
    if own.is_empty() { [namespace, ""] } else { [own, own] }
}

/// Namespace and last name.
fn split(full_name: &str) -> (&str, &str) {
    full_name.rsplit_once("::").unwrap_or(("", full_name))
}

#[cfg(test)]
mod tests {
    use cedar_policy::SchemaFragment;

    use super::*;

    fn namespaces(text: &str) -> Namespaces {
        let mut namespaces = Namespaces::default();
        namespaces.add(SchemaFragment::from_cedarschema_str(text).unwrap().0.to_json_value().unwrap());
        namespaces
    }

    #[test]
    fn names_are_found_behind_types_that_have_names() {
        let spaces = namespaces(
            r#"
            type Person = { mail: String };
            entity User in [Role] = { mail: String, "since"?: datetime };
            entity Role;
            entity Order { owner: User, lines: Set<String> };
            action read appliesTo { principal: User, resource: Order, context: { method: String } };
            action greet appliesTo { principal: User, resource: Order, context: Person };
            action touch appliesTo { principal: User, resource: Order };
            namespace Shop {
                type Parcel = { z: Long };
                type Alias = Parcel;
                entity Here = { z: Long };
                entity There;
                action "a b" appliesTo { principal: Here, resource: There, context: Alias };
            }
            "#,
        );
        let names = |declared: Declared| declared.into_iter().collect::<Vec<_>>();
        assert_eq!(names(spaces.of_entity("User")), ["mail", "since"]);
        assert_eq!(names(spaces.of_entity("Order")), ["lines", "owner"]);
        assert_eq!(names(spaces.of_entity("Shop::Here")), ["z"]);
        assert_eq!(names(spaces.of_context("", "read")), ["method"]);
        assert_eq!(names(spaces.of_context("", "greet")), ["mail"]);
        assert_eq!(names(spaces.of_context("Shop", "a b")), ["z"]);
        assert!(spaces.of_entity("Role").is_empty() && spaces.of_context("", "touch").is_empty());
        assert!(spaces.of_entity("Nobody").is_empty());
        cedar_policy::Schema::from_json_value(spaces.without_actions()).unwrap();
    }

    #[test]
    fn entities_are_found_behind_types_that_have_names() {
        let spaces = namespaces(
            r#"
            entity User;
            entity Order { owner: User, keeper?: Shop::User, lines: Set<User>, status: String, own: { owner: User } };
            namespace Shop {
                type Owner = User;
                type Person = { name: String };
                entity User, Service;
                entity Box = { owner?: Owner, sender: Person };
            }
            namespace Yard {
                entity Car { owner: User };
            }
            "#,
        );
        for (of, attribute, expected) in [
            ("Order", "owner", Some("User")),
            ("Order", "keeper", Some("Shop::User")),
            ("Order", "lines", None),
            ("Order", "status", None),
            ("Order", "own", None),
            ("Order", "nothing", None),
            ("Shop::Box", "owner", Some("Shop::User")),
            ("Shop::Box", "sender", None),
            ("Yard::Car", "owner", Some("User")),
            ("User", "owner", None),
            ("Nobody", "owner", None),
        ] {
            assert_eq!(spaces.entity_of(of, attribute).as_deref(), expected, "{of} {attribute}");
        }
        let mut json = Namespaces::default();
        json.add(serde_json::json!({ "": {
            "commonTypes": {
                "User": { "type": "String" },
                "Parcel": { "type": "Record", "attributes": { "owner": { "type": "Entity", "name": "User" } } },
            },
            "entityTypes": { "User": {}, "Box": { "shape": { "type": "Parcel" } }, "Order": { "shape": { "type": "Record", "attributes": {
                "owner": { "type": "Entity", "name": "User" },
                "name": { "type": "User" },
            } } } },
            "actions": {},
        } }));
        assert_eq!(json.entity_of("Order", "owner").as_deref(), Some("User"), "it says that it is an entity");
        assert_eq!(json.entity_of("Box", "owner").as_deref(), Some("User"), "its shape has a name");
        assert_eq!(json.entity_of("Order", "name"), None, "a common type comes first");
    }
}
