//! The walk along the proxies, from the connection's peer towards the client.
//!
//! Only what a trusted proxy appended counts, and each appends to the right. So the walk goes from the right, as long as
//! it meets trusted proxies; the first address that is none of them is the client's. What stands left of it was written by
//! the client or by somebody who is not trusted, and is not looked at.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header::GetAll};

use super::{
    forwarded,
    host::Host,
    node::{Node, is_secure_scheme},
    trust::{Family, TrustedProxies},
};

/// The most elements of one field, over all its lines.
const MAX_ELEMENTS: usize = 64;
/// The most bytes of one field, over all its lines.
const MAX_BYTES: usize = 8 * 1024;

const FORWARDED: HeaderName = http::header::FORWARDED;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What the trusted proxies say about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The client's address, or the address of the last proxy that is trusted.
    pub(super) address: IpAddr,
    /// The header does not parse where it matters.
    pub(super) malformed: bool,
    pub(super) secure: bool,
    pub(super) host: Option<Box<str>>,
}

impl Found {
    /// What is left when the header makes no sense: the address of the proxy that passed it on, and nothing else.
    const fn malformed(address: IpAddr) -> Self {
        Self { address, malformed: true, secure: false, host: None }
    }
}

/// Walks from `peer`, which is a trusted proxy.
pub(super) fn walk(headers: &HeaderMap, peer: IpAddr, family: Family, proxies: &TrustedProxies) -> Found {
    match family {
        Family::XForwarded => x_forwarded(headers, peer, proxies),
        Family::Forwarded => forwarded(headers, peer, proxies),
    }
}

fn x_forwarded(headers: &HeaderMap, peer: IpAddr, proxies: &TrustedProxies) -> Found {
    let Some(chain) = List::read(headers, &X_FORWARDED_FOR) else { return Found::malformed(peer) };
    let (mut address, mut position) = (peer, 0);
    for (index, element) in chain.rightmost_first().enumerate() {
        position = index;
        match element.map_or(Node::Invalid, Node::lenient) {
            Node::Address(next) => {
                address = next;
                if !proxies.contains(next) {
                    break;
                }
            }
            Node::Hidden => break,
            Node::Invalid => return Found::malformed(address),
        }
    }
    let (Some(schemes), Some(hosts)) =
        (List::read(headers, &X_FORWARDED_PROTO), List::read(headers, &X_FORWARDED_HOST))
    else {
        return Found::malformed(address);
    };
    Found {
        address,
        malformed: false,
        secure: schemes.at(position).is_some_and(is_secure_scheme),
        host: hosts.at(position).and_then(checked_host),
    }
}

/// A list of comma-separated elements over all lines of a field, within bounds.
struct List<'a> {
    lines: GetAll<'a, HeaderValue>,
    len: usize,
}

impl<'a> List<'a> {
    /// None if the list is longer than anything that proxies write.
    fn read(headers: &'a HeaderMap, name: &HeaderName) -> Option<Self> {
        let lines = headers.get_all(name);
        let (mut bytes, mut len) = (0_usize, 0_usize);
        for line in &lines {
            bytes = bytes.saturating_add(line.len());
            if bytes > MAX_BYTES {
                return None;
            }
            let commas = line.as_bytes().iter().filter(|byte| **byte == b',').count();
            len = len.saturating_add(commas).saturating_add(1);
        }
        (len <= MAX_ELEMENTS).then_some(Self { lines, len })
    }

    /// The elements from the last to the first, without white space around them; None in place of one that is not UTF-8.
    fn rightmost_first(&self) -> impl Iterator<Item = Option<&'a str>> {
        let elements = self.lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        elements.map(|element| std::str::from_utf8(element.trim_ascii()).ok())
    }

    /// What the same hop said that wrote the element at `position` of the chain, counted from the right.
    ///
    /// A lone value was written by the outermost proxy and passed on by the others. A longer list has one element for
    /// each hop; one that is too short for this hop says nothing.
    fn at(&self, position: usize) -> Option<&'a str> {
        let position = if self.len == 1 { 0 } else { position };
        self.rightmost_first().nth(position).flatten()
    }
}

