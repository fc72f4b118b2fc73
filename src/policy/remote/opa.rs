use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::{
    point::{DecisionPoint, Point, PointHealth},
    question,
};
use crate::{
    error::ConfigError,
    http_client::Endpoint,
    log::one_line,
    policy::{AccessQuery, Basis, PolicyBackend, QueryParts, Verdict, decision, unique::Unique},
};

/// Policies that an Open Policy Agent (OPA) decides, asked over its data API: `POST /v1/data/orders/allow`. A clone asks the
/// same one.
///
/// Decision and input are those of `Rego`, which evaluates in this process (feature `rego`): the decision is `true`, or an
/// object whose `allow` is `true`, with reasons, rules, obligations and advice; everything else denies, undefined (no
/// `result`) too. The same policy can run in either.
///
/// ```
/// use portcullis::policy::{DecisionPoint, Opa};
///
/// let policy = Opa::builder(DecisionPoint::at("https://opa.internal:8181"), "data.orders.allow").build()?;
/// # let _ = policy;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// | answer | verdict |
/// |---|---|
/// | `200`, `{"result": true}` | allow |
/// | `200`, `{"result": {"allow": true, ..}}` | allow, with what the document says |
/// | `200`, any other result, or none | deny |
/// | `200`, a decision document with a field that cannot be read | cannot decide |
/// | another status, no answer in time, too much of one, not a JSON object | cannot decide |
///
/// `decision_id`, which OPA logs its decisions under, is among the reasons of the record.
///
/// [`DecisionPoint`] has time limit, concurrency and credentials. OPA has no request for several questions: they go out one
/// after the other, until one has no answer; the rest then cannot be decided either.
///
/// `Cached` (feature `policy-cached`) remembers verdicts if [`holds_for`](OpaBuilder::holds_for) is said and
/// [`reads`](OpaBuilder::reads) leaves the time out.
#[derive(Clone)]
pub struct Opa {
    shared: Arc<Shared>,
}

struct Shared {
    point: Arc<Point>,
    endpoint: Endpoint,
    decision: Arc<str>,
    basis: Arc<Basis>,
    parts: QueryParts,
    holds_for: Option<Duration>,
}

/// Assembles an [`Opa`]; made by [`Opa::builder`].
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Debug)]
pub struct OpaBuilder {
    point: DecisionPoint,
    decision: Arc<str>,
    parts: QueryParts,
    holds_for: Option<Duration>,
}

impl Opa {
    /// Asks this decision point. `decision` is the path of the rule that decides, such as `data.orders.allow`.
    pub fn builder(point: DecisionPoint, decision: impl Into<Arc<str>>) -> OpaBuilder {
        OpaBuilder { point, decision: decision.into(), parts: QueryParts::ALL, holds_for: None }
    }

    /// How the decision point is doing, for health checks.
    pub fn health(&self) -> PointHealth {
        PointHealth::of(Arc::clone(&self.shared.point))
    }

    /// The verdict, or why there was no answer.
    async fn ask(&self, query: &AccessQuery<'_>) -> Result<Verdict, String> {
        let Shared { point, endpoint, decision, basis, parts, .. } = &*self.shared;
        let question = match question::input(query, *parts) {
            Ok(input) => json!({ "input": input }),
            Err(problem) => return Ok(Verdict::cannot_decide(problem)),
        };
        let answer = point.ask(endpoint, &question, query.at(), |_| Ok(())).await?;
        let Answer { result, decision_id } = answer;
        let verdict = decision::verdict(result.as_ref().map(|result| &result.0), decision, basis);
        Ok(match decision_id {
            Some(id) => verdict.because(format!("decision {}", one_line(&id))),
            None => verdict,
        })
    }

    async fn verdict_of(&self, query: &AccessQuery<'_>) -> Verdict {
        self.ask(query).await.unwrap_or_else(|cause| self.undecided(cause))
    }

    fn undecided(&self, cause: String) -> Verdict {
        Verdict::cannot_decide(cause).by(Arc::clone(&self.shared.decision))
    }
}

impl OpaBuilder {
    /// Says which parts of the question the policy reads: the others are not sent. All of them unless it is said.
    pub const fn reads(mut self, parts: QueryParts) -> Self {
        self.parts = parts;
        self
    }

    /// Says how long a verdict may be remembered, though the policy may change meanwhile. Not at all unless it is said.
    pub const fn holds_for(mut self, time: Duration) -> Self {
        self.holds_for = Some(time);
        self
    }

    /// Finishes the policy. Nothing is asked yet.
    ///
    /// # Errors
    /// If the URL is not `https`, has a user name, a query or a fragment; the decision is no path of a rule; a limit is out of
    /// its bounds; the token is none; the HTTP client cannot be made.
    pub fn build(self) -> Result<Opa, ConfigError> {
        let Self { point, decision, parts, holds_for } = self;
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        let path = match decision.strip_prefix("data.") {
            Some(path) if path.split('.').all(is_name) => format!("/v1/data/{}", path.replace('.', "/")),
            Some(_) | None => {
                let problem = "must be the path of a rule, such as \"data.orders.allow\"";
                return Err(ConfigError::new("decision", format!("{decision:?}"), problem));
            }
        };
        let (point, [endpoint]) = point.open([path.as_str()])?;
        let basis = Arc::new(Basis::new().rule(Arc::clone(&decision)));
        Ok(Opa { shared: Arc::new(Shared { point, endpoint, decision, basis, parts, holds_for }) })
    }
}

/// What OPA answers.
#[derive(Deserialize)]
struct Answer {
    result: Option<Unique>,
    decision_id: Option<String>,
}

#[async_trait]
impl PolicyBackend for Opa {
    fn name(&self) -> &'static str {
        "opa"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.verdict_of(query).await
    }

    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(queries.len());
        for query in queries {
            match self.ask(query).await {
                Ok(verdict) => verdicts.push(verdict),
                // Else a decision point that hangs would hold the request once for each question.
                Err(cause) => {
                    verdicts.resize(queries.len(), self.undecided(cause));
                    break;
                }
            }
        }
        verdicts
    }

    fn parts(&self) -> QueryParts {
        self.shared.parts
    }

    fn holds_for(&self) -> Option<Duration> {
        self.shared.holds_for
    }

    fn steps(&self, _: &AccessQuery<'_>) -> Vec<String> {
        vec![format!("{} is asked", self.shared.endpoint)]
    }
}

impl fmt::Debug for Opa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opa")
            .field("point", &self.shared.point.name())
            .field("decision", &self.shared.decision)
            .field("reads", &format_args!("{}", self.shared.parts))
            .finish_non_exhaustive()
    }
}
