//! Strict reading of one JSON object, without building a tree: what no reader may see in two ways is refused.
//!
//! Refused: anything but one object, bytes before or after it, members that stand twice at any depth (RFC 7515 §4, RFC 7519
//! §4), NUL in a member's name, lone surrogates, numbers out of range, and nesting below [`MAX_DEPTH`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

use crate::jwt::{Refusal, path::Branch};
use names::Names;
use pick::Pick;

/// The object itself is the first level.
pub(super) const MAX_DEPTH: u8 = 16;

/// Takes the members of the outermost object.
pub(super) trait Members<'de> {
    /// Must read the value, or [skip](Value::skip) it.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, 'de, A>) -> Result<(), A::Error>;
}

/// Reads one object. Memory is bounded by a small multiple of the text.
pub(super) fn read<'de>(text: &'de str, members: &mut impl Members<'de>, malformed: Refusal) -> Result<(), Refusal> {
    if !(text.starts_with('{') && text.ends_with('}')) {
        return Err(malformed);
    }
    let mut state = State::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Outermost { members, state: &mut state });
    match read.and_then(|()| deserializer.end()) {
        Ok(()) => Ok(()),
        Err(_) => Err(state.refusal.unwrap_or(malformed)),
    }
}

#[derive(Default)]
struct State<'de> {
    names: Names<'de>,
    /// A better reason than "malformed".
    refusal: Option<Refusal>,
}

impl<'de> State<'de> {
    fn refuse<E: serde::de::Error>(&mut self, refusal: Refusal) -> E {
        self.refusal.get_or_insert(refusal);
        E::custom("refused")
    }

    /// In line: a name that is handed on in memory is waited for.
    #[inline(always)]
    fn add_name<E: serde::de::Error>(&mut self, name: Cow<'de, str>) -> Result<(), E> {
        // Control characters only get into a string as escapes, and a string with escapes is not borrowed.
        if matches!(&name, Cow::Owned(name) if name.contains('\0')) {
            return Err(self.refuse(Refusal("NUL in a member name")));
        }
        self.names.push(name);
        Ok(())
    }

    /// Closes an object whose names begin at `first`.
    fn close<E: serde::de::Error>(&mut self, first: usize) -> Result<(), E> {
        if self.names.any_twice_from(first) {
            return Err(self.refuse(Refusal("a JSON member stands twice")));
        }
        self.names.truncate(first);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(&mut self, depth: u8) -> Result<u8, E> {
        if depth < MAX_DEPTH {
            Ok(depth.saturating_add(1))
        } else {
            Err(self.refuse(Refusal("JSON is nested too deep")))
        }
    }
}

struct Outermost<'a, 'de, M> {
    members: &'a mut M,
    state: &'a mut State<'de>,
}

impl<'de, M: Members<'de>> Visitor<'de> for Outermost<'_, 'de, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            self.members.member(&name, Value { map: &mut map, state: self.state })?;
            self.state.add_name(name)?;
        }
        self.state.close(0)
    }
}

/// The value of a member that is being read.
pub(super) struct Value<'a, 'de, A> {
    map: &'a mut A,
    state: &'a mut State<'de>,
}

impl<'de, A: MapAccess<'de>> Value<'_, 'de, A> {
    /// Refuses the object for having this member.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> A::Error {
        self.state.refuse(refusal)
    }

    /// Reads a value that must have this type.
    pub(super) fn typed<T: Deserialize<'de>>(&mut self, refusal: Refusal) -> Result<T, A::Error> {
        self.map.next_value().inspect_err(|_| {
            self.state.refusal.get_or_insert(refusal);
        })
    }

    /// Reads a value that must be a string.
    pub(super) fn text(&mut self, refusal: Refusal) -> Result<Cow<'de, str>, A::Error> {
        self.typed::<Text<'de>>(refusal).map(|Text(text)| text)
    }

    /// Reads over a value.
    pub(super) fn skip(self) -> Result<(), A::Error> {
        self.map.next_value_seed(Skip { state: self.state, depth: 1 })
    }

    /// Reads a value of any type, and keeps what the branch leads to: strings and arrays of strings as they are.
    pub(super) fn pick(self, branch: &Branch, found: &mut Vec<(usize, Shape<'de>)>) -> Result<(), A::Error> {
        self.map.next_value_seed(Pick { state: self.state, depth: 1, branch, found })
    }
}

/// A string, borrowed unless it has escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// A value of which only text is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape<'de> {
    Text(Cow<'de, str>),
    Texts(Vec<Cow<'de, str>>),
    Other,
}

impl<'de> Deserialize<'de> for Shape<'de> {
    /// For members that must be a string or an array of strings; anything else is an error.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut state = State::default();
        match (Keep { state: &mut state, depth: 1 }).deserialize(deserializer)? {
            Self::Other => Err(D::Error::custom("neither a string nor an array of strings")),
            shape => Ok(shape),
        }
    }
}

macro_rules! scalars {
    ($this:ident, $value:ty, $other:expr) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON value")
        }

        fn visit_bool<E>($this, _: bool) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_i64<E>($this, _: i64) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_u64<E>($this, _: u64) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_f64<E>($this, _: f64) -> Result<$value, E> {
            Ok($other)
        }

        fn visit_unit<E>($this) -> Result<$value, E> {
            Ok($other)
        }
    };
}

mod names;
mod pick;

/// Reads over a value at this depth, strictly.
struct Skip<'a, 'de> {
    state: &'a mut State<'de>,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Skip<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_, 'de> {
    type Value = ();

