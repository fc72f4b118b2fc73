use crate::api_key::Hit;

/// Which records [`ApiKeyAdmin::list`](crate::api_key::ApiKeyAdmin::list) gives: those that fit everything that is said. All
/// texts are compared byte for byte.
///
/// ```
/// use portcullis::api_key::KeyFilter;
///
/// let filter = KeyFilter::all().tenant("acme").environment("live").active_at(1_800_000_000);
/// assert_eq!(filter.by_tenant(), Some(Some("acme")));
/// assert_eq!(filter.by_subject(), None);
/// ```
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    tenant: Option<Option<Box<str>>>,
    subject: Option<Box<str>>,
    environment: Option<Option<Box<str>>>,
    active_at: Option<u64>,
    name: Option<Box<str>>,
}

impl KeyFilter {
    /// Every record.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of this tenant.
    pub fn tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.tenant = Some(Some(tenant.into()));
        self
    }

    /// Those of no tenant.
    pub fn without_tenant(mut self) -> Self {
        self.tenant = Some(None);
        self
    }

    /// Those of this subject, in whatever tenant.
    pub fn subject(mut self, subject: impl Into<Box<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Those of this environment.
    pub fn environment(mut self, environment: impl Into<Box<str>>) -> Self {
        self.environment = Some(Some(environment.into()));
        self
    }

    /// Those of no environment.
    pub fn without_environment(mut self) -> Self {
        self.environment = Some(None);
        self
    }

    /// Those that are accepted at this time, in seconds since the Unix epoch: [`Hit::is_active`].
    pub fn active_at(mut self, unix_seconds: u64) -> Self {
        self.active_at = Some(unix_seconds);
        self
    }

    /// Those whose name has this text in it. The empty text is in every name.
    pub fn name_contains(mut self, text: impl Into<Box<str>>) -> Self {
        self.name = Some(text.into());
        self
    }

    /// The tenant that is asked for; `Some(None)` is none.
    #[must_use]
    pub fn by_tenant(&self) -> Option<Option<&str>> {
        self.tenant.as_ref().map(Option::as_deref)
    }

    /// The subject that is asked for.
    #[must_use]
    pub fn by_subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The environment that is asked for; `Some(None)` is none.
    #[must_use]
    pub fn by_environment(&self) -> Option<Option<&str>> {
        self.environment.as_ref().map(Option::as_deref)
    }

    /// When the records must be accepted.
    #[must_use]
    pub const fn by_activity(&self) -> Option<u64> {
        self.active_at
    }

    /// The text that the names must have in them.
    #[must_use]
    pub fn by_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether a record fits, for a store that looks through its own.
    #[must_use]
    pub fn fits(&self, hit: &Hit) -> bool {
        let record = hit.record();
        self.by_tenant().is_none_or(|tenant| tenant == record.tenant())
            && self.by_subject().is_none_or(|subject| subject == record.subject())
            && self.by_environment().is_none_or(|environment| environment == record.environment())
            && self.by_activity().is_none_or(|at| hit.is_active(at))
            && self.by_name().is_none_or(|text| record.name().contains(text))
    }
}
