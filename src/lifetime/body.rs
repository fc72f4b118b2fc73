use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    grpc,
    lifetime::{Lifetime, watch::came_of},
    voucher::Ended,
};

pin_project! {
    /// A body that ends with a [`Lifetime`]; made by [`Lifetime::limit_body`].
    pub struct LimitedBody<B>
    where
        B: Body,
    {
        #[pin]
        body: B,
        // None once it is over.
        lifetime: Option<Box<Lifetime>>,
        // Whether the end is told in trailers.
        grpc: bool,
        // Whether nobody has asked for anything yet.
        fresh: bool,
        // What comes after the first message, if that was all.
        next: Option<Option<Frame<B::Data>>>,
    }
}

impl<B: Body> LimitedBody<B> {
    pub(super) fn new(body: B, lifetime: Lifetime) -> Self {
        Self { body, lifetime: Some(Box::new(lifetime)), grpc: false, fresh: true, next: None }
    }

    /// Tells the end to a gRPC client, by the status in the trailers: `UNAUTHENTICATED`, or `UNAVAILABLE` while nobody can say
    /// whether the credential still counts.
    #[must_use]
    pub const fn for_grpc(mut self) -> Self {
        self.grpc = true;
        self
    }
}

impl<B: Body> Body for LimitedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(lifetime) = this.lifetime else { return Poll::Ready(None) };
        let is_first = std::mem::take(this.fresh) && *this.grpc;
        let turn = ready!(lifetime.watch.poll_turn(cx));
        let polled = match this.next.take() {
            Some(next) => Poll::Ready(next.map(Ok)),
            None => this.body.as_mut().poll_frame(cx),
        };
        let ended = match polled {
            // Trailers are the end of what was handed out already.
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                came_of(turn);
                match lifetime.poll_item(cx) {
                    Ok(()) => return Poll::Ready(Some(Ok(frame))),
                    // One message with the end right behind it is the answer to a call that was admitted and whose work is done: who
                    // threw it away would have the client call again.
                    Err(_) if is_first && is_last(this.body.as_mut().poll_frame(cx), this.next) => {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Err(ended) => {
                        lifetime.tell(ended);
                        ended
                    }
                }
            }
            Poll::Ready(frame) => return Poll::Ready(frame),
            Poll::Pending => ready!(lifetime.poll_ended(cx)),
        };
        *this.lifetime = None;
        Poll::Ready(this.grpc.then(|| Ok(Frame::trailers(status(ended)))))
    }

    fn is_end_stream(&self) -> bool {
        self.lifetime.is_none() || (self.next.is_none() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.lifetime {
            Some(_) => self.body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// Whether no message follows; keeps what does.
fn is_last<D, E>(polled: Poll<Option<Result<Frame<D>, E>>>, next: &mut Option<Option<Frame<D>>>) -> bool {
    match polled {
        Poll::Ready(None) => *next = Some(None),
        Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => *next = Some(Some(frame)),
        Poll::Ready(Some(_)) | Poll::Pending => return false,
    }
    true
}

fn status(ended: Ended) -> HeaderMap {
    grpc::trailers(&ended.into())
}

impl<B: Body> fmt::Debug for LimitedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedBody").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}
