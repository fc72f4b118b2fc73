//! The `Host` grammar (RFC 9110 §7.2, RFC 3986 §3.2.2), without what no resolver takes.

use std::net::Ipv6Addr;

/// The longest host name, in bytes (RFC 1035 §2.3.4).
const MAX_NAME_LEN: usize = 255;

/// A host and perhaps a port, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub(crate) name: &'a str,
    pub(crate) port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Reads letters, digits, `-`, `.` and `_`, or a bracketed IPv6 address; then `:` and a port.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, _) = rest.split_once(']')?;
                inside.parse::<Ipv6Addr>().ok()?;
                text.split_at_checked(inside.len().checked_add(2)?)?
            }
            None => {
                let end = text.bytes().position(|byte| !is_name_byte(byte)).unwrap_or(text.len());
                if !matches!(end, 1..=MAX_NAME_LEN) {
                    return None;
                }
                text.split_at_checked(end)?
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { name, port })
    }

    /// Whether the host is `localhost`, below it, or an address literal: nothing that a browser pins to HTTPS (RFC 6797
    /// §8.1.1). A name whose last label is a number counts as an address, as browsers read it so.
    pub(crate) fn is_local_or_literal(&self) -> bool {
        let name = self.name.strip_suffix('.').unwrap_or(self.name);
        let last = name.bytes().rposition(|byte| byte == b'.').and_then(|dot| name.get(dot.saturating_add(1)..));
        let last = last.unwrap_or(name);
        name.starts_with('[')
            || last.eq_ignore_ascii_case("localhost")
            || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let good: [(&str, &str, Option<u16>); 6] = [
            ("api.example.com", "api.example.com", None),
            ("api.example.com:8443", "api.example.com", Some(8443)),
            ("my_service", "my_service", None),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
        ];
        for (text, name, port) in good {
            assert_eq!(Host::parse(text), Some(Host { name, port }), "{text}");
        }
        let long = "a".repeat(MAX_NAME_LEN + 1);
        for text in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a,b",
            "host:",
            "host:+80",
            "host:65536",
            "host:80:80",
            "[::1",
            "[::1]x",
            "[v1.x]",
            "h\u{f6}st",
            "a\"b",
            &long,
        ] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn literals_and_localhost() {
        for (text, literal) in [
            ("localhost:8080", true),
            ("LOCALHOST.", true),
            ("api.localhost", true),
            ("127.0.0.1", true),
            ("127.1", true),
            ("[::1]:443", true),
            ("example.com", false),
            ("localhost.example.com", false),
            ("1.example", false),
        ] {
            assert_eq!(Host::parse(text).unwrap().is_local_or_literal(), literal, "{text}");
        }
    }
}
