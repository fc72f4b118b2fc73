//! The `RateLimit` and `RateLimit-Policy` fields (draft-ietf-httpapi-ratelimit-headers-10).

use std::io::{Cursor, Write};

use http::{HeaderName, HeaderValue};

use crate::{
    error::ConfigError,
    rate_limit::{MAX_POLICY_NAME_LEN, Quotas, Taken},
};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const NANOS: u64 = 1_000_000_000;
/// A name of escaped characters, its quotes, `;r=`, ten digits, `;t=` and twenty digits.
const LONGEST: usize = 2 * MAX_POLICY_NAME_LEN + 2 + 3 + 10 + 3 + 20;

/// What is the same in every response of a limiter.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    policy: HeaderValue,
    /// `"name";r=` for each quota.
    starts: Box<[Box<[u8]>]>,
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
        Ok(Self { policy, starts })
    }

    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    /// The tightest quota: `"name";r=50;t=30`. One allocation, no formatting.
    ///
    /// `r` is rounded down. `t` is rounded up: after a grant, the seconds until the quota is whole; after a refusal, those
    /// of `Retry-After`, and none where waiting does not help.
    pub(super) fn limit(&self, taken: &Taken) -> Option<HeaderValue> {
        let mut field = Cursor::new([0; LONGEST]);
        field.write_all(self.starts.get(taken.charge())?).ok()?;
        write_number(&mut field, taken.remaining().into())?;
        if let Some(seconds) = taken.reset_nanos().map(seconds_up).or_else(|| retry_after(taken)) {
            field.write_all(b";t=").ok()?;
            write_number(&mut field, seconds)?;
        }
        let end = usize::try_from(field.position()).ok()?;
        HeaderValue::from_bytes(field.get_ref().get(..end)?).ok()
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
fn string(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn write_number(field: &mut impl Write, mut number: u64) -> Option<()> {
    let mut digits = [0; 20];
    let mut used = 0_usize;
    for digit in digits.iter_mut().rev() {
        *digit = b'0'.saturating_add(u8::try_from(number % 10).unwrap_or(0));
        used = used.saturating_add(1);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    field.write_all(digits.get(digits.len().saturating_sub(used)..)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::Quota;

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
            (Taken::granted(7, 1, 1), None, None),
        ] {
            assert_eq!(two.limit(&taken).as_ref().map(|value| value.to_str().unwrap()), field, "{taken:?}");
            assert_eq!(retry_after(&taken), wait, "{taken:?}");
        }
    }

    #[test]
    fn the_longest_field_fits() {
        let name = "\"".repeat(MAX_POLICY_NAME_LEN);
        let longest = fields([Quota::per_hour(1).named(name)]);
        let value = longest.limit(&Taken::granted(0, u32::MAX, u64::MAX)).unwrap();
        assert!(value.to_str().unwrap().ends_with("\";r=4294967295;t=18446744074"));
    }
}
