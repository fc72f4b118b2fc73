mod builder;
mod compile;
mod compiled;
mod index;
mod mapping;
mod shape;
mod slices;
mod source;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use builder::CedarBuilder;
pub use source::{CedarEntity, CedarUid, EntitySource};

use crate::{
    error::{ConfigError, StoreError},
    now::Now,
    policy::{
        AccessQuery, PolicyBackend, QueryParts, ReloadState, Reloaded, Verdict,
        cedar::compiled::{Compiled, Subjects, Unasked},
        live::Live,
    },
};

/// Policies in Cedar, evaluated in this process.
///
/// ```
/// use portcullis::policy::Cedar;
///
/// let policy = Cedar::builder()
///     .schema("shop.cedarschema", r#"
///         entity Role;
///         entity User in [Role];
///         entity Order { owner?: User, status: String };
///         action "orders:read", "orders:cancel" appliesTo { principal: User, resource: Order };
///     "#)
///     .policies("shop.cedar", r#"
///         @id("clerks-read")
///         permit (principal in Role::"clerk", action == Action::"orders:read", resource);
///
///         @id("owners-cancel")
///         permit (principal, action == Action::"orders:cancel", resource)
///         when { resource has owner && resource.owner == principal && resource.status == "open" };
///     "#)
///     .build()?;
/// # let _ = policy;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # The question
/// - **Principal**: an entity of the type `User`, `Service` or `Key`, after its kind; its id is issuer and subject, or the
///   subject alone ([`CedarBuilder::issuer`]). It is in an entity `Role` for each of its roles.
/// - **Action**: `Action::"orders:read"` for the action `orders:read`.
/// - **Resource**: its type and id; `order` is the type `Order`.
/// - **Attributes**: those that the schema declares are filled in, no others. Of a principal: `issuer`, `subject`, `kind`,
///   `credential`, `tenant`, `plan`, `roles`, `scopes`, `permissions`, `acr`, `amr`, `auth_time`, and claims of the token by
///   their name. Of a resource: its attributes, `tenant`, and `owner`, a principal of the type that the schema declares; an owner of
///   another issuer than the builder's cannot be decided. An attribute called `tenant` or `owner` counts where the resource has none
///   of its own, or where the schema declares `owner` as no principal and `tenant` as no text; where both are told and differ,
///   nothing is decided.
/// - **Context**: `method`, `route`, `address` (`ipaddr`), `time` (`datetime`), `unix_time` (`Long`), `acr`, `amr`, `auth_time`,
///   `scopes`, `client`, and attributes of the question, again as far as the schema declares them for the action.
///
/// More comes from entities in files, and from an [`EntitySource`]. Where both know an attribute, the question's resource comes
/// before the source, the source before the files, and those before the credential. Where the question tells another `tenant` or
/// `owner` of its resource than source or files, nothing is decided: a path names the tenant that the client likes. Nor is it where the
/// resource is the principal, and the question tells more of it, or otherwise, than source, files and credential do: both are one entity.
///
/// # The decision
/// 1. An action, a type or an issuer that the schema does not know, and an action that is for other types, are denied, [firmly](Verdict::firm).
/// 2. Entities and context that do not fit the schema are [`cannot decide`](crate::policy::Decision::CannotDecide): what it demands,
///    the question, a source or a file must tell.
/// 3. If a policy forbids, it is denied.
/// 4. If one of the policies that can apply fails in its evaluation, it is cannot decide. Cedar itself leaves such a policy out.
/// 5. If a policy permits, it is allowed; all else is denied.
///
/// The verdict names the policies that decided, by their `@id` or else by file and line. `@obligation("mask, log")` and
/// `@advice("...")` on a policy that permits name what its allow asks for; on one that forbids, and misspelt, they are refused.
/// `@step_up("acr_values=gold; max_age=300; factors=2")`, one of them at least, on a policy that forbids says what would help
/// ([`Verdict::step_up`]), where all that forbid say so and without them it would be allowed.
///
/// # Cost
/// Policies are found by their scope before they are evaluated: the cost grows with the groups that principal and resource are
/// in and with the policies that match, not with those that do not. Entities from files cost only where a question reaches them.
///
/// # Reload
/// As of [`Rbac`](crate::policy::Rbac): all documents are read, and checked together, before they run; bad ones never do.
#[derive(Clone)]
pub struct Cedar {
    live: Arc<Live<Compiled>>,
    source: Option<Arc<dyn EntitySource>>,
}

impl Cedar {
    /// Starts a policy of several documents. It needs policies and a schema.
    pub fn builder() -> CedarBuilder {
        CedarBuilder::new()
    }

    fn new(live: Live<Compiled>, source: Option<Arc<dyn EntitySource>>) -> Self {
        Self { live: Arc::new(live), source }
    }

