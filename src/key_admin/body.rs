//! Bodies, read strictly: one JSON object, each member at most once, none that is not known.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::admin::Fault;

/// The members of an object, as they were written.
pub(super) struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    /// Reads an object with no members but these.
    pub(super) fn read(json: &'a [u8], known: &[&str]) -> Result<Self, Fault> {
        let members = Self::parse(json).map_err(|problem| problem.in_body())?;
        if let Some(name) = members.0.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Fault::member(shown(name), "There is no such member."));
        }
        Ok(members)
    }

    fn parse(json: &'a [u8]) -> Result<Self, NotAnObject> {
        let Object(written) = serde_json::from_slice(json).map_err(|_| NotAnObject::Malformed)?;
        let mut members = BTreeMap::new();
        for (name, value) in written {
            if members.contains_key(&name) {
                return Err(NotAnObject::Twice(name));
            }
            members.insert(name, value);
        }
        Ok(Self(members))
    }

    /// A member, if it is there. `expected` says what it must be, as in "must be a text".
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Fault> {
        let read = |value: &&RawValue| serde_json::from_str(value.get()).map_err(|_| mismatch(name, expected));
        self.0.get(name).map(read).transpose()
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Fault> {
        self.get(name, "a text")
    }

    pub(super) fn required_text(&self, name: &'static str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| Fault::member(name, "This member is required."))
    }

    /// A text, or `null`; the outer None is that it was left out.
    pub(super) fn text_or_null(&self, name: &'static str) -> Result<Option<Option<String>>, Fault> {
        let read = |value: &&RawValue| serde_json::from_str(value.get()).map_err(|_| mismatch(name, "a text or null"));
        self.0.get(name).map(read).transpose()
    }

    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, Fault> {
        Ok(self.get(name, "a list of texts")?.unwrap_or_default())
    }

    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<u64>, Fault> {
        self.get(name, "a whole number of seconds")
    }

    /// An object of texts.
    pub(super) fn text_map(&self, name: &'static str) -> Result<BTreeMap<String, String>, Fault> {
        let expected = "an object of texts";
        let Some(value) = self.0.get(name) else { return Ok(BTreeMap::new()) };
        let inner = Self::parse(value.get().as_bytes()).map_err(|problem| match problem {
            NotAnObject::Malformed => mismatch(name, expected),
            NotAnObject::Twice(_) => Fault::member(name, "A member stands twice in it."),
        })?;
        let text = |value: &RawValue| serde_json::from_str(value.get()).map_err(|_| mismatch(name, expected));
        inner.0.into_iter().map(|(name, value)| Ok((name, text(value)?))).collect()
    }
}

fn mismatch(name: &'static str, expected: &str) -> Fault {
    Fault::member(name, format!("This member must be {expected}."))
}

/// A name that a client chose, by its beginning.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

enum NotAnObject {
    Malformed,
    Twice(String),
}

impl NotAnObject {
    fn in_body(self) -> Fault {
        match self {
            Self::Malformed => Fault::body("The body must be one JSON object."),
            Self::Twice(name) => Fault::member(shown(&name), "This member stands twice."),
        }
    }
}

/// Each member in its order, doubles included.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> String {
        let known = ["name", "n", "metadata"];
        let read = Members::read(json.as_bytes(), &known).and_then(|members| {
            members.text("name")?;
            members.seconds("n")?;
            members.text_map("metadata").map(|_| ())
        });
        read.map_or_else(|fault| format!("{fault:?}"), |()| "fine".to_owned())
    }

    #[test]
    fn a_body_is_read_strictly() {
        for good in ["{}", r#" {"name": "x", "n": 18446744073709551615, "metadata": {"a": "b", "": ""}} "#] {
            assert_eq!(fault(good), "fine", "{good}");
        }
        for (name, json, expected) in [
            ("empty", "", "one JSON object"),
            ("a list", "[]", "one JSON object"),
            ("null", "null", "one JSON object"),
            ("two objects", "{}{}", "one JSON object"),
            ("a comma at the end", r#"{"name": "x",}"#, "one JSON object"),
            ("not UTF-8 by escape", r#"{"\ud800": 1}"#, "one JSON object"),
            ("unknown", r#"{"nmae": "x"}"#, r#"Some("nmae")"#),
            ("another case", r#"{"Name": "x"}"#, r#"Some("Name")"#),
            ("twice", r#"{"name": "x", "name": "x"}"#, "stands twice"),
            ("twice by escape", r#"{"name": "x", "\u006eame": "y"}"#, "stands twice"),
            ("a number for a text", r#"{"name": 1}"#, "must be a text"),
            ("null for a text", r#"{"name": null}"#, "must be a text"),
            ("a text for a number", r#"{"n": "1"}"#, "whole number"),
            ("a fraction", r#"{"n": 1.0}"#, "whole number"),
            ("a negative number", r#"{"n": -1}"#, "whole number"),
            ("a number too large", r#"{"n": 18446744073709551616}"#, "whole number"),
            ("a list for an object", r#"{"metadata": []}"#, "object of texts"),
            ("a number in an object of texts", r#"{"metadata": {"a": 1}}"#, "object of texts"),
            ("twice inside", r#"{"metadata": {"a": "b", "a": "b"}}"#, "twice in it"),
        ] {
            let fault = fault(json);
            assert!(fault.contains(expected), "{name}: {fault}");
            for rust in ["String", "u64", "struct", "expected", "line "] {
                assert!(
                    !fault.contains(&format!("detail: \"{rust}")) && !fault.contains(&format!("`{rust}")),
                    "{name}"
                );
            }
        }
        assert!(Members::read(b"{\"\xff\": 1}", &[]).is_err(), "not UTF-8");
    }

    #[test]
    fn deep_nesting_is_refused_where_it_stands_and_never_overflows() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        for (name, json, expected) in [
            ("for a text", format!(r#"{{"name": {deep}}}"#), "must be a text"),
            ("for a number", format!(r#"{{"n": {deep}}}"#), "whole number"),
            ("for an object", format!(r#"{{"metadata": {deep}}}"#), "object of texts"),
            ("in an object", format!(r#"{{"metadata": {{"a": {deep}}}}}"#), "object of texts"),
            ("in an unknown member", format!(r#"{{"x": {deep}}}"#), r#"Some("x")"#),
            ("for the body", deep.clone(), "one JSON object"),
            ("never closed", format!(r#"{{"name": {}"#, "[".repeat(60_000)), "one JSON object"),
        ] {
            assert!(fault(&json).contains(expected), "{name}");
        }
    }
}
