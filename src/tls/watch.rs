//! Files that are looked at again and again while a listener serves.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, task::spawn_blocking, time::sleep};

use crate::{
    error::ConfigError,
    lookout::{Lookout, has_timer},
};

/// The shortest time between two looks at the files.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest: a certificate that nobody looks for any more ends unseen.
const LONGEST: Duration = Duration::from_secs(86_400);
/// How long files that have changed must stay as they are.
const SETTLING: Duration = Duration::from_millis(100);
/// How often they are read again for that before the next look has to do.
const MOST_READINGS: usize = 4;

/// Whether what the files hold counts, and why not.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Why it does not, while that is so.
    cause: Mutex<Option<String>>,
    lookout: Lookout,
}

impl Watch {
    /// Notes what came of the last look.
    pub(super) fn note<T>(&self, looked: &Result<T, ConfigError>) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = looked.as_ref().err().map(ToString::to_string);
    }

    pub(super) fn failing(&self) -> Option<String> {
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cause.or_else(|| self.lookout.ended().map(str::to_owned))
    }
}

/// Calls `reload` again and again, this long after the last time, until whose files they are is gone. `no_file` says why there is
/// nothing to look at.
pub(super) fn reload_every<T: Send + Sync + 'static>(
    (what, period): (&str, Duration),
    no_file: Option<&str>,
    whose: &Arc<T>,
    watch: impl Fn(&T) -> &Watch,
    reload: fn(&T) -> Result<bool, ConfigError>,
) -> Result<(), ConfigError> {
    let refuse = |problem: &str| ConfigError::new(what, format!("{period:?}"), problem);
    if !(SHORTEST..=LONGEST).contains(&period) {
        return Err(refuse("must be 10 ms to a day"));
    }
    if let Some(problem) = no_file {
        return Err(refuse(problem));
    }
    let runtime = Handle::try_current().map_err(|_| refuse("needs a tokio runtime: call it inside one"))?;
    if !has_timer() {
        return Err(refuse("needs a tokio runtime with a timer: enable_time"));
    }
    let mark = watch(whose).lookout.begin(what.to_owned());
    let whose: Weak<T> = Arc::downgrade(whose);
    runtime.spawn(async move {
        let _mark = mark;
        loop {
            sleep(period).await;
            let Some(whose) = whose.upgrade() else { return };
            // What went wrong is in the log.
            let _ = spawn_blocking(move || reload(&whose)).await;
        }
    });
    Ok(())
}

/// What the files hold if that is new, once they stay the same: written in pieces, they hold for a moment what ends between two
/// certificates. None if it is not new.
pub(super) fn settled<T>(
    read: impl Fn() -> Result<T, ConfigError>,
    is_new: impl FnOnce(&T) -> bool,
    are_same: impl Fn(&T, &T) -> bool,
    changing: impl FnOnce() -> ConfigError,
) -> Result<Option<T>, ConfigError> {
    let mut last = read()?;
    if !is_new(&last) {
        return Ok(None);
    }
    for _ in 0..MOST_READINGS {
        std::thread::sleep(SETTLING);
        let again = read()?;
        if are_same(&again, &last) {
            return Ok(Some(again));
        }
        last = again;
    }
    Err(changing())
}
