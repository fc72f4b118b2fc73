//! Text that may stand in a record: bounded, and without characters that could forge a line or turn one around.

use std::{
    borrow::Cow,
    fmt::{Display, Write},
};

use http::Method;

use crate::{
    audit::{
        MAX_TEXT_LEN, Privacy,
        words::{self, below, beyond_ascii, is},
    },
    mention::Telling,
};

/// Cuts and escapes. Text that needs neither is borrowed.
///
/// Control characters, line separators, bidirectional controls and invisible format characters become `\u{…}` in lower-case
/// hexadecimal, and so does the backslash of a `\u{` that was there before: different texts stay different. The result has
/// at most `max` bytes and ends with `…` if it was cut.
pub(crate) fn clean(text: &str, max: usize) -> Cow<'_, str> {
    let unusual = |word| below(word, b' ') | is(word, b'\\') | is(word, DELETE) | beyond_ascii(word);
    if text.len() <= max && (!words::any(text, unusual) || !text.char_indices().any(|(at, c)| must_escape(text, at, c)))
    {
        return Cow::Borrowed(text);
    }
    let mut out = Bounded::new(max);
    for (at, c) in text.char_indices() {
        let taken = if must_escape(text, at, c) { out.push(c.escape_unicode()) } else { out.push(c) };
        if !taken {
            break;
        }
    }
    Cow::Owned(out.text)
}

/// A text of our own, clean, with who is mentioned in it as privacy has it shown.
pub(crate) fn told<'t>(
    told: &'t Telling,
    privacy: Option<&Privacy>,
    shown: impl Fn(&Privacy, &'t Telling) -> Cow<'t, str>,
) -> Cow<'t, str> {
    match privacy.map(|privacy| shown(privacy, told)) {
        None => clean(told.plain(), MAX_TEXT_LEN),
        Some(Cow::Borrowed(shown)) => clean(shown, MAX_TEXT_LEN),
        Some(Cow::Owned(shown)) => Cow::Owned(clean(&shown, MAX_TEXT_LEN).into_owned()),
    }
}

/// Writes the path of a request: as it was sent, but every byte that is not visible ASCII percent-encoded (RFC 3986 §2.1).
/// Allocates nothing where there is room in `out`.
pub(crate) fn path(out: &mut String, sent: &str, max: usize) {
    out.clear();
    if sent.len() <= max && !words::any(sent, |word| below(word, b'!') | is(word, DELETE) | beyond_ascii(word)) {
        out.push_str(sent);
        return;
    }
    let mut cut = Bounded { text: std::mem::take(out), max, fits: 0 };
    for byte in sent.bytes() {
        let taken =
            if byte.is_ascii_graphic() { cut.push(char::from(byte)) } else { cut.push(format_args!("%{byte:02X}")) };
        if !taken {
            break;
        }
    }
    *out = cut.text;
}

/// Keeps no more of a method than is shown: its length is a stranger's to choose, and so would be the memory of a queue.
pub(crate) fn method(out: &mut Method, sent: &Method) {
    let start = sent.as_str().get(..=MAX_TEXT_LEN).and_then(|start| Method::from_bytes(start.as_bytes()).ok());
    match start {
        Some(start) => *out = start,
        None => out.clone_from(sent),
    }
}

/// A clean text, cut shorter.
pub(crate) fn shorten(text: Cow<'_, str>, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text;
    }
    let room = max.saturating_sub(CUT.len_utf8());
    let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}{CUT}", text.get(..end).unwrap_or_default()))
}

/// A header value: bytes that are no UTF-8 become `\\x..`, and the rest is [clean].
pub(crate) fn header(value: &[u8], max: usize) -> String {
    let mut out = Bounded::new(max);
    for chunk in value.utf8_chunks() {
        let valid = chunk.valid();
        for (at, c) in valid.char_indices() {
            let taken = if must_escape(valid, at, c) { out.push(c.escape_unicode()) } else { out.push(c) };
            if !taken {
                return out.text;
            }
        }
        for byte in chunk.invalid() {
            if !out.push(format_args!("\\x{byte:02x}")) {
                return out.text;
            }
        }
    }
    out.text
}

/// A moment as records show it: RFC 3339, UTC, nine decimals.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    text: [u8; 32],
    len: usize,
}

impl Time {
    pub(crate) fn of(unix_nanos: u64) -> Self {
        const PRINTER: jiff::fmt::temporal::DateTimePrinter =
            jiff::fmt::temporal::DateTimePrinter::new().precision(Some(9));
        // u64 nanoseconds end in the year 2554, which jiff can tell in 30 bytes.
        let time = jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or(jiff::Timestamp::MAX);
        let mut shown = Self { text: [0; 32], len: 0 };
        let _ = PRINTER.print_timestamp(&time, jiff::fmt::StdFmtWrite(&mut shown));
        shown
    }

