use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderName, Method, Version};

use crate::{
    audit::{AuditOutcome, text::clean},
    client::{AddressSource, ClientInfo, TlsVersion},
    context::RequestId,
    policy::Decision,
    principal::{Principal, PrincipalKind},
    rejection::RejectionKind,
    trail::{DecisionFact, Trail},
};

/// The version of the schema that records are serialized in. Members are added without a new number.
pub const SCHEMA_VERSION: u32 = 1;
/// The longest path in a record, in bytes.
pub const MAX_PATH_LEN: usize = 1024;
/// The longest of each other text in a record, in bytes.
pub const MAX_TEXT_LEN: usize = 256;
/// The most reasons that are shown of one decision.
const MAX_REASONS: usize = 8;

/// What happened to one request. A clone costs one reference count.
///
/// It serializes to one JSON object; the manual's page on audit describes each member. No header value, no query and no
/// body is in it. Every text is bounded ([`MAX_TEXT_LEN`], the path by [`MAX_PATH_LEN`]) and free of control characters,
/// line separators, bidirectional controls and invisible characters, so that no part of it can forge a line of a log:
/// in the path such bytes are percent-encoded, elsewhere they are `\u{…}`. Text that was cut ends with `…`.
#[derive(Clone)]
pub struct AuditRecord {
    facts: Arc<Facts>,
}

pub(crate) struct Facts {
    pub(crate) unix_nanos: u64,
    pub(crate) latency: Duration,
    pub(crate) request_id: RequestId,
    pub(crate) method: Method,
    pub(crate) path: Box<str>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) version: Version,
    pub(crate) client: Option<ClientInfo>,
    pub(crate) subject: Option<AuditIdentity>,
    pub(crate) client_identity: Option<AuditIdentity>,
    pub(crate) rejection: Option<(RejectionKind, Box<str>)>,
    pub(crate) status: Option<u16>,
    pub(crate) outcome: AuditOutcome,
    pub(crate) trail: Trail,
}

impl AuditRecord {
    pub(crate) fn new(facts: Facts) -> Self {
        Self { facts: Arc::new(facts) }
    }

    /// When the request came, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_nanos(&self) -> u64 {
        self.facts.unix_nanos
    }

    /// When the request came: RFC 3339, UTC, with nine decimals.
    #[must_use]
    pub fn time(&self) -> String {
        // u64 nanoseconds end in the year 2554, which jiff can tell.
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.facts.unix_nanos)).unwrap_or(jiff::Timestamp::MAX);
        format!("{time:.9}")
    }

    /// How long it took until the answer was complete, or until the request was given up.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.facts.latency
    }

    /// The id that this crate gave the request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.facts.request_id
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

    /// The method.
    #[must_use]
    pub fn method(&self) -> Cow<'_, str> {
        clean(self.facts.method.as_str(), MAX_TEXT_LEN)
    }

    /// The path as it was sent, without the query: visible ASCII, other bytes percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.facts.path
    }

    /// The route template, where a stage knew it.
    #[must_use]
    pub fn route(&self) -> Option<Cow<'_, str>> {
        self.facts.route.as_deref().map(text)
    }

    /// The HTTP version, such as `1.1` or `2`.
    #[must_use]
    pub fn http_version(&self) -> &'static str {
        match self.facts.version {
            Version::HTTP_09 => "0.9",
            Version::HTTP_10 => "1.0",
            Version::HTTP_11 => "1.1",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "other",
        }
    }

    /// The client's address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
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

    /// The kind of the refusal: the one that the client got, else the one that a layer spoke.
    #[must_use]
    pub fn rejection(&self) -> Option<RejectionKind> {
        self.facts.rejection.as_ref().map(|(kind, _)| *kind)
    }

    /// The operator's reason for the refusal.
    #[must_use]
    pub fn rejection_reason(&self) -> Option<&str> {
        self.facts.rejection.as_ref().map(|(_, reason)| &**reason)
    }

    /// What policies were asked, in order, and what they said.
    #[must_use]
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = AuditDecision<'_>> {
        self.facts.trail.decisions.iter().map(AuditDecision)
    }

    /// How many further decisions were not kept.
    #[must_use]
    pub fn decisions_lost(&self) -> u32 {
        self.facts.trail.decisions_lost
    }

    /// What the handler noted, in order: names and values.
    #[must_use]
    pub fn notes(&self) -> impl ExactSizeIterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.facts.trail.notes.iter().map(|(name, value)| (text(name), text(value)))
    }

    /// How many further notes were not kept.
    #[must_use]
    pub fn notes_lost(&self) -> u32 {
        self.facts.trail.notes_lost
    }

    /// The header fields whose credentials crossed the wire in the clear, and must be replaced; their values are not kept.
    #[must_use]
    pub fn exposed_credentials(&self) -> &[HeaderName] {
        &self.facts.trail.exposed
    }

    /// What stages marked the request with, such as `credential_over_plain_http`.
    #[must_use]
    pub fn flags(&self) -> &[&'static str] {
        &self.facts.trail.flags
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
            .field("rejection", &self.facts.rejection)
            .finish_non_exhaustive()
    }
}

