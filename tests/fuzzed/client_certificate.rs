//! The input is a certificate in DER, and the value of a header in which a trusted proxy forwards one. Nobody is
//! authenticated whose name the input does not spell, and nobody at all by a header from a stranger.

use std::sync::LazyLock;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderName, HeaderValue, Request};
use portcullis::{
    ClientCertificate, Connection, Now, RequestHead, SecurityContext, Slot, TlsVersion,
    authn::{Authenticator, AuthnLayer, Outcome},
    client_cert::ClientCertAuthenticator,
    evidence::{CertificateHeader, EvidenceLayer, TrustedProxies},
};
use tower::Layer;

use super::memory::{Reached, at, clock, handler, send};

static AUTHENTICATORS: LazyLock<[ClientCertAuthenticator; 4]> = LazyLock::new(|| {
    [
        ClientCertAuthenticator::by_spiffe_id(["prod.example"]).unwrap().build().unwrap(),
        ClientCertAuthenticator::by_dns_name().allow_everybody_issued().build().unwrap(),
        ClientCertAuthenticator::by_uri().allow_everybody_issued().build().unwrap(),
        ClientCertAuthenticator::by_full_subject_name().allow_everybody_issued().build().unwrap(),
    ]
});

fn forms() -> [(HeaderName, CertificateHeader); 3] {
    let name = HeaderName::from_static;
    [
        (name("x-forwarded-client-cert"), CertificateHeader::x_forwarded_client_cert()),
        (name("client-cert"), CertificateHeader::client_cert()),
        (name("x-ssl-client-cert"), CertificateHeader::escaped_pem(name("x-ssl-client-cert"))),
    ]
}

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    let peer = "198.51.100.7:52100".parse().unwrap();
    let mut request = Request::new(());
    let certificate = ClientCertificate::from_der(data);
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13).with_client_certificate(certificate));
    let [.., by_name] = &*AUTHENTICATORS;
    for authenticator in &*AUTHENTICATORS {
        match authenticator.authenticate_now(&RequestHead::of(&request), at()) {
            Now::Known(Outcome::Verified(identity)) => {
                let subject = identity.in_slot(Slot::Subject).unwrap().subject();
                let name = subject.as_bytes();
                let mut name = if std::ptr::eq(authenticator, by_name) { last_value(name) } else { name.to_vec() };
                name.make_ascii_lowercase();
                let spelled = data.to_ascii_lowercase();
                assert!(name.is_empty() || spelled.windows(name.len()).any(|window| window == name), "{subject}");
            }
            Now::Known(Outcome::RefusedIfNeeded(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    for (name, header) in forms() {
        let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().with_client_certificates(header);
        let layer = EvidenceLayer::new(proxies).with_clock(clock());
        for (peer, believed) in [("10.0.12.7:1", true), ("203.0.113.9:1", false)] {
            let mut request = Request::new(());
            request.headers_mut().insert(&name, value.clone());
            request.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static("https"));
            request.extensions_mut().insert(Connection::plain(peer.parse().unwrap()));
            let authn = AuthnLayer::new(AUTHENTICATORS[0].clone()).allow_anonymous().dangerous_plain_http();
            let reached = Reached::default();
            assert_eq!(send(layer.layer(authn.layer(handler(&reached))), request).status(), 200);
            let request = reached.lock().unwrap().take().unwrap();
            assert_eq!(request.headers().contains_key(&name), believed);
            let principal = SecurityContext::of(request.extensions()).unwrap().principal();
            if let Some(principal) = principal {
                assert!(believed && spelled(data).contains(principal.subject()), "{principal:?}");
            }
        }
    }
}

/// The bytes of the last value of a distinguished name (RFC 4514 §2.4): a comma or a plus without a backslash ends a value, digits
/// behind a backslash are a byte, and behind `#` stands an encoding, whose content counts.
fn last_value(name: &[u8]) -> Vec<u8> {
    fn after_type(part: &[u8]) -> &[u8] {
        part.splitn(2, |byte| *byte == b'=').nth(1).unwrap()
    }
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits.get(..2)?).ok()?, 16).ok();
    let (mut value, mut part) = (Vec::new(), after_type(name));
    let mut rest = part;
    while let [first, after @ ..] = rest {
        rest = match (*first, byte(after)) {
            (b'\\', Some(byte)) => {
                value.push(byte);
                &after[2..]
            }
            (b'\\', None) => {
                value.push(after[0]);
                &after[1..]
            }
            (b',' | b'+', _) => {
                value.clear();
                part = after_type(after);
                part
            }
            (other, _) => {
                value.push(other);
                after
            }
        };
    }
    let [b'#', encoded @ ..] = part else { return value };
    let der: Vec<u8> = encoded.chunks(2).map(|digits| byte(digits).unwrap()).collect();
    let header = if der[1] < 0x80 { 2 } else { 2 + usize::from(der[1] & 0x7f) };
    der[header..].to_vec()
}

/// What the value of a header spells: as it stands, and in each word of Base64, with percent signs and line ends taken away.
fn spelled(value: &[u8]) -> String {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let base64 = GeneralPurpose::new(&alphabet::STANDARD, lenient);
    let mut spelled = String::from_utf8_lossy(value).replace('\\', "");
    let mut text = spelled.clone();
    for (escaped, plain) in [
        ("%2B", "+"),
        ("%2b", "+"),
        ("%2F", "/"),
        ("%2f", "/"),
        ("%3D", "="),
        ("%3d", "="),
        ("%0A", ""),
        ("%0a", ""),
        ("%0D", ""),
        ("%0d", ""),
    ] {
        text = text.replace(escaped, plain);
    }
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c)) {
        let decoded = base64.decode(word).unwrap_or_default();
        spelled.push_str(&String::from_utf8_lossy(&decoded));
    }
    spelled
}
