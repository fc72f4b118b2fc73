//! Several policies as one.

#[cfg(feature = "policy-shadow")]
mod shadow;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

#[cfg(feature = "policy-shadow")]
pub use self::shadow::{Shadow, ShadowStats};
use crate::{
    error::ConfigError,
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, QueryParts, ReloadState, Verdict, verdict::Shadowed},
};

/// Several policies that decide together. It is a [`PolicyBackend`] itself, so that combinations nest.
///
/// They are asked in order, and no further than the answer needs: put those first that answer from memory. Rules, reasons,
/// obligations and versions are those of the policies whose answer became the answer; so a denial has no obligations of an allow.
/// It is [firm](Verdict::firm) if somebody denied firmly to whom the question is applicable, or if it is applicable to nobody and
/// one of them denied firmly. Whether a policy that is not asked any more would have denied firmly, nobody finds out: where a
/// `not` stands around the question, put those first that deny firmly. Without waiting it answers if all that are asked do.
///
/// Permission and role handles of a role policy in it ask that one alone; on a route, write
/// [`policy("orders:read")`](crate::guard::policy).
///
/// A denial whose [step-up](Verdict::step_up) the principal has made already is one that no step-up helps against. So a denial for
/// which one of them demanded a step-up is for this principal at this time alone, whatever the [parts](PolicyBackend::parts) say,
/// and `Cached` does not remember it.
///
/// ```
/// # #[cfg(feature = "rbac")]
/// # fn main() -> Result<(), portcullis::ConfigError> {
/// use portcullis::policy::{Combined, Rbac};
///
/// let by_role = Rbac::from_toml("version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ngrants = ['orders:read']")?;
/// let barred = Rbac::from_toml("version = '7'\npermissions = ['orders:read']\n[roles.suspended]\ndenies = ['*']")?;
/// let policy = Combined::deny_overrides(barred).with(by_role);
/// # let _ = policy;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "rbac"))]
/// # fn main() {}
/// ```
#[must_use]
#[derive(Debug)]
pub struct Combined {
    how: Algorithm,
    policies: Vec<Arc<dyn PolicyBackend>>,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    DenyOverrides,
    FirstApplicable,
    AllOf,
    AnyOf,
}

impl Combined {
    /// One denial denies; one that a [step-up](Verdict::step_up) helps against only if there is no other. Else one that cannot decide outweighs an allow, and an allow those to whom the question is
    /// [not applicable](Verdict::not_applicable); if it is so to all, it is denied.
    pub fn deny_overrides(policy: impl PolicyBackend) -> Self {
        Self::new(Algorithm::DenyOverrides, policy)
    }

    /// The first policy decides to whom the question is not [not applicable](Verdict::not_applicable); one that cannot decide
    /// is such a one. If it is so to all, it is denied.
    pub fn first_applicable(policy: impl PolicyBackend) -> Self {
        Self::new(Algorithm::FirstApplicable, policy)
    }

    /// All must allow. A denial, of whatever kind, outweighs one that cannot decide, and one that a [step-up](Verdict::step_up) helps
    /// against. What several demand is demanded together.
    pub fn all_of(policy: impl PolicyBackend) -> Self {
        Self::new(Algorithm::AllOf, policy)
    }

    /// One must allow. One that cannot decide outweighs denials, and a denial that a [step-up](Verdict::step_up) helps against others.
    pub fn any_of(policy: impl PolicyBackend) -> Self {
        Self::new(Algorithm::AnyOf, policy)
    }

    fn new(how: Algorithm, policy: impl PolicyBackend) -> Self {
        Self { how, policies: vec![Arc::new(policy)] }
    }

    /// Adds a policy that is asked after those that are there.
    pub fn with(mut self, policy: impl PolicyBackend) -> Self {
        self.policies.push(Arc::new(policy));
        self
    }
}

