use std::fmt;

/// Parts of a question: what a backend's verdict depends on, besides the action. A cache keeps them in its key.
///
/// ```
/// use portcullis::policy::QueryParts;
///
/// let parts = QueryParts::ROLES.and(QueryParts::RESOURCE);
/// assert!(parts.has(QueryParts::ROLES) && !parts.has(QueryParts::TIME));
/// assert_eq!(parts.to_string(), "roles, resource");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryParts(u16);

impl QueryParts {
    /// The action alone.
    pub const NONE: Self = Self(0);
    /// Issuer and subject of who acts.
    pub const SUBJECT: Self = Self(1);
    /// Its roles.
    pub const ROLES: Self = Self(1 << 1);
    /// Its scopes.
    pub const SCOPES: Self = Self(1 << 2);
    /// The permissions that its credential carries.
    pub const PERMISSIONS: Self = Self(1 << 3);
    /// Its tenant.
    pub const TENANT: Self = Self(1 << 4);
    /// How and when it was authenticated: `acr`, `amr`, `auth_time`.
    pub const STRENGTH: Self = Self(1 << 5);
    /// Everything else that its credential says: kind, credential and its id, what it is bound to, plan, end, claims.
    pub const CLAIMS: Self = Self(1 << 6);
    /// What acts for the subject, with all that is known of it.
    pub const CLIENT: Self = Self(1 << 7);
    /// Type and id of the thing, and whether there is one.
    pub const RESOURCE: Self = Self(1 << 8);
    /// Owner, tenant and attributes of the thing. Who tells a thing that has none of them from no thing reads
    /// [`RESOURCE`](Self::RESOURCE) as well.
    pub const RESOURCE_FACTS: Self = Self(1 << 9);
    /// The attributes of the question.
    pub const ATTRIBUTES: Self = Self(1 << 10);
    /// The request's method.
    pub const METHOD: Self = Self(1 << 11);
    /// The route template.
    pub const ROUTE: Self = Self(1 << 12);
    /// The client's address.
    pub const ADDRESS: Self = Self(1 << 13);
    /// The time.
    pub const TIME: Self = Self(1 << 14);
    /// All of them.
    pub const ALL: Self = Self((1 << 15) - 1);

    const NAMES: [&'static str; 15] = [
        "subject",
        "roles",
        "scopes",
        "permissions",
        "tenant",
        "strength",
        "claims",
        "client",
        "resource",
        "resource facts",
        "attributes",
        "method",
        "route",
        "address",
        "time",
    ];

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[cfg(feature = "policy-cached")]
    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of those are among these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for QueryParts {
    /// Their names, separated by commas; `none` if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let names = (0..).zip(Self::NAMES).filter(|(bit, _)| self.has(Self(1 << bit))).map(|(_, name)| name);
        for (position, name) in names.enumerate() {
            write!(f, "{}{name}", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_name() {
        assert_eq!(QueryParts::ALL.to_string().split(", ").count(), 15);
        assert_eq!(QueryParts::NONE.to_string(), "none");
        assert_eq!(QueryParts::TIME.to_string(), "time");
        assert_eq!(QueryParts::ALL.without(QueryParts::TIME).and(QueryParts::TIME), QueryParts::ALL);
        assert!(!QueryParts::ROLES.has(QueryParts::ALL) && QueryParts::NONE.has(QueryParts::NONE));
    }
}
