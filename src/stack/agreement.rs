//! What the stages of a stack have to agree about.

use std::collections::{BTreeMap, btree_map::Entry};

#[cfg(feature = "rbac")]
use crate::policy::Rbac;
use crate::{error::ConfigError, log, policy::PolicyBackend, rate_limit::RateLimitLayer, stack::table::RouteTable};

/// Quotas of one name are one to a client: which of them it has used up, it cannot tell.
pub(super) fn warn_of_like_names<'l>(limits: impl Iterator<Item = &'l RateLimitLayer>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for limit in limits {
        for name in limit.told_names() {
            match seen.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(limit.scope());
                }
                Entry::Occupied(taken) => log::warn(&format!(
                    "the limits {} and {} both tell clients of a quota {:?}, which these cannot tell apart: give one another \
                     name, by Quota::named, in a document by another of [quotas]",
                    taken.get(),
                    limit.scope(),
                    taken.key(),
                )),
            }
        }
    }
}

/// An action that the policy does not know is denied to everybody: a typo, or a line of a router whose permissions the policy does not
/// list.
pub(super) fn check_actions(table: &RouteTable, of_stack: Option<&dyn PolicyBackend>) -> Result<(), ConfigError> {
    for (line, rule) in table.rules() {
        let Some(guard) = rule.guard() else { continue };
        let Some(policy) = guard.own_policy().map(|own| own.policy).or(of_stack) else { continue };
        for action in guard.actions() {
            policy.check_action(action).map_err(|error| {
                ConfigError::new("route", &line, format!("asks for what its policy does not know: {error}"))
                    .caused_by(error)
            })?;
        }
    }
    Ok(())
}

/// The policy that is asked on a line.
#[cfg(feature = "rbac")]
#[derive(Clone, Copy)]
pub(super) struct AskedPolicy<'a> {
    pub(super) name: &'static str,
    /// If it is a role policy itself.
    pub(super) rbac: Option<&'a Rbac>,
}

/// Handles must come from the policy that is asked on their line, or the route and the handler would follow two policies: what else
/// that one is made of would not count on the route.
#[cfg(feature = "rbac")]
pub(super) fn check_handles(
    table: &RouteTable,
    of_stack: Option<AskedPolicy<'_>>,
    any_policy: bool,
) -> Result<(), ConfigError> {
    for (line, rule) in table.rules() {
        let own = rule.guard().and_then(|guard| {
            guard.own_policy().map(|own| AskedPolicy { name: own.policy.name(), rbac: guard.own_rbac() })
        });
        let asked = own.or(of_stack);
        let rbac = asked.and_then(|asked| asked.rbac);
        let permission = rule.permissions().into_iter().find(|held| !rbac.is_some_and(|rbac| held.belongs_to(rbac)));
        let role = rule.roles().into_iter().find(|held| !rbac.is_some_and(|rbac| held.belongs_to(rbac)));
        let (name, instead) = match (permission, role) {
            (Some(permission), _) => (permission.name(), format!("policy({:?})", permission.name())),
            (None, Some(role)) => (role.name(), "policy(..) with what the role may do".to_owned()),
            (None, None) => continue,
        };
        let problem = match asked {
            None => format!("is what {line} asks for, and the stack has no policy"),
            Some(_) if any_policy => continue,
            Some(AskedPolicy { rbac: Some(_), .. }) => {
                format!("of {line} is of another policy than the one that the stack asks")
            }
            Some(AskedPolicy { name, rbac: None }) => format!(
                "of {line} asks its role policy alone, and the policy that is set, {name}, has more to say: write {instead}, or \
                 say .handles_ask_their_own_policy()"
            ),
        };
        return Err(ConfigError::new("policy", name, problem));
    }
    Ok(())
}
