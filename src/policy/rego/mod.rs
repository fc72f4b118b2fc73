mod defined;
mod glob;
mod input;
mod program;
mod recursion;
mod safety;
mod syntax;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    error::ConfigError,
    now::Now,
    policy::{
        AccessQuery, PolicyBackend, QueryParts, ReloadState, Reloaded, Verdict, decision,
        documents::Documents,
        live::Live,
        rego::{
            input::BadClaims,
            program::{Compiled, Limits},
        },
    },
};

/// Policies in Rego, the language of the Open Policy Agent (OPA), evaluated in this process.
///
/// ```
/// use portcullis::policy::Rego;
///
/// let policy = Rego::from_text("data.orders.allow", r#"
///     package orders
///
///     default allow := false
///
///     allow if {
///         input.action == "orders:read"
///         "clerk" in input.subject.roles
///     }
/// "#)?;
/// # let _ = policy;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// The policy is compiled once, by regorus, and shared by its engines. A question takes one that is free, or a copy; only the caches of
/// compiled patterns (`regex.match`, `glob.match`) are behind locks, for the time of a look-up.
/// regorus' interpreter evaluates it, not its register machine, to which a conflict between rules is undefined and no error.
///
/// # The decision
/// It is one rule, named by its path: `data.orders.allow` is the rule `allow` of `package orders`. Its value is `true` or
/// `false`, or an object (a decision document):
///
/// | field | meaning |
/// |---|---|
/// | `allow` | allows if it is `true`; anything else, or nothing, denies |
/// | `reasons` | strings, for the record |
/// | `rules` | strings: the rules that decided |
/// | `step_up` | beside an `allow` that is not `true`: what would help ([`Verdict::step_up`]), an object of `acr_values` (strings), `max_age` (seconds), `factors` (1 to 3), at least one of them |
/// | `obligations`, `advice` | each a name, or an object of a `name` and parameters |
///
/// Other fields mean nothing. A list may be an array or a set. A field of these that is of another form makes the decision
/// undecidable: an obligation is never dropped. So does `step_up` beside an allow.
///
/// Undefined denies, as does every value besides `true`. An error of the evaluation (a conflict between rules, a built-in
/// function that fails, a limit) is [`cannot decide`](crate::policy::Decision::CannotDecide).
///
/// # The input
/// What is not known is left out, so that it is undefined.
///
/// | field | value |
/// |---|---|
/// | `action` | string |
/// | `subject.issuer`, `subject.id` | strings, which together name who acts |
/// | `subject.roles`, `.scopes`, `.permissions` | arrays of strings |
/// | `subject.tenant` | string |
/// | `subject.acr`, `.amr`, `.auth_time` | string, array of strings, seconds since the Unix epoch |
/// | `subject.kind`, `.credential`, `.plan`, `.expires_at`, `.claims` | `user`, `service` or `key`; string; string; seconds; the object of the token |
/// | `client` | as `subject`: what acts for it |
/// | `resource.type`, `.id` | strings |
/// | `resource.owner`, `.tenant`, `.attributes` | object of `issuer` and `id`; string; object |
/// | `attributes` | object: what the question itself says |
/// | `method`, `route`, `address` | strings: `GET`, `/orders/{id}`, `192.0.2.7` |
/// | `time`, `time_ns` | when the question was asked: seconds and nanoseconds since the Unix epoch |
///
/// Use `input.time_ns` and not `time.now_ns()`: then the verdict depends on the question alone, and tests can set it.
///
/// # Reload
/// As of [`Rbac`](crate::policy::Rbac): a newer policy or data document is compiled as a whole before it runs; a bad one never
/// does.
#[derive(Clone)]
pub struct Rego {
    shared: Arc<Shared>,
}

struct Shared {
    live: Arc<Live<Compiled>>,
    decision: Arc<str>,
    parts: QueryParts,
}

/// Assembles a [`Rego`]; made by [`Rego::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct RegoBuilder {
    documents: Documents<Kind>,
    settings: Settings,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Policy,
    Data,
}

#[derive(Clone)]
struct Settings {
    decision: Arc<str>,
    version: Option<Arc<str>>,
    limits: Limits,
    parts: QueryParts,
}

impl Rego {
    /// Starts a policy of several modules and data documents. `decision` is the path of the rule that decides, such as
    /// `data.orders.allow`.
    pub fn builder(decision: impl Into<Arc<str>>) -> RegoBuilder {
        let limits = Limits { time: RegoBuilder::DEFAULT_TIME, lenient: false };
        let settings = Settings { decision: decision.into(), version: None, limits, parts: QueryParts::ALL };
        RegoBuilder { documents: Documents::new(), settings }
    }

    /// Reads a policy of one module.
    ///
    /// # Errors
    /// If it does not compile, or does not define the decision: the error names line and reason.
    pub fn from_text(decision: impl Into<Arc<str>>, text: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(decision).policy("policy.rego", text).build()
    }

