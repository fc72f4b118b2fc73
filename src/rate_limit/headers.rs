//! The `RateLimit` and `RateLimit-Policy` fields (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    clock::Instants,
    error::ConfigError,
    rate_limit::{Quotas, Taken},
};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What `X-RateLimit-Reset` holds. There is no standard for it: some clients read seconds from now, others a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum XRateLimitReset {
    /// Seconds from now, rounded up, as Envoy sends it.
    Seconds,
    /// Seconds since the Unix epoch, as GitHub sends it.
    UnixTime,
}

const NANOS: u64 = 1_000_000_000;
/// The longest line that several limiters share, in bytes.
const MAX_LINE: usize = 1024;
/// Between the elements of a list.
const COMMA: &str = ", ";

/// What is the same in every response of a limiter.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    policy: HeaderValue,
    quotas: Box<[Named]>,
}

/// What responses tell of a quota.
#[derive(Clone, Debug)]
struct Named {
    name: Arc<str>,
    count: u32,
    /// Where `"name"` stands in the policy.
    quoted: (usize, usize),
}

impl Fields {
    pub(super) fn of(quotas: &Quotas) -> Result<Self, ConfigError> {
        let (mut policies, mut named, mut start) = (Vec::new(), Vec::new(), 0_usize);
        for quota in &**quotas {
            let name = string(quota.name());
            let policy = format!("{name};q={};w={}", quota.count(), quota.period().as_secs());
            let quoted = (start, start.saturating_add(name.len()));
            start = start.saturating_add(policy.len()).saturating_add(COMMA.len());
            named.push(Named { name: quota.name().into(), count: quota.count(), quoted });
            policies.push(policy);
        }
        let policy = policies.join(COMMA);
        let policy = HeaderValue::try_from(&policy)
            .map_err(|error| ConfigError::new("policy name", policy, "is not a field value").caused_by(error))?;
        Ok(Self { policy, quotas: named.into() })
    }

    /// The quota that the answer is about. Behind the charges of the quotas come those of the wide network.
    fn quota(&self, taken: &Taken) -> Option<&Named> {
        let charge = taken.charge();
        self.quotas.get(charge).or_else(|| self.quotas.get(charge.checked_rem(self.quotas.len())?))
    }

    /// Whether another has the same policies; mostly it is this one.
    #[cfg(feature = "stack")]
    fn reads_as(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || self.policy == other.policy
    }

    /// The name of the quota that the answer is about.
    pub(super) fn name(&self, taken: &Taken) -> Option<Arc<str>> {
        self.quota(taken).map(|quota| Arc::clone(&quota.name))
    }
}

/// What one response tells of an answer. It is moved about for each request, and so kept small.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) fields: Arc<Fields>,
    pub(super) taken: Taken,
    /// Whether `RateLimit-Policy` and `RateLimit` are still to be told.
    pub(super) lists: bool,
    pub(super) x_fields: Option<XRateLimitReset>,
    pub(super) at: Instants,
}

impl Told {
    /// `RateLimit-Policy` and `RateLimit`, once. One allocation, no formatting.
    pub(super) fn lists(&mut self) -> Option<Lists> {
        if !std::mem::take(&mut self.lists) {
            return None;
        }
        let mut line = Line::default();
        self.add_to(&mut line)?;
        Some(Lists { policy: self.fields.policy.clone(), limit: line.value()? })
    }

    /// Adds the tightest quota to a line, `"name";r=50;t=30`; nothing of it, if there is no room.
    ///
    /// `r` is rounded down. `t` is rounded up: after a grant, the seconds until the quota is whole; after a refusal, those
    /// of `Retry-After`, and none where waiting does not help.
    fn add_to(&self, line: &mut Line) -> Option<()> {
        let (start, end) = self.fields.quota(&self.taken)?.quoted;
        let name = self.fields.policy.as_bytes().get(start..end)?;
        let (mut remaining, mut seconds) = (itoa::Buffer::new(), itoa::Buffer::new());
        let remaining = remaining.format(self.taken.remaining()).as_bytes();
        let (time, seconds): (&[u8], &[u8]) = match self.reset() {
            Some(reset) => (b";t=", seconds.format(reset).as_bytes()),
            None => (b"", b""),
        };
        line.add([name, b";r=", remaining, time, seconds])
    }

