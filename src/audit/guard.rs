//! The entry of a request: opened when it begins, and written exactly once, whatever becomes of it.
//!
//! For a service that fuses the stages:
//! 1. `audit.begin(context, &head)` at the very beginning, before another stage runs (or `open`, if the caller marks
//!    `Stage::Audit` itself). It refuses the request if its record could not be stored. The entry belongs into the response
//!    future, declared **after** the inner future: what that one holds of the context goes back before the entry is dropped.
//! 2. `entry.entering()` before each call into code that is not ours (`inner.call`, every poll of the inner future or of a
//!    waiting decision) and `entry.left()` after it. An entry dropped in between tells of a panic: `thread::panicking()`
//!    would miss one that is caught outside, and blame one that has nothing to do with the request.
//! 3. The response, from inside or a refusal: `entry.finish_with(response)`, once the inner future is dropped: something in it may
//!    answer in the place of a decision that still waits. Where there is a receipt, the response waits for it.
//! 4. An error of the inner service: `entry.fail()`; the same holds for it.
//! 5. Otherwise nothing: a dropped entry tells of a request that was given up.
//!
//! The facts are read from the context when the record is made. Their memory was another record's, so that in the long run an
//! entry allocates nothing.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use triomphe::UniqueArc;

use crate::{
    audit::{
        AuditCompletion, AuditEntry, AuditEvent, AuditIdentity, AuditOutcome, AuditRecord, AuditSink, Lost, Privacy,
        Receipt, Room,
        entry::Completion,
        facts::Facts,
        later::Later,
        pool,
        record::{MAX_PATH_LEN, MAX_SENT_LEN, MAX_TEXT_LEN},
        sink::accept_quietly,
        span::RequestSpan,
        text,
    },
    body::{BodyWatch, ResponseBody, content_length, grpc_status},
    client::ClientInfo,
    clock::{Clock, Instants},
    context::{Envelope, RequestId, SecurityContext, Stage},
    event::{Event, Listener},
    grpc,
    head::RequestHead,
    log,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
};

/// Where records go, the clock that dates them, and what is in them beyond the usual.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) privacy: Option<Arc<Privacy>>,
    pub(crate) headers: Box<[HeaderName]>,
    pub(crate) completions: bool,
    pub(crate) spans: bool,
    /// Hears what happens to the service.
    pub(crate) ear: Option<Arc<Ear>>,
}

/// Records what happens to the service.
#[derive(Debug)]
pub(crate) struct Ear {
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) privacy: Option<Arc<Privacy>>,
}

impl Listener for Ear {
    fn hear(&self, event: &Event) {
        let entry = AuditEntry::Event(AuditEvent::new(event.clone(), self.privacy.as_ref()));
        let _ = accept_quietly(|| self.sink.accept(entry));
    }
}

