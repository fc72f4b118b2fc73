//! A policy's questions and the verdicts that are expected, as a table in TOML.

use std::{collections::BTreeMap, fmt, fs, net::IpAddr, path::Path};

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::{
    clock::Instants,
    now::Now,
    policy::{AccessQuery, Attributes, PolicyBackend, Resource, Verdict, toml_value::json},
    principal::{Principal, PrincipalBuilder, PrincipalKind},
};

/// The longest table, in bytes.
const MAX_TABLE_LEN: u64 = 4 * 1024 * 1024;
/// The time of a question that names none: 2027-01-15 08:00:00 UTC.
const NOW: u64 = 1_800_000_000;

/// Asks a policy the questions of a table in a TOML file, and compares the verdicts with those that are expected. It is what
/// `cargo test` of an application runs; how the policy is reached does not matter.
///
/// The number of questions comes back. The manual's page on policies describes the table.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::policy::{Rbac, test_table};
///
/// let policy = Rbac::from_toml_file("policy.toml")?;
/// test_table(&policy, "tests/policy_questions.toml").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If a verdict is not the expected one, or the table cannot be read, is not of its form or is empty. The error shows each such
/// question with file and line, what was expected and what came; `Debug` is the same text, so that `unwrap` shows it.
pub async fn test_table(policy: &dyn PolicyBackend, path: impl AsRef<Path> + Send) -> Result<usize, TableError> {
    let file = path.as_ref().display().to_string();
    let refuse = |problem: String| TableError { failures: vec![format!("{file}: {problem}")], asked: 0 };
    let text = match fs::metadata(path.as_ref()) {
        Ok(found) if found.len() > MAX_TABLE_LEN => Err(refuse(format!("has more than {MAX_TABLE_LEN} bytes"))),
        Ok(_) => fs::read_to_string(path.as_ref()).map_err(|error| refuse(format!("cannot be read: {error}"))),
        Err(error) => Err(refuse(format!("cannot be read: {error}"))),
    }?;
    ask_table(policy, &file, &text).await
}

/// The same for a table that is a text; `name` stands for the file in errors.
///
/// # Errors
/// As [`test_table`].
pub async fn test_table_text(policy: &dyn PolicyBackend, name: &str, text: &str) -> Result<usize, TableError> {
    ask_table(policy, name, text).await
}

/// Why a table of questions did not pass. `Display` and `Debug` show every question that failed.
pub struct TableError {
    failures: Vec<String>,
    asked: usize,
}

impl TableError {
    /// One text for each failure: file, line, what was expected, and what came.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.asked > 0 {
            writeln!(f, "{} of {} questions got another verdict", self.failures.len(), self.asked)?;
        }
        write!(f, "{}", self.failures.join("\n"))
    }
}

impl fmt::Debug for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for TableError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    subjects: BTreeMap<String, Subject>,
    #[serde(rename = "question")]
    questions: Vec<Spanned<Question>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    issuer: Option<String>,
    subject: String,
    kind: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    permissions: Vec<String>,
    tenant: Option<String>,
    acr: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    auth_time: Option<u64>,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Who {
    Named(String),
    Here(Box<Subject>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    name: String,
    subject: Who,
    client: Option<Who>,
    action: String,
    resource: Option<Thing>,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
    method: Option<String>,
    route: Option<String>,
    address: Option<IpAddr>,
    /// Seconds since the Unix epoch.
    time: Option<u64>,
    expect: Expected,
    /// The rules that must have decided, if they are told.
    rules: Option<Vec<String>>,
    /// The names of the obligations, if they are told.
    obligations: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    r#type: String,
    id: String,
    owner: Option<Who>,
    tenant: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Deny,
    /// A denial that a step-up helps against.
    StepUp,
    CannotDecide,
}

impl Expected {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::StepUp => "step_up",
            Self::CannotDecide => "cannot_decide",
        }
    }
}

/// Who vouches for a subject that names no issuer.
const ISSUER: &str = "https://id.example.com";

impl Subject {
    fn issuer(&self) -> &str {
        self.issuer.as_deref().unwrap_or(ISSUER)
    }

    fn principal(&self) -> Result<Principal, String> {
        let kind = self.kind.as_deref().unwrap_or("user");
        let kind =
            PrincipalKind::named(kind).ok_or_else(|| format!("kind {kind:?} is none of user, service and key"))?;
        let mut builder: PrincipalBuilder = Principal::builder(kind, self.issuer(), self.subject.as_str(), "test")
            .roles(self.roles.iter().map(String::as_str))
            .scopes(self.scopes.iter().map(String::as_str))
            .permissions(self.permissions.iter().map(String::as_str))
            .methods(self.amr.iter().map(String::as_str));
        if let Some(tenant) = &self.tenant {
            builder = builder.tenant(tenant.as_str());
        }
        if let Some(acr) = &self.acr {
            builder = builder.acr(acr.as_str());
        }
        if let Some(auth_time) = self.auth_time {
            builder = builder.auth_time(auth_time);
        }
        if !self.claims.is_empty() {
            let claims = serde_json::to_string(&attributes(&self.claims)?).map_err(|error| error.to_string())?;
            builder = builder.claims(claims);
        }
        Ok(builder.build())
    }
}

