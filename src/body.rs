//! What a response body must be able to do for the layers that render or watch it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{
    BodyExt, Empty, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use pin_project_lite::pin_project;

/// A response body that can hold a rendered refusal and can be watched to its end.
///
/// Needed by the layers that render or watch bodies; the others ask for `Default` alone. It keeps the body's type, which
/// servers such as `axum::serve` demand. Both methods may do less: a body that cannot hold bytes leaves refusals without a
/// text, and one that cannot be watched counts as complete when its head is sent.
///
/// Implemented for axum's `Body`, and for `Full`, `Empty`, `BoxBody` and `UnsyncBoxBody` of `http-body-util`.
pub trait ResponseBody: Body + Default + Sized {
    /// A body of these bytes.
    fn full(bytes: Bytes) -> Self {
        let _ = bytes;
        Self::default()
    }

    /// The same body, whose end `watch` will see.
    #[must_use]
    fn watch(self, watch: BodyWatch) -> Self {
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

/// Is told how a body ended, once; dropping it says [`BodyEnd::Dropped`].
pub struct BodyWatch {
    on_end: Option<Box<dyn FnOnce(BodyEnd) + Send + Sync>>,
}

impl BodyWatch {
    /// Calls `on_end` once.
    pub fn new(on_end: impl FnOnce(BodyEnd) + Send + Sync + 'static) -> Self {
        Self { on_end: Some(Box::new(on_end)) }
    }

    /// Tells how the body ended.
    pub fn end(mut self, end: BodyEnd) {
        self.tell(end);
    }

    fn tell(&mut self, end: BodyEnd) {
        if let Some(on_end) = self.on_end.take() {
            on_end(end);
        }
    }
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
        match &frame {
            None => this.watch.tell(BodyEnd::Complete),
            Some(Err(_)) => this.watch.tell(BodyEnd::Failed),
            Some(Ok(_)) if this.body.is_end_stream() || this.body.size_hint().exact() == Some(0) => {
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

/// Whether the body is in memory as far as anybody can tell: it knows its length, so nothing is left to wait for.
pub(crate) fn is_in_memory(body: &impl Body) -> bool {
    body.is_end_stream() || body.size_hint().exact().is_some()
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
}

impl<E: 'static> ResponseBody for UnsyncBoxBody<Bytes, E> {
    fn full(bytes: Bytes) -> Self {
        Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
    }

    fn watch(self, watch: BodyWatch) -> Self {
        Self::new(Watched::new(self, watch))
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
}
