//! What `serde_json` reads, less what is refused besides: the other opinion that tests ask for.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use super::MAX_DEPTH;

/// A value of which only text is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
    Other,
}

/// The members of one strict object.
pub(super) fn read(text: &str) -> Option<Vec<(String, Tree)>> {
    if !(text.starts_with('{') && text.ends_with('}')) {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let tree = At(1).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match tree {
        Tree::Object(members) => Some(members),
        Tree::Text(_) | Tree::List(_) | Tree::Other => None,
    }
}

/// A NumericDate as `serde_json` reads numbers.
pub(super) fn date(text: &str) -> Option<f64> {
    f64::deserialize(&mut serde_json::Deserializer::from_str(text))
        .ok()
        .filter(|date| (0.0..=9_999_999_999.0).contains(date))
}

/// The level that an object or array here would be.
struct At(u8);

impl<'de> DeserializeSeed<'de> for At {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(Self(self.0 + 1))? {
            list.push(element);
        }
        if self.0 > MAX_DEPTH { Err(A::Error::custom("too deep")) } else { Ok(Tree::List(list)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members: Vec<(String, Tree)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.contains('\0') || members.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a bad name"));
            }
            members.push((name, map.next_value_seed(Self(self.0 + 1))?));
        }
        if self.0 > MAX_DEPTH { Err(A::Error::custom("too deep")) } else { Ok(Tree::Object(members)) }
    }
}
