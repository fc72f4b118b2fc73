//! From TOML to a table: everything that can be wrong with a policy is found here.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use crate::{
    error::ConfigError,
    log,
    policy::{
        Basis,
        rbac::table::{Denials, Positions, Reach, RoleEntry, Table},
    },
};

/// The longest document, in bytes.
pub(super) const MAX_DOCUMENT_LEN: usize = 4 * 1024 * 1024;
/// The most permissions, and the most roles.
const MAX_NAMES: usize = 4096;
/// The longest name of a permission or a role, and the longest version, in bytes.
const MAX_NAME_LEN: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
    permissions: Vec<String>,
    #[serde(default)]
    roles: BTreeMap<String, RoleDocument>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleDocument {
    #[serde(default)]
    inherits: Vec<String>,
    #[serde(default)]
    grants: Vec<String>,
    #[serde(default)]
    grants_own: Vec<String>,
}

/// Where the document came from, for errors.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) file: Option<&'a str>,
}

impl Origin<'_> {
    pub(super) fn error(self, setting: &str, value: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        match self.file {
            Some(file) => ConfigError::new(format!("{file}: {setting}"), value, problem),
            None => ConfigError::new(setting, value, problem),
        }
    }
}

pub(super) fn load(text: &str, origin: Origin<'_>) -> Result<Table, ConfigError> {
    if text.len() > MAX_DOCUMENT_LEN {
        let problem = format!("are too many: a policy has at most {MAX_DOCUMENT_LEN}");
        return Err(origin.error("policy", format!("{} bytes", text.len()), problem));
    }
    let document: Document = toml::from_str(text).map_err(|error| not_understood(text, &error, origin))?;
    check_name(&document.version, "version", origin)?;
    let permission_positions = positions(document.permissions.iter(), "permissions", origin)?;
    if permission_positions.is_empty() {
        return Err(origin.error("permissions", "[]", "must name at least one permission"));
    }
    let role_positions = positions(document.roles.keys(), "roles", origin)?;
    let names = Names { permissions: &permission_positions, roles: &role_positions, origin };
    let direct = document.roles.iter().map(|(name, role)| names.read(name, role)).collect::<Result<Vec<_>, _>>()?;
    let reaches = flatten(&direct).map_err(|cycle| {
        let path: Vec<&str> =
            cycle.iter().filter_map(|position| document.roles.keys().nth(*position)).map(String::as_str).collect();
        origin.error("roles", path.join(" -> "), "inherit from each other in a circle")
    })?;
    warn_of_unused(&document.permissions, &reaches, origin);
    let version: Arc<str> = document.version.into();
    let basis = |rule: String| Arc::new(Basis::new().rule(rule).version(Arc::clone(&version)));
    let roles = document.roles.keys().zip(reaches).map(|(name, reach)| RoleEntry {
        name: name.as_str().into(),
        basis: basis(format!("role {name:?}")),
        reach,
    });
    Ok(Table {
        denials: Denials::new(&version),
        credential_basis: basis("permission of the credential".to_owned()),
        roles: roles.collect(),
        permissions: document.permissions.iter().map(|name| Arc::from(name.as_str())).collect(),
        version,
        permission_positions,
        role_positions,
    })
}

/// One line that says what the parser said, and where.
fn not_understood(text: &str, error: &toml::de::Error, origin: Origin<'_>) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let setting = match before {
        Some(before) => format!("line {}", before.matches('\n').count() + 1),
        None => "policy".to_owned(),
    };
    origin.error(&setting, "TOML", format!("is not a policy: {}", error.message().trim_end()))
}

fn positions<'a>(
    names: impl ExactSizeIterator<Item = &'a String>,
    setting: &str,
    origin: Origin<'_>,
) -> Result<Positions, ConfigError> {
    if names.len() > MAX_NAMES {
        return Err(origin.error(setting, names.len().to_string(), format!("are too many: at most {MAX_NAMES}")));
    }
    let mut positions = Positions::default();
    for (position, name) in names.enumerate() {
        check_name(name, setting, origin)?;
        if positions.insert(name.as_str().into(), position).is_some() {
            return Err(origin.error(setting, format!("{name:?}"), "stands twice"));
        }
    }
    Ok(positions)
}

fn check_name(name: &str, setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
    let problem = if name.is_empty() {
        "must not be empty".to_owned()
    } else if name.len() > MAX_NAME_LEN {
        format!("is longer than {MAX_NAME_LEN} bytes")
    } else if name.contains('*') {
        "has a `*`: there are no wildcards".to_owned()
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'@' | b'-')) {
        "must be ASCII letters, digits and . _ : / @ -".to_owned()
    } else {
        return Ok(());
    };
    Err(origin.error(setting, format!("{name:?}"), problem))
}

struct Names<'a> {
    permissions: &'a Positions,
    roles: &'a Positions,
    origin: Origin<'a>,
}

