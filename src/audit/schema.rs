//! The JSON form of an entry, version 1. `docs/audit.md` describes it, and a test holds the two against each other.
//!
//! It is written as it is read, without a structure in between: half a million entries a second is what a writer is for.

mod object;

use std::borrow::Cow;

use http::HeaderName;
use serde::{Serialize, Serializer, ser::SerializeMap};

pub(crate) use self::object::{Bounds, Shown};
use self::object::{Object, begin};
use crate::{
    audit::{
        AuditAttempt, AuditDecision, AuditEntry, AuditIdentity, AuditLimit, AuditRecord,
        entry::{AuditCompletion, AuditEvent, AuditGap, AuditLater, AuditRepeats},
        record::ShownAddress,
        text::shorten,
    },
    body::BodyEnd,
    client::{AddressSource, TlsVersion},
};

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) const fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    }
}

pub(crate) const fn body_end(end: BodyEnd) -> &'static str {
    match end {
        BodyEnd::Complete => "complete",
        BodyEnd::Failed => "failed",
        BodyEnd::Dropped => "dropped",
    }
}

/// What can be told within bounds. Public types are told in full.
macro_rules! serialize_in_full {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Shown { entry: self, bounds: Bounds::FULL }.serialize(serializer)
            }
        }
    )*};
}

serialize_in_full!(
    AuditEntry,
    AuditRecord,
    AuditCompletion,
    AuditLater,
    AuditRepeats,
    AuditEvent,
    AuditGap,
    AuditIdentity,
    AuditDecision<'_>,
    AuditAttempt<'_>,
    AuditLimit<'_>
);

impl Serialize for Shown<'_, AuditEntry> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.entry {
            AuditEntry::Decided(record) => self.with(record).serialize(serializer),
            AuditEntry::Completed(completion) => self.with(completion).serialize(serializer),
            AuditEntry::Later(later) => self.with(later).serialize(serializer),
            AuditEntry::Repeated(repeats) => self.with(repeats).serialize(serializer),
            AuditEntry::Event(event) => self.with(event).serialize(serializer),
            AuditEntry::Gap(gap) => self.with(gap).serialize(serializer),
        }
    }
}

impl Serialize for Shown<'_, AuditRecord> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (record, bounds) = (self.entry, self.bounds);
        let mut object = begin(serializer, "decided", record.unix_nanos(), bounds)?;
        object.put("request_id", &record.request_id())?;
        object.text_if("client_request_id", record.client_request_id())?;
        object.text_if("proxy_request_id", record.proxy_request_id())?;
        object.put_if("trace_id", record.trace_id())?;
        object.put_if("parent_id", record.parent_id())?;
        object.text_if("client_traceparent", record.client_traceparent())?;
        object.put("outcome", record.outcome().as_str())?;
        object.put_if("status", record.status())?;
        object.put_if("grpc_status", record.grpc_status())?;
        object.put("latency_ns", &nanos(record.latency()))?;
        object.text("method", record.method())?;
        object.put("path", &*shorten(record.path(), bounds.path))?;
        object.text_if("route", record.route())?;
        object.put("http_version", record.http_version())?;
        if record.headers().next().is_some() {
            object.put("headers", &Headers(self))?;
        }
        if record.address_source().is_some() {
            object.put("client", &Client(record))?;
        }
        object.put_if("subject", record.subject().map(|subject| self.with(subject)))?;
        object.put_if("client_identity", record.client_identity().map(|client| self.with(client)))?;
        object.list("attempts", || record.attempts())?;
        if record.rejection().is_some() {
            object.put("rejection", &Refused(self))?;
        }
        object.put_if("stopped_in", record.stopped_in())?;
        object.decisions(|| record.decisions(), record.decisions_lost())?;
        object.list("limits", || record.limits())?;
        object.list("notes", || record.notes().map(Note))?;
        object.count("notes_lost", record.notes_lost())?;
        object.list("exposed_credentials", || record.exposed_credentials().iter().map(name))?;
        object.list("flags", || record.flags().iter().map(|flag| Text(Cow::Borrowed(flag))))?;
        object.end()
    }
}

struct Note<'a>((Cow<'a, str>, Cow<'a, str>));

impl Serialize for Shown<'_, Note<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, value) = &self.entry.0;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("name", &*shorten(Cow::Borrowed(name), self.bounds.text))?;
        map.serialize_entry("value", &*shorten(Cow::Borrowed(value), self.bounds.text))?;
        map.end()
    }
}

struct Headers<'a>(&'a Shown<'a, AuditRecord>);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.entry.headers().take(self.0.bounds.items) {
            map.serialize_entry(name, &*shorten(value, self.0.bounds.text))?;
        }
        map.end()
    }
}

struct Client<'a>(&'a AuditRecord);

impl Serialize for Client<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object { map: serializer.serialize_map(None)?, bounds: Bounds::FULL };
        match self.0.shown_address() {
            ShownAddress::None => {}
            ShownAddress::Plain(address) => object.put("address", &address)?,
            ShownAddress::Pseudonym(pseudonym) => object.put("address", &pseudonym)?,
        }
        object.put_if("source", self.0.address_source().map(AddressSource::as_str))?;
        object.put("secure", &(self.0.is_secure() == Some(true)))?;
        object.put_if("tls", self.0.tls_version().map(tls_version))?;
        object.end()
    }
}

