//! Reads values further in, where claims are mapped.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

use super::{Keep, Shape, Skip, State, Text};
use crate::jwt::path::Branch;

/// Reads a value at this depth, strictly, and keeps what the branch leads to.
pub(super) struct Pick<'a, 'de> {
    pub(super) state: &'a mut State<'de>,
    pub(super) depth: u8,
    pub(super) branch: &'a Branch,
    pub(super) found: &'a mut Vec<(usize, Shape<'de>)>,
}

impl<'de> Pick<'_, 'de> {
    /// Keeps a value that is not an object. What should stand inside it is of the wrong type then, not missing.
    fn keep(self, shape: Shape<'de>) {
        self.branch.for_each_below(&mut |place| self.found.push((place, Shape::Other)));
        if let Some(place) = self.branch.place() {
            self.found.push((place, shape));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.branch.is_leaf() {
            let shape = Keep { state: &mut *self.state, depth: self.depth }.deserialize(deserializer)?;
            self.keep(shape);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_, 'de> {
    type Value = ();

    scalars!(self, (), self.keep(Shape::Other));

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.keep(Shape::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.keep(Shape::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let shape = Keep { state: &mut *self.state, depth: self.depth }.visit_seq(seq)?;
        self.keep(shape);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.state.deeper(self.depth)?;
        let first = self.state.names.len();
        if let Some(place) = self.branch.place() {
            self.found.push((place, Shape::Other));
        }
        while let Some(Text(name)) = map.next_key()? {
            match self.branch.below().find(&name) {
                Some(branch) => {
                    map.next_value_seed(Pick { state: &mut *self.state, depth, branch, found: &mut *self.found })?;
                }
                None => map.next_value_seed(Skip { state: &mut *self.state, depth })?,
            }
            self.state.add_name(name)?;
        }
        self.state.close(first)
    }
}
