//! The input is the value of `X-Forwarded-Client-Cert` from a trusted proxy, and once more the names of an element that the target writes,
//! one a line. Whose the certificate is, by every kind of name, is what a second reader of the header finds; of several elements, of
//! something twice and of quotes that do not end it is nobody's.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, Request};
use portcullis::{
    ClientCertificate, Connection, SecurityContext,
    client_cert::ClientCertAuthenticator,
    evidence::{CertificateHeader, EvidenceLayer, TrustedProxies},
};
use tower::Layer;

use super::memory::{Reached, clock, handler, lines, send, subject_of};

const HASH: &str = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";

static LAYER: LazyLock<EvidenceLayer> = LazyLock::new(|| {
    let header = CertificateHeader::x_forwarded_client_cert();
    EvidenceLayer::new(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().with_client_certificates(header))
        .with_clock(clock())
});

static AUTHENTICATORS: LazyLock<[ClientCertAuthenticator; 3]> = LazyLock::new(|| {
    [
        ClientCertAuthenticator::by_sha256().allow_everybody_issued().build().unwrap(),
        ClientCertAuthenticator::by_uri().allow_everybody_issued().build().unwrap(),
        ClientCertAuthenticator::by_full_subject_name().allow_everybody_issued().build().unwrap(),
    ]
});

/// An element: keys in lower case, and their values.
type Pairs = Vec<(String, String)>;

/// Panics if something of that does not hold. True if the input is an element that names a certificate.
pub fn check(data: &[u8]) -> bool {
    round_trip(data);
    let Ok(value) = HeaderValue::from_bytes(data) else { return false };
    let text = value.to_str().ok().filter(|text| text.len() <= 32 * 1024).map(str::trim_ascii).unwrap_or_default();
    let seen = forwarded(value.clone());
    let Some(pairs) = read(text) else {
        assert!(seen.is_none(), "{text}");
        return false;
    };
    let all =
        |key: &str| pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let (hash, cert, subject) = (all("hash"), all("cert"), all("subject"));
    let is_hash = hash.iter().all(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let good = is_hash && hash.len() + cert.len() > 0 && [&hash, &cert, &subject].iter().all(|once| once.len() < 2);
    let Some(certificate) = seen else {
        assert!(!good || !cert.is_empty(), "{text}");
        return false;
    };
    assert!(good, "{text}");
    if let [hash] = &hash[..] {
        let hash: Vec<u8> = hash
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect();
        // One that does not parse has none.
        assert!(certificate.sha256().map_or(!cert.is_empty(), |found| found == *hash));
    }
    assert_eq!(certificate.der().is_some(), !cert.is_empty());
    if cert.is_empty() {
        let is_uri =
            |uri: &String| uri.bytes().all(|byte| byte.is_ascii_graphic()) && uri.find(':').is_some_and(|at| at > 0);
        let uris: Vec<_> = all("uri").into_iter().filter(|uri| is_uri(uri) && uri.len() <= 2048).collect();
        let [by_hash, by_uri, by_name] = AUTHENTICATORS.each_ref().map(|by| subject_of(by, certificate.clone()));
        assert_eq!(by_hash, Some(hash[0].to_ascii_lowercase()));
        assert_eq!(by_uri, <[String; 1]>::try_from(uris).ok().map(|[uri]| uri), "{text}");
        assert_eq!(by_name, subject.first().filter(|subject| !subject.is_empty()).cloned(), "{text}");
    }
    true
}

/// The names, written as the proxy writes them, are read back.
fn round_trip(data: &[u8]) {
    let names: Vec<&str> = lines(data).take(3).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    let [subject, uri, other] = names[..] else { return };
    if names.iter().any(|name| name.bytes().any(|byte| !(0x20..0x7f).contains(&byte))) {
        return;
    }
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let element =
        format!("By={};Hash={HASH};Subject={};URI={}", quoted(other), quoted(subject), quoted(&format!("urn:{uri}")));
    if element.len() > 32 * 1024 {
        return;
    }
    let certificate = forwarded(HeaderValue::try_from(&element).unwrap()).unwrap();
    let [by_hash, by_uri, by_name] = AUTHENTICATORS.each_ref().map(|by| subject_of(by, certificate.clone()));
    assert_eq!(by_hash.as_deref(), Some(HASH));
    assert_eq!(by_name, (!subject.is_empty()).then(|| subject.to_owned()), "{element}");
    let is_uri = uri.len() < 2045 && uri.bytes().all(|byte| byte.is_ascii_graphic());
    assert_eq!(by_uri, is_uri.then(|| format!("urn:{uri}")), "{element}");
}

/// The certificate that the handler learns of.
fn forwarded(value: HeaderValue) -> Option<ClientCertificate> {
    let mut request = Request::new(());
    request.headers_mut().insert(HeaderName::from_static("x-forwarded-client-cert"), value);
    request.headers_mut().insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
    request.extensions_mut().insert(Connection::plain("10.0.12.7:1".parse().unwrap()));
    let reached = Reached::default();
    assert_eq!(send(LAYER.layer(handler(&reached)), request).status(), 200);
    let request = reached.lock().unwrap().take().unwrap();
    SecurityContext::of(request.extensions()).unwrap().client().unwrap().client_certificate().cloned()
}

/// Cuts the text at each separator that is in no quotes, then reads the pairs. None if it is not one element of at most 64.
fn read(text: &str) -> Option<Pairs> {
    let (mut pieces, mut quoted, mut escaped, mut last) = (vec![String::new()], false, false, '\0');
    for char in text.chars() {
        if !quoted && char == ',' {
            return None;
        }
        if !quoted && char == ';' {
            pieces.push(String::new());
            last = char;
            continue;
        }
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            // Quotes begin right behind the first equals sign of a pair.
            '"' if quoted => quoted = false,
            '"' => quoted = last == '=' && pieces.last()?.matches('=').count() == 1,
            _ => {}
        }
        pieces.last_mut()?.push(char);
        last = char;
    }
    let pairs = pieces.iter().map(|piece| pair(piece)).collect::<Option<Pairs>>()?;
    (!quoted && pairs.len() <= 64).then_some(pairs)
}

fn pair(piece: &str) -> Option<(String, String)> {
    let (key, value) = piece.split_once('=').filter(|(key, _)| !key.contains('"'))?;
    let key = key.trim_ascii().to_ascii_lowercase();
    let Some(inside) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| (key, value.trim_ascii().to_owned()));
    };
    let inside = inside.trim_ascii_end().strip_suffix('"')?;
    let mut value = String::new();
    let mut chars = inside.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                let next = chars.next()?;
                if !matches!(next, '"' | '\\') {
                    value.push('\\');
                }
                value.push(next);
            }
            '"' => return None,
            char => value.push(char),
        }
    }
    Some((key, value))
}