    scalars!(self, (), ());

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.state.deeper(self.depth)?;
        while seq.next_element_seed(Skip { state: self.state, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.state.deeper(self.depth)?;
        let first = self.state.names.len();
        while let Some(Text(name)) = map.next_key()? {
            self.state.add_name(name)?;
            map.next_value_seed(Skip { state: self.state, depth })?;
        }
        self.state.close(first)
    }
}

/// Reads a value at this depth, strictly, and keeps the text in it.
struct Keep<'a, 'de> {
    state: &'a mut State<'de>,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Keep<'_, 'de> {
    type Value = Shape<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep<'_, 'de> {
    type Value = Shape<'de>;

    scalars!(self, Shape<'de>, Shape::Other);

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Shape<'de>, E> {
        Ok(Shape::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape<'de>, E> {
        Ok(Shape::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape<'de>, A::Error> {
        let depth = self.state.deeper(self.depth)?;
        let (mut texts, mut only_texts) = (Vec::new(), true);
        while let Some(element) = seq.next_element_seed(Keep { state: self.state, depth })? {
            match element {
                Shape::Text(text) => texts.push(text),
                Shape::Texts(_) | Shape::Other => only_texts = false,
            }
        }
        Ok(if only_texts { Shape::Texts(texts) } else { Shape::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shape<'de>, A::Error> {
        Skip { state: self.state, depth: self.depth }.visit_map(map).map(|()| Shape::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Everything;

    impl<'de> Members<'de> for Everything {
        fn member<A: MapAccess<'de>>(&mut self, _: &str, value: Value<'_, 'de, A>) -> Result<(), A::Error> {
            value.skip()
        }
    }

    fn check(text: &str) -> Result<(), Refusal> {
        read(text, &mut Everything, Refusal("malformed"))
    }

    fn nested(levels: usize) -> String {
        format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
    }

    #[test]
    fn one_strict_object() {
        let deep = nested(usize::from(MAX_DEPTH));
        let good = [
            ("empty", "{}"),
            ("white space inside", "{ \"a\" :\r\n 1 }"),
            ("the same name in two objects", r#"{"a":{"b":1},"c":{"b":1},"b":[{"a":1},{"a":1}]}"#),
            ("all types", r#"{"a":null,"b":true,"c":-1.5e3,"d":"\u00e9\n","e":[],"f":{}}"#),
            ("a number out of u64", r#"{"a":99999999999999999999999999}"#),
            ("as deep as can be", &deep),
        ];
        for (name, text) in good {
            assert_eq!(check(text), Ok(()), "{name}");
        }

        let too_deep = nested(usize::from(MAX_DEPTH) + 1);
        let bomb = nested(8_000);
        let object_bomb = format!("{}}}", r#"{"a":"#.repeat(2_000));
        let bad = [
            ("nothing", "", "malformed"),
            ("an array", "[]", "malformed"),
            ("a string", r#""{}""#, "malformed"),
            ("a byte order mark", "\u{feff}{}", "malformed"),
            ("white space before", " {}", "malformed"),
            ("white space after", "{}\n", "malformed"),
            ("two objects", "{}{}", "malformed"),
            ("a comma too many", r#"{"a":1,}"#, "malformed"),
            ("a comment", "{/**/}", "malformed"),
            ("not a number", r#"{"a":NaN}"#, "malformed"),
            ("an infinite number", r#"{"a":1e999}"#, "malformed"),
            ("a leading zero", r#"{"a":01}"#, "malformed"),
            ("a lone surrogate", r#"{"a":"\ud800"}"#, "malformed"),
            ("a lone surrogate in a name", r#"{"\udfff":1}"#, "malformed"),
            ("a control character", "{\"a\":\"\n\"}", "malformed"),
            ("cut off", r#"{"a":{}"#, "malformed"),
            ("NUL in a name", r#"{"a\u0000":1}"#, "NUL in a member name"),
            ("NUL in a name further in", r#"{"a":{"\u0000":1}}"#, "NUL in a member name"),
            ("twice", r#"{"a":1,"b":2,"a":1}"#, "a JSON member stands twice"),
            ("twice, once with an escape", r#"{"a":1,"\u0061":1}"#, "a JSON member stands twice"),
            ("twice further in", r#"{"a":[{"b":{"c":1,"c":1}}]}"#, "a JSON member stands twice"),
            ("too deep", &too_deep, "JSON is nested too deep"),
            ("a depth bomb", &bomb, "JSON is nested too deep"),
            ("a depth bomb of objects", &object_bomb, "JSON is nested too deep"),
        ];
        for (name, text, refusal) in bad {
            assert_eq!(check(text), Err(Refusal(refusal)), "{name}");
        }
    }

    #[test]
    fn shapes() {
        let shape = |text: &'static str| serde_json::from_str::<Shape<'static>>(text).ok();
        assert_eq!(shape(r#""a""#), Some(Shape::Text("a".into())));
        assert_eq!(shape(r#"["a","\u0062"]"#), Some(Shape::Texts(vec!["a".into(), "b".into()])));
        assert_eq!(shape("[]"), Some(Shape::Texts(vec![])));
        for text in ["1", "null", "[1]", r#"["a",["b"]]"#, "{}"] {
            assert_eq!(shape(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:0-9a-e\\\\u ]{0,200}") {
            let _ = check(&text);
        }

        #[test]
        fn what_passes_is_what_serde_json_reads(text in "\\{(\"[ab]\":[0-9],){0,3}\"[ab]\":1\\}") {
            let members = text.matches(':').count();
            let distinct = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).unwrap().len();
            prop_assert_eq!(check(&text).is_ok(), members == distinct);
        }
    }
}
