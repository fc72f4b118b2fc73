//! Client certificates that a trusted proxy forwards in a header.

use std::borrow::Cow;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::xfcc;
use crate::client::{ClientCertificate, ForwardedCertificate};

/// The longest header that is read, in bytes.
const MAX_LEN: usize = 32 * 1024;

/// The header in which a trusted proxy forwards the certificate that it verified, and how it is written there.
///
/// ```
/// use http::HeaderName;
/// use portcullis::evidence::{CertificateHeader, TrustedProxies};
///
/// let header = CertificateHeader::escaped_pem(HeaderName::from_static("x-ssl-client-cert"));
/// let proxies = TrustedProxies::x_forwarded(["10.0.12.7"])?.with_client_certificates(header);
/// # let _ = proxies;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct CertificateHeader {
    name: HeaderName,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Xfcc,
    ByteSequence,
    EscapedPem,
}

impl CertificateHeader {
    /// `X-Forwarded-Client-Cert` of Envoy, with one element: the proxy must set it anew (`SANITIZE_SET`). If there is no
    /// `Cert` in it, the names count that the proxy read from the certificate: `Hash`, `URI`, `DNS` and `Subject`.
    pub const fn x_forwarded_client_cert() -> Self {
        Self { name: HeaderName::from_static("x-forwarded-client-cert"), form: Form::Xfcc }
    }

    /// `Client-Cert`: a byte sequence in colons (RFC 9440 §2.2). `Client-Cert-Chain` is not read, and is removed.
    pub const fn client_cert() -> Self {
        Self { name: HeaderName::from_static("client-cert"), form: Form::ByteSequence }
    }

    /// The same in a field of this name.
    pub const fn byte_sequence(name: HeaderName) -> Self {
        Self { name, form: Form::ByteSequence }
    }

    /// PEM, percent-encoded, in a field of this name: nginx's `$ssl_client_escaped_cert`.
    pub const fn escaped_pem(name: HeaderName) -> Self {
        Self { name, form: Form::EscapedPem }
    }

    pub(super) const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// What the proxy says. An empty field says that there is no certificate.
    pub(super) fn read(&self, headers: &HeaderMap) -> ForwardedCertificate {
        let mut lines = headers.get_all(&self.name).iter();
        let value = match (lines.next(), lines.next()) {
            (None, _) => return ForwardedCertificate::None,
            (Some(value), None) => value,
            (Some(_), Some(_)) => return ForwardedCertificate::Malformed("stands twice"),
        };
        if value.len() > MAX_LEN {
            return ForwardedCertificate::Malformed("is longer than 32 KiB");
        }
        let Ok(text) = value.to_str() else { return ForwardedCertificate::Malformed("is not ASCII") };
        let text = text.trim_ascii();
        if text.is_empty() {
            return ForwardedCertificate::None;
        }
        let read = match self.form {
            Form::Xfcc => xfcc::read(text),
            Form::ByteSequence => byte_sequence(text),
            Form::EscapedPem => escaped_pem(text),
        };
        match read {
            Ok(certificate) => ForwardedCertificate::Known(certificate),
            Err(reason) => ForwardedCertificate::Malformed(reason),
        }
    }
}

/// Padding may be left out (RFC 8941 §4.2.7).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `:base64:`, without parameters (RFC 9440 §2.1).
fn byte_sequence(text: &str) -> Result<ClientCertificate, &'static str> {
    let inside = text.strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    let inside = inside.ok_or("is not a byte sequence in colons")?;
    let der = BASE64.decode(inside).map_err(|_| "is not base64")?;
    if der.is_empty() {
        return Err("holds no certificate");
    }
    Ok(ClientCertificate::from_der(&der))
}

