//! The walk along the proxies, from the connection's peer towards the client.
//!
//! Only what a trusted proxy appended counts, and each appends to the right. So the walk goes from the right, as long as
//! it meets trusted proxies; the first address that is none of them is the client's. What stands left of it was written by
//! the client or by somebody who is not trusted, and is not looked at.

use std::{iter::Rev, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{GetAll, ValueIter},
};

use super::{
    forwarded,
    host::Host,
    node::{Node, is_secure_scheme},
    strip::{Strip, is_stray},
    trust::{Family, TrustedProxies},
};

/// The most elements of one field, over all its lines.
const MAX_ELEMENTS: usize = 64;
/// The most bytes of one field, over all its lines.
const MAX_BYTES: usize = 8 * 1024;

const FORWARDED: HeaderName = http::header::FORWARDED;

/// What the trusted proxies say about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The client's address, or the address of the last proxy that is trusted; none if that one has none.
    pub(super) address: Option<IpAddr>,
    /// The header does not parse where it matters.
    pub(super) malformed: bool,
    pub(super) secure: bool,
    pub(super) host: Option<Box<str>>,
}

impl Found {
    /// What is left when the header makes no sense: the address of the proxy that passed it on, and nothing else.
    const fn malformed(address: Option<IpAddr>) -> Self {
        Self { address, malformed: true, secure: false, host: None }
    }
}

/// Walks from `peer`, which is a trusted proxy: an address, or a Unix socket. Says as well what must be removed.
pub(super) fn walk(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    family: Family,
    proxies: &TrustedProxies,
) -> (Found, Strip) {
    let found = match (family, proxies.hops()) {
        (Family::XForwarded, _) => {
            let mut stray = false;
            let lists = List::of_family(headers, |other| stray |= is_stray(other, Some(family), proxies));
            let strip = if stray { Strip::AllBut(Some(family)) } else { Strip::Nothing };
            return (x_forwarded(lists, peer, proxies), strip);
        }
        (Family::Forwarded, None) => forwarded(headers, peer, proxies),
        (Family::Forwarded, Some(hops)) => forwarded_by_hops(headers, peer, hops),
        (Family::Address, _) => single_address(headers, peer, proxies),
    };
    (found, Strip::needed(headers, Some(family), proxies))
}

fn x_forwarded(lists: [Option<List<'_>>; 3], peer: Option<IpAddr>, proxies: &TrustedProxies) -> Found {
    let [chain, schemes, hosts] = lists;
    let Some(chain) = chain else { return Found::malformed(peer) };
    let hops = proxies.hops();
    if hops.is_some_and(|hops| chain.len < hops) {
        return Found::malformed(peer);
    }
    let (mut address, mut position) = (peer, 0);
    for (index, element) in chain.rightmost_first.enumerate() {
        position = index;
        // Whether whoever wrote the next element is trusted as well.
        let mut goes_on = hops.is_some_and(|hops| index.saturating_add(1) < hops);
        match Node::lenient(element) {
            Node::Address(next) => {
                address = Some(next);
                goes_on |= hops.is_none() && proxies.contains(next);
            }
            Node::Hidden => {}
            Node::Invalid => return Found::malformed(address),
        }
        if !goes_on {
            break;
        }
    }
    let (Some(schemes), Some(hosts)) = (schemes, hosts) else { return Found::malformed(address) };
    Found {
        address,
        malformed: false,
        secure: schemes.at(position).is_some_and(is_secure_scheme),
        host: hosts.at(position).and_then(checked_host),
    }
}

/// One field, one address. A proxy that overwrites it leaves no second line and no list.
fn single_address(headers: &HeaderMap, peer: Option<IpAddr>, proxies: &TrustedProxies) -> Found {
    let (address, scheme) = proxies.names();
    let only = |name: &HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(|text| Some(text.trim_ascii())).map_err(|_| ()),
            (Some(_), Some(_)) => Err(()),
        }
    };
    let address = match address.map_or(Ok(None), only) {
        Ok(None) => peer,
        Ok(Some(text)) => match Node::lenient(text.as_bytes()) {
            Node::Address(address) => Some(address),
            Node::Hidden => peer,
            Node::Invalid => return Found::malformed(peer),
        },
        Err(()) => return Found::malformed(peer),
    };
    match scheme.map_or(Ok(None), only) {
        Ok(scheme) => Found { address, malformed: false, secure: scheme.is_some_and(is_secure_scheme), host: None },
        Err(()) => Found::malformed(address),
    }
}

