//! Structs are read from tables alone: serde reads one from a list as well, value by value for field by field.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

/// A value that is no struct from a list. What is inside of it says so for itself.
pub(crate) struct Strict<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Read(PhantomData)).map(Self)
    }
}

/// For a field that is told as its own type.
pub(crate) fn optional<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::<Strict<T>>::deserialize(from).map(|value| value.map(|Strict(value)| value))
}

struct Read<T>(PhantomData<T>);

macro_rules! scalars {
    ($($visit:ident($type:ty);)*) => {$(
        fn $visit<E: Error>(self, value: $type) -> Result<T, E> {
            T::deserialize(value.into_deserializer())
        }
    )*};
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars! {
        visit_bool(bool);
        visit_i64(i64);
        visit_i128(i128);
        visit_u64(u64);
        visit_u128(u128);
        visit_f64(f64);
        visit_str(&str);
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        T::deserialize(().into_deserializer())
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(table))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::deserialize(List(list))
    }
}

struct List<A>(A);

impl<'de, A: SeqAccess<'de>> Deserializer<'de> for List<A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_seq(self.0)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Seq, &"a table"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        one: u8,
        other: Option<String>,
    }

    #[test]
    fn a_list_is_no_struct() {
        fn read<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, String> {
            serde_json::from_str(json).map(|Strict(value)| value).map_err(|error| error.to_string())
        }
        let pair = Pair { one: 1, other: Some("a".to_owned()) };
        assert_eq!(read(r#"{"one":1,"other":"a"}"#), Ok(pair));
        let error = read::<Pair>(r#"[1,"a"]"#).unwrap_err();
        assert!(error.starts_with("invalid type: sequence, expected a table"), "{error}");
        assert_eq!(read("[1,2]"), Ok(vec![1, 2]));
        assert_eq!((read("true"), read("-1"), read("1.5")), (Ok(true), Ok(-1), Ok(1.5)));
        assert_eq!((read("\"a\""), read("null")), (Ok("a".to_owned()), Ok(())));
        assert!(read::<u8>("300").unwrap_err().contains("300"));
    }
}
