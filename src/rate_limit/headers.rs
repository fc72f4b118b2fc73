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

    /// The name of the quota that the answer is about.
    pub(super) fn name(&self, taken: &Taken) -> Option<Arc<str>> {
        self.quota(taken).map(|quota| Arc::clone(&quota.name))
    }

    /// What a response tells of an answer: the fields, the older ones, or both.
    pub(super) fn told(
        &self,
        taken: Taken,
        lists: bool,
        x_fields: Option<XRateLimitReset>,
        at: Instants,
    ) -> Option<Told> {
        let quota = self.quota(&taken)?;
        Some(Told {
            policy: lists.then(|| self.policy.clone()),
            quoted: quota.quoted,
            taken,
            x_fields: x_fields.map(|reset| (reset, quota.count, at.unix_seconds())),
        })
    }
}

/// What one response tells. Of the limiter it shares only the text that it sends along.
#[derive(Debug)]
pub(super) struct Told {
    policy: Option<HeaderValue>,
    quoted: (usize, usize),
    taken: Taken,
    /// With the quota's count, and the time.
    x_fields: Option<(XRateLimitReset, u32, u64)>,
}

impl Told {
    /// `RateLimit-Policy` and `RateLimit`, once.
    pub(super) fn lists(&mut self) -> Option<Lists> {
        let policy = self.policy.take()?;
        Some(Lists { limit: self.limit(&policy)?, policy })
    }

    /// The tightest quota: `"name";r=50;t=30`. One allocation, no formatting.
    fn limit(&self, policy: &HeaderValue) -> Option<HeaderValue> {
        let mut line = Line::default();
        self.add_to(&mut line, policy)?;
        line.value()
    }

    /// Adds the tightest quota to a line; nothing of it, if there is no room.
    ///
    /// `r` is rounded down. `t` is rounded up: after a grant, the seconds until the quota is whole; after a refusal, those
    /// of `Retry-After`, and none where waiting does not help.
    fn add_to(&self, line: &mut Line, policy: &HeaderValue) -> Option<()> {
        let name = policy.as_bytes().get(self.quoted.0..self.quoted.1)?;
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
        let (reset, limit, now) = self.x_fields?;
        let seconds = self.reset().map(|seconds| match reset {
            XRateLimitReset::Seconds => seconds,
            XRateLimitReset::UnixTime => now.saturating_add(1).saturating_add(seconds),
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
    const MAX_LINE: usize = 1024;
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

/// The lines on which several limiters tell of themselves.
#[cfg(feature = "stack")]
#[derive(Debug, Default)]
pub(super) struct Lines {
    policies: Option<HeaderValue>,
    limits: Line,
}

#[cfg(feature = "stack")]
impl Lines {
    /// Takes over the lists that a limiter tells; leaves them if there is no room.
    pub(super) fn take(&mut self, told: &mut Told) {
        let Some(policy) = &told.policy else { return };
        let used = self.policies.as_ref().map_or(0, HeaderValue::len);
        let fits = used.saturating_add(policy.len()).saturating_add(COMMA.len()) <= Line::ROOM;
        if !fits || told.add_to(&mut self.limits, policy).is_none() {
            return;
        }
        self.policies = match &self.policies {
            Some(line) => joined_again(line, policy),
            None => told.policy.take(),
        };
        told.policy = None;
    }

    pub(super) fn lists(&mut self) -> Option<Lists> {
        Some(Lists { policy: self.policies.take()?, limit: self.limits.value()? })
    }
}

/// As [`joined`]. It remembers the last line of each thread: the policies of a stack are the same in all of its responses.
#[cfg(feature = "stack")]
fn joined_again(line: &HeaderValue, value: &HeaderValue) -> Option<HeaderValue> {
    use std::cell::RefCell;

    thread_local!(static LAST: RefCell<Option<[HeaderValue; 3]>> = const { RefCell::new(None) });
    LAST.with_borrow_mut(|last| match last {
        Some([first, second, both]) if first == line && second == value => Some(both.clone()),
        _ => {
            let both = joined(line, value)?;
            *last = Some([line.clone(), value.clone(), both.clone()]);
            Some(both)
        }
    })
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

    fn fields(quotas: impl IntoIterator<Item = Quota>) -> Fields {
        Fields::of(&Quotas::new(quotas).unwrap()).unwrap()
    }

    fn told(fields: &Fields, taken: Taken) -> Told {
        fields.told(taken, true, None, Instants::new(0, 0)).unwrap()
    }

    fn limit(fields: &Fields, taken: Taken) -> Option<HeaderValue> {
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
            let told = two.told(taken, false, Some(reset), Instants::new(1_800_000_000_500_000_000, 0)).unwrap();
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
    fn limiters_share_lines_as_long_as_there_is_room() {
        let take = |lines: &mut Lines, fields: &Fields, taken: Taken| {
            let mut told = told(fields, taken);
            lines.take(&mut told);
            told.lists().is_none()
        };
        assert!(Lines::default().lists().is_none());
        let mut lines = Lines::default();
        assert!(take(&mut lines, &fields([Quota::per_minute(600)]), Taken::granted(0, 50, 30_000_000_000)));
        assert!(take(&mut lines, &fields([Quota::per_second(9).named("client")]), Taken::granted(0, 8, 1)));
        let long = fields(["a", "b", "c"].map(|name| Quota::per_day(9).named(name.repeat(MAX_POLICY_NAME_LEN))));
        assert!(!take(&mut lines, &long, Taken::granted(0, 8, 1)), "it does not fit");
        let Lists { policy, limit } = lines.lists().unwrap();
        assert_eq!(policy, r#""default";q=600;w=60, "client";q=9;w=1"#);
        assert_eq!(limit, r#""default";r=50;t=30, "client";r=8;t=1"#, "neither a part of what does not fit is told");
    }

    #[cfg(feature = "stack")]
    #[test]
    fn a_line_that_is_remembered_is_that_of_the_same_policies() {
        let value = |text| HeaderValue::from_static(text);
        for (first, second, both) in [("a", "b", "a, b"), ("a", "b", "a, b"), ("a", "c", "a, c"), ("b", "c", "b, c")] {
            assert_eq!(joined_again(&value(first), &value(second)), Some(value(both)));
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
