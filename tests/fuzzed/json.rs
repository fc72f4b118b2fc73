//! A second reader of JSON.

use serde_json::Value;

/// What a text says; none if it is no JSON, or a member stands twice in one of its objects.
pub fn once(text: &[u8]) -> Option<Value> {
    let value = serde_json::from_slice(text).ok()?;
    // Of two members with one name only one is kept, and each has a colon outside of texts.
    let (mut colons, mut in_text, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b':' if !in_text => colons += 1,
            _ => {}
        }
    }
    (members(&value) == colons).then_some(value)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(all) => all.values().map(|value| 1 + members(value)).sum(),
        _ => 0,
    }
}
