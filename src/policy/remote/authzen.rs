mod batch;
mod evaluation;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::{
    batch::Batch,
    evaluation::{Evaluation, Evaluations},
};
use super::{
    point::{DecisionPoint, Point, PointHealth},
    question::{self, Fields},
};
use crate::{
    clock::Instants,
    error::ConfigError,
    http_client::Endpoint,
    policy::{AccessQuery, PolicyBackend, QueryParts, Verdict},
};

/// Policies that a decision point decides which speaks AuthZEN (Authorization API 1.0): Cerbos, Topaz, OpenFGA, Keycloak and
/// others. A clone asks the same one.
///
/// One question is `POST /access/v1/evaluation`; several are `POST /access/v1/evaluations`, up to 100 in a request. Those of one
/// request have one subject and one context, and each resource is described in one way: Cerbos 0.51 knows both by type and id, and
/// answers by the properties that it saw first.
///
/// ```
/// use portcullis::policy::{AuthZen, DecisionPoint};
///
/// let policy = AuthZen::builder(DecisionPoint::at("https://pdp.internal"))
///     .subjects("https://id.example.com", "user")
///     .resource_if_none("service", "orders-api")
///     .build()?;
/// # let _ = policy;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # The question
/// | field | value |
/// |---|---|
/// | `subject.type`, `.id` | what [`subjects`](AuthZenBuilder::subjects) says of its issuer; its subject |
/// | `subject.properties` | `issuer`, `roles`, `scopes`, and the rest that `Opa` sends of a principal |
/// | `action.name` | the action |
/// | `resource.type`, `.id` | those of the thing, or of [`resource_if_none`](AuthZenBuilder::resource_if_none) |
/// | `resource.properties` | its attributes, `owner`, `tenant` |
/// | `context` | the question's attributes, `client`, `method`, `route`, `address`, `time`, `time_ns`; `requested_by` if there is nothing else |
///
/// An attribute whose name is one of these is not sent. What is not known is left out.
///
/// # The answer
/// | answer | verdict |
/// |---|---|
/// | `200`, `decision` is `true` | allow |
/// | `200`, `decision` is `false` | deny |
/// | `false` with `context.acr_values`, `.max_age` or `.factors` | deny until the [step-up](Verdict::step_up) |
/// | `false` with `context.error` whose `status` is 500 or more, or no number, or is missing | cannot decide |
/// | `true` with `context.error`, or with `context.obligations` that cannot be read | cannot decide |
/// | `decision` is missing or of another type, or one of several answers is no object | cannot decide, all of the request |
/// | not as many answers as there were questions | cannot decide, all of the request |
/// | another status, no answer in time, too much of one, not a JSON object | cannot decide |
///
/// Of `context`, `id`, `reason`, `reason_admin`, `reasons` and `error.message` go into the record; `obligations`, each a name
/// or an object of a `name` and parameters, bind as any other. The client sees none of it.
#[derive(Clone)]
pub struct AuthZen {
    shared: Arc<Shared>,
}

struct Shared {
    point: Arc<Point>,
    one: Endpoint,
    several: Endpoint,
    settings: Settings,
}

#[derive(Debug)]
struct Settings {
    /// Issuer and type.
    subjects: Vec<(String, String)>,
    roles: String,
    /// Type and id.
    resource_if_none: Option<(String, String)>,
    parts: QueryParts,
    holds_for: Option<Duration>,
}

/// Assembles an [`AuthZen`]; made by [`AuthZen::builder`].
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Debug)]
pub struct AuthZenBuilder {
    point: DecisionPoint,
    settings: Settings,
}

/// What no attribute may pretend to be.
const OWN_PROPERTIES: [&str; 2] = ["owner", "tenant"];
const OWN_CONTEXT: [&str; 6] = ["client", "method", "route", "address", "time", "time_ns"];

impl AuthZen {
    /// Asks this decision point.
    pub const fn builder(point: DecisionPoint) -> AuthZenBuilder {
        let settings = Settings {
            subjects: Vec::new(),
            roles: String::new(),
            resource_if_none: None,
            parts: QueryParts::ALL,
            holds_for: None,
        };
        AuthZenBuilder { point, settings }
    }

