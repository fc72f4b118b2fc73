//! From a document to a table: everything that can be wrong with a policy is found here.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::ConfigError,
    log,
    near::near,
    policy::{
        Basis,
        rbac::{
            document::{self, Document, Origin, Placed, RoleDocument},
            hierarchy::flatten,
            pattern,
            reach::Reach,
            table::{Denials, Positions, RoleEntry, Table, Written},
        },
    },
    principal::Cell,
};

/// The longest document, in bytes.
pub(super) const MAX_DOCUMENT_LEN: usize = 4 * 1024 * 1024;
/// The most permissions, and the most roles.
const MAX_NAMES: usize = 4096;
/// The longest name of a permission or a role, and the longest version, in bytes.
const MAX_NAME_LEN: usize = 128;

pub(super) fn load(origin: Origin<'_>) -> Result<Table, ConfigError> {
    if origin.text.len() > MAX_DOCUMENT_LEN {
        let problem = format!("are too many: a policy has at most {MAX_DOCUMENT_LEN}");
        return Err(origin.error("policy", format!("{} bytes", origin.text.len()), problem));
    }
    let document = document::read(origin)?;
    check_name(&document.version, "version", origin)?;
    let permission_positions = positions(document.permissions.iter(), "permissions", origin)?;
    if permission_positions.is_empty() {
        return Err(origin.error("permissions", "[]", "must name at least one permission"));
    }
    let role_positions = positions(document.roles.iter().map(|(name, _)| name), "roles", origin)?;
    let names =
        Names { permissions: &permission_positions, listed: &document.permissions, roles: &role_positions, origin };
    let direct = document.roles.iter().map(|(name, role)| names.read(name, role)).collect::<Result<Vec<_>, _>>()?;
    let reaches = flatten(&direct).map_err(|cycle| names.circle(&document, &cycle))?;
    let version: Arc<str> = document.version.value.as_str().into();
    let basis = |rule: String| Basis::new().rule(rule).version(Arc::clone(&version));
    let exclusive = names.exclusive(&document.exclusive, &basis)?;
    names.check_exclusive(&document, &reaches, &exclusive)?;
    let assignments = names.assignments(&document.assignments, &reaches, &exclusive)?;
    warn_of_unused(&document.permissions, &reaches, origin);
    let roles = document.roles.iter().zip(reaches).zip(direct).map(|(((name, _), reach), direct)| {
        let rule = format!("role {:?}", name.value);
        RoleEntry {
            name: name.value.as_str().into(),
            allow: Arc::new(basis(rule.clone())),
            allow_own: Arc::new(basis(rule.clone()).reason("on the principal's own things")),
            deny: Arc::new(basis(rule).reason("a rule of the role denies it")),
            reach,
            written: direct.written,
        }
    });
    Ok(Table {
        id: Table::next_id(),
        allow_tenantless: document.allow_tenantless,
        denials: Denials::new(&version),
        credential_basis: Arc::new(basis("permission of the credential".to_owned())),
        roles: roles.collect(),
        permissions: document.permissions.iter().map(|name| Arc::from(name.value.as_str())).collect(),
        version,
        permission_positions,
        role_positions,
        exclusive,
        assignments,
        assigns_by_kind: document.assignments.iter().any(|assignment| assignment.kind.is_some()),
    })
}

/// Names of the table much like this one, as the end of a sentence.
pub(super) fn near_of(name: &str, known: &Positions) -> String {
    near(name, known.keys().map(|known| &**known))
}

fn positions<'a>(
    names: impl ExactSizeIterator<Item = &'a Placed>,
    setting: &str,
    origin: Origin<'_>,
) -> Result<Positions, ConfigError> {
    if names.len() > MAX_NAMES {
        return Err(origin.error(setting, names.len().to_string(), format!("are too many: at most {MAX_NAMES}")));
    }
    let mut positions = Positions::default();
    for (position, name) in names.enumerate() {
        check_name(name, setting, origin)?;
        if positions.insert(name.value.as_str().into(), position).is_some() {
            return Err(origin.error_of(name, setting, "stands twice"));
        }
    }
    Ok(positions)
}

pub(super) fn check_name(name: &Placed, setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
    if pattern::is_wild(&name.value) {
        return Err(origin.error_of(
            name,
            setting,
            "has a `*`: wildcards stand where permissions are granted or denied",
        ));
    }
    check_pattern(name, setting, origin)
}

fn check_pattern(name: &Placed, setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'@' | b'-' | b'*');
    let problem = if name.value.is_empty() {
        "must not be empty".to_owned()
    } else if name.value.len() > MAX_NAME_LEN {
        format!("is longer than {MAX_NAME_LEN} bytes")
    } else if !name.value.bytes().all(allowed) {
        "must be ASCII letters, digits and . _ : / @ -".to_owned()
    } else if !pattern::is_sound(&name.value) {
        "has a `*` in a segment: it stands for a whole one, as in orders:*".to_owned()
    } else {
        return Ok(());
    };
    Err(origin.error_of(name, setting, problem))
}

pub(super) struct Names<'a> {
    permissions: &'a Positions,
    listed: &'a [Placed],
    roles: &'a Positions,
    pub(super) origin: Origin<'a>,
}