    pub(crate) fn as_str(&self) -> &str {
        self.text.get(..self.len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl Write for Time {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len.saturating_add(text.len());
        self.text.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

fn must_escape(text: &str, at: usize, c: char) -> bool {
    match c {
        '\\' => text.get(at..).is_some_and(|rest| rest.starts_with("\\u{")),
        // Default_Ignorable_Code_Point (Unicode 16, DerivedCoreProperties), line separators, interlinear annotations, and a
        // blank that counts as a symbol.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => c.is_control(),
    }
}

const CUT: char = '…';
const DELETE: u8 = 0x7f;

struct Bounded {
    text: String,
    max: usize,
    /// How much of it leaves room for the mark.
    fits: usize,
}

impl Bounded {
    const fn new(max: usize) -> Self {
        Self { text: String::new(), max, fits: 0 }
    }

    /// Adds a piece; false once the text is cut.
    fn push(&mut self, piece: impl Display) -> bool {
        if write!(self.text, "{piece}").is_err() || self.text.len() > self.max {
            self.text.truncate(self.fits);
            self.text.push(CUT);
            return false;
        }
        if self.text.len().saturating_add(CUT.len_utf8()) <= self.max {
            self.fits = self.text.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_method_is_kept_as_far_as_it_is_shown() {
        let mut kept = Method::GET;
        for (sent, length) in [(4, 4), (MAX_TEXT_LEN, MAX_TEXT_LEN), (300_000, MAX_TEXT_LEN + 1)] {
            method(&mut kept, &Method::from_bytes(&vec![b'A'; sent]).unwrap());
            assert_eq!(kept.as_str().len(), length);
        }
        method(&mut kept, &Method::POST);
        assert_eq!(kept, Method::POST);
    }

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        for (name, text, expected) in [
            ("plain", "alice", "alice"),
            ("letters of all scripts", "Zoë 花子", "Zoë 花子"),
            ("a domain's backslash", r"CORP\alice", r"CORP\alice"),
            ("line feed", "a\nb", r"a\u{a}b"),
            ("carriage return", "a\r\nb", r"a\u{d}\u{a}b"),
            ("escape sequence", "\u{1b}[31mred", r"\u{1b}[31mred"),
            ("c1 control", "\u{9b}31m", r"\u{9b}31m"),
            ("delete", "a\u{7f}", r"a\u{7f}"),
            ("right-to-left override", "a\u{202e}b", r"a\u{202e}b"),
            ("isolate", "\u{2066}", r"\u{2066}"),
            ("line separator", "a\u{2028}b", r"a\u{2028}b"),
            ("zero width", "a\u{200b}b", r"a\u{200b}b"),
            ("filler that looks like nothing", "alice\u{3164}", r"alice\u{3164}"),
            ("half-width filler", "alice\u{ffa0}", r"alice\u{ffa0}"),
            ("joiner of graphemes", "al\u{34f}ice", r"al\u{34f}ice"),
            ("variation selector", "alice\u{fe0f}", r"alice\u{fe0f}"),
            ("variation selector beyond the first plane", "alice\u{e0100}", r"alice\u{e0100}"),
            ("braille blank", "alice\u{2800}", r"alice\u{2800}"),
            ("an escape that was there before", r"a\u{a}b", r"a\u{5c}u{a}b"),
        ] {
            assert_eq!(clean(text, 256), expected, "{name}");
        }
    }

    #[test]
    fn moments_have_nine_decimals() {
        for (nanos, shown) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_800_000_000_000_000_001, "2027-01-15T08:00:00.000000001Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(Time::of(nanos).as_str(), shown);
        }
    }

    #[test]
    fn what_needs_no_change_is_borrowed() {
        assert!(matches!(clean("Zoë", 256), Cow::Borrowed(_)));
    }

    #[test]
    fn cut_text_says_so() {
        assert_eq!(clean("abcdefgh", 8), "abcdefgh");
        assert_eq!(clean("abcdefghi", 8), "abcde…");
        assert_eq!(clean("äöüäöü", 8), "äö…");
        assert_eq!(written_path(&"/a".repeat(600), 1024), format!("{}/…", "/a".repeat(510)));
        assert_eq!(shorten("abcdefgh".into(), 8), "abcdefgh");
        assert_eq!(shorten("abcdefghi".into(), 8), "abcde…");
        assert_eq!(shorten("äöüäöü".into(), 8), "äö…");
    }

    fn written_path(sent: &str, max: usize) -> String {
        let mut out = String::from("of another request");
        path(&mut out, sent, max);
        out
    }

    #[test]
    fn a_header_value_is_text_whatever_its_bytes_are() {
        for (sent, shown) in [
            (&b"curl/8.5"[..], "curl/8.5"),
            (b"a\xffb\xc3", r"a\xffb\xc3"),
            ("Zo\u{eb}\u{202e}".as_bytes(), "Zoë\\u{202e}"),
            (b"\t", r"\u{9}"),
        ] {
            assert_eq!(header(sent, 64), shown);
        }
        assert_eq!(header(&[0xff; 100], 16), r"\xff\xff\xff…");
    }

    #[test]
    fn a_path_is_visible_ascii() {
        for (name, sent, expected) in [
            ("plain", "/orders/42", "/orders/42"),
            ("encoded by the client", "/a%0d%0ab", "/a%0d%0ab"),
            ("raw text", "/ü", "/%C3%BC"),
            ("right-to-left override", "/a\u{202e}b", "/a%E2%80%AEb"),
            ("line feed", "/a\nb", "/a%0Ab"),
            ("delete", "/\u{7f}", "/%7F"),
        ] {
            assert_eq!(written_path(sent, 1024), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_gets_through_and_nothing_is_longer(text in any::<String>(), max in 3..64_usize) {
            let cleaned = clean(&text, max);
            prop_assert!(cleaned.len() <= max);
            prop_assert!(!cleaned.char_indices().any(|(_, c)| c != '\\' && must_escape("", 0, c)));
            let path = written_path(&text, max);
            prop_assert!(path.len() <= max);
            prop_assert!(path.chars().all(|c| c.is_ascii_graphic() || c == CUT));
        }

        #[test]
        fn different_texts_stay_different(a in r"[ab\\u{}\n\u{202e}5c]{0,8}", b in r"[ab\\u{}\n\u{202e}5c]{0,8}") {
            prop_assert_eq!(a == b, clean(&a, 1024) == clean(&b, 1024));
        }
    }
}