/// Reads left to right, as quoted strings demand, and keeps the answer that a walk from the right would give: each
/// element that a walk could not pass replaces what was found before.
fn forwarded(headers: &HeaderMap, peer: IpAddr, proxies: &TrustedProxies) -> Found {
    let mut last: Option<Stop<'_>> = None;
    let (mut bytes, mut len) = (0_usize, 0_usize);
    for line in headers.get_all(FORWARDED) {
        bytes = bytes.saturating_add(line.len());
        if bytes > MAX_BYTES {
            return Found::malformed(peer);
        }
        for element in forwarded::elements(line.as_bytes()) {
            len = len.saturating_add(1);
            if len > MAX_ELEMENTS {
                return Found::malformed(peer);
            }
            last = Some(Stop::after(last, element, proxies));
        }
    }
    match last {
        None => Found { address: peer, malformed: false, secure: false, host: None },
        Some(Stop { address, element: None }) => Found::malformed(address.unwrap_or(peer)),
        Some(Stop { address, element: Some(element) }) => Found {
            address: address.unwrap_or(peer),
            malformed: false,
            secure: element.secure,
            host: element.host.as_deref().and_then(checked_host),
        },
    }
}

/// Where a walk from the right would end, if the field ended here.
struct Stop<'a> {
    /// None until a trusted proxy is known that vouches for the element.
    address: Option<IpAddr>,
    /// The element at which the walk ends; None for one that is not valid.
    element: Option<forwarded::Element<'a>>,
}

impl<'a> Stop<'a> {
    fn after(
        before: Option<Self>,
        element: Result<forwarded::Element<'a>, forwarded::Malformed>,
        proxies: &TrustedProxies,
    ) -> Self {
        let Ok(element) = element else { return Self { address: None, element: None } };
        match (element.node, before) {
            (Node::Address(proxy), Some(before)) if proxies.contains(proxy) => {
                Self { address: Some(before.address.unwrap_or(proxy)), ..before }
            }
            (Node::Address(address), _) => Self { address: Some(address), element: Some(element) },
            (Node::Hidden, _) => Self { address: None, element: Some(element) },
            (Node::Invalid, _) => Self { address: None, element: None },
        }
    }
}

