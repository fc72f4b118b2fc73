//! Who was authenticated, and how.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::{Arc, OnceLock},
};

use serde::de::DeserializeOwned;

/// What a [`Principal`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program that acts for itself.
    Service,
    /// The holder of an API key.
    Key,
}

impl PrincipalKind {
    /// The kind in lower case, as records show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Key => "key",
        }
    }
}

/// Which of the two identities of a request a [`Principal`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: a request has these two identities")]
pub enum Slot {
    /// Who acts.
    Subject,
    /// What acts for the subject: an application with a key or certificate of its own.
    Client,
}

/// Who was authenticated, how, and what the credential says about them. A clone costs one reference count.
///
/// A principal is identified by issuer **and** subject: the same subject from two issuers is two principals
/// (RFC 8725 §3.8). Anybody may build one, an authenticator of your own for example; it only counts once it comes out of an
/// authentication layer, which is the only writer of [`SecurityContext`](crate::SecurityContext).
///
/// ```
/// use portcullis::{Principal, PrincipalKind};
///
/// let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt")
///     .roles(["clerk"])
///     .scopes(["orders:read", "orders:write"])
///     .build();
/// assert!(alice.has_scope("orders:read"));
/// assert!(!alice.has_role("manager"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    facts: Arc<Facts>,
}

#[derive(Clone, PartialEq, Eq)]
struct Facts {
    kind: PrincipalKind,
    issuer: Arc<str>,
    subject: Box<str>,
    credential: &'static str,
    credential_id: Option<Box<str>>,
    methods: Box<[Box<str>]>,
    acr: Option<Box<str>>,
    auth_time: Option<u64>,
    scopes: Box<[Box<str>]>,
    roles: Box<[Box<str>]>,
    permissions: Box<[Box<str>]>,
    tenant: Option<Box<str>>,
    plan: Option<Box<str>>,
    expires_at: Option<u64>,
    claims: Option<Box<str>>,
    read: ReadClaims,
    #[cfg(feature = "rbac")]
    known: KnownRoles,
}

impl Principal {
    /// Starts a principal: its kind, who vouches for it, its name there, and the credential that proved it (`jwt`,
    /// `api_key`, or a lower-case word of your own).
    pub fn builder(
        kind: PrincipalKind,
        issuer: impl Into<Arc<str>>,
        subject: impl Into<Box<str>>,
        credential: &'static str,
    ) -> PrincipalBuilder {
        PrincipalBuilder {
            facts: Facts {
                kind,
                issuer: issuer.into(),
                subject: subject.into(),
                credential,
                credential_id: None,
                methods: Box::default(),
                acr: None,
                auth_time: None,
                scopes: Box::default(),
                roles: Box::default(),
                permissions: Box::default(),
                tenant: None,
                plan: None,
                expires_at: None,
                claims: None,
                read: ReadClaims::default(),
                #[cfg(feature = "rbac")]
                known: KnownRoles::default(),
            },
        }
    }

