//! The input is the elements of a distinguished name, which the target puts into a certificate. The subject's text, read by a second
//! reader of RFC 4514, is the name that a second reader of its DER finds: every part, every attribute, every byte.

use std::sync::LazyLock;

use portcullis::{ClientCertificate, client_cert::ClientCertAuthenticator};

use super::{
    der::{Element, certificate, elements, identifier},
    memory::subject_of,
};

const SHORT_NAMES: [(&str, &str); 9] = [
    ("CN", "2.5.4.3"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("C", "2.5.4.6"),
    ("STREET", "2.5.4.9"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
];

/// Universal and primitive: `UTF8String`, `NumericString`, `PrintableString`, `IA5String`.
const STRINGS: [u8; 4] = [12, 18, 19, 22];

static BY_NAME: LazyLock<ClientCertAuthenticator> =
    LazyLock::new(|| ClientCertAuthenticator::by_full_subject_name().allow_everybody_issued().build().unwrap());

/// A type, and its value: as text where it has one, else in DER.
type Attribute = (String, Result<String, Vec<u8>>);

/// Panics if something of that does not hold. True if the name is somebody's.
pub fn check(name: &[u8]) -> bool {
    let Some(subject) = subject_of(&BY_NAME, ClientCertificate::from_der(&certificate(name, &[]))) else {
        // What this reader reads is refused only if nobody is named.
        assert!(name.is_empty() || read(name).is_none_or(|parts| parts.iter().any(Vec::is_empty)));
        return false;
    };
    let mut parts = written(&subject);
    parts.reverse();
    assert_eq!(Some(parts), read(name), "{subject}");
    true
}

/// The parts of a name in DER, most significant first.
fn read(name: &[u8]) -> Option<Vec<Vec<Attribute>>> {
    let part = |(tag, content, _): Element<'_>| {
        let attributes = elements(content).filter(|_| tag == 0x31)?;
        attributes.into_iter().map(|(tag, content, _)| attribute(tag, content)).collect()
    };
    elements(name)?.into_iter().map(part).collect()
}

fn attribute(tag: u8, content: &[u8]) -> Option<Attribute> {
    let [(6, oid, _), (kind, value, whole)] = elements(content).filter(|_| tag == 0x30)?[..] else { return None };
    let oid = identifier(oid)?;
    let text = std::str::from_utf8(value).ok();
    let text = text.filter(|_| STRINGS.contains(&kind) && SHORT_NAMES.iter().any(|(_, known)| *known == oid));
    Some((oid, text.map(str::to_owned).ok_or_else(|| whole.to_vec())))
}

/// The parts of a name in text, in their order there.
fn written(text: &str) -> Vec<Vec<Attribute>> {
    let mut parts = vec![Vec::new()];
    let mut rest = text.as_bytes();
    loop {
        let (kind, after) = rest.split_at(rest.iter().position(|byte| *byte == b'=').unwrap());
        let kind = std::str::from_utf8(kind).unwrap();
        let oid = SHORT_NAMES.iter().find(|(short, _)| *short == kind).map_or(kind, |(_, oid)| oid).to_owned();
        let (value, end) = value(&after[1..]);
        parts.last_mut().unwrap().push((oid, value));
        match after[1 + end..] {
            [] => return parts,
            [b',', ref more @ ..] => {
                parts.push(Vec::new());
                rest = more;
            }
            [_, ref more @ ..] => rest = more,
        }
    }
}

/// The value of an attribute in text, and where it ends.
fn value(text: &[u8]) -> (Result<String, Vec<u8>>, usize) {
    let digits = |at: usize| {
        let digits = text.get(at..at + 2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).ok()
    };
    if text.first() == Some(&b'#') {
        let mut der = Vec::new();
        while let Some(byte) = digits(1 + 2 * der.len()) {
            der.push(byte);
        }
        let end = 1 + 2 * der.len();
        assert!(matches!(text.get(end), None | Some(b',' | b'+')));
        return (Err(der), end);
    }
    let (mut value, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.get(at).filter(|byte| !matches!(byte, b',' | b'+')) {
        let (byte, length) = match (byte, digits(at + 1)) {
            (b'\\', Some(byte)) => (byte, 3),
            (b'\\', None) => (text[at + 1], 2),
            (b'"' | b';' | b'<' | b'>' | 0..0x20 | 0x7f, _) => panic!("{byte:#x} stands as it is"),
            (byte, _) => (*byte, 1),
        };
        value.push(byte);
        at += length;
    }
    assert!(at == 0 || text[0] != b' ' && (text[at - 1] != b' ' || text[..at].ends_with(b"\\ ")));
    (Ok(String::from_utf8(value).unwrap()), at)
}
