mod handle;
mod load;
mod table;

use std::{
    fmt,
    fs::File,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

pub use handle::{Permission, Role};

use crate::{
    error::ConfigError,
    log,
    now::Now,
    policy::{
        AccessQuery, Basis, Decision, PolicyBackend, QueryParts, Resource, Verdict,
        rbac::{
            load::{MAX_DOCUMENT_LEN, Origin},
            table::Table,
        },
    },
    principal::Principal,
};

/// Role-based access control with a hierarchy of roles (ANSI INCITS 359), from a TOML document.
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
///     grants = ["orders:read", "orders:cancel"]
/// "#)?;
/// let manager = policy.role("manager")?;
/// assert!(manager.permissions().eq(["orders:list", "orders:read", "orders:cancel"]));
/// assert!(policy.permission("order:read").unwrap_err().to_string().contains("did you mean \"orders:read\"?"));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # The document
/// - `version`: required; names the policy in records.
/// - `permissions`: required; the closed list. A grant of anything else is refused, and there are no wildcards.
/// - `[roles.NAME]`: `inherits` (roles), `grants` (on everything), `grants_own` (only on what the principal owns).
///
/// Names are 1 to 128 bytes of ASCII letters, digits and `. _ : / @ -`, compared byte for byte. There are at most 4096
/// permissions and 4096 roles, in at most 4 MiB. A permission that no role grants is logged as a warning.
///
/// # The decision
/// 1. An action that is not in `permissions` is denied, and logged as an error once for each name.
/// 2. A thing that names a tenant is denied to a principal of another tenant. (A principal without a tenant passes this
///    point: give one to every principal that must stay inside.)
/// 3. If one of the principal's roles, or one that it inherits, grants the action, it is allowed. Roles that the policy does
///    not know grant nothing.
/// 4. If one grants it on owned things, and the question names a thing that the principal owns by issuer and subject, it is
///    allowed.
/// 5. All else is denied.
///
/// It never says "cannot decide" and never waits. Inheritance is worked out at load, so a decision looks each role of the
/// principal up once and tests a bit; an allow does not allocate. A clone costs one reference count.
///
/// Not there: separation of duty (SSD, DSD), sessions with a part of the roles, changes of a loaded policy.
#[derive(Clone)]
pub struct Rbac {
    shared: Arc<Shared>,
    trust_credential: bool,
}

struct Shared {
    table: Table,
    unknown: Unknown,
}

impl Rbac {
    /// Reads a policy.
    ///
    /// # Errors
    /// If the document is not of the form above: the error names the setting and the offending value, or the line.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::load(text, Origin { file: None })
    }

    /// Reads a policy from a file. This blocks: call it at start.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), with the file named; or if the file cannot be read.
    pub fn from_toml_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let unreadable = |error| ConfigError::new("policy file", name.as_str(), "cannot be read").caused_by(error);
        let mut text = String::new();
        // One byte more than is allowed, so that a file that is too long is refused and not cut off.
        let limit = u64::try_from(MAX_DOCUMENT_LEN).unwrap_or(u64::MAX).saturating_add(1);
        File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)).map_err(unreadable)?;
        Self::load(&text, Origin { file: Some(&name) })
    }

    fn load(text: &str, origin: Origin<'_>) -> Result<Self, ConfigError> {
        let shared = Shared { table: load::load(text, origin)?, unknown: Unknown::default() };
        Ok(Self { shared: Arc::new(shared), trust_credential: false })
    }

    /// Lets the permissions that a credential itself carries ([`Principal::permissions`]) grant as well, as far as the
    /// policy lists them. Whoever issues the credentials then decides beside the policy.
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
        match table.permission_positions.get_key_value(name) {
            Some((shared, position)) => Ok(Permission::new(self.clone(), *position, Arc::clone(shared))),
            None => Err(self.unknown("permission", name, &load::near(name, &table.permission_positions))),
        }
    }

    /// The handle of a role, for requirements.
    ///
    /// # Errors
    /// If the policy does not have it; the error tells names that are close.
    pub fn role(&self, name: &str) -> Result<Role, ConfigError> {
        let table = self.table();
        match table.role_positions.get_key_value(name) {
            Some((shared, position)) => Ok(Role::new(self.clone(), *position, Arc::clone(shared))),
            None => Err(self.unknown("role", name, &load::near(name, &table.role_positions))),
        }
    }

    fn unknown(&self, setting: &str, name: &str, near: &str) -> ConfigError {
        ConfigError::new(setting, format!("{name:?}"), format!("is not in policy {:?}{near}", self.version()))
    }

    /// The version that the document names.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.table().version
    }

    /// The permissions, in the order of the document.
    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        self.table().permissions.iter().map(|name| &**name)
    }

    /// The roles, sorted by name.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.table().roles.iter().map(|role| &*role.name)
    }

    fn table(&self) -> &Table {
        &self.shared.table
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.trust_credential == other.trust_credential
    }

    fn verdict_of(&self, query: &AccessQuery<'_>) -> Verdict {
        let Some(position) = self.table().permission_positions.get(query.action()) else {
            self.shared.unknown.report(query.action(), self.version());
            return Verdict::from_basis(Decision::Deny, Arc::clone(&self.table().denials.unknown_action));
        };
        self.verdict(query.subject(), *position, query.resource())
    }

    fn verdict(&self, principal: &Principal, permission: usize, resource: Option<&Resource>) -> Verdict {
        let table = self.table();
        let tenants = (resource.and_then(Resource::tenant), principal.tenant());
        if matches!(tenants, (Some(owning), Some(asking)) if owning != asking) {
            return deny(&table.denials.other_tenant);
        }
        if let Some(role) = table.roles_of(principal).find(|role| role.reach.grants.has(permission)) {
            return Verdict::from_basis(Decision::Allow, Arc::clone(&role.basis));
        }
        if self.trust_credential
            && let Some(name) = table.permissions.get(permission)
            && principal.permissions().iter().any(|held| **held == **name)
        {
            return Verdict::from_basis(Decision::Allow, Arc::clone(&table.credential_basis));
        }
        match self.verdict_as_owner(principal, permission) {
            Some(verdict) if resource.is_some_and(|thing| thing.is_owned_by(principal)) => verdict,
            Some(_) => deny(&table.denials.own_things_only),
            None => deny(&table.denials.not_granted),
        }
    }

    /// Allows if a role grants it on owned things; whether the thing is owned is for the caller to ask.
    fn verdict_as_owner(&self, principal: &Principal, permission: usize) -> Option<Verdict> {
        let role = self.table().roles_of(principal).find(|role| role.reach.grants_own.has(permission))?;
        Some(Verdict::from_basis(Decision::Allow, Arc::clone(&role.basis)))
    }
}

fn deny(basis: &Arc<Basis>) -> Verdict {
    Verdict::from_basis(Decision::Deny, Arc::clone(basis))
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
        Some(0)
    }

    fn version(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.table().version))
    }

    fn parts(&self) -> QueryParts {
        let own = QueryParts::SUBJECT.and(QueryParts::RESOURCE_FACTS);
        let parts = own.and(QueryParts::ROLES).and(QueryParts::TENANT);
        if self.trust_credential { parts.and(QueryParts::PERMISSIONS) } else { parts }
    }
}

impl fmt::Debug for Rbac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rbac")
            .field("version", &self.version())
            .field("permissions", &self.table().permissions.len())
            .field("roles", &self.table().roles.len())
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
