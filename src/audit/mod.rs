//! Audit: one record for each request, whatever becomes of it.
//!
//! [`AuditLayer`] hands an [`AuditEntry`] to an [`AuditSink`]: who asked for what, from where, what was decided and why,
//! what was answered, and how long it took. It changes no response, and refuses nothing that is not misordered, unless the
//! owner chose to serve no request whose record cannot be stored ([`WhenFull::Refuse`]).
//!
//! The record of a request is written once,
//! 1. when there is a response, at its head;
//! 2. when the inner service returns an error or panics, or the request is given up before there is a response.
//!
//! How the body ended is an entry of its own, where that [is wanted](AuditLayer::with_completions); what a handler decides or notes
//! after the head of its answer ([`AuditLater`]) and what happens to the service itself ([`event`](crate::event)) are others.
//!
//! | status | when |
//! |---|---|
//! | `500` | the layer stands inside another layer of this crate, or twice; the log says so |
//! | `503` | the sink has no room for the record, and was told to let nothing pass without |
//!
//! Stack it outermost: what stands outside of it is not recorded. A panic is recorded as one whether it is caught outside or
//! not; a layer that catches panics inside turns it into an ordinary response before this one sees it. Refusals count as
//! such if a layer of this crate spoke them, or if the response carries a [`Rejection`](crate::Rejection) in its extensions, or a
//! tonic `Status` that was made of one.
//!
//! A request costs what the sink does, and no allocation where that gives records back, as [`JsonLines`] does. Only a body that
//! is watched costs two boxes more.
//! `JsonLines` writes from a thread of its own; the manual's page on audit has the schema and how to write a sink.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use portcullis::audit::{AuditLayer, JsonLines};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let handler = service_fn(async |_: http::Request<()>| {
//!     Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::from("hello")))
//! });
//! let file = tempfile::NamedTempFile::new()?;
//! let audit = AuditLayer::new(JsonLines::open(file.path())?);
//! audit.layer(handler).oneshot(http::Request::get("/hello?name=alice").body(())?).await?;
//!
//! drop(audit); // writes what is queued
//! let line = std::fs::read_to_string(file.path())?;
//! assert!(line.contains(r#""outcome":"allowed","status":200"#) && line.contains(r#""path":"/hello""#));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
//! ```

#[cfg(feature = "audit-chain")]
pub mod chain;
mod channel;
mod entry;
mod facts;
mod guard;
mod json;
#[cfg(feature = "audit-json-lines")]
mod json_lines;
mod later;
mod layer;
#[cfg(feature = "audit-metrics")]
mod metrics;
mod outcome;
mod parts;
mod pool;
mod privacy;
mod queue;
mod record;
mod schema;
mod select;
mod sink;
mod span;
mod text;
mod traceparent;
#[cfg(feature = "audit-tracing")]
mod tracing;
mod words;

pub use channel::{AuditReceiver, Channel, WhenFull};
pub use entry::{AuditCompletion, AuditEntry, AuditEvent, AuditGap, AuditLater, AuditRepeats, MAX_ENTRY_LEN};
#[cfg(feature = "stack")]
pub(crate) use guard::Entry;
#[cfg(feature = "audit-json-lines")]
pub use json_lines::{Fsync, JsonLines, JsonLinesBuilder};
#[cfg(feature = "stack")]
pub(crate) use layer::Storing;
pub use layer::{Audit, AuditLayer, ResponseFuture};
pub use outcome::AuditOutcome;
pub use parts::{AuditAttempt, AuditDecision, AuditIdentity, AuditLimit};
pub use privacy::{Personal, Privacy};
#[cfg(feature = "config")]
pub(crate) use queue::MAX_WAITING;
#[cfg(feature = "testing")]
pub(crate) use record::sample;
pub use record::{AuditRecord, MAX_PATH_LEN, MAX_TEXT_LEN, SCHEMA_VERSION};
pub use select::{Filter, Sample};
pub use sink::{AuditSink, Lost, Receipt, Room};

#[cfg(feature = "audit-metrics")]
pub use self::metrics::MetricsSink;
#[cfg(feature = "audit-tracing")]
pub use self::tracing::TracingSink;
