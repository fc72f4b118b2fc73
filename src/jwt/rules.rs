//! A profile as it is configured, before its claims have places.

use std::{sync::Arc, time::Duration};

use crate::{
    error::ConfigError,
    jwt::{
        Algorithm, ClaimPath,
        claims::Registered,
        keys::Keys,
        need::{Expected, Need},
        path::{Mapped, SCOPE},
        profile::{Binding, Lacks, Name, Profile, ScopeForm, ServiceIf, TokenKind},
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
    /// The claim that names the client, where it is neither `client_id` nor `azp`.
    pub(super) client: Option<ClaimPath>,
    /// The claim that tells the token from others, where it is not `jti`.
    pub(super) token_id: Option<ClaimPath>,
    pub(super) service_if: ServiceIf<ClaimPath>,
    /// Of each, one is enough.
    pub(super) required: Vec<Vec<ClaimPath>>,
    /// Claims, and the values of which one must be theirs.
    pub(super) expected: Vec<(ClaimPath, Vec<String>)>,
    /// A claim, and the value by which it says that the token is bound to a key.
    pub(super) key_bound_if: Option<(ClaimPath, &'static str)>,
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
            client: None,
            token_id: None,
            service_if: ServiceIf::SubjectIsClientId,
            required: Vec::new(),
            expected: Vec::new(),
            key_bound_if: None,
            max_lifetime: None,
            max_age: None,
        }
    }

    /// Gives the claims that are mapped their places.
    pub(super) fn profile(self, names: Vec<NameRule>, keys: Keys, mapped: &mut Mapped) -> Result<Profile, ConfigError> {
        for (setting, limit) in [("maximum JWT lifetime", self.max_lifetime), ("maximum JWT age", self.max_age)] {
            if limit == Some(Duration::ZERO) {
                return Err(ConfigError::new(setting, "0 s", "would refuse every token"));
            }
        }
        let mut place = |claim: &ClaimPath| mapped.place_of(claim);
        let scope = match &self.scope {
            None => (SCOPE, ScopeForm::Text),
            Some((claim, form)) => (place(claim)?, *form),
        };
        let roles = self.roles.as_ref().map(&mut place).transpose()?;
        let permissions = self.permissions.as_ref().map(&mut place).transpose()?;
        let tenant = self.tenant.as_ref().map(&mut place).transpose()?;
        let client = self.client.as_ref().map(&mut place).transpose()?;
        let token_id = self.token_id.as_ref().map(&mut place).transpose()?;
        let service_if = self.service_if.place(&mut place)?;
        let key_bound_if =
            self.key_bound_if.map(|(claim, bound)| Ok::<_, ConfigError>((place(&claim)?, bound))).transpose()?;
        let mut expect = |(claim, values): (ClaimPath, Vec<String>)| {
            if values.is_empty() {
                let claim = format!("{:?}", claim.names());
                return Err(ConfigError::new("expected JWT claim", claim, "has no value to be"));
            }
            let registered = claim.top_level().and_then(Registered::from_name).filter(|claim| claim.is_text());
            let claim = match registered {
                Some(registered) => Need::Registered(registered),
                None => Need::Mapped(place(&claim)?),
            };
            Ok(Expected { claim, values: values.into_iter().map(Into::into).collect() })
        };
        let expected = self.expected.into_iter().map(&mut expect).collect::<Result<_, _>>()?;
        let mut name = |name: NameRule| {
            let tenant = name.tenant.map(|(claim, value)| expect((claim, vec![value]))).transpose()?;
            Ok(Name { iss: name.iss.into(), issuer: Arc::from(name.issuer), tenant })
        };
        let names = names.into_iter().map(&mut name).collect::<Result<_, ConfigError>>()?;
        let mut need = |claim: &ClaimPath| {
            Ok(match claim.top_level().and_then(Registered::from_name) {
                Some(registered) => Need::Registered(registered),
                None => Need::Mapped(mapped.place_of(claim)?),
            })
        };
        let mut needs = |claims: Vec<ClaimPath>| claims.iter().map(&mut need).collect::<Result<_, ConfigError>>();
        Ok(Profile {
            names,
            keys,
            kind: self.kind,
            binding: self.bind.accept(),
            algorithms: self.algorithms.into(),
            max_lifetime: self.max_lifetime,
            max_age: self.max_age,
            scope,
            roles,
            permissions,
            tenant,
            client,
            token_id,
            service_if,
            required: self.required.into_iter().map(&mut needs).collect::<Result<_, _>>()?,
            expected,
            key_bound_if,
            lacks: Lacks::default(),
            credential: "jwt",
        })
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

    pub(super) fn or(&mut self, value: String) {
        match self {
            Self::Audience(values) | Self::ClientId(values) => values.push(value),
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