/// See the [module docs](self).
pub(crate) struct Entry {
    recorder: Arc<Recorder>,
    context: SecurityContext,
    /// None once it is written.
    facts: Option<UniqueArc<Facts>>,
    room: Option<Room>,
    span: Option<Box<RequestSpan>>,
    /// How the request ends if nothing comes of it any more.
    ending: Ending,
    /// Whether the record tells of a refusal; known once it is written.
    refused: bool,
    /// Whether it tells of nobody; as well.
    by_stranger: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Answered,
    Failed,
    Aborted,
    Panicked,
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl Entry {
    /// Refuses the request if its record could not be stored.
    pub(crate) fn open(
        recorder: Arc<Recorder>,
        context: SecurityContext,
        head: &RequestHead<'_>,
    ) -> Result<Self, Rejection> {
        let mut room = None;
        accept_quietly(|| {
            // Mostly there is none, and then nothing to move.
            if let Some(kept) = recorder.sink.reserve()? {
                room = Some(kept);
            }
            Ok(())
        })
        .map_err(|_| unstorable(&*recorder.clock))?;
        let mut facts = pool::take();
        text::method(&mut facts.method, head.method());
        facts.version = head.version();
        text::path(&mut facts.path, head.path(), MAX_PATH_LEN);
        if let Some(client) = head.see_connection(ClientInfo::of_connection) {
            facts.client = Some(client);
        }
        let sent = head.headers();
        // A look at each name costs less than the two hashes of a search, for as many fields as requests have.
        let (mut request_ids, mut traceparents) = (0_u32, 0_u32);
        for (name, value) in sent {
            if *name == X_REQUEST_ID {
                request_ids = request_ids.saturating_add(1);
                copy(&mut facts.sent_request_id, value);
            } else if *name == TRACEPARENT {
                traceparents = traceparents.saturating_add(1);
                copy(&mut facts.sent_traceparent, value);
            }
        }
        // Of two, a proxy wrote one at most, and nothing says which.
        (facts.request_id_twice, facts.traceparent_twice) = (request_ids > 1, traceparents > 1);
        for name in &recorder.headers {
            facts.headers.extend(joined(sent, name).map(|value| (name.clone(), value)));
        }
        let span = if recorder.spans { RequestSpan::open(head, &facts, context.request_id()) } else { None };
        Ok(Self {
            recorder,
            context,
            facts: Some(facts),
            room,
            span,
            ending: Ending::Aborted,
            refused: false,
            by_stranger: false,
        })
    }

    /// The request's context.
    pub(crate) const fn context(&self) -> &SecurityContext {
        &self.context
    }

    /// Decides something about the request.
    pub(crate) fn decide<T>(&mut self, decide: impl FnOnce(&mut Envelope) -> T) -> T {
        self.context.with_mut(decide)
    }

    /// What runs now may panic.
    pub(crate) fn entering(&mut self) {
        self.ending = Ending::Panicked;
        if let Some(span) = &self.span {
            span.enter();
        }
    }

    /// It did not.
    pub(crate) fn left(&mut self) {
        self.ending = Ending::Aborted;
        if let Some(span) = &self.span {
            span.leave();
        }
    }

    /// Writes the record: the answer is known. It may go once the receipt is there.
    pub(crate) fn finish_with<R: ResponseBody>(mut self, response: Response<R>) -> (Response<R>, Option<Receipt>) {
        let mut completes = None;
        if let Some(facts) = &mut self.facts {
            facts.status = Some(response.status().as_u16());
            if let Some(rejection) = grpc::told(response.extensions()) {
                facts.rejection = Some(facts_of(rejection));
            }
            if facts.version == Version::HTTP_2 {
                facts.grpc_status = grpc_status(response.headers());
            }
            completes = (self.recorder.completions && !has_no_body(&facts.method, &response)).then_some(facts.version);
        }
        self.ending = Ending::Answered;
        let receipt = self.write();
        // A refusal is complete at its head, and so are those of a flood, of which one record tells.
        let response = match completes.filter(|_| !self.refused) {
            Some(version) => self.watch(response, version),
            None => response,
        };
        (response, receipt)
    }

    /// Writes another entry when the body ends.
    fn watch<R: ResponseBody>(&self, response: Response<R>, version: Version) -> Response<R> {
        let recorder = Arc::clone(&self.recorder);
        let (request_id, began): (RequestId, Instants) = (self.context.request_id(), self.context.at());
        let by_stranger = self.by_stranger;
        let watch = BodyWatch::with_facts(move |end, facts| {
            let _ = accept_quietly(|| {
                let now = recorder.clock.now();
                recorder.sink.accept(AuditEntry::Completed(AuditCompletion::new(Completion {
                    unix_nanos: now.unix_nanos(),
                    request_id,
                    end,
                    duration: now.since(began),
                    bytes: facts.bytes,
                    grpc_status: facts.grpc_status,
                    by_stranger,
                })))
            });
        });
        let watch = watch.of_answer(version, response.headers());
        response.map(|body| body.watch(watch))
    }

    /// The inner service returned an error, which may go once the receipt is there.
    pub(crate) fn fail(mut self) -> Option<Receipt> {
        self.ending = Ending::Failed;
        self.write()
    }

    fn write(&mut self) -> Option<Receipt> {
        self.facts.as_ref()?;
        let mut receipt = None;
        // The clock, the sink and the log are not all ours, and this may be a destructor.
        let _ = accept_quietly(|| self.hand_over(&mut receipt));
        receipt
    }

    /// What it is made of is gone once this begins, however it ends.
    fn hand_over(&mut self, receipt: &mut Option<Receipt>) -> Result<(), Lost> {
        static LOST: log::Once = log::Once::new();
        let (Some(facts), room) = (self.facts.take(), self.room.take()) else { return Ok(()) };
        let record = self.record(facts);
        if let Some(span) = self.span.take() {
            span.close(&record);
        }
        let sink = &self.recorder.sink;
        if let Some(room) = room {
            *receipt = Some(sink.accept_reserved(AuditEntry::Decided(record), room));
            return Ok(());
        }
        let handed_over = sink.accept(AuditEntry::Decided(record));
        if handed_over.is_err() {
            LOST.error("the audit sink lost a record; it is said once, the sink has the count");
        }
        handed_over
    }

    fn record(&mut self, mut facts: UniqueArc<Facts>) -> AuditRecord {
        let now = self.recorder.clock.now();
        let privacy = self.recorder.privacy.as_ref();
        let shared = self.context.is_shared();
        let identity = |principal: Principal| AuditIdentity::new(principal, privacy.map(Arc::clone));
        let panicked = self.context.with_mut(|envelope| {
            facts.unix_nanos = envelope.at.unix_nanos();
            facts.latency = now.since(envelope.at);
            facts.request_id = envelope.request_id;
            facts.by_trusted_proxy = envelope.by_trusted_proxy;
            facts.stopped_in = stopped_in(self.ending, envelope);
            if let Some((stage, kind, reason)) = envelope.refused.take() {
                // The one that the client got counts; which stage spoke it can only be told of the one that is the same.
                let (shown, _) = facts.rejection.get_or_insert_with(|| (kind, clean(reason)));
                if *shown == kind {
                    facts.refused_by = Some(stage);
                }
            }
            if shared {
                // A handler that goes on, of a WebSocket for example. Who has no clone by now gets none.
                facts.route.clone_from(&envelope.route);
                if envelope.client.is_some() {
                    facts.client.clone_from(&envelope.client);
                }
                facts.subject = envelope.subject.clone().map(identity);
                facts.client_identity = envelope.client_identity.clone().map(identity);
                facts.trail = envelope.trail.hand_over();
                let (request_id, subject) = (envelope.request_id, facts.subject.clone());
                let later = Later::new(Arc::clone(&self.recorder), request_id, subject, facts.is_of_stranger());
                envelope.afterwards = Some(Arc::new(later));
            } else {
                // Nobody reads the envelope after this, so that it gives instead of sharing.
                facts.route = envelope.route.take();
                if envelope.client.is_some() {
                    facts.client = envelope.client.take();
                }
                facts.subject = envelope.subject.take().map(identity);
                facts.client_identity = envelope.client_identity.take().map(identity);
                std::mem::swap(&mut facts.trail, &mut envelope.trail);
            }
            envelope.panicked
        });
        // A handler that goes on may yet ask.
        let succeeds = facts.rejection.is_none() && facts.grpc_status.is_none_or(|code| code == 0);
        if !shared && succeeds && facts.status.is_some_and(|status| status < 400) {
            tell_of_owner_unasked(&mut facts, now);
        }
        self.refused = facts.rejection.is_some();
        self.by_stranger = facts.is_of_stranger();
        facts.outcome = match (self.ending, &facts.rejection) {
            (Ending::Answered, _) if panicked => AuditOutcome::Panicked,
            (Ending::Answered, Some((kind, _))) => AuditOutcome::of_rejection(*kind),
            (Ending::Answered, None) => AuditOutcome::Allowed,
            (Ending::Failed, _) => AuditOutcome::Failed,
            (Ending::Aborted, _) => AuditOutcome::Aborted,
            (Ending::Panicked, _) => AuditOutcome::Panicked,
        };
        facts.privacy = privacy.map(Arc::clone);
        AuditRecord::new(facts.shareable())
    }
}

/// Where a request was that nobody answered, over which a stage panicked, or that was answered in the place of a decision.
fn stopped_in(ending: Ending, envelope: &Envelope) -> Option<&'static str> {
    match (ending, envelope.deciding) {
        (Ending::Aborted | Ending::Panicked, deciding) => Some(deciding.map_or("handler", Stage::as_str)),
        (Ending::Answered | Ending::Failed, Some(stage)) if envelope.panicked || envelope.refused.is_none() => {
            Some(stage.as_str())
        }
        (Ending::Answered | Ending::Failed, _) => None,
    }
}

