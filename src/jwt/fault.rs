use crate::{
    attempt::{Attempt, Fare},
    jwt::{
        Refusal,
        keys::KeySource,
        profile::{BAD_SIGNATURE, NO_KEY},
    },
    rejection::Rejection,
};

/// Why a token is not verified.
pub(super) enum Fault<'a> {
    Refused(Refusal),
    /// Not looked at: too many of its source were bad.
    Spared(Box<Rejection>),
    /// For lack of keys, which asking the source may change.
    Keys(KeyFault<'a>),
    /// Nobody knows whether it was revoked.
    Blind,
}

pub(super) struct KeyFault<'a> {
    pub(super) source: &'a dyn KeySource,
    pub(super) kid: Option<Box<str>>,
    pub(super) seen: u64,
    pub(super) gap: Gap,
}

impl KeyFault<'_> {
    /// What the keys that were tried cost, until newer ones do better.
    pub(super) fn fare<'a>(&'a self, attempt: Attempt<'a>) -> Fare<'a> {
        Fare::new(attempt, self.kid.as_deref(), self.gap.was_tried())
    }

    /// Why the token is refused if there are no newer keys.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal(if self.kid.is_none() && self.gap.was_tried() { BAD_SIGNATURE } else { NO_KEY })
    }
}

/// What is lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Any keys.
    All,
    /// The one that the token asks for. Whether others were tried in its place.
    One { tried: bool },
    /// Nothing, but the source would like to be refreshed.
    Refresh,
}

impl Gap {
    pub(super) const fn was_tried(self) -> bool {
        matches!(self, Self::One { tried: true })
    }
}

impl From<Refusal> for Fault<'_> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
