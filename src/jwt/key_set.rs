use std::{fmt, path::Path, sync::Arc};

use crate::{
    error::ConfigError,
    jwt::{Algorithm, Key, jwk},
};

/// The keys of one issuer. A clone costs one reference count.
///
/// A token that names a `kid` is checked with the keys of that id, then with those that were given no id; one without a
/// `kid` with every key of its algorithm. In both cases at most four are tried.
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
    /// `crv` or `alg`; missing, bad or duplicate members; `use` other than `sig`; `key_ops` without `verify`; `oct` keys,
    /// which do not belong into a published set; keys with their private part in them; and every key after the 100th. A key without `alg` gets the one
    /// of its curve, an RSA key RS256.
    ///
    /// # Errors
    /// If the text is not a JSON object with an array `keys`, or no key is usable.
    pub fn from_jwks(json: &str) -> Result<Self, ConfigError> {
        let (keys, skipped) = jwk::read_set(json)?;
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

    /// Whether both have the same keys under the same ids, in whatever order.
    #[cfg(feature = "jwt-remote")]
    pub(super) fn has_the_keys_of(&self, other: &Self) -> bool {
        let sorted = |set: &Self| {
            let mut keys: Vec<_> = set.keys().iter().map(|key| (key.id().map(str::to_owned), *key.print())).collect();
            keys.sort_unstable();
            keys
        };
        sorted(self) == sorted(other)
    }

    /// Whether a key has this id.
    pub(super) fn has_id(&self, id: &str) -> bool {
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
