use http::HeaderValue;
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
