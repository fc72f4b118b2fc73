use async_trait::async_trait;
use serde::Serialize;

use crate::{
    audit::{
        AuditEntry, AuditIdentity, AuditOutcome, AuditRecord, AuditSink, Lost,
        entry::time,
        record::SCHEMA_VERSION,
        schema::{body_end, tls_version},
    },
    client::AddressSource,
    error::StoreError,
    rejection::RejectionKind,
};

/// Emits one `tracing` event for each entry, target `portcullis::audit`: `INFO` for what was allowed and for what goes well,
/// `WARN` for the rest.
///
/// The fields are those of the JSON schema, flattened (`client_address`, `subject_issuer`, ..); lists are JSON texts. Fields
/// without a value are left out. What the subscriber does with the event is its own affair: this sink counts nothing as
/// lost, and its flush flushes nothing.
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
            latency_ns = u64::try_from(record.latency().as_nanos()).unwrap_or(u64::MAX),
            method = &*record.method(),
            path = &*record.path(),
            route = record.route().as_deref(),
            http_version = record.http_version(),
            client_address = record.address().map(::tracing::field::display),
            client_source = record.address_source().map(AddressSource::as_str),
            client_secure = record.is_secure(),
            client_tls = record.tls_version().map(tls_version),
            subject_issuer = subject.map(AuditIdentity::issuer).as_deref(),
            subject = subject.map(AuditIdentity::subject).as_deref(),
            subject_kind = subject.map(|subject| subject.kind().as_str()),
            subject_credential = subject.map(AuditIdentity::credential),
            subject_credential_id = subject.and_then(AuditIdentity::credential_id).as_deref(),
            subject_tenant = subject.and_then(AuditIdentity::tenant).as_deref(),
            client_identity_issuer = client.map(AuditIdentity::issuer).as_deref(),
            client_identity = client.map(AuditIdentity::subject).as_deref(),
            client_identity_credential_id = client.and_then(AuditIdentity::credential_id).as_deref(),
            rejection = record.rejection().map(RejectionKind::code),
            rejection_reason = record.rejection_reason(),
            rejection_layer = record.refused_by(),
            trace_id = record.trace_id(),
            client_request_id = record.client_request_id().as_deref(),
            proxy_request_id = record.proxy_request_id().as_deref(),
            attempts = json(record.attempts().collect()),
            limits = json(record.limits().collect()),
            decisions = json(record.decisions().collect()),
            decisions_lost = record.decisions_lost(),
            notes = json(record.notes().collect()),
            notes_lost = record.notes_lost(),
            exposed_credentials =
                json(record.exposed_credentials().iter().map(http::HeaderName::as_str).collect::<Vec<_>>()),
            flags = json(record.flags().to_vec()),
        );
    }};
}

fn json<T: Serialize>(list: Vec<T>) -> Option<String> {
    if list.is_empty() { None } else { serde_json::to_string(&list).ok() }
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
        ($level:expr, $later:expr) => {
            emit!(
                $level,
                time = time($later.unix_nanos()).as_str(),
                request_id = %$later.request_id(),
                subject_issuer = $later.subject().map(AuditIdentity::issuer).as_deref(),
                subject = $later.subject().map(AuditIdentity::subject).as_deref(),
                count = $later.count(),
                decisions = json($later.decisions().collect()),
                decisions_lost = $later.decisions_lost(),
                notes = json($later.notes().collect()),
                notes_lost = $later.notes_lost(),
            )
        };
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
        ),
        AuditEntry::Later(told) if told.is_refusal() => later!(::tracing::Level::WARN, told),
        AuditEntry::Later(told) => later!(::tracing::Level::INFO, told),
        AuditEntry::Repeated(repeats) => emit!(
            ::tracing::Level::WARN,
            time = repeats.first().time(),
            request_id = %repeats.first().request_id(),
            count = repeats.count(),
            client_address = repeats.first().address().map(::tracing::field::display),
            rejection = repeats.first().rejection().map(RejectionKind::code),
        ),
        AuditEntry::Event(event) if event.kind().is_trouble() => emit!(
            ::tracing::Level::WARN,
            time = time(event.unix_nanos()).as_str(),
            event = event.kind().as_str(),
            about = &*event.about(),
            details = details(event),
        ),
        AuditEntry::Event(event) => emit!(
            ::tracing::Level::INFO,
            time = time(event.unix_nanos()).as_str(),
            event = event.kind().as_str(),
            about = &*event.about(),
            details = details(event),
        ),
        AuditEntry::Gap(gap) => {
            emit!(::tracing::Level::WARN, time = time(gap.unix_nanos()).as_str(), lost = gap.lost(), torn = gap.torn(),)
        }
    }
}

fn details(event: &crate::audit::AuditEvent) -> Option<String> {
    json(event.details().collect())
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
