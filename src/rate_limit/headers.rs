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

    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    /// The tightest quota: `"name";r=50;t=30`. One allocation, no formatting.
    ///
    /// `r` is rounded down. `t` is rounded up: after a grant, the seconds until the quota is whole; after a refusal, those
    /// of `Retry-After`, and none where waiting does not help.
    pub(super) fn limit(&self, taken: &Taken) -> Option<HeaderValue> {
        let start = self.starts.get(self.index(taken))?;
        let (mut remaining, mut seconds) = (itoa::Buffer::new(), itoa::Buffer::new());
        let remaining = remaining.format(taken.remaining()).as_bytes();
        let reset = taken.reset_nanos().map(seconds_up).or_else(|| retry_after(taken));
        let (time, seconds): (&[u8], &[u8]) = match reset {
            Some(reset) => (b";t=", seconds.format(reset).as_bytes()),
            None => (b"", b""),
        };
        // Concatenated at once, into exactly the room it takes: then no byte is moved again.
        HeaderValue::try_from([start, remaining, time, seconds].concat()).ok()
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
            assert_eq!(fields(quotas).policy(), field);
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

    #[test]
    fn the_longest_field_fits() {
        let name = "\"".repeat(MAX_POLICY_NAME_LEN);
        let longest = fields([Quota::per_hour(1).named(name)]);
        let value = longest.limit(&Taken::granted(0, u32::MAX, u64::MAX)).unwrap();
        assert!(value.to_str().unwrap().ends_with("\";r=4294967295;t=18446744074"));
    }
}