    /// Reads the files again, and lets the newer policy run if they say something else and are good. This blocks: in async
    /// code, call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`RegoBuilder::build`]; the policy that runs stays. Also if no document comes from a file.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        self.shared.live.reload()
    }

    /// Looks at the files again and again, and reloads when they say something else, until every clone of the policy is
    /// dropped. It runs as a task of the tokio runtime that it is called in; files are read on its blocking threads.
    /// If that runtime ends before, [`reload_state`](PolicyBackend::reload_state) is failing until this is called in another one.
    ///
    /// # Errors
    /// If no document comes from a file, `every` is shorter than a second or longer than a day, or no tokio runtime with a timer runs here.
    pub fn watch(&self, every: Duration) -> Result<(), ConfigError> {
        self.shared.live.watch(every)
    }

    /// The version that the builder was given, or one made of the documents' content.
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.shared.live.load().version)
    }

    fn evaluate(&self, compiled: &Compiled, query: &AccessQuery<'_>) -> Result<regorus::Value, String> {
        let input = input::document(query, self.shared.parts)
            .map_err(|BadClaims(error)| format!("the claims of a principal do not parse: {error}"))?;
        compiled.evaluate(input)
    }

    fn verdict_of(&self, query: &AccessQuery<'_>) -> Verdict {
        let compiled = self.shared.live.load();
        match self.evaluate(&compiled, query) {
            Ok(document) => {
                let document = Some(&document).filter(|document| **document != regorus::Value::Undefined);
                decision::verdict(document, &self.shared.decision, &compiled.basis)
            }
            Err(problem) => Verdict::cannot_decide(format!("{}: {problem}", self.shared.decision))
                .of_version(Arc::clone(&compiled.version)),
        }
    }
}

impl RegoBuilder {
    /// How long a decision may take unless [`max_time`](Self::max_time) says so.
    pub const DEFAULT_TIME: Duration = Duration::from_millis(50);

    /// Adds a module, with a name for errors.
    pub fn policy(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.documents.add_text(Kind::Policy, name.into(), text.into());
        self
    }

    /// Adds a module from a file of at most 1 MiB.
    pub fn policy_file(mut self, path: impl AsRef<Path>) -> Self {
        self.documents.add_file(Kind::Policy, path.as_ref().to_owned());
        self
    }

    /// Adds data, with a name for errors: a JSON object, which is merged into `data`.
    pub fn data(mut self, name: impl Into<String>, json: impl Into<String>) -> Self {
        self.documents.add_text(Kind::Data, name.into(), json.into());
        self
    }

    /// Adds data from a file of at most 16 MiB: a JSON object, which is merged into `data`.
    pub fn data_file(mut self, path: impl AsRef<Path>) -> Self {
        self.documents.add_file(Kind::Data, path.as_ref().to_owned());
        self
    }

    /// Names the version for records. If none is named, one is made of the documents' content, and changes with it.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.settings.version = Some(version.into());
        self
    }

    /// Says which parts of the question the policy reads: the others are left out of its input. Fewer parts cost less, and
    /// let a cache keep verdicts for longer. All of them unless it is said.
    pub const fn reads(mut self, parts: QueryParts) -> Self {
        self.settings.parts = parts;
        self
    }

    /// Bounds a decision in time; beyond, it cannot be made. 50 ms unless it is said. The clock is looked at every 256
    /// steps: one built-in function is not cut short.
    pub const fn max_time(mut self, time: Duration) -> Self {
        self.settings.limits.time = time;
        self
    }

    /// Lets a built-in function that fails be undefined, as OPA does unless it is told otherwise, and not an error. A rule
    /// with `not` before such a function then holds when the function fails.
    pub const fn lenient_builtins(mut self) -> Self {
        self.settings.limits.lenient = true;
        self
    }

    /// Compiles the policy. This blocks if it comes from files: call it at start.
    ///
    /// # Errors
    /// If a file cannot be read, a module does not compile, the decision is not defined, a data document is no JSON object, or
    /// it contradicts another one or a rule: the error names file, line and reason.
    pub fn build(self) -> Result<Rego, ConfigError> {
        let Self { documents, settings } = self;
        let (decision, parts) = (Arc::clone(&settings.decision), settings.parts);
        if !decision.starts_with("data.") {
            return Err(ConfigError::new(
                "decision",
                format!("{decision:?}"),
                "must be the path of a rule, such as \"data.orders.allow\"",
            ));
        }
        let live = documents.live(Kind::Policy, move |texts| Compiled::new(texts, &settings))?;
        Ok(Rego { shared: Arc::new(Shared { live: Arc::new(live), decision, parts }) })
    }
}

#[async_trait]
impl PolicyBackend for Rego {
    fn name(&self) -> &'static str {
        "rego"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(self.verdict_of(query))
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.verdict_of(query)
    }

    fn generation(&self) -> Option<u64> {
        Some(self.shared.live.generation())
    }

    fn version(&self) -> Option<Arc<str>> {
        Some(self.version())
    }

    fn parts(&self) -> QueryParts {
        self.shared.parts
    }

    fn reload_state(&self) -> Option<ReloadState> {
        Some(self.shared.live.state())
    }

    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        let decision = &self.shared.decision;
        match self.evaluate(&self.shared.live.load(), query) {
            Ok(regorus::Value::Undefined) => vec![format!("{decision} is undefined")],
            Ok(document) => vec![format!("{decision} is {document}")],
            Err(problem) => vec![format!("{decision} cannot be evaluated: {problem}")],
        }
    }
}

impl fmt::Debug for Rego {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { live, decision, parts } = &*self.shared;
        f.debug_struct("Rego")
            .field("decision", decision)
            .field("version", &live.load().version)
            .field("reads", &format_args!("{parts}"))
            .finish()
    }
}

impl fmt::Debug for RegoBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegoBuilder").field("decision", &self.settings.decision).finish_non_exhaustive()
    }
}
