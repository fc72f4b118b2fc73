use std::time::Duration;

use crate::jwt::json::Number;

/// The largest NumericDate, the last second that has ten digits (in the year 2286). What is larger counts milliseconds,
/// and would make a token that never ends.
const MAX_DATE: u64 = 9_999_999_999;

/// A NumericDate (RFC 7519 §2): seconds since the Unix epoch, also with a fraction or an exponent.
pub(super) fn of(number: &Number<'_>) -> Option<Duration> {
    let date = if number.is_digits {
        Duration::from_secs(number.text.parse().ok()?)
    } else {
        Duration::try_from_secs_f64(number.text.parse().ok()?).ok()?
    };
    (date <= Duration::from_secs(MAX_DATE)).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::{
        Refusal,
        json::{self, Members, Value},
    };

    struct Read(Option<Duration>);

    impl<'de> Members<'de> for Read {
        fn member(&mut self, _: &str, value: Value<'_, 'de>) -> Result<(), Refusal> {
            self.0 = Some(value.date(Refusal("not a date"))?);
            Ok(())
        }
    }

    #[test]
    fn dates() {
        let date = |text: &str| {
            let mut read = Read(None);
            json::read(&format!(r#"{{"exp":{text}}}"#), &mut read, Refusal("malformed")).ok().and(read.0)
        };
        assert_eq!(date("1700000000"), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("1.7e9"), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("1700000000.5"), Some(Duration::from_millis(1_700_000_000_500)));
        assert_eq!(date("1700000000.0"), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("1700000000E0"), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("1700000000 "), Some(Duration::from_secs(1_700_000_000)));
        assert_eq!(date("999999999"), Some(Duration::from_secs(999_999_999)));
        assert_eq!(date("0"), Some(Duration::ZERO));
        assert_eq!(date("-0"), Some(Duration::ZERO));
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
            "01700000000",
            "0170000000",
            "170000000x",
            "170000000_0",
            "1700000000e",
            "1700000000e1",
            "1700000000-1",
            "1700000000\"",
            "1700000000.",
            "+1700000000",
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
