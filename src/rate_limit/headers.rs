//! The `RateLimit` and `RateLimit-Policy` fields (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

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

/// What is the same in every response of a limiter.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    policy: HeaderValue,
    /// `"name";r=` for each quota.
    starts: Box<[Box<[u8]>]>,
    /// Each quota's name and count.
    quotas: Box<[(Arc<str>, u32)]>,
}

impl Fields {
    pub(super) fn of(quotas: &Quotas) -> Result<Self, ConfigError> {
        let policies: Vec<String> = quotas
            .iter()
            .map(|quota| format!("{};q={};w={}", string(quota.name()), quota.count(), quota.period().as_secs()))
            .collect();
        let policy = policies.join(", ");
        let policy = HeaderValue::try_from(&policy)
            .map_err(|error| ConfigError::new("policy name", policy, "is not a field value").caused_by(error))?;
        let starts = quotas.iter().map(|quota| format!("{};r=", string(quota.name())).into_bytes().into()).collect();
        let quotas = quotas.iter().map(|quota| (quota.name().into(), quota.count())).collect();
        Ok(Self { policy, starts, quotas })
    }

    /// The index of a charge's quota. Behind the charges of the quotas come those of the wide network.
    fn index(&self, taken: &Taken) -> usize {
        taken.charge().checked_rem(self.quotas.len()).unwrap_or(0)
    }

    /// The name of the quota that the answer is about.
    pub(super) fn name(&self, taken: &Taken) -> Option<Arc<str>> {
        self.quotas.get(self.index(taken)).map(|(name, _)| Arc::clone(name))
    }

    /// The older fields, which have no standard: limit, remaining, reset.
    pub(super) fn x_fields(
        &self,
        taken: &Taken,
        reset: XRateLimitReset,
        at: Instants,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let limit = self.quotas.get(self.index(taken)).map(|(_, count)| (X_LIMIT, u64::from(*count)));
        let seconds = taken.reset_nanos().map(seconds_up).or_else(|| retry_after(taken)).map(|seconds| match reset {
            XRateLimitReset::Seconds => seconds,
            XRateLimitReset::UnixTime => at.unix_seconds().saturating_add(1).saturating_add(seconds),
        });
        let reset = seconds.map(|seconds| (X_RESET, seconds));
        let fields = [limit, Some((X_REMAINING, u64::from(taken.remaining()))), reset];
        fields.into_iter().flatten().map(|(name, number)| (name, number.into()))
    }

    pub(super) const fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// The tightest quota: `"name";r=50;t=30`. One allocation, no formatting.
    ///
    /// `r` is rounded down. `t` is rounded up: after a grant, the seconds until the quota is whole; after a refusal, those
    /// of `Retry-After`, and none where waiting does not help.
    pub(super) fn limit(&self, taken: &Taken) -> Option<HeaderValue> {
        // Concatenated at once, into exactly the room it takes: then no byte is moved again.
        self.with_limit(taken, |parts| HeaderValue::try_from(parts.concat()).ok())
    }

    /// The same in parts.
    fn with_limit<T>(&self, taken: &Taken, see: impl FnOnce([&[u8]; 4]) -> Option<T>) -> Option<T> {
        let start = self.starts.get(self.index(taken))?;
        let (mut remaining, mut seconds) = (itoa::Buffer::new(), itoa::Buffer::new());
        let remaining = remaining.format(taken.remaining()).as_bytes();
        let reset = taken.reset_nanos().map(seconds_up).or_else(|| retry_after(taken));
        let (time, seconds): (&[u8], &[u8]) = match reset {
            Some(reset) => (b";t=", seconds.format(reset).as_bytes()),
            None => (b"", b""),
        };
        see([start, remaining, time, seconds])
    }
}

/// The lines on which several limiters tell of themselves.
#[cfg(feature = "stack")]
#[derive(Debug, Default)]
pub(super) struct Lines {
    policies: Line,
    limits: Line,
}

#[cfg(feature = "stack")]
impl Lines {
    /// Adds what a limiter tells; false if there is no room for it.
    pub(super) fn add(&mut self, fields: &Fields, taken: &Taken) -> bool {
        let policy = [fields.policy.as_bytes()];
        self.policies.has_room_for(&policy)
            && fields.with_limit(taken, |parts| self.limits.add(&parts)).is_some()
            && self.policies.add(&policy).is_some()
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let fields = [(RATELIMIT_POLICY, &self.policies), (RATELIMIT, &self.limits)];
        fields.into_iter().filter_map(|(name, line)| Some((name, line.value()?)))
    }
}

