//! A `tracing` span for each request, by the OpenTelemetry semantic conventions for HTTP servers (1.29).

#[cfg(feature = "tracing")]
use ::tracing::{Span, field::Empty};

use crate::{
    audit::{AuditOutcome, AuditRecord, facts::Facts},
    context::RequestId,
    head::RequestHead,
};

/// The span, open until the record is made. It is entered whenever code runs for the request.
pub(crate) struct RequestSpan {
    #[cfg(feature = "tracing")]
    span: Span,
}

#[cfg(not(feature = "tracing"))]
impl RequestSpan {
    pub(crate) const fn open(_: &RequestHead<'_>, _: &Facts, _: RequestId) -> Option<Box<Self>> {
        None
    }

    pub(crate) const fn enter(&self) {}

    pub(crate) const fn leave(&self) {}

    pub(crate) fn close(self, _: &AuditRecord) {
        let _ = AuditOutcome::Allowed;
    }
}

#[cfg(feature = "tracing")]
impl RequestSpan {
    /// Nothing where nobody is interested.
    pub(crate) fn open(head: &RequestHead<'_>, facts: &Facts, request_id: RequestId) -> Option<Box<Self>> {
        let span = ::tracing::info_span!(
            target: "portcullis::request",
            "HTTP request",
            otel.name = Empty,
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method(head.method()),
            http.request.method_original = Empty,
            http.response.status_code = Empty,
            http.route = Empty,
            url.path = Empty,
            url.scheme = Empty,
            network.protocol.name = "http",
            network.protocol.version = super::record::http_version(facts.version),
            client.address = Empty,
            user.id = Empty,
            error.type = Empty,
            portcullis.request_id = %request_id,
            portcullis.outcome = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        Some(Box::new(Self { span }))
    }

    pub(crate) fn enter(&self) {
        self.span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
    }

    pub(crate) fn leave(&self) {
        self.span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
    }

    /// What is known at the end.
    pub(crate) fn close(self, record: &AuditRecord) {
        let span = &self.span;
        let shown = record.method();
        let known = method_of(&shown);
        if known == "_OTHER" {
            span.record("http.request.method_original", &*shown);
        }
        match record.route() {
            Some(route) => {
                span.record("otel.name", ::tracing::field::display(format_args!("{known} {route}")));
                span.record("http.route", &*route);
            }
            None => drop(span.record("otel.name", known)),
        }
        span.record("url.path", &*record.path());
        if let Some(secure) = record.is_secure() {
            span.record("url.scheme", if secure { "https" } else { "http" });
        }
        if let Some(address) = record.address() {
            span.record("client.address", ::tracing::field::display(address));
        }
        if let Some(subject) = record.subject() {
            span.record("user.id", &*subject.subject());
        }
        if let Some(status) = record.status() {
            span.record("http.response.status_code", status);
        }
        span.record("portcullis.outcome", record.outcome().as_str());
        // A refusal is the client's fault, and no error of the server (conventions for HTTP spans, "Status").
        let failed = match record.outcome() {
            AuditOutcome::Failed | AuditOutcome::Aborted | AuditOutcome::Panicked => true,
            AuditOutcome::Allowed | AuditOutcome::Denied | AuditOutcome::Unauthenticated | AuditOutcome::Limited => {
                record.status().is_some_and(|status| status >= 500)
            }
        };
        if failed {
            span.record("otel.status_code", "ERROR");
        }
        match (record.rejection(), failed) {
            (Some(kind), _) => drop(span.record("error.type", kind.code())),
            (None, true) => drop(span.record("error.type", record.outcome().as_str())),
            (None, false) => {}
        }
    }
}

#[cfg(feature = "tracing")]
fn method(method: &http::Method) -> &'static str {
    method_of(method.as_str())
}

/// The methods that the conventions know; others are `_OTHER`, so that a client cannot make up values.
#[cfg(feature = "tracing")]
fn method_of(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}
