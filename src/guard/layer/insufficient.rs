use std::sync::Arc;

use crate::{
    challenge::{Challenge, Challenges},
    error::ConfigError,
    guard::requirement::Requirement,
    policy::StepUp,
};

/// The challenges that tell what is missing; those of bearer tokens are written once.
#[derive(Clone)]
pub(super) struct Insufficient {
    realm: Arc<str>,
    /// What scopes it asks for.
    scopes: Box<str>,
    scope: Challenges,
    /// What the requirement itself demands.
    demand: Option<StepUp>,
    strength: Challenges,
}

impl Insufficient {
    /// Without a word of what is missing.
    pub(super) fn unsaid(realm: &str) -> Self {
        let none = Challenges::none;
        Self { realm: realm.into(), scopes: Box::default(), scope: none(), demand: None, strength: none() }
    }

    pub(super) fn new(realm: &str, requirement: &Requirement) -> Result<Self, ConfigError> {
        let mut scopes = Vec::new();
        requirement.node().scopes(&mut scopes);
        let scopes = scopes.join(" ");
        let scope = asking_for("Bearer", realm, &scopes)?;

        let mut strengths = Vec::new();
        requirement.node().strengths(&mut strengths);
        let demands = strengths.into_iter().map(|strength| strength.demand().clone());
        let demand = demands.reduce(|demand, other| demand.and(&other));
        let strength = demand.as_ref().map_or(Ok(Challenges::none()), |demand| demand.challenges("Bearer", realm))?;
        Ok(Self { realm: realm.into(), scopes: scopes.into(), scope, demand, strength })
    }

    /// Tells which scopes to ask for, by the scheme of the token.
    pub(super) fn scope(&self, scheme: &str) -> Challenges {
        if scheme == "Bearer" {
            return self.scope.clone();
        }
        // Cannot fail where the one above did not.
        asking_for(scheme, &self.realm, &self.scopes).unwrap_or_default()
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

fn asking_for(scheme: &str, realm: &str, scopes: &str) -> Result<Challenges, ConfigError> {
    let challenge = Challenge::new(scheme, realm)?.with("error", "insufficient_scope")?.with("scope", scopes)?;
    Ok([challenge].into_iter().collect())
}