/// A list of comma-separated elements over all lines of a field, within bounds.
struct List<'a> {
    rightmost_first: Elements<'a>,
    len: usize,
}

impl<'a> List<'a> {
    /// `X-Forwarded-For`, `-Proto` and `-Host`, found in one pass: to look each of them up would take longer. None in place
    /// of a list that is longer than anything that proxies write.
    fn of_family(headers: &'a HeaderMap, mut other: impl FnMut(&HeaderName)) -> [Option<Self>; 3] {
        let mut found = [const { Some(Self { rightmost_first: Elements { line: None, lines: None }, len: 0 }) }; 3];
        for (name, value) in headers {
            let [chain, schemes, hosts] = &mut found;
            let list = match name.as_str() {
                "x-forwarded-for" => chain,
                "x-forwarded-proto" => schemes,
                "x-forwarded-host" => hosts,
                _ => {
                    other(name);
                    continue;
                }
            };
            match list {
                Some(List { len: 0, .. }) => *list = Self::of_line(value),
                // Of a second line on, all of them are looked at anew.
                Some(_) => *list = Self::of_lines(headers.get_all(name)),
                None => {}
            }
        }
        found
    }

    fn of_line(line: &'a HeaderValue) -> Option<Self> {
        let len = elements_of(line)?;
        (len <= MAX_ELEMENTS)
            .then_some(Self { rightmost_first: Elements { line: Some(line.as_bytes()), lines: None }, len })
    }

    fn of_lines(lines: GetAll<'a, HeaderValue>) -> Option<Self> {
        let (mut bytes, mut len) = (0_usize, 0_usize);
        for line in &lines {
            bytes = bytes.saturating_add(line.len());
            if bytes > MAX_BYTES {
                return None;
            }
            len = len.saturating_add(elements_of(line)?);
        }
        (len <= MAX_ELEMENTS)
            .then(|| Self { rightmost_first: Elements { line: None, lines: Some(lines.iter().rev()) }, len })
    }

    /// What the same hop said that wrote the element at `position` of the chain, counted from the right.
    ///
    /// A lone value was written by the outermost proxy and passed on by the others. A longer list has one element for
    /// each hop; one that is too short for this hop says nothing.
    fn at(mut self, position: usize) -> Option<&'a str> {
        let position = if self.len == 1 { 0 } else { position };
        std::str::from_utf8(self.rightmost_first.nth(position)?).ok()
    }
}

/// How many elements a line has. None if it is too long.
fn elements_of(line: &HeaderValue) -> Option<usize> {
    let commas = line.as_bytes().iter().filter(|byte| **byte == b',').count();
    (line.len() <= MAX_BYTES).then(|| commas.saturating_add(1))
}

/// Elements from the last to the first, without white space around them.
struct Elements<'a> {
    /// What is left of the line.
    line: Option<&'a [u8]>,
    lines: Option<Rev<ValueIter<'a, HeaderValue>>>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = match self.line.take() {
            Some(line) => line,
            None => self.lines.as_mut()?.next()?.as_bytes(),
        };
        let element = match line.iter().rposition(|byte| *byte == b',').and_then(|comma| line.split_at_checked(comma)) {
            Some((before, from_comma)) => {
                self.line = Some(before);
                from_comma.get(1..).unwrap_or_default()
            }
            None => line,
        };
        Some(element.trim_ascii())
    }
}

