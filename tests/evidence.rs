//! What the evidence layer finds out, and what it keeps from the handler.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests, in a crate of their own")]

mod support;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Request, Response, StatusCode};
use portcullis::{
    AddressSource, ClientInfo, Connection, SecurityContext, TlsVersion,
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{Authorizer, authenticated, policy, require},
    policy::{AccessQuery, PolicyBackend, Verdict},
    stack::Stack,
    tls::TlsLayer,
};
use support::{NOW, Probe, Still, get, get_plain, send, test_scheme, text, with};
use tower::{Layer, Service, service_fn};

const PROXY: &str = "10.0.12.7:40100";

fn x_forwarded() -> EvidenceLayer {
    EvidenceLayer::new(TrustedProxies::x_forwarded(["10.0.12.0/24"]).unwrap()).with_clock(Still)
}

fn forwarded() -> EvidenceLayer {
    EvidenceLayer::new(TrustedProxies::forwarded(["10.0.12.0/24"]).unwrap()).with_clock(Still)
}

fn nobody() -> EvidenceLayer {
    EvidenceLayer::new(TrustedProxies::none()).with_clock(Still)
}

/// What a handler sees.
struct View {
    headers: HeaderMap,
    client: Option<ClientInfo>,
    at: u64,
}

impl View {
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn address(&self) -> String {
        self.client.as_ref().unwrap().address().unwrap().to_string()
    }

    fn is_secure(&self) -> bool {
        self.client.as_ref().unwrap().is_secure()
    }
}

async fn see(layer: &EvidenceLayer, request: Request<()>) -> View {
    let seen = Arc::new(Mutex::new(None));
    let handler = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: Request<()>| {
            let context = SecurityContext::of(request.extensions()).unwrap();
            let view =
                View { headers: request.headers().clone(), client: context.client(), at: context.at().unix_seconds() };
            *seen.lock().unwrap() = Some(view);
            async { Ok::<_, Infallible>(Response::new(String::new())) }
        })
    };
    assert_eq!(send(&layer.layer(handler), request).await.status(), StatusCode::OK);
    let view = seen.lock().unwrap().take();
    view.unwrap()
}

fn from(peer: &str, fields: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::get("/").body(()).unwrap();
    request.extensions_mut().insert(Connection::plain(peer.parse().unwrap()));
    fields.iter().fold(request, |request, (name, value)| with(request, name, value))
}