    fn reset(&self) -> Option<u64> {
        self.taken.reset_nanos().map(seconds_up).or_else(|| retry_after(&self.taken))
    }

    /// The older fields, which have no standard: limit, remaining, reset.
    pub(super) fn x_fields(&self) -> Option<impl Iterator<Item = (HeaderName, HeaderValue)>> {
        let (reset, limit) = (self.x_fields?, self.fields.quota(&self.taken)?.count);
        let seconds = self.reset().map(|seconds| match reset {
            XRateLimitReset::Seconds => seconds,
            XRateLimitReset::UnixTime => self.at.unix_seconds().saturating_add(1).saturating_add(seconds),
        });
        let remaining = (X_REMAINING, u64::from(self.taken.remaining()));
        let fields = [Some((X_LIMIT, u64::from(limit))), Some(remaining), seconds.map(|seconds| (X_RESET, seconds))];
        Some(fields.into_iter().flatten().map(|(name, number)| (name, number.into())))
    }
}

/// The fields that are lists: a limiter further inside may have begun them.
#[derive(Debug)]
pub(super) struct Lists {
    /// `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
    /// `RateLimit`.
    pub(super) limit: HeaderValue,
}

impl Lists {
    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        // A name is compared sooner than it is hashed, which goes byte by byte; there are few names in a response.
        if headers.keys().any(|name| *name == RATELIMIT_POLICY || *name == RATELIMIT) {
            add_to_list(headers, RATELIMIT_POLICY, self.policy);
            add_to_list(headers, RATELIMIT, self.limit);
        } else {
            headers.append(RATELIMIT_POLICY, self.policy);
            headers.append(RATELIMIT, self.limit);
        }
    }
}

/// Adds to a list that a limiter further inside began, on the same line: two lines would say the same. What has no list, and
/// what is too long, gets a line of its own.
fn add_to_list(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    if let Some(line) = headers.get_mut(&name)
        && line.len().saturating_add(value.len()) < MAX_LINE
        && let Some(joined) = joined(line, &value)
    {
        *line = joined;
        return;
    }
    headers.append(name, value);
}

/// A list and what goes on on its line.
fn joined(line: &HeaderValue, value: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::try_from([line.as_bytes(), COMMA.as_bytes(), value.as_bytes()].concat()).ok()
}

/// The lines that two limiters share, as most stacks have them.
#[cfg(feature = "stack")]
#[derive(Debug, Default)]
pub(super) struct Lines {
    of: [Option<Arc<Fields>>; 2],
    limits: Line,
}

#[cfg(feature = "stack")]
impl Lines {
    /// Takes over the lists that a limiter tells, if there is room for them. What is left is still to be told.
    pub(super) fn take(&mut self, told: Told) -> Option<Told> {
        let (used, place) = match &mut self.of {
            [place @ None, _] => (0, place),
            [Some(first), place @ None] => (first.policy.len().saturating_add(COMMA.len()), place),
            [Some(_), Some(_)] => return Some(told),
        };
        let fits = used.saturating_add(told.fields.policy.len()) < MAX_LINE;
        if !told.lists || !fits || told.add_to(&mut self.limits).is_none() {
            return Some(told);
        }
        if told.x_fields.is_none() {
            *place = Some(told.fields);
            return None;
        }
        *place = Some(Arc::clone(&told.fields));
        Some(Told { lists: false, ..told })
    }

    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        let ([Some(first), second], Some(limit)) = (&self.of, self.limits.value()) else { return };
        match second {
            None => Lists { policy: first.policy.clone(), limit }.add_to(headers),
            Some(second) => add_joined(first, second, limit, headers),
        }
    }
}

/// Adds the policies of two limiters. Each thread remembers the last line that it made: it is the same in all responses of a
/// stack.
#[cfg(feature = "stack")]
fn add_joined(first: &Arc<Fields>, second: &Arc<Fields>, limit: HeaderValue, headers: &mut HeaderMap) {
    use std::cell::RefCell;

    type Joined = (Arc<Fields>, Arc<Fields>, HeaderValue);

    thread_local!(static LAST: RefCell<Option<Joined>> = const { RefCell::new(None) });
    LAST.with_borrow_mut(|last| {
        if !last.as_ref().is_some_and(|(one, other, _)| one.reads_as(first) && other.reads_as(second)) {
            let both = joined(&first.policy, &second.policy);
            *last = both.map(|both| (Arc::clone(first), Arc::clone(second), both));
        }
        if let Some((_, _, both)) = last {
            Lists { policy: both.clone(), limit }.add_to(headers);
        }
    });
}

