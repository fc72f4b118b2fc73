use std::{fmt, time::Duration};

use aws_lc_rs::{hmac, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use subtle::ConstantTimeEq;

use crate::{clock::Instants, error::ConfigError, secret::Secret};

/// The longest that a nonce is good.
const MAX_LIFETIME: Duration = Duration::from_secs(300);

/// Nonces that proofs must carry (RFC 9449 §8, §9), so that none can be made in advance: whoever had the key for a moment
/// cannot use it later.
///
/// A nonce is a keyed hash of the time: nothing is stored, and any process with the same secret takes it. It changes every half
/// of its lifetime, and the one before still counts, so that one is good for at least half of the lifetime and at most all
/// of it.
///
/// ```
/// use std::time::Duration;
/// use portcullis::{Secret, jwt::bound::Nonces};
///
/// // The same secret in every process behind one name.
/// let nonces = Nonces::with_secret(Secret::new(vec![7; 32]))?.lifetime(Duration::from_secs(120))?;
/// # let _ = nonces;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Nonces {
    key: hmac::Key,
    step: u64,
}

impl Nonces {
    /// Nonces of this process alone: another one refuses them, and gives its own.
    ///
    /// # Errors
    /// If the operating system has no randomness.
    pub fn random() -> Result<Self, ConfigError> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| ConfigError::new("DPoP nonces", "randomness", "cannot be had"))?;
        Ok(Self::of(&secret))
    }

    /// Nonces that every process with this secret makes and takes: at least 32 random bytes, which serve for nothing else.
    ///
    /// # Errors
    /// If the secret is shorter.
    pub fn with_secret(secret: Secret) -> Result<Self, ConfigError> {
        match secret.expose() {
            bytes if bytes.len() < 32 => {
                let value = format!("a secret of {} bytes", bytes.len());
                Err(ConfigError::new("DPoP nonces", value, "is too short: at least 32 bytes"))
            }
            bytes => Ok(Self::of(bytes)),
        }
    }

    fn of(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), step: MAX_LIFETIME.as_secs() / 2 }
    }

    /// Sets how long a nonce is good at most, 2 to 300 s. Default 300 s.
    ///
    /// # Errors
    /// If it is shorter or longer.
    pub fn lifetime(mut self, lifetime: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_secs(2)..=MAX_LIFETIME).contains(&lifetime) {
            return Err(ConfigError::new("DPoP nonce lifetime", format!("{lifetime:?}"), "is not 2 to 300 s"));
        }
        self.step = lifetime.as_secs() / 2;
        Ok(self)
    }

    /// The nonce to give out now.
    pub(super) fn current(&self, at: Instants) -> Nonce {
        self.of_step(self.step_at(at))
    }

    /// Whether a nonce is good, and if so whether it is the one before: the client had better get the current one.
    pub(super) fn take(&self, nonce: &str, at: Instants) -> Taken {
        let now = self.step_at(at);
        if bool::from(self.of_step(now).0.as_bytes().ct_eq(nonce.as_bytes())) {
            return Taken::Current;
        }
        match now.checked_sub(1) {
            Some(before) if bool::from(self.of_step(before).0.as_bytes().ct_eq(nonce.as_bytes())) => Taken::Previous,
            Some(_) | None => Taken::Refused,
        }
    }

    const fn step_at(&self, at: Instants) -> u64 {
        match at.unix_seconds().checked_div(self.step) {
            Some(step) => step,
            None => 0,
        }
    }

    fn of_step(&self, step: u64) -> Nonce {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"portcullis dpop nonce");
        context.update(&self.step.to_be_bytes());
        context.update(&step.to_be_bytes());
        let tag = context.sign();
        let (half, _) = tag.as_ref().split_at(tag.as_ref().len() / 2);
        Nonce(BASE64_URL_SAFE_NO_PAD.encode(half))
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonces").field("step", &self.step).finish_non_exhaustive()
    }
}

pub(super) struct Nonce(String);

impl Nonce {
    /// As `DPoP-Nonce` carries it.
    pub(super) fn value(self) -> HeaderValue {
        // Base64url is always a value.
        HeaderValue::try_from(self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Current,
    Previous,
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instants {
        Instants::new(seconds * 1_000_000_000, 0)
    }

    #[test]
    fn a_nonce_lives_from_half_its_lifetime_to_all_of_it() {
        let secret = || Secret::new(vec![7; 32]);
        let nonces = Nonces::with_secret(secret()).unwrap().lifetime(Duration::from_secs(60)).unwrap();
        let same = Nonces::with_secret(secret()).unwrap().lifetime(Duration::from_secs(60)).unwrap();
        let other = Nonces::with_secret(Secret::new(vec![8; 32])).unwrap().lifetime(Duration::from_secs(60)).unwrap();
        let given = nonces.current(at(1_000_020)).0;
        assert_eq!(given.len(), 22, "128 bits");
        for (seconds, expected) in [
            (1_000_020, Taken::Current),
            (1_000_049, Taken::Current),
            (1_000_050, Taken::Previous),
            (1_000_079, Taken::Previous),
            (1_000_080, Taken::Refused),
            (1_000_019, Taken::Refused),
            (9_000_000, Taken::Refused),
            (0, Taken::Refused),
        ] {
            assert_eq!(nonces.take(&given, at(seconds)), expected, "{seconds}");
            assert_eq!(same.take(&given, at(seconds)), expected, "another process: {seconds}");
            assert_eq!(other.take(&given, at(seconds)), Taken::Refused, "another secret: {seconds}");
        }
        let longer = Nonces::with_secret(secret()).unwrap();
        assert_eq!(longer.take(&given, at(1_000_020)), Taken::Refused, "another step");
        for forged in ["", "a", &given.to_lowercase(), &format!("{given}="), given.split_at(1).1] {
            assert_eq!(nonces.take(forged, at(1_000_020)), Taken::Refused, "{forged}");
        }
        assert!(!format!("{nonces:?}").contains("07"));
    }

    #[test]
    fn bad_settings_are_refused() {
        assert!(Nonces::with_secret(Secret::new(vec![7; 31])).is_err());
        for lifetime in [0, 1, 301, 86_400] {
            assert!(Nonces::random().unwrap().lifetime(Duration::from_secs(lifetime)).is_err(), "{lifetime}");
        }
        assert_ne!(Nonces::random().unwrap().current(at(0)).0, Nonces::random().unwrap().current(at(0)).0);
    }
}
