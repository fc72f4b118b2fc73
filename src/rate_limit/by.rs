use std::{fmt, net::IpAddr, ops::Deref, sync::Arc};

use http::HeaderName;

use crate::{
    client::{AddressSource, ClientInfo},
    context::{Envelope, NO_PEER, Stage, misordered},
    credential::fields::holds_credentials,
    error::ConfigError,
    head::RequestHead,
    principal::Principal,
    rate_limit::{KeyPart, LimitKey, LimitScope},
    rejection::{Rejection, RejectionKind},
};

/// The most parts of a [`LimitBy`].
pub const MAX_KEY_PARTS: usize = 4;
/// The longest text, in bytes, that a header field or a closure may give as a key. A request with a longer one is refused
/// with `400`.
pub const MAX_KEY_LEN: usize = 256;

/// A key stands as text in a store outside, and whoever reads it there would have the credential.
pub(crate) const CREDENTIAL: &str = "carries a credential, which is no key: count by LimitBy::credential()";

/// What tells the requests of a limiter apart.
///
/// ```
/// use portcullis::rate_limit::{LimitBy, Quota, RateLimitLayer};
///
/// // Each tenant on each route; each device, as it calls itself.
/// let tenants = RateLimitLayer::per(LimitBy::tenant().and(LimitBy::route())?, Quota::per_minute(600))?;
/// let devices = RateLimitLayer::per(LimitBy::header("x-device")?, Quota::per_second(5))?;
/// # let _ = (tenants, devices);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LimitBy {
    parts: Vec<By>,
}

#[derive(Clone)]
enum By {
    Source,
    Principal,
    Credential,
    Tenant,
    Route,
    Header(HeaderName),
    Request(Arc<RequestFn>),
    Identity(Arc<PrincipalFn>),
}

type RequestFn = dyn Fn(&LimitRequest<'_>) -> Option<String> + Send + Sync;
type PrincipalFn = dyn Fn(&Principal) -> Option<String> + Send + Sync;

/// What is done with a request that has no key: no such header field, no tenant, a closure that gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMissingKey {
    /// Refuse it: `500` without a peer address, `400` where there is none because a trusted proxy's header does not parse, `400`
    /// without the header field or a closure's key, `403` without what the identity should have.
    Refuse,
    /// Count it with all others that lack the same.
    Share,
    /// Let it pass uncounted.
    Pass,
}

impl LimitBy {
    /// The client's network: one IPv4 address, or an IPv6 /64. See [`KeyPart::network`].
    pub fn source() -> Self {
        Self::one(By::Source)
    }

    /// The principal, by issuer, tenant and subject, wherever it calls from and with whichever credential.
    pub fn principal() -> Self {
        Self::one(By::Principal)
    }

    /// The credential, by its public id: the id of an API key, a token's `jti`. A token without one counts as its
    /// principal.
    pub fn credential() -> Self {
        Self::one(By::Credential)
    }

    /// The principal's tenant, at its issuer.
    pub fn tenant() -> Self {
        Self::one(By::Tenant)
    }

    /// The route's template: that of the stack's table, or axum's `MatchedPath`. All paths without a template share one key,
    /// or a client would have as many as it can think up.
    ///
    /// Alone it is one count for all callers, strangers included, and it stands before authentication: whoever uses up a route's quota
    /// uses it up for everybody. Combine it with who calls, as in `LimitBy::principal().and(LimitBy::route())`, unless that is meant: to
    /// spare what stands behind the route.
    pub fn route() -> Self {
        Self::one(By::Route)
    }

    /// What a header field says, which must stand once and be at most [`MAX_KEY_LEN`] visible ASCII characters, else `400`.
    ///
    /// A client may say there what it likes, so combine it with something that it cannot choose, or use it only behind a
    /// proxy that writes it. A store outside this process keeps it as text.
    ///
    /// # Errors
    /// [`ConfigError`] if it is no header field name, or that of a field that carries a credential, such as `Authorization`,
    /// `Cookie` or `X-API-Key`: take [`credential`](Self::credential). A `Stack` refuses a field that its authenticator reads as well.
    pub fn header(name: &str) -> Result<Self, ConfigError> {
        let parsed = HeaderName::try_from(name).map_err(|error| {
            ConfigError::new("limit key", format!("{name:?}"), "is no header field").caused_by(error)
        })?;
        if holds_credentials(&parsed) {
            return Err(ConfigError::new("limit key", format!("{name:?}"), CREDENTIAL));
        }
        Ok(Self::one(By::Header(parsed)))
    }

