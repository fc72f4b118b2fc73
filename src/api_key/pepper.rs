use std::{fmt, sync::Arc};

use aws_lc_rs::hmac;

use crate::{
    api_key::{HashScheme, KeyHash, PepperId},
    error::ConfigError,
    secret::Secret,
};

/// The most peppers that are held at the same time.
const MOST: usize = 16;

/// Secrets outside the store that hashes are keyed with, so that a stolen store is worth nothing, and one that was written to
/// lets nobody in: HMAC-SHA-256 (RFC 2104). They are named, so that they rotate: new keys are hashed under the current one,
/// and each record says which one is its own.
///
/// Keep a pepper where the store is not: in the environment, or in a secret manager. It has at least 32 bytes, random ones.
/// Memory is wiped on drop; `Debug` shows the names.
///
/// To rotate, make the old one [`previous`](Self::previous), and rotate the keys or let them end. A record whose pepper is not
/// held is refused with `401`, and the log says which pepper is missing.
///
/// ```
/// use portcullis::{Secret, api_key::Peppers};
///
/// # let (new, old) = (vec![1; 32], vec![2; 32]);
/// let peppers = Peppers::new("2026-02".parse()?, Secret::new(new))?.previous("2026-01".parse()?, Secret::new(old))?;
/// assert_eq!(peppers.current().as_str(), "2026-02");
/// assert!(Peppers::new("short".parse()?, Secret::new(vec![1; 31])).is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Peppers {
    /// The current one first.
    keys: Arc<[(PepperId, hmac::Key)]>,
}

impl Peppers {
    /// One pepper, the current one.
    ///
    /// # Errors
    /// If the secret has fewer than 32 bytes. The error does not show it.
    pub fn new(id: PepperId, secret: Secret) -> Result<Self, ConfigError> {
        Ok(Self { keys: [(id, key(id, secret)?)].into() })
    }

    /// Holds another one as well, for keys that were hashed under it.
    ///
    /// # Errors
    /// If the secret has fewer than 32 bytes, the name is taken, or there are 16 already.
    pub fn previous(self, id: PepperId, secret: Secret) -> Result<Self, ConfigError> {
        let problem = |problem| Err(ConfigError::new("pepper", format!("{id:?}"), problem));
        if self.keys.iter().any(|(held, _)| *held == id) {
            return problem("is there twice");
        }
        if self.keys.len() >= MOST {
            return problem("is one more than 16");
        }
        let key = key(id, secret)?;
        Ok(Self { keys: self.keys.iter().cloned().chain([(id, key)]).collect() })
    }

    /// The name of the pepper that new keys are hashed under.
    #[must_use]
    pub fn current(&self) -> PepperId {
        // There is always one.
        self.ids().next().unwrap_or_else(PepperId::none)
    }

    fn ids(&self) -> impl Iterator<Item = PepperId> {
        self.keys.iter().map(|(id, _)| *id)
    }

    /// How a new key is hashed.
    pub(super) fn scheme(&self) -> HashScheme {
        HashScheme::HmacSha256 { pepper: self.current() }
    }

    pub(super) fn holds(&self, id: PepperId) -> bool {
        self.ids().any(|held| held == id)
    }

    /// The hash under this pepper, or under the current one if it is not held: the work does not tell.
    pub(super) fn hash(&self, id: Option<PepperId>, material: &[u8]) -> Option<KeyHash> {
        let named = self.keys.iter().find(|(held, _)| Some(*held) == id);
        let (_, key) = named.or_else(|| self.keys.first())?;
        #[cfg(test)]
        super::counted::HMACS.with(|count| count.set(count.get() + 1));
        Some(KeyHash::from_bytes(hmac::sign(key, material).as_ref().try_into().ok()?))
    }
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peppers")?;
        f.debug_list().entries(self.ids()).finish()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the caller's copy is wiped here")]
fn key(id: PepperId, secret: Secret) -> Result<hmac::Key, ConfigError> {
    const LEAST: usize = 32;
    let bytes = secret.expose();
    if bytes.len() < LEAST {
        let value = format!("{id:?} of {} bytes", bytes.len());
        return Err(ConfigError::new("pepper", value, "must have 32 bytes at least"));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PepperId {
        text.parse().unwrap()
    }

    fn secret(byte: u8) -> Secret {
        Secret::new(vec![byte; 32])
    }

    /// Computed outside this crate.
    #[test]
    fn a_known_value() {
        let peppers = Peppers::new(id("a"), Secret::new((0..32).collect())).unwrap();
        let hash = peppers.hash(None, b"material").unwrap();
        assert_eq!(hash.as_bytes()[..8], [0x85, 0xb2, 0x3e, 0x18, 0xbf, 0x18, 0x17, 0xdc]);
    }

    #[test]
    fn each_pepper_gives_its_own_hash_and_an_unknown_one_that_of_the_current() {
        let peppers = Peppers::new(id("b"), secret(2)).unwrap().previous(id("a"), secret(1)).unwrap();
        let hash = |name: Option<&str>| peppers.hash(name.map(id), b"material").unwrap();
        assert_eq!(peppers.current(), id("b"));
        assert_eq!(hash(None), hash(Some("b")));
        assert_eq!(hash(None), hash(Some("zzz")));
        assert_ne!(hash(Some("a")), hash(Some("b")));
        assert!(peppers.holds(id("a")) && !peppers.holds(id("zzz")));
    }

    #[test]
    fn what_is_weak_or_ambiguous_is_refused() {
        let error = Peppers::new(id("a"), Secret::from("hunter2".to_owned())).unwrap_err().to_string();
        assert!(error.contains("\"a\" of 7 bytes") && !error.contains("hunter2"), "{error}");
        let one = || Peppers::new(id("a"), secret(1)).unwrap();
        assert!(one().previous(id("a"), secret(2)).is_err(), "a name twice");
        assert!(one().previous(id("b"), Secret::new(vec![1; 31])).is_err(), "a short one");
        let full = (1..16).fold(one(), |all, n| all.previous(id(&n.to_string()), secret(n)).unwrap());
        assert!(full.previous(id("more"), secret(99)).is_err(), "a 17th");
    }

    #[test]
    fn debug_shows_names_alone() {
        let peppers = Peppers::new(id("b"), secret(2)).unwrap().previous(id("a"), secret(1)).unwrap();
        assert_eq!(format!("{peppers:?}"), r#"Peppers["b", "a"]"#);
    }
}