/// An identity, as a record shows it: no claims, no roles, no secret.
#[derive(Clone)]
pub struct AuditIdentity(Principal);

impl AuditIdentity {
    pub(crate) const fn new(principal: Principal) -> Self {
        Self(principal)
    }

    /// Person, program or key.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.0.kind()
    }

    /// Who vouches for the subject.
    #[must_use]
    pub fn issuer(&self) -> Cow<'_, str> {
        text(self.0.issuer())
    }

    /// The name at the issuer.
    #[must_use]
    pub fn subject(&self) -> Cow<'_, str> {
        text(self.0.subject())
    }

    /// The credential that proved it, such as `jwt`.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        self.0.credential()
    }

    /// The public id of that credential.
    #[must_use]
    pub fn credential_id(&self) -> Option<Cow<'_, str>> {
        self.0.credential_id().map(text)
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<Cow<'_, str>> {
        self.0.tenant().map(text)
    }

    /// How the person proved who they are (`amr`, RFC 8176); the first sixteen.
    pub fn methods(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.methods().take(16).map(text)
    }
}

impl fmt::Debug for AuditIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditIdentity")
            .field("issuer", &self.issuer())
            .field("subject", &self.subject())
            .finish_non_exhaustive()
    }
}

/// What one policy was asked, and what it said.
#[derive(Clone, Copy, Debug)]
pub struct AuditDecision<'a>(&'a DecisionFact);

impl<'a> AuditDecision<'a> {
    /// The backend that decided, such as `rbac`.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// Whether the decision counted. One of a policy in the shadow does not; it is in the record where it differs.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        self.0.enforced
    }

    /// The decision.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        self.0.decision()
    }

    /// What was asked for.
    #[must_use]
    pub fn action(&self) -> Option<Cow<'a, str>> {
        self.0.action.as_deref().map(text)
    }

    /// The first of the rules that decided.
    #[must_use]
    pub fn rule(&self) -> Option<Cow<'a, str>> {
        self.rules().next()
    }

    /// The rules or policies that decided; the first eight.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        self.0.verdict.rules().iter().take(MAX_REASONS).map(|rule| text(rule))
    }

    /// The version of the policy that decided.
    #[must_use]
    pub fn policy_version(&self) -> Option<Cow<'a, str>> {
        self.0.verdict.version().map(|version| text(version))
    }

    /// The names of the obligations; the first eight.
    #[must_use]
    pub fn obligations(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        self.0.verdict.obligations().iter().take(MAX_REASONS).map(|obligation| text(obligation.name()))
    }

    /// The names of the advice; the first eight.
    #[must_use]
    pub fn advice(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        self.0.verdict.advice().iter().take(MAX_REASONS).map(|advice| text(advice.name()))
    }

    /// Why; the first eight reasons.
    pub fn reasons(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        self.0.verdict.reasons().iter().take(MAX_REASONS).map(|reason| text(reason))
    }
}

fn text(text: &str) -> Cow<'_, str> {
    clean(text, MAX_TEXT_LEN)
}

