//! What else a path may mean to whoever decodes or normalises it.

/// How often whoever stands inside may decode a path.
const MAX_READINGS: usize = 2;

/// Of each octet: whether a path with it may mean another one, whether one may that has it behind a slash, and whether it is
/// a slash. To look it up costs less than to tell them apart.
#[expect(clippy::indexing_slicing, reason = "it is worked out by the compiler, which would tell")]
const MEANINGS: [(bool, bool, bool); 256] = {
    let mut meanings = [(false, false, false); 256];
    let mut octet = 0_u8;
    while octet < u8::MAX {
        let (odd, slash) = (!octet.is_ascii() || matches!(octet, b'%' | b';' | b'\\'), octet == b'/');
        meanings[octet as usize] = (odd, slash || octet == b'.', slash);
        octet += 1;
    }
    meanings[u8::MAX as usize] = (true, false, false);
    meanings
};

/// What a path reads when it is decoded, and when it is decoded once more, where that changes it; and one that is not ASCII as
/// it stands, as no template is spelled so.
///
/// None if it may mean another path by its form alone: empty and dot segments, `;`, backslash, the encoded forms of these, of
/// `/` and of control characters, a `%` without two digits, octets that are not UTF-8, an encoding of an encoding of an
/// encoding.
pub(super) fn readings(path: &str) -> Option<Vec<String>> {
    let bytes = path.as_bytes();
    if is_plain(bytes) {
        return Some(Vec::new());
    }
    if bytes.windows(2).any(|pair| pair == b"//") || bytes.iter().any(|byte| matches!(byte, b';' | b'\\')) {
        return None;
    }
    if bytes.contains(&b'.') && path.split('/').any(|segment| segment == "." || segment == "..") {
        return None;
    }
    let mut readings = Vec::new();
    if !bytes.contains(&b'%') {
        if !path.is_ascii() {
            readings.push(path.to_owned());
        }
        return Some(readings);
    }
    if path.split('%').skip(1).any(|after| octet(after.as_bytes()).is_none()) {
        return None;
    }
    let first = String::from_utf8(decode(bytes)?).ok()?;
    readings.push(first);
    while let Some(last) = readings.last().filter(|last| last.contains('%')) {
        let next = decode(last.as_bytes())?;
        if next == last.as_bytes() {
            break;
        }
        if readings.len() == MAX_READINGS {
            return None;
        }
        readings.push(String::from_utf8_lossy(&next).into_owned());
    }
    Some(readings)
}

/// Whether nothing in a path could mean another one, told in one pass: nearly all paths are so.
fn is_plain(path: &[u8]) -> bool {
    let (mut unclear, mut after_slash) = (path.first().is_some_and(|byte| *byte == b'.'), false);
    for byte in path {
        let (odd, slash_or_dot, slash) = MEANINGS.get(usize::from(*byte)).copied().unwrap_or_default();
        // A segment that begins with a dot is looked at again.
        unclear |= odd | (after_slash & slash_or_dot);
        after_slash = slash;
    }
    !unclear
}
/// Decodes once, and leaves alone what is no triplet. None if an octet is one that must not be hidden.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match octet(after).filter(|_| *byte == b'%') {
            Some(b'/' | b'\\' | b'.' | b';' | 0..0x20 | 0x7f) => return None,
            Some(octet) => {
                decoded.push(octet);
                rest = after.get(2..).unwrap_or_default();
            }
            None => decoded.push(*byte),
        }
    }
    Some(decoded)
}

/// The octet that the two hexadecimal digits at the start stand for.
fn octet(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let [high, low, ..] = digits else { return None };
    Some(value(*high)? << 4 | value(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_forms_are_found() {
        for path in [
            "//a",
            "/a//b",
            "/./a",
            "/a/..",
            "/a;x=1",
            "/a\\b",
            "/%2e%2e/a",
            "/a%2Fb",
            "/a%252fb",
            "/a%25252fb",
            "/a%25%32%66b",
            "/a%%32fb",
            "/a%00",
            "/a%0D",
            "/a%7F",
            "/a%5Cb",
            "/a%3bb",
            "/%",
            "/%4",
            "/%%41",
            "/%4g",
            "/%u002f",
            "/%+1",
            "/a%c0%afb",
            "/caf%E9",
            "/%C3é",
            "/%25252541",
        ] {
            assert_eq!(readings(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_of_one_form_has_its_readings() {
        for (path, expected) in [
            ("/", &[][..]),
            ("", &[]),
            ("*", &[]),
            ("/a/", &[]),
            ("/a.json", &[]),
            ("/a..b", &[]),
            ("/.well-known/x", &[]),
            ("/{id}", &[]),
            ("/caf%C3%A9", &["/café"]),
            ("/café", &["/café"]),
            ("/caf%65é", &["/cafeé"]),
            ("/%61", &["/a"]),
            ("/100%25", &["/100%"]),
            ("/5%25%20off", &["/5% off"]),
            ("/%2561", &["/%61", "/a"]),
            ("/50%25aff", &["/50%aff", "/50\u{fffd}f"]),
        ] {
            assert_eq!(
                readings(path).as_deref(),
                Some(expected.iter().map(|&reading| reading.to_owned()).collect::<Vec<_>>().as_slice()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_long_encoding_takes_no_long_time() {
        assert_eq!(readings(&format!("/%{}", "25".repeat(30_000))), None);
        assert_eq!(readings(&"/%25".repeat(15_000)).map(|readings| readings.len()), Some(1));
    }
}