    /// What a function makes of the request before it is known who sends it. A text longer than [`MAX_KEY_LEN`] refuses the
    /// request with `400`. The function must not panic; if it does, that request is refused with `503`, and nothing was
    /// taken.
    pub fn request(key: impl Fn(&LimitRequest<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::one(By::Request(Arc::new(key)))
    }

    /// What a function makes of the principal: a claim, a group. As [`request`](Self::request) otherwise.
    pub fn identity(key: impl Fn(&Principal) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::one(By::Identity(Arc::new(key)))
    }

    fn one(part: By) -> Self {
        Self { parts: vec![part] }
    }

    /// Both together.
    ///
    /// # Errors
    /// [`ConfigError`] beyond [`MAX_KEY_PARTS`] parts.
    pub fn and(mut self, other: Self) -> Result<Self, ConfigError> {
        self.parts.extend(other.parts);
        if self.parts.len() > MAX_KEY_PARTS {
            return Err(ConfigError::new("limit key", format!("{} parts", self.parts.len()), "is more than four"));
        }
        Ok(self)
    }

    /// The fields that it reads.
    #[cfg(feature = "stack")]
    pub(super) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            By::Header(name) => Some(name),
            By::Source | By::Principal | By::Credential | By::Tenant | By::Route | By::Request(_) | By::Identity(_) => {
                None
            }
        })
    }

    /// Whether it can only be known inside authentication.
    pub(super) fn needs_identity(&self) -> bool {
        self.parts.iter().any(|part| match part {
            By::Principal | By::Credential | By::Tenant | By::Identity(_) => true,
            By::Source | By::Route | By::Header(_) | By::Request(_) => false,
        })
    }

    /// The key of a request; none if it is let pass uncounted.
    pub(super) fn find<'a>(
        &'a self,
        head: &RequestHead<'a>,
        envelope: &'a mut Envelope,
        owned: &'a mut Owned,
        on_missing: Option<OnMissingKey>,
    ) -> Result<Option<Parts<'a>>, Rejection> {
        if self.needs_identity() {
            if !envelope.has_run(Stage::Authentication) {
                return Err(misordered("the limit per principal has no authentication outside it: put it inside"));
            }
            // Who is not known is the guard's to refuse, unless the owner says otherwise.
            if envelope.subject.is_none() && matches!(on_missing, None | Some(OnMissingKey::Pass)) {
                return Ok(None);
            }
        }
        if self.parts.iter().any(|part| matches!(part, By::Source)) {
            // Kept from here on. Who has no address is refused below, or not.
            let _ = envelope.client_or_connection(|| head.connection());
        }
        let envelope = &*envelope;
        for (part, text) in self.parts.iter().zip(&mut owned.0) {
            *text = match part {
                By::Request(key) => key(&LimitRequest { head, envelope }),
                By::Identity(key) => envelope.subject.as_ref().and_then(|principal| key(principal)),
                By::Source | By::Principal | By::Credential | By::Tenant | By::Route | By::Header(_) => None,
            };
        }
        let mut parts = Parts::default();
        for ((by, text), part) in self.parts.iter().zip(&owned.0).zip(&mut parts.parts) {
            let found = by.find(head, envelope, text.as_deref())?;
            *part = match (found, on_missing.unwrap_or(OnMissingKey::Refuse)) {
                (Some(found), _) => found,
                (None, OnMissingKey::Share) => KeyPart::Missing,
                (None, OnMissingKey::Pass) => return Ok(None),
                (None, OnMissingKey::Refuse) => return Err(by.missing(envelope)),
            };
        }
        parts.len = self.parts.len();
        Ok(Some(parts))
    }
}

impl LimitBy {
    /// The key of the usual limits: one part, which the envelope holds. None says nothing: then [`find`](Self::find) has the
    /// answer.
    pub(super) fn usual<'a>(&self, head: &RequestHead<'_>, envelope: &'a mut Envelope) -> Option<KeyPart<'a>> {
        match &*self.parts {
            [By::Source] => {
                let client = envelope.client_or_connection(|| head.connection()).ok()?;
                client.address().map(KeyPart::network)
            }
            [By::Principal] if envelope.has_run(Stage::Authentication) => {
                envelope.subject.as_ref().map(KeyPart::principal)
            }
            _ => None,
        }
    }
}

