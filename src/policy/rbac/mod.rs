mod assignments;
mod constraints;
mod document;
mod explain;
mod handle;
mod hierarchy;
mod load;
mod pattern;
mod reach;
mod snapshot;
mod table;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

pub use handle::{Permission, Role};

use crate::{
    error::ConfigError,
    log,
    now::Now,
    policy::{
        AccessQuery, Matrix, PolicyBackend, QueryParts, ReloadState, Reloaded, Verdict,
        files::{Files, SourceText},
        live::Live,
        rbac::{
            document::{Format, Origin},
            load::{MAX_DOCUMENT_LEN, near_of},
            snapshot::{Handles, Newest, Snapshot},
            table::{Table, Thing, refuse},
        },
    },
};

/// Role-based access control with a hierarchy of roles (ANSI INCITS 359, core and hierarchical), from TOML or JSON.
///
/// ```
/// use portcullis::policy::Rbac;
///
/// let policy = Rbac::from_toml(r#"
///     version = "2026-11-01"
///     permissions = ["orders:list", "orders:read", "orders:cancel"]
///
///     [roles.clerk]
///     grants = ["orders:list"]
///     grants_own = ["orders:read"]
///
///     [roles.manager]
///     inherits = ["clerk"]
///     grants = ["orders:*"]
/// "#)?;
/// let manager = policy.role("manager")?;
/// assert_eq!(manager.permissions(), ["orders:list", "orders:read", "orders:cancel"]);
/// assert!(policy.permission("order:read").unwrap_err().to_string().contains("did you mean \"orders:read\"?"));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # The document
/// - `version`: required; names the policy in records.
/// - `permissions`: required; the closed list.
/// - `allow_tenantless`: `true` gives things of every tenant to principals that have none; `false` unless it is said.
/// - `[roles.NAME]`: `inherits` (roles), `grants` (on everything), `grants_own` (only on what the principal owns), `denies`
///   (wins over every grant, of any role). Grants and denials may have wildcards: `*` is one segment between colons, or all
///   the rest as the last one. A wildcard that stands for no permission is refused.
/// - `[[exclusive]]`: `name`, `roles`, `at_most` (1 unless it is said): a principal that holds more of them is refused.
/// - `[[assignments]]`: `issuer`, `subject`, `roles`, `tenant` if they hold there alone, and `kind` (`user`, `service`, `key`) if
///   they are for a principal of that kind alone: a client and a person may have the same subject at an issuer.
///
/// Names are 1 to 128 bytes of ASCII letters, digits and `. _ : / @ -`, compared byte for byte. There are at most 4096
/// permissions, 4096 roles and 64 exclusive sets, in at most 4 MiB. A permission that no role grants is logged as a warning.
///
/// # The decision
/// 1. An action that is not in `permissions` is denied, and logged as an error once for each name.
/// 2. A thing that names a tenant is denied to a principal of another tenant, and to one that has none, unless the document
///    says `allow_tenantless`. A thing that names no tenant passes this point: where things have tenants, say them.
/// 3. Whoever holds roles that exclude each other, inherited ones included, is denied.
/// 4. If one of the principal's roles, or one that it inherits, denies the action, it is denied.
/// 5. If one grants it, it is allowed. Roles that the policy does not know grant nothing.
/// 6. If one grants it on owned things, and the question names a thing that the principal owns by issuer and subject, it is
///    allowed.
/// 7. All else is denied.
///
/// The first three are [firm](Verdict::firm): a `not` around them opens nothing.
///
/// The roles are those that the credential asserts, and those that the policy assigns: in every tenant, or in that of the
/// thing, or, if it names none, in that of the principal.
///
/// It never says "cannot decide" and never waits. Inheritance and wildcards are worked out at load, so a decision looks each
/// role of the principal up once and tests a bit; it does not allocate. A clone costs one reference count.
///
/// # Reload
/// A policy from a file is read again by [`reload`](Self::reload), or by [`watch`](Self::watch) when the file changes. The
/// newer one is checked as a whole before it runs; a bad one never does, and [`reload_state`](PolicyBackend::reload_state)
/// and the log tell why. Whoever asks takes no lock that a reload holds, and the next decision after a reload is the newer
/// policy's, for tokens that were verified before as well. Handles stay valid.
#[derive(Clone)]
pub struct Rbac {
    shared: Arc<Shared>,
    trust_credential: bool,
}

struct Shared {
    newest: Newest,
    handles: Arc<Handles>,
    unknown: Unknown,
}

