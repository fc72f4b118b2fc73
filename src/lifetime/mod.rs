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
//! | a stream of items | [`Lifetime::limit`] |
//! | another body | [`Lifetime::limit_body`] |
//!
//! It ends when a request with the same credential would be refused:
//! - at its expiry, leeway included, to the millisecond;
//! - when it was revoked: within a [second](Lifetime::checking_every) if that is known in memory, as of tokens and of API keys in
//!   memory, files and caches; within ten seconds if a store must be asked;
//! - when nobody can say whether it was, as where revocations come over a connection that is lost.
//!
//! Where there is a second identity ([`Slot::Client`](crate::Slot)), whichever ends first ends the exchange. Policies are not asked
//! again: who loses a role keeps the stream until the token ends.
//!
//! Each end is an [event](crate::event::EventKind::ExchangeEnded) with its cause, the route, the principal and the id of the request,
//! whose own record (status `101`, for a WebSocket) tells of the beginning.
//!
//! # Cost
//! A timer for each exchange, which wakes once a second where there are revocations and once a minute where there are none; two
//! loads for a look at revocations in memory. It needs a tokio runtime with its timer; outside of one, an end is noticed at the
//! next item.
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
//! let lifetime = Lifetime::of_principal(alice);
//! // In the loop of a WebSocket:
//! tokio::select! {
//!     ended = lifetime.ended() => println!("close with 1008: {ended}"),
//!     message = std::future::pending::<String>() => println!("answer {message}"),
//! }
//! # }
//! ```

mod body;
mod stream;

use std::{fmt, future::pending, sync::Arc, time::Duration};

use http::Extensions;
use tokio::{runtime::Handle, time::sleep};

pub use self::{body::LimitedBody, stream::Limited};
use crate::{
    clock::{Clock, Instants, SystemClock},
    context::{RequestId, SecurityContext, authenticated_context},
    event::{Event, EventKind, tell},
    now::Now,
    principal::{Principal, Slot},
    rejection::Rejection,
    voucher::Ended,
};

/// How often is asked what can be told from memory.
const IN_MEMORY: Duration = Duration::from_secs(1);
/// How often is asked what a store must be asked about.
const IN_STORE: Duration = Duration::from_secs(10);
/// The longest pause: the wall clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(1);

/// How long the identities of a request count. See the [module docs](self). A clone asks for itself.
#[must_use]
#[derive(Clone)]
pub struct Lifetime {
    subject: Principal,
    client: Option<Principal>,
    request: Option<RequestId>,
    route: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
    every: Option<Duration>,
}

impl Lifetime {
    /// That of who sent a request. For axum it is an extractor as well.
    ///
    /// # Errors
    /// [`Unauthenticated`](crate::RejectionKind::Unauthenticated) (`401`) if the request is anonymous,
    /// [`Misconfigured`](crate::RejectionKind::Misconfigured) (`500`) if no authentication layer ran outside.
    pub fn of(extensions: &Extensions) -> Result<Self, Rejection> {
        let context = authenticated_context(extensions)?;
        let subject = context.with(|envelope| envelope.authenticated().cloned())?;
        Ok(Self::read(context, subject, Arc::new(SystemClock::new())))
    }

