use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::{ask, sum};
use crate::{
    error::ConfigError,
    lookout::has_timer,
    now::Now,
    policy::{AccessQuery, PolicyBackend, QueryParts, ReloadState, Verdict},
};

/// Enforces one policy and asks another beside it: how a new policy is tried on real requests before it counts.
///
/// The answer is that of the first. Where the second would decide otherwise, or oblige to something else, the audit record has
/// its decision too, with `enforced: false`, and [`stats`](Self::stats) counts it. A second policy that cannot decide, panics
/// or does not answer is such a difference, and changes nothing.
///
/// # What it costs
/// Both are asked at the same time. Once the first has answered, the second has [20 ms](Self::waiting) to do so; that is the
/// longest that it delays a request. A policy that blocks the thread, instead of waiting, cannot be held to that.
#[derive(Debug)]
pub struct Shadow<E, S> {
    enforced: E,
    shadow: S,
    patience: Duration,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    compared: AtomicU64,
    differences: AtomicU64,
    unanswered: AtomicU64,
}

/// What a [`Shadow`] counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShadowStats {
    /// Questions that both policies were asked.
    pub compared: u64,
    /// Those on which they differ, the unanswered ones among them.
    pub differences: u64,
    /// Those that the shadow did not answer in time, or panicked on.
    pub unanswered: u64,
}

impl<E: PolicyBackend, S: PolicyBackend> Shadow<E, S> {
    /// Enforces `enforced`, and asks `shadow` beside it.
    #[must_use]
    pub fn new(enforced: E, shadow: S) -> Self {
        Self { enforced, shadow, patience: Duration::from_millis(20), counters: Counters::default() }
    }

    /// Sets how long the shadow may take once the enforced policy has answered. Default 20 ms, at most 1 s, which a longer time
    /// is taken for. Zero waits for nothing. A shadow that waits needs a tokio runtime with its timer; without, it is a
    /// difference.
    #[must_use]
    pub fn waiting(mut self, time: Duration) -> Self {
        self.patience = time.min(Duration::from_secs(1));
        self
    }

    /// What was counted so far. Inside a [`Combined`](crate::policy::Combined) with a policy that waits, one question may count twice:
    /// what needs no waiting is asked first, and all of them after that.
    #[must_use]
    pub fn stats(&self) -> ShadowStats {
        let Counters { compared, differences, unanswered } = &self.counters;
        ShadowStats {
            compared: compared.load(Relaxed),
            differences: differences.load(Relaxed),
            unanswered: unanswered.load(Relaxed),
        }
    }

    fn compare(&self, enforced: Verdict, shadow: Result<Verdict, &'static str>) -> Verdict {
        self.counters.compared.fetch_add(1, Relaxed);
        let shadow = shadow.unwrap_or_else(|why| {
            self.counters.unanswered.fetch_add(1, Relaxed);
            Verdict::cannot_decide(why)
        });
        let obliges = |verdict: &Verdict| verdict.is_allow() && !verdict.obligations().is_empty();
        let same = enforced.decision() == shadow.decision()
            && enforced.step_up_demand() == shadow.step_up_demand()
            && (!(obliges(&enforced) || obliges(&shadow)) || enforced.obligations() == shadow.obligations());
        if same {
            return enforced;
        }
        self.counters.differences.fetch_add(1, Relaxed);
        enforced.shadowed_by(self.shadow.name(), shadow)
    }

    /// Both at the same time; the enforced answer comes at most `patience` later than it is there.
    async fn both<T>(
        &self,
        enforced: impl Future<Output = T> + Send,
        shadow: impl Future<Output = T> + Send,
    ) -> (T, Result<T, &'static str>) {
        let (mut enforced, mut shadow) = (pin!(enforced), pin!(Caught(Box::pin(shadow))));
        let mut seen = None;
        let verdict = poll_fn(|context| {
            if let Poll::Ready(verdict) = enforced.as_mut().poll(context) {
                return Poll::Ready(verdict);
            }
            if seen.is_none()
                && let Poll::Ready(answer) = shadow.as_mut().poll(context)
            {
                seen = Some(answer);
            }
            Poll::Pending
        })
        .await;
        let answer = match seen {
            Some(answer) => answer,
            None if Handle::try_current().is_err() || !has_timer() => {
                Err("it must be waited for, and there is no tokio runtime with a timer")
            }
            None => tokio::time::timeout(self.patience, shadow).await.unwrap_or(Err("it did not answer in time")),
        };
        (verdict, answer)
    }
}

const PANICKED: &str = "it panicked";

/// A future whose panic is an answer.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, &'static str>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(PANICKED)),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: PolicyBackend, S: PolicyBackend> PolicyBackend for Shadow<E, S> {
    fn name(&self) -> &'static str {
        self.enforced.name()
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let Now::Known(enforced) = self.enforced.decide_now(query) else { return Now::Wait };
        let shadow = match catch_unwind(AssertUnwindSafe(|| self.shadow.decide_now(query))) {
            Ok(Now::Known(verdict)) => Ok(verdict),
            Ok(Now::Wait) => return Now::Wait,
            Err(_) => Err(PANICKED),
        };
        Now::Known(self.compare(enforced, shadow))
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        let (enforced, shadow) = self.both(ask(&self.enforced, query), ask(&self.shadow, query)).await;
        self.compare(enforced, shadow)
    }

    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let (enforced, shadow) = self.both(self.enforced.decide_all(queries), self.shadow.decide_all(queries)).await;
        let shadow: Vec<_> = match shadow {
            Ok(verdicts) if verdicts.len() == enforced.len() => verdicts.into_iter().map(Ok).collect(),
            Ok(_) => vec![Err("it answers another number of questions"); enforced.len()],
            Err(why) => vec![Err(why); enforced.len()],
        };
        enforced.into_iter().zip(shadow).map(|(enforced, shadow)| self.compare(enforced, shadow)).collect()
    }

    fn generation(&self) -> Option<u64> {
        sum([self.enforced.generation(), self.shadow.generation()])
    }

    fn version(&self) -> Option<Arc<str>> {
        self.enforced.version()
    }

    fn parts(&self) -> QueryParts {
        self.enforced.parts().and(self.shadow.parts())
    }

    /// Never remembered, so that each question is compared: put a cache inside.
    fn holds_for(&self) -> Option<Duration> {
        None
    }

    fn check_action(&self, action: &str) -> Result<(), ConfigError> {
        self.enforced.check_action(action)
    }

    fn reload_state(&self) -> Option<ReloadState> {
        [self.enforced.reload_state(), self.shadow.reload_state()].into_iter().flatten().reduce(ReloadState::and)
    }

    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        let shadow = catch_unwind(AssertUnwindSafe(|| self.shadow.steps(query))).unwrap_or_default();
        let shadow = shadow.into_iter().map(|step| format!("in the shadow, {}: {step}", self.shadow.name()));
        self.enforced.steps(query).into_iter().chain(shadow).collect()
    }
}