/// A handler that answers before it has asked whose the thing is, as a permission left to it.
fn tell_of_owner_unasked(facts: &mut Facts, now: Instants) {
    static SAID: log::Seldom = log::Seldom::new();
    let Some(permission) = facts.trail.owner_unasked() else { return };
    let route = facts.route.as_deref().unwrap_or("a route without a template");
    SAID.error(
        now,
        &format!(
            "{} {route}: the permission {permission} passes owners here (allow_owners), and the handler answered without asking its \
             Authorizer about a thing: whoever owns one reaches all",
            facts.method
        ),
    );
    facts.trail.flag("owner_not_asked");
}

/// Without the request target, whose query may hold a secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.ending == Ending::Panicked
            && let Some(span) = &self.span
        {
            span.leave();
        }
        let _ = self.write();
    }
}

/// Whether nobody will read a body (RFC 9110 §9.3.2, §15.3.5, §15.4.5), or there is none to read: a server asks for no frame then.
fn has_no_body(method: &Method, response: &Response<impl ResponseBody>) -> bool {
    method == Method::HEAD
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || response.body().is_end_stream()
        || content_length(response.headers()) == Some(0)
}

/// The values of a field as one (RFC 9110 §5.3), so that no record has two members of one name. What goes beyond the longest text
/// is not shown, and so not needed.
fn joined(sent: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = sent.get_all(name).iter();
    let (first, second) = (values.next()?, values.next());
    // Copied: what a server hands out may be a part of the whole head, which a clone would keep in memory as long as the record waits.
    let shown = |value: &'_ HeaderValue| {
        let bytes = value.as_bytes();
        bytes.get(..=MAX_TEXT_LEN).unwrap_or(bytes).to_vec()
    };
    let mut joined = shown(first);
    for value in second.into_iter().chain(values) {
        if joined.len() > MAX_TEXT_LEN {
            break;
        }
        joined.extend_from_slice(b", ");
        joined.extend(shown(value));
    }
    joined.truncate(MAX_TEXT_LEN.saturating_add(1));
    joined.shrink_to_fit();
    HeaderValue::try_from(joined).ok()
}

