use std::{borrow::Cow, fmt, net::IpAddr, time::Duration};

use http::{HeaderName, Version};

use crate::{
    audit::{
        AuditOutcome, Personal, Privacy,
        facts::Facts,
        parts::{self, AuditAttempt, AuditDecision, AuditIdentity, AuditLimit},
        pool::Pooled,
        text::{self, clean},
        traceparent::TraceParent,
    },
    client::{AddressSource, ClientInfo, TlsVersion},
    context::{RequestId, Stage},
    rejection::RejectionKind,
};

/// The version of the schema that records are serialized in. Members are added without a new number.
pub const SCHEMA_VERSION: u32 = 1;
/// The longest path in a record, in bytes.
pub const MAX_PATH_LEN: usize = 1024;
/// The longest of each other text in a record, in bytes.
pub const MAX_TEXT_LEN: usize = 256;
/// The longest id that a request brings along, in bytes.
pub(crate) const MAX_SENT_LEN: usize = 128;

/// What happened to one request. A clone costs one reference count.
///
/// It serializes to one JSON object; the manual's page on audit describes each member. No header value but `X-Request-Id`,
/// `traceparent` and those that were [asked for](crate::audit::AuditLayer::with_headers), no query and no body is in it. Every text is
/// bounded ([`MAX_TEXT_LEN`], the path by [`MAX_PATH_LEN`]) and free of control characters, line separators, bidirectional controls
/// and invisible characters, so that no part of it can forge a line of a log: in the path such bytes are percent-encoded,
/// elsewhere they are `\u{…}`. Text that was cut ends with `…`, but for the ids that a request brought along, of which 128 bytes
/// are taken.
///
/// What the layer's [`Privacy`] hides is hidden here as well.
#[derive(Clone)]
pub struct AuditRecord {
    facts: Pooled,
}

impl AuditRecord {
    pub(crate) const fn new(facts: triomphe::Arc<Facts>) -> Self {
        Self { facts: Pooled::new(facts) }
    }

    fn privacy(&self) -> Option<&Privacy> {
        self.facts.privacy.as_deref()
    }

    fn omits(&self, what: Personal) -> bool {
        self.privacy().is_some_and(|privacy| privacy.omits(what))
    }

