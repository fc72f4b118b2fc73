//! `X-Forwarded-Client-Cert`, as Envoy writes it: elements by comma, `key=value` pairs by semicolon, values in double quotes
//! where they hold one of these.

use std::borrow::Cow;

use super::certificate::{digit, escaped_pem};
use crate::client::{CertificateFacts, ClientCertificate, Usage, sha256};

/// The most pairs of an element.
const MAX_PAIRS: usize = 64;

/// Reads a value with exactly one element.
pub(super) fn read(text: &str) -> Result<ClientCertificate, &'static str> {
    let mut element = Element::default();
    let mut rest = text;
    for _ in 0..MAX_PAIRS {
        let (key, after) = rest.split_once('=').ok_or("has a pair without a value")?;
        // Else the end of one element and the beginning of the next are one key, and two elements are one.
        if key.contains([';', ',', '"']) {
            return Err("has a key that is none");
        }
        let (value, after) = value(after)?;
        element.add(key.trim_ascii(), value)?;
        let after = after.trim_ascii_start();
        match after.bytes().next() {
            None => return element.finish(),
            Some(b';') => rest = after.get(1..).unwrap_or_default(),
            Some(b',') => return Err("has two elements: the proxy must set it, not append to it"),
            Some(_) => return Err("has something after a quoted value"),
        }
    }
    Err("has more pairs than any proxy writes")
}

/// A value, without its quotes and their escapes, and what follows it.
fn value(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let Some(inside) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        if value.contains('"') {
            return Err("has a quote within a value");
        }
        return Ok((Cow::Borrowed(value.trim_ascii()), rest));
    };
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((Cow::Owned(value), inside.get(at..).and_then(|rest| rest.get(1..)).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            char => value.push(char),
        }
    }
    Err("has a quote without end")
}

#[derive(Default)]
struct Element<'a> {
    hash: Option<[u8; 32]>,
    certificate: Option<ClientCertificate>,
    subject: Option<Cow<'a, str>>,
    uris: Vec<Box<str>>,
    dns: Vec<Box<str>>,
}

impl<'a> Element<'a> {
    fn add(&mut self, key: &str, value: Cow<'a, str>) -> Result<(), &'static str> {
        let is = |name: &str| key.eq_ignore_ascii_case(name);
        let once = |stands: bool| if stands { Err("has a key that stands twice") } else { Ok(()) };
        if is("Hash") {
            once(self.hash.is_some())?;
            self.hash = Some(hash(&value).ok_or("has a Hash that is not a SHA-256")?);
        } else if is("Cert") {
            once(self.certificate.is_some())?;
            self.certificate = Some(escaped_pem(&value)?);
        } else if is("Subject") {
            once(self.subject.is_some())?;
            self.subject = Some(value);
        } else if is("URI") {
            // Envoy writes the key for each name, and an empty value if there is none.
            self.uris.extend((!value.is_empty()).then(|| value.into()));
        } else if is("DNS") {
            self.dns.extend((!value.is_empty()).then(|| value.into()));
        }
        Ok(())
    }

    fn finish(self) -> Result<ClientCertificate, &'static str> {
        match (self.certificate, self.hash) {
            (Some(certificate), None) => Ok(certificate),
            (Some(certificate), Some(hash)) if certificate.der().map(sha256) == Some(hash) => Ok(certificate),
            (Some(_), Some(_)) => Err("has a Hash that is not the Cert's"),
            (None, None) => Err("has neither Cert nor Hash"),
            (None, Some(sha256)) => Ok(ClientCertificate::told(CertificateFacts {
                sha256,
                dns: self.dns,
                uris: self.uris,
                subject: self.subject.filter(|subject| !subject.is_empty()).map(Into::into),
                validity: None,
                usage: Usage::ANY,
            })),
        }
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let digits: [u8; 64] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const HASH: &str = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";

    fn told(text: &str) -> CertificateFacts {
        read(text).unwrap().facts().unwrap().clone()
    }

    #[test]
    fn the_examples_of_envoy() {
        let text = format!(
            "By=http://frontend.lyft.com;Hash={HASH};Subject=\"/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client\";URI=http://testclient.lyft.com"
        );
        let facts = told(&text);
        assert_eq!(facts.subject.as_deref(), Some("/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client"));
        assert_eq!(facts.uris, [Box::from("http://testclient.lyft.com")]);
        assert_eq!(facts.sha256[..2], [0x46, 0x8e]);
        let text = format!(
            "By=http://frontend.lyft.com;Hash={HASH};URI=http://testclient.lyft.com;DNS=lyft.com;DNS=www.lyft.com"
        );
        assert_eq!(told(&text).dns, [Box::from("lyft.com"), Box::from("www.lyft.com")]);
        assert!(told(&format!("hash={};uri=;dns=", HASH.to_uppercase())).uris.is_empty());
    }

    #[test]
    fn quotes() {
        let subject = |text: &str| told(&format!("Hash={HASH};Subject={text}")).subject.unwrap();
        assert_eq!(&*subject(r#""CN=a,O=\"b\";URI=spiffe://evil/x""#), r#"CN=a,O="b";URI=spiffe://evil/x"#);
        assert_eq!(&*subject(r#""CN=a\\,O=b""#), r"CN=a\,O=b");
        assert_eq!(&*subject(r#""CN=a\2C""#), r"CN=a\2C");
    }

    #[test]
    fn a_certificate_is_believed_before_what_is_said_of_it() {
        let certificate = CertificateParams::new(["client.example".to_owned()])
            .unwrap()
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        let escaped: String = certificate.pem().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let hash: String = sha256(certificate.der()).iter().map(|byte| format!("{byte:02x}")).collect();
        let facts = told(&format!("Hash={hash};Cert=\"{escaped}\";DNS=evil.example"));
        assert_eq!(facts.dns, [Box::from("client.example")]);
        assert!(read(&format!("Hash={HASH};Cert=\"{escaped}\"")).is_err(), "of another certificate");
        assert!(read(&format!("Cert={escaped};Cert={escaped}")).is_err(), "twice");
    }

    #[test]
    fn what_is_refused() {
        let long = format!("Hash={HASH};{}", "DNS=a;".repeat(MAX_PAIRS));
        let cases = [
            ("two elements", format!("Hash={HASH},Hash={HASH}")),
            ("an element of the client's before it", format!("URI=spiffe://evil/x,Hash={HASH}")),
            ("an element of the client's without a value", format!("URI=spiffe://evil/x;a,By=b;Hash={HASH}")),
            ("a pair without a value", format!("a;Hash={HASH};DNS=a.example")),
            ("a quoted key", format!("Hash={HASH};\"DNS\"=a.example")),
            ("no hash", "URI=spiffe://a/x".to_owned()),
            ("short hash", "Hash=468ed33b".to_owned()),
            ("a hash of other letters", HASH.replace('4', "g")),
            ("two hashes", format!("Hash={HASH};Hash={HASH}")),
            ("two subjects", format!("Hash={HASH};Subject=a;Subject=b")),
            ("open quote", format!("Hash={HASH};Subject=\"a")),
            ("escape at the end", format!("Hash={HASH};Subject=\"a\\")),
            ("text after the quote", format!("Hash={HASH};Subject=\"a\"b")),
            ("quote within", format!("Hash={HASH};Subject=a\"b\"")),
            ("no value", format!("Hash={HASH};Subject")),
            ("semicolon at the end", format!("Hash={HASH};")),
            ("very many", long),
        ];
        for (name, text) in cases {
            assert!(read(&text).is_err(), "{name}");
        }
    }
}
