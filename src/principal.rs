//! Who was authenticated, and how.

mod builder;
mod confirmation;
mod factors;
#[cfg_attr(
    not(any(feature = "jwt", feature = "jwt-pure-rust")),
    allow(dead_code, reason = "only the cache of tokens finds principals again")
)]
mod kept;
mod kind;
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

pub use builder::PrincipalBuilder;
pub use confirmation::Confirmation;
pub(crate) use kept::Terms;
use kept::Word;
pub use kind::{PrincipalKind, Slot};
#[cfg(feature = "rbac")]
use known::KnownRoles;
#[cfg(feature = "rbac")]
pub(crate) use known::{Cell, Held};
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
use marks::Cleared;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub(crate) use marks::mark_of;
#[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
pub use marks::{RevocationKind, TokenMarks};
use read::ReadClaims;
use texts::Span;
pub use texts::Texts;

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
    /// No log-in leads to a credential with more in it.
    without_step_up: bool,
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
            without_step_up: false,
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
    ///
    /// All texts of a principal together, its issuer apart, have up to 4 GiB; what is beyond that reads as empty.
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
        builder.facts.claims = Span::new(0, claims.len());
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

    /// Whether its owner may come back with another token that has what is missing.
    pub(crate) fn can_step_up(&self) -> bool {
        !self.facts().without_step_up
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

    /// What `read` makes of the claims, kept as [`claims_shared`](Self::claims_shared) keeps it. One for each type.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn keep_of_claims<T: Send + Sync + 'static, E>(
        &self,
        read: impl Fn() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        self.facts().read.get_or_keep(read)
    }

    /// What a policy knows of the roles: looked up once for each policy, by its number; see [`KnownRoles`].
    #[cfg(feature = "rbac")]
    #[inline]
    pub(crate) fn known_roles(&self, policy: u64, find: impl Fn() -> Held) -> Option<&Held> {
        self.facts().known.get_or_keep(policy, find)
    }

    /// Whether issuer, tenant and subject are the same: two tenants of one key store may have one name for two subjects, and
    /// somebody who acts in another tenant has other rights.
    ///
    /// ```
    /// use portcullis::{Principal, PrincipalKind};
    ///
    /// let billing = |tenant| Principal::builder(PrincipalKind::Service, "api-keys", "billing", "api_key").tenant(tenant).build();
    /// assert!(billing("acme").is_same_as(&billing("acme")));
    /// assert!(!billing("acme").is_same_as(&billing("other")));
    /// ```
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.issuer() == other.issuer() && self.tenant() == other.tenant() && self.subject() == other.subject()
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

#[cfg(test)]
mod tests;