impl Rbac {
    /// Reads a policy in TOML.
    ///
    /// # Errors
    /// If the document is not of the form above: the error names line, setting, offending value and reason.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::from_text(Format::Toml, text)
    }

    /// Reads a policy in JSON: an object with the members of the TOML document.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Self::from_text(Format::Json, text)
    }

    /// Reads a policy from a TOML file. This blocks: call it at start.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), with the file named; or if the file cannot be read.
    pub fn from_toml_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_file(Format::Toml, path.as_ref())
    }

    /// Reads a policy from a JSON file. This blocks: call it at start.
    ///
    /// # Errors
    /// As [`from_toml_file`](Self::from_toml_file).
    pub fn from_json_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_file(Format::Json, path.as_ref())
    }

    fn from_text(format: Format, text: &str) -> Result<Self, ConfigError> {
        let handles = Arc::new(Handles::default());
        let table = load::load(Origin { file: None, format, text })?;
        let live = Live::new(Snapshot::new(Arc::new(table), &handles));
        Ok(Self::new(live, handles))
    }

    fn from_file(format: Format, path: &Path) -> Result<Self, ConfigError> {
        let handles = Arc::new(Handles::default());
        let compiled = Arc::clone(&handles);
        let compile = move |texts: &[SourceText]| {
            let [SourceText { name, text }] = texts else {
                return Err(ConfigError::new("policy file", texts.len().to_string(), "must be one file"));
            };
            compile(Origin { file: Some(name), format, text }, &compiled)
        };
        let live = Live::from_files(Files::new([path], MAX_DOCUMENT_LEN), compile)?;
        Ok(Self::new(live, handles))
    }

    fn new(live: Live<Snapshot>, handles: Arc<Handles>) -> Self {
        let shared = Shared { newest: Newest::new(live), handles, unknown: Unknown::default() };
        Self { shared: Arc::new(shared), trust_credential: false }
    }

    /// Reads the policy's file again, and lets the newer policy run if it says something else than what was accepted last, and
    /// is good. This blocks: in async code, call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`from_toml_file`](Self::from_toml_file); the policy that runs stays. Also if this policy comes from a text.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        self.shared.newest.live.reload()
    }

    /// Lets a policy that is written in TOML run from here on, wherever this one came from: until the next such call or, if
    /// there is a file, until a [`reload`](Self::reload) finds something good in it that is not what was accepted last.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml); the policy that runs stays.
    pub fn replace_with_toml(&self, text: &str) -> Result<(), ConfigError> {
        self.replace_with(Origin { file: None, format: Format::Toml, text })
    }

    /// Lets a policy that is written in JSON run, as [`replace_with_toml`](Self::replace_with_toml) does.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml); the policy that runs stays.
    pub fn replace_with_json(&self, text: &str) -> Result<(), ConfigError> {
        self.replace_with(Origin { file: None, format: Format::Json, text })
    }

    fn replace_with(&self, origin: Origin<'_>) -> Result<(), ConfigError> {
        self.shared.newest.live.replace(|_| compile(origin, &self.shared.handles))
    }

    /// Looks at the policy's file again and again, and reloads it when it says something else, until every clone of the
    /// policy is dropped. It runs as a task of the tokio runtime that it is called in; files are read on its blocking threads.
    /// If that runtime ends before, [`reload_state`](PolicyBackend::reload_state) is failing until this is called in another one.
    ///
    /// # Errors
    /// If the policy comes from a text, `every` is shorter than a second or longer than a day, or no tokio runtime with a timer runs here.
    pub fn watch(&self, every: Duration) -> Result<(), ConfigError> {
        self.shared.newest.live.watch(every)
    }

    /// Lets the permissions that a credential itself carries ([`Principal::permissions`](crate::Principal::permissions))
    /// grant as well, as far as the policy lists them. Whoever issues the credentials then decides beside the policy; its
    /// denials win all the same.
    ///
    /// Say it before handles are made: a [`Permission`] made earlier does not [belong](Permission::belongs_to) to the result.
    #[must_use]
    pub fn trust_credential_permissions(mut self) -> Self {
        self.trust_credential = true;
        self
    }

    /// The handle of a permission, for requirements.
    ///
    /// # Errors
    /// If the policy does not list it; the error tells names that are close.
    pub fn permission(&self, name: &str) -> Result<Permission, ConfigError> {
        let table = self.table();
        let Some((shared, _)) = table.permission_positions.get_key_value(name) else {
            return Err(unknown("permission", name, &table.version, &near_of(name, &table.permission_positions)));
        };
        let slot = self.shared.handles.permission(shared);
        self.amend();
        Ok(Permission::new(self.clone(), slot, Arc::clone(shared)))
    }

    /// The handle of a role, for requirements.
    ///
    /// # Errors
    /// If the policy does not have it; the error tells names that are close.
    pub fn role(&self, name: &str) -> Result<Role, ConfigError> {
        let table = self.table();
        let Some((shared, _)) = table.role_positions.get_key_value(name) else {
            return Err(unknown("role", name, &table.version, &near_of(name, &table.role_positions)));
        };
        let slot = self.shared.handles.role(shared);
        self.amend();
        Ok(Role::new(self.clone(), slot, Arc::clone(shared)))
    }

    /// Lets the policy that runs know of a new handle.
    fn amend(&self) {
        let Shared { newest, handles, .. } = &*self.shared;
        newest.live.amend(|running| Snapshot::new(Arc::clone(&running.table), handles));
    }

    /// The version that the document names.
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.table().version)
    }

    /// The permissions, in the order of the document.
    #[must_use]
    pub fn permissions(&self) -> Vec<String> {
        self.table().permissions.iter().map(ToString::to_string).collect()
    }

    /// The roles, sorted by name.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        self.table().roles.iter().map(|role| role.name.to_string()).collect()
    }

    /// The roles that take something away, by denials of their own or of a role that they inherit, sorted by name: for
    #[cfg_attr(
        feature = "api-key-admin",
        doc = "[`KeyAdmin::with_binding_roles`](crate::key_admin::KeyAdmin::with_binding_roles)."
    )]
    #[cfg_attr(not(feature = "api-key-admin"), doc = "whatever hands roles out.")]
    /// Whoever hands out the roles of a principal without these hands out more than the principal may.
    #[must_use]
    pub fn roles_that_deny(&self) -> Vec<String> {
        let table = self.table();
        let denying = table.roles.iter().filter(|role| role.reach.denies_anything());
        denying.map(|role| role.name.to_string()).collect()
    }

    /// Which role may do what: a line for each role, a column for each permission, for the review that is due from time to
    /// time. Assignments are not in it.
    #[must_use]
    pub fn matrix(&self) -> Matrix {
        explain::matrix(&self.table())
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.shared.newest.live.load().table)
    }

    fn ask<R>(&self, ask: impl Fn(&Snapshot) -> R) -> R {
        self.shared.newest.ask(ask)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.trust_credential == other.trust_credential
    }

    fn verdict_of(&self, query: &AccessQuery<'_>) -> Verdict {
        self.ask(|snapshot| {
            let table = &*snapshot.table;
            let Some(permission) = table.permission_positions.get(query.action()) else {
                self.shared.unknown.report(query.action(), &table.version);
                return refuse(&table.denials.unknown_action).leaving_it();
            };
            let thing = Thing { resource: query.resource(), passes_owners: false };
            table.verdict(query.subject(), *permission, thing, self.trust_credential)
        })
    }
}

