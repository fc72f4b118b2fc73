//! Which name of a certificate is its owner's, and which names are on a list.

use crate::{
    client::{CertificateFacts, Usage},
    client_cert::spiffe::SpiffeId,
    error::ConfigError,
    evidence::Host,
};

/// The longest name that is accepted, in bytes.
const MAX_LEN: usize = 2048;

/// What identifies the owner of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    DnsName,
    Uri,
    /// With the trust domains that are believed.
    Spiffe(Box<[Box<str>]>),
    Sha256,
    SubjectName,
}

impl Kind {
    pub(super) const fn describe(&self) -> &'static str {
        match self {
            Self::DnsName => "DNS name",
            Self::Uri => "URI",
            Self::Spiffe(_) => "SPIFFE ID",
            Self::Sha256 => "SHA-256",
            Self::SubjectName => "subject name",
        }
    }

    pub(super) const fn describe_several(&self) -> &'static str {
        match self {
            Self::DnsName => "DNS names",
            Self::Uri => "URIs",
            Self::Spiffe(_) => "SPIFFE IDs",
            Self::Sha256 => "SHA-256s",
            Self::SubjectName => "subject names",
        }
    }

    /// The owner's names in a certificate, in the form that lists have them.
    pub(super) fn names(&self, facts: &CertificateFacts) -> Result<Vec<Box<str>>, &'static str> {
        let Usage { is_authority, signs, client } = facts.usage;
        if !client {
            return Err("is not for clients");
        }
        if is_authority && *self != Self::Sha256 {
            return Err("is an authority's");
        }
        match self {
            // What is no host, such as a wildcard, names nobody.
            Self::DnsName => Ok(facts.dns.iter().filter_map(|name| dns_name(name)).collect()),
            Self::Uri => Ok(facts.uris.iter().filter(|uri| is_uri(uri)).cloned().collect()),
            Self::Spiffe(domains) => match &*facts.uris {
                [] => Ok(Vec::new()),
                _ if !signs => Err("is not for signatures, as an SVID is"),
                [uri] => match SpiffeId::parse(uri) {
                    Some(id) if domains.iter().any(|domain| **domain == *id.trust_domain) => Ok(vec![uri.clone()]),
                    Some(_) => Err("is of another trust domain"),
                    None => Err("has a URI that is no SPIFFE ID of a workload"),
                },
                // X.509-SVID §2: exactly one URI.
                _ => Err("has several URIs"),
            },
            Self::Sha256 => Ok(vec![hex(&facts.sha256).into()]),
            Self::SubjectName => Ok(facts.subject.iter().cloned().collect()),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn dns_name(text: &str) -> Option<Box<str>> {
    let host = Host::parse(text).filter(|host| host.port.is_none() && !host.name.starts_with('['))?;
    Some(host.name.to_ascii_lowercase().into())
}

fn is_uri(text: &str) -> bool {
    text.len() <= MAX_LEN && text.bytes().all(|byte| byte.is_ascii_graphic()) && text.find(':').is_some_and(|at| at > 0)
}

/// A name, or several that share one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Exactly(Box<str>),
    /// `*.example.com`: one label, and what stands here, dot included.
    LabelAnd(Box<str>),
    /// `spiffe://example.com/ns/*`: what stands here, slash included, and at least one byte.
    Below(Box<str>),
}

