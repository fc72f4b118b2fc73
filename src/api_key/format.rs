use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest::{SHA256, digest},
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

use crate::{
    api_key::{KeyHash, KeyId, PepperId, Peppers, encoding},
    error::ConfigError,
    secret::Secret,
};

const VERSION: u8 = 1;
const MARKER: &str = "_v1_";
const ID_TEXT: usize = 16;
const SECRET: usize = 25;
const SECRET_TEXT: usize = 40;
const CHECKSUM: usize = 5;
const CHECKSUM_TEXT: usize = 8;
/// Everything after the prefix.
const TAIL_TEXT: usize = MARKER.len() + ID_TEXT + 1 + SECRET_TEXT + CHECKSUM_TEXT;
/// The longest key: a prefix and an environment of 16 characters.
pub(super) const MAX_TEXT: usize = 16 + 1 + 16 + TAIL_TEXT;

/// How keys are written: `<prefix>[_<environment>]_v1_<id>_<secret><checksum>`.
///
/// - `prefix`: `[a-z][a-z0-9]{1,15}`, `pc` by default. It names your product. It has no `_`, so it ends at the first one and
///   no prefix can be mistaken for another.
/// - `environment`: of the same form, left out by default. A key works in its own environment alone; a record says it too,
///   so that a text that was changed gains nothing.
/// - `v1`: the version of this grammar.
/// - `id`: 16 characters, 80 random bits; public.
/// - `secret`: 40 characters, 200 bits from the operating system's generator.
/// - `checksum`: 8 characters, the first 40 bits of SHA-256 over version, id and secret. It defends nothing; it drops typos
///   and noise before a store is asked.
///
/// Id, secret and checksum are lower-case Crockford base32, of whole five-byte blocks: no padding, no spare bits, one
/// spelling for each key. Nothing needs escaping in a URL, and a double click selects the whole key.
///
/// ```
/// use portcullis::api_key::ApiKeyFormat;
///
/// let format = ApiKeyFormat::new("acme")?.environment("live")?;
/// assert_eq!(format.pattern(), "acme_live_v1_[0-9a-hjkmnp-tv-z]{16}_[0-9a-hjkmnp-tv-z]{48}");
/// assert!(ApiKeyFormat::new("Acme_live").is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyFormat {
    /// The prefix, and the environment after a `_`.
    head: Arc<str>,
    prefix_len: usize,
}

impl ApiKeyFormat {
    /// Keys that begin with `prefix`.
    ///
    /// # Errors
    /// If the prefix is not `[a-z][a-z0-9]{1,15}`.
    pub fn new(prefix: &str) -> Result<Self, ConfigError> {
        check_word("API key prefix", prefix)?;
        Ok(Self { head: prefix.into(), prefix_len: prefix.len() })
    }

    /// Keys for this environment alone: `live`, `test`. A key of another one is refused like one that does not exist.
    ///
    /// # Errors
    /// If the environment is not `[a-z][a-z0-9]{1,15}`, or is `v` and digits.
    pub fn environment(self, environment: &str) -> Result<Self, ConfigError> {
        check_environment(environment)?;
        Ok(Self { head: format!("{}_{environment}", self.prefix()).into(), prefix_len: self.prefix_len })
    }

