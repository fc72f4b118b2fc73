//! Claims that a profile demands.

use crate::jwt::{
    Refusal,
    claims::{Claims, Registered},
    json::Shape,
};

/// A claim that must be there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    Registered(Registered),
    Mapped(usize),
}

impl Need {
    pub(super) fn is_met(self, claims: &Claims<'_>) -> bool {
        match self {
            Self::Registered(claim) => claims.has(claim),
            Self::Mapped(place) => claims.mapped(place).is_some(),
        }
    }

    pub(super) const fn missing(self) -> Refusal {
        match self {
            Self::Registered(claim) => claim.missing(),
            Self::Mapped(_) => Refusal("a claim that the profile requires is missing"),
        }
    }
}

/// A claim that must be a string, and one of these.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) claim: Need,
    pub(super) values: Box<[Box<str>]>,
}

impl Expected {
    pub(super) fn check(&self, claims: &Claims<'_>) -> Result<(), Refusal> {
        let text = match self.claim {
            Need::Registered(claim) => claims.text(claim),
            Need::Mapped(place) => match claims.mapped(place) {
                Some(Shape::Text(text)) => Some(&**text),
                Some(_) => return Err(Refusal("a claim that the profile expects is not a string")),
                None => None,
            },
        };
        match text {
            Some(text) if self.values.iter().any(|value| **value == *text) => Ok(()),
            Some(_) => Err(Refusal("a claim has another value than the profile expects")),
            None => Err(Refusal("a claim that the profile expects is missing")),
        }
    }
}