/// Reads left to right, as quoted strings demand, and keeps the answer that a walk from the right would give: each
/// element that a walk could not pass replaces what was found before.
fn forwarded(headers: &HeaderMap, peer: Option<IpAddr>, proxies: &TrustedProxies) -> Found {
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
        Some(Stop { address, element: None }) => Found::malformed(address.or(peer)),
        Some(Stop { address, element: Some(element) }) => Found {
            address: address.or(peer),
            malformed: false,
            secure: element.secure,
            host: element.host.as_deref().and_then(checked_host),
        },
    }
}

/// The element at the place that is that many from the right, if all that stand right of it are valid.
fn forwarded_by_hops(headers: &HeaderMap, peer: Option<IpAddr>, hops: usize) -> Found {
    let elements = || {
        headers.get_all(FORWARDED).iter().flat_map(|line| forwarded::elements(line.as_bytes())).take(MAX_ELEMENTS + 1)
    };
    let bytes = headers.get_all(FORWARDED).iter().fold(0_usize, |bytes, line| bytes.saturating_add(line.len()));
    if bytes > MAX_BYTES {
        return Found::malformed(peer);
    }
    let len = elements().count();
    let Some(before) = len.checked_sub(hops).filter(|_| len <= MAX_ELEMENTS) else { return Found::malformed(peer) };
    let mut counted = elements().skip(before);
    let client = match counted.next() {
        Some(Ok(client)) if client.node != Node::Invalid => client,
        _ => return Found::malformed(peer),
    };
    let mut last = None;
    for proxy in counted {
        match proxy.map(|proxy| proxy.node) {
            Ok(Node::Invalid) | Err(forwarded::Malformed) => return Found::malformed(peer),
            Ok(Node::Hidden) => {}
            Ok(Node::Address(address)) => last = last.or(Some(address)),
        }
    }
    let address = match client.node {
        Node::Address(address) => Some(address),
        Node::Hidden | Node::Invalid => last.or(peer),
    };
    Found { address, malformed: false, secure: client.secure, host: client.host.as_deref().and_then(checked_host) }
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
        walk(&headers(fields), peer(), family, &proxies()).0
    }

    fn peer() -> Option<IpAddr> {
        Some(PEER.parse().unwrap())
    }

    /// Name, the field's lines, the address, whether it is malformed.
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, bool);

    fn check(family: Family, field: &'static str, cases: &[Case<'_>]) {
        for (name, lines, address, malformed) in cases {
            let fields: Vec<_> = lines.iter().map(|line| (field, *line)).collect();
            let found = found(family, &fields);
            assert_eq!((found.address, found.malformed), (Some(address.parse().unwrap()), *malformed), "{name}");
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

    /// The answer of one family when proxies are counted: address or None for malformed, and whether it is HTTPS.
    fn counted(family: Family, hops: u8, fields: &[(&'static str, &str)]) -> (Option<String>, bool) {
        let proxies = match family {
            Family::XForwarded => TrustedProxies::x_forwarded([PEER]),
            _ => TrustedProxies::forwarded([PEER]),
        };
        let (found, _) = walk(&headers(fields), peer(), family, &proxies.unwrap().with_hops(hops).unwrap());
        let address = found.address.unwrap().to_string();
        assert!(!found.malformed || (address == PEER && !found.secure), "{fields:?}");
        ((!found.malformed).then_some(address), found.secure)
    }

    #[test]
    fn proxies_that_are_counted() {
        // Hops, the list, the client (None: malformed). `_` is a hidden name.
        let cases: [(&str, u8, &[&str], Option<&str>); 14] = [
            ("one proxy", 1, &["198.51.100.7"], Some("198.51.100.7")),
            ("one proxy, spoofed left", 1, &["203.0.113.1", "198.51.100.7"], Some("198.51.100.7")),
            ("two proxies", 2, &["198.51.100.7", "192.0.2.9"], Some("198.51.100.7")),
            ("two proxies, spoofed left", 2, &["203.0.113.1", "198.51.100.7", "192.0.2.9"], Some("198.51.100.7")),
            ("the client's address is the proxy's", 2, &["203.0.113.1", PEER, "192.0.2.9"], Some(PEER)),
            ("somebody went around a proxy", 2, &["198.51.100.7"], None),
            ("nothing at all", 1, &[], None),
            ("three proxies, too short", 3, &["198.51.100.7", "192.0.2.9"], None),
            ("a proxy that hides itself", 2, &["198.51.100.7", "_p"], Some("198.51.100.7")),
            ("a client that is hidden", 2, &["203.0.113.1", "_c", "192.0.2.9"], Some("192.0.2.9")),
            ("everybody is hidden", 2, &["_c", "_p"], Some(PEER)),
            ("garbage at the client's place", 1, &["203.0.113.1", "nonsense"], None),
            ("garbage left of the client", 1, &["nonsense", "198.51.100.7"], Some("198.51.100.7")),
            ("mapped", 1, &["::ffff:198.51.100.7"], Some("198.51.100.7")),
        ];
        for (name, hops, list, client) in cases {
            let client = client.map(str::to_owned);
            let commas = list.join(", ");
            let fields = [("x-forwarded-for", &*commas)];
            let fields = if list.is_empty() { &fields[..0] } else { &fields[..] };
            assert_eq!(counted(Family::XForwarded, hops, fields).0, client, "X-Forwarded-For: {name}");
            let commas: Vec<_> = list.iter().map(|node| format!("for=\"{}\"", bracketed(node))).collect();
            let commas = commas.join(", ");
            let fields = [("forwarded", &*commas)];
            let fields = if list.is_empty() { &fields[..0] } else { &fields[..] };
            assert_eq!(counted(Family::Forwarded, hops, fields).0, client, "Forwarded: {name}");
        }
    }

    fn bracketed(node: &str) -> String {
        if node.contains(':') { format!("[{node}]") } else { node.to_owned() }
    }

    #[test]
    fn the_scheme_is_the_counted_hop_s() {
        let secure = |fields: &[(&'static str, &str)]| counted(Family::XForwarded, 2, fields).1;
        let chain = ("x-forwarded-for", "203.0.113.1, 198.51.100.7, 192.0.2.9");
        assert!(secure(&[chain, ("x-forwarded-proto", "https")]), "one value, passed on");
        assert!(secure(&[chain, ("x-forwarded-proto", "http, https, http")]));
        assert!(!secure(&[chain, ("x-forwarded-proto", "https, http, https")]), "the client's own word");
        let forwarded = |line| counted(Family::Forwarded, 2, &[("forwarded", line)]).1;
        assert!(forwarded("for=198.51.100.7;proto=https, for=192.0.2.9;proto=http"));
        assert!(!forwarded("for=1.1.1.1;proto=https, for=198.51.100.7;proto=http, for=192.0.2.9;proto=https"));
        let garbled = "for=198.51.100.7;proto=https, for=1.1.1.1;for=1.1.1.1";
        assert_eq!(counted(Family::Forwarded, 2, &[("forwarded", garbled)]), (None, false), "invalid to the right");
        let open = "for=198.51.100.7;proto=https, for=\"_x";
        assert_eq!(counted(Family::Forwarded, 2, &[("forwarded", open)]), (None, false), "broken to the right");
    }

    #[test]
    fn one_address_in_one_field() {
        let name = HeaderName::from_static;
        let proxies = TrustedProxies::address_header(name("x-real-ip"), [PEER]).unwrap();
        let proxies = proxies.with_scheme_header(name("x-scheme")).unwrap();
        let of = |fields: &[(&'static str, &str)]| {
            let (found, _) = walk(&headers(fields), peer(), Family::Address, &proxies);
            (found.address.unwrap().to_string(), found.malformed, found.secure)
        };
        let is = |address: &str, malformed, secure| (address.to_owned(), malformed, secure);
        for (field, answer) in [
            ("198.51.100.7", is("198.51.100.7", false, true)),
            (" 198.51.100.7 ", is("198.51.100.7", false, true)),
            ("2001:db8::7", is("2001:db8::7", false, true)),
            ("::ffff:198.51.100.7", is("198.51.100.7", false, true)),
            ("unknown", is(PEER, false, true)),
            ("203.0.113.1, 198.51.100.7", is(PEER, true, false)),
            ("0306.063.0144.07", is(PEER, true, false)),
            ("", is(PEER, true, false)),
        ] {
            assert_eq!(of(&[("x-real-ip", field), ("x-scheme", "https")]), answer, "{field}");
        }
        let real = ("x-real-ip", "198.51.100.7");
        assert_eq!(of(&[real, real]), is(PEER, true, false), "two lines");
        assert_eq!(of(&[real]), is("198.51.100.7", false, false), "no scheme");
        assert_eq!(of(&[real, ("x-scheme", "http")]), is("198.51.100.7", false, false));
        let twice = [real, ("x-scheme", "https"), ("x-scheme", "https")];
        assert_eq!(of(&twice), is("198.51.100.7", true, false), "two schemes");
        let family = [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", "https")];
        assert_eq!(of(&family), is(PEER, false, false), "another family is not read");
    }

    #[test]
    fn a_unix_socket_has_no_address_to_fall_back_on() {
        let proxies = TrustedProxies::x_forwarded([PEER]).unwrap().and_unix_sockets();
        let of = |chain: &str| {
            let (found, _) = walk(&headers(&[("x-forwarded-for", chain)]), None, Family::XForwarded, &proxies);
            (found.address.map(|address| address.to_string()), found.malformed)
        };
        assert_eq!(of("203.0.113.1, 198.51.100.7"), (Some("198.51.100.7".to_owned()), false));
        assert_eq!(of("203.0.113.1, unknown"), (None, false));
        assert_eq!(of("nonsense"), (None, true));
    }

    proptest! {
        /// Whatever stands left of what the proxies appended, the answer is theirs, also when they are counted.
        #[test]
        fn the_left_never_matters_to_who_counts(left in "[a-z0-9 ,.:=;\"%_\\[\\]]{0,80}", hops in 1_u8..4) {
            let proxies: Vec<String> = (1..hops).map(|index| format!("192.0.2.{index}")).collect();
            let chain: Vec<_> = std::iter::once("198.51.100.7").chain(proxies.iter().map(String::as_str)).collect();
            let own = chain.join(", ");
            let x_forwarded = counted(Family::XForwarded, hops, &[("x-forwarded-for", &left), ("x-forwarded-for", &own)]);
            let own: Vec<_> = chain.iter().map(|address| format!("for={address}")).collect();
            let forwarded = counted(Family::Forwarded, hops, &[("forwarded", &left), ("forwarded", &own.join(", "))]);
            for (address, secure) in [x_forwarded, forwarded] {
                // None for what has too many elements.
                prop_assert!(matches!(address.as_deref(), None | Some("198.51.100.7")) && !secure);
            }
        }

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
                prop_assert_eq!(found.address, Some(address.parse::<IpAddr>().unwrap()));
            }
            prop_assert_eq!(x_forwarded.malformed, left.matches(',').count() >= MAX_ELEMENTS - 1);
        }

        #[test]
        fn no_bytes_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..4)) {
            let x_forwarded = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
            let x_forwarded = x_forwarded.map(|name| (Family::XForwarded, HeaderName::from_static(name)));
            for (family, name) in x_forwarded.into_iter().chain([(Family::Forwarded, FORWARDED)]) {
                let mut headers = HeaderMap::new();
                for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                    headers.append(name.clone(), value);
                }
                let (found, strip) = walk(&headers, peer(), family, &proxies());
                prop_assert_eq!(strip, Strip::Nothing);
                prop_assert!(!(found.malformed && found.secure));
            }
        }
    }
}
