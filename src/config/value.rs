//! Values that have a form of their own.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A duration with its unit, as in `50ms`, `60s`, `10min`, `24h`, `365d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn read(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*millis)?))
}

/// A URL. What stands before an `@` or in a query may be secret, and is not shown.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(super) struct Url(pub(super) String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.0.contains('@') { None } else { self.0.split(['?', '#']).next() };
        fmt::Debug::fmt(shown.unwrap_or("a URL"), f)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text of number and unit, as in \"60s\": ms, s, min, h or d")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                read(text).map(Time).ok_or_else(|| {
                    E::custom(format!(
                        "the duration {text:?} must be number and unit, as in \"60s\": ms, s, min, h or d"
                    ))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|min|h|d)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for (text, millis) in
            [("0s", Some(0)), ("50ms", Some(50)), ("10 min", Some(600_000)), ("2d", Some(172_800_000))]
        {
            assert_eq!(read(text).map(|time| time.as_millis()), millis, "{text}");
        }
        for text in ["", "s", "60", "60 sec", "-1s", "1.5h", "60S", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
