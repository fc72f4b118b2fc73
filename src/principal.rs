//! Who was authenticated, and how.

use std::{fmt, sync::Arc};

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
    scopes: Box<[Box<str>]>,
    roles: Box<[Box<str>]>,
    permissions: Box<[Box<str>]>,
    tenant: Option<Box<str>>,
    plan: Option<Box<str>>,
    expires_at: Option<u64>,
    claims: Option<Box<str>>,
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
                scopes: Box::default(),
                roles: Box::default(),
                permissions: Box::default(),
                tenant: None,
                plan: None,
                expires_at: None,
                claims: None,
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

    /// Reads the claims of the token into a type of your own.
    ///
    /// # Errors
    /// If there are no claims, or they do not fit `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match &self.facts.claims {
            Some(claims) => serde_json::from_str(claims),
            None => Err(serde::de::Error::custom("the principal has no claims")),
        }
    }

    /// Whether issuer and subject are the same.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.facts.issuer == other.facts.issuer && self.facts.subject == other.facts.subject
    }
}

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
}
