//! JSON whose objects have each member once: of two, readers would not agree which one counts (RFC 8259 §4).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// A value in which no member stands twice, at whatever depth.
#[derive(Debug)]
pub(super) struct Unique(pub(super) Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
                let mut all = Vec::new();
                while let Some(Unique(item)) = items.next_element()? {
                    all.push(item);
                }
                Ok(Unique(all.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
                let mut all = Map::new();
                while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
                    if all.insert(name, value).is_some() {
                        return Err(Error::custom("a member stands twice"));
                    }
                }
                Ok(Unique(all.into()))
            }
        }

        from.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_stands_once_at_whatever_depth() {
        for good in ["null", "true", "-1", "1", "1.5", "\"a\"", "[1,{\"a\":null}]", "{\"a\":{\"a\":1},\"b\":[]}"] {
            let read: Unique = serde_json::from_str(good).unwrap();
            assert_eq!(read.0, serde_json::from_str::<Value>(good).unwrap(), "{good}");
        }
        for bad in ["{\"a\":1,\"a\":1}", "[{\"a\":{\"b\":1,\"b\":2}}]", "{\"allow\":false,\"\\u0061llow\":true}"] {
            assert!(serde_json::from_str::<Unique>(bad).is_err(), "{bad}");
        }
    }
}
