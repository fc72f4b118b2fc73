use std::{fmt, ops::RangeInclusive};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    api_key::{KeyHash, format::Presented},
    error::ConfigError,
};

/// The most characters of a legacy key.
pub(super) const MAX_LEGACY: usize = 128;
const LEAST: usize = 20;

/// How keys look that another system made, and of which it kept unsalted SHA-256 hashes: they stay valid while their owners are
/// given new ones.
///
/// A legacy key begins with a prefix, has so many characters, prefix included, and consists of `[A-Za-z0-9._~+/=-]`. Where the
/// prefix is empty it is only looked for in the key's own header and under the scheme `ApiKey`: as `Bearer` it would claim
/// every token there is. A text that begins like a key of the authenticator's own format is never a legacy key.
///
/// [`RecordFields::legacy`](crate::api_key::RecordFields::legacy) makes the record of such a hash; its id is the hash's
/// first 10 bytes. **Import only keys that are long and random**, 128 bits or more: the hash is fast and unsalted, and the id,
/// which logs show, is a part of it. Weaker ones, and those of which there are other hashes, are to be issued anew.
///
/// ```
/// use portcullis::api_key::LegacyFormat;
///
/// let format = LegacyFormat::new("sk_live_", 32..=40)?;
/// assert!(LegacyFormat::new("sk_live_", 8..=40).is_err(), "too short to be random");
/// # let _ = format;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LegacyFormat {
    prefix: Box<str>,
    length: RangeInclusive<usize>,
}

impl LegacyFormat {
    /// Keys with this prefix, of so many characters in all.
    ///
    /// # Errors
    /// If the prefix has other characters than those of keys, the shortest key has fewer than 20 characters after the prefix,
    /// the longest more than 128 in all, or there is no length between them.
    pub fn new(prefix: &str, length: RangeInclusive<usize>) -> Result<Self, ConfigError> {
        let (least, most) = (*length.start(), *length.end());
        if !prefix.bytes().all(is_character) || prefix.len() > MAX_LEGACY {
            let shown: String = prefix.chars().take(64).collect();
            return Err(ConfigError::new("legacy key prefix", format!("{shown:?}"), "must be of [A-Za-z0-9._~+/=-]"));
        }
        if least.saturating_sub(prefix.len()) < LEAST || most > MAX_LEGACY || least > most {
            let problem = "must be 20 characters after the prefix at least, and 128 in all at most";
            return Err(ConfigError::new("legacy key length", format!("{least} to {most}"), problem));
        }
        Ok(Self { prefix: prefix.into(), length })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether somebody meant this to be such a key.
    pub(super) fn claims(&self, text: &[u8]) -> bool {
        !self.prefix.is_empty() && text.starts_with(self.prefix.as_bytes())
    }

    /// Reads a key without keeping it.
    pub(super) fn read(&self, text: &str) -> Option<Presented> {
        let fits = text.starts_with(&*self.prefix) && self.length.contains(&text.len());
        if !fits || !text.bytes().all(is_character) {
            return None;
        }
        #[cfg(test)]
        super::counted::DIGESTS.with(|count| count.set(count.get() + 1));
        let hash = KeyHash::from_bytes(digest(&SHA256, text.as_bytes()).as_ref().try_into().ok()?);
        Some(Presented::legacy(hash))
    }
}

impl fmt::Debug for LegacyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LegacyFormat").field(&self.prefix).field(&self.length).finish()
    }
}

/// What a header field can carry as a token68 (RFC 9110 §11.2).
fn is_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_checked() {
        for (prefix, length) in [("sk_live_", 28..=40), ("", 20..=128), ("k", 21..=21)] {
            assert!(LegacyFormat::new(prefix, length.clone()).is_ok(), "{prefix:?} {length:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
        for (prefix, length) in
            [("sk live", 40..=40), ("ä", 40..=40), ("sk_live_", 27..=40), ("", 19..=40), ("", 20..=129), ("", 40..=39)]
        {
            assert!(LegacyFormat::new(prefix, length.clone()).is_err(), "{prefix:?} {length:?}");
        }
    }

    #[test]
    fn a_key_is_read_by_prefix_length_and_characters() {
        let format = LegacyFormat::new("sk_live_", 28..=30).unwrap();
        let key = "sk_live_0123456789abcdefghij";
        // SHA-256 of the text, computed outside this crate.
        let id = format.read(key).unwrap().id;
        assert_eq!(id.as_bytes(), &[0x53, 0x3b, 0xc2, 0x7a, 0x9e, 0x1e, 0xb5, 0xc9, 0x09, 0x97]);
        for (name, text) in [
            ("short", "sk_live_0123456789abcdefghi"),
            ("long", "sk_live_0123456789abcdefghijklm"),
            ("another prefix", "sk_test_0123456789abcdefghij"),
            ("a space", "sk_live_0123456789 bcdefghij"),
            ("not ASCII", "sk_live_0123456789äcdefghij"),
            ("empty", ""),
        ] {
            assert!(format.read(text).is_none(), "{name}");
        }
        assert!(!LegacyFormat::new("", 20..=20).unwrap().claims(b"eyJh"), "no prefix, no claim");
    }
}
