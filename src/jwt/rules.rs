//! A profile as it is configured, before its claims have places.

use std::time::Duration;

use crate::{
    error::ConfigError,
    jwt::{
        Algorithm, ClaimPath,
        profile::{Binding, ScopeForm, ServiceIf, TokenKind},
    },
};

/// What the tokens of an issuer must be, and how claims make up the principal.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) kind: TokenKind,
    pub(super) bind: Bind,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) scope: Option<(ClaimPath, ScopeForm)>,
    pub(super) roles: Option<ClaimPath>,
    pub(super) permissions: Option<ClaimPath>,
    pub(super) tenant: Option<ClaimPath>,
    pub(super) service_if: ServiceIf<ClaimPath>,
    /// Of each, one is enough.
    pub(super) required: Vec<Vec<ClaimPath>>,
    /// Claims, and the values of which one must be theirs.
    pub(super) expected: Vec<(ClaimPath, Vec<String>)>,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) max_age: Option<Duration>,
}

impl Rules {
    /// Maps nothing but `scope`, requires nothing but what every token needs.
    pub(super) const fn new(kind: TokenKind, bind: Bind) -> Self {
        Self {
            kind,
            bind,
            algorithms: Vec::new(),
            scope: None,
            roles: None,
            permissions: None,
            tenant: None,
            service_if: ServiceIf::SubjectIsClientId,
            required: Vec::new(),
            expected: Vec::new(),
            max_lifetime: None,
            max_age: None,
        }
    }
}

/// The claim that says that a token is for us, and the values of which one is enough.
#[derive(Clone, Debug)]
pub(super) enum Bind {
    Audience(Vec<String>),
    ClientId(Vec<String>),
}

impl Bind {
    pub(super) fn values(&self) -> &[String] {
        match self {
            Self::Audience(values) | Self::ClientId(values) => values,
        }
    }

    pub(super) fn accept(self) -> Binding {
        let boxed = |values: Vec<String>| values.into_iter().map(Into::into).collect();
        match self {
            Self::Audience(values) => Binding::Audience(boxed(values)),
            Self::ClientId(values) => Binding::ClientId(boxed(values)),
        }
    }
}

impl ServiceIf<ClaimPath> {
    pub(super) fn place(
        &self,
        place: &mut impl FnMut(&ClaimPath) -> Result<usize, ConfigError>,
    ) -> Result<ServiceIf<usize>, ConfigError> {
        Ok(match self {
            Self::Always => ServiceIf::Always,
            Self::SubjectIsClientId => ServiceIf::SubjectIsClientId,
            Self::SubjectIsClientWith(suffix) => ServiceIf::SubjectIsClientWith(suffix),
            Self::SubjectIs(claim) => ServiceIf::SubjectIs(place(claim)?),
        })
    }
}

/// One `iss` of a profile.
#[derive(Clone, Debug)]
pub(super) struct NameRule {
    /// As it stands in the token.
    pub(super) iss: String,
    /// As the principal has it: the same for all spellings of one issuer.
    pub(super) issuer: String,
    /// The claim that must repeat the tenant in `iss`, and the tenant.
    pub(super) tenant: Option<(ClaimPath, String)>,
}

impl NameRule {
    pub(super) fn exactly(iss: String) -> Self {
        Self { issuer: iss.clone(), iss, tenant: None }
    }
}
