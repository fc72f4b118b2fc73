//! How long a request waits for its decisions.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::OnceLock,
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};

use crate::{error::ConfigError, log, lookout::has_timer};

pub(super) const DEFAULT: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// How long all requests may wait.
#[derive(Debug)]
pub(super) struct Patience {
    time: Duration,
    /// Whether runtimes have a timer here, once one was seen.
    timer: OnceLock<bool>,
}

/// How long one of them may still wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Patience {
    pub(super) fn new(time: Duration) -> Result<Self, ConfigError> {
        if time.is_zero() || time > LONGEST {
            return Err(ConfigError::new("decide_within", format!("{time:?}"), "is not above zero and at most 10 min"));
        }
        Ok(Self { time, timer: OnceLock::new() })
    }

    pub(super) const fn time(&self) -> Duration {
        self.time
    }

    /// From now on, where there is a timer.
    pub(super) fn begin(&self) -> Deadline {
        static UNBOUND: log::Once = log::Once::new();
        if Handle::try_current().is_ok() && *self.timer.get_or_init(has_timer) {
            return Deadline(Instant::now().checked_add(self.time));
        }
        UNBOUND.error(
            "a decision waits outside of a tokio runtime with a timer: if it is never made, nothing ends the request",
        );
        Deadline(None)
    }
}

impl Deadline {
    /// What a request waits for its turn is no fault of a part.
    pub(super) fn extend(&mut self, by: Duration) {
        self.0 = self.0.and_then(|until| until.checked_add(by));
    }

    /// What comes of it; None if it is too late. The timer is made when there is nothing yet.
    pub(super) async fn bound<F: Future>(self, waiting: F) -> Option<F::Output> {
        let (mut waiting, mut timer) = (pin!(waiting), pin!(None::<Sleep>));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = waiting.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            let Some(until) = self.0 else { return Poll::Pending };
            if timer.is_none() {
                timer.set(Some(sleep_until(until)));
            }
            timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx).map(|()| None))
        })
        .await
    }
}
