//! What a response body must be able to do for the layers that render or watch it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
#[cfg(feature = "audit")]
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{
    BodyExt, Empty, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use pin_project_lite::pin_project;

#[cfg(feature = "lifetime")]
use crate::lifetime::{Lifetime, LimitedBody};

/// A response body that can hold a rendered refusal and can be watched to its end.
///
/// Needed by the layers that render or watch bodies; the others ask for `Default` alone. It keeps the body's type, which
/// servers such as `axum::serve` demand. All methods may do less: a body that cannot hold bytes leaves refusals without a
/// text, and one that cannot be watched counts as complete when its head is sent.
///
/// Implemented for axum's and tonic's `Body`, and for `Full`, `Empty`, `BoxBody` and `UnsyncBoxBody` of `http-body-util`.
pub trait ResponseBody: Body + Default + Sized {
    /// A body of these bytes.
    fn full(bytes: Bytes) -> Self {
        let _ = bytes;
        Self::default()
    }

    /// The same body, which ends with the lifetime; `grpc` says that the end is told in trailers. A body that cannot be ended goes
    /// on, which is what it does unless its type says otherwise.
    #[cfg(feature = "lifetime")]
    #[must_use]
    fn until(self, lifetime: Lifetime, grpc: bool) -> Self {
        let _ = (lifetime, grpc);
        self
    }

    /// The same body, whose end `watch` will see.
    #[must_use]
    fn watch(self, mut watch: BodyWatch) -> Self {
        watch.facts.bytes = self.size_hint().exact().unwrap_or_default();
        watch.end(BodyEnd::Complete);
        self
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: sent, failed or given up")]
pub enum BodyEnd {
    /// All of it was handed to the server.
    Complete,
    /// It failed on the way.
    Failed,
    /// It was dropped before its end: the client hung up.
    Dropped,
}

/// What went by until a body ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyFacts {
    /// The bytes of its data frames.
    pub bytes: u64,
    /// The status of a gRPC call, from the trailers.
    pub grpc_status: Option<u16>,
}

/// Is told how a body ended, once; dropping it says [`BodyEnd::Dropped`].
pub struct BodyWatch {
    on_end: Option<Box<OnEnd>>,
    facts: BodyFacts,
    /// After how many bytes the server asks for no more.
    length: Option<u64>,
    /// Whether trailers may come behind the last byte.
    trailers: bool,
}

type OnEnd = dyn FnOnce(BodyEnd, BodyFacts) + Send + Sync;

impl BodyWatch {
    /// Calls `on_end` once.
    pub fn new(on_end: impl FnOnce(BodyEnd) + Send + Sync + 'static) -> Self {
        Self::with_facts(move |end, _| on_end(end))
    }

    /// Calls `on_end` once, with what went by until then.
    pub fn with_facts(on_end: impl FnOnce(BodyEnd, BodyFacts) + Send + Sync + 'static) -> Self {
        Self { on_end: Some(Box::new(on_end)), facts: BodyFacts::default(), length: None, trailers: false }
    }

    /// Tells it of the head of the answer. Over HTTP/1.1 a server asks for no more than the `Content-Length` says; over HTTP/2 for
    /// everything, and trailers may come last.
    #[cfg(feature = "audit")]
    pub(crate) fn of_answer(mut self, version: Version, headers: &HeaderMap) -> Self {
        (self.length, self.trailers) = (content_length(headers), version >= Version::HTTP_2);
        self
    }

    /// Whether the server has all that it asks for, if the rest of the body is exactly so long.
    fn is_over(&self, rest: Option<u64>) -> bool {
        let has_all = || self.length.is_some_and(|length| self.facts.bytes >= length);
        !self.trailers && (rest == Some(0) || has_all())
    }

    fn saw(&mut self, frame: &Frame<impl Buf>) {
        if let Some(data) = frame.data_ref() {
            let bytes = u64::try_from(data.remaining()).unwrap_or(u64::MAX);
            self.facts.bytes = self.facts.bytes.saturating_add(bytes);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.facts.grpc_status = grpc_status(trailers);
        }
    }

    /// Tells how the body ended.
    pub fn end(mut self, end: BodyEnd) {
        self.tell(end);
    }

    fn tell(&mut self, end: BodyEnd) {
        if let Some(on_end) = self.on_end.take() {
            on_end(end, self.facts);
        }
    }
}

/// How long the body is, by its head.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The status of a gRPC call, if it is there and a number.
pub(crate) fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl Drop for BodyWatch {
    fn drop(&mut self) {
        self.tell(BodyEnd::Dropped);
    }
}

impl fmt::Debug for BodyWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWatch").finish_non_exhaustive()
    }
}

pin_project! {
    /// A body that tells a [`BodyWatch`] how it ended.
    ///
    /// It is complete at its last frame, or as soon as all bytes that it announced were handed out: a server that wrote a
    /// `Content-Length` does not ask for more.
    #[derive(Debug)]
    pub struct Watched<B> {
        #[pin]
        body: B,
        watch: BodyWatch,
    }
}

impl<B> Watched<B> {
    /// Watches `body`.
    pub const fn new(body: B, watch: BodyWatch) -> Self {
        Self { body, watch }
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.watch.saw(frame);
        }
        match &frame {
            None => this.watch.tell(BodyEnd::Complete),
            Some(Err(_)) => this.watch.tell(BodyEnd::Failed),
            // Nothing comes behind trailers, and nobody asks whether it does.
            Some(Ok(frame))
                if frame.is_trailers()
                    || this.body.is_end_stream()
                    || this.watch.is_over(this.body.size_hint().exact()) =>
            {
                this.watch.tell(BodyEnd::Complete);
            }
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl ResponseBody for Full<Bytes> {
    fn full(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl ResponseBody for Empty<Bytes> {}

impl ResponseBody for String {
    fn full(bytes: Bytes) -> Self {
        Self::from_utf8(bytes.into()).unwrap_or_default()
    }
}

impl<E: 'static> ResponseBody for BoxBody<Bytes, E> {
    fn full(bytes: Bytes) -> Self {
        Full::new(bytes).map_err(|never| match never {}).boxed()
    }

    fn watch(self, watch: BodyWatch) -> Self {
        Self::new(Watched::new(self, watch))
    }

    #[cfg(feature = "lifetime")]
    fn until(self, lifetime: Lifetime, grpc: bool) -> Self {
        Self::new(limited(self, lifetime, grpc))
    }
}

impl<E: 'static> ResponseBody for UnsyncBoxBody<Bytes, E> {
    fn full(bytes: Bytes) -> Self {
        Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
    }

    fn watch(self, watch: BodyWatch) -> Self {
        Self::new(Watched::new(self, watch))
    }

    #[cfg(feature = "lifetime")]
    fn until(self, lifetime: Lifetime, grpc: bool) -> Self {
        Self::new(limited(self, lifetime, grpc))
    }
}

#[cfg(feature = "axum")]
impl ResponseBody for axum::body::Body {
    fn full(bytes: Bytes) -> Self {
        Self::from(bytes)
    }

    fn watch(self, watch: BodyWatch) -> Self {
        Self::new(Watched::new(self, watch))
    }

    #[cfg(feature = "lifetime")]
    fn until(self, lifetime: Lifetime, grpc: bool) -> Self {
        Self::new(limited(self, lifetime, grpc))
    }
}

/// The body, until the lifetime ends.
#[cfg(feature = "lifetime")]
pub(crate) fn limited<B: Body>(body: B, lifetime: Lifetime, grpc: bool) -> LimitedBody<B> {
    let limited = lifetime.limit_body(body);
    if grpc { limited.for_grpc() } else { limited }
}
