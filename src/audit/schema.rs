//! The JSON form of a record, version 1. `docs/audit.md` describes it.

use std::{borrow::Cow, net::IpAddr};

use http::HeaderName;
use serde::{Serialize, Serializer};

use crate::{
    audit::record::{AuditDecision, AuditIdentity, AuditRecord, SCHEMA_VERSION},
    client::{AddressSource, TlsVersion},
    principal::PrincipalKind,
    rejection::RejectionKind,
};

#[derive(Serialize)]
struct RecordView<'a> {
    schema: u32,
    time: String,
    request_id: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    latency_ns: u64,
    method: Cow<'a, str>,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Cow<'a, str>>,
    http_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a AuditIdentity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_identity: Option<&'a AuditIdentity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<RejectionView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<AuditDecision<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    decisions_lost: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<NoteView<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    notes_lost: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exposed_credentials: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    flags: &'a [&'static str],
}

#[derive(Serialize)]
struct ClientView {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    source: &'static str,
    secure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
}

#[derive(Serialize)]
struct RejectionView<'a> {
    code: &'static str,
    reason: &'a str,
}

#[derive(Serialize)]
struct NoteView<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
}

#[derive(Serialize)]
struct IdentityView<'a> {
    issuer: Cow<'a, str>,
    subject: Cow<'a, str>,
    kind: &'static str,
    credential: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<Cow<'a, str>>,
}

#[derive(Serialize)]
struct DecisionView<'a> {
    backend: &'static str,
    decision: &'static str,
    /// Left out where it counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Cow<'a, str>>,
    /// All of them, where there is more than one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_version: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obligations: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<Cow<'a, str>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

pub(crate) const fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    }
}

impl Serialize for AuditRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RecordView {
            schema: SCHEMA_VERSION,
            time: self.time(),
            request_id: self.request_id().to_string(),
            outcome: self.outcome().as_str(),
            status: self.status(),
            latency_ns: u64::try_from(self.latency().as_nanos()).unwrap_or(u64::MAX),
            method: self.method(),
            path: self.path(),
            route: self.route(),
            http_version: self.http_version(),
            client: self.address_source().map(|source| ClientView {
                address: self.address(),
                source: AddressSource::as_str(source),
                secure: self.is_secure() == Some(true),
                tls: self.tls_version().map(tls_version),
            }),
            subject: self.subject(),
            client_identity: self.client_identity(),
            rejection: self
                .rejection()
                .zip(self.rejection_reason())
                .map(|(kind, reason)| RejectionView { code: RejectionKind::code(kind), reason }),
            decisions: self.decisions().collect(),
            decisions_lost: self.decisions_lost(),
            notes: self.notes().map(|(name, value)| NoteView { name, value }).collect(),
            notes_lost: self.notes_lost(),
            exposed_credentials: self.exposed_credentials().iter().map(HeaderName::as_str).collect(),
            flags: self.flags(),
        }
        .serialize(serializer)
    }
}

impl Serialize for AuditIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        IdentityView {
            issuer: self.issuer(),
            subject: self.subject(),
            kind: PrincipalKind::as_str(self.kind()),
            credential: self.credential(),
            credential_id: self.credential_id(),
            tenant: self.tenant(),
            methods: self.methods().collect(),
        }
        .serialize(serializer)
    }
}

impl Serialize for AuditDecision<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        DecisionView {
            backend: self.backend(),
            decision: self.decision().as_str(),
            enforced: (!self.is_enforced()).then_some(false),
            action: self.action(),
            rule: self.rule(),
            rules: if self.rules().len() > 1 { self.rules().collect() } else { Vec::new() },
            policy_version: self.policy_version(),
            reasons: self.reasons().collect(),
            obligations: self.obligations().collect(),
            advice: self.advice().collect(),
        }
        .serialize(serializer)
    }
}
