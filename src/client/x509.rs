//! What a certificate says of its owner (RFC 5280 §4).

use aws_lc_rs::digest;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension, X509Extension},
    prelude::FromDer,
};

use super::{
    der::{BIT_STRING, BOOLEAN, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, elements, is_identifier, only},
    distinguished_name,
};

/// What is in a certificate, as far as it names somebody or limits its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    pub(crate) sha256: [u8; 32],
    /// DNS names and URIs among the alternative names, as they stand.
    pub(crate) dns: Vec<Box<str>>,
    pub(crate) uris: Vec<Box<str>>,
    /// The subject's distinguished name (RFC 4514). None if it is empty, or a proxy did not tell.
    pub(crate) subject: Option<Box<str>>,
    /// In seconds since the Unix epoch. None if a proxy told only the names.
    pub(crate) validity: Option<(i64, i64)>,
    pub(crate) usage: Usage,
}

/// What the key may be used for. What is not said is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// It may sign certificates or revocation lists.
    pub(crate) is_authority: bool,
    /// It may sign handshakes.
    pub(crate) signs: bool,
    /// It may authenticate clients (RFC 5280 §4.2.1.12).
    pub(crate) client: bool,
}

impl Usage {
    /// Nothing is said.
    pub(crate) const ANY: Self = Self { is_authority: false, signs: true, client: true };
}

impl CertificateFacts {
    pub(crate) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let Ok(([], certificate)) = X509Certificate::from_der(der) else { return Err("does not parse") };
        if !has_all_extensions(&certificate) {
            return Err("has extensions that do not parse");
        }
        let (mut dns, mut uris) = (Vec::new(), Vec::new());
        let (mut usage, mut seen) = (Usage::ANY, Vec::new());
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::DNSName(name) => dns.push((*name).into()),
                            GeneralName::URI(uri) => uris.push((*uri).into()),
                            GeneralName::Invalid(..) => return Err("has an alternative name that does not parse"),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::BasicConstraints(constraints) => usage.is_authority |= constraints.ca,
                ParsedExtension::KeyUsage(key) => {
                    usage.is_authority |= key.key_cert_sign() || key.crl_sign();
                    usage.signs = key.digital_signature();
                }
                ParsedExtension::ExtendedKeyUsage(key) => usage.client = key.client_auth || key.any,
                ParsedExtension::ParseError { .. } if extension.critical || concerns_us(&extension.oid) => {
                    return Err("has an extension that does not parse");
                }
                _ => continue,
            }
            if seen.contains(&&extension.oid) {
                return Err("has an extension that stands twice");
            }
            seen.push(&extension.oid);
        }
        let subject =
            distinguished_name::text(certificate.subject().as_raw()).ok_or("has a subject that does not parse")?;
        let validity = certificate.validity();
        Ok(Self {
            sha256: sha256(der),
            dns,
            uris,
            subject: Some(subject).filter(|subject| !subject.is_empty()).map(Into::into),
            validity: Some((validity.not_before.timestamp(), validity.not_after.timestamp())),
            usage,
        })
    }
}

/// Whether what was parsed is all that stands in the extensions (RFC 5280 §4.2). The parser ends at the first that it does not know
/// for one, and so would the limits of use behind it; what stands behind a value it leaves out.
fn has_all_extensions(certificate: &X509Certificate<'_>) -> bool {
    let held = || {
        let fields = elements(only(certificate.tbs_certificate.as_ref(), SEQUENCE)?)?;
        match fields.last().filter(|last| last.tag == EXTENSIONS) {
            Some(last) => elements(only(last.content, SEQUENCE)?),
            None => Some(Vec::new()),
        }
    };
    let Some(held) = held() else { return false };
    let parsed = certificate.extensions();
    held.len() == parsed.len()
        && held.iter().zip(parsed).all(|(held, parsed)| {
            let fields = elements(held.content).unwrap_or_default();
            let tags: Vec<u8> = fields.iter().map(|field| field.tag).collect();
            held.tag == SEQUENCE
                && matches!(*tags, [OBJECT_IDENTIFIER, OCTET_STRING] | [OBJECT_IDENTIFIER, BOOLEAN, OCTET_STRING])
                && fields.first().is_some_and(|kind| is_identifier(kind.content))
                && is_whole(parsed).unwrap_or(false)
        })
}

/// The tags of general names (RFC 5280 §4.2.1.6), each with the bit that says whether there are elements in it.
const NAMES: [u8; 9] = [0xa0, 0x81, 0x82, 0xa3, 0xa4, 0xa5, 0x86, 0x87, 0x88];

/// The tag of the extensions in a certificate, `[3]`.
const EXTENSIONS: u8 = 0xa3;

/// Whether the value of an extension that concerns us is nothing but what was parsed.
fn is_whole(extension: &X509Extension<'_>) -> Option<bool> {
    let tags = || Some(elements(only(extension.value, SEQUENCE)?)?.iter().map(|field| field.tag).collect::<Vec<_>>());
    Some(match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => {
            let tags = tags()?;
            tags.len() == names.general_names.len() && tags.iter().all(|tag| NAMES.contains(tag))
        }
        ParsedExtension::BasicConstraints(_) => {
            matches!(*tags()?, [] | [BOOLEAN] | [INTEGER] | [BOOLEAN, INTEGER])
        }
        ParsedExtension::KeyUsage(_) => only(extension.value, BIT_STRING).is_some(),
        ParsedExtension::ExtendedKeyUsage(_) => tags()?.iter().all(|tag| *tag == OBJECT_IDENTIFIER),
        _ => true,
    })
}

