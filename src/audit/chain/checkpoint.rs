use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Read,
    path::Path,
    str::FromStr,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Hash, from_hex, hex};
use crate::{error::ConfigError, file};

/// More than a key in PKCS #8 takes, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Writes a new file, for its owner alone: whoever finds it finds all of it, also after a crash.
fn place(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| std::io::Error::other("no random numbers"))?;
    let made = file::folder(path).join(format!(".{name}.{:016x}.tmp", u64::from_ne_bytes(random)));
    let made_new = file::owned(OpenOptions::new().write(true).create_new(true)).open(&made);
    let written = made_new.and_then(|mut file| {
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        // Unlike a renaming, it replaces nothing; not every file system has it.
        std::fs::hard_link(&made, path).or_else(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::rename(&made, path),
        })
    });
    let _ = std::fs::remove_file(&made);
    written?;
    // As far as the folder may be opened, and its file system has that.
    let _ = file::sync_folder(path);
    Ok(())
}

/// The key that signs checkpoints (Ed25519, RFC 8032).
pub struct ChainKey(Ed25519KeyPair);

impl ChainKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, ConfigError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| ConfigError::new("chain key", "a new one", "cannot be made"))
    }

    /// Takes a key in PKCS #8 (RFC 5958, RFC 8410), in DER.
    ///
    /// # Errors
    /// If it is no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, ConfigError> {
        Ed25519KeyPair::from_pkcs8(der)
            .map(Self)
            .map_err(|_| ConfigError::new("chain key", "the key", "is no Ed25519 key in PKCS #8"))
    }

    /// Reads a key in PKCS #8 from a file, or makes one and writes it there, for its owner alone (mode `0600`).
    ///
    /// # Errors
    /// If the file cannot be read or made, may be read or written by everybody, or holds something else. A key that a platform
    /// mounts readable for all, in a directory that keeps others out, goes through [`from_pkcs8`](Self::from_pkcs8).
    pub fn from_file_or_new(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let refuse = |error: std::io::Error| {
            ConfigError::new("chain key", path.display().to_string(), "cannot be read or made").caused_by(error)
        };
        if let Some(key) = Self::from_file(path)? {
            return Ok(key);
        }
        let der = Self::generate()?.0.to_pkcs8();
        let der = der.map_err(|_| ConfigError::new("chain key", "a new one", "cannot be written"))?;
        match place(path, der.as_ref()) {
            // Another process made one at the same moment, and it is whole.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            placed => placed.map_err(refuse)?,
        }
        // What stands there counts, whoever wrote it.
        Self::from_file(path)?.ok_or_else(|| refuse(std::io::ErrorKind::NotFound.into()))
    }

    /// None if there is no file.
    fn from_file(path: &Path) -> Result<Option<Self>, ConfigError> {
        let wrong = |problem: &str| ConfigError::new("chain key", path.display().to_string(), problem);
        let refuse = |error: std::io::Error| wrong("cannot be read or made").caused_by(error);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refuse(error)),
        };
        file::refuse_open(&file.metadata().map_err(refuse)?, file::OPEN_TO_ALL).map_err(|problem| wrong(&problem))?;
        let mut der = Zeroizing::new(Vec::with_capacity(4096));
        file.take(MAX_LEN).read_to_end(&mut der).map_err(refuse)?;
        Self::from_pkcs8(&der).map(Some).map_err(|_| wrong("holds no Ed25519 key in PKCS #8"))
    }

    /// The half that verifies.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(super) fn sign(&self, upto: u64, head: &Hash, time: &str) -> Checkpoint {
        let key = self.public_key().id();
        let mut checkpoint = Checkpoint { time: time.to_owned(), key, upto, head: hex(head), signature: String::new() };
        checkpoint.signature = hex(self.0.sign(&checkpoint.message()).as_ref());
        checkpoint
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChainKey").field(&self.public_key().id()).finish()
    }
}

/// The key that verifies checkpoints. It is written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// What checkpoints call it: the first 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        hex(digest(&SHA256, &self.0).as_ref().get(..8).unwrap_or_default())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        from_hex(text.trim().as_bytes())
            .map(Self)
            .ok_or_else(|| ConfigError::new("public key", text, "is not 64 hexadecimal digits in lower case"))
    }
}

/// A signed statement: the line of this number had this hash at this time. It is written as the JSON object that it is read
/// from, and verifies by itself, wherever it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub(super) time: String,
    pub(super) key: String,
    pub(super) upto: u64,
    pub(super) head: String,
    pub(super) signature: String,
}

impl Checkpoint {
    /// When it was signed: RFC 3339, UTC.
    #[must_use]
    pub fn time(&self) -> &str {
        &self.time
    }

    /// The id of the key that signed it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key
    }

    /// The number of the last line that it vouches for.
    #[must_use]
    pub const fn upto(&self) -> u64 {
        self.upto
    }

    /// The hash of that line, which goes over all before it.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.head
    }

    fn message(&self) -> Vec<u8> {
        format!("portcullis-audit-checkpoint-v1\n{}\n{}\n{}\n", self.upto, self.head, self.time).into_bytes()
    }

    /// Whether one of these keys signed it.
    #[must_use]
    pub fn is_signed_by(&self, keys: &[PublicKey]) -> bool {
        let Some(signature) = from_hex::<64>(self.signature.as_bytes()) else { return false };
        let message = self.message();
        let signed = |key: &PublicKey| UnparsedPublicKey::new(&ED25519, key.0).verify(&message, &signature).is_ok();
        keys.iter().filter(|key| key.id() == self.key).any(signed)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Checkpoint {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        serde_json::from_str(text)
            .map_err(|error| ConfigError::new("checkpoint", "the text", "is none").caused_by(error))
    }
}