    /// Person, program or key.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.facts.kind
    }

    /// Who vouches for the subject: a token's `iss`, or the name of a key store.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.facts.issuer
    }

    /// The name at the issuer. Unique only together with [`issuer`](Self::issuer).
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.facts.subject
    }

    /// The credential that proved it, such as `jwt` or `api_key`.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        self.facts.credential
    }

    /// The public id of that credential: a token's `jti`, a key's id.
    #[must_use]
    pub fn credential_id(&self) -> Option<&str> {
        self.facts.credential_id.as_deref()
    }

    /// How the person proved who they are, as the issuer tells it: `amr` (RFC 8176), such as `pwd` or `mfa`.
    #[must_use]
    pub fn methods(&self) -> &[Box<str>] {
        &self.facts.methods
    }

    /// The authentication context class that the issuer tells: `acr` (RFC 9068 §2.2.1, OpenID Connect Core §2).
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.facts.acr.as_deref()
    }

    /// When the person proved who they are, in seconds since the Unix epoch: `auth_time`.
    #[must_use]
    pub fn auth_time(&self) -> Option<u64> {
        self.facts.auth_time
    }

    /// What the credential may be used for (RFC 6749 §3.3).
    #[must_use]
    pub fn scopes(&self) -> &[Box<str>] {
        &self.facts.scopes
    }

    /// Whether the credential carries this scope, compared byte for byte.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.facts.scopes.iter().any(|held| **held == *scope)
    }

    /// The roles that the issuer asserts.
    #[must_use]
    pub fn roles(&self) -> &[Box<str>] {
        &self.facts.roles
    }

    /// Whether the issuer asserts this role, compared byte for byte.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.facts.roles.iter().any(|held| **held == *role)
    }

    /// Permissions that the credential itself carries, besides those that a policy derives from its roles.
    #[must_use]
    pub fn permissions(&self) -> &[Box<str>] {
        &self.facts.permissions
    }

    /// The tenant that the principal belongs to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.facts.tenant.as_deref()
    }

    /// The rate plan that the credential is on.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.facts.plan.as_deref()
    }

    /// When the credential ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        self.facts.expires_at
    }

    /// Reads the claims of the token into a type of your own, each time anew.
    /// [`claims_shared`](Self::claims_shared) reads them once.
    ///
    /// # Errors
    /// If there are no claims, or they do not fit `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match &self.facts.claims {
            Some(claims) => serde_json::from_str(claims),
            None => Err(serde::de::Error::custom("the principal has no claims")),
        }
    }

    /// Reads the claims of the token into a type of your own, once for this principal and its clones: later calls cost a
    /// reference count. A principal that an authenticator remembers, as the JWT authenticator does, keeps what was read for
    /// the requests to come.
    ///
    /// The first four types are kept, for as long as the principal is; a fifth is read each time. What does not fit is not
    /// kept.
    ///
    /// ```
    /// use portcullis::{Principal, PrincipalKind};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Profile {
    ///     email: String,
    /// }
    ///
    /// let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt")
    ///     .claims(r#"{"sub": "alice", "email": "alice@example.com"}"#)
    ///     .build();
    /// let profile = alice.claims_shared::<Profile>()?;
    /// assert_eq!(profile.email, "alice@example.com");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no claims, or they do not fit `T`.
    pub fn claims_shared<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, serde_json::Error> {
        self.facts.read.get_or_keep(|| self.claims())
    }

    /// Where a policy has the roles that it knows, looked up once for each policy that runs and remembered with its number: a
    /// newer policy has another, and what was remembered for an older one does not count. Numbers must be unique in the process.
    /// The first four policies are remembered; `None` for others, which look again.
    #[cfg(feature = "rbac")]
    #[inline]
    pub(crate) fn known_roles(&self, policy: u64, find: impl Fn(&str) -> Option<usize>) -> Option<&[usize]> {
        match self.facts.known.0.get() {
            Some(known) if known.policy == policy => Some(&known.positions),
            Some(_) | None => self.known_roles_further_on(policy, find),
        }
    }

    #[cfg(feature = "rbac")]
    #[cold]
    fn known_roles_further_on(&self, policy: u64, find: impl Fn(&str) -> Option<usize>) -> Option<&[usize]> {
        let mut place = &self.facts.known;
        for _ in 0..MAX_POLICIES {
            let known = place.0.get_or_init(|| {
                let positions = self.facts.roles.iter().filter_map(|role| find(role)).collect();
                Box::new(Known { policy, positions, next: KnownRoles::default() })
            });
            if known.policy == policy {
                return Some(&known.positions);
            }
            place = &known.next;
        }
        None
    }

    /// About how many bytes of memory it takes, besides what claims were read into and what policies remember.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub(crate) fn size(&self) -> usize {
        let Facts { subject, credential_id, methods, acr, scopes, roles, permissions, tenant, plan, claims, .. } =
            &*self.facts;
        let alone =
            [credential_id, acr, tenant, plan, claims].into_iter().flatten().chain([subject]).map(|text| text.len());
        let listed = [methods, scopes, roles, permissions].into_iter().flatten();
        let listed = listed.map(|text| text.len().saturating_add(size_of::<Box<str>>()));
        alone.chain(listed).fold(size_of::<Facts>(), usize::saturating_add)
    }

    /// Whether issuer and subject are the same.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.facts.issuer == other.facts.issuer && self.facts.subject == other.facts.subject
    }
}

/// The most types that the claims of one principal are kept in.
const MAX_TYPES: usize = 4;

/// The claims as types of handlers' own, each of them at most once: a list that only grows. It is no part of what a principal
/// is: it is never compared or shown, and a copy begins without.
#[derive(Default)]
struct ReadClaims(OnceLock<Box<ReadAs>>);

struct ReadAs {
    kind: TypeId,
    claims: Arc<dyn Any + Send + Sync>,
    next: ReadClaims,
}

