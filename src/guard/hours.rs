use std::fmt;

use crate::error::ConfigError;

/// Hours of days of the week, at a fixed offset from UTC. It knows no daylight saving time: where that matters, ask with
/// [`predicate`](crate::guard::predicate) and a time zone database.
///
/// ```
/// use portcullis::guard::{Hours, Weekday, during, require};
///
/// let office = Hours::between("08:00", "18:00")?.on([Weekday::Monday, Weekday::Friday])?.at_offset("+01:00")?;
/// assert_eq!(office.to_string(), "hours 08:00-18:00 Mon Fri +01:00");
/// let guard = require(during(office));
/// # let _ = guard;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes of the day.
    from: u32,
    until: u32,
    /// A bit for each day, Monday first.
    days: u8,
    /// Minutes east of UTC.
    offset: i32,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: a week has seven days")]
#[expect(missing_docs, reason = "days explain themselves")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

const EVERY_DAY: u8 = 0b111_1111;
const DAY: u64 = 24 * 60;
const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Hours {
    /// From a time of the day, inclusive, to another, exclusive, written `HH:MM`; `24:00` is the end of a day. If the second
    /// is the earlier one, the hours reach over midnight and count to the day on which they begin. Every day, in UTC.
    ///
    /// # Errors
    /// If one is no time of the day, or both are the same.
    pub fn between(from: &str, until: &str) -> Result<Self, ConfigError> {
        let (start, end) = (minutes("hours", from)?, minutes("hours", until)?);
        if start == end || start == 24 * 60 {
            return Err(ConfigError::new(
                "hours",
                format!("{from}-{until}"),
                "must begin at one time and end at another",
            ));
        }
        Ok(Self { from: start, until: end, days: EVERY_DAY, offset: 0 })
    }

    /// On these days only.
    ///
    /// # Errors
    /// If there is none.
    pub fn on(mut self, days: impl IntoIterator<Item = Weekday>) -> Result<Self, ConfigError> {
        self.days = days.into_iter().fold(0, |days, day| days | 1 << day as u8);
        if self.days == 0 { Err(ConfigError::new("hours", "[]", "must name at least one day")) } else { Ok(self) }
    }

    /// At an offset from UTC, written `+HH:MM` or `-HH:MM`, at most 14 hours.
    ///
    /// # Errors
    /// If it is not of that form.
    pub fn at_offset(mut self, offset: &str) -> Result<Self, ConfigError> {
        let (sign, text) = match (offset.strip_prefix('+'), offset.strip_prefix('-')) {
            (Some(east), _) => (1, east),
            (None, Some(west)) => (-1, west),
            (None, None) => {
                return Err(ConfigError::new("hours", format!("{offset:?}"), "must be an offset like +01:00"));
            }
        };
        let east = minutes("hours", text)?;
        if east > 14 * 60 {
            return Err(ConfigError::new("hours", offset, "is further from UTC than 14 hours"));
        }
        self.offset = sign * i32::try_from(east).unwrap_or_default();
        Ok(self)
    }

    /// Whether a time, in seconds since the Unix epoch, is within them.
    pub(super) fn has(&self, unix_seconds: u64) -> bool {
        // A week more, so that an offset to the west never leads below zero.
        let minute = (unix_seconds / 60).saturating_add(7 * DAY).saturating_add_signed(i64::from(self.offset));
        // 1970-01-01 was a Thursday.
        let (day, minute) = ((minute / DAY).saturating_add(3) % 7, u32::try_from(minute % DAY).unwrap_or_default());
        let on = |day: u64| self.days & (1 << (day % 7)) != 0;
        if self.from < self.until {
            on(day) && (self.from..self.until).contains(&minute)
        } else {
            (on(day) && minute >= self.from) || (on(day.saturating_add(6)) && minute < self.until)
        }
    }
}

/// The minutes of a time `HH:MM`.
fn minutes(setting: &str, text: &str) -> Result<u32, ConfigError> {
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hour, minute) = text.split_once(':').unwrap_or_default();
    match (number(hour), number(minute)) {
        (Some(hour @ 0..=23), Some(minute @ 0..=59)) => Ok(hour * 60 + minute),
        (Some(24), Some(0)) => Ok(24 * 60),
        _ => Err(ConfigError::new(setting, format!("{text:?}"), "must be a time of the day like 08:00")),
    }
}

impl fmt::Display for Hours {
    /// As records show it: `hours 08:00-18:00 Mon Fri +01:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until, days, offset } = self;
        write!(f, "hours {:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)?;
        if *days != EVERY_DAY {
            for (_, name) in (0..).zip(NAMES).filter(|(day, _)| days & (1 << day) != 0) {
                write!(f, " {name}")?;
            }
        }
        if *offset != 0 {
            let sign = if *offset < 0 { '-' } else { '+' };
            write!(f, " {sign}{:02}:{:02}", offset.unsigned_abs() / 60, offset.unsigned_abs() % 60)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2027-01-15 00:00 UTC, a Friday.
    const FRIDAY: u64 = 1_799_971_200;

    #[test]
    fn hours_of_days() {
        let office = Hours::between("08:00", "18:00").unwrap();
        let night = Hours::between("22:00", "06:00").unwrap().on([Weekday::Friday]).unwrap();
        let east = office.at_offset("+05:30").unwrap().on([Weekday::Saturday]).unwrap();
        let west = office.at_offset("-10:00").unwrap();
        let all_day = Hours::between("00:00", "24:00").unwrap();
        for (name, hours, day, time, expected) in [
            ("before", office, 0, "07:59", false),
            ("at once", office, 0, "08:00", true),
            ("to the end", office, 0, "17:59", true),
            ("after", office, 0, "18:00", false),
            ("on Friday night", night, 0, "22:00", true),
            ("on Friday morning", night, 0, "05:59", false),
            ("on Saturday morning, which is Friday's", night, 1, "05:59", true),
            ("on Saturday night", night, 1, "22:00", false),
            ("Saturday in the east", east, 1, "02:30", true),
            ("still Friday there", east, 0, "10:00", false),
            ("too late there", east, 1, "12:30", false),
            ("the west", west, 0, "18:00", true),
            ("the west, the next day here", west, 0, "03:59", true),
            ("too early in the west", west, 0, "17:59", false),
            ("midnight", all_day, 0, "00:00", true),
            ("the last minute", all_day, 0, "23:59", true),
        ] {
            let at = FRIDAY + day * 86_400 + u64::from(minutes("", time).unwrap()) * 60;
            assert_eq!(hours.has(at), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["8:00", "08:60", "24:01", "25:00", "0800", "", ":", "+8:00", "08:00:00", "٠٨:٠٠"] {
            assert!(Hours::between(bad, "18:00").is_err() && Hours::between("07:00", bad).is_err(), "{bad}");
        }
        let office = Hours::between("08:00", "18:00").unwrap();
        assert!(Hours::between("08:00", "08:00").is_err() && Hours::between("24:00", "08:00").is_err());
        assert!(office.on([]).is_err());
        for bad in ["01:00", "+1", "+14:01", "Z", "-", "+-1:00"] {
            assert!(office.at_offset(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Hours and the hours from their end to their beginning are never both and never neither.
        #[test]
        fn day_and_night(from in 0_u32..1440, until in 0_u32..1440, at in 0_u64..4_000_000_000, offset in -840_i32..=840) {
            prop_assume!(from != until);
            let day = Hours { from, until, days: EVERY_DAY, offset };
            let night = Hours { from: until, until: from, ..day };
            prop_assert_ne!(day.has(at), night.has(at));
        }
    }
}
