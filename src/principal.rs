//! Who was authenticated, and how.

mod confirmation;
mod factors;
#[cfg_attr(
    not(any(feature = "jwt", feature = "jwt-pure-rust")),
    allow(dead_code, reason = "only the cache of tokens finds principals again")
)]
mod kept;
#[cfg(feature = "rbac")]
mod known;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
mod marks;
mod read;
mod texts;

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;
use triomphe::ThinArc;

use crate::voucher::Voucher;

pub use confirmation::Confirmation;
pub(crate) use kept::Terms;
use kept::Word;
#[cfg(feature = "rbac")]
use known::KnownRoles;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
use marks::Cleared;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub(crate) use marks::mark_of;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub use marks::{RevocationKind, TokenMarks};
use read::ReadClaims;
use texts::Span;
pub use texts::Texts;

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
#[derive(Clone)]
pub struct Principal {
    /// Behind the facts stands the key that a cache finds them by, if they are in one.
    block: ThinArc<Facts, Word>,
}

/// In this order: what a look-up in a cache reads shares a line of memory with the reference count.
#[derive(Clone)]
#[repr(C)]
struct Facts {
    terms: Terms,
    key_len: usize,
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    cleared: Cleared,
    kind: PrincipalKind,
    issuer: Arc<str>,
    credential: &'static str,
    auth_time: Option<u64>,
    expires_at: Option<u64>,
    /// The first nanosecond at which the authenticator takes it no more, where that is not `expires_at`.
    ends_at: Option<u64>,
    voucher: Option<Arc<dyn Voucher>>,
    /// Of few credentials, and then apart.
    confirmation: Option<Box<Confirmation>>,
    /// Where all strings stand, the issuer apart; claims once, with what is a part of them.
    text: String,
    /// The parts of it that are in lists.
    spans: Vec<Span>,
    subject: Span,
    credential_id: Option<Span>,
    acr: Option<Span>,
    tenant: Option<Span>,
    plan: Option<Span>,
    claims: Option<Span>,
    methods: Span,
    scopes: Span,
    roles: Span,
    permissions: Span,
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    marks: Option<Box<TokenMarks>>,
    read: ReadClaims,
    #[cfg(feature = "rbac")]
    known: KnownRoles,
}

impl Facts {
    #[inline]
    fn new(kind: PrincipalKind, issuer: Arc<str>, credential: &'static str, text: String) -> Self {
        Self {
            terms: Terms::default(),
            key_len: 0,
            #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
            cleared: Cleared::default(),
            kind,
            issuer,
            credential,
            auth_time: None,
            expires_at: None,
            ends_at: None,
            voucher: None,
            confirmation: None,
            text,
            spans: Vec::new(),
            subject: Span::default(),
            credential_id: None,
            acr: None,
            tenant: None,
            plan: None,
            claims: None,
            methods: Span::default(),
            scopes: Span::default(),
            roles: Span::default(),
            permissions: Span::default(),
            #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
            marks: None,
            read: ReadClaims::default(),
            #[cfg(feature = "rbac")]
            known: KnownRoles::default(),
        }
    }
}

impl Principal {
    /// Starts a principal: its kind, who vouches for it, its name there, and the credential that proved it (`jwt`,
    /// `api_key`, or a lower-case word of your own).
    pub fn builder(
        kind: PrincipalKind,
        issuer: impl Into<Arc<str>>,
        subject: impl AsRef<str>,
        credential: &'static str,
    ) -> PrincipalBuilder {
        let mut builder =
            PrincipalBuilder { facts: Facts::new(kind, issuer.into(), credential, String::new()), claims_at: 0 };
        builder.facts.subject = builder.text(subject.as_ref());
        builder
    }

    /// Starts a principal of whom claims, a JSON object, tell. What is given to the builder as a part of this very text is not
    /// written down again.
    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    #[inline]
    pub(crate) fn of_claims(
        kind: PrincipalKind,
        issuer: Arc<str>,
        subject: &str,
        credential: &'static str,
        claims: &str,
    ) -> PrincipalBuilder {
        let facts = Facts::new(kind, issuer, credential, claims.to_owned());
        let mut builder = PrincipalBuilder { facts, claims_at: claims.as_ptr().addr() };
        builder.facts.claims = Some(Span { start: 0, len: claims.len() });
        builder.facts.spans.reserve(8);
        builder.facts.subject = builder.text(subject);
        builder
    }

    fn facts(&self) -> &Facts {
        &self.block.header.header
    }