fn compile(origin: Origin<'_>, handles: &Handles) -> Result<Snapshot, ConfigError> {
    let table = load::load(origin)?;
    for gone in handles.missing_in(&table) {
        log::error(&format!(
            "policy {:?} does not know the {gone} any more, which a handle asks for: denied",
            table.version
        ));
    }
    Ok(Snapshot::new(Arc::new(table), handles))
}

fn unknown(setting: &str, name: &str, version: &str, near: &str) -> ConfigError {
    ConfigError::new(setting, format!("{name:?}"), format!("is not in policy {version:?}{near}"))
}

#[async_trait]
impl PolicyBackend for Rbac {
    fn name(&self) -> &'static str {
        "rbac"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(self.verdict_of(query))
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.verdict_of(query)
    }

    fn generation(&self) -> Option<u64> {
        Some(self.shared.newest.live.generation())
    }

    fn version(&self) -> Option<Arc<str>> {
        Some(self.version())
    }

    fn parts(&self) -> QueryParts {
        let own = QueryParts::SUBJECT.and(QueryParts::RESOURCE_FACTS);
        let parts = own.and(QueryParts::ROLES).and(QueryParts::TENANT);
        // The kind of a principal is among what its credential says.
        let parts = if self.table().assigns_by_kind { parts.and(QueryParts::CLAIMS) } else { parts };
        if self.trust_credential { parts.and(QueryParts::PERMISSIONS) } else { parts }
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }

    fn check_action(&self, action: &str) -> Result<(), ConfigError> {
        let table = self.table();
        if table.permission_positions.contains_key(action) {
            return Ok(());
        }
        Err(unknown("permission", action, &table.version, &near_of(action, &table.permission_positions)))
    }

    fn reload_state(&self) -> Option<ReloadState> {
        Some(self.shared.newest.live.state())
    }

    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        explain::steps(&self.table(), query)
    }
}

impl fmt::Debug for Rbac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        f.debug_struct("Rbac")
            .field("version", &table.version)
            .field("permissions", &table.permissions.len())
            .field("roles", &table.roles.len())
            .field("allow_tenantless", &table.allow_tenantless)
            .field("trust_credential_permissions", &self.trust_credential)
            .finish()
    }
}

/// Actions that somebody asked about and the policy does not know: each is said once, up to a bound.
#[derive(Default)]
struct Unknown(Mutex<Vec<Box<str>>>);

impl Unknown {
    const MAX: usize = 32;
    const MAX_CHARS: usize = 128;

    fn report(&self, action: &str, version: &str) {
        let action: Box<str> = action.chars().take(Self::MAX_CHARS).collect();
        {
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() >= Self::MAX || said.contains(&action) {
                return;
            }
            said.push(action.clone());
        }
        log::error(&format!("a question names the action {action:?}, which policy {version:?} does not list: denied"));
    }
}
