//! Audit: one record for each request, whatever becomes of it.
mod guard;
#[cfg(feature = "audit-json-lines")]
mod json_lines;
mod layer;
#[cfg(feature = "audit-json-lines")]
mod lines;
mod outcome;
#[cfg(feature = "audit-json-lines")]
mod queue;
mod record;
mod schema;
mod sink;
mod text;
#[cfg(feature = "audit-tracing")]
mod tracing;

#[cfg(feature = "audit-json-lines")]
pub use json_lines::{JsonLines, WhenFull};
pub use layer::{Audit, AuditLayer, ResponseFuture};
pub use outcome::AuditOutcome;
#[cfg(feature = "testing")]
pub(crate) use record::sample;
pub use record::{AuditDecision, AuditIdentity, AuditRecord, MAX_PATH_LEN, MAX_TEXT_LEN, SCHEMA_VERSION};
pub use sink::{AuditSink, Lost};

#[cfg(feature = "audit-tracing")]
pub use self::tracing::TracingSink;
