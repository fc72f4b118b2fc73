//! What lets a cache of verified credentials find a principal again: the credential itself stands in the principal's own
//! piece of memory, so that a look-up touches one and no second.

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// When, and by whose keys, a credential is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The first nanosecond since the Unix epoch at which it is.
    pub(crate) from: u64,
    /// The first at which it is not any more.
    pub(crate) until: u64,
    /// The place of the issuer among the authenticator's.
    pub(crate) issuer: u32,
    /// Which keys of the issuer verified it.
    pub(crate) generation: u32,
}

impl Terms {
    /// None if a number is too large to be kept, and then the credential is not either: after 2^32 changes of keys.
    pub(crate) fn new(from: u64, until: u64, issuer: usize, generation: u64) -> Option<Self> {
        Some(Self { from, until, issuer: issuer.try_into().ok()?, generation: generation.try_into().ok()? })
    }

    pub(crate) fn are_of(&self, generation: impl FnOnce(usize) -> Option<u64>) -> bool {
        usize::try_from(self.issuer).ok().and_then(generation) == Some(u64::from(self.generation))
    }
}

/// How many words at the end of a key are compared in constant time: the last bytes of a signature, which nobody can choose.
const TAIL: usize = 4;

/// Eight bytes of a credential. Wiped on drop, with the last clone of its principal.
pub(super) struct Word(u64);

impl Word {
    const fn new(bytes: [u8; 8]) -> Self {
        Self(u64::from_ne_bytes(bytes))
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A key as words. What does not fill one comes first, so that the end of a key is whole words.
pub(super) fn words(key: &[u8]) -> impl ExactSizeIterator<Item = Word> {
    let (rest, chunks) = key.as_rchunks::<8>();
    let first = (!rest.is_empty()).then(|| padded(rest));
    let count = chunks.len().saturating_add(usize::from(first.is_some()));
    let mut words = first.into_iter().chain(chunks.iter().copied()).map(Word::new);
    // A chain does not know its length.
    (0..count).map(move |_| words.next().unwrap_or(Word::new([0; 8])))
}

fn padded(rest: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(rest) {
        *to = *from;
    }
    word
}

/// Compares all of a key whose length is the same. A key whose end differs is told in constant time; who knows the end of a
/// good signature, and thereby gets to the second comparison, has the credential.
pub(super) fn are_of(words: &[Word], key: &[u8]) -> bool {
    let (rest, chunks) = key.as_rchunks::<8>();
    let (Some((words, tail)), Some((chunks, key_tail))) =
        (words.split_last_chunk::<TAIL>(), chunks.split_last_chunk::<TAIL>())
    else {
        return false;
    };
    let tail = tail.each_ref().map(|word| word.0);
    if !bool::from(tail.ct_eq(&key_tail.map(u64::from_ne_bytes))) {
        return false;
    }
    let (first, words) = match words.split_first() {
        Some((first, words)) if !rest.is_empty() => (first.0 ^ u64::from_ne_bytes(padded(rest)), words),
        _ => (0, words),
    };
    let differ = |word: &Word, chunk: &[u8; 8]| word.0 ^ u64::from_ne_bytes(*chunk);
    // Without an early end, which the processor would take word by word.
    let rest = words.iter().zip(chunks).fold(first, |all, (word, chunk)| all | differ(word, chunk));
    words.len() == chunks.len() && rest == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        for length in 0..100_u8 {
            let key: Vec<u8> = (1..=length).collect();
            let kept: Vec<Word> = words(&key).collect();
            assert_eq!(are_of(&kept, &key), length >= 32, "{length}: shorter than a tail is never a key");
            for place in 0..key.len() {
                let mut other = key.clone();
                other[place] ^= 1;
                assert!(!are_of(&kept, &other), "{place} of {length}");
            }
            let longer = [key.as_slice(), &[0]].concat();
            assert!(length % 8 == 0 || !are_of(&kept, &longer[1..]), "{length}");
        }
    }
}