const EVERYTHING: [(&str, &str); 12] = [
    ("forwarded", "for=203.0.113.1;proto=https;host=evil.example"),
    ("x-forwarded-for", "203.0.113.1"),
    ("x-forwarded-for", "203.0.113.2"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-prefix", "/admin"),
    ("x-forwarded-server", "evil"),
    ("x-real-ip", "203.0.113.1"),
    ("X_Forwarded_For", "203.0.113.1"),
    ("host", "api.example.com"),
    ("x-request-id", "1"),
];

#[tokio::test]
async fn a_stranger_s_forwarding_headers_are_neither_believed_nor_passed_on() {
    for (name, layer) in [("none", nobody()), ("x-forwarded", x_forwarded()), ("forwarded", forwarded())] {
        let view = see(&layer, from("198.51.100.7:1", &EVERYTHING)).await;
        assert_eq!(view.names(), ["host", "x-request-id"], "{name}");
        assert_eq!(view.address(), "198.51.100.7", "{name}");
        assert!(!view.is_secure(), "{name}");
        let client = view.client.unwrap();
        assert_eq!((client.source(), client.forwarded_host()), (AddressSource::Connection, None), "{name}");
    }
}

#[tokio::test]
async fn only_the_configured_family_is_read_and_passed_on() {
    let view = see(&x_forwarded(), from(PROXY, &EVERYTHING)).await;
    assert_eq!((view.address().as_str(), view.is_secure()), ("203.0.113.2", true));
    assert_eq!(
        view.names(),
        [
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-proto",
            "x-forwarded-server",
            "x-request-id"
        ]
    );
    assert_eq!(view.headers.get_all("x-forwarded-for").iter().count(), 2);

    let view = see(&forwarded(), from(PROXY, &EVERYTHING)).await;
    assert_eq!((view.address().as_str(), view.is_secure()), ("203.0.113.1", true));
    assert_eq!(view.names(), ["forwarded", "host", "x-request-id"]);

    let other =
        see(&forwarded(), from(PROXY, &[("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", "https")])).await;
    assert_eq!((other.address().as_str(), other.is_secure()), ("10.0.12.7", false));
}

#[tokio::test]
async fn a_client_cannot_choose_its_address_through_a_proxy() {
    let cases: [(&str, &str, &str); 4] = [
        ("leftmost", "127.0.0.1, 198.51.100.7", "198.51.100.7"),
        ("as a proxy", "203.0.113.1, 10.0.12.9, 198.51.100.7", "198.51.100.7"),
        ("through two proxies", "203.0.113.1, 198.51.100.7, 10.0.12.8", "198.51.100.7"),
        ("mapped", "::ffff:127.0.0.1, ::ffff:198.51.100.7", "198.51.100.7"),
    ];
    for (name, chain, address) in cases {
        for peer in [PROXY, "[::ffff:10.0.12.7]:40100"] {
            let view = see(&x_forwarded(), from(peer, &[("x-forwarded-for", chain)])).await;
            assert_eq!(view.address(), address, "{name} from {peer}");
            assert_eq!(view.client.unwrap().source(), AddressSource::Proxy, "{name}");
        }
    }
}

/// The proxy appends the address that it sees and the scheme `http`; the client sends what it likes before.
#[tokio::test]
async fn no_trick_makes_a_client_somebody_else_or_secure() {
    let flood = vec!["10.0.12.9"; 70].join(",");
    let long = "x".repeat(9 * 1024);
    let tricks: [(&str, &str, &str); 17] = [
        ("a line of its own", "x-forwarded-for", "127.0.0.1"),
        ("a proxy's address", "x-forwarded-for", "10.0.12.9"),
        ("comma at the end", "x-forwarded-for", "127.0.0.1,"),
        ("commas alone", "x-forwarded-for", ",,,"),
        ("white space", "x-forwarded-for", " \t127.0.0.1\t "),
        ("mapped", "x-forwarded-for", "::ffff:10.0.12.9"),
        ("zone id", "x-forwarded-for", "fe80::1%eth0"),
        ("unknown", "x-forwarded-for", "unknown"),
        ("hidden", "x-forwarded-for", "_proxy"),
        ("very many", "x-forwarded-for", &flood),
        ("very long", "x-forwarded-for", &long),
        ("scheme", "x-forwarded-proto", "https"),
        ("scheme, comma at the end", "x-forwarded-proto", "https,"),
        ("scheme, very many", "x-forwarded-proto", &flood.replace("10.0.12.9", "https")),
        ("underscores", "x_forwarded_proto", "https"),
        ("underscores in part", "x-forwarded_for", "127.0.0.1"),
        ("the other family", "forwarded", "for=127.0.0.1;proto=https"),
    ];
    for (name, field, value) in tricks {
        let field = http::HeaderName::from_bytes(field.as_bytes()).unwrap();
        let mut request = from(PROXY, &[]);
        request.headers_mut().append(field, value.parse().unwrap());
        let request = with(with(request, "X-Forwarded-For", "198.51.100.7"), "X-Forwarded-Proto", "http");
        let client = see(&x_forwarded(), request).await.client.unwrap();
        assert!(!client.is_secure(), "{name}");
        if client.source() == AddressSource::MalformedProxyHeader {
            assert!(name.contains("very"), "{name}");
        } else {
            let known = (client.address().unwrap().to_string(), client.source());
            assert_eq!(known, ("198.51.100.7".to_owned(), AddressSource::Proxy), "{name}");
        }
    }
}

/// Admits the house's own network.
#[derive(Debug)]
struct Inside;

#[async_trait::async_trait]
impl PolicyBackend for Inside {
    fn name(&self) -> &'static str {
        "inside"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match query.address() {
            Some(IpAddr::V4(address)) if address.octets()[0] == 10 => Verdict::allow(),
            _ => Verdict::deny("from outside"),
        }
    }
}