    /// How the decision point is doing, for health checks.
    pub fn health(&self) -> PointHealth {
        PointHealth::of(Arc::clone(&self.shared.point))
    }

    async fn ask_several(&self, body: Value, count: usize, at: Instants) -> Result<Vec<Verdict>, String> {
        let Shared { point, several, .. } = &*self.shared;
        // One that does not know this request may answer as if it were one question.
        let check = |answer: &Evaluations| match answer.evaluations.len() {
            answers if answers == count => Ok(()),
            answers => Err(format!("{answers} answers for {count} questions")),
        };
        let answers: Evaluations = point.ask(several, &body, at, check).await?;
        Ok(answers.evaluations.into_iter().map(Evaluation::verdict).collect())
    }
}

impl AuthZenBuilder {
    /// Says that the principals of this issuer are of this type, with their subject as id. A principal is known by issuer and
    /// subject together (RFC 8725 §3.8): each issuer has a type of its own, and who is of another issuer is denied,
    /// [firmly](Verdict::firm). At least one is needed. Principals of API keys have their store's name as issuer.
    pub fn subjects(mut self, issuer: impl Into<String>, kind: impl Into<String>) -> Self {
        self.settings.subjects.push((issuer.into(), kind.into()));
        self
    }

    /// Names the property of a subject that holds its roles; `roles` unless it is said. Cerbos reads `cerbos.roles`.
    pub fn roles_property(mut self, name: impl Into<String>) -> Self {
        self.settings.roles = name.into();
        self
    }

    /// Names the resource of a question that names none: AuthZEN demands one. Without it, such a question cannot be decided.
    pub fn resource_if_none(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.settings.resource_if_none = Some((kind.into(), id.into()));
        self
    }

    /// Says which parts of the question the policy reads: the others are not sent. Subject and resource are sent always. All
    /// of them unless it is said.
    pub const fn reads(mut self, parts: QueryParts) -> Self {
        self.settings.parts = parts.and(QueryParts::SUBJECT).and(QueryParts::RESOURCE);
        self
    }

    /// Says how long a verdict may be remembered, though the policy may change meanwhile. Not at all unless it is said.
    pub const fn holds_for(mut self, time: Duration) -> Self {
        self.settings.holds_for = Some(time);
        self
    }

    /// Finishes the policy. Nothing is asked yet.
    ///
    /// # Errors
    /// If no issuer is named, one is named twice, or two have one type; the URL is not `https`, has a user name, a query or a
    /// fragment; a limit is out of its bounds; the token is none; the HTTP client cannot be made.
    pub fn build(self) -> Result<AuthZen, ConfigError> {
        let Self { point, mut settings } = self;
        let subjects = &settings.subjects;
        if subjects.is_empty() {
            return Err(ConfigError::new("subjects", "none", "would be known to the decision point"));
        }
        for (index, (issuer, kind)) in subjects.iter().enumerate() {
            let mut earlier = subjects.iter().take(index);
            if kind.is_empty() {
                return Err(ConfigError::new("type of subjects", "\"\"", "must not be empty"));
            }
            if earlier.clone().any(|(other, _)| other == issuer) {
                return Err(ConfigError::new("issuer of subjects", format!("{issuer:?}"), "is named twice"));
            }
            if earlier.any(|(_, other)| other == kind) {
                let problem = "is that of another issuer, whose subjects may have the same ids";
                return Err(ConfigError::new("type of subjects", format!("{kind:?}"), problem));
            }
        }
        if settings.roles.is_empty() {
            "roles".clone_into(&mut settings.roles);
        }
        let (point, [one, several]) = point.open(["/access/v1/evaluation", "/access/v1/evaluations"])?;
        Ok(AuthZen { shared: Arc::new(Shared { point, one, several, settings }) })
    }
}