impl Algorithm {
    /// What outweighs what: of several answers the one of the highest rank counts.
    fn rank(self, verdict: &Verdict) -> u8 {
        let steps_up = verdict.step_up_demand().is_some();
        match (self, verdict.decision(), verdict.is_not_applicable()) {
            (Self::DenyOverrides | Self::FirstApplicable | Self::AnyOf, Decision::Deny, true) => SILENT,
            (Self::DenyOverrides, Decision::Allow, _) => 1,
            (Self::DenyOverrides, Decision::CannotDecide, _) => 2,
            (Self::DenyOverrides, Decision::Deny, false) if steps_up => 3,
            (Self::DenyOverrides, Decision::Deny, false) => SETTLED,
            (Self::FirstApplicable, _, _) => SETTLED,
            (Self::AllOf, Decision::Allow, _) => 1,
            (Self::AllOf, Decision::CannotDecide, _) => 2,
            (Self::AllOf, Decision::Deny, _) if steps_up => 3,
            (Self::AllOf, Decision::Deny, _) => SETTLED,
            // The way that is open after a step-up, where another is closed for good.
            (Self::AnyOf, Decision::Deny, false) if steps_up => 2,
            (Self::AnyOf, Decision::Deny, false) => 1,
            (Self::AnyOf, Decision::CannotDecide, _) => 3,
            (Self::AnyOf, Decision::Allow, _) => SETTLED,
        }
    }
}

/// Any other answer outweighs one of this rank.
const SILENT: u8 = 0;
/// No further answer changes one of this rank.
const SETTLED: u8 = 4;

/// The answers so far that would become the answer.
struct Fold {
    how: Algorithm,
    rank: u8,
    first: Option<Verdict>,
    more: Vec<Verdict>,
    /// What a policy says that is not enforced, beside verdicts that were outweighed: the record has it all the same.
    shadows: Vec<Shadowed>,
    /// Whether somebody to whom the question is applicable denied firmly.
    firm: bool,
    /// Whether somebody demanded a step-up, met or not.
    momentary: bool,
}

impl Fold {
    const fn new(how: Algorithm) -> Self {
        Self { how, rank: SILENT, first: None, more: Vec::new(), shadows: Vec::new(), firm: false, momentary: false }
    }

    /// A demand that is met already helps nobody: the verdict is a denial like any other.
    fn add(&mut self, verdict: Verdict, query: &AccessQuery<'_>) {
        let met = verdict.step_up_demand().map(|demand| demand.is_met_by(query.subject(), query.at()));
        self.momentary |= met.is_some() || verdict.is_of_the_moment();
        let verdict = if met == Some(true) { verdict.without_demand() } else { verdict };
        let rank = self.how.rank(&verdict);
        self.firm |= verdict.is_firm() && rank != SILENT;
        if self.first.is_none() || rank > self.rank {
            self.rank = rank;
            let outweighed = self.first.replace(verdict).into_iter().chain(self.more.drain(..));
            self.shadows.extend(outweighed.flat_map(|verdict| verdict.shadows().to_vec()));
        } else if rank == self.rank {
            self.more.push(verdict);
        } else {
            self.shadows.extend(verdict.shadows().iter().cloned());
        }
    }

    const fn is_settled(&self) -> bool {
        self.rank == SETTLED
    }

    fn finish(self) -> Verdict {
        let Some(first) = self.first else { return Verdict::cannot_decide("nobody was asked") };
        // Who demands all of them denies where one does not allow; that is no silence.
        let silent = first.is_not_applicable() && !matches!(self.how, Algorithm::AllOf);
        // Whoever outweighs a firm denial by another denial has not judged in its place.
        let firm = self.firm || (silent && std::iter::once(&first).chain(&self.more).any(Verdict::is_firm));
        let verdict = if self.more.is_empty() && (silent || !first.is_not_applicable()) {
            first
        } else {
            let merged = merge(first.decision(), &first, &self.more);
            let mut demands = std::iter::once(&first).chain(&self.more).filter_map(Verdict::step_up_demand);
            let demand = match self.how {
                // One of the ways is enough.
                Algorithm::AnyOf | Algorithm::FirstApplicable => demands.next().cloned(),
                Algorithm::AllOf | Algorithm::DenyOverrides => {
                    demands.cloned().reduce(|demand, other| demand.and(&other))
                }
            };
            match demand {
                Some(demand) => merged.with_demand(demand),
                None => merged,
            }
        };
        let verdict = if firm { verdict.firm() } else { verdict };
        let verdict = if self.momentary { verdict.of_the_moment() } else { verdict };
        let verdict = verdict.with_shadows(self.shadows);
        if silent { verdict.leaving_it() } else { verdict }
    }
}

fn merge(decision: Decision, first: &Verdict, more: &[Verdict]) -> Verdict {
    let all = || std::iter::once(first).chain(more);
    let versions: Vec<_> = all().filter_map(Verdict::version).map(Arc::clone).collect();
    let merged = all().fold(Verdict::new(decision), |merged, verdict| merged.with_facts_of(verdict));
    match joined(versions) {
        Some(version) => merged.of_version(version),
        None => merged,
    }
}

