//! From a document to a table: everything that can be wrong with a policy is found here.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::ConfigError,
    log,
    policy::{
        Basis,
        rbac::{
            document::{self, AssignmentDocument, Document, ExclusiveDocument, Origin, Placed, RoleDocument},
            pattern,
            table::{Assignment, Assignments, Cell, Denials, Exclusive, Positions, Reach, RoleEntry, Table, Written},
        },
    },
};

/// The longest document, in bytes.
pub(super) const MAX_DOCUMENT_LEN: usize = 4 * 1024 * 1024;
/// The most permissions, and the most roles.
const MAX_NAMES: usize = 4096;
/// The longest name of a permission or a role, and the longest version, in bytes.
const MAX_NAME_LEN: usize = 128;
/// The longest issuer, subject or tenant of an assignment, in bytes.
const MAX_IDENTITY_LEN: usize = 512;
/// The most sets of exclusive roles, and the most roles in one.
const MAX_EXCLUSIVE: usize = 64;

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
            deny: Arc::new(basis(rule).reason("a rule of the role denies it")),
            reach,
            written: direct.written,
        }
    });
    Ok(Table {
        id: Table::next_id(),
        denials: Denials::new(&version),
        credential_basis: Arc::new(basis("permission of the credential".to_owned())),
        roles: roles.collect(),
        permissions: document.permissions.iter().map(|name| Arc::from(name.value.as_str())).collect(),
        version,
        permission_positions,
        role_positions,
        exclusive,
        assignments,
    })
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

fn check_name(name: &Placed, setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
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

/// Issuers, subjects and tenants are compared byte for byte; anything that can be read is one.
fn check_identity(name: &Placed, setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
    if name.value.is_empty() || name.value.len() > MAX_IDENTITY_LEN || name.value.chars().any(char::is_control) {
        let problem = format!("must be 1 to {MAX_IDENTITY_LEN} bytes without control characters");
        return Err(origin.error_of(name, setting, problem));
    }
    Ok(())
}

struct Names<'a> {
    permissions: &'a Positions,
    listed: &'a [Placed],
    roles: &'a Positions,
    origin: Origin<'a>,
}

/// A role as it is written: what it has itself, and which roles it inherits at once.
struct Direct {
    reach: Reach,
    written: Written,
}