pub(super) fn escaped_pem(text: &str) -> Result<ClientCertificate, &'static str> {
    let pem = unescape(text)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    match (certificates.next(), certificates.next()) {
        (Some(Ok(certificate)), None) => Ok(ClientCertificate::from_der(&certificate)),
        (None, _) => Err("holds no certificate in PEM"),
        (Some(Err(_)), _) => Err("is not PEM"),
        (Some(Ok(_)), Some(_)) => Err("holds two certificates"),
    }
}

/// Percent-encoding alone: a plus sign is one, as base64 has it.
fn unescape(text: &str) -> Result<Cow<'_, [u8]>, &'static str> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err("ends within an escape") };
        rest = after;
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err("has an escape without digits") };
        bytes.push(high << 4 | low);
    }
    Ok(Cow::Owned(bytes))
}

pub(super) const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate() -> (Vec<u8>, String) {
        let params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (certificate.der().to_vec(), certificate.pem())
    }

    fn escape(text: &str) -> String {
        text.bytes()
            .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02x}") })
            .collect()
    }

    fn read(header: &CertificateHeader, lines: &[&str]) -> Result<Option<Vec<u8>>, &'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name().clone(), http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        match header.read(&headers) {
            ForwardedCertificate::None => Ok(None),
            ForwardedCertificate::Known(certificate) => Ok(Some(certificate.der().unwrap().to_vec())),
            ForwardedCertificate::Malformed(reason) => Err(reason),
        }
    }

    #[test]
    fn a_byte_sequence() {
        let (der, _) = certificate();
        let text = BASE64.encode(&der);
        let header = CertificateHeader::client_cert();
        let good = format!(":{text}:");
        assert_eq!(read(&header, &[&good]), Ok(Some(der.clone())));
        assert_eq!(read(&header, &[&format!(":{}:", text.trim_end_matches('='))]), Ok(Some(der)), "without padding");
        assert_eq!(read(&header, &[]), Ok(None));
        assert_eq!(read(&header, &[""]), Ok(None));
        for (name, lines) in [
            ("no colons", &[&*text][..]),
            ("one colon", &[&format!(":{text}")]),
            ("parameters", &[&format!("{good};a=1")]),
            ("a list", &[&format!("{good}, {good}")]),
            ("two lines", &[&good, &good]),
            ("two lines, one empty", &[&good, ""]),
            ("not base64", &[":!:"]),
            ("empty sequence", &["::"]),
            ("too long", &[&format!(":{}:", "A".repeat(MAX_LEN))]),
            ("not ASCII", &["\u{e4}"]),
        ] {
            assert!(read(&header, lines).is_err(), "{name}");
        }
    }

    #[test]
    fn pem() {
        let (der, pem) = certificate();
        let header = CertificateHeader::escaped_pem(HeaderName::from_static("x-ssl-client-cert"));
        assert_eq!(read(&header, &[&escape(&pem)]), Ok(Some(der)));
        let twice = escape(&format!("{pem}{pem}"));
        let key = escape(&pem.replace("CERTIFICATE", "PRIVATE KEY"));
        let cut = escape(&pem);
        for (name, line) in [
            ("two certificates", &*twice),
            ("a key", &key),
            ("cut short", cut.get(..cut.len() / 2).unwrap()),
            ("cut in an escape", "%2"),
            ("no escape", "%zz"),
            ("nginx says that there is none", "-"),
        ] {
            assert!(read(&header, &[line]).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[ -~]{0,200}"#) {
            for header in [
                CertificateHeader::client_cert(),
                CertificateHeader::x_forwarded_client_cert(),
                CertificateHeader::escaped_pem(HeaderName::from_static("x-cert")),
            ] {
                let _ = read(&header, &[&text]);
            }
        }

        #[test]
        fn what_is_almost_right_does_not_panic(
            text in r#"(By|Hash|Cert|Subject|URI|DNS|=|;|,|"|\\|%2B|a|0| ){0,40}"#,
        ) {
            let _ = read(&CertificateHeader::x_forwarded_client_cert(), &[&text]);
        }
    }
}
