//! Exchanges that outlast their request: a stream of events, a WebSocket, a gRPC stream. A request is checked when it comes;
//! what it began may go on for hours after its token ended.
//!
//! A [`Stack`](crate::stack::Stack) ends answers of `text/event-stream` and `application/grpc` by itself. A handler asks a [`Lifetime`],
//! where the exchange is of another kind:
//!
//! | the exchange | what ends it |
//! |---|---|
//! | an answer of `text/event-stream`, `application/grpc` | the stack: the body ends; gRPC with `UNAUTHENTICATED` in its trailers |
//! | a WebSocket, an upgraded connection | [`Lifetime::ended`] in the handler's loop |
//! | what a client goes on sending: an upload, the messages of a gRPC client stream | the same |
//! | a stream of items | [`Lifetime::limit`] |
//! | another body | [`Lifetime::limit_body`] |
//!
//! It ends when a request with the same credential would be refused:
//! - at its expiry, leeway included, to the millisecond;
//! - when the key that signed a token is no longer among its issuer's, or nobody trusts that set any more: within a second of when that
//!   is known; keys that are given ([`Issuer::fixed`](crate::jwt::Issuer::fixed)) stay;
//! - when it was revoked: within a [second](Lifetime::checking_every) of when that is known in memory, as of tokens and of API keys in
//!   memory and files; within ten seconds if a store must be asked;
//! - when nobody can say whether it was, as where revocations come over a connection that is lost, or a store does not answer within
//!   ten seconds.
//!
//! An upgraded connection (`101`, or what CONNECT opens) of an identity that can end, whose handler took no [`Lifetime`] of its request,
//! goes on for as long as the client likes. The stack says so, at most once a minute, as a warning with the route, and the record of each
//! such request has the flag `lifetime_not_taken`. That a handler which took one waits for its end, nobody sees.
//!
//! An opaque token that its provider revoked is the exception: requests with it are refused once the answer about it is forgotten (60 s),
//! and what it began goes on until its `exp`, since nothing of the token is kept to ask with. A
//! [`RevocationStore`](crate::revocation::RevocationStore) of ours ends that, too.
//!
//! A body or a stream ends when it is asked for what comes next: one that nobody reads, as where a client takes nothing more, stays
//! open and hands out nothing.
//!
//! Where there is a second identity ([`Slot::Client`](crate::Slot)), whichever ends first ends the exchange. Policies are not asked
//! again: who loses a role keeps the stream until the token ends.
//!
//! Each end is an [event](crate::event::EventKind::ExchangeEnded) with its cause, the principal, and the route and the id of the request
//! where there is one, whose own record (status `101`, for a WebSocket) tells of the beginning.
//!
//! # Cost
//! A timer for each exchange, which wakes once a second where there are revocations or keys that may change, and once a minute where
//! there are none; a few loads for a look at what is in memory, and a search once for each set of keys. A store is asked at each
//! pause and not at each item. It needs a tokio runtime with its timer; outside of one, an end is noticed at the next item, and a
//! store is asked only once.
//!
//! # Example
//! ```
//! use portcullis::{Principal, PrincipalKind, lifetime::Lifetime};
//! # use portcullis::{Clock, SystemClock};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! # let now = SystemClock::new().now().unix_seconds();
//! let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").expires_at(now).build();
//! let mut lifetime = Lifetime::of_principal(alice);
//! // In the loop of a WebSocket:
//! tokio::select! {
//!     ended = lifetime.ended() => println!("close with 1008: {ended}"),
//!     message = std::future::pending::<String>() => println!("answer {message}"),
//! }
//! # }
//! ```

mod body;
mod stream;
mod terms;
mod watch;

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Extensions;

pub use self::{body::LimitedBody, stream::Limited};
use self::{
    terms::{LONGEST, Terms},
    watch::Watch,
};
use crate::{
    clock::{Clock, SystemClock},
    context::authenticated_context,
    now::Now,
    principal::Principal,
    rejection::{Rejection, RejectionKind},
    voucher::Ended,
};
#[cfg(feature = "stack")]
use crate::{context::SecurityContext, principal::Slot};

/// How long the identities of a request count. See the [module docs](self). A clone asks for itself.
#[must_use]
#[derive(Clone)]
pub struct Lifetime {
    terms: Terms,
    watch: Watch,
}

impl Lifetime {
    /// That of who sent a request. For axum it is an extractor as well.
    ///
    /// # Errors
    /// [`Unauthenticated`](crate::RejectionKind::Unauthenticated) (`401`) if the request is anonymous,
    /// [`Misconfigured`](crate::RejectionKind::Misconfigured) (`500`) if no authentication layer ran outside.
    pub fn of(extensions: &Extensions) -> Result<Self, Rejection> {
        let context = authenticated_context(extensions)?;
        let subject = context.with(|envelope| {
            envelope.lifetime_taken = true;
            envelope.authenticated().cloned()
        })?;
        Ok(Self::on(Terms::read(context, subject, Arc::new(SystemClock::new()))))
    }

    /// That of one principal, for who has no request: whose token came in the first message of a WebSocket, for example.
    pub fn of_principal(principal: Principal) -> Self {
        Self::on(Terms::of_principal(principal, Arc::new(SystemClock::new())))
    }

