use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::{
    lifetime::{Lifetime, watch::came_of},
    voucher::Ended,
};

pin_project! {
    /// A stream that ends with a [`Lifetime`]; made by [`Lifetime::limit`].
    #[must_use = "a stream does nothing unless it is polled"]
    pub struct Limited<S, F> {
        #[pin]
        stream: S,
        // None once it is over.
        last: Option<F>,
        lifetime: Lifetime,
    }
}

impl<S, F> Limited<S, F> {
    pub(super) fn new(stream: S, last: F, lifetime: Lifetime) -> Self {
        Self { stream, last: Some(last), lifetime }
    }
}

impl<S, F> Stream for Limited<S, F>
where
    S: Stream,
    F: FnOnce(Ended) -> Option<S::Item>,
{
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        if this.last.is_none() {
            return Poll::Ready(None);
        }
        let turn = ready!(this.lifetime.watch.poll_turn(cx));
        let ended = match this.stream.poll_next(cx) {
            Poll::Ready(None) => {
                *this.last = None;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(item)) => {
                came_of(turn);
                match this.lifetime.poll_item(cx) {
                    Ok(()) => return Poll::Ready(Some(item)),
                    Err(ended) => {
                        this.lifetime.tell(ended);
                        ended
                    }
                }
            }
            Poll::Pending => ready!(this.lifetime.poll_ended(cx)),
        };
        Poll::Ready(this.last.take().and_then(|last| last(ended)))
    }
}

impl<S, F> fmt::Debug for Limited<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}
