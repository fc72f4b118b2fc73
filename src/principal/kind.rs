/// What a [`Principal`](crate::Principal) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program that acts for itself.
    Service,
    /// The holder of an API key.
    Key,
}

impl PrincipalKind {
    /// The kind in lower case, as records show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Key => "key",
        }
    }

    #[cfg(feature = "policy-files")]
    pub(crate) const ALL: [Self; 3] = [Self::User, Self::Service, Self::Key];

    /// The kind by that name.
    #[cfg(feature = "policy-files")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Which of the two identities of a request a [`Principal`](crate::Principal) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: a request has these two identities")]
pub enum Slot {
    /// Who acts.
    Subject,
    /// What acts for the subject: an application with a key or certificate of its own.
    Client,
}