    /// That of the same exchange under a newer credential, which was verified just now: a token that the client sends over the
    /// connection. Clock, request and the second identity stay.
    ///
    /// ```
    /// use portcullis::{Principal, PrincipalKind, lifetime::Lifetime};
    ///
    /// let of = |name| Principal::builder(PrincipalKind::User, "https://id.example.com", name, "jwt").build();
    /// let lifetime = Lifetime::of_principal(of("alice"));
    /// assert!(lifetime.renewed_by(of("alice")).is_ok());
    /// assert!(lifetime.renewed_by(of("bob")).is_err());
    /// ```
    ///
    /// # Errors
    /// [`InvalidCredential`](crate::RejectionKind::InvalidCredential) (`401`) if it is not of the [same](Principal::is_same_as)
    /// principal.
    pub fn renewed_by(&self, principal: Principal) -> Result<Self, Rejection> {
        if principal.is_same_as(self.principal()) {
            Ok(Self::on(self.terms.renewed(principal)))
        } else {
            Err(Rejection::new(RejectionKind::InvalidCredential, "the newer credential is of somebody else"))
        }
    }

    /// That of the subject of a context, or of its client where nobody acts; none if they never end.
    #[cfg(feature = "stack")]
    pub(crate) fn of_context(context: &SecurityContext, clock: &Arc<dyn Clock>) -> Option<Self> {
        let subject = context.principal().or_else(|| context.identity(Slot::Client))?;
        let terms = Terms::read(context, subject, Arc::clone(clock));
        terms.can_end().then(|| Self::on(terms))
    }

    fn on(terms: Terms) -> Self {
        Self { terms, watch: Watch::default() }
    }

    /// Reads the time from this clock, which must be the one that the layers and the keys read. Default [`SystemClock`].
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.terms.clock = Arc::new(clock);
        self.watch = Watch::default();
        self
    }

    /// Sets how often is asked whether the credential was revoked. Default: each second what can be told from memory, every 10 s
    /// what a store must be asked about. Less than 100 ms counts as that, more than a minute as a minute.
    pub fn checking_every(mut self, period: Duration) -> Self {
        self.terms.every = Some(period.clamp(Duration::from_millis(100), LONGEST));
        self.watch = Watch::default();
        self
    }

    /// Who it is of.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.terms.subject
    }

    /// Whether it counts now, as far as is known without waiting.
    ///
    /// # Errors
    /// [`Ended`] says why it does not.
    pub fn check(&self) -> Result<(), Ended> {
        match self.terms.known_at(self.terms.clock.now()) {
            Now::Known(answer) => answer,
            Now::Wait => Ok(()),
        }
    }

    /// Waits until it has ended. It is at once where that is known.
    ///
    /// # Cancel safety
    /// May be dropped at any time, in each turn of a loop around `select!` for example, and called again. Nothing is lost: the pause
    /// and the question to a store that are under way belong to the lifetime and go on with the next call, so that a client that
    /// sends message after message neither puts off the end nor has the store asked more often.
    pub async fn ended(&mut self) -> Ended {
        if let Err(ended) = self.check() {
            self.tell(ended);
            return ended;
        }
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Tells of the end.
    fn tell(&self, ended: Ended) {
        self.terms.tell(ended, self.terms.clock.now());
    }

    /// For who has nothing to hand out. Tells of the end.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let ended = ready!(self.watch.poll(cx, || self.terms.clone().wait()));
        self.tell(ended);
        Poll::Ready(ended)
    }

    /// For an item that is there: whether it may be handed out. Items that are always there do not put off the question to a store.
    /// An end is not told yet.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        match self.terms.known_at(self.terms.clock.now()) {
            Now::Known(answer) => answer,
            // Who sends the first item was let in a moment ago.
            Now::Wait => match self.watch.poll(cx, || self.terms.clone().wait_after_a_pause()) {
                Poll::Ready(ended) => Err(ended),
                Poll::Pending => Ok(()),
            },
        }
    }

    /// The same stream, which ends when the lifetime does: with the item that `last` makes of the cause, or without one. An item
    /// that comes later than the end is not handed out.
    ///
    /// ```
    /// use portcullis::{Rejection, lifetime::Lifetime};
    /// use tokio_stream::{Stream, StreamExt};
    ///
    /// fn prices(lifetime: Lifetime, prices: impl Stream<Item = u32>) -> impl Stream<Item = Result<u32, Rejection>> {
    ///     lifetime.limit(prices.map(Ok), |ended| Some(Err(ended.into())))
    /// }
    /// ```
    pub fn limit<S, F>(self, stream: S, last: F) -> Limited<S, F>
    where
        S: futures_core::Stream,
        F: FnOnce(Ended) -> Option<S::Item>,
    {
        Limited::new(stream, last, self)
    }

    /// The same body, which ends when the lifetime does. A body that announced its length then is cut off, and the connection
    /// closed by the server.
    pub fn limit_body<B: http_body::Body>(self, body: B) -> LimitedBody<B> {
        LimitedBody::new(body, self)
    }
}

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { subject, client, .. } = &self.terms;
        f.debug_struct("Lifetime").field("subject", subject).field("client", client).finish_non_exhaustive()
    }
}
