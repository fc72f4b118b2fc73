use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use serde::Serialize;

use crate::{
    audit::{
        AuditEntry, AuditIdentity, AuditOutcome, AuditRecord, AuditSink, Lost,
        entry::time,
        record::{SCHEMA_VERSION, ShownAddress},
        schema::{body_end, tls_version},
    },
    client::AddressSource,
    error::StoreError,
    rejection::RejectionKind,
};

/// Emits one `tracing` event for each entry, target `portcullis::audit`: `INFO` for what was allowed and for what goes well,
/// `WARN` for the rest.
///
/// The fields are those of the JSON schema, with the same values: members of an object are flattened
/// (`client_address`, `subject_issuer`, `by_tenant`), and an identity's `subject` and a rejection's `code` have the object's own
/// name; lists and header fields are JSON texts. Fields without a value are left out. What the subscriber does with the event is
/// its own affair: this sink counts nothing as lost, and its flush flushes nothing.
///
/// ```
/// use portcullis::audit::{AuditLayer, TracingSink};
///
/// let audit = AuditLayer::new(TracingSink::new());
/// # let _ = audit;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TracingSink;

impl TracingSink {
    /// Creates the sink.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

macro_rules! emit {
    ($level:expr, $record:expr) => {{
        let record: &AuditRecord = $record;
        let (subject, client) = (record.subject(), record.client_identity());
        ::tracing::event!(
            target: "portcullis::audit",
            $level,
            schema = SCHEMA_VERSION,
            entry = "decided",
            time = record.time(),
            request_id = %record.request_id(),
            outcome = record.outcome().as_str(),
            status = record.status(),
            grpc_status = record.grpc_status(),
            latency_ns = nanos(record.latency()),
            method = &*record.method(),
            path = &*record.path(),
            route = record.route().as_deref(),
            http_version = record.http_version(),
            headers = headers(record),
            client_address = address(record).map(::tracing::field::display),
            client_source = record.address_source().map(AddressSource::as_str),
            client_secure = record.is_secure(),
            client_tls = record.tls_version().map(tls_version),
            subject_issuer = subject.map(AuditIdentity::issuer).as_deref(),
            subject = subject.map(AuditIdentity::subject).as_deref(),
            subject_kind = subject.map(kind),
            subject_credential = subject.map(AuditIdentity::credential),
            subject_credential_id = subject.and_then(AuditIdentity::credential_id).as_deref(),
            subject_tenant = subject.and_then(AuditIdentity::tenant).as_deref(),
            subject_methods = subject.and_then(methods),
            client_identity_issuer = client.map(AuditIdentity::issuer).as_deref(),
            client_identity = client.map(AuditIdentity::subject).as_deref(),
            client_identity_kind = client.map(kind),
            client_identity_credential = client.map(AuditIdentity::credential),
            client_identity_credential_id = client.and_then(AuditIdentity::credential_id).as_deref(),
            client_identity_tenant = client.and_then(AuditIdentity::tenant).as_deref(),
            client_identity_methods = client.and_then(methods),
            rejection = record.rejection().map(RejectionKind::code),
            rejection_reason = record.rejection_reason(),
            rejection_layer = record.refused_by(),
            stopped_in = record.stopped_in(),
            trace_id = record.trace_id(),
            parent_id = record.parent_id(),
            client_traceparent = record.client_traceparent().as_deref(),
            client_request_id = record.client_request_id().as_deref(),
            proxy_request_id = record.proxy_request_id().as_deref(),
            attempts = json(record.attempts().collect()),
            limits = json(record.limits().collect()),
            decisions = json(record.decisions().collect()),
            decisions_lost = some(record.decisions_lost()),
            notes = named(record.notes()),
            notes_lost = some(record.notes_lost()),
            exposed_credentials =
                json(record.exposed_credentials().iter().map(http::HeaderName::as_str).collect::<Vec<_>>()),
            flags = json(record.flags().to_vec()),
        );
    }};
}

fn json<T: Serialize>(list: Vec<T>) -> Option<String> {
    if list.is_empty() { None } else { serde_json::to_string(&list).ok() }
}

/// Names and values, each an object as in the schema.
fn named<'a>(list: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Option<String> {
    #[derive(Serialize)]
    struct Named<'a> {
        name: Cow<'a, str>,
        value: Cow<'a, str>,
    }

    json(list.map(|(name, value)| Named { name, value }).collect())
}

fn headers(record: &AuditRecord) -> Option<String> {
    let headers: BTreeMap<_, _> = record.headers().collect();
    if headers.is_empty() { None } else { serde_json::to_string(&headers).ok() }
}

fn methods(identity: &AuditIdentity) -> Option<String> {
    json(identity.methods().collect())
}

fn kind(identity: &AuditIdentity) -> &'static str {
    identity.kind().as_str()
}