/// A role as it is written: what it has itself, and which roles it inherits at once.
pub(super) struct Direct {
    pub(super) reach: Reach,
    pub(super) written: Written,
}

impl Names<'_> {
    fn read(&self, name: &Placed, role: &RoleDocument) -> Result<Direct, ConfigError> {
        let mut reach = Reach::none(self.permissions.len(), self.roles.len());
        if let Some(position) = self.roles.get(name.value.as_str()) {
            reach.roles.set(*position);
        }
        let field = |field: &str| format!("roles.{}.{field}", name.value);
        for (_, positions) in self.patterns(&field("grants"), &role.grants)? {
            set(&mut reach, &positions, |cell, bit| cell.grants |= bit);
        }
        for (own, positions) in self.patterns(&field("grants_own"), &role.grants_own)? {
            if positions.iter().all(|position| reach.grants(*position)) {
                let problem = "stands in grants too, which reaches further";
                return Err(self.origin.error_of(own, field("grants_own"), problem));
            }
            set(&mut reach, &positions, |cell, bit| cell.own |= bit);
        }
        for (_, positions) in self.patterns(&field("denies"), &role.denies)? {
            set(&mut reach, &positions, |cell, bit| cell.denies |= bit);
        }
        for (setting, granted) in [("grants", &role.grants), ("grants_own", &role.grants_own)] {
            for (grant, positions) in self.patterns(&field(setting), granted)? {
                if positions.iter().all(|position| reach.denies(*position)) {
                    return Err(self.origin.error_of(grant, field(setting), "is denied by the same role"));
                }
            }
        }
        let shared = |names: &[Placed]| names.iter().map(|name| name.value.as_str().into()).collect();
        let written = Written {
            inherits: self.roles_named(&field("inherits"), &role.inherits)?,
            grants: shared(&role.grants),
            grants_own: shared(&role.grants_own),
            denies: shared(&role.denies),
        };
        Ok(Direct { reach, written })
    }

    /// The permissions that each pattern stands for: at least one.
    fn patterns<'p>(
        &self,
        setting: &str,
        patterns: &'p [Placed],
    ) -> Result<Vec<(&'p Placed, Vec<usize>)>, ConfigError> {
        check_once(patterns, setting, self.origin)?;
        patterns.iter().map(|name| Ok((name, self.permissions_of(setting, name)?))).collect()
    }

    fn permissions_of(&self, setting: &str, name: &Placed) -> Result<Vec<usize>, ConfigError> {
        if let Some(position) = self.permissions.get(name.value.as_str()) {
            return Ok(vec![*position]);
        }
        check_pattern(name, setting, self.origin)?;
        if !pattern::is_wild(&name.value) {
            let problem = format!("is not in permissions{}", near_of(&name.value, self.permissions));
            return Err(self.origin.error_of(name, setting, problem));
        }
        let matching =
            self.listed.iter().enumerate().filter(|(_, listed)| pattern::matches(&name.value, &listed.value));
        let positions: Vec<usize> = matching.map(|(position, _)| position).collect();
        if positions.is_empty() {
            return Err(self.origin.error_of(name, setting, "stands for no permission of this policy"));
        }
        Ok(positions)
    }

    pub(super) fn roles_named(&self, setting: &str, names: &[Placed]) -> Result<Vec<usize>, ConfigError> {
        check_once(names, setting, self.origin)?;
        let position = |name: &Placed| {
            self.roles.get(name.value.as_str()).copied().ok_or_else(|| {
                let problem = format!("is not a role of this policy{}", near_of(&name.value, self.roles));
                self.origin.error_of(name, setting, problem)
            })
        };
        names.iter().map(position).collect()
    }

    fn circle(&self, document: &Document, cycle: &[usize]) -> ConfigError {
        let roles: Vec<&Placed> =
            cycle.iter().filter_map(|position| document.roles.get(*position)).map(|(name, _)| name).collect();
        let path: Vec<&str> = roles.iter().map(|role| role.value.as_str()).collect();
        let problem = format!("inherits itself in a circle: {}", path.join(" -> "));
        match roles.first() {
            Some(first) => self.origin.error_of(first, "roles", problem),
            None => self.origin.error("roles", "a role", problem),
        }
    }
}

fn set(reach: &mut Reach, positions: &[usize], mark: impl Fn(&mut Cell, u64)) {
    for position in positions {
        if let Some((cell, bit)) = reach.cell_mut(*position) {
            mark(cell, bit);
        }
    }
}

fn check_once(names: &[Placed], setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.value.as_str())) {
        Some(twice) => Err(origin.error_of(twice, setting, "stands twice")),
        None => Ok(()),
    }
}

/// A permission that nobody can have is allowed while a policy grows, and worth a word.
fn warn_of_unused(permissions: &[Placed], reaches: &[Reach], origin: Origin<'_>) {
    for (position, name) in permissions.iter().enumerate() {
        if !reaches.iter().any(|reach| reach.grants(position) || reach.grants_own(position)) {
            log::warn(&origin.error_of(name, "permissions", "is granted by no role").to_string());
        }
    }
}

#[cfg(test)]
mod tests;