/// Elements of a list, in a place of fixed size: what is copied from there takes exactly the room that it needs.
#[cfg(feature = "stack")]
#[derive(Debug)]
struct Line {
    text: [u8; Self::ROOM],
    len: usize,
}

#[cfg(feature = "stack")]
impl Line {
    /// Enough for four quotas with names of usual length.
    const ROOM: usize = 192;
    const COMMA: &[u8] = b", ";

    fn has_room_for(&self, element: &[&[u8]]) -> bool {
        let len = element.iter().map(|part| part.len()).fold(self.len, usize::saturating_add);
        len.saturating_add(Self::COMMA.len()) <= Self::ROOM
    }

    fn add(&mut self, element: &[&[u8]]) -> Option<()> {
        if !self.has_room_for(element) {
            return None;
        }
        let comma = (self.len > 0).then_some(Self::COMMA);
        for part in comma.iter().chain(element) {
            let end = self.len.checked_add(part.len())?;
            self.text.get_mut(self.len..end)?.copy_from_slice(part);
            self.len = end;
        }
        Some(())
    }

    fn value(&self) -> Option<HeaderValue> {
        let text = self.text.get(..self.len).filter(|text| !text.is_empty())?;
        HeaderValue::from_bytes(text).ok()
    }
}

#[cfg(feature = "stack")]
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

    #[test]
    fn the_policy_lists_every_quota() {
        let burst = || Quota::per_minute(100).named("burst");
        for (quotas, field) in [
            (vec![Quota::per_minute(600)], r#""default";q=600;w=60"#),
            (vec![Quota::per_minute(600).burst(60)], r#""default";q=600;w=60"#),
            (vec![burst(), Quota::per_day(1000).named("daily")], r#""burst";q=100;w=60, "daily";q=1000;w=86400"#),
            (vec![Quota::per_hour(1).named(r#"a "b" \c"#)], r#""a \"b\" \\c";q=1;w=3600"#),
        ] {
            assert_eq!(*fields(quotas).policy(), field);
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
            assert_eq!(two.limit(&taken).as_ref().map(|value| value.to_str().unwrap()), field, "{taken:?}");
            assert_eq!(retry_after(&taken), wait, "{taken:?}");
        }
    }

    #[test]
    fn the_older_fields_say_what_reset_is() {
        let two = fields([Quota::per_second(5), Quota::per_day(9).named("daily")]);
        let told = |taken, reset| -> Vec<String> {
            let fields = two.x_fields(&taken, reset, Instants::new(1_800_000_000_500_000_000, 0));
            fields.map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect()
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
        let mut lines = Lines::default();
        let text = |lines: &Lines| -> Vec<String> {
            lines.fields().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
        };
        assert!(text(&lines).is_empty());
        assert!(lines.add(&fields([Quota::per_minute(600)]), &Taken::granted(0, 50, 30_000_000_000)));
        assert!(lines.add(&fields([Quota::per_second(9).named("client")]), &Taken::granted(0, 8, 1)));
        let both = [
            r#"ratelimit-policy: "default";q=600;w=60, "client";q=9;w=1"#,
            r#"ratelimit: "default";r=50;t=30, "client";r=8;t=1"#,
        ];
        assert_eq!(text(&lines), both);
        let long = fields(["a", "b", "c"].map(|name| Quota::per_day(9).named(name.repeat(MAX_POLICY_NAME_LEN))));
        assert!(!lines.add(&long, &Taken::granted(0, 8, 1)), "it does not fit");
        assert_eq!(text(&lines), both, "neither a part of it is told");
    }

    #[test]
    fn the_longest_field_fits() {
        let name = "\"".repeat(MAX_POLICY_NAME_LEN);
        let longest = fields([Quota::per_hour(1).named(name)]);
        let value = longest.limit(&Taken::granted(0, u32::MAX, u64::MAX)).unwrap();
        assert!(value.to_str().unwrap().ends_with("\";r=4294967295;t=18446744074"));
    }
}