impl Settings {
    /// The question in the four fields of AuthZEN, or the verdict where there is nothing to ask.
    fn question(&self, query: &AccessQuery<'_>) -> Result<Fields, Verdict> {
        let who = query.subject();
        let Some((_, kind)) = self.subjects.iter().find(|(issuer, _)| issuer == who.issuer()) else {
            return Err(Verdict::deny("the decision point knows no subjects of this issuer").firm());
        };
        let mut properties = question::principal(who, self.parts).map_err(Verdict::cannot_decide)?;
        properties.remove("id");
        if let Some(roles) = properties.remove("roles") {
            properties.insert(self.roles.clone(), roles);
        }
        let resource = match (query.resource(), &self.resource_if_none) {
            (Some(thing), _) => {
                let facts = self.parts.has(QueryParts::RESOURCE_FACTS);
                let mut properties = if facts { question::attributes(thing.attributes()) } else { Map::new() };
                OWN_PROPERTIES.iter().for_each(|name| drop(properties.remove(*name)));
                properties.extend(question::resource(thing, self.parts.without(QueryParts::RESOURCE)));
                json!({ "type": thing.kind(), "id": thing.id(), "properties": properties })
            }
            (None, Some((kind, id))) => json!({ "type": kind, "id": id }),
            (None, None) => {
                return Err(Verdict::cannot_decide("AuthZEN demands a resource, and the question has none"));
            }
        };
        let mut context = match query.attributes() {
            Some(given) if self.parts.has(QueryParts::ATTRIBUTES) => question::attributes(given),
            Some(_) | None => Map::new(),
        };
        OWN_CONTEXT.iter().for_each(|name| drop(context.remove(*name)));
        context.extend(question::circumstances(query, self.parts).map_err(Verdict::cannot_decide)?);
        if context.is_empty() {
            // Cerbos takes an empty context of several questions for a missing one, and refuses them.
            context.insert("requested_by".to_owned(), "portcullis".into());
        }
        let subject = json!({ "type": kind, "id": who.subject(), "properties": properties });
        let fields = [
            ("subject", subject),
            ("action", json!({ "name": query.action() })),
            ("resource", resource),
            ("context", context.into()),
        ];
        Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

#[async_trait]
impl PolicyBackend for AuthZen {
    fn name(&self) -> &'static str {
        "authzen"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        let Shared { point, one, settings, .. } = &*self.shared;
        let question = match settings.question(query) {
            Ok(question) => question.into(),
            Err(verdict) => return verdict,
        };
        let answer = point.ask(one, &question, query.at(), |_: &Evaluation| Ok(())).await;
        answer.map_or_else(Verdict::cannot_decide, Evaluation::verdict)
    }

    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let Some(at) = queries.first().map(AccessQuery::at) else { return Vec::new() };
        let mut verdicts = vec![Verdict::cannot_decide("no answer"); queries.len()];
        let mut batches: Vec<Batch> = Vec::new();
        for ((index, query), verdict) in queries.iter().enumerate().zip(&mut verdicts) {
            match self.shared.settings.question(query) {
                Ok(question) => match batches.last_mut() {
                    Some(batch) if batch.takes(&question) => batch.push(index, question),
                    Some(_) | None => batches.push(Batch::of(index, question)),
                },
                Err(known) => *verdict = known,
            }
        }
        let mut away: Option<String> = None;
        for batch in batches {
            // Else a decision point that hangs would hold the request once for each batch.
            let answers = match &away {
                None => self.ask_several(batch.body(), batch.indices.len(), at).await,
                Some(cause) => Err(cause.clone()),
            };
            let answers = answers.unwrap_or_else(|cause| {
                let undecided = vec![Verdict::cannot_decide(cause.clone()); batch.indices.len()];
                away = Some(cause);
                undecided
            });
            for (index, answer) in batch.indices.into_iter().zip(answers) {
                if let Some(verdict) = verdicts.get_mut(index) {
                    *verdict = answer;
                }
            }
        }
        verdicts
    }

    fn parts(&self) -> QueryParts {
        self.shared.settings.parts
    }

    fn holds_for(&self) -> Option<Duration> {
        self.shared.settings.holds_for
    }

    fn steps(&self, _: &AccessQuery<'_>) -> Vec<String> {
        vec![format!("{} is asked", self.shared.one)]
    }
}

impl fmt::Debug for AuthZen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthZen")
            .field("point", &self.shared.point.name())
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
