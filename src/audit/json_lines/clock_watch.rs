//! Whether the clock was set ahead: files go by their age, and nobody may remove the trail with one step of it.

use std::time::Duration;

use crate::{clock::Instants, log};

/// So much the two clocks may differ.
const STEP: Duration = Duration::from_secs(60 * 60);
/// How long files do not go by their age then.
const WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// A trail without a line for so long may be one that was found by a clock that was set ahead while nothing ran.
const SILENCE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Compares the wall clock with the monotonic one.
#[derive(Debug)]
pub(super) struct ClockWatch {
    /// When the two were seen to go together last.
    since: Instants,
    /// From when on, by the monotonic clock, files go by their age.
    ages_count_from: u64,
}

impl ClockWatch {
    pub(super) const fn new(now: Instants) -> Self {
        Self { since: now, ages_count_from: 0 }
    }

    /// Takes the last line that is there for what the clock said before this process: it was written at this time since the epoch.
    pub(super) fn continuing(mut self, last_line: Duration) -> Self {
        let now = self.since;
        if Duration::from_nanos(now.unix_nanos()).saturating_sub(last_line) > SILENCE {
            log::warn("the last audit record is older than a week: for a day no audit file is removed for its age");
            self.wait(now);
        }
        self
    }

    /// To be called with each reading: a step is seen whatever else was done with the file meanwhile.
    pub(super) fn look(&mut self, now: Instants) {
        let expected = self.since.later(now.since(self.since)).unix_nanos();
        let ahead = Duration::from_nanos(now.unix_nanos().saturating_sub(expected));
        let behind = Duration::from_nanos(expected.saturating_sub(now.unix_nanos()));
        if ahead > STEP {
            log::warn("the clock was set ahead: for a day no audit file is removed for its age");
            self.wait(now);
        }
        if ahead > STEP || behind > STEP {
            self.since = now;
        }
    }

    /// Whether files go by their age.
    pub(super) const fn ages_count(&self, now: Instants) -> bool {
        now.monotonic_nanos() >= self.ages_count_from
    }

    fn wait(&mut self, now: Instants) {
        self.ages_count_from = now.later(WAIT).monotonic_nanos();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1_000_000_000;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn ages_wait_for_a_day_after_each_step_ahead() {
        let today = 20_000 * DAY;
        for (name, steps, counts) in [
            ("nothing", &[(0, 0), (40 * DAY, 40 * DAY)][..], true),
            ("a little ahead", &[(HOUR, 1)], true),
            ("a year ahead", &[(365 * DAY, 1)], false),
            ("a year ahead, and a day", &[(365 * DAY, 1), (366 * DAY, DAY + 1)], true),
            ("again and again a little", &[(HOUR, 1), (2 * HOUR, 2)], false),
            ("ahead once more", &[(365 * DAY, 1), (DAY, DAY), (366 * DAY, DAY + 1), (366 * DAY, DAY + 2)], false),
            ("right again", &[(365 * DAY, 1), (DAY, DAY), (2 * DAY, 2 * DAY)], true),
        ] {
            let mut watch = ClockWatch::new(Instants::new(today, 5));
            let at = |(told, passed): (u64, u64)| Instants::new(today + told, 5 + passed);
            steps.iter().for_each(|step| watch.look(at(*step)));
            assert_eq!(watch.ages_count(at(*steps.last().unwrap())), counts, "{name}");
        }
    }
}