    /// That of one principal, for who has no request: whose token came in the first message of a WebSocket, for example.
    pub fn of_principal(principal: Principal) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self { subject: principal, client: None, request: None, route: None, clock, every: None }
    }

    /// That of the subject of a context, or of its client where nobody acts; none if they never end.
    #[cfg(feature = "stack")]
    pub(crate) fn of_context(context: &SecurityContext, clock: &Arc<dyn Clock>) -> Option<Self> {
        let subject = context.principal().or_else(|| context.identity(Slot::Client))?;
        Some(Self::read(context, subject, Arc::clone(clock)))
            .filter(|lifetime| lifetime.principals().any(Principal::can_end))
    }

    fn read(context: &SecurityContext, subject: Principal, clock: Arc<dyn Clock>) -> Self {
        let client = context.identity(Slot::Client);
        let (request, route) = context.with(|envelope| (envelope.request_id, envelope.route.clone()));
        Self { subject, client, request: Some(request), route, clock, every: None }
    }

    /// Reads the time from this clock. Default [`SystemClock`].
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how often is asked whether the credential was revoked. Default: each second what can be told from memory, every 10 s
    /// what a store must be asked about. Less than 100 ms counts as that, more than a minute as a minute.
    pub fn checking_every(mut self, period: Duration) -> Self {
        self.every = Some(period.clamp(Duration::from_millis(100), LONGEST));
        self
    }

    /// Who it is of.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.subject
    }

    fn principals(&self) -> impl Iterator<Item = &Principal> {
        std::iter::once(&self.subject).chain(&self.client)
    }

    /// Whether it counts now, as far as is known without waiting.
    ///
    /// # Errors
    /// [`Ended`] says why it does not.
    pub fn check(&self) -> Result<(), Ended> {
        self.check_at(self.clock.now())
    }

    fn check_at(&self, at: Instants) -> Result<(), Ended> {
        self.principals().try_for_each(|principal| match principal.counts_now(at) {
            Now::Known(answer) => answer,
            Now::Wait => Ok(()),
        })
    }

    /// Waits until it has ended. It is at once where it has.
    ///
    /// # Cancel safety
    /// May be dropped at any time, in a `select!` for example, and called again.
    pub async fn ended(&self) -> Ended {
        loop {
            let at = self.clock.now();
            for principal in self.principals() {
                if let Err(ended) = principal.counts(at).await {
                    self.tell(ended, at);
                    return ended;
                }
            }
            pause(self.pause_from(self.clock.now())).await;
        }
    }

    /// How long nothing changes that is not noticed otherwise.
    fn pause_from(&self, at: Instants) -> Duration {
        let of = |principal: &Principal| {
            let expiry = Duration::from_nanos(principal.ends_at_nanos().saturating_sub(at.unix_nanos()));
            let look = match (principal.voucher(), self.every) {
                (None, _) => LONGEST,
                (Some(_), Some(every)) => every,
                (Some(voucher), None) => match voucher.vouches_now(principal, at) {
                    Now::Known(_) => IN_MEMORY,
                    Now::Wait => IN_STORE,
                },
            };
            expiry.min(look)
        };
        self.principals().map(of).min().unwrap_or(LONGEST).max(SHORTEST)
    }

    /// Says that it ended an exchange.
    fn tell(&self, ended: Ended, at: Instants) {
        let about = self.route.as_deref().unwrap_or("exchange");
        let event = Event::new(EventKind::ExchangeEnded, about).at(at).with("cause", ended.as_str());
        tell(match self.request {
            Some(request) => event.by(request, self.subject.clone()),
            None => event,
        });
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

async fn pause(time: Duration) {
    if Handle::try_current().is_ok() { sleep(time).await } else { pending().await }
}

impl fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifetime").field("subject", &self.subject).field("client", &self.client).finish_non_exhaustive()
    }
}

/// Waits for the end of a lifetime, for who polls.
struct Watch {
    lifetime: Arc<Lifetime>,
    /// Made when there is something to wait for. The lock is never taken: it makes the future fit for bodies that threads share.
    ended: Option<std::sync::Mutex<std::pin::Pin<Box<dyn Future<Output = Ended> + Send>>>>,
}

impl Watch {
    fn new(lifetime: Lifetime) -> Self {
        Self { lifetime: Arc::new(lifetime), ended: None }
    }

    /// For an item that is there: whether it may be handed out.
    fn check(&self) -> Result<(), Ended> {
        let at = self.lifetime.clock.now();
        self.lifetime.check_at(at).inspect_err(|ended| self.lifetime.tell(*ended, at))
    }

    /// For who has nothing to hand out.
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Ended> {
        let lifetime = &self.lifetime;
        let ended = self.ended.get_or_insert_with(|| {
            let lifetime = Arc::clone(lifetime);
            std::sync::Mutex::new(Box::pin(async move { lifetime.ended().await }))
        });
        ended.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut().poll(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.lifetime, f)
    }
}