struct Refused<'a>(&'a Shown<'a, AuditRecord>);

impl Serialize for Refused<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0.entry;
        let bounds = Bounds { truncated: false, ..self.0.bounds };
        let mut object = Object { map: serializer.serialize_map(None)?, bounds };
        object.put_if("code", record.rejection().map(|kind| kind.code()))?;
        object.text_if("reason", record.rejection_reason().map(Cow::Borrowed))?;
        object.put_if("layer", record.refused_by())?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditIdentity> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let identity = self.entry;
        let mut object = self.inner(serializer)?;
        object.text("issuer", identity.issuer())?;
        object.text("subject", identity.subject())?;
        object.put("kind", identity.kind().as_str())?;
        object.put("credential", identity.credential())?;
        object.text_if("credential_id", identity.credential_id())?;
        object.text_if("tenant", identity.tenant())?;
        object.list("methods", || identity.methods().map(Text))?;
        object.end()
    }
}

struct Text<'a>(Cow<'a, str>);

fn name(name: &HeaderName) -> Text<'_> {
    Text(Cow::Borrowed(name.as_str()))
}

impl Serialize for Shown<'_, Text<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&shorten(Cow::Borrowed(&self.entry.0), self.bounds.text))
    }
}

impl Serialize for Shown<'_, AuditAttempt<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attempt = self.entry;
        let mut object = self.inner(serializer)?;
        object.put("outcome", attempt.outcome())?;
        object.put_if("credential", attempt.credential())?;
        object.list("fields", || attempt.fields().iter().map(name))?;
        object.put_if("code", attempt.rejection().map(|kind| kind.code()))?;
        object.text_if("reason", attempt.reason())?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditDecision<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let decision = self.entry;
        let mut object = self.inner(serializer)?;
        object.put("backend", decision.backend())?;
        object.put("decision", decision.decision().as_str())?;
        object.put("enforced", &decision.is_enforced())?;
        object.text_if("action", decision.action())?;
        object.text_if("rule", decision.rule())?;
        if decision.rules().len() > 1 {
            object.list("rules", || decision.rules().map(Text))?;
        }
        object.text_if("policy_version", decision.policy_version())?;
        object.list("reasons", || decision.reasons().map(Text))?;
        object.list("obligations", || decision.obligations().map(Text))?;
        object.list("advice", || decision.advice().map(Text))?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditLimit<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let limit = self.entry;
        let mut object = self.inner(serializer)?;
        object.text("scope", limit.scope())?;
        object.put("state", limit.state())?;
        if limit.is_degraded() {
            object.put("degraded", &true)?;
        }
        object.put_if("remaining", limit.remaining())?;
        object.put_if("retry_after_ms", limit.retry_after_ms())?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditCompletion> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let completion = self.entry;
        let mut object = begin(serializer, "completed", completion.unix_nanos(), self.bounds)?;
        object.put("request_id", &completion.request_id())?;
        object.put("end", body_end(completion.end()))?;
        object.put("bytes", &completion.bytes())?;
        object.put_if("grpc_status", completion.grpc_status())?;
        object.put("duration_ns", &nanos(completion.duration()))?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditLater> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let later = self.entry;
        let mut object = begin(serializer, "later", later.unix_nanos(), self.bounds)?;
        object.put("request_id", &later.request_id())?;
        object.put_if("subject", later.subject().map(|subject| self.with(subject)))?;
        object.put_if("count", later.count())?;
        object.decisions(|| later.decisions(), later.decisions_lost())?;
        object.list("notes", || later.notes().map(Note))?;
        object.count("notes_lost", later.notes_lost())?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditRepeats> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.entry.first();
        let mut object = begin(serializer, "repeated", first.unix_nanos(), self.bounds)?;
        object.put("request_id", &first.request_id())?;
        object.put("count", &self.entry.count())?;
        object.put("outcome", first.outcome().as_str())?;
        object.put_if("status", first.status())?;
        if self.entry.many_sources() {
            object.put("many_sources", &true)?;
        } else if first.address_source().is_some() {
            object.put("client", &Client(first))?;
        }
        if first.rejection().is_some() {
            object.put("rejection", &Refused(&self.with(first)))?;
        }
        object.end()
    }
}

impl Serialize for Shown<'_, AuditEvent> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.entry;
        let mut object = begin(serializer, "event", event.unix_nanos(), self.bounds)?;
        object.put("event", event.kind().as_str())?;
        object.text("about", event.about())?;
        object.list("details", || event.details().map(|(name, value)| Note((Cow::Borrowed(name), value))))?;
        object.put_if("request_id", event.request_id())?;
        object.put_if("by", event.by().map(|by| self.with(by)))?;
        object.end()
    }
}

impl Serialize for Shown<'_, AuditGap> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let gap = self.entry;
        let mut object = begin(serializer, "gap", gap.unix_nanos(), self.bounds)?;
        object.put("lost", &gap.lost())?;
        object.count("torn", gap.torn())?;
        object.end()
    }
}
