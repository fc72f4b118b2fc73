//! Distinguished names as text (RFC 4514), so that two names are the same text only if they are the same name.

use std::fmt::Write;

use super::der::{Element, OBJECT_IDENTIFIER, SEQUENCE, SET, element, elements, only};

/// The attributes that have a short name (RFC 4514 §3).
const SHORT_NAMES: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// `UTF8String`, `NumericString`, `PrintableString` and `IA5String`: they are UTF-8 by nature.
const STRINGS: [u8; 4] = [0x0c, 0x12, 0x13, 0x16];

/// Writes a name in DER, most specific part first, as `openssl x509 -subject -nameopt RFC2253,-esc_msb` does: an empty text for
/// one that is empty. None if it is not exactly a name (RFC 5280 §4.1.2.4), or not written in the one way that DER has.
pub(super) fn text(name: &[u8]) -> Option<String> {
    let mut text = String::new();
    for (index, part) in elements(only(name, SEQUENCE)?)?.iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if part.tag != SET || part.content.is_empty() {
            return None;
        }
        for (index, attribute) in elements(part.content)?.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            push(&mut text, attribute)?;
        }
    }
    Some(text)
}

fn push(text: &mut String, attribute: &Element<'_>) -> Option<()> {
    let (kind, rest) = element(attribute.content)?;
    let (value, []) = element(rest)? else { return None };
    if attribute.tag != SEQUENCE || kind.tag != OBJECT_IDENTIFIER {
        return None;
    }
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == kind.content).map(|(_, name)| *name);
    let string = std::str::from_utf8(value.content).ok().filter(|_| STRINGS.contains(&value.tag));
    match (short, string) {
        (Some(name), Some(value)) => {
            text.extend([name, "="]);
            escape(text, value);
        }
        (name, _) => {
            match name {
                Some(name) => text.push_str(name),
                None => push_identifier(text, kind.content)?,
            }
            text.push_str("=#");
            for byte in value.whole {
                write!(text, "{byte:02X}").ok()?;
            }
        }
    }
    Some(())
}

/// Numbers with dots (X.690 §8.19). None for one that is longer than it must be, or beyond 64 bits.
fn push_identifier(text: &mut String, identifier: &[u8]) -> Option<()> {
    let (mut number, mut is_first, mut within) = (0_u64, true, false);
    for byte in identifier {
        if (!within && *byte == 0x80) || number.leading_zeros() < 7 {
            return None;
        }
        number = number << 7 | u64::from(byte & 0x7f);
        within = byte & 0x80 != 0;
        if within {
            continue;
        }
        if is_first {
            // Two in one: 0 or 1 and a number below 40, or 2 and any.
            let root = (number / 40).min(2);
            write!(text, "{root}.{}", number.saturating_sub(40 * root)).ok()?;
        } else {
            write!(text, ".{number}").ok()?;
        }
        (number, is_first) = (0, false);
    }
    (!within && !is_first).then_some(())
}

