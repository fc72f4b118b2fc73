//! How a decision comes about, and who may do what, for people.

use crate::policy::{
    AccessQuery, Matrix, Resource,
    rbac::{
        pattern,
        table::{RoleEntry, Table},
    },
};

/// What each role of the principal has to do with the action, and by which line of the document.
pub(super) fn steps(table: &Table, query: &AccessQuery<'_>) -> Vec<String> {
    let (subject, action) = (query.subject(), query.action());
    let mut steps = Vec::new();
    if !table.permission_positions.contains_key(action) {
        steps.push(format!("{action} is not in permissions"));
    }
    let owning = query.resource().and_then(Resource::tenant);
    if let Some(owning) = owning {
        match (table.boundary(subject, query.resource()), subject.tenant()) {
            (Some(_), Some(asking)) => {
                steps.push(format!("the thing is of tenant {owning}, the principal of tenant {asking}"));
            }
            (Some(_), None) => steps.push(format!("the thing is of tenant {owning}, the principal of none")),
            (None, None) => {
                steps.push(format!("the thing is of tenant {owning}, the principal of none: allow_tenantless"));
            }
            (None, Some(_)) => {}
        }
    }
    for unknown in subject.roles().iter().filter(|role| !table.role_positions.contains_key(*role)) {
        steps.push(format!("role {unknown:?} of the credential is not in the policy"));
    }
    for role in table.roles_of(subject, query.resource()) {
        let source = if subject.has_role(&role.name) { "of the credential" } else { "assigned by the policy" };
        let ways = ways(table, role, action);
        if ways.is_empty() {
            steps.push(format!("role {} ({source}) says nothing of {action}", role.name));
        }
        steps.extend(ways.into_iter().map(|way| format!("role {} ({source}): {way}", role.name)));
    }
    if let Some(set) = table.broken(subject, query.resource()) {
        steps.push(format!("more than {} of the roles of exclusive.{} are held", set.at_most, set.name));
    }
    if let Some(resource) = query.resource() {
        let owned = if resource.is_owned_by(subject) { "belongs to" } else { "does not belong to" };
        steps.push(format!("{} {} {owned} the principal", resource.kind(), resource.id()));
    }
    steps
}

/// The lines that grant or deny an action to a role, each with the roles that lead there.
fn ways(table: &Table, role: &RoleEntry, action: &str) -> Vec<String> {
    let mut ways = Vec::new();
    let mut seen = vec![false; table.roles.len()];
    let mut next = vec![(role, String::new())];
    while let Some((role, path)) = next.pop() {
        for (field, patterns) in [
            ("denies", &role.written.denies),
            ("grants", &role.written.grants),
            ("grants_own", &role.written.grants_own),
        ] {
            let matching = patterns.iter().filter(|pattern| pattern::matches(pattern, action));
            ways.extend(matching.map(|pattern| format!("{path}{field} {pattern}")));
        }
        for position in role.written.inherits.iter().rev() {
            if let Some(seen) = seen.get_mut(*position)
                && !std::mem::replace(seen, true)
                && let Some(junior) = table.roles.get(*position)
            {
                next.push((junior, format!("{path}inherits {}, ", junior.name)));
            }
        }
    }
    ways
}

/// Roles by permissions.
pub(super) fn matrix(table: &Table) -> Matrix {
    let columns = table.permissions.iter().map(ToString::to_string).collect();
    let mut matrix = Matrix::new("role", columns);
    for role in &table.roles {
        let cell = |permission| {
            if role.reach.denies(permission) {
                "denied"
            } else if role.reach.grants(permission) {
                "yes"
            } else if role.reach.grants_own(permission) {
                "own"
            } else {
                ""
            }
        };
        matrix.push(role.name.to_string(), (0..table.permissions.len()).map(cell).collect());
    }
    matrix
}