/// Each version once, in order.
fn joined(versions: Vec<Arc<str>>) -> Option<Arc<str>> {
    let mut each: Vec<Arc<str>> = Vec::new();
    for version in versions {
        if !each.contains(&version) {
            each.push(version);
        }
    }
    match &each[..] {
        [] => None,
        [one] => Some(Arc::clone(one)),
        several => Some(several.join(", ").into()),
    }
}

/// The sum of those that are told: one that is not must not hide that another one grew.
pub(super) fn sum(generations: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    generations.into_iter().flatten().reduce(u64::saturating_add)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl PolicyBackend for Combined {
    fn name(&self) -> &'static str {
        match self.how {
            Algorithm::DenyOverrides => "deny_overrides",
            Algorithm::FirstApplicable => "first_applicable",
            Algorithm::AllOf => "all_of",
            Algorithm::AnyOf => "any_of",
        }
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let mut fold = Fold::new(self.how);
        for policy in &self.policies {
            match policy.decide_now(query) {
                Now::Known(verdict) => fold.add(verdict, query),
                Now::Wait => return Now::Wait,
            }
            if fold.is_settled() {
                break;
            }
        }
        Now::Known(fold.finish())
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        let mut fold = Fold::new(self.how);
        for policy in &self.policies {
            fold.add(ask(&**policy, query).await, query);
            if fold.is_settled() {
                break;
            }
        }
        fold.finish()
    }

    /// Asks each policy at most once, about all that is open.
    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let mut folds: Vec<Fold> = queries.iter().map(|_| Fold::new(self.how)).collect();
        for policy in &self.policies {
            let mut open: Vec<_> = folds.iter_mut().zip(queries).filter(|(fold, _)| !fold.is_settled()).collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<AccessQuery<'_>> = open.iter().map(|(_, query)| **query).collect();
            let mut verdicts = policy.decide_all(&asked).await;
            if verdicts.len() != asked.len() {
                let reason = format!("{} answers for {} questions", verdicts.len(), asked.len());
                verdicts = vec![Verdict::cannot_decide(reason); asked.len()];
            }
            for ((fold, query), verdict) in open.iter_mut().zip(verdicts) {
                fold.add(verdict, query);
            }
        }
        folds.into_iter().map(Fold::finish).collect()
    }

    fn generation(&self) -> Option<u64> {
        sum(self.policies.iter().map(|policy| policy.generation()))
    }

    fn version(&self) -> Option<Arc<str>> {
        joined(self.policies.iter().filter_map(|policy| policy.version()).collect())
    }

    fn parts(&self) -> QueryParts {
        self.policies.iter().fold(QueryParts::NONE, |parts, policy| parts.and(policy.parts()))
    }

    fn holds_for(&self) -> Option<Duration> {
        self.policies.iter().try_fold(Duration::MAX, |least, policy| Some(least.min(policy.holds_for()?)))
    }

    /// What all must allow is allowed to nobody if one of them does not know it; elsewhere one that knows it is enough.
    fn check_action(&self, action: &str) -> Result<(), ConfigError> {
        let mut unknown = self.policies.iter().filter_map(|policy| policy.check_action(action).err());
        let first = unknown.next();
        let others = unknown.count();
        match first {
            Some(first) if matches!(self.how, Algorithm::AllOf) || others.saturating_add(1) == self.policies.len() => {
                Err(first)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn reload_state(&self) -> Option<ReloadState> {
        self.policies.iter().filter_map(|policy| policy.reload_state()).reduce(ReloadState::and)
    }

    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        let steps = |policy: &Arc<dyn PolicyBackend>| {
            let answer = match policy.decide_now(query) {
                Now::Known(verdict) if verdict.is_not_applicable() => "not applicable",
                Now::Known(verdict) => verdict.decision().as_str(),
                Now::Wait => "must be waited for",
            };
            let inner = policy.steps(query).into_iter().map(|step| format!("  {step}"));
            std::iter::once(format!("{}: {answer}", policy.name())).chain(inner).collect::<Vec<_>>()
        };
        self.policies.iter().flat_map(steps).collect()
    }
}

/// Answers at once where it can.
pub(super) async fn ask(policy: &dyn PolicyBackend, query: &AccessQuery<'_>) -> Verdict {
    match policy.decide_now(query) {
        Now::Known(verdict) => verdict,
        Now::Wait => policy.decide(query).await,
    }
}
