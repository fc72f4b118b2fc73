//! Distinguished names as text (RFC 4514), so that two names are the same text only if they are the same name.

use std::fmt::Write;

use x509_parser::{
    der_parser::asn1_rs::{Any, Tag},
    x509::{AttributeTypeAndValue, X509Name},
};

/// The attributes that have a short name (RFC 4514 §3).
const SHORT_NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// Writes a name, most specific part first, as `openssl x509 -subject -nameopt RFC2253,-esc_msb` does. None if it is empty.
pub(super) fn text(name: &X509Name<'_>) -> Option<Box<str>> {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (index, part) in parts.into_iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            push(&mut text, attribute);
        }
    }
    (!text.is_empty()).then(|| text.into())
}

fn push(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    let value = attribute.attr_value();
    // Writing to a string does not fail.
    match (short, string(value)) {
        (Some(name), Some(value)) => {
            let _ = write!(text, "{name}=");
            escape(text, value);
        }
        (name, _) => {
            let _ = write!(text, "{}=#", name.unwrap_or(&oid));
            der(value).iter().for_each(|byte| {
                let _ = write!(text, "{byte:02X}");
            });
        }
    }
}

/// The text of the string types that are UTF-8 by nature.
fn string<'a>(value: &Any<'a>) -> Option<&'a str> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(value.data).ok()
        }
        _ => None,
    }
}

/// The value with its tag and length, as it stood in the certificate.
fn der(value: &Any<'_>) -> Vec<u8> {
    let constructed = if value.header.constructed() { 0x20 } else { 0 };
    // Attribute values of real names have a tag of one byte; another would not be read as the same name as any of them.
    let tag = u8::try_from(value.tag().0).unwrap_or(0x1f) | (value.class() as u8) << 6 | constructed;
    let len = value.data.len();
    let mut bytes = vec![tag];
    match u8::try_from(len) {
        Ok(short @ 0..0x80) => bytes.push(short),
        _ => {
            let long: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            bytes.extend(long);
        }
    }
    bytes.extend(value.data);
    bytes
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

    fn name(attributes: &[(DnType, &str)]) -> Option<Box<str>> {
        let mut distinguished = DistinguishedName::new();
        for (kind, value) in attributes {
            distinguished.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        text(X509Certificate::from_der(certificate.der()).unwrap().1.subject())
    }

    #[test]
    fn names() {
        let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        for (attributes, expected) in [
            (&[][..], None),
            (
                &[(DnType::CountryName, "DE"), (DnType::OrganizationName, "Acme"), (DnType::CommonName, "billing")],
                Some("CN=billing,O=Acme,C=DE"),
            ),
            (&[(DnType::CommonName, "a,O=b")], Some(r"CN=a\,O=b")),
            (&[(DnType::CommonName, " #a ")], Some(r"CN=\ #a\ ")),
            (&[(DnType::CommonName, "#a\u{0}\n")], Some(r"CN=\#a\00\0A")),
            (&[(DnType::CommonName, "\u{e9}")], Some("CN=\u{e9}")),
            (&[(email, "a@b")], Some("1.2.840.113549.1.9.1=#0C03614062")),
        ] {
            assert_eq!(name(attributes).as_deref(), expected, "{attributes:?}");
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
        .map(|attributes| name(attributes).unwrap())
        .collect();
        assert_eq!(names.len(), 5);
    }
}
