use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{api_key::bounds, error::ConfigError};

/// Whose a key is: a subject, alone or in a tenant. The same subject in two tenants is two owners.
///
/// A subject and a tenant have 1 to 256 bytes each and no control characters.
///
/// ```
/// use portcullis::api_key::Owner;
///
/// let owner = Owner::new("billing")?.in_tenant("acme")?;
/// assert_eq!((owner.subject(), owner.tenant()), ("billing", Some("acme")));
/// assert_ne!(owner, Owner::new("billing")?);
/// assert!(Owner::new("").is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Owner {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Box<str>>,
    subject: Box<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    #[serde(default)]
    tenant: Option<String>,
    subject: String,
}

impl TryFrom<Unchecked> for Owner {
    type Error = ConfigError;

    fn try_from(owner: Unchecked) -> Result<Self, ConfigError> {
        Self::checked(owner.subject, owner.tenant)
    }
}

impl Owner {
    /// An owner outside all tenants.
    ///
    /// # Errors
    /// If the subject is empty, too long or has a control character.
    pub fn new(subject: &str) -> Result<Self, ConfigError> {
        Self::checked(subject.to_owned(), None)
    }

    /// The owner of that name in this tenant.
    ///
    /// # Errors
    /// If the tenant is empty, too long or has a control character.
    pub fn in_tenant(self, tenant: &str) -> Result<Self, ConfigError> {
        Self::checked(self.subject.into(), Some(tenant.to_owned()))
    }

    pub(super) fn checked(subject: String, tenant: Option<String>) -> Result<Self, ConfigError> {
        bounds::subject(&subject)?;
        tenant.as_deref().map_or(Ok(()), bounds::tenant)?;
        Ok(Self { tenant: tenant.map(Into::into), subject: subject.into() })
    }

    /// The name, unique in its tenant.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{:?} in {tenant:?}", self.subject),
            None => write!(f, "{:?}", self.subject),
        }
    }
}

/// When and why a key was revoked, or its owner disabled. The reason is for operators: at most 512 bytes, no control
/// characters; it may be empty.
///
/// ```
/// use portcullis::api_key::Revocation;
///
/// let revocation = Revocation::new(1_800_000_000, "leaked")?;
/// assert_eq!((revocation.at(), revocation.reason()), (1_800_000_000, "leaked"));
/// assert!(Revocation::new(1_800_000_000, &"x".repeat(513)).is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedRevocation")]
pub struct Revocation {
    at: u64,
    reason: Box<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedRevocation {
    at: u64,
    reason: String,
}

impl TryFrom<UncheckedRevocation> for Revocation {
    type Error = ConfigError;

    fn try_from(revocation: UncheckedRevocation) -> Result<Self, ConfigError> {
        Self::new(revocation.at, &revocation.reason)
    }
}

impl Revocation {
    /// At `at`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// If the reason is too long or has a control character, or the time is after the year 9999.
    pub fn new(at: u64, reason: &str) -> Result<Self, ConfigError> {
        bounds::time("API key revocation time", at)?;
        bounds::reason(reason)?;
        Ok(Self { at, reason: reason.into() })
    }

    /// When, in seconds since the Unix epoch.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
