//! Each line of the input is a header field of the client's; behind a trusted proxy, the proxy's own fields follow. The
//! client's address, scheme and host are then the proxy's word or nothing; a stranger's are the connection's; and no
//! header of a family that is not believed reaches the handler.

use std::{net::IpAddr, sync::LazyLock};

use http::{HeaderValue, Request};
use portcullis::{
    AddressSource, ClientInfo, Connection, SecurityContext,
    evidence::{EvidenceLayer, TrustedProxies},
};
use tower::Layer;

use super::memory::{Reached, append, clock, fields, handler, send};

const PROXY: &str = "10.0.12.7";
const CLIENT: &str = "198.51.100.7";
const X_FORWARDED: [(&str, &str); 3] =
    [("x-forwarded-for", CLIENT), ("x-forwarded-proto", "http"), ("x-forwarded-host", "api.example.com")];
const FORWARDED: [(&str, &str); 1] = [("forwarded", "for=198.51.100.7;proto=http;host=api.example.com")];

static BY_X_FORWARDED: LazyLock<EvidenceLayer> = LazyLock::new(|| layer(TrustedProxies::x_forwarded(["10.0.12.0/24"])));
static BY_FORWARDED: LazyLock<EvidenceLayer> = LazyLock::new(|| layer(TrustedProxies::forwarded(["10.0.12.0/24"])));
static BY_X_HOPS: LazyLock<EvidenceLayer> =
    LazyLock::new(|| layer(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().with_hops(1)));
static BY_HOPS: LazyLock<EvidenceLayer> =
    LazyLock::new(|| layer(TrustedProxies::forwarded(["10.0.12.7"]).unwrap().with_hops(1)));

fn layer(proxies: Result<TrustedProxies, portcullis::ConfigError>) -> EvidenceLayer {
    EvidenceLayer::new(proxies.unwrap()).with_clock(clock())
}

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    for (layer, own, family) in [
        (&*BY_X_FORWARDED, &X_FORWARDED[..], "x-forwarded-"),
        (&*BY_FORWARDED, &FORWARDED[..], "forwarded"),
        (&*BY_X_HOPS, &X_FORWARDED[..], "x-forwarded-"),
        (&*BY_HOPS, &FORWARDED[..], "forwarded"),
    ] {
        // As it comes: nothing of it is the proxy's, so only the bounds of the answer can be told.
        let (client, _) = see(layer, PROXY, data, &[], Some(family));
        if client.source() == AddressSource::MalformedProxyHeader {
            assert!(!client.is_secure() && client.forwarded_host().is_none());
        }
        let address = client.address().unwrap();
        assert!(address == ip(PROXY) || spelled(data).contains(&address), "{address}");

        let (client, _) = see(layer, PROXY, data, own, Some(family));
        match client.source() {
            AddressSource::MalformedProxyHeader => assert_eq!(client.address(), Some(ip(PROXY))),
            _ => assert_eq!(client.address(), Some(ip(CLIENT))),
        }
        assert!(!client.is_secure());
        assert!(matches!(client.forwarded_host(), None | Some("api.example.com")));

        let (client, removed) = see(layer, "203.0.113.9", data, own, None);
        assert_eq!((client.address(), client.source()), (Some(ip("203.0.113.9")), AddressSource::Connection));
        assert!(!client.is_secure() && client.forwarded_host().is_none() && removed > 0);
    }
}

/// What the handler learns, and how many fields it does not see.
fn see(
    layer: &EvidenceLayer,
    peer: &str,
    data: &[u8],
    own: &[(&'static str, &'static str)],
    believed: Option<&str>,
) -> (ClientInfo, usize) {
    let mut request = Request::new(());
    request.extensions_mut().insert(Connection::plain((ip(peer), 40100).into()));
    append(request.headers_mut(), data);
    for (name, value) in own {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let sent = request.headers().len();
    let reached = Reached::default();
    assert_eq!(send(layer.layer(handler(&reached)), request).status(), 200);
    let request = reached.lock().unwrap().take().unwrap();
    for name in request.headers().keys() {
        let plain = name.as_str().replace('_', "-");
        let forwarding = plain == "forwarded" || plain == "x-real-ip" || plain.starts_with("x-forwarded-");
        let ours = believed.is_some_and(|family| name.as_str().starts_with(family));
        assert!(!forwarding || ours, "{name}");
    }
    (SecurityContext::of(request.extensions()).unwrap().client().unwrap(), sent - request.headers().len())
}

/// Every address that a value spells, with or without a port, escapes taken away.
fn spelled(data: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (_, value) in fields(data) {
        let text = String::from_utf8_lossy(value).replace('\\', "");
        for word in text.split(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.') {
            let host = word.split(':').next().unwrap_or_default();
            found
                .extend([word, host].iter().filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()));
        }
    }
    found
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