    /// A clean text of a type that the owner may want to hide.
    fn personal<'t>(&self, what: Personal, text: &'t str) -> Cow<'t, str> {
        match self.privacy() {
            Some(privacy) if !privacy.shows(what) => privacy.text(what, "", text),
            _ => clean(text, MAX_TEXT_LEN),
        }
    }

    /// When the request came, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_nanos(&self) -> u64 {
        self.facts.unix_nanos
    }

    /// When the request came: RFC 3339, UTC, with nine decimals.
    #[must_use]
    pub fn time(&self) -> String {
        text::Time::of(self.facts.unix_nanos).as_str().to_owned()
    }

    /// How long it took until the answer was known, or until the request was given up.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.facts.latency
    }

    /// The id that this crate gave the request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.facts.request_id
    }

    /// `X-Request-Id` as the client sent it: a claim, which anybody can make. Where it stands twice, the first one is no more.
    #[must_use]
    pub fn client_request_id(&self) -> Option<Cow<'_, str>> {
        self.sent(&self.facts.sent_request_id).filter(|_| !self.is_proxy_request_id())
    }

    /// `X-Request-Id` as a trusted proxy sent it, once.
    #[must_use]
    pub fn proxy_request_id(&self) -> Option<Cow<'_, str>> {
        self.sent(&self.facts.sent_request_id).filter(|_| self.is_proxy_request_id())
    }

    fn is_proxy_request_id(&self) -> bool {
        self.facts.by_trusted_proxy && !self.facts.request_id_twice
    }

    /// `traceparent` as it came, where it does not count: from a client, malformed, or the first of two.
    #[must_use]
    pub fn client_traceparent(&self) -> Option<Cow<'_, str>> {
        self.sent(&self.facts.sent_traceparent).filter(|_| self.trace_parent().is_none())
    }

    /// The trace that the request belongs to, by a trusted proxy's `traceparent` (W3C Trace Context §3.2.2.3).
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.trace_parent().map(TraceParent::trace_id)
    }

    /// The span that the request belongs to, by a trusted proxy's `traceparent`.
    #[must_use]
    pub fn parent_id(&self) -> Option<&str> {
        self.trace_parent().map(TraceParent::parent_id)
    }

    fn trace_parent(&self) -> Option<TraceParent<'_>> {
        let counts = self.facts.by_trusted_proxy && !self.facts.traceparent_twice;
        if counts { TraceParent::parse(&self.facts.sent_traceparent) } else { None }
    }

    fn sent<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        (!text.is_empty()).then(|| self.personal(Personal::Headers, text))
    }

    /// What became of it.
    #[must_use]
    pub fn outcome(&self) -> AuditOutcome {
        self.facts.outcome
    }

    /// The status that was sent; none if the request ended before there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.facts.status
    }

    /// The status of a gRPC call that was answered by its head alone, as a refusal is.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u16> {
        self.facts.grpc_status
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Cow<'_, str> {
        clean(self.facts.method.as_str(), MAX_TEXT_LEN)
    }

    /// The path as it was sent, without the query: visible ASCII, other bytes percent-encoded.
    #[must_use]
    pub fn path(&self) -> Cow<'_, str> {
        match self.privacy() {
            Some(privacy) => privacy.path(&self.facts.path, self.facts.route.as_deref()),
            None => Cow::Borrowed(&self.facts.path),
        }
    }

    /// The route template, where a stage knew it.
    #[must_use]
    pub fn route(&self) -> Option<Cow<'_, str>> {
        self.facts.route.as_deref().map(|route| clean(route, MAX_TEXT_LEN))
    }

    /// The HTTP version, such as `1.1` or `2`.
    #[must_use]
    pub fn http_version(&self) -> &'static str {
        http_version(self.facts.version)
    }

    /// The header fields that were [asked for](crate::audit::AuditLayer::with_headers), in their order, each once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let hidden = self.privacy().filter(|privacy| !privacy.shows(Personal::Headers));
        self.facts.headers.iter().filter(|_| !self.omits(Personal::Headers)).map(move |(name, value)| {
            let shown = text::header(value.as_bytes(), MAX_TEXT_LEN);
            let shown = match hidden {
                Some(privacy) => privacy.text(Personal::Headers, name.as_str(), &shown).into_owned(),
                None => shown,
            };
            (name.as_str(), Cow::Owned(shown))
        })
    }

    /// The client's address; none also where it is hidden.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let shown = self.privacy().is_none_or(|privacy| privacy.shows(Personal::Address));
        self.facts.client.as_ref().and_then(ClientInfo::address).filter(|_| shown)
    }

    /// The client's address as records show it: itself, or its pseudonym.
    pub(crate) fn shown_address(&self) -> ShownAddress {
        match (self.facts.client.as_ref().and_then(ClientInfo::address), self.privacy()) {
            (None, _) => ShownAddress::None,
            (Some(address), None) => ShownAddress::Plain(address),
            (Some(address), Some(privacy)) if privacy.shows(Personal::Address) => ShownAddress::Plain(address),
            (Some(address), Some(privacy)) => {
                privacy.address(address).map_or(ShownAddress::None, ShownAddress::Pseudonym)
            }
        }
    }

    /// The address itself, for what is not shown.
    pub(crate) fn source(&self) -> Option<IpAddr> {
        self.facts.client.as_ref().and_then(ClientInfo::address)
    }

    /// How the address was found; none if nothing is known of the connection.
    #[must_use]
    pub fn address_source(&self) -> Option<AddressSource> {
        self.facts.client.as_ref().map(ClientInfo::source)
    }

    /// Whether the client spoke HTTPS; none if nothing is known of the connection.
    #[must_use]
    pub fn is_secure(&self) -> Option<bool> {
        self.facts.client.as_ref().map(ClientInfo::is_secure)
    }

    /// The TLS version, where this process terminated TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<TlsVersion> {
        self.facts.client.as_ref().and_then(ClientInfo::tls_version)
    }

    /// Who acted.
    #[must_use]
    pub fn subject(&self) -> Option<&AuditIdentity> {
        self.facts.subject.as_ref()
    }

    /// What acted for the subject.
    #[must_use]
    pub fn client_identity(&self) -> Option<&AuditIdentity> {
        self.facts.client_identity.as_ref()
    }

    /// Every credential that was looked at, and what became of it: those that gave an identity, then those that did not.
    pub fn attempts(&self) -> impl Iterator<Item = AuditAttempt<'_>> {
        let verified = [self.subject(), self.client_identity()].into_iter().flatten().map(AuditAttempt::verified);
        let privacy = self.privacy();
        verified.chain(self.facts.trail.rare().attempts.iter().map(move |fact| AuditAttempt::of(fact, privacy)))
    }

    /// The kind of the refusal: the one that the client got, else the one that a layer spoke.
    #[must_use]
    pub fn rejection(&self) -> Option<RejectionKind> {
        self.facts.rejection.as_ref().map(|(kind, _)| *kind)
    }

    /// Whether nobody was authenticated.
    pub(crate) fn is_of_stranger(&self) -> bool {
        self.facts.is_of_stranger()
    }

    /// The operator's reason for the refusal.
    #[must_use]
    pub fn rejection_reason(&self) -> Option<&str> {
        self.facts.rejection.as_ref().filter(|_| !self.omits(Personal::Reasons)).map(|(_, reason)| &**reason)
    }

    /// The layer that refused, such as `authentication`; `handler` if it was the handler.
    #[must_use]
    pub fn refused_by(&self) -> Option<&'static str> {
        self.facts.rejection.as_ref().map(|_| self.facts.refused_by.map_or("handler", Stage::as_str))
    }

    /// Where a request was that was given up or panicked: the layer that decided just then, or that had refused, such as
    /// `authentication`; `handler` once all had let it pass. Also the layer that still waited, where somebody outside of it, as a
    /// time-out, answered instead. None of any other request.
    #[must_use]
    pub fn stopped_in(&self) -> Option<&'static str> {
        self.facts.stopped_in
    }

    /// What policies were asked, in order, and what they said: the first 24; after them the first of each kind, and refusals like
    /// those before, 28 at most; 32 in all.
    #[must_use]
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = AuditDecision<'_>> {
        parts::decisions(&self.facts.trail, self.privacy())
    }

    /// How many further decisions were not kept.
    #[must_use]
    pub fn decisions_lost(&self) -> u32 {
        self.facts.trail.rare().decisions_lost
    }

    /// What the limiters answered, in order.
    pub fn limits(&self) -> impl Iterator<Item = AuditLimit<'_>> {
        self.facts.trail.limits.iter().map(AuditLimit::of)
    }

    /// What the handler noted, in order: names and values.
    #[must_use]
    pub fn notes(&self) -> impl ExactSizeIterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        parts::notes(&self.facts.trail, self.privacy())
    }

    /// How many further notes were not kept.
    #[must_use]
    pub fn notes_lost(&self) -> u32 {
        self.facts.trail.rare().notes_lost
    }

    /// The header fields whose credentials crossed the wire in the clear, and must be replaced; their values are not kept.
    #[must_use]
    pub fn exposed_credentials(&self) -> &[HeaderName] {
        &self.facts.trail.rare().exposed
    }

    /// What stages marked the request with, such as `credential_over_plain_http`.
    #[must_use]
    pub fn flags(&self) -> &[&'static str] {
        &self.facts.trail.rare().flags
    }
}

