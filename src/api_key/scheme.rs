use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// The name of a pepper, in records and logs: `[a-z0-9][a-z0-9._-]{0,15}`, such as `2026-01`. Not a secret.
///
/// ```
/// use portcullis::api_key::PepperId;
///
/// let id: PepperId = "2026-01".parse()?;
/// assert_eq!(id.as_str(), "2026-01");
/// assert!("".parse::<PepperId>().is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PepperId {
    /// Filled up with zeros, which no name has.
    text: [u8; Self::MAX_LEN],
}

impl PepperId {
    /// The most bytes.
    pub const MAX_LEN: usize = 16;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.text.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX_LEN);
        self.text.get(..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl PepperId {
    /// The name of nothing: no record can carry it.
    pub(super) const fn none() -> Self {
        Self { text: [0; Self::MAX_LEN] }
    }
}

impl FromStr for PepperId {
    type Err = ConfigError;

    /// # Errors
    /// If the text is not of that form.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let starts = text.bytes().next().is_some_and(letter);
        let mut id = [0; Self::MAX_LEN];
        match id.get_mut(..text.len()) {
            Some(place) if starts && text.bytes().all(|byte| letter(byte) || b"._-".contains(&byte)) => {
                place.copy_from_slice(text.as_bytes());
                Ok(Self { text: id })
            }
            _ => {
                let shown: String = text.chars().take(64).collect();
                Err(ConfigError::new("pepper id", format!("{shown:?}"), "must be [a-z0-9][a-z0-9._-]{0,15}"))
            }
        }
    }
}

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How the hash of a record was made. Written as `sha256`, `hmac-sha256:<pepper id>` or `legacy-sha256`: at most 28 bytes,
/// one column.
///
/// ```
/// use portcullis::api_key::HashScheme;
///
/// let scheme: HashScheme = "hmac-sha256:2026-01".parse()?;
/// assert_eq!(scheme, HashScheme::HmacSha256 { pepper: "2026-01".parse()? });
/// assert_eq!(scheme.to_string(), "hmac-sha256:2026-01");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum HashScheme {
    /// SHA-256 over version, id and secret.
    #[default]
    Sha256,
    /// HMAC-SHA-256 (RFC 2104) over version, id and secret, under a pepper: a secret that the store does not have.
    HmacSha256 {
        /// Which pepper.
        pepper: PepperId,
    },
    /// SHA-256 over the whole text of a key that another system made.
    LegacySha256,
}

const SHA256: &str = "sha256";
const HMAC: &str = "hmac-sha256:";
const LEGACY: &str = "legacy-sha256";

impl fmt::Display for HashScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 => f.write_str(SHA256),
            Self::HmacSha256 { pepper } => write!(f, "{HMAC}{pepper}"),
            Self::LegacySha256 => f.write_str(LEGACY),
        }
    }
}

impl FromStr for HashScheme {
    type Err = ConfigError;

    /// # Errors
    /// If it is none of the three.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            SHA256 => Ok(Self::Sha256),
            LEGACY => Ok(Self::LegacySha256),
            _ => match text.strip_prefix(HMAC) {
                Some(pepper) => Ok(Self::HmacSha256 { pepper: pepper.parse()? }),
                None => {
                    let shown: String = text.chars().take(64).collect();
                    let problem = "must be sha256, hmac-sha256:<pepper id> or legacy-sha256";
                    Err(ConfigError::new("API key hash scheme", format!("{shown:?}"), problem))
                }
            },
        }
    }
}

impl From<HashScheme> for String {
    fn from(scheme: HashScheme) -> Self {
        scheme.to_string()
    }
}

impl TryFrom<String> for HashScheme {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pepper_id_is_read_strictly() {
        for good in ["a", "0", "2026-01", "k1.prod_eu", "abcdefghijklmnop"] {
            assert_eq!(good.parse::<PepperId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".", "A", "a b", "a\0", "ä", "abcdefghijklmnopq"] {
            let error = bad.parse::<PepperId>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{bad:?}");
        }
    }

    #[test]
    fn a_scheme_is_read_strictly() {
        for good in ["sha256", "hmac-sha256:k1", "legacy-sha256"] {
            assert_eq!(good.parse::<HashScheme>().unwrap().to_string(), good);
        }
        for bad in ["", "SHA256", "sha256 ", "hmac-sha256", "hmac-sha256:", "hmac-sha256:A", "md5", "none"] {
            assert!(bad.parse::<HashScheme>().is_err(), "{bad:?}");
        }
    }
}
