//! SPIFFE IDs (SPIFFE-ID §2).

const MAX_LEN: usize = 2048;
const MAX_DOMAIN_LEN: usize = 255;

/// The name of a workload: `spiffe://trust-domain/path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpiffeId<'a> {
    pub(super) trust_domain: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// The strict form: lower-case scheme and domain, no port, no query, a path of plain segments that is not empty.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (trust_domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
        let well_formed = text.len() <= MAX_LEN && is_trust_domain(trust_domain) && path.split('/').all(is_segment);
        well_formed.then_some(Self { trust_domain })
    }

    /// The name of a trust domain itself: `spiffe://trust-domain`.
    pub(super) fn trust_domain_alone(text: &'a str) -> Option<Self> {
        let trust_domain = text.strip_prefix("spiffe://")?;
        is_trust_domain(trust_domain).then_some(Self { trust_domain })
    }
}

pub(super) fn is_trust_domain(text: &str) -> bool {
    matches!(text.len(), 1..=MAX_DOMAIN_LEN)
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (text, domain) in [
            ("spiffe://example.org/a", "example.org"),
            ("spiffe://example.org/ns/prod/sa/Web_1.2-x", "example.org"),
            ("spiffe://a_b-1/...", "a_b-1"),
        ] {
            assert_eq!(SpiffeId::parse(text).map(|id| id.trust_domain), Some(domain), "{text}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2048));
        let long_domain = format!("spiffe://{}/a", "a".repeat(256));
        for text in [
            "",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///a",
            "SPIFFE://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org:8443/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/./a",
            "spiffe://example.org/a%2fb",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://ex\u{e4}mple.org/a",
            "https://example.org/a",
            &long,
            &long_domain,
        ] {
            assert_eq!(SpiffeId::parse(text), None, "{text:.60}");
        }
    }
}