    /// The prefix, without the `_` that ends it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.head.get(..self.prefix_len).unwrap_or_default()
    }

    /// The environment, if there is one.
    #[must_use]
    pub fn in_environment(&self) -> Option<&str> {
        self.head.get(self.prefix_len.saturating_add(1)..)
    }

    /// The regular expression of these keys, for a secret scanner. It has no anchors; put `\b` around it where the
    /// scanner wants them.
    #[must_use]
    pub fn pattern(&self) -> String {
        let head = &*self.head;
        let rest = SECRET_TEXT + CHECKSUM_TEXT;
        format!("{head}{MARKER}[0-9a-hjkmnp-tv-z]{{{ID_TEXT}}}_[0-9a-hjkmnp-tv-z]{{{rest}}}")
    }

    /// Reads a key, for a tool of yours: revoking one that was found in a log, for example. None if it is not a key of
    /// this format or its checksum is wrong. At most 102 bytes are looked at.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<ApiKey> {
        let Presented { id, sha256: hash, .. } =
            self.read(text.as_bytes())?.present().filter(|presented| presented.in_environment)?;
        Some(ApiKey { id, hash, text: Secret::from(text.to_owned()) })
    }

    /// Whether somebody meant this to be a key of this format.
    pub(super) fn claims(&self, text: &[u8]) -> bool {
        text.strip_prefix(self.prefix().as_bytes()).is_some_and(|rest| rest.starts_with(b"_"))
    }

    /// Reads a key of this prefix, of whatever environment, without keeping it. It is ASCII then, and visible.
    pub(super) fn read(&self, text: &[u8]) -> Option<Written> {
        let (head, tail) = text.split_last_chunk::<TAIL_TEXT>()?;
        let in_environment = head == self.head.as_bytes();
        if !in_environment {
            match head.strip_prefix(self.prefix().as_bytes())? {
                [] => {}
                [b'_', environment @ ..] if is_word(environment) => {}
                _ => return None,
            }
        }
        let (id_text, rest) = tail.strip_prefix(MARKER.as_bytes())?.split_first_chunk::<ID_TEXT>()?;
        let (secret_text, checksum_text) = rest.strip_prefix(b"_")?.split_first_chunk::<SECRET_TEXT>()?;
        let checksum_text = checksum_text.first_chunk::<CHECKSUM_TEXT>()?;

        let mut material = Material::new();
        encoding::decode(id_text, material.id())?;
        encoding::decode(secret_text, material.secret())?;
        let mut checksum = [0; CHECKSUM];
        encoding::decode(checksum_text, &mut checksum)?;
        Some(Written { material, checksum, in_environment })
    }

    /// Makes a new key, and its hash under these peppers, or without.
    pub(super) fn generate(&self, peppers: Option<&Peppers>) -> Result<(ApiKey, KeyHash), Unspecified> {
        let random = SystemRandom::new();
        let mut material = Material::new();
        random.fill(material.id())?;
        random.fill(material.secret())?;
        let (text, presented) = material.written(&self.head).ok_or(Unspecified)?;
        let kept = match peppers {
            Some(peppers) => presented.keyed(peppers, None).ok_or(Unspecified)?,
            None => presented.sha256,
        };
        Ok((ApiKey { id: presented.id, hash: presented.sha256, text: Secret::from(text) }, kept))
    }

    /// For the attack suite: a key of the same id with a new secret and the checksum that fits. None if the text is no key of
    /// this grammar, of whatever prefix.
    #[cfg(all(feature = "testing", feature = "jwt"))]
    pub(crate) fn with_another_secret(text: &str) -> Option<String> {
        let (head, tail) = text.split_at_checked(text.len().checked_sub(TAIL_TEXT)?)?;
        let id_text = tail.strip_prefix(MARKER)?.as_bytes().first_chunk::<ID_TEXT>()?;
        let mut material = Material::new();
        encoding::decode(id_text, material.id())?;
        SystemRandom::new().fill(material.secret()).ok()?;
        material.written(head).map(|(text, _)| text)
    }
}

impl Default for ApiKeyFormat {
    /// The prefix `pc`.
    fn default() -> Self {
        Self { head: "pc".into(), prefix_len: 2 }
    }
}

impl fmt::Debug for ApiKeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKeyFormat").field(&self.head).finish()
    }
}

fn check_word(setting: &str, word: &str) -> Result<(), ConfigError> {
    if is_word(word.as_bytes()) {
        return Ok(());
    }
    let shown: String = word.chars().take(64).collect();
    Err(ConfigError::new(setting, format!("{shown:?}"), "must be [a-z][a-z0-9]{1,15}"))
}

/// `[a-z][a-z0-9]{1,15}`.
fn is_word(word: &[u8]) -> bool {
    word.first().is_some_and(u8::is_ascii_lowercase)
        && (2..=16).contains(&word.len())
        && word.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// An environment is such a word too, but none that reads like the version of a format.
pub(super) fn check_environment(environment: &str) -> Result<(), ConfigError> {
    check_word("API key environment", environment)?;
    if environment.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())) {
        let problem = "reads like the version of a format";
        return Err(ConfigError::new("API key environment", format!("{environment:?}"), problem));
    }
    Ok(())
}