/// Copies the beginning of the first value of a field, if it is visible ASCII.
fn copy(out: &mut String, value: &HeaderValue) {
    if out.is_empty()
        && let Ok(text) = value.to_str()
    {
        out.push_str(text.get(..MAX_SENT_LEN).unwrap_or(text));
    }
}

fn unstorable(clock: &dyn Clock) -> Rejection {
    static SAID: log::Seldom = log::Seldom::new();
    SAID.error(clock.now(), "requests are refused: their audit records cannot be stored");
    Rejection::new(RejectionKind::Unavailable, "the audit record could not be stored")
        .with_retry_after(std::time::Duration::from_secs(1))
}

fn facts_of(rejection: &Rejection) -> (RejectionKind, Cow<'static, str>) {
    let (kind, reason) = rejection.facts();
    (kind, clean(reason))
}

/// A reason that is fixed, as most are, is not copied.
fn clean(reason: Cow<'static, str>) -> Cow<'static, str> {
    match reason {
        Cow::Borrowed(fixed) => text::clean(fixed, MAX_TEXT_LEN),
        Cow::Owned(made) => Cow::Owned(text::clean(&made, MAX_TEXT_LEN).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often the field stands, and however long: a record may wait for long, and there may be many.
    #[test]
    fn of_a_field_no_more_is_kept_than_is_shown() {
        let long = "b".repeat(100_000);
        for (name, values, kept) in [
            ("short", vec!["a"], "a".to_owned()),
            ("twice", vec!["a", "b"], "a, b".to_owned()),
            ("long", vec![&*long], "b".repeat(257)),
            ("long, and another", vec![&*long, "a"], "b".repeat(257)),
            ("another, and long", vec!["a", &*long], format!("a, {}", "b".repeat(254))),
            ("a thousand times", vec!["b"; 1_000], format!("{}b", "b, ".repeat(86)).chars().take(257).collect()),
        ] {
            let values = values.into_iter().map(|value| (X_REQUEST_ID, HeaderValue::from_str(value).unwrap()));
            let joined = joined(&values.collect(), &X_REQUEST_ID).unwrap();
            assert_eq!(joined.to_str().unwrap(), kept, "{name}");
        }
        assert!(joined(&HeaderMap::new(), &X_REQUEST_ID).is_none());
    }
}