/// A record for tests: a GET of this path that was allowed.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sample(path: &str) -> AuditRecord {
    use crate::{clock::Instants, context::Envelope};

    let envelope = Envelope::new(Instants::new(1_800_000_000_000_000_000, 0));
    AuditRecord::new(Facts {
        unix_nanos: envelope.at.unix_nanos(),
        latency: Duration::from_micros(250),
        request_id: envelope.request_id,
        method: Method::GET,
        path: super::text::path(path, MAX_PATH_LEN),
        route: None,
        version: Version::HTTP_11,
        client: None,
        subject: None,
        client_identity: None,
        rejection: None,
        status: Some(200),
        outcome: AuditOutcome::Allowed,
        trail: Trail::default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        client::Connection,
        policy::{Directive, Verdict},
    };

    #[test]
    fn the_least_record() {
        let record = sample("/orders");
        let expected = json!({
            "schema": 1,
            "time": "2027-01-15T08:00:00.000000000Z",
            "request_id": record.request_id().to_string(),
            "outcome": "allowed",
            "status": 200,
            "latency_ns": 250_000,
            "method": "GET",
            "path": "/orders",
            "http_version": "1.1",
        });
        assert_eq!(serde_json::to_value(&record).unwrap(), expected);
    }

    #[test]
    fn the_full_record() {
        let mut facts = Arc::into_inner(sample("/orders/42").facts).unwrap();
        facts.route = Some("/orders/{id}".into());
        facts.status = Some(403);
        facts.outcome = AuditOutcome::Denied;
        facts.rejection = Some((RejectionKind::Forbidden, "no rule".into()));
        facts.client = Some(ClientInfo::from_connection(Connection::tls(
            "198.51.100.7:52100".parse().unwrap(),
            TlsVersion::Tls13,
        )));
        let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "al\u{202e}ice", "jwt");
        let alice = alice.credential_id("jti-1").tenant("acme").methods(["pwd"]).claims(r#"{"pin":"4711"}"#).build();
        facts.subject = Some(AuditIdentity::new(alice));
        let app = Principal::builder(PrincipalKind::Key, "keys", "shop", "api_key").build();
        facts.client_identity = Some(AuditIdentity::new(app));
        let verdict = Verdict::deny("not a manager\n").by("orders\u{202e}").by("managers").of_version("7");
        facts.trail.decided(DecisionFact::new("rbac", Some("orders:cancel".into()), verdict));
        let verdict = Verdict::allow().by("one").obliging(Directive::new("mask").with("pin", "4711")).advising("ask");
        facts.trail.decided(DecisionFact::new("cedar", None, verdict));
        facts.trail.note("report", "a\r\nb");
        facts.trail.flag("credential_over_plain_http");
        facts.trail.expose(http::header::AUTHORIZATION);
        facts.trail.notes_lost = 3;
        let record = AuditRecord::new(facts);
        let mut value = serde_json::to_value(&record).unwrap();
        for same in ["schema", "time", "request_id", "latency_ns", "method", "http_version"] {
            value.as_object_mut().unwrap().remove(same);
        }
        let expected = json!({
            "outcome": "denied",
            "status": 403,
            "path": "/orders/42",
            "route": "/orders/{id}",
            "client": { "address": "198.51.100.7", "source": "connection", "secure": true, "tls": "1.3" },
            "subject": {
                "issuer": "https://id.example.com", "subject": r"al\u{202e}ice", "kind": "user", "credential": "jwt",
                "credential_id": "jti-1", "tenant": "acme", "methods": ["pwd"],
            },
            "client_identity": { "issuer": "keys", "subject": "shop", "kind": "key", "credential": "api_key" },
            "rejection": { "code": "forbidden", "reason": "no rule" },
            "decisions": [{
                "backend": "rbac", "decision": "deny", "action": "orders:cancel", "rule": r"orders\u{202e}",
                "rules": [r"orders\u{202e}", "managers"], "policy_version": "7", "reasons": [r"not a manager\u{a}"],
            }, {
                "backend": "cedar", "decision": "allow", "rule": "one", "obligations": ["mask"], "advice": ["ask"],
            }],
            "notes": [{ "name": "report", "value": r"a\u{d}\u{a}b" }],
            "notes_lost": 3,
            "exposed_credentials": ["authorization"],
            "flags": ["credential_over_plain_http"],
        });
        assert_eq!(value, expected);
        assert!(!format!("{record:?} {:?}", record.subject()).contains("4711"));
    }
}