fn some(count: impl Into<u64>) -> Option<u64> {
    Some(count.into()).filter(|count| *count > 0)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An address, or its pseudonym.
struct Address(ShownAddress);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ShownAddress::None => Ok(()),
            ShownAddress::Plain(address) => address.fmt(f),
            ShownAddress::Pseudonym(pseudonym) => f.write_str(pseudonym),
        }
    }
}

fn address(record: &AuditRecord) -> Option<Address> {
    Some(record.shown_address()).filter(|shown| !matches!(shown, ShownAddress::None)).map(Address)
}

/// What is not the record of a request.
fn tell(entry: &AuditEntry) {
    macro_rules! emit {
        ($level:expr, $($fields:tt)*) => {
            ::tracing::event!(
                target: "portcullis::audit", $level, schema = SCHEMA_VERSION, entry = entry.kind(), $($fields)*
            )
        };
    }
    macro_rules! later {
        ($level:expr, $later:expr) => {{
            let subject = $later.subject();
            emit!(
                $level,
                time = time($later.unix_nanos()).as_str(),
                request_id = %$later.request_id(),
                subject_issuer = subject.map(AuditIdentity::issuer).as_deref(),
                subject = subject.map(AuditIdentity::subject).as_deref(),
                subject_kind = subject.map(kind),
                subject_credential = subject.map(AuditIdentity::credential),
                subject_credential_id = subject.and_then(AuditIdentity::credential_id).as_deref(),
                subject_tenant = subject.and_then(AuditIdentity::tenant).as_deref(),
                subject_methods = subject.and_then(methods),
                count = $later.count(),
                decisions = json($later.decisions().collect()),
                decisions_lost = some($later.decisions_lost()),
                notes = named($later.notes()),
                notes_lost = some($later.notes_lost()),
            )
        }};
    }
    macro_rules! event {
        ($level:expr, $event:expr) => {{
            let by = $event.by();
            emit!(
                $level,
                time = time($event.unix_nanos()).as_str(),
                event = $event.kind().as_str(),
                about = &*$event.about(),
                details = named($event.details().map(|(name, value)| (Cow::Borrowed(name), value))),
                request_id = $event.request_id().map(::tracing::field::display),
                by_issuer = by.map(AuditIdentity::issuer).as_deref(),
                by = by.map(AuditIdentity::subject).as_deref(),
                by_kind = by.map(kind),
                by_credential = by.map(AuditIdentity::credential),
                by_credential_id = by.and_then(AuditIdentity::credential_id).as_deref(),
                by_tenant = by.and_then(AuditIdentity::tenant).as_deref(),
                by_methods = by.and_then(methods),
            )
        }};
    }
    match entry {
        AuditEntry::Decided(_) => {}
        AuditEntry::Completed(completion) => emit!(
            ::tracing::Level::INFO,
            time = time(completion.unix_nanos()).as_str(),
            request_id = %completion.request_id(),
            end = body_end(completion.end()),
            bytes = completion.bytes(),
            grpc_status = completion.grpc_status(),
            duration_ns = nanos(completion.duration()),
        ),
        AuditEntry::Later(told) if told.is_refusal() => later!(::tracing::Level::WARN, told),
        AuditEntry::Later(told) => later!(::tracing::Level::INFO, told),
        AuditEntry::Repeated(repeats) => {
            let first = repeats.first();
            // The address of one would pass for that of all.
            let only = Some(first).filter(|_| !repeats.many_sources());
            emit!(
                ::tracing::Level::WARN,
                time = first.time(),
                request_id = %first.request_id(),
                count = repeats.count(),
                outcome = first.outcome().as_str(),
                status = first.status(),
                many_sources = repeats.many_sources().then_some(true),
                client_address = only.and_then(address).map(::tracing::field::display),
                client_source = only.and_then(AuditRecord::address_source).map(AddressSource::as_str),
                client_secure = only.and_then(AuditRecord::is_secure),
                client_tls = only.and_then(AuditRecord::tls_version).map(tls_version),
                rejection = first.rejection().map(RejectionKind::code),
                rejection_reason = first.rejection_reason(),
                rejection_layer = first.refused_by(),
            )
        }
        AuditEntry::Event(event) if event.kind().is_trouble() => event!(::tracing::Level::WARN, event),
        AuditEntry::Event(event) => event!(::tracing::Level::INFO, event),
        AuditEntry::Gap(gap) => {
            let torn = some(gap.torn());
            emit!(::tracing::Level::WARN, time = time(gap.unix_nanos()).as_str(), lost = gap.lost(), torn = torn)
        }
    }
}

#[async_trait]
impl AuditSink for TracingSink {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        let record = match &entry {
            AuditEntry::Decided(record) => record,
            other => {
                tell(other);
                return Ok(());
            }
        };
        match record.outcome() {
            AuditOutcome::Allowed => emit!(::tracing::Level::INFO, record),
            AuditOutcome::Denied
            | AuditOutcome::Unauthenticated
            | AuditOutcome::Limited
            | AuditOutcome::Failed
            | AuditOutcome::Aborted
            | AuditOutcome::Panicked => emit!(::tracing::Level::WARN, record),
        }
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