/// RFC 4514 §2.4.
fn escape(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (index, char) in value.chars().enumerate() {
        match char {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', char]),
            '#' if index == 0 => text.push_str("\\#"),
            ' ' if index == 0 || index == last => text.push_str("\\ "),
            '\0'..' ' | '\u{7f}' => {
                let _ = write!(text, "\\{:02X}", u32::from(char));
            }
            char => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use x509_parser::{certificate::X509Certificate, prelude::FromDer};

    use super::*;

    fn name(attributes: &[(DnType, &str)]) -> String {
        let mut distinguished = DistinguishedName::new();
        for (kind, value) in attributes {
            distinguished.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        text(X509Certificate::from_der(certificate.der()).unwrap().1.subject().as_raw()).unwrap()
    }

    #[test]
    fn names() {
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        for (attributes, expected) in [
            (&[][..], ""),
            (
                &[(DnType::CountryName, "DE"), (DnType::OrganizationName, "Acme"), (DnType::CommonName, "billing")],
                "CN=billing,O=Acme,C=DE",
            ),
            (&[(DnType::CommonName, "a,O=b")], r"CN=a\,O=b"),
            (&[(DnType::CommonName, " #a ")], r"CN=\ #a\ "),
            (&[(DnType::CommonName, "#a\u{0}\n")], r"CN=\#a\00\0A"),
            (&[(DnType::CommonName, "\u{e9}")], "CN=\u{e9}"),
            (&[(email, "a@b")], "1.2.840.113549.1.9.1=#0C03614062"),
        ] {
            assert_eq!(name(attributes), expected, "{attributes:?}");
        }
    }

    #[test]
    fn no_value_writes_another_name() {
        let names: HashSet<_> = [
            &[(DnType::OrganizationName, "b"), (DnType::CommonName, "a")][..],
            &[(DnType::CommonName, "a,O=b")],
            &[(DnType::CommonName, r"a\,O=b")],
            &[(DnType::CommonName, "a+O=b")],
            &[(DnType::CommonName, "a"), (DnType::OrganizationName, "b")],
        ]
        .into_iter()
        .map(name)
        .collect();
        assert_eq!(names.len(), 5);
    }

    /// An element; or the elements of a part with one attribute that has this type and value.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn part(kind: &[u8], value: &[u8]) -> Vec<u8> {
        der(SET, &der(SEQUENCE, &[&der(OBJECT_IDENTIFIER, kind), value].concat()))
    }

    #[test]
    fn a_value_of_another_kind_is_another_name() {
        let name = |value: &[u8]| text(&der(SEQUENCE, &part(&[0x55, 4, 3], value))).unwrap();
        let kinds = [0x0c, 0x2c, 0x4c, 0x8c, 0xcc, 0x1e, 0x14].map(|tag| name(&der(tag, b"a")));
        assert_eq!(kinds[..3], ["CN=a", "CN=#2C0161", "CN=#4C0161"]);
        assert_eq!(HashSet::from(kinds).len(), 7);
        for tag in STRINGS {
            assert_eq!(name(&der(tag, b"a")), "CN=a");
        }
        assert_eq!(name(&der(0x0c, b"\xff")), "CN=#0C01FF");
    }

    #[test]
    fn what_is_not_exactly_a_name_has_no_text() {
        let cn = [0x55, 4, 3];
        let value = der(0x0c, b"a");
        let good = part(&cn, &value);
        let of = |parts: &[u8]| text(&der(SEQUENCE, parts));
        assert_eq!(of(&good).as_deref(), Some("CN=a"));
        for (name, parts) in [
            ("something behind the value", part(&cn, &[&value[..], &[5, 0]].concat())),
            ("something behind the attributes", der(SET, &[good.get(2..).unwrap(), &[0]].concat())),
            ("something behind the parts", [&good[..], &[0]].concat()),
            ("no attribute", der(SET, &[])),
            ("no value", part(&cn, &[])),
            ("a longer length than needed", part(&cn, &[0x0c, 0x81, 1, b'a'])),
            ("a tag of two bytes", part(&cn, &[0x1f, 0x2c, 1, b'a'])),
            ("a longer number than needed", part(&[0x55, 0x80, 4, 3], &value)),
            ("an unfinished number", part(&[0x55, 0x84], &value)),
            ("a very large number", part(&[&[0x55][..], &[0xff; 10], &[1]].concat(), &value)),
            ("no type", part(&[], &value)),
            ("a sequence of attributes", der(SEQUENCE, good.get(2..).unwrap())),
            ("a set of one", der(SET, &der(SET, good.get(4..).unwrap()))),
        ] {
            assert_eq!(of(&parts), None, "{name}");
        }
        assert_eq!(text(&good), None, "no sequence of parts");
        assert_eq!(of(&part(&[0x2a, 0x86, 0x48, 0x81, 0x80, 0], &value)).as_deref(), Some("1.2.840.16384=#0C0161"));
    }
}