/// A role as it is written: what it has itself, and which roles it inherits at once.
struct Direct {
    inherits: Vec<usize>,
    reach: Reach,
}

impl Names<'_> {
    fn read(&self, name: &str, role: &RoleDocument) -> Result<Direct, ConfigError> {
        let mut reach = Reach::none(self.permissions.len(), self.roles.len());
        if let Some(position) = self.roles.get(name) {
            reach.roles.set(*position);
        }
        for position in self.resolve(name, "grants", &role.grants, self.permissions)? {
            reach.grants.set(position);
        }
        for position in self.resolve(name, "grants_own", &role.grants_own, self.permissions)? {
            reach.grants_own.set(position);
        }
        if let Some(both) = role.grants_own.iter().find(|permission| role.grants.contains(permission)) {
            let setting = format!("roles.{name}.grants_own");
            return Err(self.origin.error(
                &setting,
                format!("{both:?}"),
                "stands in grants too, which reaches further",
            ));
        }
        Ok(Direct { inherits: self.resolve(name, "inherits", &role.inherits, self.roles)?, reach })
    }

    fn resolve(&self, role: &str, field: &str, names: &[String], known: &Positions) -> Result<Vec<usize>, ConfigError> {
        let setting = || format!("roles.{role}.{field}");
        let mut found = Vec::with_capacity(names.len().min(MAX_NAMES));
        let mut seen = vec![false; known.len()];
        for name in names {
            let Some(position) = known.get(name.as_str()) else {
                let what = if field == "inherits" { "is not a role of this policy" } else { "is not in permissions" };
                let problem = format!("{what}{}", near(name, known));
                return Err(self.origin.error(&setting(), format!("{name:?}"), problem));
            };
            if let Some(seen) = seen.get_mut(*position)
                && std::mem::replace(seen, true)
            {
                return Err(self.origin.error(&setting(), format!("{name:?}"), "stands twice"));
            }
            found.push(*position);
        }
        Ok(found)
    }
}

/// Merges into each role what it inherits: juniors first, so that each role is visited once.
///
/// # Errors
/// The positions of a cycle, its first one repeated at the end.
fn flatten(direct: &[Direct]) -> Result<Vec<Reach>, Vec<usize>> {
    let mut seniors = vec![Vec::new(); direct.len()];
    let mut missing: Vec<usize> = direct.iter().map(|role| role.inherits.len()).collect();
    for (senior, role) in direct.iter().enumerate() {
        for junior in &role.inherits {
            if let Some(seniors) = seniors.get_mut(*junior) {
                seniors.push(senior);
            }
        }
    }
    let mut reaches: Vec<Option<Reach>> = vec![None; direct.len()];
    let mut next: Vec<usize> = (0..direct.len()).filter(|role| missing.get(*role) == Some(&0)).collect();
    while let Some(position) = next.pop() {
        let Some(role) = direct.get(position) else { continue };
        let mut reach = role.reach.clone();
        for junior in role.inherits.iter().filter_map(|junior| reaches.get(*junior)).flatten() {
            reach.merge(junior);
        }
        if let Some(slot) = reaches.get_mut(position) {
            *slot = Some(reach);
        }
        for senior in seniors.get(position).into_iter().flatten() {
            if let Some(missing) = missing.get_mut(*senior) {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    next.push(*senior);
                }
            }
        }
    }
    match reaches.iter().position(Option::is_none) {
        None => Ok(reaches.into_iter().flatten().collect()),
        Some(stuck) => Err(cycle(direct, &reaches, stuck)),
    }
}

/// Walks from a role that never became free: each such role inherits another one, so the walk comes back.
fn cycle(direct: &[Direct], reaches: &[Option<Reach>], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    let mut seen = vec![false; direct.len()];
    let mut at = start;
    loop {
        if let Some(seen) = seen.get_mut(at) {
            *seen = true;
        }
        let stuck = |role: &&usize| reaches.get(**role).is_some_and(Option::is_none);
        let Some(junior) = direct.get(at).and_then(|role| role.inherits.iter().find(stuck)) else { return path };
        path.push(*junior);
        if seen.get(*junior).copied().unwrap_or(true) {
            return path.into_iter().skip_while(|role| role != junior).collect();
        }
        at = *junior;
    }
}

/// A permission that nobody can have is allowed while a policy grows, and worth a word.
fn warn_of_unused(permissions: &[String], reaches: &[Reach], origin: Origin<'_>) {
    for (position, name) in permissions.iter().enumerate() {
        if !reaches.iter().any(|reach| reach.grants.has(position) || reach.grants_own.has(position)) {
            log::warn(&origin.error("permissions", format!("{name:?}"), "is granted by no role").to_string());
        }
    }
}

