//! Remembers verified tokens, so that a token that comes again costs a look-up and no signature check.

mod table;

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use foldhash::quality::RandomState;

use crate::{
    clock::Instants,
    error::ConfigError,
    jwt::crypto::sha256,
    principal::{Principal, PrincipalBuilder, Terms},
};

use table::Table;

/// How much of the end of a token is hashed: the last bytes of its signature, which nobody can choose.
const TAIL: usize = 32;

/// How many verified tokens a [`JwtAuthenticator`](crate::jwt::JwtAuthenticator) remembers, and how.
///
/// A remembered token costs a look-up: no decoding, no signature check. It is found by a hash of its last 32 characters under
/// a key that is random in each process, and compared as a whole. What the look-up answers is what a verification would
/// answer: nothing is served at or past `exp` and leeway, before `nbf` and `iat`, or once the issuer's keys have changed. Only
/// tokens that passed are remembered; refused ones never enter.
///
/// # Bounds
/// - [`max_entries`](Self::max_entries) tokens. The table takes 26 bytes for each at the start: 0.4 MB by default.
/// - [`max_bytes`](Self::max_bytes) for tokens and principals, claims included, taken as they come: about 1.5 KB for a token
///   of 700 characters. Not counted are the types that handlers read claims into ([`Principal::claims_shared`]), nor what a policy
///   reads that asks for claims: three to five times their text, and up to sixteen times that of a list of small numbers.
///
/// Beyond either bound an entry is evicted that was not asked for lately; its token is verified again when it comes back. A
/// client that holds many good tokens can displace those of others that come once in a while, not those that come often, and
/// costs them a signature check at most.
///
/// ```
/// use portcullis::jwt::TokenCache;
///
/// // Ten times the tokens; no token in memory, for 0.3 to 0.5 us a request.
/// let cache = TokenCache::new().max_entries(163_840).max_bytes(320 << 20).digest_keys();
/// # let _ = cache;
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct TokenCache {
    max_entries: usize,
    max_bytes: usize,
    digest_keys: bool,
}

/// The most entries that a cache may have: 107 MB of table.
const MAX_ENTRIES: usize = 1 << 22;
/// The most bytes that a cache may have: 64 GiB, as many entries of 16 KiB each. On machines of 32 bits the type is the bound.
const MAX_BYTES: usize = MAX_ENTRIES.saturating_mul(16 << 10);

impl TokenCache {
    /// The number of entries unless you say another: 16 384.
    pub const DEFAULT_ENTRIES: usize = 16_384;
    /// The number of bytes unless you say another: 32 MiB.
    pub const DEFAULT_BYTES: usize = 32 << 20;

    /// A cache of the default size.
    pub const fn new() -> Self {
        Self { max_entries: Self::DEFAULT_ENTRIES, max_bytes: Self::DEFAULT_BYTES, digest_keys: false }
    }

    /// Sets the most tokens that are remembered, 1 to 4 194 304. Default [`DEFAULT_ENTRIES`](Self::DEFAULT_ENTRIES).
    pub const fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets the most bytes that tokens and principals may take, besides the table: 1 to 68 719 476 736 (64 GiB). Default
    /// [`DEFAULT_BYTES`](Self::DEFAULT_BYTES). A token that does not fit alone is not remembered.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Keeps the SHA-256 of each token in place of the token, for 0.3 to 0.5 us a request. By default the token itself is
    /// kept, and wiped with the last clone of its principal. The principal keeps the claims either way.
    pub const fn digest_keys(mut self) -> Self {
        self.digest_keys = true;
        self
    }

    /// Makes a cache whose keys are digests already.
    #[cfg(feature = "introspection")]
    pub(super) fn build_for_digests(&self) -> Result<Cache, ConfigError> {
        self.build().map(|cache| Cache { digest_keys: false, ..cache })
    }

