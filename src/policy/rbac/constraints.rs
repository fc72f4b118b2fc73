//! Roles that exclude each other, and roles that the policy assigns.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::ConfigError,
    policy::{
        Basis,
        rbac::{
            assignments::{Assignment, Assignments},
            document::{AssignmentDocument, Document, ExclusiveDocument, Origin, Placed},
            load::{Names, check_name},
            reach::Reach,
            table::Exclusive,
        },
    },
    principal::PrincipalKind,
};

/// The longest issuer, subject or tenant of an assignment, in bytes.
const MAX_IDENTITY_LEN: usize = 512;
/// The most sets of exclusive roles, and the most roles in one.
const MAX_EXCLUSIVE: usize = 64;

type MakeBasis<'a> = dyn Fn(String) -> Basis + 'a;

/// Issuers, subjects and tenants are compared byte for byte; anything that can be read is one.
fn check_identity(name: &Placed, setting: &str, origin: Origin<'_>) -> Result<(), ConfigError> {
    if name.value.is_empty() || name.value.len() > MAX_IDENTITY_LEN || name.value.chars().any(char::is_control) {
        let problem = format!("must be 1 to {MAX_IDENTITY_LEN} bytes without control characters");
        return Err(origin.error_of(name, setting, problem));
    }
    Ok(())
}

impl Names<'_> {
    pub(super) fn exclusive(
        &self,
        sets: &[ExclusiveDocument],
        basis: &MakeBasis<'_>,
    ) -> Result<Box<[Exclusive]>, ConfigError> {
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
    pub(super) fn check_exclusive(
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

    pub(super) fn assignments(
        &self,
        written: &[AssignmentDocument],
        reaches: &[Reach],
        exclusive: &[Exclusive],
    ) -> Result<Assignments, ConfigError> {
        let mut assignments = Assignments::default();
        let mut seen = BTreeSet::new();
        for assignment in written {
            let AssignmentDocument { issuer, subject, tenant, kind, roles } = assignment;
            check_identity(issuer, "assignments.issuer", self.origin)?;
            check_identity(subject, "assignments.subject", self.origin)?;
            if let Some(tenant) = tenant {
                check_identity(tenant, "assignments.tenant", self.origin)?;
            }
            let roles = self.roles_named("assignments.roles", roles)?;
            let kind = kind.as_ref().map(|kind| self.kind(kind)).transpose()?;
            let tenant = tenant.as_ref().map(|tenant| tenant.value.as_str());
            let who = (issuer.value.as_str(), subject.value.as_str());
            if !seen.insert((who, tenant, kind.map(PrincipalKind::as_str))) {
                return Err(self.origin.error_of(
                    subject,
                    "assignments.subject",
                    "stands twice for this tenant and kind",
                ));
            }
            assignments.add(who.0, who.1, Assignment { tenant: tenant.map(Into::into), kind, roles });
        }
        for AssignmentDocument { issuer, subject, tenant, .. } in written {
            let tenant = tenant.as_ref().map(|tenant| tenant.value.as_str());
            let held = |kind| {
                let held = assignments.of(&issuer.value, &subject.value).iter();
                let held = held.filter(move |assigned| assigned.holds_in(tenant) && assigned.is_of(kind));
                let roles = held.flat_map(|assigned| &assigned.roles);
                roles.filter_map(|role| reaches.get(*role)).map(|reach| &reach.roles)
            };
            let is_broken = |set: &&Exclusive| PrincipalKind::ALL.into_iter().any(|kind| set.is_broken_by(held(kind)));
            if let Some(broken) = exclusive.iter().find(is_broken) {
                let problem = format!("is assigned more of the roles of exclusive.{} than one may have", broken.name);
                return Err(self.origin.error_of(subject, "assignments.subject", problem));
            }
        }
        Ok(assignments)
    }

    fn kind(&self, name: &Placed) -> Result<PrincipalKind, ConfigError> {
        PrincipalKind::named(&name.value)
            .ok_or_else(|| self.origin.error_of(name, "assignments.kind", "is none of user, service and key"))
    }
}