    fn text(&self, span: Span) -> &str {
        span.of(&self.facts().text)
    }

    fn texts(&self, list: Span) -> Texts<'_> {
        Texts::new(&self.facts().text, list.among(&self.facts().spans))
    }

    /// Person, program or key.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.facts().kind
    }

    /// Who vouches for the subject: a token's `iss`, or the name of a key store.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.facts().issuer
    }

    /// The name at the issuer. Unique only together with [`issuer`](Self::issuer).
    #[must_use]
    pub fn subject(&self) -> &str {
        self.text(self.facts().subject)
    }

    /// The credential that proved it, such as `jwt` or `api_key`.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        self.facts().credential
    }

    /// The public id of that credential: a token's `jti`, a key's id.
    #[must_use]
    pub fn credential_id(&self) -> Option<&str> {
        self.facts().credential_id.map(|id| self.text(id))
    }

    /// How the person proved who they are, as the issuer tells it: `amr` (RFC 8176), such as `pwd` or `mfa`.
    pub fn methods(&self) -> Texts<'_> {
        self.texts(self.facts().methods)
    }

    /// The authentication context class that the issuer tells: `acr` (RFC 9068 §2.2.1, OpenID Connect Core §2).
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.facts().acr.map(|span| self.text(span))
    }

    /// When the person proved who they are, in seconds since the Unix epoch: `auth_time`.
    #[must_use]
    pub fn auth_time(&self) -> Option<u64> {
        self.facts().auth_time
    }

    /// What the credential may be used for (RFC 6749 §3.3).
    pub fn scopes(&self) -> Texts<'_> {
        self.texts(self.facts().scopes)
    }

    /// Whether the credential carries this scope, compared byte for byte.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().contains(scope)
    }

    /// The roles that the issuer asserts.
    pub fn roles(&self) -> Texts<'_> {
        self.texts(self.facts().roles)
    }

    /// Whether the issuer asserts this role, compared byte for byte.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().contains(role)
    }

    /// Permissions that the credential itself carries, besides those that a policy derives from its roles.
    pub fn permissions(&self) -> Texts<'_> {
        self.texts(self.facts().permissions)
    }

    /// The tenant that the principal belongs to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.facts().tenant.map(|tenant| self.text(tenant))
    }

    /// The rate plan that the credential is on.
    #[must_use]
    pub fn plan(&self) -> Option<&str> {
        self.facts().plan.map(|plan| self.text(plan))
    }

    /// When the credential ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        self.facts().expires_at
    }

    /// The first nanosecond since the Unix epoch at which its authenticator would refuse it; the last there is if never.
    pub(crate) fn ends_at_nanos(&self) -> u64 {
        let facts = self.facts();
        let expiry = || facts.expires_at.map(|seconds| seconds.saturating_mul(1_000_000_000));
        facts.ends_at.or_else(expiry).unwrap_or(u64::MAX)
    }

    /// Who knows whether it was revoked.
    pub(crate) fn voucher(&self) -> Option<&Arc<dyn Voucher>> {
        self.facts().voucher.as_ref()
    }

    /// Whether there may be an end.
    #[cfg(feature = "stack")]
    pub(crate) fn can_end(&self) -> bool {
        self.voucher().is_some() || self.ends_at_nanos() != u64::MAX
    }

    /// The claims as they were written.
    pub(crate) fn claims_text(&self) -> Option<&str> {
        self.facts().claims.map(|claims| self.text(claims))
    }

    /// Whether there are claims to read.
    #[cfg(any(feature = "cedar", feature = "policy-remote", feature = "rego"))]
    pub(crate) fn has_claims(&self) -> bool {
        self.facts().claims.is_some()
    }

    /// What the credential is bound to, so that it is of no use to who does not have that as well: a token's `cnf` (RFC 7800).
    /// The authenticator has checked it.
    #[must_use]
    pub fn confirmation(&self) -> Option<&Confirmation> {
        self.facts().confirmation.as_deref()
    }

    /// Reads the claims of the token into a type of your own, each time anew.
    /// [`claims_shared`](Self::claims_shared) reads them once.
    ///
    /// # Errors
    /// If there are no claims, or they do not fit `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self.facts().claims {
            Some(claims) => serde_json::from_str(self.text(claims)),
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
        self.facts().read.get_or_keep(|| self.claims())
    }

    /// Where a policy has the roles that it knows: looked up once for each policy, by its number; see [`KnownRoles`].
    #[cfg(feature = "rbac")]
    #[inline]
    pub(crate) fn known_roles(&self, policy: u64, find: impl Fn(&str) -> Option<usize>) -> Option<&[usize]> {
        self.facts().known.get_or_keep(policy, || self.roles().filter_map(&find).collect())
    }

    /// Whether issuer and subject are the same.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.issuer() == other.issuer() && self.subject() == other.subject()
    }
}

