use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::principal::{Principal, PrincipalKind};

/// Who has which roles by the policy itself: by issuer, then by subject.
#[derive(Debug, Default)]
pub(super) struct Assignments(HashMap<Box<str>, BySubject, FixedState>);

type BySubject = HashMap<Box<str>, Vec<Assignment>, FixedState>;

/// Roles of one subject, in one tenant or in all of them, of one kind of principals or of whoever has the name.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) tenant: Option<Box<str>>,
    pub(super) kind: Option<PrincipalKind>,
    pub(super) roles: Vec<usize>,
}

impl Assignments {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, issuer: &str, subject: &str, assignment: Assignment) {
        self.0.entry(issuer.into()).or_default().entry(subject.into()).or_default().push(assignment);
    }

    /// The roles of a principal in a tenant.
    pub(super) fn roles_of(&self, principal: &Principal, tenant: Option<&str>) -> impl Iterator<Item = &usize> {
        let (assigned, kind) = (self.of(principal.issuer(), principal.subject()).iter(), principal.kind());
        let held = assigned.filter(move |assigned| assigned.holds_in(tenant) && assigned.is_of(kind));
        held.flat_map(|assigned| &assigned.roles)
    }

    pub(super) fn of(&self, issuer: &str, subject: &str) -> &[Assignment] {
        self.0.get(issuer).and_then(|subjects| subjects.get(subject)).map_or(&[], Vec::as_slice)
    }
}

impl Assignment {
    pub(super) fn holds_in(&self, tenant: Option<&str>) -> bool {
        match &self.tenant {
            None => true,
            Some(own) => tenant == Some(&**own),
        }
    }

    pub(super) fn is_of(&self, kind: PrincipalKind) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }
}