/// A text that has the form of a key.
pub(super) struct Written {
    material: Material,
    checksum: [u8; CHECKSUM],
    in_environment: bool,
}

impl Written {
    /// Hashes it. None if the checksum is wrong.
    pub(super) fn present(self) -> Option<Presented> {
        let presented = self.material.present(self.in_environment)?;
        (presented.checksum()? == self.checksum).then_some(presented)
    }
}

/// What a request's key comes down to.
pub(super) struct Presented {
    pub(super) id: KeyId,
    /// Over the material, or over the text of a legacy key.
    pub(super) sha256: KeyHash,
    /// None for a legacy key.
    material: Option<Material>,
    /// Whether its text names the environment of the format; that of a legacy key names none.
    pub(super) in_environment: bool,
}

impl Presented {
    pub(super) fn legacy(sha256: KeyHash) -> Self {
        Self { id: sha256.legacy_id(), sha256, material: None, in_environment: true }
    }

    pub(super) const fn is_legacy(&self) -> bool {
        self.material.is_none()
    }

    /// Its hash under a pepper, the current one if this is none. The same work for a legacy key, whose result fits nothing.
    pub(super) fn keyed(&self, peppers: &Peppers, id: Option<PepperId>) -> Option<KeyHash> {
        let material = self.material.as_ref().map_or(&self.sha256.as_bytes()[..], |material| &material.0[..]);
        peppers.hash(id, material)
    }

    fn checksum(&self) -> Option<[u8; CHECKSUM]> {
        self.sha256.as_bytes().first_chunk().copied()
    }
}

/// What is hashed: version, id, secret. Wiped on drop.
struct Material(Zeroizing<[u8; 1 + KeyId::LEN + SECRET]>);

impl Material {
    fn new() -> Self {
        let mut bytes = Zeroizing::new([0; 1 + KeyId::LEN + SECRET]);
        let [version, ..] = &mut *bytes;
        *version = VERSION;
        Self(bytes)
    }

    fn id(&mut self) -> &mut [u8] {
        let [_, rest @ ..] = &mut *self.0;
        rest.split_at_mut(KeyId::LEN).0
    }

    fn secret(&mut self) -> &mut [u8] {
        let [_, rest @ ..] = &mut *self.0;
        rest.split_at_mut(KeyId::LEN).1
    }

    /// As the text of a key that begins with `head`.
    fn written(mut self, head: &str) -> Option<(String, Presented)> {
        // Never grows, so no copy of the secret is left behind.
        let mut text = String::with_capacity(MAX_TEXT.max(head.len().saturating_add(TAIL_TEXT)));
        text.push_str(head);
        text.push_str(MARKER);
        text.extend(encoding::encode(self.id()));
        text.push('_');
        text.extend(encoding::encode(self.secret()));
        let presented = self.present(true)?;
        text.extend(encoding::encode(&presented.checksum()?));
        Some((text, presented))
    }

    fn present(self, in_environment: bool) -> Option<Presented> {
        let [_, rest @ ..] = &*self.0;
        let id = KeyId::from_bytes(*rest.first_chunk()?);
        #[cfg(test)]
        super::counted::DIGESTS.with(|count| count.set(count.get() + 1));
        let sha256 = KeyHash::from_bytes(digest(&SHA256, &*self.0).as_ref().try_into().ok()?);
        Some(Presented { id, sha256, material: Some(self), in_environment })
    }
}

/// A whole key, secret included. It exists when it is made and is shown once; a store keeps an
/// [`ApiKeyRecord`](crate::api_key::ApiKeyRecord).
///
/// There is no `Display`, no `Clone` and no `Serialize`; `Debug` shows the id; the memory is wiped on drop.
pub struct ApiKey {
    id: KeyId,
    hash: KeyHash,
    text: Secret,
}