/// An address that may be hidden.
pub(crate) enum ShownAddress {
    None,
    Plain(IpAddr),
    Pseudonym(String),
}

pub(crate) const fn http_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "other",
    }
}

impl fmt::Debug for AuditRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditRecord")
            .field("request_id", &self.request_id())
            .field("outcome", &self.outcome())
            .field("status", &self.status())
            .field("method", &self.method())
            .field("path", &self.path())
            .field("rejection", &self.rejection())
            .field("reason", &self.rejection_reason())
            .finish_non_exhaustive()
    }
}

/// A record for tests: a GET of this path that was allowed, of nobody.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sample(path: &str) -> AuditRecord {
    AuditRecord::new(sample_facts(path).shareable())
}

/// As [`sample`], of somebody.
#[cfg(test)]
pub(crate) fn sample_of_alice(path: &str) -> AuditRecord {
    use crate::principal::{Principal, PrincipalKind};

    let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").build();
    let mut facts = sample_facts(path);
    facts.subject = Some(AuditIdentity::new(alice, None));
    AuditRecord::new(facts.shareable())
}

#[cfg(any(test, feature = "testing"))]
pub(crate) fn sample_facts(path: &str) -> triomphe::UniqueArc<Facts> {
    use crate::{clock::Instants, context::Envelope};

    let envelope = Envelope::new(Instants::new(1_800_000_000_000_000_000, 0));
    let mut facts = triomphe::UniqueArc::new(Facts {
        unix_nanos: envelope.at.unix_nanos(),
        latency: Duration::from_micros(250),
        request_id: envelope.request_id,
        status: Some(200),
        ..Facts::default()
    });
    text::path(&mut facts.path, path, MAX_PATH_LEN);
    facts
}
