use std::fmt;

use crate::{
    now::Now,
    policy::{AccessQuery, PolicyBackend, Verdict},
};

/// Asks a policy, and tells how it came to its verdict: for people, on a command line or in a test.
///
/// Print what it returns. Nothing is recorded, and nothing of it is for clients.
pub async fn explain(policy: &dyn PolicyBackend, query: &AccessQuery<'_>) -> Explanation {
    let verdict = match policy.decide_now(query) {
        Now::Known(verdict) => verdict,
        Now::Wait => policy.decide(query).await,
    };
    Explanation { question: question(query), backend: policy.name(), steps: policy.steps(query), verdict }
}

/// A verdict and how it came about; made by [`explain`]. `Display` is the text.
#[derive(Clone, Debug)]
pub struct Explanation {
    question: String,
    backend: &'static str,
    steps: Vec<String>,
    verdict: Verdict,
}

impl Explanation {
    /// The verdict.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The steps that the backend told.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.steps
    }
}

/// The question in one line.
pub(super) fn question(query: &AccessQuery<'_>) -> String {
    let subject = query.subject();
    let mut text = format!("{} of {}: {}", subject.subject(), subject.issuer(), query.action());
    if let Some(resource) = query.resource() {
        text.push_str(&format!(" on {} {}", resource.kind(), resource.id()));
    }
    text
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { question, backend, steps, verdict } = self;
        writeln!(f, "{question}")?;
        write!(f, "{backend}: {}", verdict.decision().as_str())?;
        if !verdict.rules().is_empty() {
            write!(f, ", by {}", verdict.rules().join(", "))?;
        }
        if let Some(version) = verdict.version() {
            write!(f, ", version {version}")?;
        }
        writeln!(f)?;
        for reason in verdict.reasons() {
            writeln!(f, "  because: {reason}")?;
        }
        for obligation in verdict.obligations() {
            writeln!(f, "  obligation: {obligation}")?;
        }
        if let Some(demand) = verdict.step_up_demand() {
            writeln!(f, "  step-up: {demand}")?;
        }
        for advice in verdict.advice() {
            writeln!(f, "  advice: {advice}")?;
        }
        for step in steps {
            writeln!(f, "  - {step}")?;
        }
        Ok(())
    }
}