    /// Makes the cache.
    pub(super) fn build(&self) -> Result<Cache, ConfigError> {
        if self.max_entries == 0 || self.max_entries > MAX_ENTRIES {
            let value = self.max_entries.to_string();
            return Err(ConfigError::new("entries of the token cache", value, "is not 1 to 4194304"));
        }
        if self.max_bytes == 0 {
            return Err(ConfigError::new("bytes of the token cache", "0", "leaves no room: say without_cache()"));
        }
        if self.max_bytes > MAX_BYTES {
            let value = self.max_bytes.to_string();
            return Err(ConfigError::new("bytes of the token cache", value, "is above 68719476736: no bound at all"));
        }
        Ok(Cache {
            table: Table::new(self.max_entries, self.max_bytes),
            misses: AtomicU64::new(0),
            seed: RandomState::default(),
            digest_keys: self.digest_keys,
        })
    }
}

impl Default for TokenCache {
    fn default() -> Self {
        Self::new()
    }
}

/// What a cache of verified tokens has done since it was made, and holds now. Read without a lock: while requests run, the
/// numbers may be of slightly different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Tokens that were found.
    pub hits: u64,
    /// Tokens that were not found, and were verified; those that were refused are among them.
    pub misses: u64,
    /// Entries dropped for want of room. What ended, or was verified by keys that are gone, does not count.
    pub evictions: u64,
    /// Entries now, at most [`TokenCache::max_entries`].
    pub entries: usize,
    /// Bytes of tokens and principals now, at most [`TokenCache::max_bytes`].
    pub bytes: usize,
}

/// The cache of one authenticator and its clones.
pub(super) struct Cache {
    table: Table,
    misses: AtomicU64,
    seed: RandomState,
    digest_keys: bool,
}

impl Cache {
    /// The principal of a token that was verified and still is good: its time has come and not ended, and the keys of its
    /// issuer are of the generation that verified it.
    pub(super) fn get(
        &self,
        token: &[u8],
        at: Instants,
        generation: impl Fn(usize) -> Option<u64>,
    ) -> Option<Principal> {
        let (hash, key) = self.key(token)?;
        self.table.get(hash, key.bytes(), at.unix_nanos(), generation)
    }

    /// Counts a token that was not found, and is verified.
    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    /// Finishes the principal of a token that was just verified, and remembers it.
    pub(super) fn insert(&self, token: &[u8], principal: PrincipalBuilder, terms: Terms, at: Instants) -> Principal {
        let Some((hash, key)) = self.key(token) else { return principal.build() };
        let principal = principal.keep(terms, key.bytes());
        self.table.insert(hash, key.bytes(), principal.clone(), at.unix_nanos());
        principal
    }

    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.table.hits(),
            misses: self.misses.load(Relaxed),
            evictions: self.table.evictions(),
            entries: self.table.entries(),
            bytes: self.table.bytes(),
        }
    }

    /// What a token is kept under, and its hash. Text that is shorter than a signature is no token.
    fn key<'t>(&self, token: &'t [u8]) -> Option<(u64, Key<'t>)> {
        let (_, tail) = token.split_last_chunk::<TAIL>()?;
        Some(if self.digest_keys {
            let digest = sha256(token);
            (self.hash(&digest), Key::Digest(digest))
        } else {
            (self.hash(tail), Key::Token(token))
        })
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

enum Key<'t> {
    Token(&'t [u8]),
    Digest([u8; 32]),
}

impl Key<'_> {
    const fn bytes(&self) -> &[u8] {
        match self {
            Self::Token(token) => token,
            Self::Digest(digest) => digest,
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_make_no_sense() {
        assert!(TokenCache::new().build().is_ok());
        for (name, cache) in [
            ("no entry", TokenCache::new().max_entries(0)),
            ("too many", TokenCache::new().max_entries(MAX_ENTRIES + 1)),
            ("no byte", TokenCache::new().max_bytes(0)),
        ] {
            assert!(cache.build().is_err(), "{name}");
        }
    }

    #[test]
    fn the_table_takes_what_the_docs_say() {
        for entries in [TokenCache::DEFAULT_ENTRIES, MAX_ENTRIES] {
            assert_eq!(Table::bytes_of_table(entries) / entries, 25);
        }
    }
}
