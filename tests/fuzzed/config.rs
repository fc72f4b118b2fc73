//! A configuration document. What is taken is TOML that fits the published schema, has no field that is not known, and takes
//! credentials over plain HTTP only if it says so; what is refused is told by lines of the document, one line each, and never
//! shows a secret that stands where it must not.

use std::sync::LazyLock;

use portcullis::config::{Config, Problems};
use serde_json::Value;
use toml::Table;

use super::schema::fits;

/// A secret that stands in the document.
const SECRET: &str = "hunter2-9d2c41";

static SCHEMA: LazyLock<Value> = LazyLock::new(Config::schema);

/// Panics if something of that does not hold. Whether the document is good.
pub fn check(text: &str) -> bool {
    let table = text.parse::<Table>();
    // Files are read: those of this folder alone.
    if table.as_ref().is_ok_and(|table| table.values().any(is_elsewhere)) {
        return false;
    }
    let only_misplaced = table.as_ref().is_ok_and(|table| !shows(table));
    let config = match Config::from_toml(text) {
        Ok(config) => config,
        Err(problems) => {
            are_told(&problems, text, only_misplaced);
            return false;
        }
    };
    let table = table.expect("TOML");
    let document = serde_json::to_value(&table).unwrap();
    assert!(!format!("{config:?}").contains(SECRET) || !only_misplaced);

    let more = format!("unknown-9d2c41 = 1\n{}", text.trim_start_matches('\u{feff}'));
    let problems = Config::from_toml(&more).expect_err("a field that is not known");
    assert!(problems.iter().any(|problem| problem.line() == Some(1) && problem.value().contains("unknown-9d2c41")));

    if let Err(problems) = config.check() {
        are_told(&problems, text, only_misplaced);
        return false;
    }
    fits(&SCHEMA, &SCHEMA, &document).unwrap_or_else(|problem| panic!("{problem}: {text}"));
    let plain = document.get("dangerous_plain_http").is_some_and(|plain| *plain == true);
    let has = |name: &str| document.get(name).is_some_and(|value| *value != Value::Array(Vec::new()));
    assert!(has("tls") != plain || !has("tls") && !has("issuers") && !has("api_keys"));
    true
}

fn are_told(problems: &Problems, text: &str, only_misplaced: bool) {
    assert!(problems.count() > 0);
    let lines: Vec<_> = problems.iter().map(|problem| problem.line()).collect();
    assert!(
        lines.is_sorted() && lines.iter().flatten().all(|line| (1..=text.matches('\n').count() + 1).contains(line))
    );
    for problem in problems.iter() {
        let told = problem.to_string();
        assert!(!told.contains('\n'), "{told:?}");
        assert!(!only_misplaced || !told.contains(SECRET), "{told}");
    }
}

/// Whether a value names a file that is not of this folder.
fn is_elsewhere(value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => text.starts_with(['/', '~', '\\']) || text.contains(".."),
        toml::Value::Array(items) => items.iter().any(is_elsewhere),
        toml::Value::Table(table) => table.values().any(is_elsewhere),
        _ => false,
    }
}

/// Whether the secret stands anywhere but where one is named.
fn shows(table: &Table) -> bool {
    table.iter().any(|(name, value)| match value {
        _ if name.contains(SECRET) => true,
        toml::Value::String(_) if ["address", "secret"].contains(&&**name) => false,
        other => shown(other),
    })
}

fn shown(value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => text.contains(SECRET),
        toml::Value::Array(items) => items.iter().any(shown),
        toml::Value::Table(table) => shows(table),
        _ => false,
    }
}