/// Elements of a list, in a place of fixed size: what is copied from there takes exactly the room that it needs.
#[derive(Debug)]
struct Line {
    text: [u8; Self::ROOM],
    len: usize,
}

impl Line {
    /// Enough for four quotas with names of usual length, and for one with the longest.
    const ROOM: usize = 192;

    /// Adds an element, which is given in parts.
    fn add(&mut self, element: [&[u8]; 5]) -> Option<()> {
        let mut free = self.text.get_mut(self.len..)?;
        let room = free.len();
        if self.len > 0 {
            free = put(free, COMMA.as_bytes())?;
        }
        for part in element {
            free = put(free, part)?;
        }
        self.len = self.len.saturating_add(room.saturating_sub(free.len()));
        Some(())
    }

    fn value(&self) -> Option<HeaderValue> {
        let text = self.text.get(..self.len).filter(|text| !text.is_empty())?;
        HeaderValue::from_bytes(text).ok()
    }
}

/// What is left behind a text.
fn put<'a>(free: &'a mut [u8], text: &[u8]) -> Option<&'a mut [u8]> {
    let (to, free) = free.split_at_mut_checked(text.len())?;
    to.copy_from_slice(text);
    Some(free)
}

impl Default for Line {
    fn default() -> Self {
        Self { text: [0; Self::ROOM], len: 0 }
    }
}

/// The seconds of `Retry-After`: rounded up, at least one.
pub(super) fn retry_after(taken: &Taken) -> Option<u64> {
    taken.retry_after_nanos().map(|nanos| seconds_up(nanos).max(1))
}

const fn seconds_up(nanos: u64) -> u64 {
    nanos.div_ceil(NANOS)
}