fn attributes(values: &BTreeMap<String, Value>) -> Result<Attributes, String> {
    let pairs = values.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
    pairs.collect::<Result<Vec<_>, String>>().map(|pairs| pairs.into_iter().collect())
}

impl Table {
    fn who<'t>(&'t self, who: &'t Who) -> Result<&'t Subject, String> {
        match who {
            Who::Named(name) => self.subjects.get(name).ok_or_else(|| format!("subject {name:?} is not in [subjects]")),
            Who::Here(subject) => Ok(subject),
        }
    }

    fn resource(&self, thing: &Thing) -> Result<Resource, String> {
        let mut resource = Resource::new(thing.r#type.clone(), &thing.id);
        if let Some(owner) = &thing.owner {
            let owner = self.who(owner)?;
            resource = resource.owned_by(owner.issuer(), owner.subject.as_str());
        }
        if let Some(tenant) = &thing.tenant {
            resource = resource.in_tenant(tenant.as_str());
        }
        let held = attributes(&thing.attributes)?;
        Ok(held.iter().fold(resource, |resource, (name, value)| resource.with(name.to_owned(), value.clone())))
    }
}

async fn ask_table(policy: &dyn PolicyBackend, file: &str, text: &str) -> Result<usize, TableError> {
    let line = |start: usize| text.get(..start).map_or(0, |before| before.matches('\n').count().saturating_add(1));
    let table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(String::new(), |span| format!("{}: ", line(span.start)));
        TableError { failures: vec![format!("{file}:{line}{}", error.message().trim_end())], asked: 0 }
    })?;
    let mut failures = Vec::new();
    for question in &table.questions {
        let place = format!("{file}:{}", line(question.span().start));
        if let Err(failure) = ask(policy, &table, question.get_ref()).await {
            failures.push(format!("{place}: {failure}"));
        }
    }
    let asked = table.questions.len();
    if asked == 0 {
        failures.push(format!("{file}: has no questions"));
    }
    if failures.is_empty() { Ok(asked) } else { Err(TableError { failures, asked }) }
}

/// One question. The error tells what was expected and what came.
async fn ask(policy: &dyn PolicyBackend, table: &Table, question: &Question) -> Result<(), String> {
    let subject = table.who(&question.subject)?.principal()?;
    let client = match &question.client {
        Some(client) => Some(table.who(client)?.principal()?),
        None => None,
    };
    let resource = question.resource.as_ref().map(|thing| table.resource(thing)).transpose()?;
    let attributes = attributes(&question.attributes)?;
    let at = question.time.unwrap_or(NOW).saturating_mul(1_000_000_000);
    let mut query = AccessQuery::new(&subject, &question.action, Instants::new(at, at))
        .with_client(client.as_ref())
        .with_address(question.address);
    // None is another question than an empty object, and the one that guards ask.
    if !attributes.is_empty() {
        query = query.with_attributes(&attributes);
    }
    if let Some(method) = &question.method {
        query = query.with_route(method, question.route.as_deref());
    } else if question.route.is_some() {
        return Err("a route needs a method".to_owned());
    }
    if let Some(resource) = &resource {
        query = query.on(resource);
    }
    let verdict = match policy.decide_now(&query) {
        Now::Known(verdict) => verdict,
        Now::Wait => policy.decide(&query).await,
    };
    // A demand that is met already is offered to nobody.
    let demand = verdict.step_up_demand().filter(|demand| !demand.is_met_by(&subject, query.at()));
    let came = if demand.is_some() { "step_up" } else { verdict.decision().as_str() };
    compare(question, &verdict, came).map_err(|differences| {
        let name = if question.name.is_empty() { String::new() } else { format!("{}: ", question.name) };
        let mut text = format!("{name}{}: {differences}", super::explain::question(&query));
        let reasons = verdict.reasons().iter().map(|reason| format!("because: {reason}"));
        for line in reasons.chain(policy.steps(&query)) {
            text.push_str("\n    ");
            text.push_str(&line);
        }
        text
    })
}

fn compare(question: &Question, verdict: &Verdict, came: &str) -> Result<(), String> {
    let expected = question.expect.as_str();
    if expected != came {
        let by = if verdict.rules().is_empty() { String::new() } else { format!(" by {}", verdict.rules().join(", ")) };
        return Err(format!("expected {expected}, got {came}{by}"));
    }
    let rules: Vec<&str> = verdict.rules().iter().map(|rule| &**rule).collect();
    let obligations: Vec<&str> = verdict.obligations().iter().map(|obligation| obligation.name()).collect();
    for (what, expected, came) in
        [("rules", &question.rules, rules), ("obligations", &question.obligations, obligations)]
    {
        if let Some(expected) = expected
            && *expected != came
        {
            return Err(format!("expected {what} {expected:?}, got {came:?}"));
        }
    }
    Ok(())
}
