use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The id that this crate gives each request: unique in this process, and across processes with the odds of 64 random bits.
///
/// It is written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// No request's id; those begin at one.
    pub(crate) const NONE: Self = Self(0);

    /// Each thread takes many numbers at a time: threads that count together would wait for each other.
    pub(super) fn next() -> Self {
        const AT_A_TIME: u64 = 1 << 10;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        thread_local!(static LAST: Cell<u64> = const { Cell::new(0) });
        LAST.with(|last| {
            let mut number = last.get();
            if number % AT_A_TIME == 0 {
                number = NEXT.fetch_add(AT_A_TIME, Ordering::Relaxed);
            }
            last.set(number.wrapping_add(1));
            Self(number.wrapping_add(1))
        })
    }

    /// The half that all ids of this process share. Identification only: nothing trusts that it cannot be guessed.
    fn process() -> u64 {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        *PROCESS.get_or_init(|| RandomState::new().hash_one("portcullis"))
    }

    /// 32 hexadecimal digits. Every refusal and every record has them, and the formatter of the standard library takes longer
    /// for them than all checks together.
    pub(crate) fn digits(self) -> [u8; 32] {
        let mut rest = u128::from(Self::process()) << 64 | u128::from(self.0);
        let mut digits = [0; 32];
        for digit in digits.iter_mut().rev() {
            let [value, ..] = (rest & 0xf).to_le_bytes();
            *digit = if value < 10 { b'0'.wrapping_add(value) } else { b'a'.wrapping_add(value.wrapping_sub(10)) };
            rest >>= 4;
        }
        digits
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// As it is written.
impl serde::Serialize for RequestId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ() {
        let some = || (0..3000).map(|_| RequestId::next()).collect::<Vec<_>>();
        let (one, other) = std::thread::scope(|scope| {
            let (one, other) = (scope.spawn(some), scope.spawn(some));
            (one.join().unwrap(), other.join().unwrap())
        });
        let all: HashSet<_> = one.into_iter().chain(other).collect();
        assert_eq!(all.len(), 6000);
        let id = RequestId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), format!("{:016x}{:016x}", RequestId::process(), id.0));
    }
}
