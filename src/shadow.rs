//! Shadow mode: a rule or a limit that is tried out on live requests before it counts.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    clock::{Clock, Instants, SystemClock},
    error::ConfigError,
    event::{self, Event, EventKind, Turn},
};

/// The most days that something is tried out.
const MAX_DAYS: u64 = 30;
const DAY: u64 = 86_400;

/// Until when a rule or a limit is tried out: it decides, records what it would have refused, and lets pass. From that day on
/// it refuses, without a restart.
///
/// An end is always needed, at most 30 days ahead; one that is past means that nothing is tried out any more. See
/// [`GuardLayer::shadow`](crate::guard::GuardLayer::shadow),
/// [`RateLimitLayer::shadow`](crate::rate_limit::RateLimitLayer::shadow) and
/// [`ConcurrencyLayer::shadow`](crate::rate_limit::ConcurrencyLayer::shadow). Authentication, HTTPS and what proxies say have
/// no shadow mode.
///
/// ```
/// use portcullis::ShadowMode;
///
/// assert!(ShadowMode::until("2026-02-30").is_err(), "there is no such day");
/// assert!(ShadowMode::until("2999-01-01").is_err(), "too far ahead");
/// assert!(ShadowMode::until("2026-01-31").is_ok(), "over already: it refuses");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowMode {
    /// Seconds since the Unix epoch.
    end: u64,
}

impl ShadowMode {
    /// Until this day begins, in UTC: `2026-12-24`.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no such day, or it is more than 30 days ahead by the system's clock.
    pub fn until(day: &str) -> Result<Self, ConfigError> {
        Self::until_as_of(day, SystemClock.now())
    }

    /// The same by a clock of your own, for tests.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub fn until_as_of(day: &str, now: Instants) -> Result<Self, ConfigError> {
        let refuse = |problem| Err(ConfigError::new("shadow mode", format!("{day:?}"), problem));
        let Some(end) = days_since_epoch(day).map(|days| days.saturating_mul(DAY)) else {
            return refuse("must be a day, year-month-day, from 1970 to 9999");
        };
        if end > now.unix_seconds().saturating_add(MAX_DAYS * DAY) {
            return refuse("must be at most 30 days ahead");
        }
        Ok(Self { end })
    }

    /// When it ends, in seconds since the Unix epoch.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Whether nothing is refused yet.
    #[must_use]
    pub const fn is_on(&self, at: Instants) -> bool {
        at.unix_seconds() < self.end
    }
}

/// The days from 1970-01-01 to a day of the Gregorian calendar.
fn days_since_epoch(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let mut number = |len: usize| {
        let part = parts.next()?;
        let digits = part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<u64>().ok()).flatten()
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    if parts.next().is_some() || year < 1970 {
        return None;
    }
    let leaps = |year: u64| (year / 4).saturating_sub(year / 100).saturating_add(year / 400);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    if day == 0 || day > *lengths.get(before)? {
        return None;
    }
    let years = (year - 1970).saturating_mul(365).saturating_add(leaps(year - 1).saturating_sub(leaps(1969)));
    Some(years.saturating_add(lengths.iter().take(before).sum()).saturating_add(day - 1))
}

/// One rule's or limit's shadow mode and what it did; clones share the counts.
#[derive(Clone)]
pub(crate) struct Shadow {
    mode: ShadowMode,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    would_refuse: AtomicU64,
    on: Turn,
    is_over: AtomicBool,
    /// What is tried out, as it was called first.
    about: OnceLock<Box<str>>,
}

impl Shadow {
    pub(crate) fn new(mode: ShadowMode) -> Self {
        Self { mode, seen: Arc::default() }
    }

    /// Whether nothing is refused; tells of the turns. `about` names what is tried out.
    pub(crate) fn is_on(&self, at: Instants, about: impl FnOnce() -> String) -> bool {
        // Once over it is over for good, whatever a clock says that was set back, or a request from before.
        let on = self.mode.is_on(at) && !self.seen.is_over.load(Relaxed);
        if !on && !self.seen.is_over.load(Relaxed) {
            self.seen.is_over.store(true, Relaxed);
        }
        if self.seen.on.is_new(on) {
            let kind = if on { EventKind::ShadowStarted } else { EventKind::ShadowEnded };
            let about = self.seen.about.get_or_init(|| about().into());
            event::tell(Event::new(kind, about.clone()).at(at).with("until", self.mode.end.to_string()));
        }
        on
    }

    /// Says at start what is not enforced, and what need not be written any more.
    #[cfg(feature = "stack")]
    pub(crate) fn announce(&self, at: Instants, about: &str) {
        if self.is_on(at, || about.to_owned()) {
            crate::log::warn(&format!("{about} is in shadow mode and refuses nothing until {}", self.mode.end));
        } else {
            crate::log::warn(&format!("the shadow mode of {about} is over, and it refuses: remove it"));
        }
    }

    pub(crate) fn count(&self) {
        self.seen.would_refuse.fetch_add(1, Relaxed);
    }

    pub(crate) fn would_refuse(&self) -> u64 {
        self.seen.would_refuse.load(Relaxed)
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mode.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (day, days) in [
            ("1970-01-01", Some(0)),
            ("1970-12-31", Some(364)),
            ("1972-02-29", Some(789)),
            ("1972-03-01", Some(790)),
            ("2000-02-29", Some(11_016)),
            ("2000-03-01", Some(11_017)),
            ("2027-01-15", Some(20_833)),
            ("2100-03-01", Some(47_541)),
            ("2100-02-29", None),
            ("2026-02-29", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-01-00", None),
            ("2026-04-31", None),
            ("1969-12-31", None),
            ("2026-1-1", None),
            ("2026-01-01T00:00:00Z", None),
            ("2026-01-01-01", None),
            ("+026-01-01", None),
            ("", None),
        ] {
            assert_eq!(days_since_epoch(day), days, "{day}");
        }
    }

    /// A request from before midnight may be judged after one from behind it, and a clock may be set back.
    #[test]
    fn what_is_over_stays_over() {
        let at = |day: u64| Instants::new(day * DAY * 1_000_000_000, 0);
        let shadow = Shadow::new(ShadowMode::until_as_of("2027-01-16", at(20_833)).unwrap());
        assert!(shadow.is_on(at(20_833), || "rule".to_owned()));
        assert!(!shadow.clone().is_on(at(20_834), || "rule".to_owned()));
        assert!(!shadow.is_on(at(20_833), || "rule".to_owned()));
    }

    #[test]
    fn an_end_is_at_most_thirty_days_ahead() {
        let now = Instants::new(20_833 * DAY * 1_000_000_000, 0);
        let last = ShadowMode::until_as_of("2027-02-14", now).unwrap();
        assert!(last.is_on(now));
        assert!(ShadowMode::until_as_of("2027-02-15", now).is_err());
        let over = ShadowMode::until_as_of("2027-01-15", now).unwrap();
        assert!(!over.is_on(now), "the day itself is enforced");
    }
}
