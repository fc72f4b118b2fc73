//! The words that proxies use for the other end: addresses, `unknown`, hidden names (RFC 7239 §6), and schemes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whom an element names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// An address, IPv4-mapped IPv6 as IPv4.
    Address(IpAddr),
    /// The proxy does not say: `unknown`, a hidden name, or nothing.
    Hidden,
    /// Nothing that the grammar knows.
    Invalid,
}

impl Node {
    /// `nodename [ ":" node-port ]` (RFC 7239 §6): IPv6 in brackets. A zone id (`%eth0`) is dropped.
    pub(super) fn strict(text: &str) -> Self {
        Self::read(text).unwrap_or(Self::Invalid)
    }

    /// As people write it in `X-Forwarded-For`: also IPv6 without brackets.
    pub(super) fn lenient(text: &[u8]) -> Self {
        if let Some(address) = ipv4(text) {
            return Self::Address(IpAddr::V4(address));
        }
        let Ok(text) = std::str::from_utf8(text) else { return Self::Invalid };
        match ipv6(text) {
            Some(address) => Self::address(address.into()),
            None => Self::strict(text),
        }
    }

    fn read(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']')?;
            let port = after.strip_prefix(':');
            let ends_well = after.is_empty() || port.is_some_and(is_port);
            return ends_well.then_some(Self::address(ipv6(inside)?.into()));
        }
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        if !port.is_none_or(is_port) {
            return None;
        }
        if name.eq_ignore_ascii_case("unknown") || is_hidden(name) {
            return Some(Self::Hidden);
        }
        name.parse().ok().map(|address| Self::address(IpAddr::V4(address)))
    }

    fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

/// Four numbers without leading zeros, as std reads them, in a fraction of the time: most clients of most services are
/// written so.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    if !matches!(text.len(), 7..=15) {
        return None;
    }
    let (mut address, mut number, mut digits, mut dots) = (0_u32, 0_u32, 0_u32, 0_u32);
    // A number of at most 15 digits: what wraps has too many, and is refused for that.
    let is_number = |number: u32, digits: u32| match digits {
        1 => true,
        2 => number >= 10,
        3 => matches!(number, 100..=255),
        _ => false,
    };
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            number = number.wrapping_mul(10).wrapping_add(u32::from(digit));
            digits += 1;
        } else if *byte == b'.' && is_number(number, digits) {
            (address, number, digits, dots) = (address << 8 | number, 0, 0, dots + 1);
        } else {
            return None;
        }
    }
    (dots == 3 && is_number(number, digits)).then(|| Ipv4Addr::from(address << 8 | number))
}

fn ipv6(text: &str) -> Option<Ipv6Addr> {
    match text.split_once('%') {
        None => text.parse().ok(),
        Some((address, zone)) if !zone.is_empty() && zone.bytes().all(is_hidden_char) => address.parse().ok(),
        Some(_) => None,
    }
}

/// `1*5DIGIT` or a hidden port.
fn is_port(text: &str) -> bool {
    (matches!(text.len(), 1..=5) && text.bytes().all(|byte| byte.is_ascii_digit())) || is_hidden(text)
}

/// `"_" 1*( ALPHA / DIGIT / "." / "_" / "-" )`
fn is_hidden(text: &str) -> bool {
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_hidden_char))
}

const fn is_hidden_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Whether the scheme is one that runs over TLS. `wss` is what some proxies say of a WebSocket.
pub(super) fn is_secure_scheme(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Node {
        Node::Address(text.parse().unwrap())
    }

    #[test]
    fn nodes_of_the_rfc() {
        let cases = [
            ("IPv4", "192.0.2.43", address("192.0.2.43")),
            ("IPv4 with port", "192.0.2.43:47011", address("192.0.2.43")),
            ("IPv4 with hidden port", "192.0.2.43:_x", address("192.0.2.43")),
            ("IPv6", "[2001:db8:cafe::17]", address("2001:db8:cafe::17")),
            ("IPv6 with port", "[2001:db8:cafe::17]:4711", address("2001:db8:cafe::17")),
            ("mapped", "[::ffff:192.0.2.43]", address("192.0.2.43")),
            ("zone", "[fe80::1%eth0]", address("fe80::1")),
            ("unknown", "unknown", Node::Hidden),
            ("unknown in capitals with port", "UNKNOWN:80", Node::Hidden),
            ("hidden", "_gazonk", Node::Hidden),
            ("hidden with hidden port", "_SEVKISEK:_p", Node::Hidden),
            ("IPv6 without brackets", "2001:db8::17", Node::Invalid),
            ("IPv4 in brackets", "[192.0.2.43]", Node::Invalid),
            ("text after the bracket", "[2001:db8::17]x", Node::Invalid),
            ("no closing bracket", "[2001:db8::17", Node::Invalid),
            ("empty port", "192.0.2.43:", Node::Invalid),
            ("long port", "192.0.2.43:123456", Node::Invalid),
            ("port with a sign", "192.0.2.43:+80", Node::Invalid),
            ("octal", "192.0.2.043", Node::Invalid),
            ("short IPv4", "127.1", Node::Invalid),
            ("number", "2130706433", Node::Invalid),
            ("lone underscore", "_", Node::Invalid),
            ("name", "client.example.com", Node::Invalid),
            ("space", "192.0.2.43 ", Node::Invalid),
            ("empty zone", "[fe80::1%]", Node::Invalid),
            ("zone on IPv4", "192.0.2.43%eth0", Node::Invalid),
            ("empty", "", Node::Invalid),
        ];
        for (name, text, node) in cases {
            assert_eq!(Node::strict(text), node, "{name}");
        }
    }

    #[test]
    fn bare_ipv6_is_for_x_forwarded_for_only() {
        for (text, node) in [
            ("2001:db8::17", address("2001:db8::17")),
            ("::ffff:192.0.2.43", address("192.0.2.43")),
            ("fe80::1%eth0", address("fe80::1")),
            ("[2001:db8::17]:443", address("2001:db8::17")),
            ("192.0.2.43:443", address("192.0.2.43")),
            ("2001:db8::17:443:", Node::Invalid),
        ] {
            assert_eq!(Node::lenient(text.as_bytes()), node, "{text}");
        }
    }
    proptest! {
        #[test]
        fn numbers_are_read_as_std_reads_them(text in r"(0|1|25|256|255|01|001|99|4294967297|\.|\.|:|x| ){0,9}", address in any::<[u8; 4]>()) {
            prop_assert_eq!(ipv4(text.as_bytes()), text.parse().ok());
            let address = Ipv4Addr::from(address);
            prop_assert_eq!(ipv4(address.to_string().as_bytes()), Some(address));
        }
    }
}
