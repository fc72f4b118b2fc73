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
    /// Adds the namespaces of one part. A namespace stands in one part alone; Cedar has checked that.
    pub(super) fn add(&mut self, part: Value) {
        if let Value::Object(namespaces) = part {
            self.0.extend(namespaces);
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
        let (namespace, name) = split(full_name);
        let shape = self.0.get(namespace).and_then(|space| space.get("entityTypes")?.get(name)?.get("shape"));
        shape.map(|shape| self.names(shape, namespace, 0)).unwrap_or_default()
    }

    /// The attributes of the context of an action.
    pub(super) fn of_context(&self, namespace: &str, action: &str) -> Declared {
        let context = self.0.get(namespace).and_then(|space| {
            let applies = space.get("actions")?.get(action)?.get("appliesTo")?;
            applies.get("context")
        });
        context.map(|context| self.names(context, namespace, 0)).unwrap_or_default()
    }

    fn names(&self, shape: &Value, namespace: &str, depth: usize) -> Declared {
        let kind = shape.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind == "Record" {
            let attributes = shape.get("attributes").and_then(Value::as_object);
            return attributes.map(|attributes| attributes.keys().cloned().collect()).unwrap_or_default();
        }
        let named = shape.get("name").and_then(Value::as_str).unwrap_or(kind);
        if depth >= MAX_DEPTH {
            return Declared::new();
        }
        let (own, name) = split(named);
        // A name without a namespace is looked for at home first.
        let homes = if own.is_empty() { [namespace, ""] } else { [own, own] };
        homes
            .into_iter()
            .find_map(|home| Some((home, self.0.get(home)?.get("commonTypes")?.get(name)?)))
            .map(|(home, shape)| self.names(shape, home, depth + 1))
            .unwrap_or_default()
    }
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
}
