//! Strict reading of one JSON object (RFC 8259), without building a tree: what no reader may see in two ways is refused.
//!
//! Refused: anything but one object, bytes before or after it, members that stand twice at any depth (RFC 7515 §4, RFC 7519
//! §4), NUL in a member's name, lone surrogates, numbers out of range, and nesting below [`MAX_DEPTH`].
//!
//! Claims are read here and not by `serde_json`, which took more than half of what a token costs besides its signature. The
//! tests hold the two against each other: this one takes what that one takes, and reads the same, less what is listed above.

mod names;
#[cfg(test)]
mod oracle;
mod scan;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, time::Duration};

use smallvec::SmallVec;

use crate::jwt::{Refusal, date, path::Branch};
use names::Names;
pub(super) use scan::Number;
use scan::Scan;

/// The object itself is the first level.
pub(super) const MAX_DEPTH: u8 = 16;

const TOO_DEEP: Refusal = Refusal("JSON is nested too deep");
const TWICE: Refusal = Refusal("a JSON member stands twice");
const NUL: Refusal = Refusal("NUL in a member name");

/// Takes the members of the outermost object.
pub(super) trait Members<'de> {
    /// Must read the value, or [skip](Value::skip) it.
    fn member(&mut self, name: &str, value: Value<'_, 'de>) -> Result<(), Refusal>;
}

/// Reads one object. Memory is bounded by a small multiple of the text.
pub(super) fn read<'de>(text: &'de str, members: &mut impl Members<'de>, malformed: Refusal) -> Result<(), Refusal> {
    if !(text.starts_with('{') && text.ends_with('}')) {
        return Err(malformed);
    }
    let mut reader = Reader { scan: Scan::new(text), names: Names::default(), malformed };
    reader.object(|reader, name| members.member(name, Value { reader, depth: 1 }))?;
    if reader.scan.is_at_end() { Ok(()) } else { Err(malformed) }
}

struct Reader<'de> {
    scan: Scan<'de>,
    /// Of all objects that are open, the innermost last.
    names: Names<'de>,
    malformed: Refusal,
}

impl<'de> Reader<'de> {
    /// Reads an object. Its members' values are read by `member`.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.expect(b'{')?;
        let mut object = self.names.open();
        self.scan.space();
        if !self.scan.take(b'}') {
            loop {
                self.expect(b'"')?;
                let name = self.string()?;
                // Control characters only get into a string as escapes, and a string with escapes is not borrowed.
                if matches!(&name, Cow::Owned(name) if name.contains('\0')) {
                    return Err(NUL);
                }
                self.scan.space();
                self.expect(b':')?;
                self.scan.space();
                member(self, &name)?;
                if self.names.add(&mut object, name) {
                    return Err(TWICE);
                }
                if self.ends_with(b'}')? {
                    break;
                }
            }
        }
        if self.names.close(object) { Err(TWICE) } else { Ok(()) }
    }

    /// Reads an array. Its elements are read by `element`.
    fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.expect(b'[')?;
        self.scan.space();
        if !self.scan.take(b']') {
            loop {
                element(self)?;
                if self.ends_with(b']')? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What stands behind a member or an element: the end, or a comma and the next one.
    fn ends_with(&mut self, end: u8) -> Result<bool, Refusal> {
        self.scan.space();
        if self.scan.take(b',') {
            self.scan.space();
            return Ok(false);
        }
        self.expect(end).map(|()| true)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.scan.take(byte) { Ok(()) } else { Err(self.malformed) }
    }

    /// Reads a string whose first quote is read.
    #[inline(always)]
    fn string(&mut self) -> Result<Cow<'de, str>, Refusal> {
        // In line, and the plain case by itself: what is handed on in memory is waited for.
        match self.scan.plain() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.scan.escaped().map(Cow::Owned).ok_or(self.malformed),
        }
    }

    fn number(&mut self) -> Result<Number<'de>, Refusal> {
        self.scan.number().ok_or(self.malformed)
    }

    /// Reads over a value at this depth, strictly.
    fn skip(&mut self, depth: u8) -> Result<(), Refusal> {
        match self.scan.peek() {
            Some(b'"') => {
                self.expect(b'"')?;
                self.string().map(drop)
            }
            Some(b'{') => {
                let depth = deeper(depth)?;
                self.object(|reader, _| reader.skip(depth))
            }
            Some(b'[') => {
                let depth = deeper(depth)?;
                self.array(|reader| reader.skip(depth))
            }
            Some(b't' | b'f' | b'n') => self.scan.literal().ok_or(self.malformed),
            _ => self.number().map(drop),
        }
    }

    /// Reads a value at this depth, strictly, and keeps the text in it.
    fn keep(&mut self, depth: u8) -> Result<Shape<'de>, Refusal> {
        match self.scan.peek() {
            Some(b'"') => {
                self.expect(b'"')?;
                self.string().map(Shape::Text)
            }
            Some(b'[') => {
                let depth = deeper(depth)?;
                let (mut texts, mut only_texts) = (Vec::new(), true);
                self.array(|reader| {
                    match reader.keep(depth)? {
                        Shape::Text(text) => texts.push(text),
                        Shape::Texts(_) | Shape::Other => only_texts = false,
                    }
                    Ok(())
                })?;
                Ok(if only_texts { Shape::Texts(texts) } else { Shape::Other })
            }
            _ => self.skip(depth).map(|()| Shape::Other),
        }
    }

    /// Reads a value at this depth, strictly, and keeps what the branch leads to.
    fn pick(&mut self, depth: u8, branch: &Branch, found: &mut Found<'de>) -> Result<(), Refusal> {
        if branch.is_leaf() || self.scan.peek() != Some(b'{') {
            let shape = self.keep(depth)?;
            // What should stand inside is of the wrong type then, not missing.
            branch.for_each_below(&mut |place| found.push((place, Shape::Other)));
            if let Some(place) = branch.place() {
                found.push((place, shape));
            }
            return Ok(());
        }
        let depth = deeper(depth)?;
        found.extend(branch.place().map(|place| (place, Shape::Other)));
        self.object(|reader, name| match branch.below().find(name) {
            Some(branch) => reader.pick(depth, branch, found),
            None => reader.skip(depth),
        })
    }
}