impl ApiKey {
    /// The key in clear, to hand to its owner once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_str().unwrap_or_default()
    }

    /// The public part.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// SHA-256 over version, id and secret: what a store keeps of it where there is no pepper.
    #[must_use]
    pub const fn hash(&self) -> KeyHash {
        self.hash
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Version 1, id bytes 0 to 9, secret bytes 100 to 124; the digest was computed outside this crate.
    const VECTOR: &str = "pc_v1_000g40r40m30e209_chjpcsv8d5n6pv3ddsqq0wbjedt7axkqf1wqmyvw6n4tv14m";

    #[test]
    fn a_prefix_is_checked() {
        for good in ["pc", "acme", "a1", "abcdefghijklmnop"] {
            assert!(ApiKeyFormat::new(good).is_ok(), "{good}");
        }
        for (name, bad) in [
            ("empty", ""),
            ("one character", "a"),
            ("17 characters", "abcdefghijklmnopq"),
            ("digit first", "1a"),
            ("upper case", "Acme"),
            ("underscore", "acme_live"),
            ("dash", "ac-me"),
            ("not ASCII", "äcme"),
        ] {
            let error = ApiKeyFormat::new(bad).unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{name}");
        }
    }

    #[cfg(all(feature = "testing", feature = "jwt"))]
    #[test]
    fn a_key_with_another_secret_is_a_key_of_the_same_id() {
        let good = ApiKeyFormat::default().parse(VECTOR).unwrap();
        let forged = ApiKeyFormat::with_another_secret(VECTOR).unwrap();
        let forged = ApiKeyFormat::default().parse(&forged).expect("its checksum fits");
        assert_eq!(forged.id(), good.id());
        assert_ne!(forged.hash(), good.hash());
        assert_eq!(ApiKeyFormat::with_another_secret("a key of others"), None);
    }

    #[test]
    fn a_key_of_another_implementation_is_read() {
        let key = ApiKeyFormat::default().parse(VECTOR).unwrap();
        assert_eq!(key.id().as_bytes(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(key.hash().as_bytes()[..4], [0x35, 0x49, 0xad, 0x84]);
    }

    #[test]
    fn two_keys_differ_and_debug_shows_neither_secret() {
        let format = ApiKeyFormat::default();
        let (one, other) = (format.generate(None).unwrap().0, format.generate(None).unwrap().0);
        assert_ne!(one.id(), other.id());
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), 2 + TAIL_TEXT);
        let shown = format!("{one:?}");
        assert!(shown.contains(&one.id().to_string()));
        assert!(!shown.contains(one.expose().rsplit_once('_').unwrap().1));
    }

    #[test]
    fn a_longer_or_shorter_prefix_is_another_format() {
        let key = ApiKeyFormat::new("acme").unwrap().generate(None).unwrap().0;
        for prefix in ["acm", "acme1", "pc"] {
            let other = ApiKeyFormat::new(prefix).unwrap();
            assert!(other.parse(key.expose()).is_none(), "{prefix}");
            assert!(!other.claims(key.expose().as_bytes()), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), tail in "[0-9a-z_]{60,75}") {
            let format = ApiKeyFormat::default();
            let _ = format.parse(&text);
            let _ = format.parse(&format!("pc_{text}"));
            let _ = format.parse(&format!("pc_{tail}"));
        }

        #[test]
        fn what_matches_the_pattern_has_the_shape(text in "pc_v1_[0-9a-hjkmnp-tv-z]{16}_[0-9a-hjkmnp-tv-z]{48}") {
            let format = ApiKeyFormat::default();
            prop_assert!(format.claims(text.as_bytes()));
            prop_assert_eq!(text.len(), 2 + TAIL_TEXT);
            // Random text has the right checksum once in 2^40.
            prop_assert!(format.parse(&text).is_none());
        }

        #[test]
        fn any_change_of_one_character_is_refused(place in 0..2 + TAIL_TEXT, put in any::<char>()) {
            let format = ApiKeyFormat::default();
            let key = format.generate(None).unwrap().0;
            let mut characters: Vec<char> = key.expose().chars().collect();
            prop_assume!(characters[place] != put);
            characters[place] = put;
            prop_assert!(format.parse(&characters.into_iter().collect::<String>()).is_none());
        }

        #[test]
        fn round_trip(prefix in "[a-z][a-z0-9]{1,15}") {
            let format = ApiKeyFormat::new(&prefix).unwrap();
            let key = format.generate(None).unwrap().0;
            let read = format.parse(key.expose()).unwrap();
            prop_assert_eq!(read.id(), key.id());
            prop_assert_eq!(read.hash(), key.hash());
            prop_assert!(key.expose().len() <= MAX_TEXT);
            prop_assert!(key.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        }
    }
}
