//! The names of the members of all objects that are open, the innermost last.

use std::borrow::Cow;

/// Up to here names are compared by their marks, one with each other: faster than sorting.
const FEW: usize = 32;

#[derive(Default)]
pub(super) struct Names<'de> {
    names: Vec<Cow<'de, str>>,
    /// Of each name something that tells it from most others.
    marks: Vec<u32>,
}

impl<'de> Names<'de> {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    #[inline(always)]
    pub(super) fn push(&mut self, name: Cow<'de, str>) {
        if self.names.capacity() == 0 {
            self.names.reserve(FEW);
            self.marks.reserve(FEW);
        }
        self.marks.push(mark(name.as_bytes()));
        self.names.push(name);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.names.truncate(len);
        self.marks.truncate(len);
    }

    /// Whether any name stands twice among those from `first` on. Their order is lost; they are many, and sorted so that
    /// an object of thousands of members stays cheap.
    pub(super) fn any_twice_from(&mut self, first: usize) -> bool {
        let (Some(names), Some(marks)) = (self.names.get_mut(first..), self.marks.get(first..)) else { return false };
        if names.len() > FEW {
            names.sort_unstable();
            return names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        }
        let mut rest = marks;
        let mut place = 0_usize;
        while let Some((mark, others)) = rest.split_first() {
            // No way out of the loop: so the processor compares many marks at once.
            if others.iter().fold(false, |any, other| any | (other == mark)) && is_among(names, place) {
                return true;
            }
            rest = others;
            place = place.saturating_add(1);
        }
        false
    }
}

/// Whether the name at this place stands again behind it.
fn is_among(names: &[Cow<'_, str>], place: usize) -> bool {
    let mut rest = names.iter().skip(place);
    let name = rest.next();
    name.is_some_and(|name| rest.any(|other| other == name))
}

/// Length, and the first, middle and last byte.
#[inline(always)]
const fn mark(name: &[u8]) -> u32 {
    match name {
        [] => 0,
        [only] => u32::from_le_bytes([1, *only, 0, 0]),
        [first, .., last] => {
            let middle = match name.split_at_checked(name.len() / 2) {
                Some((_, [middle, ..])) => *middle,
                Some((_, [])) | None => 0,
            };
            #[expect(
                clippy::cast_possible_truncation,
                reason = "names of the same length have the same lowest byte of it"
            )]
            u32::from_le_bytes([name.len() as u8, *first, middle, *last])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn twice_is_told_however_many_there_are(names in proptest::collection::vec("[ab]{0,5}|[a-z]{300}", 0..60), outer in 0_usize..3) {
            let mut kept = Names::default();
            (0..outer).for_each(|_| kept.push("a".into()));
            names.iter().for_each(|name| kept.push(name.as_str().into()));
            let distinct = names.iter().collect::<std::collections::HashSet<_>>().len();
            prop_assert_eq!(kept.any_twice_from(outer), distinct < names.len());
            kept.truncate(outer);
            prop_assert_eq!(kept.len(), outer);
        }
    }
}
