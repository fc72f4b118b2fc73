//! From text to document. Serde stops at the first mistake: what is wrong is noted, taken out, and the rest is read again.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, ValueDeserializer},
};

use crate::{config::problem::Report, near::near, strict::Strict};

/// A value and the byte of the document that it begins at.
#[derive(Clone, Debug, Default)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Strict<T>>::deserialize(deserializer)?;
        Ok(Self { at: spanned.span().start, value: spanned.into_inner().0 })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The most mistakes of form that are told.
const MAX_MISTAKES: usize = 100;

/// Reads a document, and notes each mistake of form. None if nothing of it can be read.
pub(super) fn read<T: for<'de> Deserialize<'de>>(report: &mut Report<'_>) -> Option<T> {
    let text = &report.sheet().text;
    let mut tree = match DeTable::parse(text) {
        Ok(tree) => tree,
        Err(error) => {
            let advice = format!("is not TOML: {}", error.message().trim_end());
            report.add(error.span().map(|span| span.start), "document", "the text", advice);
            return None;
        }
    };
    // Made of the whole tree, once: what is taken out changes no name.
    let mut places: Option<Vec<Place>> = None;
    for _ in 0..MAX_MISTAKES {
        let root = Spanned::new(tree.span(), DeValue::Table(tree.get_ref().clone()));
        let error = match T::deserialize(ValueDeserializer::from(root)) {
            Ok(document) => return Some(document),
            Err(error) => error,
        };
        let places = places.get_or_insert_with(|| {
            let mut places = Vec::new();
            name(tree.get_ref(), "", &mut places);
            places
        });
        let message = error.message().trim_end().to_owned();
        let span = error.span().unwrap_or(0..0);
        let place = places.iter().position(|(of, _)| *of == span).map(|place| places.remove(place).1);
        let path = place.clone().unwrap_or_default();
        // A field that was taken out is not missing.
        if !(message.starts_with("missing field") && report.took_from(&path)) {
            note(report, &message, &path, place.as_ref().map(|_| span.start));
        }
        report.take_out(place?);
        if !remove_from(tree.get_mut(), &span) {
            return None;
        }
    }
    None
}

fn note(report: &mut Report<'_>, message: &str, path: &str, at: Option<usize>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let named = quoted.next().unwrap_or_default().to_owned();
    let others: Vec<&str> = quoted.collect();
    if message.starts_with("unknown field") {
        let meant = near(&named, others.iter().copied());
        let advice = format!("is no field here{meant}; there are: {}", others.join(", "));
        report.add(at, path, format!("{named:?}"), advice);
    } else if message.starts_with("unknown variant") {
        let meant = near(&named, others.iter().copied());
        report.add(at, path, format!("{named:?}"), format!("is none of {}{meant}", others.join(", ")));
    } else if message.starts_with("missing field") {
        let field = if path.is_empty() { named.clone() } else { format!("{path}.{named}") };
        report.add(at.or(Some(0)), field, "nothing", format!("is there: add {named} = .."));
    } else if let Some((_, expected)) = message.rsplit_once(", expected ") {
        // What stands there may be a secret in the wrong place.
        let ends: &[char] = if message.starts_with("invalid type") { &['"', '`', ','] } else { &['"', ','] };
        let what = message.split(ends).next().unwrap_or_default();
        let what = what.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ").trim_end();
        let what = if what.starts_with("string") { "a text".to_owned() } else { what.to_owned() };
        // Whoever writes the document does not know the names of types.
        let expected = if expected.starts_with("struct ") { "a table" } else { expected };
        report.add(at, path, what, format!("cannot stand here: it must be {expected}"));
    } else {
        report.add(at, path, "the value", format!("is not accepted: {message}"));
    }
}

type Span = std::ops::Range<usize>;
type Place = (Span, String);

/// Names each place, what is inside before what holds it: an array of tables has the span of its first entry.
fn name(table: &DeTable<'_>, path: &str, places: &mut Vec<Place>) {
    for (key, value) in table.iter() {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        name_within(value.get_ref(), &path, places);
        places.push((value.span(), path.clone()));
        places.push((key.span(), path));
    }
}

fn name_within(value: &DeValue<'_>, path: &str, places: &mut Vec<Place>) {
    match value {
        DeValue::Table(table) => name(table, path, places),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}[{index}]");
                name_within(item.get_ref(), &path, places);
                places.push((item.span(), path));
            }
        }
        _ => {}
    }
}

/// Takes out what stands at this place, in the order in which places have names. False if there is nothing.
fn remove_from(table: &mut DeTable<'_>, span: &Span) -> bool {
    if table.iter_mut().any(|(_, value)| remove_within(value.get_mut(), span)) {
        return true;
    }
    let here = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    let key = here.map(|(key, _)| key.clone());
    key.is_some_and(|key| table.remove(&key).is_some())
}

fn remove_within(value: &mut DeValue<'_>, span: &Span) -> bool {
    match value {
        DeValue::Table(table) => remove_from(table, span),
        DeValue::Array(array) => {
            if array.iter_mut().any(|item| remove_within(item.get_mut(), span)) {
                return true;
            }
            let Some(index) = array.iter().position(|item| item.span() == *span) else { return false };
            let mut rest = DeArray::new();
            array.iter().enumerate().filter(|(at, _)| *at != index).for_each(|(_, item)| rest.push(item.clone()));
            *array = rest;
            true
        }
        _ => false,
    }
}
