//! As much of JSON Schema (draft 2020-12) as the schema of a configuration document uses.

use serde_json::{Map, Value};

/// Words that say nothing about what fits, or are looked at along with another one.
const NOTES: [&str; 7] = ["$schema", "$defs", "title", "description", "default", "format", "properties"];

/// Says why a value does not fit a schema, if so.
pub fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(words) = schema else {
        return if *schema == true { Ok(()) } else { Err(format!("{value} is not known")) };
    };
    members_fit(root, words, value)?;
    for (word, said) in words {
        let several = || said.as_array().into_iter().flatten();
        let count = || several().filter(|one| fits(root, one, value).is_ok()).count();
        let number = |fits: fn(f64, f64) -> bool| value.as_f64().zip(said.as_f64()).is_none_or(|(a, b)| fits(a, b));
        let is_met = match &**word {
            word if NOTES.contains(&word) => true,
            "$ref" => fits(root, referred(root, said), value).map(|()| true)?,
            "type" => is_a(said, value) || several().any(|kind| is_a(kind, value)),
            "enum" => several().any(|one| one == value),
            "anyOf" => count() > 0,
            "oneOf" => count() == 1,
            "minimum" => number(|value, least| value >= least),
            "maximum" => number(|value, most| value <= most),
            "required" => several().all(|name| value.get(name.as_str().unwrap_or_default()).is_some()),
            "items" => value.as_array().into_iter().flatten().all(|item| fits(root, said, item).is_ok()),
            "pattern" => is_like(said.as_str().unwrap_or_default(), value.as_str().unwrap_or_default()),
            "additionalProperties" => true,
            other => panic!("the schema has a word that is not read here: {other}"),
        };
        if !is_met {
            return Err(format!("{value} against {word} {said}"));
        }
    }
    Ok(())
}

fn members_fit(root: &Value, words: &Map<String, Value>, value: &Value) -> Result<(), String> {
    let (known, others) = (words.get("properties"), words.get("additionalProperties"));
    for (name, member) in value.as_object().into_iter().flatten() {
        if let Some(schema) = known.and_then(|known| known.get(name)).or(others) {
            fits(root, schema, member).map_err(|problem| format!("{name}: {problem}"))?;
        }
    }
    Ok(())
}

fn referred<'v>(root: &'v Value, name: &Value) -> &'v Value {
    name.as_str().and_then(|name| root.pointer(name.strip_prefix('#')?)).expect("it is defined")
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

/// The two patterns that the schema has: a duration, and the name of a variable.
fn is_like(pattern: &str, text: &str) -> bool {
    match pattern {
        "^[0-9]+ *(ms|s|min|h|d)$" => {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
            rest.len() < text.len() && ["ms", "s", "min", "h", "d"].contains(&rest.trim_start_matches(' '))
        }
        "^[A-Za-z_][A-Za-z0-9_]*$" => {
            let is_word = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_word && !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit())
        }
        other => panic!("the schema has a pattern that is not read here: {other}"),
    }
}
