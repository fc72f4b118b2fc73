//! From text to document. Serde stops at the first mistake: what is wrong is noted, taken out, and the rest is read again.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, ValueDeserializer},
};

use crate::{config::problem::Report, near::near};

/// A value and the byte of the document that it begins at.
#[derive(Clone, Debug, Default)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { at: spanned.span().start, value: spanned.into_inner() })
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
    let mut thinned: Vec<String> = Vec::new();
    for _ in 0..MAX_MISTAKES {
        let root = Spanned::new(tree.span(), DeValue::Table(tree.get_ref().clone()));
        let error = match T::deserialize(ValueDeserializer::from(root)) {
            Ok(document) => return Some(document),
            Err(error) => error,
        };
        let message = error.message().trim_end().to_owned();
        let span = error.span().unwrap_or(0..0);
        let removed = remove_from(tree.get_mut(), &span, "");
        let path = removed.clone().unwrap_or_default();
        // A field that was taken out is not missing.
        let known_already = message.starts_with("missing field") && thinned.iter().any(|gone| gone.starts_with(&path));
        if !known_already {
            note(report, &message, &path, removed.as_ref().map(|_| span.start));
        }
        let removed = removed?;
        report.take_out(removed.clone());
        thinned.push(removed);
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
        report.add(at, path, what, format!("cannot stand here: it must be {expected}"));
    } else {
        report.add(at, path, "the value", format!("is not accepted: {message}"));
    }
}

type Span = std::ops::Range<usize>;

/// Takes out what stands at this place, and says what it was called.
fn remove_from(table: &mut DeTable<'_>, span: &Span, path: &str) -> Option<String> {
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let named = |key: &Spanned<Cow<'_, str>>| key.get_ref().to_string();
    let here = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    if let Some((key, _)) = here {
        let key = key.clone();
        table.remove(&key);
        return Some(within(&named(&key)));
    }
    for (key, value) in table.iter_mut() {
        let path = within(&named(key));
        if let Some(removed) = remove_within(value.get_mut(), span, &path) {
            return Some(removed);
        }
    }
    None
}

fn remove_within(value: &mut DeValue<'_>, span: &Span, path: &str) -> Option<String> {
    match value {
        DeValue::Table(table) => remove_from(table, span, path),
        DeValue::Array(array) => {
            if let Some(index) = array.iter().position(|item| item.span() == *span) {
                let mut rest = DeArray::new();
                array.iter().enumerate().filter(|(at, _)| *at != index).for_each(|(_, item)| rest.push(item.clone()));
                *array = rest;
                return Some(format!("{path}[{index}]"));
            }
            let mut items = array.iter_mut().enumerate();
            items.find_map(|(index, item)| remove_within(item.get_mut(), span, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}