/// An RFC 9651 String (§4.1.6).
pub(super) fn string(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{MAX_POLICY_NAME_LEN, Quota};

    fn fields(quotas: impl IntoIterator<Item = Quota>) -> Arc<Fields> {
        Fields::of(&Quotas::new(quotas).unwrap()).unwrap().into()
    }

    fn told(fields: &Arc<Fields>, taken: Taken) -> Told {
        Told { fields: Arc::clone(fields), taken, lists: true, x_fields: None, at: Instants::new(0, 0) }
    }

    fn limit(fields: &Arc<Fields>, taken: Taken) -> Option<HeaderValue> {
        told(fields, taken).lists().map(|lists| lists.limit)
    }

    #[test]
    fn the_policy_lists_every_quota() {
        let burst = || Quota::per_minute(100).named("burst");
        for (quotas, field) in [
            (vec![Quota::per_minute(600)], r#""default";q=600;w=60"#),
            (vec![Quota::per_minute(600).burst(60)], r#""default";q=600;w=60"#),
            (vec![burst(), Quota::per_day(1000).named("daily")], r#""burst";q=100;w=60, "daily";q=1000;w=86400"#),
            (vec![Quota::per_hour(1).named(r#"a "b" \c"#)], r#""a \"b\" \\c";q=1;w=3600"#),
        ] {
            assert_eq!(fields(quotas).policy, field);
        }
    }

    #[test]
    fn remaining_is_rounded_down_and_times_up() {
        let two = fields([Quota::per_second(5), Quota::per_day(9).named("daily")]);
        for (taken, field, wait) in [
            (Taken::granted(0, 50, 30_000_000_000), Some(r#""default";r=50;t=30"#), None),
            (Taken::granted(1, 0, 1), Some(r#""daily";r=0;t=1"#), None),
            (Taken::granted(0, u32::MAX, 1_000_000_001), Some(r#""default";r=4294967295;t=2"#), None),
            (Taken::refused(0, 1), Some(r#""default";r=0;t=1"#), Some(1)),
            (Taken::refused(0, 0), Some(r#""default";r=0;t=1"#), Some(1)),
            (Taken::refused(1, 5_000_000_001), Some(r#""daily";r=0;t=6"#), Some(6)),
            (Taken::refused(1, u64::MAX), Some(r#""daily";r=0;t=18446744074"#), Some(18_446_744_074)),
            (Taken::too_costly(1), Some(r#""daily";r=0"#), None),
            (Taken::granted(3, 1, 1), Some(r#""daily";r=1;t=1"#), None),
        ] {
            assert_eq!(limit(&two, taken).as_ref().map(|value| value.to_str().unwrap()), field, "{taken:?}");
            assert_eq!(retry_after(&taken), wait, "{taken:?}");
        }
    }

    #[test]
    fn the_older_fields_say_what_reset_is() {
        let two = fields([Quota::per_second(5), Quota::per_day(9).named("daily")]);
        let told = |taken, reset| -> Vec<String> {
            let at = Instants::new(1_800_000_000_500_000_000, 0);
            let told = Told { lists: false, x_fields: Some(reset), at, ..told(&two, taken) };
            told.x_fields().unwrap().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect()
        };
        assert_eq!(
            told(Taken::granted(1, 3, 30_000_000_001), XRateLimitReset::Seconds),
            ["x-ratelimit-limit=9", "x-ratelimit-remaining=3", "x-ratelimit-reset=31"]
        );
        assert_eq!(
            told(Taken::refused(0, 1), XRateLimitReset::UnixTime),
            ["x-ratelimit-limit=5", "x-ratelimit-remaining=0", "x-ratelimit-reset=1800000002"],
            "rounded up twice: never too early"
        );
        assert_eq!(
            told(Taken::too_costly(0), XRateLimitReset::Seconds),
            ["x-ratelimit-limit=5", "x-ratelimit-remaining=0"]
        );
    }

    #[cfg(feature = "stack")]
    #[test]
    fn two_limiters_share_lines_if_there_is_room() {
        let share = |limiters: &[&Arc<Fields>]| {
            let (mut lines, mut headers) = (Lines::default(), HeaderMap::new());
            let taken = limiters.iter().filter(|fields| lines.take(told(fields, Taken::granted(0, 8, 1))).is_none());
            let taken = taken.count();
            lines.add_to(&mut headers);
            let line = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (taken, line(RATELIMIT_POLICY), line(RATELIMIT))
        };
        let (default, client) = (fields([Quota::per_minute(600)]), fields([Quota::per_second(9).named("client")]));
        let policy = r#""default";q=600;w=60"#.to_owned();
        let both = (format!(r#"{policy}, "client";q=9;w=1"#), r#""default";r=8;t=1, "client";r=8;t=1"#.to_owned());
        assert_eq!(share(&[]), (0, None, None));
        assert_eq!(share(&[&default]), (1, Some(policy.clone()), Some(r#""default";r=8;t=1"#.to_owned())));
        assert_eq!(share(&[&default, &client]), (2, Some(both.0.clone()), Some(both.1.clone())));
        assert_eq!(share(&[&default, &client, &default]), (2, Some(both.0), Some(both.1)), "a third is left");
        let long = |quote: &str| fields([Quota::per_day(9).named(quote.repeat(MAX_POLICY_NAME_LEN))]);
        assert_eq!(share(&[&long("a"), &long("\"")]).0, 1, "the line of limits has no room for both");
        let many = fields((0..4).map(|n| Quota::per_day(9).named(format!("{n}").repeat(MAX_POLICY_NAME_LEN))));
        assert_eq!(share(&[&many, &client]).0, 2);
    }

    #[cfg(feature = "stack")]
    #[test]
    fn a_line_that_is_remembered_is_that_of_the_same_policies() {
        let [a, b, c] = ["a", "b", "c"].map(|name| fields([Quota::per_second(1).named(name)]));
        for (first, second) in [(&a, &b), (&a, &b), (&a, &c), (&b, &c)] {
            let mut headers = HeaderMap::new();
            add_joined(first, second, HeaderValue::from_static("limit"), &mut headers);
            assert_eq!(headers.get(RATELIMIT_POLICY), joined(&first.policy, &second.policy).as_ref());
        }
    }

    #[test]
    fn the_longest_field_fits() {
        let name = "\"".repeat(MAX_POLICY_NAME_LEN);
        let longest = fields([Quota::per_hour(1).named(name)]);
        let value = limit(&longest, Taken::granted(0, u32::MAX, u64::MAX)).unwrap();
        assert!(value.to_str().unwrap().ends_with("\";r=4294967295;t=18446744074"));
    }
}
