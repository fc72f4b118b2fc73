//! The tokens of JSON (RFC 8259).

/// A place in a text. What cannot be read leaves it anywhere; whoever reads gives up then.
pub(super) struct Scan<'de> {
    text: &'de str,
    at: usize,
}

/// A number, as it is written.
#[derive(Clone, Copy, Debug)]
pub(in crate::jwt) struct Number<'de> {
    pub(in crate::jwt) text: &'de str,
    /// Digits and nothing else.
    pub(in crate::jwt) is_digits: bool,
}

impl<'de> Scan<'de> {
    pub(super) const fn new(text: &'de str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Reads this byte, if it is the next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.step();
        }
        is_next
    }

    /// Reads over white space (§2).
    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.step();
        }
    }

    /// Reads the rest of a string (§7) and its last quote. None, and nothing is read, if it has an escape or does not end.
    #[inline(always)]
    pub(super) fn plain(&mut self) -> Option<&'de str> {
        let bytes = self.text.as_bytes();
        let end = self.at.saturating_add(run(bytes.get(self.at..)?));
        if bytes.get(end) != Some(&b'"') {
            return None;
        }
        let text = self.text.get(self.at..end)?;
        self.at = end.saturating_add(1);
        Some(text)
    }

    /// Reads the rest of a string and its last quote.
    #[cold]
    pub(super) fn escaped(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let end = self.at.saturating_add(run(self.text.as_bytes().get(self.at..)?));
            text.push_str(self.text.get(self.at..end)?);
            self.at = end;
            if self.take(b'"') {
                return Some(text);
            }
            if !self.take(b'\\') {
                return None;
            }
            let escape = self.peek()?;
            self.step();
            text.push(match escape {
                b'"' | b'\\' | b'/' => char::from(escape),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.code()?,
                _ => return None,
            });
        }
    }

    /// Reads what stands behind `\u`: a character of the basic plane, or a pair of surrogates. A lone one is none.
    fn code(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        if !(self.take(b'\\') && self.take(b'u')) {
            return None;
        }
        let second = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000_u32.saturating_add((first & 0x3ff) << 10 | second))
    }

    /// Reads four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit << 4 | char::from(self.peek()?).to_digit(16)?;
            self.step();
        }
        Some(unit)
    }

    /// Reads a number (§6). None if there is none, or one that is out of the range of a double.
    pub(super) fn number(&mut self) -> Option<Number<'de>> {
        let start = self.at;
        let is_negative = self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut is_digits = !is_negative;
        if self.take(b'.') {
            is_digits = false;
            self.digits()?;
        }
        let mut may_be_large = false;
        if self.take(b'e') || self.take(b'E') {
            (is_digits, may_be_large) = (false, true);
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at)?;
        may_be_large |= text.len() > LARGE;
        if may_be_large && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return None;
        }
        Some(Number { text, is_digits })
    }

    /// Reads a number of ten digits and nothing else, as nearly all dates are. None, and nothing is read, if it is another one.
    pub(super) fn ten_digits(&mut self) -> Option<u64> {
        let (digits, after) = self.text.as_bytes().get(self.at..)?.split_first_chunk::<10>()?;
        if matches!(digits, [b'0', ..]) || matches!(after, [b'0'..=b'9' | b'.' | b'e' | b'E', ..]) {
            return None;
        }
        let number = digits.iter().try_fold(0_u64, |number, byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit < 10).then(|| number.wrapping_mul(10).wrapping_add(digit.into()))
        })?;
        self.at = self.at.saturating_add(digits.len());
        Some(number)
    }

    /// Reads digits, at least one.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.step();
        }
        (self.at != start).then_some(())
    }

    /// Reads `true`, `false` or `null`.
    pub(super) fn literal(&mut self) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let literal = ["true", "false", "null"].into_iter().find(|literal| rest.starts_with(literal))?;
        self.at = self.at.saturating_add(literal.len());
        Some(())
    }
}

/// A number without an exponent that has no more characters is below the largest double.
const LARGE: usize = 300;

/// How many bytes come before a quote, a backslash, a control character or the end.
#[inline(always)]
fn run(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut before = 0_usize;
    for word in words {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return before.saturating_add(stops.trailing_zeros() as usize / 8);
        }
        before = before.saturating_add(8);
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    before.saturating_add(rest.iter().position(ends).unwrap_or(rest.len()))
}

/// The highest bit of each of eight bytes that ends a run; exact up to the lowest of them, beyond which it may say too much.
const fn stops(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    /// The bytes below `bound`, for a bound of at most 128.
    const fn below(word: u64, bound: u64) -> u64 {
        word.wrapping_sub(ONES.wrapping_mul(bound)) & !word & (ONES << 7)
    }
    const fn equal(word: u64, byte: u8) -> u64 {
        below(word ^ ONES.wrapping_mul(byte as u64), 1)
    }
    below(word, 0x20) | equal(word, b'"') | equal(word, b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            let ends = byte < 0x20 || byte == b'"' || byte == b'\\';
            for length in 0..20 {
                let mut bytes = vec![b'a'; length];
                assert_eq!(run(&bytes), length);
                for place in 0..length {
                    bytes[place] = byte;
                    assert_eq!(run(&bytes), if ends { place } else { length }, "{byte:#x} at {place} of {length}");
                    for other in [b'"', b'\\', 0, 0x1f, 0x20, 0x80, 0xff] {
                        let mut two = bytes.clone();
                        two[length - 1] = other;
                        let first = two.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
                        assert_eq!(run(&two), first.unwrap_or(length), "{two:?}");
                    }
                    bytes[place] = b'a';
                }
            }
        }
    }
}
