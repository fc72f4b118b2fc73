use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

use crate::{
    clock::{Clock, Instants},
    context::{RequestId, SecurityContext},
    event::{Event, EventKind, tell},
    lookout::has_timer,
    now::Now,
    principal::{Principal, Slot},
    voucher::Ended,
};

/// How often is asked what can be told from memory.
const IN_MEMORY: Duration = Duration::from_secs(1);
/// How often is asked what a store must be asked about.
const IN_STORE: Duration = Duration::from_secs(10);
/// How long a store may take for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause: the wall clock may be set meanwhile.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(1);

/// Whose lifetime it is, and how it is asked about.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) subject: Principal,
    pub(super) client: Option<Principal>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) every: Option<Duration>,
    request: Option<RequestId>,
    route: Option<Arc<str>>,
}

impl Terms {
    pub(super) fn read(context: &SecurityContext, subject: Principal, clock: Arc<dyn Clock>) -> Self {
        let client = context.identity(Slot::Client);
        let (request, route) = context.with(|envelope| (envelope.request_id, envelope.route.clone()));
        Self { subject, client, request: Some(request), route, clock, every: None }
    }

    pub(super) fn of_principal(subject: Principal, clock: Arc<dyn Clock>) -> Self {
        Self { subject, client: None, request: None, route: None, clock, every: None }
    }

    /// The same exchange under a newer credential.
    pub(super) fn renewed(&self, subject: Principal) -> Self {
        Self { subject, ..self.clone() }
    }

    fn principals(&self) -> impl Iterator<Item = &Principal> {
        std::iter::once(&self.subject).chain(&self.client)
    }

    #[cfg(feature = "stack")]
    pub(super) fn can_end(&self) -> bool {
        self.principals().any(Principal::can_end)
    }

    /// Whether they count, if that can be told without waiting. One that does not is enough.
    pub(super) fn known_at(&self, at: Instants) -> Now<Result<(), Ended>> {
        let mut waits = false;
        for principal in self.principals() {
            match principal.counts_now(at) {
                Now::Known(Ok(())) => {}
                Now::Known(Err(ended)) => return Now::Known(Err(ended)),
                Now::Wait => waits = true,
            }
        }
        if waits { Now::Wait } else { Now::Known(Ok(())) }
    }

    pub(super) async fn wait(self) -> Ended {
        loop {
            let at = self.clock.now();
            let answer = match self.known_at(at) {
                Now::Known(answer) => answer,
                Now::Wait => self.ask(at).await,
            };
            if let Err(ended) = answer {
                return ended;
            }
            pause(self.pause_from(self.clock.now())).await;
        }
    }

    pub(super) async fn wait_after_a_pause(self) -> Ended {
        pause(self.pause_from(self.clock.now())).await;
        self.wait().await
    }

    /// Asks who must be waited for. A store that hangs hides neither an expiry nor what is known of another identity.
    async fn ask(&self, at: Instants) -> Result<(), Ended> {
        let mut asking = pin!(async {
            for principal in self.principals() {
                principal.counts(at).await?;
            }
            Ok(())
        });
        let mut meanwhile = pin!(self.grow_impatient());
        poll_fn(|cx| match asking.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer),
            Poll::Pending => meanwhile.as_mut().poll(cx).map(Err),
        })
        .await
    }

    async fn grow_impatient(&self) -> Ended {
        let mut left = PATIENCE;
        while !left.is_zero() {
            let time = self.pause_from(self.clock.now()).min(left);
            pause(time).await;
            if let Now::Known(Err(ended)) = self.known_at(self.clock.now()) {
                return ended;
            }
            left = left.saturating_sub(time);
        }
        Ended::Unknown
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
    pub(super) fn tell(&self, ended: Ended, at: Instants) {
        let about = self.route.as_deref().unwrap_or("exchange");
        let event = Event::new(EventKind::ExchangeEnded, about).at(at).with("cause", ended.as_str());
        tell(match self.request {
            Some(request) => event.by(request, self.subject.clone()),
            None => event.whose(self.subject.clone()),
        });
    }
}

async fn pause(time: Duration) {
    if Handle::try_current().is_ok() && has_timer() { sleep(time).await } else { pending().await }
}
