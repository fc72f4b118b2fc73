//! The answer that may be there at once.

/// What the `*_now` twin of a trait's method returns: the answer, or word that only the `async` method has it.
///
/// An answer that is in memory costs no box and no await; a backend that must ask somebody else says [`Wait`](Self::Wait).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: the answer is here or it is not")]
pub enum Now<T> {
    /// The answer.
    Known(T),
    /// The answer takes waiting: call the `async` twin.
    Wait,
}

impl<T> Now<T> {
    /// Maps the answer, if it is here.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Now<U> {
        match self {
            Self::Known(value) => Now::Known(f(value)),
            Self::Wait => Now::Wait,
        }
    }
}
