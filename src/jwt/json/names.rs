//! The names of the members of all objects that are open, the innermost last.

use std::borrow::Cow;

use smallvec::SmallVec;

/// Up to here a name is compared with those before it, if it may be one of them. More are sorted in the end, so that an object
/// of thousands of members stays cheap.
const FEW: usize = 32;

/// Up to here they need no memory of their own.
const INLINE: usize = 16;

#[derive(Default)]
pub(super) struct Names<'de>(SmallVec<[Cow<'de, str>; INLINE]>);

/// An object whose members are being read.
pub(super) struct Object {
    first: usize,
    /// A bit for each name so far. Two names may have the same.
    marks: u64,
}

impl<'de> Names<'de> {
    pub(super) fn open(&self) -> Object {
        Object { first: self.0.len(), marks: 0 }
    }

    /// Adds a name of the innermost object. True if it is known to stand twice; [`close`](Self::close) has the last word.
    #[inline(always)]
    pub(super) fn add(&mut self, object: &mut Object, name: Cow<'de, str>) -> bool {
        let mark = mark(name.as_bytes());
        if object.marks & mark != 0
            && let Some(known) = self.0.get(object.first..)
            && known.len() <= FEW
            && known.contains(&name)
        {
            return true;
        }
        object.marks |= mark;
        self.0.push(name);
        false
    }

    /// Takes the innermost object's names off. True if one stood twice.
    pub(super) fn close(&mut self, object: Object) -> bool {
        let mut twice = false;
        if let Some(names) = self.0.get_mut(object.first..)
            && names.len() > FEW
        {
            names.sort_unstable();
            twice = names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        }
        self.0.truncate(object.first);
        twice
    }
}

/// One bit, chosen by length and by the first, middle and last byte.
#[inline(always)]
fn mark(name: &[u8]) -> u64 {
    let middle = name.get(name.len() / 2).copied().unwrap_or_default();
    let (first, last) = (name.first().copied().unwrap_or_default(), name.last().copied().unwrap_or_default());
    let [length, ..] = name.len().to_le_bytes();
    // The upper bits of the product depend on all of them (Knuth's multiplicative hash).
    let spread = u32::from_le_bytes([length, first, middle, last]).wrapping_mul(0x9e37_79b1);
    1 << (spread >> 26)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn twice_is_told_however_many_there_are(
            names in proptest::collection::vec("[ab]{0,5}|[a-z]{300}", 0..60),
            outer in 0_usize..3,
        ) {
            let mut kept = Names::default();
            let mut around = kept.open();
            for name in ["a", "b", "aa"].into_iter().take(outer) {
                prop_assert!(!kept.add(&mut around, name.into()));
            }
            let mut object = kept.open();
            let known = names.iter().any(|name| kept.add(&mut object, name.as_str().into()));
            let distinct = names.iter().collect::<std::collections::HashSet<_>>().len();
            prop_assert_eq!(known || kept.close(object), distinct < names.len());
            prop_assert!(known || kept.0.len() == outer);
        }
    }
}