#[tokio::test]
async fn a_garbled_header_does_not_lend_the_proxy_s_address_to_a_policy() {
    let handler = service_fn(async |request: Request<()>| {
        let authorizer = Authorizer::of(request.extensions()).unwrap();
        let may = authorizer.check("admin", None).await.is_ok();
        Ok::<_, Infallible>(Response::new(http_body_util::Full::<bytes::Bytes>::from(may.to_string())))
    });
    let app = Stack::builder()
        .proxies(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap())
        .dangerous_plain_http()
        .authenticate(test_scheme())
        .policy(Inside)
        .route("GET /rule", require(policy("admin").unwrap()))
        .route("GET /handler", require(authenticated()))
        .build()
        .unwrap()
        .protect(handler);
    let flood = vec!["203.0.113.1"; 70].join(",");
    for (name, chain, rule, asked) in [
        ("from outside", "198.51.100.7", 403, "false"),
        ("from inside", "10.0.50.1", 200, "true"),
        ("from outside, garbled", &flood, 403, "false"),
    ] {
        let request = |path| {
            let mut request = from(PROXY, &[("x-forwarded-for", chain), ("authorization", "Test alice")]);
            *request.uri_mut() = http::Uri::from_static(path);
            request
        };
        assert_eq!(send(&app, request("/rule")).await.status(), rule, "{name}");
        assert_eq!(text(send(&app, request("/handler")).await).await, asked, "{name}");
    }
}

#[tokio::test]
async fn garbage_gives_the_proxy_s_own_address_and_no_https() {
    let flood = vec!["203.0.113.1"; 65].join(", ");
    for chain in ["nonsense", "", "203.0.113.1,", &flood] {
        let fields = [("x-forwarded-for", chain), ("x-forwarded-proto", "https")];
        let view = see(&x_forwarded(), from(PROXY, &fields)).await;
        assert_eq!((view.address().as_str(), view.is_secure()), ("10.0.12.7", false), "{chain:.20}");
        assert_eq!(view.client.unwrap().source(), AddressSource::MalformedProxyHeader, "{chain:.20}");
    }
}