const fn deeper(depth: u8) -> Result<u8, Refusal> {
    if depth < MAX_DEPTH { Ok(depth.saturating_add(1)) } else { Err(TOO_DEEP) }
}

/// The value of a member that is being read.
pub(super) struct Value<'r, 'de> {
    reader: &'r mut Reader<'de>,
    /// How many objects and arrays it stands in.
    depth: u8,
}

impl<'de> Value<'_, 'de> {
    /// Reads a value that must be a string.
    #[inline(always)]
    pub(super) fn text(self, refusal: Refusal) -> Result<Cow<'de, str>, Refusal> {
        if self.reader.scan.take(b'"') { self.reader.string() } else { Err(refusal) }
    }

    /// Reads a value that must be a string or an array of strings.
    pub(super) fn texts(self, refusal: Refusal) -> Result<Shape<'de>, Refusal> {
        match self.reader.keep(self.depth)? {
            Shape::Other => Err(refusal),
            shape => Ok(shape),
        }
    }

    /// Reads a value that must be a NumericDate.
    pub(super) fn date(self, refusal: Refusal) -> Result<Duration, Refusal> {
        match self.reader.scan.ten_digits() {
            Some(seconds) => Ok(Duration::from_secs(seconds)),
            None => self.reader.scan.number().as_ref().and_then(date::of).ok_or(refusal),
        }
    }

    /// Reads a value that must be an object.
    pub(super) fn object(self, members: &mut impl Members<'de>, refusal: Refusal) -> Result<(), Refusal> {
        if self.reader.scan.peek() != Some(b'{') {
            return Err(refusal);
        }
        let depth = deeper(self.depth)?;
        self.reader.object(|reader, name| members.member(name, Value { reader, depth }))
    }

    /// Reads a value of any type. Whether it is `true`.
    #[cfg(feature = "introspection")]
    pub(super) fn reads_true(self) -> Result<bool, Refusal> {
        let is_true = self.reader.scan.peek() == Some(b't');
        self.reader.skip(self.depth).map(|()| is_true)
    }

    /// Reads a value of any type, and keeps the text in it.
    #[cfg(feature = "introspection")]
    pub(super) fn shape(self) -> Result<Shape<'de>, Refusal> {
        self.reader.keep(self.depth)
    }

    /// Reads over a value.
    pub(super) fn skip(self) -> Result<(), Refusal> {
        self.reader.skip(self.depth)
    }

    /// Reads a value of any type, and keeps what the branch leads to: strings and arrays of strings as they are.
    pub(super) fn pick(self, branch: &Branch, found: &mut Found<'de>) -> Result<(), Refusal> {
        self.reader.pick(self.depth, branch, found)
    }
}

/// Values, and the places of the claims that they are.
pub(super) type Found<'de> = SmallVec<[(usize, Shape<'de>); 4]>;

/// A value of which only text is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape<'de> {
    Text(Cow<'de, str>),
    Texts(Vec<Cow<'de, str>>),
    Other,
}