impl ReadClaims {
    fn get_or_keep<T: Send + Sync + 'static, E>(&self, read: impl Fn() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut place = self;
        let mut fresh = None;
        for _ in 0..MAX_TYPES {
            if place.0.get().is_none() {
                let claims = match fresh {
                    Some(claims) => claims,
                    None => Arc::new(read()?),
                };
                fresh = Some(Arc::clone(&claims));
                // If another thread was faster, its entry is looked at below.
                let _ = place.0.set(Box::new(ReadAs { kind: TypeId::of::<T>(), claims, next: Self::default() }));
            }
            let Some(entry) = place.0.get() else { break };
            if entry.kind == TypeId::of::<T>()
                && let Ok(claims) = Arc::clone(&entry.claims).downcast()
            {
                return Ok(claims);
            }
            place = &entry.next;
        }
        fresh.map_or_else(|| read().map(Arc::new), Ok)
    }
}

impl Clone for ReadClaims {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for ReadClaims {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ReadClaims {}

/// The most policies whose positions of roles are remembered.
#[cfg(feature = "rbac")]
const MAX_POLICIES: usize = 4;

/// What policies know of the roles, each policy at most once: a list that only grows. As with [`ReadClaims`], it is no part of
/// what a principal is.
#[cfg(feature = "rbac")]
#[derive(Default)]
struct KnownRoles(OnceLock<Box<Known>>);

#[cfg(feature = "rbac")]
struct Known {
    policy: u64,
    positions: Box<[usize]>,
    next: KnownRoles,
}

#[cfg(feature = "rbac")]
impl Clone for KnownRoles {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(feature = "rbac")]
impl PartialEq for KnownRoles {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(feature = "rbac")]
impl Eq for KnownRoles {}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("kind", &self.facts.kind)
            .field("issuer", &self.facts.issuer)
            .field("subject", &self.facts.subject)
            .field("credential", &self.facts.credential)
            .field("credential_id", &self.facts.credential_id)
            .field("scopes", &self.facts.scopes)
            .field("roles", &self.facts.roles)
            .field("tenant", &self.facts.tenant)
            .field("expires_at", &self.facts.expires_at)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Principal`]; made by [`Principal::builder`].
#[must_use]
#[derive(Clone)]
pub struct PrincipalBuilder {
    facts: Facts,
}

impl PrincipalBuilder {
    /// Sets the public id of the credential. Never a secret: it is logged.
    pub fn credential_id(mut self, id: impl Into<Box<str>>) -> Self {
        self.facts.credential_id = Some(id.into());
        self
    }

    /// Sets how the person proved who they are (`amr`, RFC 8176).
    pub fn methods<T: Into<Box<str>>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.facts.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the authentication context class (`acr`).
    pub fn acr(mut self, class: impl Into<Box<str>>) -> Self {
        self.facts.acr = Some(class.into());
        self
    }

    /// Sets when the person proved who they are (`auth_time`), in seconds since the Unix epoch.
    pub fn auth_time(mut self, unix_seconds: u64) -> Self {
        self.facts.auth_time = Some(unix_seconds);
        self
    }

    /// Sets the scopes.
    pub fn scopes<T: Into<Box<str>>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.facts.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the roles.
    pub fn roles<T: Into<Box<str>>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.facts.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the permissions that the credential itself carries.
    pub fn permissions<T: Into<Box<str>>>(mut self, permissions: impl IntoIterator<Item = T>) -> Self {
        self.facts.permissions = permissions.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the tenant.
    pub fn tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.facts.tenant = Some(tenant.into());
        self
    }

    /// Sets the rate plan.
    pub fn plan(mut self, plan: impl Into<Box<str>>) -> Self {
        self.facts.plan = Some(plan.into());
        self
    }

    /// Sets when the credential ends, in seconds since the Unix epoch.
    pub fn expires_at(mut self, unix_seconds: u64) -> Self {
        self.facts.expires_at = Some(unix_seconds);
        self
    }

    /// Keeps the token's claims, a JSON object, for [`Principal::claims`].
    pub fn claims(mut self, json: impl Into<Box<str>>) -> Self {
        self.facts.claims = Some(json.into());
        self
    }

    /// Finishes the principal.
    #[must_use]
    pub fn build(self) -> Principal {
        Principal { facts: Arc::new(self.facts) }
    }
}

impl fmt::Debug for PrincipalBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrincipalBuilder").field("subject", &self.facts.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(issuer: &str) -> Principal {
        Principal::builder(PrincipalKind::User, issuer, "alice", "jwt").claims(r#"{"email":"a@example.com"}"#).build()
    }

    #[test]
    fn the_same_subject_from_two_issuers_is_two_principals() {
        assert!(principal("https://a.example").is_same_as(&principal("https://a.example")));
        assert!(!principal("https://a.example").is_same_as(&principal("https://b.example")));
    }

    #[cfg(feature = "rbac")]
    #[test]
    fn roles_are_looked_up_once_for_each_policy() {
        use std::cell::Cell;

        let alice = Principal::builder(PrincipalKind::User, "i", "alice", "jwt").roles(["a", "x", "b"]).build();
        let looked = Cell::new(0);
        let ask = |policy: u64| {
            let find = |role: &str| {
                looked.set(looked.get() + 1);
                ["a", "b"].iter().position(|known| *known == role).map(|at| at + usize::try_from(policy).unwrap())
            };
            alice.known_roles(policy, find).map(<[usize]>::to_vec)
        };
        for policy in [1, 2, 1, 3, 4, 2, 4] {
            let first = usize::try_from(policy).unwrap();
            assert_eq!(ask(policy), Some(vec![first, first + 1]), "{policy}");
        }
        assert_eq!(looked.get(), 12, "three roles of four policies");
        assert_eq!(ask(5), None, "who is not remembered looks again");
        assert_eq!(looked.get(), 12);
        let copy = Principal { facts: Arc::new((*alice.facts).clone()) };
        assert!(copy == alice && copy.facts.known.0.get().is_none());
    }

    #[test]
    fn debug_keeps_the_claims_to_itself() {
        assert!(!format!("{:?}", principal("https://a.example")).contains("a@example.com"));
    }

    #[test]
    fn claims_that_are_missing_are_an_error() {
        let key = Principal::builder(PrincipalKind::Key, "keys", "billing", "api_key").build();
        assert!(key.claims::<std::collections::HashMap<String, String>>().is_err());
        assert!(key.claims::<Option<String>>().is_err(), "also for a type that null fits");
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Profile<const N: usize> {
        email: String,
    }

    fn read<const N: usize>(principal: &Principal) -> Arc<Profile<N>> {
        principal.claims_shared().unwrap()
    }

    #[test]
    fn claims_are_read_once_for_all_clones() {
        let alice = principal("https://a.example");
        assert!(Arc::ptr_eq(&read::<0>(&alice), &read::<0>(&alice.clone())));
        assert!(!Arc::ptr_eq(&read::<0>(&alice), &read::<0>(&principal("https://a.example"))));
        assert!(Arc::ptr_eq(&read::<1>(&alice), &read::<1>(&alice)), "also a second type");
        assert_eq!(*read::<0>(&alice), Profile { email: "a@example.com".to_owned() });
    }

    #[test]
    fn four_types_are_kept_and_a_fifth_is_read_each_time() {
        let alice = principal("https://a.example");
        let first = (read::<0>(&alice), read::<1>(&alice), read::<2>(&alice), read::<3>(&alice));
        let again = (read::<0>(&alice), read::<1>(&alice), read::<2>(&alice), read::<3>(&alice));
        assert!(Arc::ptr_eq(&first.0, &again.0) && Arc::ptr_eq(&first.1, &again.1));
        assert!(Arc::ptr_eq(&first.2, &again.2) && Arc::ptr_eq(&first.3, &again.3));
        assert!(!Arc::ptr_eq(&read::<4>(&alice), &read::<4>(&alice)));
        assert_eq!(read::<4>(&alice).email, "a@example.com");
    }

    #[test]
    fn claims_that_do_not_fit_are_not_kept() {
        let alice = principal("https://a.example");
        assert!(alice.claims_shared::<Vec<u8>>().is_err());
        assert!(alice.claims_shared::<Vec<u8>>().is_err());
        assert!(alice.facts.read.0.get().is_none());
    }

    #[test]
    fn what_was_read_is_no_part_of_the_principal() {
        let (alice, other) = (principal("https://a.example"), principal("https://a.example"));
        let shown = format!("{alice:?}");
        read::<0>(&alice);
        assert_eq!(alice, other);
        assert_eq!(format!("{alice:?}"), shown);
    }

    #[test]
    fn threads_share_what_was_read() {
        let alice = principal("https://a.example");
        let read = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(|| (read::<0>(&alice), read::<1>(&alice))));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(read.iter().all(|(one, two)| Arc::ptr_eq(one, &read[0].0) && Arc::ptr_eq(two, &read[0].1)));
    }
}