/// Names much like this one, as the end of a sentence; nothing if there are none.
pub(super) fn near(name: &str, known: &Positions) -> String {
    if name.len() > MAX_NAME_LEN {
        return String::new();
    }
    let mut close: Vec<(usize, &str)> = known
        .keys()
        .map(|known| (distance(name, known), &**known))
        .filter(|(distance, known)| *distance <= 3 && *distance < known.len())
        .collect();
    close.sort_unstable();
    let close: Vec<String> = close.iter().take(3).map(|(_, name)| format!("{name:?}")).collect();
    if close.is_empty() { close.concat() } else { format!("; did you mean {}?", close.join(" or ")) }
}

/// How many bytes must be inserted, removed or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (before, x) in a.bytes().enumerate() {
        let (mut diagonal, mut left) = (before, before + 1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        load(text, Origin { file: Some("policy.toml") }).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let long = format!("permissions = [\"{}\"]", "a".repeat(MAX_NAME_LEN + 1));
        for (name, body, expected) in [
            ("no TOML", "permissions = [", "line 2: TOML is not a policy"),
            ("no permissions", "", "missing field `permissions`"),
            ("empty list", "permissions = []", "permissions: [] must name at least one"),
            (
                "unknown field",
                "permissions = [\"a\"]\ndefault = 1",
                "line 3: TOML is not a policy: unknown field `default`",
            ),
            ("unknown field of a role", "permissions = [\"a\"]\n[roles.r]\ngrant = [\"a\"]", "line 4: TOML"),
            ("wrong type", "permissions = \"a\"", "line 2: TOML is not a policy: invalid type"),
            ("empty name", "permissions = [\"\"]", "permissions: \"\" must not be empty"),
            ("space", "permissions = [\"a b\"]", "permissions: \"a b\" must be ASCII letters"),
            ("wildcard", "permissions = [\"orders:*\"]", "permissions: \"orders:*\" has a `*`"),
            ("too long", &long, "is longer than 128 bytes"),
            ("twice", "permissions = [\"a\", \"a\"]", "permissions: \"a\" stands twice"),
            (
                "role twice",
                "permissions = [\"a\"]\n[roles.r]\n[roles.r]",
                "line 4: TOML is not a policy: duplicate key",
            ),
            ("empty role", "permissions = [\"a\"]\n[roles.\"\"]", "roles: \"\" must not be empty"),
            (
                "unknown permission",
                "permissions = [\"orders:read\"]\n[roles.r]\ngrants = [\"order:read\"]",
                "roles.r.grants: \"order:read\" is not in permissions; did you mean \"orders:read\"?",
            ),
            (
                "unknown permission of one's own",
                "permissions = [\"a\"]\n[roles.r]\ngrants_own = [\"b\"]",
                "roles.r.grants_own: \"b\" is not in permissions",
            ),
            (
                "grant twice",
                "permissions = [\"a\"]\n[roles.r]\ngrants = [\"a\", \"a\"]",
                "roles.r.grants: \"a\" stands twice",
            ),
            (
                "grant and own grant",
                "permissions = [\"a\"]\n[roles.r]\ngrants = [\"a\"]\ngrants_own = [\"a\"]",
                "roles.r.grants_own: \"a\" stands in grants too",
            ),
            (
                "unknown role",
                "permissions = [\"a\"]\n[roles.clerk]\n[roles.r]\ninherits = [\"clark\"]",
                "roles.r.inherits: \"clark\" is not a role of this policy; did you mean \"clerk\"?",
            ),
            (
                "inherits itself",
                "permissions = [\"a\"]\n[roles.r]\ninherits = [\"r\"]",
                "roles: r -> r inherit from each other in a circle",
            ),
        ] {
            let error = refused(&format!("version = \"1\"\n{body}"));
            assert!(error.starts_with("policy.toml: ") && error.contains(expected), "{name}: {error}");
        }
        assert!(refused("permissions = [\"a\"]").contains("missing field `version`"));
        assert!(refused("version = \"\"\npermissions = [\"a\"]").contains("version: \"\" must not be empty"));
    }

    #[test]
    fn a_cycle_is_shown_without_what_leads_to_it() {
        let text = "version = \"1\"\npermissions = [\"p\"]\n\
            [roles.a]\ninherits = [\"b\"]\n[roles.b]\ninherits = [\"free\", \"c\"]\n\
            [roles.c]\ninherits = [\"d\"]\n[roles.d]\ninherits = [\"b\"]\n[roles.free]";
        assert!(refused(text).contains("roles: b -> c -> d -> b inherit"), "{}", refused(text));
    }

    #[test]
    fn sizes_are_bounded() {
        let many: Vec<String> = (0..=MAX_NAMES).map(|n| format!("\"p{n}\"")).collect();
        let text = format!("version = \"1\"\npermissions = [{}]", many.join(", "));
        assert!(refused(&text).contains("permissions: 4097 are too many: at most 4096"));
        assert!(refused(&" ".repeat(MAX_DOCUMENT_LEN + 1)).contains("bytes are too many"));
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("clark", "clerk", 1), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
