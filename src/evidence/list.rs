//! A field that is a list, read from its end: each proxy appends to the right.

use std::iter::Rev;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{GetAll, ValueIter},
};

/// The most elements of one field, over all its lines.
pub(super) const MAX_ELEMENTS: usize = 64;
/// The most bytes of one field, over all its lines.
pub(super) const MAX_BYTES: usize = 8 * 1024;

/// A list of comma-separated elements over all lines of a field, within bounds.
pub(super) struct List<'a> {
    pub(super) rightmost_first: Elements<'a>,
    pub(super) len: usize,
}

impl<'a> List<'a> {
    /// `X-Forwarded-For`, `-Proto` and `-Host`, found in one pass: to look each of them up would take longer. None in place
    /// of a list that is longer than anything that proxies write.
    pub(super) fn of_family(headers: &'a HeaderMap, mut other: impl FnMut(&HeaderName)) -> [Option<Self>; 3] {
        let mut found = [const { Some(Self { rightmost_first: Elements { line: None, lines: None }, len: 0 }) }; 3];
        for (name, value) in headers {
            let [chain, schemes, hosts] = &mut found;
            let list = match name.as_str() {
                "x-forwarded-for" => chain,
                "x-forwarded-proto" => schemes,
                "x-forwarded-host" => hosts,
                _ => {
                    other(name);
                    continue;
                }
            };
            match list {
                Some(List { len: 0, .. }) => *list = Self::of_line(value),
                // Of a second line on, all of them are looked at anew.
                Some(_) => *list = Self::of_lines(headers.get_all(name)),
                None => {}
            }
        }
        found
    }

    fn of_line(line: &'a HeaderValue) -> Option<Self> {
        let len = elements_of(line)?;
        (len <= MAX_ELEMENTS)
            .then_some(Self { rightmost_first: Elements { line: Some(line.as_bytes()), lines: None }, len })
    }

    fn of_lines(lines: GetAll<'a, HeaderValue>) -> Option<Self> {
        let (mut bytes, mut len) = (0_usize, 0_usize);
        for line in &lines {
            bytes = bytes.saturating_add(line.len());
            if bytes > MAX_BYTES {
                return None;
            }
            len = len.saturating_add(elements_of(line)?);
        }
        (len <= MAX_ELEMENTS)
            .then(|| Self { rightmost_first: Elements { line: None, lines: Some(lines.iter().rev()) }, len })
    }

    /// What the same hop said that wrote the element at `position` of the chain, counted from the right.
    ///
    /// A lone value was written by the outermost proxy and passed on by the others. A longer list has one element for
    /// each hop; one that is too short for this hop says nothing.
    pub(super) fn at(mut self, position: usize) -> Option<&'a str> {
        let position = if self.len == 1 { 0 } else { position };
        std::str::from_utf8(self.rightmost_first.nth(position)?).ok()
    }
}

/// How many elements a line has. None if it is too long.
fn elements_of(line: &HeaderValue) -> Option<usize> {
    let commas = line.as_bytes().iter().filter(|byte| **byte == b',').count();
    (line.len() <= MAX_BYTES).then(|| commas.saturating_add(1))
}

/// Elements from the last to the first, without white space around them.
pub(super) struct Elements<'a> {
    /// What is left of the line.
    line: Option<&'a [u8]>,
    lines: Option<Rev<ValueIter<'a, HeaderValue>>>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = match self.line.take() {
            Some(line) => line,
            None => self.lines.as_mut()?.next()?.as_bytes(),
        };
        let element = match line.iter().rposition(|byte| *byte == b',').and_then(|comma| line.split_at_checked(comma)) {
            Some((before, from_comma)) => {
                self.line = Some(before);
                from_comma.get(1..).unwrap_or_default()
            }
            None => line,
        };
        Some(element.trim_ascii())
    }
}