    /// Reads the files again, and lets the newer policy run if they say something else and are good. This blocks: in async
    /// code, call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`CedarBuilder::build`]; the policy that runs stays. Also if no document comes from a file.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        self.live.reload()
    }

    /// Looks at the files again and again, and reloads when they say something else, until every clone of the policy is
    /// dropped. It runs as a task of the tokio runtime that it is called in; files are read on its blocking threads.
    /// If that runtime ends before, [`reload_state`](PolicyBackend::reload_state) is failing until this is called in another one.
    ///
    /// # Errors
    /// If no document comes from a file, `every` is shorter than a second or longer than a day, or no tokio runtime with a timer runs here.
    pub fn watch(&self, every: Duration) -> Result<(), ConfigError> {
        self.live.watch(every)
    }

    /// The version that the builder was given, or one made of the documents' content.
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.live.load().version)
    }

    /// The entities of the source, if they are at hand.
    fn given_now(&self, subjects: &Subjects, query: &AccessQuery<'_>) -> Now<Result<Vec<CedarEntity>, StoreError>> {
        let Some(source) = &self.source else { return Now::Known(Ok(Vec::new())) };
        let mut all = Vec::new();
        for wanted in subjects.wanted() {
            match source.entities_now(&wanted, query) {
                Now::Known(Ok(entities)) => all.extend(entities),
                Now::Known(Err(error)) => return Now::Known(Err(error)),
                Now::Wait => return Now::Wait,
            }
        }
        Now::Known(Ok(all))
    }

    async fn given(&self, subjects: &Subjects, query: &AccessQuery<'_>) -> Result<Vec<CedarEntity>, StoreError> {
        let Some(source) = &self.source else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for wanted in subjects.wanted() {
            let entities = match source.entities_now(&wanted, query) {
                Now::Known(entities) => entities?,
                Now::Wait => source.entities(&wanted, query).await?,
            };
            all.extend(entities);
        }
        Ok(all)
    }
}

fn unasked(compiled: &Compiled, problem: Unasked) -> Verdict {
    match problem {
        Unasked::Unknown(why) => Verdict::deny(why).firm(),
        Unasked::Broken(why) => Verdict::cannot_decide(why),
    }
    .of_version(Arc::clone(&compiled.version))
}

fn verdict(
    compiled: &Compiled,
    query: &AccessQuery<'_>,
    subjects: Subjects,
    given: Result<Vec<CedarEntity>, StoreError>,
) -> Verdict {
    let given = match given {
        Ok(given) => given,
        Err(error) => {
            return Verdict::cannot_decide(format!("entities: {error}")).of_version(Arc::clone(&compiled.version));
        }
    };
    match compiled.case(query, subjects, given) {
        Ok(case) => compiled.verdict(&case),
        Err(problem) => unasked(compiled, problem),
    }
}

#[async_trait]
impl PolicyBackend for Cedar {
    fn name(&self) -> &'static str {
        "cedar"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let compiled = self.live.load();
        let subjects = match compiled.subjects(query) {
            Ok(subjects) => subjects,
            Err(problem) => return Now::Known(unasked(&compiled, problem)),
        };
        match self.given_now(&subjects, query) {
            Now::Known(given) => Now::Known(verdict(&compiled, query, subjects, given)),
            Now::Wait => Now::Wait,
        }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        let compiled = self.live.load();
        let subjects = match compiled.subjects(query) {
            Ok(subjects) => subjects,
            Err(problem) => return unasked(&compiled, problem),
        };
        let given = self.given(&subjects, query).await;
        verdict(&compiled, query, subjects, given)
    }

    fn generation(&self) -> Option<u64> {
        // A source that cannot tell must not hide that the documents are newer.
        let of_source = self.source.as_ref().and_then(|source| source.generation());
        Some(self.live.generation().saturating_add(of_source.unwrap_or_default()))
    }

    fn version(&self) -> Option<Arc<str>> {
        Some(self.version())
    }

    fn parts(&self) -> QueryParts {
        // A source sees the whole question.
        if self.source.is_some() { QueryParts::ALL } else { self.live.load().mapping.parts }
    }

    fn check_action(&self, action: &str) -> Result<(), ConfigError> {
        let compiled = self.live.load();
        match compiled.mapping.action(action) {
            Some(_) => Ok(()),
            None => {
                let problem = format!("is no action of the schema of policy {:?}", compiled.version);
                Err(ConfigError::new("action", format!("{action:?}"), problem))
            }
        }
    }

    fn reload_state(&self) -> Option<ReloadState> {
        Some(self.live.state())
    }

    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        let compiled = self.live.load();
        let told = |problem: Unasked| match problem {
            Unasked::Unknown(why) | Unasked::Broken(why) => vec![why],
        };
        let subjects = match compiled.subjects(query) {
            Ok(subjects) => subjects,
            Err(problem) => return told(problem),
        };
        let mut steps = vec![format!("{} {} {}", subjects.principal, subjects.action, subjects.resource)];
        match self.given_now(&subjects, query) {
            Now::Known(Ok(given)) => match compiled.case(query, subjects, given) {
                Ok(case) => steps.extend(compiled.steps(&case)),
                Err(problem) => steps.extend(told(problem)),
            },
            Now::Known(Err(error)) => steps.push(format!("entities: {error}")),
            Now::Wait => steps.push("the entities must be asked for, which is not done here".to_owned()),
        }
        steps
    }
}

impl fmt::Debug for Cedar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiled = self.live.load();
        f.debug_struct("Cedar")
            .field("version", &compiled.version)
            .field("policies", &compiled.rules.len())
            .field("source", &self.source)
            .finish()
    }
}
