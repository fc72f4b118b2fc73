//! What a `401` tells the client to do (RFC 9110 §11.6.1).

use std::{fmt, sync::Arc};

use http::HeaderValue;

use crate::error::ConfigError;

/// One challenge: an authentication scheme and its parameters, written to one `WWW-Authenticate` line.
///
/// Parameter values are always quoted strings (RFC 9110 §11.5 demands it of `realm`), limited to printable ASCII without
/// `"` and `\` (RFC 6750 §3), so that nothing a client sent can break out of them.
///
/// ```
/// use portcullis::Challenge;
///
/// let challenge = Challenge::new("Bearer", "orders")?.with("scope", "orders:read")?;
/// assert_eq!(challenge.to_string(), r#"Bearer realm="orders", scope="orders:read""#);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    text: String,
}

impl Challenge {
    /// Starts a challenge for `scheme` in the protection space `realm`. A bare scheme is not allowed (RFC 6750 §3).
    ///
    /// # Errors
    /// If `scheme` is not a token (RFC 9110 §5.6.2), or `realm` is empty or has a character outside `%x20-21 / %x23-5B /
    /// %x5D-7E`.
    pub fn new(scheme: &str, realm: &str) -> Result<Self, ConfigError> {
        if scheme.is_empty() || !scheme.bytes().all(is_token) {
            return Err(ConfigError::new(
                "challenge scheme",
                format!("{scheme:?}"),
                "must be a token (RFC 9110 §5.6.2)",
            ));
        }
        if realm.is_empty() {
            return Err(ConfigError::new("challenge realm", "\"\"", "must not be empty"));
        }
        Self { text: scheme.to_owned() }.push(' ', "realm", realm)
    }

    /// Adds a parameter.
    ///
    /// # Errors
    /// As [`new`](Self::new), or if the parameter stands already (RFC 9110 §11.2).
    pub fn with(self, name: &str, value: &str) -> Result<Self, ConfigError> {
        // Values have no quotes in them, so these are the texts between values: `Bearer realm=`, `, scope=`.
        let stands = |text: &str| text.trim_end_matches('=').rsplit(' ').next().unwrap_or_default().to_owned();
        if self.text.split('"').step_by(2).any(|text| stands(text).eq_ignore_ascii_case(name)) {
            return Err(ConfigError::new("challenge parameter", name, "stands twice"));
        }
        let mut text = self;
        text.text.push(',');
        text.push(' ', name, value)
    }

    fn push(mut self, before: char, name: &str, value: &str) -> Result<Self, ConfigError> {
        let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if name.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(allowed) {
            let value = format!("{name}={value:?}");
            return Err(ConfigError::new("challenge parameter", value, "must be printable ASCII without quotes"));
        }
        self.text.extend([before]);
        self.text.push_str(name);
        self.text.push_str("=\"");
        self.text.push_str(value);
        self.text.push('"');
        Ok(self)
    }

    /// The scheme, as written.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Challenges that are written once and sent often: a clone costs one reference count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges(Option<Arc<[HeaderValue]>>);

impl Challenges {
    /// No challenge.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The values, one for each `WWW-Authenticate` line.
    #[must_use]
    pub fn values(&self) -> &[HeaderValue] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl FromIterator<Challenge> for Challenges {
    /// Identical challenges are kept once.
    fn from_iter<I: IntoIterator<Item = Challenge>>(challenges: I) -> Self {
        let mut values: Vec<HeaderValue> = Vec::new();
        for challenge in challenges {
            if let Ok(value) = HeaderValue::from_str(&challenge.text)
                && !values.contains(&value)
            {
                values.push(value);
            }
        }
        Self((!values.is_empty()).then(|| values.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_the_quotes() {
        for (name, value) in [("quote", "a\"b"), ("backslash", "a\\b"), ("line break", "a\r\nb"), ("umlaut", "ä")] {
            assert!(Challenge::new("Bearer", value).is_err(), "{name}");
        }
        for (name, scheme) in [("empty", ""), ("space", "Bea rer"), ("quote", "B\"")] {
            assert!(Challenge::new(scheme, "api").is_err(), "{name}");
        }
    }

    #[test]
    fn a_parameter_stands_once() {
        let challenge = Challenge::new("Bearer", "api").unwrap();
        assert!(challenge.clone().with("realm", "other").is_err());
        assert!(challenge.clone().with("Realm", "other").is_err(), "names have no case (RFC 9110 §11.2)");
        assert!(challenge.clone().with("hint", "a scope=").unwrap().with("scope", "a").is_ok(), "a value is no name");
        assert!(challenge.with("scope", "a").unwrap().with("scope", "b").is_err());
    }

    #[test]
    fn identical_challenges_are_sent_once() {
        let bearer = Challenge::new("Bearer", "api").unwrap();
        let challenges: Challenges = [bearer.clone(), bearer].into_iter().collect();
        assert_eq!(challenges.values().len(), 1);
    }
}
