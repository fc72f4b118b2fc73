use std::sync::Arc;

use crate::{
    challenge::{Challenge, Challenges},
    error::ConfigError,
    guard::requirement::Requirement,
    policy::StepUp,
};

/// The challenges that tell what is missing, written once.
#[derive(Clone)]
pub(super) struct Insufficient {
    realm: Arc<str>,
    scope: Challenges,
    /// The same for a token that is bound to a key.
    scope_of_bound: Challenges,
    /// What the requirement itself demands.
    demand: Option<StepUp>,
    strength: Challenges,
}

impl Insufficient {
    /// Without a word of what is missing.
    pub(super) fn unsaid(realm: &str) -> Self {
        let none = Challenges::none;
        Self { realm: realm.into(), scope: none(), scope_of_bound: none(), demand: None, strength: none() }
    }

    pub(super) fn new(realm: &str, requirement: &Requirement) -> Result<Self, ConfigError> {
        let mut scopes = Vec::new();
        requirement.node().scopes(&mut scopes);
        let scopes = scopes.join(" ");
        let scope = |scheme| {
            let challenge =
                Challenge::new(scheme, realm)?.with("error", "insufficient_scope")?.with("scope", &scopes)?;
            Ok::<_, ConfigError>([challenge].into_iter().collect::<Challenges>())
        };
        let (scope, scope_of_bound) = (scope("Bearer")?, scope("DPoP")?);

        let mut strengths = Vec::new();
        requirement.node().strengths(&mut strengths);
        let demands = strengths.into_iter().map(|strength| strength.demand().clone());
        let demand = demands.reduce(|demand, other| demand.and(&other));
        let strength = demand.as_ref().map_or(Ok(Challenges::none()), |demand| demand.challenges("Bearer", realm))?;
        Ok(Self { realm: realm.into(), scope, scope_of_bound, demand, strength })
    }

    /// Tells which scopes to ask for, by the scheme of the token.
    pub(super) fn scope(&self, scheme: &str) -> Challenges {
        if scheme == "Bearer" { self.scope.clone() } else { self.scope_of_bound.clone() }
    }

    /// Tells what must be proved: what the requirement demands, and what the policies demand that it asks.
    pub(super) fn strength<'a>(&'a self, demands: impl Iterator<Item = &'a StepUp>, scheme: &str) -> Challenges {
        let mut demands = demands.peekable();
        if demands.peek().is_none() && scheme == "Bearer" {
            return self.strength.clone();
        }
        let all = self.demand.iter().chain(demands).cloned().reduce(|demand, other| demand.and(&other));
        // Cannot fail: realm and classes are of the allowed characters.
        all.and_then(|demand| demand.challenges(scheme, &self.realm).ok()).unwrap_or_default()
    }
}