/// What a cache of credentials asks.
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
impl Principal {
    /// About how many bytes of memory it takes, besides what claims were read into.
    pub(crate) fn size(&self) -> usize {
        let facts = self.facts();
        let spans = facts.spans.capacity().saturating_mul(size_of::<Span>());
        let key = self.block.slice.len().saturating_mul(size_of::<Word>());
        let bound = facts.confirmation.as_ref().map_or(0, |_| size_of::<Confirmation>());
        let marks = facts.marks.as_ref().map_or(0, |_| size_of::<TokenMarks>());
        [facts.text.capacity(), spans, key, bound, marks].into_iter().fold(size_of::<Facts>(), usize::saturating_add)
    }

    /// Whether it was last looked for among the revocations of this generation, and not found.
    #[inline]
    pub(crate) fn is_cleared_under(&self, generation: u64) -> bool {
        self.facts().cleared.is_under(generation)
    }

    /// Notes that no revocation of this generation meets it.
    pub(crate) fn note_cleared(&self, generation: u64) {
        self.facts().cleared.note(generation);
    }

    /// What revocations find it by. One whose authenticator said nothing has what the principal tells.
    pub(crate) fn revocation_marks(&self) -> std::borrow::Cow<'_, TokenMarks> {
        match &self.facts().marks {
            Some(marks) => std::borrow::Cow::Borrowed(marks),
            None => {
                let marks = TokenMarks::new(self.issuer()).subject(self.subject());
                std::borrow::Cow::Owned(self.credential_id().into_iter().fold(marks, TokenMarks::token))
            }
        }
    }

    pub(crate) fn terms(&self) -> Terms {
        self.facts().terms
    }

    /// Whether it was [kept](PrincipalBuilder::keep) under this key, and the key was not forgotten since.
    pub(crate) fn is_kept_under(&self, key: &[u8]) -> bool {
        self.facts().key_len == key.len() && kept::are_of(&self.block.slice, key)
    }
}

/// What it says of whom; not how it is kept, and not what claims were read into.
impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        let texts = |one: &Self| {
            let facts = one.facts();
            [Some(facts.subject), facts.credential_id, facts.acr, facts.tenant, facts.plan, facts.claims]
        };
        let same_text = |(own, others): (Option<Span>, Option<Span>)| {
            own.map(|span| self.text(span)) == others.map(|span| other.text(span))
        };
        (self.kind(), self.credential()) == (other.kind(), other.credential())
            && (self.expires_at(), self.auth_time()) == (other.expires_at(), other.auth_time())
            && self.issuer() == other.issuer()
            && self.confirmation() == other.confirmation()
            && texts(self).into_iter().zip(texts(other)).all(same_text)
            && (self.methods(), self.scopes()) == (other.methods(), other.scopes())
            && (self.roles(), self.permissions()) == (other.roles(), other.permissions())
    }
}

impl Eq for Principal {}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("kind", &self.kind())
            .field("issuer", &self.issuer())
            .field("subject", &self.subject())
            .field("credential", &self.credential())
            .field("credential_id", &self.credential_id())
            .field("scopes", &self.scopes())
            .field("roles", &self.roles())
            .field("tenant", &self.tenant())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// Builds a [`Principal`]; made by [`Principal::builder`].
#[must_use]
#[derive(Clone)]
pub struct PrincipalBuilder {
    facts: Facts,
    /// Where the claims stand that the text begins with; zero if it does not.
    claims_at: usize,
}

/// Each setting comes twice: a builder is large, and where speed counts it is better not moved around.
impl PrincipalBuilder {
    /// Sets the public id of the credential. Never a secret: it is logged.
    pub fn credential_id(mut self, id: impl AsRef<str>) -> Self {
        self.set_credential_id(id);
        self
    }