type MakeBasis<'a> = dyn Fn(String) -> Basis + 'a;

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
            let problem = format!("is not in permissions{}", near(&name.value, self.permissions));
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

    fn roles_named(&self, setting: &str, names: &[Placed]) -> Result<Vec<usize>, ConfigError> {
        check_once(names, setting, self.origin)?;
        let position = |name: &Placed| {
            self.roles.get(name.value.as_str()).copied().ok_or_else(|| {
                let problem = format!("is not a role of this policy{}", near(&name.value, self.roles));
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

    fn exclusive(&self, sets: &[ExclusiveDocument], basis: &MakeBasis<'_>) -> Result<Box<[Exclusive]>, ConfigError> {
        if sets.len() > MAX_EXCLUSIVE {
            let problem = format!("are too many: at most {MAX_EXCLUSIVE}");
            return Err(self.origin.error("exclusive", sets.len().to_string(), problem));
        }
        sets.iter()
            .map(|set| {
                let refuse = |problem: String| self.origin.error_of(&set.name, "exclusive", problem);
                check_name(&set.name, "exclusive", self.origin)?;
                let setting = format!("exclusive.{}.roles", set.name.value);
                let roles = self.roles_named(&setting, &set.roles)?;
                let at_most = usize::from(set.at_most.unwrap_or(1));
                if roles.len() > MAX_EXCLUSIVE {
                    return Err(refuse(format!("has too many roles: at most {MAX_EXCLUSIVE}")));
                }
                if at_most == 0 || at_most >= roles.len() {
                    return Err(refuse("must name more roles than at_most, which is at least 1".to_owned()));
                }
                let name = &set.name.value;
                let basis = basis(format!("exclusive {name:?}")).reason("holds roles that exclude each other");
                Ok(Exclusive { name: name.as_str().into(), roles: roles.into(), at_most, basis: Arc::new(basis) })
            })
            .collect()
    }

    /// No role may inherit what excludes each other: whoever has it could do nothing.
    fn check_exclusive(
        &self,
        document: &Document,
        reaches: &[Reach],
        exclusive: &[Exclusive],
    ) -> Result<(), ConfigError> {
        for ((name, _), reach) in document.roles.iter().zip(reaches) {
            if let Some(broken) = exclusive.iter().find(|set| set.is_broken_by([&reach.roles].into_iter())) {
                let problem = format!("inherits more of the roles of exclusive.{} than one may have", broken.name);
                return Err(self.origin.error_of(name, "roles", problem));
            }
        }
        Ok(())
    }

    fn assignments(
        &self,
        written: &[AssignmentDocument],
        reaches: &[Reach],
        exclusive: &[Exclusive],
    ) -> Result<Assignments, ConfigError> {
        let mut assignments = Assignments::default();
        let mut seen = BTreeSet::new();
        for assignment in written {
            let AssignmentDocument { issuer, subject, tenant, roles } = assignment;
            check_identity(issuer, "assignments.issuer", self.origin)?;
            check_identity(subject, "assignments.subject", self.origin)?;
            if let Some(tenant) = tenant {
                check_identity(tenant, "assignments.tenant", self.origin)?;
            }
            let roles = self.roles_named("assignments.roles", roles)?;
            let tenant = tenant.as_ref().map(|tenant| tenant.value.as_str());
            let who = (issuer.value.as_str(), subject.value.as_str(), tenant);
            if !seen.insert(who) {
                return Err(self.origin.error_of(subject, "assignments.subject", "stands twice for this tenant"));
            }
            assignments.add(who.0, who.1, Assignment { tenant: tenant.map(Into::into), roles });
        }
        for AssignmentDocument { issuer, subject, tenant, .. } in written {
            let tenant = tenant.as_ref().map(|tenant| tenant.value.as_str());
            let held = assignments.of(&issuer.value, &subject.value).iter();
            let held = held.filter(|assigned| assigned.holds_in(tenant)).flat_map(|assigned| &assigned.roles);
            let held = held.filter_map(|role| reaches.get(*role)).map(|reach| &reach.roles);
            if let Some(broken) = exclusive.iter().find(|set| set.is_broken_by(held.clone())) {
                let problem = format!("is assigned more of the roles of exclusive.{} than one may have", broken.name);
                return Err(self.origin.error_of(subject, "assignments.subject", problem));
            }
        }
        Ok(assignments)
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

/// Merges into each role what it inherits: juniors first, so that each role is visited once.
///
/// # Errors
/// The positions of a cycle, its first one repeated at the end.
fn flatten(direct: &[Direct]) -> Result<Vec<Reach>, Vec<usize>> {
    let mut seniors = vec![Vec::new(); direct.len()];
    let mut missing: Vec<usize> = direct.iter().map(|role| role.written.inherits.len()).collect();
    for (senior, role) in direct.iter().enumerate() {
        for junior in &role.written.inherits {
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
        for junior in role.written.inherits.iter().filter_map(|junior| reaches.get(*junior)).flatten() {
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
        let Some(junior) = direct.get(at).and_then(|role| role.written.inherits.iter().find(stuck)) else {
            return path;
        };
        path.push(*junior);
        if seen.get(*junior).copied().unwrap_or(true) {
            return path.into_iter().skip_while(|role| role != junior).collect();
        }
        at = *junior;
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
    use crate::policy::rbac::document::Format;

    fn read(format: Format, text: &str) -> Result<Table, ConfigError> {
        load(Origin { file: Some("policy.toml"), format, text })
    }

    fn refused(text: &str) -> String {
        read(Format::Toml, text).unwrap_err().to_string()
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
            ("empty name", "permissions = [\"\"]", "line 2: permissions: \"\" must not be empty"),
            ("space", "permissions = [\"a b\"]", "permissions: \"a b\" must be ASCII letters"),
            ("wildcard", "permissions = [\"orders:*\"]", "permissions: \"orders:*\" has a `*`: wildcards stand"),
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
                "line 4: roles.r.grants: \"order:read\" is not in permissions; did you mean \"orders:read\"?",
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
                "line 5: roles.r.inherits: \"clark\" is not a role of this policy; did you mean \"clerk\"?",
            ),
            (
                "inherits itself",
                "permissions = [\"a\"]\n[roles.r]\ninherits = [\"r\"]",
                "line 3: roles: \"r\" inherits itself in a circle: r -> r",
            ),
            (
                "a star in a segment",
                "permissions = [\"orders:read\"]\n[roles.r]\ngrants = [\"order*:read\"]",
                "line 4: roles.r.grants: \"order*:read\" has a `*` in a segment",
            ),
            (
                "a wildcard for nothing",
                "permissions = [\"orders:read\"]\n[roles.r]\ndenies = [\n\"stock:*\"]",
                "line 5: roles.r.denies: \"stock:*\" stands for no permission",
            ),
            (
                "denies what it grants",
                "permissions = [\"a:b\"]\n[roles.r]\ngrants = [\"a:b\"]\ndenies = [\"a:*\"]",
                "line 4: roles.r.grants: \"a:b\" is denied by the same role",
            ),
            (
                "exclusive roles inherited",
                "permissions = [\"a\"]\n[roles.r]\ninherits = [\"s\", \"t\"]\n[roles.s]\n[roles.t]\n\
                 [[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]",
                "line 3: roles: \"r\" inherits more of the roles of exclusive.eyes",
            ),
            (
                "exclusive of an unknown role",
                "permissions = [\"a\"]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]",
                "line 5: exclusive.eyes.roles: \"s\" is not a role",
            ),
            (
                "one role excludes nothing",
                "permissions = [\"a\"]\n[roles.s]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\"]",
                "line 5: exclusive: \"eyes\" must name more roles than at_most",
            ),
            (
                "at most none",
                "permissions = [\"a\"]\n[roles.s]\n[roles.t]\n[[exclusive]]\nname = \"eyes\"\n\
                 roles = [\"s\", \"t\"]\nat_most = 0",
                "exclusive: \"eyes\" must name more roles than at_most",
            ),
            (
                "exclusive roles assigned, one in every tenant and one in one",
                "permissions = [\"a\"]\n[roles.s]\n[roles.t]\n[[exclusive]]\nname = \"eyes\"\nroles = [\"s\", \"t\"]\n\
                 [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"s\"]\n\
                 [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"t\"]\ntenant = \"acme\"",
                "line 14: assignments.subject: \"bob\" is assigned more of the roles of exclusive.eyes",
            ),
            (
                "assigned an unknown role",
                "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = [\"boss\"]",
                "line 6: assignments.roles: \"boss\" is not a role",
            ),
            (
                "assigned twice",
                "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []\n\
                 [[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []",
                "line 9: assignments.subject: \"bob\" stands twice for this tenant",
            ),
            (
                "assigned in no tenant",
                "permissions = [\"a\"]\n[[assignments]]\nissuer = \"i\"\nsubject = \"bob\"\nroles = []\ntenant = \"\"",
                "line 7: assignments.tenant: \"\" must be 1 to 512 bytes",
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
        assert!(
            refused(text).contains("line 5: roles: \"b\" inherits itself in a circle: b -> c -> d -> b"),
            "{}",
            refused(text)
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let many: Vec<String> = (0..=MAX_NAMES).map(|n| format!("\"p{n}\"")).collect();
        let text = format!("version = \"1\"\npermissions = [{}]", many.join(", "));
        assert!(refused(&text).contains("permissions: 4097 are too many: at most 4096"));
        assert!(refused(&" ".repeat(MAX_DOCUMENT_LEN + 1)).contains("bytes are too many"));
    }

    #[test]
    fn json_is_read_as_strictly() {
        for (name, text, expected) in [
            ("no JSON", "{", "line 1: JSON is not a policy: EOF"),
            ("unknown member", "{\n\"default\": 1}", "line 2: JSON is not a policy: unknown field `default`"),
            ("a member twice", r#"{"version": "1", "version": "2"}"#, "duplicate field `version`"),
            ("text behind it", r#"{"version": "1", "permissions": ["a"]} x"#, "trailing characters"),
            (
                "a role twice",
                "{\"version\": \"1\", \"permissions\": [\"a\"], \"roles\": {\n\"r\": {},\n\"r\": {\"grants\": [\"a\"]}}}",
                "line 3: roles: \"r\" stands twice",
            ),
            (
                "unknown permission",
                "{\"version\": \"1\",\n\"permissions\": [\"a\"],\n\"roles\": {\"r\": {\"grants\":\n[\"b\"]}}}",
                "line 4: roles.r.grants: \"b\" is not in permissions",
            ),
            (
                "unknown permission with an escape",
                r#"{"version": "1", "permissions": ["a"], "roles": {"r": {"grants": ["\u0062"]}}}"#,
                "policy.toml: roles.r.grants: \"b\" is not in permissions",
            ),
            ("null", r#"{"version": "1", "permissions": null}"#, "invalid type: null"),
        ] {
            let error = read(Format::Json, text).unwrap_err().to_string();
            assert!(error.starts_with("policy.toml: ") && error.contains(expected), "{name}: {error}");
        }
        let text = r#"{"version": "1", "permissions": ["a"], "roles": {"r": {"grants": ["a"]}},
            "exclusive": [], "assignments": [{"issuer": "i", "subject": "s", "roles": ["r"]}]}"#;
        assert_eq!(read(Format::Json, text).unwrap().roles.len(), 1);
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("clark", "clerk", 1), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
