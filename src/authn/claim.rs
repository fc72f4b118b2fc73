use std::borrow::Cow;

use crate::error::ConfigError;

/// Credentials that an authenticator takes for its own whoever else may know them, so that it refuses those which it does not know.
///
/// Two that claim the same refuse each other's: in [`one_of`](crate::authn::one_of) no credential would pass. [`Authenticator::claims`]
/// says which they are, and a stack with two of them does not build.
///
/// [`Authenticator::claims`]: crate::authn::Authenticator::claims
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    what: Cow<'static, str>,
    instead: &'static str,
    /// What the credentials begin with, one of these; empty for any.
    own: Vec<Box<str>>,
    /// What those begin with that are left to others.
    left: Vec<Box<str>>,
}

impl Claim {
    /// Claims all credentials of one kind or in one place, such as `the field x-ticket`: the same words for the same thing. `instead`
    /// tells the operator what to do about two of them.
    pub fn all(what: impl Into<Cow<'static, str>>, instead: &'static str) -> Self {
        Self { what: what.into(), instead, own: vec!["".into()], left: Vec::new() }
    }

    /// Claims them all but for those that begin so.
    #[cfg(feature = "api-key")]
    pub(crate) fn all_but(mut self, own: Vec<Box<str>>, left: Vec<Box<str>>) -> Self {
        (self.own, self.left) = (own, left);
        self
    }

    fn leaves(&self, other: &Self) -> bool {
        other.own.iter().all(|own| self.left.contains(own))
    }

    /// Whether it is about the same.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.what == other.what
    }

    fn contradicts(&self, other: &Self) -> bool {
        self.is_of(other) && !(self.leaves(other) && other.leaves(self))
    }
}

/// The first two that contradict each other.
pub(super) fn contradiction(claims: &[Claim]) -> Result<(), ConfigError> {
    for (place, one) in claims.iter().enumerate() {
        if let Some(other) = claims.iter().skip(place.saturating_add(1)).find(|other| one.contradicts(other)) {
            let instead = if one.instead == other.instead {
                one.instead
            } else {
                "let one of them read another field, or other tokens"
            };
            let problem =
                format!("is claimed by two authenticators, and each refuses the credentials of the other: {instead}");
            return Err(ConfigError::new("one_of", one.what.clone(), problem));
        }
    }
    Ok(())
}
