//! A revocation as the places that processes share keep it.

#[cfg(feature = "revocation-redis")]
use std::fmt::Write;

#[cfg(any(feature = "revocation-postgres", feature = "revocation-redis"))]
use aws_lc_rs::digest::{Digest, SHA256, digest};

use super::{Revocation, RevocationKind, RevocationLimits};
use crate::clock::Instants;

/// The last second of the year 9999: the latest end.
const LATEST: u64 = 253_402_300_799;

/// What is kept: numbers that are merged to the larger, beside what never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: &'static str,
    pub(super) issuer: String,
    pub(super) value: String,
    pub(super) issued_until: u64,
    pub(super) until: u64,
}

impl Entry {
    /// Stands for "whenever issued". The largest number that every place keeps exactly.
    pub(super) const ALWAYS: u64 = (1 << 53) - 1;

    pub(super) fn new(revocation: &Revocation, limits: &RevocationLimits, at: Instants) -> Self {
        Self {
            kind: revocation.kind().as_str(),
            issuer: revocation.issuer().to_owned(),
            value: revocation.value().to_owned(),
            issued_until: revocation.last_issue().map_or(Self::ALWAYS, |second| second.min(Self::ALWAYS)),
            until: revocation.end_with(limits, at).min(LATEST),
        }
    }

    /// None if it is nothing that this release knows.
    pub(super) fn read(kind: &str, issuer: &str, value: &str, issued_until: u64, until: u64) -> Option<Revocation> {
        let kind = RevocationKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        let revocation = Revocation::new(kind, issuer, value).ok()?.until(until);
        Some(if issued_until >= Self::ALWAYS { revocation } else { revocation.issued_until(issued_until) })
    }

    /// `kind NUL issuer NUL value`: no two say the same of different things.
    #[cfg(any(feature = "revocation-postgres", feature = "revocation-redis"))]
    pub(super) fn what(&self) -> String {
        format!("{}\0{}\0{}", self.kind, self.issuer, self.value)
    }

    /// Reads `issued_until end kind NUL issuer NUL value`.
    #[cfg(feature = "revocation-redis")]
    pub(super) fn read_text(text: &str) -> Option<Revocation> {
        let (issued_until, rest) = text.split_once(' ')?;
        let (until, what) = rest.split_once(' ')?;
        let (kind, rest) = what.split_once('\0')?;
        let (issuer, value) = rest.split_once('\0')?;
        Self::read(kind, issuer, value, issued_until.parse().ok()?, until.parse().ok()?)
    }

    /// The last second of issue; none if it does not matter.
    #[cfg(any(feature = "revocation-postgres", feature = "revocation-sqlite"))]
    pub(super) fn last_issue(&self) -> Option<u64> {
        (self.issued_until < Self::ALWAYS).then_some(self.issued_until)
    }

    /// What it is kept under: SHA-256.
    #[cfg(any(feature = "revocation-postgres", feature = "revocation-redis"))]
    pub(super) fn digest(&self) -> Digest {
        digest(&SHA256, self.what().as_bytes())
    }

    /// The same in hexadecimal digits.
    #[cfg(feature = "revocation-redis")]
    pub(super) fn id(&self) -> String {
        self.digest().as_ref().iter().fold(String::with_capacity(64), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instants = Instants::new(1_800_000_000_000_000_000, 0);

    #[test]
    fn what_is_kept_is_read_as_it_was() {
        let limits = RevocationLimits::new();
        for (revocation, end) in [
            (Revocation::token("https://id", "a b\n\"é").unwrap().until(9), 9),
            (Revocation::subject("i", "s", 7).unwrap(), 1_800_086_400),
            (Revocation::session("i", "s").unwrap().until(u64::MAX), LATEST),
            (Revocation::client("i", "s").unwrap().issued_until(u64::MAX).until(1), 1),
            (Revocation::client("i", "s").unwrap().issued_until(7), 1_800_086_400),
            (Revocation::client("i", "s").unwrap(), LATEST),
            (Revocation::key("i", "s").unwrap(), LATEST),
        ] {
            let entry = Entry::new(&revocation, &limits, NOW);
            let read = Entry::read(entry.kind, &entry.issuer, &entry.value, entry.issued_until, entry.until).unwrap();
            assert_eq!(
                (read.kind(), read.issuer(), read.value()),
                (revocation.kind(), revocation.issuer(), revocation.value())
            );
            assert_eq!(read.last_issue(), revocation.last_issue().filter(|last| *last != u64::MAX));
            assert_eq!(read.end(), Some(end));
        }
        assert!(Entry::read("galaxy", "i", "s", 0, 0).is_none(), "of a later release");
        assert!(Entry::read("token", "", "s", 0, 0).is_none());
    }

    #[cfg(feature = "revocation-redis")]
    #[test]
    fn a_text_that_is_none_is_refused() {
        let good = "7 9 token\0i\0a b";
        assert_eq!(Entry::read_text(good), Some(Revocation::token("i", "a b").unwrap().issued_until(7).until(9)));
        for text in [
            "",
            "7 9 token\0i",
            "7 token\0i\0a",
            "x 9 token\0i\0a",
            "-7 9 token\0i\0a",
            "7 9 galaxy\0i\0a",
            "7 9 token\0i\0a\0b",
        ] {
            assert_eq!(Entry::read_text(text), None, "{text:?}");
        }
    }

    #[cfg(feature = "revocation-redis")]
    #[test]
    fn ids_tell_kinds_issuers_and_values_apart() {
        let limits = RevocationLimits::new();
        let id = |revocation: Revocation| Entry::new(&revocation, &limits, NOW).id();
        let ids = [
            id(Revocation::token("i", "a").unwrap()),
            id(Revocation::session("i", "a").unwrap()),
            id(Revocation::token("ia", "b").unwrap()),
            id(Revocation::token("i", "ab").unwrap()),
        ];
        assert!(ids.iter().enumerate().all(|(at, one)| !ids[at + 1..].contains(one)));
        assert_eq!(ids[0], id(Revocation::token("i", "a").unwrap().until(7).issued_until(1)), "numbers do not count");
        assert_eq!(ids[0].len(), 64);
    }
}
