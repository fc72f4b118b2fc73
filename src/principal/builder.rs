use std::{fmt, sync::Arc};

use triomphe::ThinArc;

use super::{Confirmation, Facts, Principal, Span};
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
use super::{Terms, TokenMarks, kept};
use crate::voucher::Voucher;

/// Builds a [`Principal`]; made by [`Principal::builder`].
#[must_use]
#[derive(Clone)]
pub struct PrincipalBuilder {
    pub(super) facts: Facts,
    /// Where the claims stand that the text begins with; zero if it does not.
    pub(super) claims_at: usize,
}

/// Each setting comes twice: a builder is large, and where speed counts it is better not moved around.
impl PrincipalBuilder {
    /// Sets the public id of the credential, in place of what was set. Never a secret: it is logged; a record shows its first 256 bytes.
    /// Default: none.
    pub fn credential_id(mut self, id: impl AsRef<str>) -> Self {
        self.set_credential_id(id);
        self
    }

    /// Sets how the person proved who they are (`amr`, RFC 8176), in place of what was set. Default: none.
    pub fn methods<T: AsRef<str>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.set_methods(methods);
        self
    }

    /// Sets the authentication context class (`acr`), in place of what was set. Default: none.
    pub fn acr(mut self, class: impl AsRef<str>) -> Self {
        self.set_acr(class);
        self
    }

    /// Sets when the person proved who they are (`auth_time`), in seconds since the Unix epoch, in place of what was set.
    /// Default: not known.
    pub fn auth_time(mut self, unix_seconds: u64) -> Self {
        self.set_auth_time(unix_seconds);
        self
    }

    /// Sets the scopes, in place of what was set. Default: none.
    pub fn scopes<T: AsRef<str>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.set_scopes(scopes);
        self
    }

    /// Sets the roles, in place of what was set. Default: none.
    pub fn roles<T: AsRef<str>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.set_roles(roles);
        self
    }

    /// Sets the permissions that the credential itself carries, in place of what was set. Default: none.
    pub fn permissions<T: AsRef<str>>(mut self, permissions: impl IntoIterator<Item = T>) -> Self {
        self.set_permissions(permissions);
        self
    }

    /// Sets what [revocations](crate::revocation) find the principal by. Default: its subject and the id of its credential.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub fn marks(mut self, marks: TokenMarks) -> Self {
        self.set_marks(marks);
        self
    }

    /// Sets the tenant, in place of what was set. Default: none.
    pub fn tenant(mut self, tenant: impl AsRef<str>) -> Self {
        self.set_tenant(tenant);
        self
    }

    /// Sets the rate plan, in place of what was set. Default: none.
    pub fn plan(mut self, plan: impl AsRef<str>) -> Self {
        self.facts.plan = Some(self.text(plan.as_ref()));
        self
    }

    /// Sets when the credential ends, in seconds since the Unix epoch, in place of what was set. Default: never.
    pub fn expires_at(mut self, unix_seconds: u64) -> Self {
        self.set_expires_at(unix_seconds);
        self
    }

    /// Names who knows whether the principal still counts later, in an exchange that outlasts its request: see [`Voucher`].
    /// Without one, it counts until it [expires](Self::expires_at).
    pub fn vouched_by(mut self, voucher: Arc<dyn Voucher>) -> Self {
        self.set_voucher(voucher);
        self
    }

    /// Says that no log-in leads to a credential with more in it, as of an API key or a client certificate. Where scopes are missing,
    /// or a stronger authentication, the guard then answers a plain `403`. Default: a challenge says which token to come back with
    /// (RFC 6750 §3.1, RFC 9470 §3).
    pub const fn without_step_up(mut self) -> Self {
        self.facts.without_step_up = true;
        self
    }

    /// Sets what the credential is bound to. Only for an authenticator that has checked it, or hands it on to who does.
    pub fn confirmation(mut self, confirmation: Confirmation) -> Self {
        self.set_confirmation(confirmation);
        self
    }

    /// Keeps the token's claims, a JSON object, for [`Principal::claims`].
    pub fn claims(mut self, json: impl AsRef<str>) -> Self {
        self.facts.claims = Some(self.text(json.as_ref()));
        self
    }

    /// Finishes the principal.
    #[must_use]
    pub fn build(self) -> Principal {
        Principal { block: ThinArc::from_header_and_iter(self.facts, std::iter::empty()) }
    }

    /// Finishes a principal that a cache finds by this key, as long as the terms hold.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub(crate) fn keep(mut self, terms: Terms, key: &[u8]) -> Principal {
        (self.facts.terms, self.facts.key_len) = (terms, key.len());
        Principal { block: ThinArc::from_header_and_iter(self.facts, kept::words(key)) }
    }

    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub(crate) fn set_marks(&mut self, marks: TokenMarks) {
        self.facts.marks = Some(Box::new(marks));
    }

    pub(crate) fn set_credential_id(&mut self, id: impl AsRef<str>) {
        self.facts.credential_id = Some(self.text(id.as_ref()));
    }

    pub(crate) fn set_acr(&mut self, class: impl AsRef<str>) {
        self.facts.acr = Some(self.text(class.as_ref()));
    }

    pub(crate) const fn set_auth_time(&mut self, unix_seconds: u64) {
        self.facts.auth_time = Some(unix_seconds);
    }

    pub(crate) fn set_methods<T: AsRef<str>>(&mut self, methods: impl IntoIterator<Item = T>) {
        self.facts.methods = self.list(methods);
    }

    pub(crate) fn set_scopes<T: AsRef<str>>(&mut self, scopes: impl IntoIterator<Item = T>) {
        self.facts.scopes = self.list(scopes);
    }

    pub(crate) fn set_roles<T: AsRef<str>>(&mut self, roles: impl IntoIterator<Item = T>) {
        self.facts.roles = self.list(roles);
    }

    pub(crate) fn set_permissions<T: AsRef<str>>(&mut self, permissions: impl IntoIterator<Item = T>) {
        self.facts.permissions = self.list(permissions);
    }

    pub(crate) fn set_tenant(&mut self, tenant: impl AsRef<str>) {
        self.facts.tenant = Some(self.text(tenant.as_ref()));
    }

    pub(crate) const fn set_expires_at(&mut self, unix_seconds: u64) {
        self.facts.expires_at = Some(unix_seconds);
    }

    pub(crate) fn set_voucher(&mut self, voucher: Arc<dyn Voucher>) {
        self.facts.voucher = Some(voucher);
    }

    /// Sets the first nanosecond since the Unix epoch at which the authenticator takes it no more, leeway included.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub(crate) const fn set_ends_at(&mut self, unix_nanos: u64) {
        self.facts.ends_at = Some(unix_nanos);
    }

    pub(crate) fn set_confirmation(&mut self, confirmation: Confirmation) {
        self.facts.confirmation = Some(Box::new(confirmation));
    }

    pub(super) fn text(&mut self, text: &str) -> Span {
        let within = text.as_ptr().addr().wrapping_sub(self.claims_at);
        if self.claims_at != 0
            && let Some(span) = Span::new(within, text.len())
            && span.of(&self.facts.text) == text
        {
            return span;
        }
        let start = self.facts.text.len();
        self.facts.text.push_str(text);
        Span::new(start, text.len()).unwrap_or_default()
    }

    pub(super) fn list<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> Span {
        let start = self.facts.spans.len();
        for text in texts {
            let span = self.text(text.as_ref());
            self.facts.spans.push(span);
        }
        Span::new(start, self.facts.spans.len().saturating_sub(start)).unwrap_or_default()
    }
}

impl fmt::Debug for PrincipalBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrincipalBuilder")
            .field("subject", &self.facts.subject.of(&self.facts.text))
            .finish_non_exhaustive()
    }
}
