use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{api_key::encoding, error::ConfigError};

/// The public id of a key: 80 random bits, written as 16 characters. Not a secret: it is logged and shown.
///
/// Ids are ordered as their texts are, so a database that sorts the text by its bytes agrees with [`Ord`].
///
/// ```
/// use portcullis::api_key::KeyId;
///
/// let id: KeyId = "0123456789abcdef".parse()?;
/// assert_eq!(id.to_string(), "0123456789abcdef");
/// assert_eq!(KeyId::from_bytes(*id.as_bytes()), id);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// The length in bytes.
    pub const LEN: usize = 10;

    /// The id that these bytes are, from a store's column.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a store's column.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl Hash for KeyId {
    /// Two numbers that overlap: faster than a list of bytes.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, i, j] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        state.write_u16(u16::from_le_bytes([i, j]));
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 16];
        text.iter_mut().zip(encoding::encode_ascii(&self.0)).for_each(|(place, character)| *place = character);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = ConfigError;

    /// Reads the 16 characters.
    ///
    /// # Errors
    /// If there are more or fewer, or one is not of `[0-9a-hjkmnp-tv-z]`. The error does not show the text, which may be
    /// a whole key.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut bytes = [0; Self::LEN];
        let read = text.as_bytes().try_into().ok().and_then(|text: &[u8; 16]| encoding::decode(text, &mut bytes));
        read.map(|()| Self(bytes)).ok_or_else(|| {
            let value = format!("a text of {} bytes", text.len());
            ConfigError::new("key id", value, "is not 16 characters of [0-9a-hjkmnp-tv-z]")
        })
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a store keeps of a key: 32 bytes, made as the record's [`HashScheme`](crate::api_key::HashScheme) says.
///
/// `==` takes the same time wherever two hashes differ; `Debug` shows nothing. The secret has 200 random bits, so a fast
/// hash is enough: there is nothing to guess that a slow one would protect.
///
/// ```
/// use portcullis::api_key::KeyHash;
///
/// assert_eq!(format!("{:?}", KeyHash::from_bytes([7; 32])), "KeyHash(..)");
/// ```
#[derive(Clone, Copy)]
pub struct KeyHash([u8; Self::LEN]);

impl KeyHash {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// The hash that these bytes are, from a store's column.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a store's column.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The id of the legacy key that this is the hash of.
    pub(super) fn legacy_id(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, i, j, ..] = self.0;
        KeyId([a, b, c, d, e, f, g, h, i, j])
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for KeyHash {}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_strictly_and_its_error_shows_nothing() {
        for (name, text) in [
            ("empty", ""),
            ("short", "0123456789abcde"),
            ("long", "0123456789abcdef0"),
            ("upper case", "0123456789ABCDEF"),
            ("alias", "o123456789abcdef"),
            ("multi-byte", "0123456789abcdé"),
        ] {
            let error = text.parse::<KeyId>().unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text), "{name}");
        }
    }

    #[test]
    fn hashes_are_equal_only_to_themselves() {
        let hash = KeyHash::from_bytes([7; 32]);
        let mut other = [7; 32];
        assert_eq!(hash, KeyHash::from_bytes(other));
        other[31] ^= 1;
        assert_ne!(hash, KeyHash::from_bytes(other));
    }
}
