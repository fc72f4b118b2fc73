use std::{fmt, path::Path, sync::Arc};

use crate::{
    error::ConfigError,
    jwt::{Algorithm, Key, jwk, token::Header},
};

/// The most keys that one token is tried with.
pub(super) const MAX_TRIES: usize = 4;

/// Why no key of a set verifies a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The set does not have the key that the token names, or, where it names none, one that verifies it; newer keys may do better.
    /// Whether others were tried in its place.
    Unknown { tried: bool },
    /// The key that the token names is one of another algorithm or issuer.
    Unfit,
    /// Those that the token names were tried.
    Bad,
}

/// The keys of one issuer. A clone costs one reference count.
///
/// A token that names a `kid` is checked with the keys of that id, then with those that were given no id; one without a
/// `kid` with every key of its algorithm. In both cases at most four are tried. A key that says [whose tokens](Key::issuer) it signs is
/// tried with those alone.
///
/// ```
/// use portcullis::{Secret, jwt::{Algorithm, Key, KeySet}};
///
/// let keys = KeySet::new([
///     Key::hmac(Algorithm::HS256, Secret::new(vec![1; 32]))?.with_id("old"),
///     Key::hmac(Algorithm::HS256, Secret::new(vec![2; 32]))?.with_id("new"),
/// ])?;
/// assert_eq!(keys.keys().len(), 2);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct KeySet {
    inner: Arc<Inner>,
}

struct Inner {
    keys: Box<[Key]>,
    skipped: Box<[ConfigError]>,
}

impl KeySet {
    /// Takes these keys.
    ///
    /// # Errors
    /// If there are none.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Result<Self, ConfigError> {
        Self::with_skipped(keys.into_iter().collect(), Vec::new())
    }

    /// No keys: for what is not verified by a signature.
    #[cfg(feature = "introspection")]
    pub(super) fn none() -> Self {
        Self { inner: Arc::new(Inner { keys: Box::default(), skipped: Box::default() }) }
    }

    /// Reads a JWK Set (RFC 7517 §5).
    ///
    /// A key that cannot verify is left out and told by [`skipped`](Self::skipped); the rest stays usable: unknown `kty`,
    /// `crv` or `alg`; missing, bad or duplicate members; `use` other than `sig`; `key_ops` without `verify`, with a value
    /// twice or at odds with `use` (§4.3); `oct` keys,
    /// which do not belong into a published set; keys with their private part in them; and every key after the 100th. A key without
    /// `alg` gets the one of its curve, an RSA key RS256 (keys that are fetched: as `LiveKeysBuilder::rsa_without_alg` says).
    ///
    /// # Errors
    /// If the text is not a JSON object with an array `keys`, or no key is usable.
    pub fn from_jwks(json: &str) -> Result<Self, ConfigError> {
        Self::from_jwks_where_rsa_is(jwk::RSA, json)
    }

    /// The same, where an RSA key without `alg` is for this algorithm.
    pub(super) fn from_jwks_where_rsa_is(algorithm: Algorithm, json: &str) -> Result<Self, ConfigError> {
        let (keys, skipped) = jwk::read_set(json, algorithm)?;
        Self::with_skipped(keys, skipped)
    }

    /// Reads a JWK Set from a file, as [`from_jwks`](Self::from_jwks). Blocks; it is meant for the start of the service.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`from_jwks`](Self::from_jwks).
    pub fn from_jwks_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        match std::fs::read_to_string(path) {
            Ok(json) => Self::from_jwks(&json),
            Err(error) => {
                Err(ConfigError::new("JWK Set file", path.display().to_string(), "cannot be read").caused_by(error))
            }
        }
    }

    /// The usable keys.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.inner.keys
    }

    /// Why keys of a JWK Set are not usable, one error for each.
    #[must_use]
    pub fn skipped(&self) -> &[ConfigError] {
        &self.inner.skipped
    }

    fn with_skipped(keys: Vec<Key>, skipped: Vec<ConfigError>) -> Result<Self, ConfigError> {
        if keys.is_empty() {
            let value =
                if skipped.is_empty() { "no key".to_owned() } else { format!("{} unusable keys", skipped.len()) };
            let error = ConfigError::new("JWT key set", value, "cannot verify anything");
            return Err(match skipped.into_iter().next() {
                Some(first) => error.caused_by(first),
                None => error,
            });
        }
        Ok(Self { inner: Arc::new(Inner { keys: keys.into(), skipped: skipped.into() }) })
    }

    /// Checks a signature of a token of this issuer with the keys of the header's algorithm. The key that it is good under, whatever the
    /// header names.
    pub(super) fn check_signature(
        &self,
        iss: &str,
        header: &Header<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<&Key, NoKey> {
        let key_id = header.key_id.as_deref();
        let mut tried = false;
        for key in self.candidates(header.algorithm, key_id).filter(|key| key.signs_for(iss)).take(MAX_TRIES) {
            if key.verifies(message, signature) {
                return Ok(key);
            }
            tried = true;
        }
        match key_id {
            Some(id) if self.has_id(id) => Err(if tried { NoKey::Bad } else { NoKey::Unfit }),
            // One without a name may be of a key that was rotated in since.
            Some(_) | None => Err(NoKey::Unknown { tried }),
        }
    }

    /// Whether both have the same keys under the same ids, of the same issuers, in whatever order.
    #[cfg(feature = "jwt-remote")]
    pub(super) fn has_the_keys_of(&self, other: &Self) -> bool {
        fn sorted(set: &KeySet) -> Vec<(Option<&str>, Option<&str>, &super::key::Print)> {
            let mut keys: Vec<_> = set.keys().iter().map(|key| (key.id(), key.issuer(), key.print())).collect();
            keys.sort_unstable();
            keys
        }
        sorted(self) == sorted(other)
    }

    /// Whether a key has this id.
    fn has_id(&self, id: &str) -> bool {
        self.inner.keys.iter().any(|key| key.id() == Some(id))
    }

    /// The keys that may have signed a token with this header, those of its `kid` first.
    pub(super) fn candidates<'k, 'i>(
        &'k self,
        algorithm: Algorithm,
        key_id: Option<&'i str>,
    ) -> impl Iterator<Item = &'k Key> + use<'k, 'i> {
        let of_algorithm = self.inner.keys.iter().filter(move |key| key.algorithm() == algorithm);
        let named = of_algorithm.clone().filter(move |key| key_id.is_none() || key.id() == key_id);
        named.chain(of_algorithm.filter(move |key| key_id.is_some() && key.id().is_none()))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.inner.keys).field("skipped", &self.inner.skipped.len()).finish()
    }
}
