//! What revocations find a token by: hashes of its facts, worked out once, when the token is verified.

use std::{
    hash::BuildHasher,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::quality::RandomState;

/// What a revocation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevocationKind {
    /// One token, by its `jti`.
    Token,
    /// A session at the provider, by its `sid`.
    Session,
    /// Whoever has this `sub`.
    Subject,
    /// The application that got the token, by its `client_id`, its `azp` or what the issuer calls it.
    Client,
    /// The key that signed, by its `kid` in the issuer's key set.
    Key,
}

impl RevocationKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Token, Self::Session, Self::Subject, Self::Client, Self::Key];

    /// The kind in lower case, as records show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Subject => "subject",
            Self::Client => "client",
            Self::Key => "key",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Token => 0,
            Self::Session => 1,
            Self::Subject => 2,
            Self::Client => 3,
            Self::Key => 4,
        }
    }
}

/// The facts of a token that it can be revoked by, as hashes under a key that is random in each process. Made by
/// authenticators; a revocation of another issuer never meets it.
///
/// Hashes of 64 bits stand for the facts: among 100 000 revocations a good token is taken for a revoked one with a chance of
/// 3 in 10^14. The other way round there is no mistake.
///
/// ```
/// use portcullis::{Principal, PrincipalKind, revocation::TokenMarks};
///
/// let marks = TokenMarks::new("https://id.example.com").token("4711").subject("alice").issued_at(1_800_000_000);
/// let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "session").marks(marks).build();
/// # let _ = alice;
/// ```
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMarks {
    issuer: u64,
    /// By the place of the kind; zero where the token has no such fact.
    hashes: [u64; 5],
    issued_at: u64,
}

static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

fn issuer_mark(issuer: &str) -> u64 {
    SEED.hash_one(issuer)
}

fn mark(kind: RevocationKind, issuer: u64, value: &str) -> u64 {
    SEED.hash_one((kind.place(), issuer, value)).max(1)
}

/// The hash that a revocation is kept under.
pub(crate) fn mark_of(kind: RevocationKind, issuer: &str, value: &str) -> u64 {
    mark(kind, issuer_mark(issuer), value)
}

impl TokenMarks {
    /// Starts with the issuer, as the principal names it, and nothing that could be revoked.
    pub fn new(issuer: &str) -> Self {
        Self { issuer: issuer_mark(issuer), hashes: [0; 5], issued_at: 0 }
    }

    /// Sets the token's id: `jti`.
    pub fn token(self, jti: &str) -> Self {
        self.with(RevocationKind::Token, jti)
    }

    /// Sets the session: `sid`.
    pub fn session(self, sid: &str) -> Self {
        self.with(RevocationKind::Session, sid)
    }

    /// Sets the subject: `sub`.
    pub fn subject(self, sub: &str) -> Self {
        self.with(RevocationKind::Subject, sub)
    }

    /// Sets the client: `client_id`, `azp` or what the issuer calls it.
    pub fn client(self, client_id: &str) -> Self {
        self.with(RevocationKind::Client, client_id)
    }

    /// Sets the key that verified the token, whatever the token's header says.
    pub fn key(self, kid: &str) -> Self {
        self.with(RevocationKind::Key, kid)
    }

    /// Sets when the token was issued, in seconds since the Unix epoch. Default 0: a revocation of everything issued before
    /// some moment meets the token.
    pub const fn issued_at(mut self, unix_seconds: u64) -> Self {
        self.issued_at = unix_seconds;
        self
    }

    fn with(mut self, kind: RevocationKind, value: &str) -> Self {
        if let Some(hash) = self.hashes.get_mut(kind.place()) {
            *hash = mark(kind, self.issuer, value);
        }
        self
    }

    pub(crate) const fn issue_time(&self) -> u64 {
        self.issued_at
    }

    /// The hashes that there are.
    pub(crate) fn each(&self) -> impl Iterator<Item = (RevocationKind, u64)> {
        RevocationKind::ALL.into_iter().zip(self.hashes).filter(|(_, hash)| *hash != 0)
    }
}

/// Under which state of the revocations a principal was last looked for and not found. It is no part of what a principal is:
/// a copy begins without.
#[derive(Default)]
pub(super) struct Cleared(AtomicU64);

impl Cleared {
    #[inline]
    pub(super) fn is_under(&self, generation: u64) -> bool {
        self.0.load(Relaxed) == generation
    }

    pub(super) fn note(&self, generation: u64) {
        self.0.store(generation, Relaxed);
    }
}

impl Clone for Cleared {
    fn clone(&self) -> Self {
        Self::default()
    }
}
