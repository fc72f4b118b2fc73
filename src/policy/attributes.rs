use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

/// Named values of JSON types, in the order in which they were added; a name stands once. It serializes to a JSON object.
///
/// ```
/// use portcullis::policy::Attributes;
///
/// let context = Attributes::new().with("ticket", "T-7").with("urgent", true);
/// assert_eq!(context.get("urgent"), Some(&true.into()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(Cow<'static, str>, Value)>);

impl Attributes {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one. The value of a name that is there already is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.set(name.into(), value.into());
        self
    }

    pub(crate) fn set(&mut self, name: Cow<'static, str>, value: Value) {
        match self.0.iter_mut().find(|(held, _)| *held == name) {
            Some((_, held)) => *held = value,
            None => self.0.push((name, value)),
        }
    }

    #[cfg(feature = "guard")]
    pub(crate) fn into_pairs(self) -> impl Iterator<Item = (Cow<'static, str>, Value)> {
        self.0.into_iter()
    }

    /// The value of a name, compared byte for byte.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(held, _)| held == name).map(|(_, value)| value)
    }

    /// Names and values.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<Value>> FromIterator<(N, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::new(), |attributes, (name, value)| attributes.with(name, value))
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once() {
        let attributes: Attributes = [("a", 1), ("b", 2), ("a", 3)].into_iter().collect();
        assert_eq!(serde_json::to_string(&attributes).unwrap(), r#"{"a":3,"b":2}"#);
        assert!(attributes.get("A").is_none());
    }
}