impl Pattern {
    pub(super) fn read(kind: &Kind, text: &str) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| Err(ConfigError::new("client certificates", format!("{text:?}"), problem));
        if text.is_empty() || text.len() > MAX_LEN {
            return refuse("is empty or too long");
        }
        match kind {
            Kind::DnsName => {
                let (name, wild) = match text.strip_prefix("*.") {
                    Some(rest) => (rest, true),
                    None => (text, false),
                };
                match dns_name(name) {
                    Some(name) if wild => Ok(Self::LabelAnd(format!(".{name}").into())),
                    Some(name) => Ok(Self::Exactly(name)),
                    None => refuse("is not a DNS name, or *.domain"),
                }
            }
            Kind::Uri if !is_uri(text) => refuse("is not a URI"),
            Kind::Spiffe(domains) => {
                let id = SpiffeId::parse(text.strip_suffix("/*").map_or(text, |above| above))
                    .or_else(|| text.strip_suffix("/*").and_then(SpiffeId::trust_domain_alone));
                match id {
                    Some(id) if domains.iter().any(|domain| **domain == *id.trust_domain) => Ok(Self::of_uri(text)),
                    Some(_) => refuse("is of a trust domain that is not believed"),
                    None => refuse("is not a SPIFFE ID, or one with /* at its end"),
                }
            }
            Kind::Uri => Ok(Self::of_uri(text)),
            Kind::Sha256 => {
                let digits: String = text.chars().filter(|char| *char != ':').collect();
                if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    Ok(Self::Exactly(digits.to_ascii_lowercase().into()))
                } else {
                    refuse("is not a SHA-256 in hexadecimal digits")
                }
            }
            Kind::SubjectName => Ok(Self::Exactly(text.into())),
        }
    }

    fn of_uri(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(above) if above.ends_with('/') => Self::Below(above.into()),
            _ => Self::Exactly(text.into()),
        }
    }

    /// As it was written.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Exactly(name) => name.to_string(),
            Self::LabelAnd(rest) => format!("*{rest}"),
            Self::Below(above) => format!("{above}*"),
        }
    }

    /// Whether there are names that both stand for.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exactly(name), pattern) | (pattern, Self::Exactly(name)) => pattern.matches(name),
            (Self::LabelAnd(one), Self::LabelAnd(other)) => one == other,
            (Self::Below(one), Self::Below(other)) => one.starts_with(&**other) || other.starts_with(&**one),
            (Self::LabelAnd(_), Self::Below(_)) | (Self::Below(_), Self::LabelAnd(_)) => false,
        }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(exactly) => **exactly == *name,
            Self::LabelAnd(rest) => {
                name.strip_suffix(&**rest).is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
            Self::Below(above) => name.strip_prefix(&**above).is_some_and(|below| !below.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spiffe() -> Kind {
        Kind::Spiffe(["prod.example".into()].into())
    }

    fn facts(dns: &[&str], uris: &[&str]) -> CertificateFacts {
        let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        CertificateFacts {
            sha256: [0xab; 32],
            dns: list(dns),
            uris: list(uris),
            subject: Some("CN=billing,O=Acme".into()),
            validity: None,
            usage: Usage::ANY,
        }
    }

    #[test]
    fn names_of_a_certificate() {
        let names = |kind: Kind, dns: &[&str], uris: &[&str]| {
            kind.names(&facts(dns, uris)).map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let of = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect());
        let dns = ["Billing.example", "*.example", "a b", "", "10.0.0.1:80", "a\0.example"];
        assert_eq!(names(Kind::DnsName, &dns, &[]), of(&["billing.example"]));
        assert_eq!(names(Kind::Uri, &[], &["urn:a", "no scheme", ":x", "urn:\u{e4}"]), of(&["urn:a"]));
        assert_eq!(names(Kind::Sha256, &[], &[]), of(&[&"ab".repeat(32)]));
        assert_eq!(names(Kind::SubjectName, &[], &[]), of(&["CN=billing,O=Acme"]));
        assert_eq!(names(spiffe(), &["x"], &["spiffe://prod.example/a"]), of(&["spiffe://prod.example/a"]));
        assert_eq!(names(spiffe(), &["x"], &[]), of(&[]));
        for (name, uris) in [
            ("another domain", &["spiffe://test.example/a"][..]),
            ("two", &["spiffe://prod.example/a", "spiffe://prod.example/b"]),
            ("another URI beside it", &["spiffe://prod.example/a", "urn:a"]),
            ("the domain's own", &["spiffe://prod.example"]),
            ("no SPIFFE ID", &["urn:a"]),
        ] {
            assert!(names(spiffe(), &[], uris).is_err(), "{name}");
        }
    }

    #[test]
    fn a_key_that_is_for_something_else_names_nobody() {
        let mut server = facts(&["a.example"], &["spiffe://prod.example/a"]);
        server.usage.client = false;
        let mut authority = server.clone();
        authority.usage = Usage { is_authority: true, ..Usage::ANY };
        for kind in [Kind::DnsName, Kind::Uri, spiffe(), Kind::SubjectName] {
            assert!(kind.names(&server).is_err() && kind.names(&authority).is_err(), "{kind:?}");
        }
        assert!(Kind::Sha256.names(&server).is_err());
        assert!(Kind::Sha256.names(&authority).is_ok(), "a self-signed certificate often is an authority's");
        let mut encrypts = facts(&[], &["spiffe://prod.example/a"]);
        encrypts.usage.signs = false;
        assert!(spiffe().names(&encrypts).is_err() && Kind::Uri.names(&encrypts).is_ok());
    }

    #[test]
    fn patterns() {
        let cases: [(Kind, &str, &[&str], &[&str]); 7] = [
            (Kind::DnsName, "A.example", &["a.example"], &["b.a.example", "a.example.evil", ""]),
            (
                Kind::DnsName,
                "*.a.example",
                &["b.a.example"],
                &["a.example", ".a.example", "c.b.a.example", "ba.example"],
            ),
            (Kind::Uri, "urn:a", &["urn:a"], &["urn:ab", "urn:A"]),
            (Kind::Uri, "https://a/*", &["https://a/b", "https://a/b/c"], &["https://a/", "https://a", "https://ab/c"]),
            (
                spiffe(),
                "spiffe://prod.example/ns/*",
                &["spiffe://prod.example/ns/a/b"],
                &["spiffe://prod.example/nsx/a"],
            ),
            (spiffe(), "spiffe://prod.example/*", &["spiffe://prod.example/a"], &["spiffe://prod.example.evil/a"]),
            (Kind::SubjectName, "CN=a*", &["CN=a*"], &["CN=ab", "CN=a"]),
        ];
        for (kind, pattern, like, unlike) in cases {
            let read = Pattern::read(&kind, pattern).unwrap();
            for name in like {
                assert!(read.matches(name), "{pattern} {name}");
            }
            for name in unlike {
                assert!(!read.matches(name), "{pattern} {name}");
            }
        }
        let digits = Pattern::read(&Kind::Sha256, &"AB:".repeat(32)).unwrap();
        assert!(digits.matches(&"ab".repeat(32)));
    }

    #[test]
    fn patterns_that_overlap() {
        for (kind, one, other, overlap) in [
            (Kind::DnsName, "a.example", "A.example", true),
            (Kind::DnsName, "a.example", "*.example", true),
            (Kind::DnsName, "*.example", "*.example", true),
            (Kind::DnsName, "*.example", "*.a.example", false),
            (Kind::DnsName, "a.example", "b.example", false),
            (Kind::DnsName, "b.a.example", "*.example", false),
            (Kind::Uri, "https://a/*", "https://a/b/*", true),
            (Kind::Uri, "https://a/b", "https://a/*", true),
            (Kind::Uri, "https://a/*", "https://b/*", false),
        ] {
            let read = |text| Pattern::read(&kind, text).unwrap();
            assert_eq!(read(one).overlaps(&read(other)), overlap, "{one} {other}");
            assert_eq!(read(other).overlaps(&read(one)), overlap, "{other} {one}");
        }
        for text in ["a.example", "*.example"] {
            assert_eq!(Pattern::read(&Kind::DnsName, text).unwrap().text(), text);
        }
        assert_eq!(Pattern::read(&spiffe(), "spiffe://prod.example/*").unwrap().text(), "spiffe://prod.example/*");
    }

    #[test]
    fn patterns_that_are_refused() {
        for (kind, texts) in [
            (Kind::DnsName, &["", "*", "*.", "a*.example", "*.*.example", "a.example:80", "a b"][..]),
            (Kind::Uri, &["", "no-scheme", "urn:a b"]),
            (spiffe(), &["urn:a", "spiffe://test.example/a", "spiffe://prod.example", "spiffe://prod.example/a/", "*"]),
            (Kind::Sha256, &["ab", "zz", "*"]),
            (Kind::SubjectName, &[""]),
        ] {
            for text in texts {
                assert!(Pattern::read(&kind, text).is_err(), "{kind:?} {text}");
            }
        }
    }
}