fn checked_host(text: &str) -> Option<Box<str>> {
    Host::parse(text).map(|_| text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.12.7";

    fn proxies() -> TrustedProxies {
        TrustedProxies::x_forwarded(["10.0.12.0/24", "2001:db8:1::/48"]).unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn found(family: Family, fields: &[(&'static str, &str)]) -> Found {
        walk(&headers(fields), PEER.parse().unwrap(), family, &proxies())
    }

    /// Name, the field's lines, the address, whether it is malformed.
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, bool);

    fn check(family: Family, field: &'static str, cases: &[Case<'_>]) {
        for (name, lines, address, malformed) in cases {
            let fields: Vec<_> = lines.iter().map(|line| (field, *line)).collect();
            let found = found(family, &fields);
            assert_eq!((found.address, found.malformed), (address.parse().unwrap(), *malformed), "{name}");
        }
    }

    #[test]
    fn x_forwarded_for() {
        let (many, long) = (vec!["192.0.2.1"; 65].join(","), format!("{}, 192.0.2.1", "x".repeat(8 * 1024)));
        let just = vec!["192.0.2.1"; 64].join(",");
        check(
            Family::XForwarded,
            "x-forwarded-for",
            &[
                ("absent", &[], PEER, false),
                ("one hop", &["198.51.100.7"], "198.51.100.7", false),
                ("spoofed leftmost", &["203.0.113.1, 198.51.100.7"], "198.51.100.7", false),
                ("spoofed as a trusted proxy", &["10.0.12.9, 198.51.100.7"], "198.51.100.7", false),
                ("spoofed in a line of its own", &["203.0.113.1", "198.51.100.7"], "198.51.100.7", false),
                ("two proxies", &["203.0.113.1, 198.51.100.7, 10.0.12.8"], "198.51.100.7", false),
                ("two proxies, two lines", &["203.0.113.1,198.51.100.7", "10.0.12.8"], "198.51.100.7", false),
                ("an IPv6 proxy", &["198.51.100.7, 2001:db8:1::1"], "198.51.100.7", false),
                ("proxies only", &["10.0.12.9, 10.0.12.8"], "10.0.12.9", false),
                ("a mapped proxy", &["198.51.100.7, ::ffff:10.0.12.8"], "198.51.100.7", false),
                ("a mapped client", &["::ffff:198.51.100.7"], "198.51.100.7", false),
                ("port", &["198.51.100.7:52100"], "198.51.100.7", false),
                ("IPv6", &["2001:db8::7"], "2001:db8::7", false),
                ("IPv6 with port", &["[2001:db8::7]:52100"], "2001:db8::7", false),
                ("zone id", &["fe80::7%eth0"], "fe80::7", false),
                ("unknown", &["198.51.100.7, unknown"], PEER, false),
                ("hidden behind a proxy", &["198.51.100.7, _x, 10.0.12.8"], "10.0.12.8", false),
                ("garbage left of the client", &["<script>, 198.51.100.7"], "198.51.100.7", false),
                ("beyond ASCII left of the client", &["\u{e4}, 198.51.100.7"], "198.51.100.7", false),
                ("garbage", &["198.51.100.7, nonsense"], PEER, true),
                ("garbage behind a proxy", &["198.51.100.7, nonsense, 10.0.12.8"], "10.0.12.8", true),
                ("empty", &[""], PEER, true),
                ("comma at the end", &["198.51.100.7,"], PEER, true),
                ("quoted", &["\"198.51.100.7\""], PEER, true),
                ("64 elements", &[&just], "192.0.2.1", false),
                ("65 elements", &[&many], PEER, true),
                ("65 elements on two lines", &[&just, "192.0.2.1"], PEER, true),
                ("more than 8 KiB", &[&long], PEER, true),
            ],
        );
    }

    #[test]
    fn forwarded() {
        let (many, long) = (vec!["for=192.0.2.1"; 65].join(","), format!("x={}, for=192.0.2.1", "x".repeat(8 * 1024)));
        check(
            Family::Forwarded,
            "forwarded",
            &[
                ("absent", &[], PEER, false),
                ("empty", &[""], PEER, false),
                ("one hop", &["for=198.51.100.7"], "198.51.100.7", false),
                ("spoofed leftmost", &["for=203.0.113.1, for=198.51.100.7"], "198.51.100.7", false),
                ("spoofed as a trusted proxy", &["for=10.0.12.9, for=198.51.100.7"], "198.51.100.7", false),
                ("two proxies", &["for=203.0.113.1, for=198.51.100.7, for=10.0.12.8"], "198.51.100.7", false),
                ("two lines", &["for=198.51.100.7", "for=\"[2001:db8:1::1]:80\""], "198.51.100.7", false),
                ("proxies only", &["for=10.0.12.9, for=10.0.12.8"], "10.0.12.9", false),
                ("mapped", &["for=\"[::ffff:198.51.100.7]\", for=\"[::ffff:10.0.12.8]\""], "198.51.100.7", false),
                ("unknown", &["for=198.51.100.7, for=unknown"], PEER, false),
                ("hidden behind two", &["for=9.9.9.9, for=_x, for=10.0.12.8, for=10.0.12.9"], "10.0.12.8", false),
                ("hidden, then the client", &["for=_x, for=198.51.100.7, for=10.0.12.8"], "198.51.100.7", false),
                ("no word about the client", &["for=198.51.100.7, proto=https"], PEER, false),
                ("duplicate", &["for=198.51.100.7, for=1.1.1.1;for=1.1.1.1"], PEER, true),
                ("duplicate behind a proxy", &["for=1.1.1.1;for=1.1.1.1, for=10.0.12.8"], "10.0.12.8", true),
                ("duplicate left of the client", &["for=a;for=b, for=198.51.100.7"], "198.51.100.7", false),
                ("broken line", &["for=198.51.100.7, for=2001:db8::1"], PEER, true),
                ("open quote swallows the proxy's element", &["for=\"_x, for=198.51.100.7"], PEER, true),
                ("open quote in a line of its own", &["for=\"_x", "for=198.51.100.7"], "198.51.100.7", false),
                ("65 elements", &[&many], PEER, true),
                ("more than 8 KiB", &[&long], PEER, true),
            ],
        );
    }

    #[test]
    fn x_forwarded_proto_is_read_at_the_same_hop() {
        let (one, two) = ("198.51.100.7", "198.51.100.7, 10.0.12.8");
        let cases: [(&str, &str, &[&str], bool); 16] = [
            ("absent", one, &[], false),
            ("https", one, &["https"], true),
            ("capitals", one, &["HTTPS"], true),
            ("http", one, &["http"], false),
            ("WebSocket over TLS", one, &["wss"], true),
            ("prefix", one, &["httpsx"], false),
            ("empty", one, &[""], false),
            ("spoofed left of the proxy's", one, &["https, http"], false),
            ("spoofed in a line of its own", one, &["https", "http"], false),
            ("spoofed, and https too", one, &["http, https"], true),
            ("one value, two hops", two, &["https"], true),
            ("one value, two hops, http", two, &["http"], false),
            ("two values, two hops", two, &["https, http"], true),
            ("two values, two hops, the client's is http", two, &["http, https"], false),
            ("two values, three hops", "198.51.100.7, 10.0.12.9, 10.0.12.8", &["https, https"], false),
            ("not UTF-8", one, &["\u{e4}"], false),
        ];
        for (name, chain, schemes, secure) in cases {
            let mut fields = vec![("x-forwarded-for", chain)];
            fields.extend(schemes.iter().map(|scheme| ("x-forwarded-proto", *scheme)));
            assert_eq!(found(Family::XForwarded, &fields).secure, secure, "{name}");
        }
        assert!(found(Family::XForwarded, &[("x-forwarded-proto", "https")]).secure, "the proxy asks for itself");
    }

    #[test]
    fn a_header_that_makes_no_sense_is_never_secure() {
        let many = vec!["https"; 65].join(",");
        let garbled = found(Family::XForwarded, &[("x-forwarded-for", "garbage"), ("x-forwarded-proto", "https")]);
        assert!(garbled.malformed && !garbled.secure);
        let flooded = found(Family::XForwarded, &[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", &many)]);
        assert!(flooded.malformed && !flooded.secure);
        let twice = found(Family::Forwarded, &[("forwarded", "for=198.51.100.7;proto=https;proto=https")]);
        assert!(twice.malformed && !twice.secure);
    }

    #[test]
    fn forwarded_proto_and_host_come_from_the_client_s_element() {
        let of = |line| {
            let found = found(Family::Forwarded, &[("forwarded", line)]);
            (found.secure, found.host)
        };
        let host = |name: &str| Some(name.into());
        assert_eq!(of("for=198.51.100.7;proto=https;host=a.example"), (true, host("a.example")));
        assert_eq!(of("for=198.51.100.7"), (false, None));
        assert_eq!(of("for=1.1.1.1;proto=https;host=evil.example, for=198.51.100.7;proto=http"), (false, None));
        let two = "for=198.51.100.7;proto=https;host=a.example, for=10.0.12.8;proto=http;host=b.internal";
        assert_eq!(of(two), (true, host("a.example")));
        assert_eq!(of("for=198.51.100.7;proto=http, for=10.0.12.8;proto=https"), (false, None));
        assert_eq!(of("for=unknown;proto=https, for=10.0.12.8"), (true, None));
        assert_eq!(of("for=198.51.100.7;proto=https;host=\"a b\""), (true, None));
    }

    #[test]
    fn x_forwarded_host_is_read_at_the_same_hop() {
        let cases: [(&str, &[&str], Option<&str>); 6] = [
            ("absent", &[], None),
            ("one", &["api.example.com:8443"], Some("api.example.com:8443")),
            ("spoofed left", &["evil.example, api.example.com"], Some("api.example.com")),
            ("spoofed line", &["evil.example", "api.example.com"], Some("api.example.com")),
            ("not a host", &["api.example.com/evil"], None),
            ("a comma at the end", &["evil.example,"], None),
        ];
        for (name, hosts, expected) in cases {
            let mut fields = vec![("x-forwarded-for", "198.51.100.7")];
            fields.extend(hosts.iter().map(|host| ("x-forwarded-host", *host)));
            assert_eq!(found(Family::XForwarded, &fields).host.as_deref(), expected, "{name}");
        }
    }

    proptest! {
        /// Whatever stands left of what the proxy appended, the answer is the proxy's.
        #[test]
        fn the_left_never_matters(left in "[a-z0-9 ,.:=\"%_\\[\\]]{0,80}") {
            let fields = [("x-forwarded-for", &*left), ("x-forwarded-for", "198.51.100.7")];
            let x_forwarded = found(Family::XForwarded, &fields);
            let fields = [("forwarded", &*left), ("forwarded", "for=198.51.100.7;proto=https")];
            let forwarded = found(Family::Forwarded, &fields);
            for found in [&x_forwarded, &forwarded] {
                // Too many elements give the proxy's own address; nothing else does.
                let address = if found.malformed { PEER } else { "198.51.100.7" };
                prop_assert_eq!(found.address, address.parse::<IpAddr>().unwrap());
            }
            prop_assert_eq!(x_forwarded.malformed, left.matches(',').count() >= MAX_ELEMENTS - 1);
        }

        #[test]
        fn no_bytes_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..4)) {
            for (family, name) in [(Family::XForwarded, X_FORWARDED_FOR), (Family::XForwarded, X_FORWARDED_PROTO),
                (Family::XForwarded, X_FORWARDED_HOST), (Family::Forwarded, FORWARDED)]
            {
                let mut headers = HeaderMap::new();
                for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                    headers.append(name.clone(), value);
                }
                let found = walk(&headers, PEER.parse().unwrap(), family, &proxies());
                prop_assert!(!(found.malformed && found.secure));
            }
        }
    }
}