impl By {
    fn find<'a>(
        &'a self,
        head: &RequestHead<'a>,
        envelope: &'a Envelope,
        text: Option<&'a str>,
    ) -> Result<Option<KeyPart<'a>>, Rejection> {
        let subject = envelope.subject.as_ref();
        Ok(match self {
            Self::Source => envelope.client.as_ref().and_then(|client| client.address()).map(KeyPart::network),
            Self::Principal => subject.map(KeyPart::principal),
            Self::Credential => subject.map(|principal| match principal.credential_id() {
                Some(id) => KeyPart::Credential { issuer: principal.issuer(), id },
                None => KeyPart::principal(principal),
            }),
            Self::Tenant => subject.and_then(|principal| {
                Some(KeyPart::Tenant { issuer: principal.issuer(), tenant: principal.tenant()? })
            }),
            Self::Route => Some(KeyPart::Route(route(head, envelope).unwrap_or_default())),
            Self::Header(name) => match head.single_header(name)? {
                Some(value) => Some(KeyPart::Header { name: name.as_str(), value: bounded(value)? }),
                None => None,
            },
            Self::Request(_) => text.map(bounded).transpose()?.map(KeyPart::Custom),
            Self::Identity(_) => text.map(bounded).transpose()?.map(KeyPart::Identity),
        })
    }

    fn missing(&self, envelope: &Envelope) -> Rejection {
        let source = envelope.client.as_ref().map(ClientInfo::source);
        match self {
            // A client behind a proxy without an address can write what does not parse: its mistake, and no operator's.
            Self::Source if source == Some(AddressSource::MalformedProxyHeader) => Rejection::new(
                RejectionKind::InvalidRequest,
                "limit: no address, as the forwarding header does not parse",
            ),
            Self::Source => misordered(NO_PEER),
            Self::Principal | Self::Credential | Self::Tenant | Self::Identity(_) => {
                Rejection::new(RejectionKind::Forbidden, "limit: the identity lacks what requests are counted by")
            }
            Self::Route | Self::Header(_) | Self::Request(_) => {
                Rejection::new(RejectionKind::InvalidRequest, "limit: the request lacks what requests are counted by")
            }
        }
    }
}

/// A text that a client may choose. Refused rather than cut or hashed: whatever is shorter could be brought about to be
/// somebody else's.
fn bounded(text: &str) -> Result<&str, Rejection> {
    if text.len() <= MAX_KEY_LEN {
        return Ok(text);
    }
    Err(Rejection::new(RejectionKind::InvalidRequest, "limit: a key of more than 256 bytes"))
}

fn route<'a>(head: &RequestHead<'a>, envelope: &'a Envelope) -> Option<&'a str> {
    #[cfg(feature = "axum")]
    if let Some(matched) = head.extension::<axum::extract::MatchedPath>() {
        return Some(matched.as_str());
    }
    let _ = head;
    envelope.route.as_deref()
}

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "Header({name})"),
            Self::Source => f.write_str("Source"),
            Self::Principal => f.write_str("Principal"),
            Self::Credential => f.write_str("Credential"),
            Self::Tenant => f.write_str("Tenant"),
            Self::Route => f.write_str("Route"),
            Self::Request(_) => f.write_str("Request"),
            Self::Identity(_) => f.write_str("Identity"),
        }
    }
}

/// What the closures of a limiter may look at.
pub struct LimitRequest<'a> {
    pub(super) head: &'a RequestHead<'a>,
    pub(super) envelope: &'a Envelope,
}

impl<'a> LimitRequest<'a> {
    /// The request.
    #[must_use]
    pub const fn head(&self) -> &'a RequestHead<'a> {
        self.head
    }

    /// Who acts; none outside authentication.
    #[must_use]
    pub const fn principal(&self) -> Option<&'a Principal> {
        self.envelope.subject.as_ref()
    }

    /// The client's address, as the evidence layer found it, or the connection's.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match &self.envelope.client {
            Some(client) => client.address(),
            None => self.head.connection()?.peer().map(|peer| peer.ip().to_canonical()),
        }
    }

    /// The route's template.
    #[must_use]
    pub fn route(&self) -> Option<&'a str> {
        route(self.head, self.envelope)
    }
}

impl fmt::Debug for LimitRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitRequest").field("head", self.head).finish_non_exhaustive()
    }
}

/// What closures made for one request.
#[derive(Debug, Default)]
pub(super) struct Owned([Option<String>; MAX_KEY_PARTS]);

/// The parts of one request's key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    parts: [KeyPart<'a>; MAX_KEY_PARTS],
    len: usize,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self { parts: [KeyPart::Missing; MAX_KEY_PARTS], len: 0 }
    }
}

impl<'a> Deref for Parts<'a> {
    type Target = [KeyPart<'a>];

    fn deref(&self) -> &[KeyPart<'a>] {
        self.parts.get(..self.len).unwrap_or_default()
    }
}

impl Parts<'_> {
    /// The same with the /48 for the /64, if there is one.
    pub(super) fn around(&self) -> Option<Self> {
        self.iter().any(KeyPart::has_wider).then(|| Self { parts: self.parts.map(KeyPart::widened), len: self.len })
    }

    pub(super) fn key<'k>(&'k self, scope: LimitScope<'k>) -> LimitKey<'k> {
        scope.key(self)
    }
}
