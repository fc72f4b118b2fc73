use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de::Visitor};

/// The largest NumericDate, the last second that has ten digits (in the year 2286). What is larger counts milliseconds,
/// and would make a token that never ends.
const MAX_DATE: u64 = 9_999_999_999;

/// A NumericDate (RFC 7519 §2): seconds since the Unix epoch, also with a fraction or an exponent.
pub(super) struct Date(pub(super) Duration);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DateVisitor;

        impl Visitor<'_> for DateVisitor {
            type Value = Date;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date")
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Date, E> {
                if seconds <= MAX_DATE {
                    Ok(Date(Duration::from_secs(seconds)))
                } else {
                    Err(E::custom("out of range"))
                }
            }

            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Date, E> {
                match Duration::try_from_secs_f64(seconds) {
                    Ok(date) if date <= Duration::from_secs(MAX_DATE) => Ok(Date(date)),
                    Ok(_) | Err(_) => Err(E::custom("out of range")),
                }
            }
        }

        deserializer.deserialize_f64(DateVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let date = |text: &str| serde_json::from_str::<Date>(text).map(|date| date.0).ok();
        assert_eq!(date("1700000000"), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("1.7e9"), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("1700000000.5"), Some(Duration::from_millis(1_700_000_000_500)));
        assert_eq!(date("0"), Some(Duration::ZERO));
        assert_eq!(date("9999999999"), Some(Duration::from_secs(MAX_DATE)));
        for text in [
            "-1",
            "-0.5",
            "1e10",
            "10000000000",
            "1700000000000",
            "1e308",
            "1e999",
            "18446744073709551616",
            "\"1700000000\"",
            "null",
            "true",
            "[1700000000]",
            "{}",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
