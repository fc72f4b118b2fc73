//! The entry of a request: opened when it begins, and written exactly once, whatever becomes of it.
//!
//! For a service that fuses the stages:
//! 1. `audit.begin(context, &head)` at the very beginning, before another stage runs (or `open`, if the caller marks
//!    `Stage::Audit` itself). The entry belongs into the response future, declared **after** the inner future: what that
//!    one holds of the context goes back before the entry is dropped.
//! 2. `entry.entering()` before each call into code that is not ours (`inner.call`, every poll of the inner future or of a
//!    waiting decision) and `entry.left()` after it. An entry dropped in between tells of a panic: `thread::panicking()`
//!    would miss one that is caught outside, and blame one that has nothing to do with the request.
//! 3. The response, from inside or a refusal: `entry.finish_with(response)`, which decides between head and last frame.
//! 4. An error of the inner service: `entry.fail()`.
//! 5. Otherwise nothing: a dropped entry tells of a request that was given up.
//!
//! The facts are read from the context when the record is made. An entry allocates nothing until then.

use std::{fmt, sync::Arc};

use http::{Method, Response, StatusCode, Version, uri::PathAndQuery};

use crate::{
    audit::{
        AuditIdentity, AuditOutcome, AuditRecord, AuditSink,
        record::{Facts, MAX_PATH_LEN, MAX_TEXT_LEN},
        sink::accept_quietly,
        text,
    },
    body::{BodyEnd, BodyWatch, ResponseBody, is_in_memory},
    client::{ClientInfo, Connection},
    clock::Clock,
    context::{Envelope, SecurityContext},
    head::RequestHead,
    log,
    rejection::{Rejection, RejectionKind},
};

/// Where records go, and the clock that dates them.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// See the [module docs](self).
pub(crate) struct Entry {
    recorder: Arc<Recorder>,
    context: SecurityContext,
    method: Method,
    target: Option<PathAndQuery>,
    version: Version,
    connection: Option<Connection>,
    status: Option<StatusCode>,
    rejection: Option<(RejectionKind, Box<str>)>,
    inside: bool,
    written: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Answered,
    Failed,
    Aborted,
    Panicked,
}

impl Entry {
    pub(crate) fn open(recorder: Arc<Recorder>, context: SecurityContext, head: &RequestHead<'_>) -> Self {
        Self {
            recorder,
            context,
            method: head.method().clone(),
            target: head.uri().path_and_query().cloned(),
            version: head.version(),
            connection: head.connection(),
            status: None,
            rejection: None,
            inside: false,
            written: false,
        }
    }

    /// The request's context.
    pub(crate) const fn context(&self) -> &SecurityContext {
        &self.context
    }

    /// Decides something about the request.
    pub(crate) fn decide<T>(&mut self, decide: impl FnOnce(&mut Envelope) -> T) -> T {
        self.context.with(decide)
    }

    /// What runs now may panic.
    pub(crate) const fn entering(&mut self) {
        self.inside = true;
    }

    /// It did not.
    pub(crate) const fn left(&mut self) {
        self.inside = false;
    }

    /// Writes the record now if the response is complete, else when its body ends.
    pub(crate) fn finish_with<R: ResponseBody>(mut self, response: Response<R>) -> Response<R> {
        self.status = Some(response.status());
        self.rejection = response.extensions().get().map(facts_of);
        if self.has_no_body(response.status()) || is_in_memory(response.body()) {
            self.write(Ending::Answered);
            return response;
        }
        response.map(|body| {
            body.watch(BodyWatch::new(move |end| match end {
                BodyEnd::Complete => self.write(Ending::Answered),
                BodyEnd::Failed => self.write(Ending::Failed),
                BodyEnd::Dropped => self.write(Ending::Aborted),
            }))
        })
    }

    /// The inner service returned an error.
    pub(crate) fn fail(mut self) {
        self.write(Ending::Failed);
    }

    /// Whether nobody will read a body (RFC 9110 §9.3.2, §15.3.5, §15.4.5).
    fn has_no_body(&self, status: StatusCode) -> bool {
        self.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    fn write(&mut self, ending: Ending) {
        static LOST: log::Once = log::Once::new();
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        // The clock, the sink and the log are not all ours, and this may be a destructor.
        let _ = accept_quietly(|| {
            let record = self.record(ending);
            let handed_over = self.recorder.sink.accept(record);
            if handed_over.is_err() {
                LOST.error("the audit sink lost a record; it is said once, the sink has the count");
            }
            handed_over
        });
    }

    fn record(&mut self, ending: Ending) -> AuditRecord {
        let now = self.recorder.clock.now();
        let mut envelope = self.context.lock();
        let rejection =
            self.rejection.take().or_else(|| envelope.refused.take().map(|(kind, reason)| (kind, clean(&reason))));
        let outcome = match (ending, &rejection) {
            (Ending::Answered, Some((kind, _))) => AuditOutcome::of_rejection(*kind),
            (Ending::Answered, None) => AuditOutcome::Allowed,
            (Ending::Failed, _) => AuditOutcome::Failed,
            (Ending::Aborted, _) => AuditOutcome::Aborted,
            (Ending::Panicked, _) => AuditOutcome::Panicked,
        };
        AuditRecord::new(Facts {
            unix_nanos: envelope.at.unix_nanos(),
            latency: now.since(envelope.at),
            request_id: envelope.request_id,
            method: std::mem::take(&mut self.method),
            path: text::path(self.target.as_ref().map_or("", PathAndQuery::path), MAX_PATH_LEN),
            route: envelope.route.clone(),
            version: self.version,
            client: envelope.client.clone().or_else(|| self.connection.clone().map(ClientInfo::from_connection)),
            subject: envelope.subject.clone().map(AuditIdentity::new),
            client_identity: envelope.client_identity.clone().map(AuditIdentity::new),
            rejection,
            status: self.status.map(|status| status.as_u16()),
            outcome,
            trail: std::mem::take(&mut envelope.trail),
        })
    }
}

/// Without the request target, whose query may hold a secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("context", &self.context).field("status", &self.status).finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.write(if self.inside { Ending::Panicked } else { Ending::Aborted });
    }
}

fn facts_of(rejection: &Rejection) -> (RejectionKind, Box<str>) {
    (rejection.kind(), clean(rejection.reason()))
}

fn clean(reason: &str) -> Box<str> {
    text::clean(reason, MAX_TEXT_LEN).into()
}