#[tokio::test]
async fn https_is_the_client_s_hop() {
    let tls = |peer: &str, fields: &[(&'static str, &str)]| {
        let mut request = from(peer, fields);
        request.extensions_mut().insert(Connection::tls(peer.parse().unwrap(), TlsVersion::Tls13));
        request
    };
    let secure = |fields: &'static [(&'static str, &'static str)]| async move {
        see(&x_forwarded(), tls(PROXY, fields)).await.is_secure()
    };
    assert!(!secure(&[("x-forwarded-for", "198.51.100.7")]).await, "the proxy's TLS is not the client's");
    assert!(!secure(&[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "http")]).await);
    assert!(secure(&[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")]).await);

    let direct = see(&x_forwarded(), tls("198.51.100.7:1", &[("x-forwarded-proto", "http")])).await.client.unwrap();
    assert!(direct.is_secure());
    assert_eq!(direct.tls_version(), Some(TlsVersion::Tls13));
}

#[tokio::test]
async fn without_a_connection_the_request_passes_unknown_and_stripped() {
    let mut request = from(PROXY, &EVERYTHING);
    request.extensions_mut().clear();
    let view = see(&x_forwarded(), request).await;
    assert_eq!(view.client, None);
    assert_eq!(view.names(), ["host", "x-request-id"]);
}

#[tokio::test]
async fn a_unix_socket_is_never_a_trusted_proxy() {
    let mut request = from(PROXY, &EVERYTHING);
    request.extensions_mut().insert(Connection::unaddressed());
    let view = see(&x_forwarded(), request).await;
    assert_eq!(view.names(), ["host", "x-request-id"]);
    let client = view.client.unwrap();
    assert_eq!((client.address(), client.is_secure()), (None, false));
}

#[tokio::test]
async fn the_clock_is_read_where_the_context_opens() {
    assert_eq!(see(&nobody(), get("/")).await.at, NOW);
}

#[tokio::test]
async fn https_that_a_stranger_claims_is_refused() {
    let stack = |layer: EvidenceLayer| layer.layer(TlsLayer::require().layer(Probe::default()));
    for fields in [
        &[("x-forwarded-proto", "https"), ("x-forwarded-for", "203.0.113.1")][..],
        &[("forwarded", "for=203.0.113.1;proto=https")],
    ] {
        for layer in [nobody(), x_forwarded(), forwarded()] {
            let answer = send(&stack(layer), from("198.51.100.7:1", fields)).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        }
    }
    let good = [("x-forwarded-proto", "https"), ("x-forwarded-for", "198.51.100.7")];
    assert_eq!(send(&stack(x_forwarded()), from(PROXY, &good)).await.status(), StatusCode::OK);
    assert_eq!(send(&stack(forwarded()), from(PROXY, &good)).await.status(), StatusCode::FORBIDDEN, "other family");
}

#[tokio::test]
async fn the_order_is_checked() {
    let probe = Probe::default();
    let right = nobody().layer(TlsLayer::require().layer(probe.clone()));
    assert_eq!(send(&right, get("/")).await.status(), StatusCode::OK);
    let wrong = TlsLayer::require().layer(nobody().layer(probe.clone()));
    assert_eq!(send(&wrong, get("/")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(send(&wrong, get_plain("/")).await.status(), StatusCode::FORBIDDEN, "shut before that");
    let twice = nobody().layer(nobody().layer(probe.clone()));
    assert_eq!(send(&twice, get("/")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(probe.seen.calls(), 1);
}

#[tokio::test]
async fn the_service_can_be_shared_and_is_not_cloned() {
    fn shared<S: Service<Request<()>> + Clone + Send + Sync>(_: &S) {}

    let probe = Probe::default();
    let mut service = x_forwarded().layer(probe.clone());
    shared(&service);
    let clones = probe.seen.clones();
    std::future::poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut service, cx)).await.unwrap();
    service.call(from(PROXY, &EVERYTHING)).await.unwrap();
    assert_eq!(probe.seen.clones(), clones);
}

/// What a client may send in the hope to be somebody else, and the proxy's own word after it: always the same answer, or
/// the proxy's own address, counted. In each way of trusting.
#[tokio::test]
async fn spoofing() {
    let hops = vec!["10.0.12.9"; 10_000].join(",");
    let long = format!("for=\"{}\"", "x".repeat(9_000));
    let attacks: [(&str, &[(&'static str, &str)]); 26] = [
        ("leftmost", &[("x-forwarded-for", "127.0.0.1")]),
        ("leftmost, two", &[("x-forwarded-for", "127.0.0.1, 10.0.12.9")]),
        ("comma at the end", &[("x-forwarded-for", "127.0.0.1,")]),
        ("commas", &[("x-forwarded-for", ",,,, ,,")]),
        ("white space", &[("x-forwarded-for", " \t 127.0.0.1 \t ")]),
        ("no-break space", &[("x-forwarded-for", "127.0.0.1\u{a0}")]),
        ("a line of its own", &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "10.0.12.9")]),
        ("another family", &[("forwarded", "for=127.0.0.1;proto=https;host=evil.example")]),
        ("two families", &[("forwarded", "for=127.0.0.1;proto=https"), ("x-forwarded-for", "127.0.0.1")]),
        ("all of them", &[("x-real-ip", "127.0.0.1"), ("x-forwarded", "127.0.0.1"), ("forwarded", "for=_x")]),
        ("mapped", &[("x-forwarded-for", "::ffff:127.0.0.1")]),
        ("mapped, in hexadecimal", &[("x-forwarded-for", "::ffff:7f00:1")]),
        ("mapped proxy", &[("x-forwarded-for", "::ffff:10.0.12.9")]),
        ("zone id", &[("x-forwarded-for", "fe80::1%25lo")]),
        ("ports", &[("x-forwarded-for", "127.0.0.1:1, [::1]:2")]),
        ("many ports", &[("x-forwarded-for", "127.0.0.1:1:2:3")]),
        ("unknown", &[("x-forwarded-for", "unknown"), ("forwarded", "for=unknown")]),
        ("hidden", &[("x-forwarded-for", "_proxy"), ("forwarded", "for=_proxy")]),
        ("10 000 hops", &[("x-forwarded-for", &hops)]),
        ("a very long element", &[("forwarded", &long)]),
        ("octal", &[("x-forwarded-for", "0177.0.0.1"), ("forwarded", "for=0177.0.0.1")]),
        ("a number", &[("x-forwarded-for", "2130706433"), ("forwarded", "for=2130706433")]),
        ("short", &[("x-forwarded-for", "127.1"), ("forwarded", "for=127.1")]),
        ("open quote", &[("forwarded", "for=\"127.0.0.1;proto=https"), ("x-forwarded-for", "\"")]),
        ("scheme and host", &[("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example")]),
        ("underscores", &[("x_forwarded_for", "127.0.0.1"), ("x_forwarded_proto", "https"), ("x_real_ip", "::1")]),
    ];
    type Case<'a> = (&'a str, TrustedProxies, &'a [(&'static str, &'a str)]);
    let own: [Case<'_>; 4] = [
        (
            "X-Forwarded-For",
            TrustedProxies::x_forwarded(["10.0.12.0/24"]).unwrap(),
            &[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "http")],
        ),
        (
            "X-Forwarded-For, counted",
            TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().with_hops(2).unwrap(),
            &[("x-forwarded-for", "198.51.100.7, 192.0.2.44"), ("x-forwarded-proto", "http, https")],
        ),
        (
            "Forwarded",
            TrustedProxies::forwarded(["10.0.12.0/24"]).unwrap(),
            &[("forwarded", "for=198.51.100.7;proto=http")],
        ),
        (
            "Forwarded, counted",
            TrustedProxies::forwarded(["10.0.12.7"]).unwrap().with_hops(2).unwrap(),
            &[("forwarded", "for=198.51.100.7;proto=http, for=192.0.2.44;proto=https")],
        ),
    ];
    for (how, proxies, own) in own {
        let counts = proxies.counts();
        let layer = EvidenceLayer::new(proxies).with_clock(Still);
        for (name, attack) in attacks {
            let request = attack.iter().chain(own).fold(from(PROXY, &[]), |mut request, (name, value)| {
                request.headers_mut().append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
                request
            });
            let before = counts.malformed();
            let client = see(&layer, request).await.client.unwrap();
            assert!(!client.is_secure() && client.forwarded_host() != Some("127.0.0.1"), "{how}: {name}");
            if client.source() == AddressSource::MalformedProxyHeader {
                assert!(name.contains("10 000") || name.contains("long"), "{how}: {name}");
                assert_eq!((client.address(), counts.malformed() - before), (Some("10.0.12.7".parse().unwrap()), 1));
            } else {
                assert_eq!(client.address(), Some("198.51.100.7".parse().unwrap()), "{how}: {name}");
                assert_eq!(counts.malformed(), before, "{how}: {name}");
            }
            // And whoever is no proxy gains nothing at all.
            let stranger = attack.iter().chain(own).fold(from("203.0.113.1:1", &[]), |mut request, (name, value)| {
                request.headers_mut().append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
                request
            });
            let view = see(&layer, stranger).await;
            assert_eq!((view.address().as_str(), view.is_secure(), view.names().len()), ("203.0.113.1", false, 0));
        }
    }
}

#[tokio::test]
async fn what_is_removed_and_what_is_malformed_is_counted() {
    let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
    let counts = proxies.counts();
    let layer = EvidenceLayer::new(proxies).with_clock(Still);
    for (peer, fields, malformed, removed) in [
        (PROXY, &[("x-forwarded-for", "198.51.100.7")][..], 0, 0),
        (PROXY, &[("x-forwarded-for", "nonsense")], 1, 0),
        (PROXY, &[("forwarded", "for=198.51.100.7")], 1, 1),
        (PROXY, &[("client-cert", ":AAAA:"), ("x-forwarded-for", "?")], 2, 2),
        ("203.0.113.1:1", &[("x-forwarded-for", "nonsense"), ("x-real-ip", "::1")], 2, 3),
        ("203.0.113.1:1", &[("remote-user", "root")], 2, 4),
        ("203.0.113.1:1", &[("accept", "*/*")], 2, 4),
    ] {
        see(&layer, from(peer, fields)).await;
        assert_eq!((counts.malformed(), counts.removed()), (malformed, removed), "{fields:?}");
    }
}

#[tokio::test]
async fn identity_headers_come_from_a_proxy_or_not_at_all() {
    let fields = [
        ("remote-user", "root"),
        ("remote-groups", "admins"),
        ("x-remote-user", "root"),
        ("x-remote-group", "system:masters"),
        ("x-auth-request-email", "root@example.com"),
        ("x-goog-authenticated-user-id", "1"),
        ("client-cert", ":AAAA:"),
        ("x-ssl-client-verify", "SUCCESS"),
        ("ssl-client-cert", "x"),
        ("x-forwarded-client-cert", "Hash=x"),
        ("accept", "*/*"),
    ];
    assert_eq!(see(&x_forwarded(), from("203.0.113.1:1", &fields)).await.names(), ["accept"]);
    assert_eq!(
        see(&x_forwarded(), from(PROXY, &fields)).await.names(),
        [
            "accept",
            "remote-groups",
            "remote-user",
            "x-auth-request-email",
            "x-goog-authenticated-user-id",
            "x-remote-group",
            "x-remote-user"
        ]
    );
}

#[tokio::test]
async fn one_field_with_one_address() {
    let name = http::HeaderName::from_static;
    let proxies = TrustedProxies::address_header(name("cf-connecting-ip"), ["10.0.12.7"]).unwrap();
    let layer = EvidenceLayer::new(proxies.with_scheme_header(name("x-forwarded-proto")).unwrap()).with_clock(Still);
    let fields =
        [("cf-connecting-ip", "198.51.100.7"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "127.0.0.1")];
    let view = see(&layer, from(PROXY, &fields)).await;
    assert_eq!((view.address().as_str(), view.is_secure()), ("198.51.100.7", true));
    assert_eq!(view.names(), ["cf-connecting-ip", "x-forwarded-proto"]);
    let view = see(&layer, from("203.0.113.1:1", &fields)).await;
    assert_eq!((view.address().as_str(), view.is_secure(), view.names().len()), ("203.0.113.1", false, 0));
}

#[cfg(all(feature = "axum", unix))]
#[tokio::test]
async fn a_proxy_on_this_machine_may_come_through_a_unix_socket() {
    use http_body_util::BodyExt;

    let folder = tempfile::tempdir().unwrap();
    for (name, trusted, expected) in
        [("trusted", true, "Some(198.51.100.7) true"), ("not trusted", false, "None false")]
    {
        let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap();
        let proxies = if trusted { proxies.and_unix_sockets() } else { proxies };
        let app = axum::Router::new()
            .route(
                "/",
                axum::routing::get(async |request: axum::extract::Request| {
                    let client = SecurityContext::of(request.extensions()).and_then(SecurityContext::client).unwrap();
                    format!("{:?} {}", client.address(), client.is_secure())
                }),
            )
            .layer(EvidenceLayer::new(proxies));
        let path = folder.path().join(name);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move { portcullis::axum::serve(listener, app).await });
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/")
            .header("host", "localhost")
            .header("x-forwarded-for", "198.51.100.7")
            .header("x-forwarded-proto", "https")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, expected, "{name}");
    }
}