    /// Sets how the person proved who they are (`amr`, RFC 8176).
    pub fn methods<T: AsRef<str>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.set_methods(methods);
        self
    }

    /// Sets the authentication context class (`acr`).
    pub fn acr(mut self, class: impl AsRef<str>) -> Self {
        self.set_acr(class);
        self
    }

    /// Sets when the person proved who they are (`auth_time`), in seconds since the Unix epoch.
    pub fn auth_time(mut self, unix_seconds: u64) -> Self {
        self.set_auth_time(unix_seconds);
        self
    }

    /// Sets the scopes.
    pub fn scopes<T: AsRef<str>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.set_scopes(scopes);
        self
    }

    /// Sets the roles.
    pub fn roles<T: AsRef<str>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.set_roles(roles);
        self
    }

    /// Sets the permissions that the credential itself carries.
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

    /// Sets the tenant.
    pub fn tenant(mut self, tenant: impl AsRef<str>) -> Self {
        self.set_tenant(tenant);
        self
    }

    /// Sets the rate plan.
    pub fn plan(mut self, plan: impl AsRef<str>) -> Self {
        self.facts.plan = Some(self.text(plan.as_ref()));
        self
    }

    /// Sets when the credential ends, in seconds since the Unix epoch.
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

    fn text(&mut self, text: &str) -> Span {
        let within = text.as_ptr().addr().wrapping_sub(self.claims_at);
        let span = Span { start: within, len: text.len() };
        if self.claims_at != 0 && span.of(&self.facts.text) == text {
            return span;
        }
        let start = self.facts.text.len();
        self.facts.text.push_str(text);
        Span { start, len: text.len() }
    }

    fn list<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) -> Span {
        let start = self.facts.spans.len();
        for text in texts {
            let span = self.text(text.as_ref());
            self.facts.spans.push(span);
        }
        Span { start, len: self.facts.spans.len().saturating_sub(start) }
    }
}

impl fmt::Debug for PrincipalBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrincipalBuilder")
            .field("subject", &self.facts.subject.of(&self.facts.text))
            .finish_non_exhaustive()
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
        let copy = alice.clone_with(|builder| builder);
        assert!(copy == alice && !copy.facts().known.has_any());
    }

    #[test]
    fn a_principal_is_what_it_says_however_it_is_kept() {
        let claims = r#"{"sub":"alice","jti":"t-1","scope":"a b","roles":["cl\u0065rk","buyer"],"org":""}"#;
        let within = |part: &str| claims.matches(part).next().unwrap();
        let issuer: Arc<str> = "https://a.example".into();
        let kept = Principal::of_claims(PrincipalKind::User, Arc::clone(&issuer), within("alice"), "jwt", claims)
            .credential_id(within("t-1"))
            .scopes(within("a b").split(' '))
            .roles(["clerk", within("buyer")])
            .methods(["pwd"])
            .tenant("")
            .keep(Terms { from: 1, until: 2, issuer: 3, generation: 4 }, &[7; 45]);
        let plain = Principal::builder(PrincipalKind::User, issuer, "alice", "jwt")
            .roles(["replaced"])
            .methods([String::from("pwd")])
            .roles(["clerk", "buyer"])
            .scopes(["a", "b"])
            .credential_id("t-1")
            .claims(claims)
            .tenant("")
            .build();
        assert_eq!(kept, plain);
        assert_eq!((kept.subject(), kept.credential_id(), kept.tenant()), ("alice", Some("t-1"), Some("")));
        assert_eq!((kept.scopes().len(), kept.plan()), (2, None));
        assert_eq!(kept.roles(), ["clerk", "buyer"]);
        assert_eq!(kept.facts().text.len(), claims.len() + "clerkpwd".len(), "what stands in the claims stands once");
        assert_eq!(kept.claims::<serde_json::Value>().unwrap()["roles"][0], "clerk");
        assert!(kept.is_kept_under(&[7; 45]) && !kept.is_kept_under(&[7; 44]) && !plain.is_kept_under(&[]));
        let others = [
            plain.clone_with(|builder| builder.roles(["clerk"])),
            plain.clone_with(|builder| builder.scopes(["ab"])),
            plain.clone_with(|builder| builder.scopes(["buyer"]).roles(["clerk"])),
            plain.clone_with(|builder| builder.methods::<&str>([])),
            plain.clone_with(|builder| builder.tenant("t-1")),
            plain.clone_with(|builder| builder.plan("")),
            plain.clone_with(|builder| builder.expires_at(0)),
            plain.clone_with(|builder| builder.claims("{}")),
        ];
        others.iter().for_each(|other| assert_ne!(kept, *other));
    }

    impl Principal {
        fn clone_with(&self, change: impl FnOnce(PrincipalBuilder) -> PrincipalBuilder) -> Self {
            change(PrincipalBuilder { facts: self.facts().clone(), claims_at: 0 }).build()
        }
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
        assert!(alice.facts().read.is_empty());
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
