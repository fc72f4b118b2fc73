//! What is printed: a table for people, objects for programs.

use portcullis::api_key::{Hit, KeyStatus, KeyView};
use serde_json::Value;

/// A moment as people read it.
pub(crate) fn time(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| unix_seconds.to_string(), |time| time.to_string())
}

pub(crate) fn end(expires: Option<u64>) -> String {
    expires.map_or_else(|| "never".to_owned(), time)
}

pub(crate) fn object(hit: &Hit, now: u64) -> Value {
    serde_json::to_value(KeyView::new(hit, now)).unwrap_or_default()
}

/// One key, a line for each thing that is known of it.
pub(crate) fn lines(hit: &Hit, now: u64) -> String {
    let Value::Object(members) = object(hit, now) else { return String::new() };
    let text = |name: &str, value: &Value| match (name, value) {
        ("created" | "not_before" | "expires", Value::Number(number)) => number.as_u64().map(time),
        (_, Value::String(text)) => Some(text.clone()),
        (_, Value::Array(values)) => {
            Some(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
        }
        ("revoked" | "last_used", Value::Object(event)) => event.get("at").and_then(Value::as_u64).map(|at| {
            let more = event.get("reason").or_else(|| event.get("address")).and_then(Value::as_str).unwrap_or_default();
            format!("{} {more}", time(at)).trim_end().to_owned()
        }),
        (_, other) => Some(other.to_string()),
    };
    let line = |(name, value): (&String, &Value)| Some(format!("{name:<14} {}\n", text(name, value)?));
    members.iter().filter_map(line).collect()
}

/// Columns as wide as their widest cell.
pub(crate) fn table(hits: &[Hit], now: u64) -> String {
    const HEAD: [&str; 8] = ["ID", "STATUS", "SUBJECT", "TENANT", "NAME", "SCOPES", "EXPIRES", "LAST USED"];
    let row = |hit: &Hit| {
        let record = hit.record();
        [
            record.id().to_string(),
            KeyStatus::of(hit, now).to_string(),
            record.subject().to_owned(),
            record.tenant().unwrap_or("-").to_owned(),
            if record.name().is_empty() { "-".to_owned() } else { record.name().to_owned() },
            if record.scopes().is_empty() { "-".to_owned() } else { record.scopes().join(" ") },
            end(record.expires()),
            record.last_used().map_or_else(|| "-".to_owned(), |last| time(last.at())),
        ]
    };
    let rows: Vec<[String; 8]> = [HEAD.map(str::to_owned)].into_iter().chain(hits.iter().map(row)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..HEAD.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
