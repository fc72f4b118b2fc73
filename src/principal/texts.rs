//! Strings of a principal, in one piece of memory.

use std::{fmt, ops::Range, slice};

/// A part of a text, or of a list. A principal has many, so they are kept small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// None where 32 bits are not enough.
    pub(super) fn new(start: usize, len: usize) -> Option<Self> {
        Some(Self { start: start.try_into().ok()?, len: len.try_into().ok()? })
    }

    fn range(self) -> Option<Range<usize>> {
        let start = usize::try_from(self.start).ok()?;
        Some(start..start.saturating_add(usize::try_from(self.len).ok()?))
    }

    pub(super) fn of(self, text: &str) -> &str {
        self.range().and_then(|range| text.get(range)).unwrap_or_default()
    }

    pub(super) fn among(self, spans: &[Self]) -> &[Self] {
        self.range().and_then(|range| spans.get(range)).unwrap_or_default()
    }
}

/// Strings of a [`Principal`](crate::Principal): its scopes, or its roles. An iterator over them, in their order.
///
/// ```
/// use portcullis::{Principal, PrincipalKind};
///
/// let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").roles(["clerk", "buyer"]).build();
/// assert_eq!(alice.roles(), ["clerk", "buyer"]);
/// assert!(alice.roles().contains("clerk"));
/// assert_eq!(alice.roles().map(str::len).max(), Some(5));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Texts<'a> {
    text: &'a str,
    spans: slice::Iter<'a, Span>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(text: &'a str, spans: &'a [Span]) -> Self {
        Self { text, spans: spans.iter() }
    }

    /// All of them once more.
    pub fn iter(&self) -> Self {
        self.clone()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.as_slice().is_empty()
    }

    /// Whether this is one of them, byte for byte.
    #[must_use]
    pub fn contains(&self, wanted: &str) -> bool {
        self.iter().any(|text| text == wanted)
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.spans.next().map(|span| span.of(self.text))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl ExactSizeIterator for Texts<'_> {}

impl PartialEq for Texts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Texts<'_> {}

impl<T: AsRef<str>, const N: usize> PartialEq<[T; N]> for Texts<'_> {
    fn eq(&self, other: &[T; N]) -> bool {
        self.iter().eq(other.iter().map(AsRef::as_ref))
    }
}

impl fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_fits_nothing_is_empty() {
        assert_eq!(Span::new(1, 2).map(|span| span.of("abcd")), Some("bc"));
        assert_eq!(Span::new(3, 2).map(|span| span.of("abcd")), Some(""), "past the end");
        assert_eq!(Span::new(usize::MAX, 1), None);
        assert_eq!(Span::new(0, 1 << 32), None);
    }
}