fn concerns_us(oid: &x509_parser::der_parser::Oid<'_>) -> bool {
    use x509_parser::oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    };

    [
        OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
    ]
    .contains(oid)
}

pub(crate) fn sha256(der: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = digest::digest(&digest::SHA256, der);
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
        SanType,
    };

    use super::*;

    fn read(params: CertificateParams) -> Result<CertificateFacts, &'static str> {
        let key = KeyPair::generate().unwrap();
        CertificateFacts::read(params.self_signed(&key).unwrap().der())
    }

    fn params(dns: &[&str], uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        let dns = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names = dns.chain(uris).collect();
        params
    }

    #[test]
    fn names_and_validity() {
        let mut params = params(&["a.example", "B.example"], &["spiffe://a.example/x"]);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let facts = read(params).unwrap();
        assert_eq!(facts.dns.iter().map(|name| &**name).collect::<Vec<_>>(), ["a.example", "B.example"]);
        assert_eq!(facts.uris.iter().map(|name| &**name).collect::<Vec<_>>(), ["spiffe://a.example/x"]);
        assert_eq!(facts.validity, Some((1_577_836_800, 1_609_459_200)));
        assert_eq!(facts.usage, Usage::ANY);
    }

    #[test]
    fn uses() {
        type Change = fn(&mut CertificateParams);
        let cases: [(&str, Change, Usage); 5] = [
            (
                "an authority",
                |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
                Usage { is_authority: true, ..Usage::ANY },
            ),
            (
                "an authority by key usage",
                |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign],
                Usage { is_authority: true, signs: false, client: true },
            ),
            ("signs", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature], Usage::ANY),
            (
                "a server's",
                |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
                Usage { client: false, ..Usage::ANY },
            ),
            (
                "a client's too",
                |params| {
                    params.extended_key_usages =
                        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
                },
                Usage::ANY,
            ),
        ];
        for (name, change, usage) in cases {
            let mut params = params(&["a.example"], &[]);
            change(&mut params);
            assert_eq!(read(params).unwrap().usage, usage, "{name}");
        }
    }

    #[test]
    fn an_extension_that_is_none_hides_no_other() {
        let mut params = params(&["a.example"], &[]);
        params.custom_extensions = [&[2, 5, 29, 99][..], &[2, 5, 29, 37]]
            .map(|oid| CustomExtension::from_oid_content(oid, vec![0x30, 3, 6, 1, 0x2a]))
            .into();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert!(!CertificateFacts::read(&certificate).unwrap().usage.client);
        let at = certificate.windows(7).position(|bytes| bytes == [0x30, 12, 6, 3, 0x55, 29, 99]).unwrap();
        for tag in [0x31, 0x70, 0xa0] {
            let mut other = certificate.clone();
            other[at] = tag;
            assert!(CertificateFacts::read(&other).is_err(), "{tag:#x}");
        }
    }

    #[test]
    fn what_does_not_parse_names_nobody() {
        let with = |oid: &[u64], content: &[u8]| {
            let mut params = params(&[], &[]);
            params.custom_extensions = vec![CustomExtension::from_oid_content(oid, content.to_vec())];
            read(params)
        };
        let san = [2, 5, 29, 17];
        assert!(with(&san, &[0x30, 0x03, 0x82, 0x01, b'a']).is_ok());
        assert!(with(&san, &[0x30, 0x03, 0x82, 0x01, 0xff]).is_err(), "not ASCII");
        assert!(with(&san, &[0x30, 0x05, 0x82, 0x01, b'a']).is_err(), "cut short");
        assert!(with(&[2, 5, 29, 19], &[0x30, 0x03, 0x01]).is_err(), "basic constraints");
        for (name, oid, value) in [
            ("a name behind the names", &san[..], &[0x30, 3, 0x82, 1, b'a', 0x82, 1, b'b'][..]),
            ("a name of elements", &san, &[0x30, 3, 0xa2, 1, b'a']),
            ("a name of another class", &san, &[0x30, 3, 0x42, 1, b'a']),
            ("no names", &san, &[0x31, 3, 0x82, 1, b'a']),
            ("a truth behind the length of a path", &[2, 5, 29, 19], &[0x30, 6, 2, 1, 0, 1, 1, 0xff]),
            ("something behind the constraints", &[2, 5, 29, 19], &[0x30, 0, 0x30, 3, 1, 1, 0xff]),
            ("something behind the usage", &[2, 5, 29, 15], &[3, 2, 7, 0x80, 3, 2, 2, 4]),
            ("a purpose that is none", &[2, 5, 29, 37], &[0x30, 14, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2, 0x26, 2, 0x2a, 3]),
        ] {
            assert!(with(oid, value).is_err(), "{name}");
        }
        assert!(
            with(&[2, 5, 29, 37], &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1]).is_ok_and(|facts| !facts.usage.client)
        );
        assert!(CertificateFacts::read(b"").is_err());
        let key = KeyPair::generate().unwrap();
        let certificate = params(&["a.example"], &[]).self_signed(&key).unwrap();
        let longer = [certificate.der(), &[0][..]].concat();
        assert!(CertificateFacts::read(&longer).is_err(), "something after it");
        assert_eq!(CertificateFacts::read(certificate.der()).unwrap().sha256, sha256(certificate.der()));
    }
}
