//! Plain HTTP stops at the TLS layer.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests, in a crate of their own")]

mod support;

use std::{convert::Infallible, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use portcullis::{
    Connection, Rejection, RejectionKind, TlsVersion,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    evidence::{EvidenceLayer, TrustedProxies},
    tls::{Hsts, TlsLayer},
};
use support::{Probe, Still, get, get_plain, send, text, with};
use tower::{Layer, Service, service_fn};

const STS: &str = "strict-transport-security";

fn require() -> TlsLayer {
    TlsLayer::require().with_clock(Still)
}

fn plain(method: Method, uri: &str, host: Option<&str>) -> Request<()> {
    let mut request = get_plain(uri);
    *request.method_mut() = method;
    match host {
        Some(host) => with(request, "host", host),
        None => request,
    }
}

fn peer(mut request: Request<()>, connection: Connection) -> Request<()> {
    request.extensions_mut().insert(connection);
    request
}

#[tokio::test]
async fn plain_http_is_refused() {
    let probe = Probe::default();
    let service = require().layer(probe.clone());
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
    for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
        let answer = send(&service, plain(method.clone(), "/", Some("api.example.com"))).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method}");
        assert_eq!(answer.extensions().get::<Rejection>().unwrap().kind(), RejectionKind::PlainHttp, "{method}");
        assert!(!answer.headers().contains_key(header::LOCATION), "{method}");
    }
    assert_eq!(probe.seen.calls(), 1);
}

#[tokio::test]
async fn a_claim_of_https_without_an_evidence_layer_is_nothing() {
    let service = require().layer(Probe::default());
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("forwarded", "proto=https"),
        ("x-forwarded-ssl", "on"),
        ("front-end-https", "on"),
    ] {
        assert_eq!(send(&service, with(get_plain("/"), name, value)).await.status(), StatusCode::FORBIDDEN, "{name}");
    }
    let absolute = get_plain("https://api.example.com/");
    assert_eq!(send(&service, absolute).await.status(), StatusCode::FORBIDDEN, "scheme of the request target");
}

#[tokio::test]
async fn without_a_peer_address_nothing_passes() {
    let service = require().exempt(Method::GET, "/health").unwrap().layer(Probe::default());
    for path in ["/", "/health"] {
        let request = Request::get(path).body(()).unwrap();
        assert_eq!(send(&service, request).await.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
    let inside = EvidenceLayer::new(TrustedProxies::none()).layer(require().layer(Probe::default()));
    let request = Request::get("/").body(()).unwrap();
    assert_eq!(send(&inside, request).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let unix = peer(get("/"), Connection::unaddressed());
    assert_eq!(send(&inside, unix).await.status(), StatusCode::FORBIDDEN, "known to be plain");
}

#[tokio::test]
async fn redirects() {
    let service = require().redirect_to(["api.example.com", "shop.example.com:8443"]).unwrap().layer(Probe::default());
    let listed = Some("api.example.com");
    for (name, method, uri, host, location) in [
        ("GET", Method::GET, "/a?b=c", listed, Some("https://api.example.com/a?b=c")),
        ("HEAD", Method::HEAD, "/a", listed, Some("https://api.example.com/a")),
        ("its port is dropped", Method::GET, "/", Some("api.example.com:8080"), Some("https://api.example.com/")),
        ("the list's port", Method::GET, "/", Some("shop.example.com"), Some("https://shop.example.com:8443/")),
        ("HTTP/2 authority", Method::GET, "http://api.example.com/a", None, Some("https://api.example.com/a")),
        ("POST", Method::POST, "/a", listed, None),
        ("DELETE", Method::DELETE, "/a", listed, None),
        ("OPTIONS", Method::OPTIONS, "/a", listed, None),
        ("another host", Method::GET, "/a", Some("evil.example"), None),
        ("another authority", Method::GET, "http://evil.example/", listed, None),
        ("no host", Method::GET, "/a", None, None),
        ("not a host", Method::GET, "/a", Some("api.example.com/evil.example"), None),
    ] {
        let answer = send(&service, plain(method, uri, host)).await;
        let status = if location.is_some() { StatusCode::PERMANENT_REDIRECT } else { StatusCode::FORBIDDEN };
        assert_eq!(answer.status(), status, "{name}");
        let found = answer.headers().get(header::LOCATION).map(|value| value.to_str().unwrap());
        assert_eq!(found, location, "{name}");
    }
    let two_hosts = with(plain(Method::GET, "/", Some("evil.example")), "host", "api.example.com");
    assert_eq!(send(&service, two_hosts).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK, "HTTPS is not redirected");
}

#[tokio::test]
async fn the_redirect_s_host_comes_from_a_trusted_proxy_or_the_request() {
    let service = EvidenceLayer::new(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap())
        .layer(require().redirect_to(["api.example.com", "other.example.com"]).unwrap().layer(Probe::default()));
    let request = || with(plain(Method::GET, "/", Some("api.example.com")), "x-forwarded-host", "other.example.com");
    let location = |answer: Response<_>| answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
    assert_eq!(location(send(&service, request()).await), "https://api.example.com/", "a stranger's header");
    let proxied = peer(request(), Connection::plain("10.0.12.7:1".parse().unwrap()));
    assert_eq!(location(send(&service, proxied).await), "https://other.example.com/", "the proxy's header");
}

#[test]
fn bad_configuration_is_an_error() {
    assert!(TlsLayer::require().redirect_to([""; 0]).is_err());
    assert_eq!(TlsLayer::require().redirect_to(["https://a"]).unwrap_err().value(), "\"https://a\"");
    assert!(TlsLayer::require().exempt(Method::GET, "health").is_err());
    assert!(Hsts::one_year().preload().is_err());
    assert!(Hsts::max_age(Duration::from_secs(3600)).include_subdomains().preload().is_err());
}

/// Answers with `Strict-Transport-Security` lines of its own.
fn chatty() -> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone {
    service_fn(|_: Request<()>| async {
        let response = Response::builder().header(STS, "max-age=1").header(STS, "max-age=2").body(String::new());
        Ok::<_, Infallible>(response.unwrap())
    })
}

#[tokio::test]
async fn hsts_stands_once_on_https_and_never_elsewhere() {
    let hsts = Hsts::one_year().include_subdomains().preload().unwrap();
    let year = "max-age=31536000; includeSubDomains; preload";
    let layer = require().hsts(hsts).exempt(Method::GET, "/health").unwrap();
    let local = Connection::plain("127.0.0.1:1".parse().unwrap());
    let cases: [(&str, TlsLayer, Request<()>, &[&str]); 12] = [
        ("HTTPS", layer.clone(), with(get("/"), "host", "api.example.com"), &[year]),
        ("HTTPS with port", layer.clone(), with(get("/"), "host", "api.example.com:8443"), &[year]),
        ("HTTPS without host", layer.clone(), get("/"), &[year]),
        ("HTTP/2", layer.clone(), get("https://api.example.com/"), &[year]),
        ("localhost", layer.clone(), with(get("/"), "host", "localhost:8443"), &[]),
        ("IPv4", layer.clone(), with(get("/"), "host", "192.0.2.1"), &[]),
        ("IPv6", layer.clone(), with(get("/"), "host", "[2001:db8::1]:443"), &[]),
        ("HTTP/2 to an address", layer.clone(), get("https://192.0.2.1/"), &[]),
        ("plain, exempt", layer.clone(), get_plain("/health"), &[]),
        ("plain, refused", layer.clone(), get_plain("/"), &[]),
        ("plain on loopback", layer.dangerous_plain_http_on_loopback(), peer(get_plain("/"), local), &[]),
        ("HTTPS, not configured", require(), get("/"), &["max-age=1", "max-age=2"]),
    ];
    for (name, layer, request, expected) in cases {
        let answer = send(&layer.layer(chatty()), request).await;
        let values: Vec<_> = answer.headers().get_all(STS).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, expected, "{name}");
    }
}

#[tokio::test]
async fn hsts_is_on_refusals_from_further_inside() {
    let refusing =
        AuthnLayer::new(authenticate_fn(portcullis::Challenge::new("Device", "factory").unwrap(), |_, _| {
            Outcome::Absent
        }));
    let service = require().hsts(Hsts::one_year()).layer(refusing.layer(Probe::default()));
    let answer = send(&service, get("/")).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()[STS], "max-age=31536000");
}

/// Answers with the names of the credential headers that it sees.
fn credentials() -> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone {
    service_fn(|request: Request<()>| async move {
        let names =
            ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token", "x-device-key", "accept"];
        let seen: Vec<_> = names.into_iter().filter(|name| request.headers().contains_key(*name)).collect();
        Ok::<_, Infallible>(Response::new(seen.join(" ")))
    })
}

fn loaded(request: Request<()>) -> Request<()> {
    ["authorization", "proxy-authorization", "cookie", "cookie", "x-api-key", "x-auth-token", "x-device-key", "accept"]
        .into_iter()
        .fold(request, |request, name| with(request, name, "secret"))
}

#[tokio::test]
async fn an_exempt_path_is_exact_and_carries_no_credential() {
    let layer = require()
        .exempt(Method::GET, "/health")
        .unwrap()
        .credential_header(http::HeaderName::from_static("x-device-key"));
    let service = layer.layer(credentials());
    let cases = [
        ("exact", Method::GET, "/health", StatusCode::OK),
        ("query", Method::GET, "/health?deep", StatusCode::OK),
        ("HEAD", Method::HEAD, "/health", StatusCode::FORBIDDEN),
        ("POST", Method::POST, "/health", StatusCode::FORBIDDEN),
        ("slash", Method::GET, "/health/", StatusCode::FORBIDDEN),
        ("below", Method::GET, "/health/x", StatusCode::FORBIDDEN),
        ("prefix", Method::GET, "/healthz", StatusCode::FORBIDDEN),
        ("case", Method::GET, "/Health", StatusCode::FORBIDDEN),
        ("encoded", Method::GET, "/%68ealth", StatusCode::FORBIDDEN),
        ("dots", Method::GET, "/x/../health", StatusCode::FORBIDDEN),
        ("two slashes", Method::GET, "//health", StatusCode::FORBIDDEN),
    ];
    for (name, method, path, status) in cases {
        assert_eq!(send(&service, plain(method, path, None)).await.status(), status, "{name}");
    }
    assert_eq!(text(send(&service, loaded(get_plain("/health"))).await).await, "accept");
    let over_tls = text(send(&service, loaded(get("/health"))).await).await;
    assert_eq!(over_tls, "authorization proxy-authorization cookie x-api-key x-auth-token x-device-key accept");
}

#[tokio::test]
async fn an_older_version_is_refused_where_it_is_known() {
    let tls12 = || peer(get("/"), Connection::tls("198.51.100.7:1".parse().unwrap(), TlsVersion::Tls12));
    let layer = require().minimum_version(TlsVersion::Tls13).hsts(Hsts::one_year());
    let service = layer.layer(Probe::default());
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
    let answer = send(&service, tls12()).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.headers().get_all(STS).iter().count(), 1);
    assert_eq!(send(&require().layer(Probe::default()), tls12()).await.status(), StatusCode::OK);

    let behind = EvidenceLayer::new(TrustedProxies::x_forwarded(["198.51.100.7"]).unwrap()).layer(service);
    let proxied = with(tls12(), "x-forwarded-proto", "https");
    assert_eq!(send(&behind, proxied).await.status(), StatusCode::OK, "the client's version is not known");
}

#[tokio::test]
async fn loopback_is_the_connection_s_other_end_and_no_proxy() {
    let from = |address: &str| peer(get_plain("/"), Connection::plain(address.parse().unwrap()));
    let layer = require().dangerous_plain_http_on_loopback();
    let alone = layer.clone().layer(Probe::default());
    let nobody = EvidenceLayer::new(TrustedProxies::none()).layer(layer.clone().layer(Probe::default()));
    let proxy =
        EvidenceLayer::new(TrustedProxies::x_forwarded(["127.0.0.9"]).unwrap()).layer(layer.layer(Probe::default()));

    for (name, address, status) in [
        ("IPv4", "127.0.0.1:1", StatusCode::OK),
        ("all of 127/8", "127.8.8.8:1", StatusCode::OK),
        ("IPv6", "[::1]:1", StatusCode::OK),
        ("mapped", "[::ffff:127.0.0.1]:1", StatusCode::OK),
        ("private", "192.168.0.1:1", StatusCode::FORBIDDEN),
        ("public", "198.51.100.7:1", StatusCode::FORBIDDEN),
    ] {
        for service in [&alone as &dyn AnyGate, &nobody] {
            assert_eq!(service.status(from(address)).await, status, "{name}");
        }
    }
    for header in ["x-forwarded-for", "x-real-ip", "forwarded"] {
        let forwarded = || with(from("127.0.0.1:1"), header, "127.0.0.1");
        assert_eq!(alone.status(forwarded()).await, StatusCode::FORBIDDEN, "{header} hints at a proxy");
        assert_eq!(nobody.status(forwarded()).await, StatusCode::FORBIDDEN, "{header}, removed, hints at a proxy");
    }
    assert_eq!(proxy.status(from("127.0.0.9:1")).await, StatusCode::FORBIDDEN, "a trusted proxy, no header");
    let claimed = with(from("127.0.0.9:1"), "x-forwarded-for", "127.0.0.1");
    assert_eq!(proxy.status(claimed).await, StatusCode::FORBIDDEN, "a trusted proxy says loopback");
    let host = with(plain(Method::GET, "/", Some("localhost")), "user-agent", "kube-probe/1");
    assert_eq!(alone.status(host).await, StatusCode::FORBIDDEN, "a header does not make it local");
    assert_eq!(require().layer(Probe::default()).status(from("127.0.0.1:1")).await, StatusCode::FORBIDDEN, "default");
}

/// Several types of service in one table.
trait AnyGate {
    fn status(&self, request: Request<()>) -> std::pin::Pin<Box<dyn Future<Output = StatusCode> + '_>>;
}

impl<S, R> AnyGate for S
where
    S: Service<Request<()>, Response = Response<R>, Error = Infallible> + Clone,
{
    fn status(&self, request: Request<()>) -> std::pin::Pin<Box<dyn Future<Output = StatusCode> + '_>> {
        Box::pin(async move { send(self, request).await.status() })
    }
}

#[tokio::test]
async fn tls_belongs_outside_authentication() {
    let authn = || {
        let nobody = authenticate_fn(portcullis::Challenge::new("Device", "factory").unwrap(), |_, _| Outcome::Absent);
        AuthnLayer::new(nobody).allow_anonymous()
    };
    let probe = Probe::default();
    let right = require().layer(authn().layer(probe.clone()));
    assert_eq!(send(&right, get("/")).await.status(), StatusCode::OK);
    let wrong = authn().dangerous_plain_http().layer(require().layer(probe.clone()));
    assert_eq!(send(&wrong, get("/")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let twice = require().layer(require().layer(probe.clone()));
    assert_eq!(send(&twice, get("/")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(probe.seen.calls(), 1);
}

/// Over TLS, with the server name of the handshake and the `Host` of the request.
fn to(server_name: Option<&str>, host: &str) -> Request<()> {
    let connection = Connection::tls("198.51.100.7:1".parse().unwrap(), TlsVersion::Tls13);
    let connection = match server_name {
        Some(name) => connection.with_server_name(name),
        None => connection,
    };
    with(peer(get("/"), connection), "host", host)
}

#[tokio::test]
async fn a_host_that_the_handshake_did_not_name_is_misdirected() {
    let strict = require().hsts(Hsts::one_year()).layer(Probe::default());
    let lax = require().allow_any_server_name().layer(Probe::default());
    for (name, server_name, host, status) in [
        ("the same", Some("api.example.com"), "api.example.com", 200),
        ("the same with port", Some("api.example.com"), "api.example.com:8443", 200),
        ("in capitals", Some("api.example.com"), "API.example.com", 200),
        ("with a dot", Some("api.example.com"), "api.example.com.", 200),
        ("another", Some("api.example.com"), "admin.example.com", 421),
        ("an address", Some("api.example.com"), "192.0.2.1", 421),
        ("no server name", None, "admin.example.com", 200),
        ("not a host", Some("api.example.com"), "api.example.com/", 400),
    ] {
        let answer = send(&strict, to(server_name, host)).await;
        assert_eq!(answer.status(), status, "{name}");
        assert!(answer.headers().contains_key(STS) || host == "192.0.2.1", "{name}: it is HTTPS all the same");
        assert_eq!(send(&lax, to(server_name, host)).await.status(), 200, "{name}");
    }
    let answer = send(&strict, to(Some("a.example"), "b.example")).await;
    assert_eq!(answer.extensions().get::<Rejection>().unwrap().kind(), RejectionKind::Misdirected);
    let two = with(to(Some("a.example"), "a.example"), "host", "b.example");
    assert_eq!(send(&strict, two).await.status(), 400);
    let mut differ = to(Some("a.example"), "b.example");
    *differ.uri_mut() = "https://a.example/".parse().unwrap();
    assert_eq!(send(&strict, differ).await.status(), 400, "HTTP/2: :authority and Host");
}

#[tokio::test]
async fn only_listed_hosts_are_answered_for() {
    let layer = require().hosts(["api.example.com", "*.cdn.example.com"]).unwrap();
    let layer = layer.exempt(Method::GET, "/health").unwrap().dangerous_plain_http_on_loopback();
    let service = layer.layer(Probe::default());
    for (host, status) in [
        ("api.example.com", 200),
        ("a.cdn.example.com:8443", 200),
        ("evil.example", 421),
        ("localhost", 421),
        ("api.example.com.evil.example", 421),
        ("a b", 400),
    ] {
        assert_eq!(send(&service, to(None, host)).await.status(), status, "{host}");
    }
    assert_eq!(send(&service, get("/")).await.status(), 400, "no host");
    assert_eq!(send(&service, with(get_plain("/health"), "host", "10.0.0.1")).await.status(), 200, "exempt");
    let mut probe = to(None, "10.0.0.1");
    *probe.uri_mut() = "/health".parse().unwrap();
    assert_eq!(send(&service, probe).await.status(), 200, "exempt over HTTPS too");
    let mut other = to(Some("api.example.com"), "10.0.0.1");
    *other.uri_mut() = "/health".parse().unwrap();
    assert_eq!(send(&service, other).await.status(), 421, "but for the host that the handshake named");
    let local = peer(with(get_plain("/health"), "host", "10.0.0.1"), Connection::plain("127.0.0.1:1".parse().unwrap()));
    assert_eq!(send(&service, local).await.status(), 200, "and of this machine");
    assert_eq!(send(&service, with(get_plain("/"), "host", "evil.example")).await.status(), 403, "plain HTTP first");
    let rebound = peer(with(get_plain("/"), "host", "evil.example"), Connection::plain("127.0.0.1:1".parse().unwrap()));
    assert_eq!(send(&service, rebound).await.status(), 421, "a name that was bound to this machine anew");

    let behind = EvidenceLayer::new(TrustedProxies::x_forwarded(["198.51.100.7"]).unwrap()).layer(service);
    let proxied = |host| with(with(to(None, "internal"), "x-forwarded-proto", "https"), "x-forwarded-host", host);
    assert_eq!(send(&behind, proxied("api.example.com")).await.status(), 200);
    assert_eq!(send(&behind, proxied("evil.example")).await.status(), 421);
    assert!(require().hosts(["*"]).is_err());
}

#[tokio::test]
async fn early_data_is_for_what_is_safe() {
    let service = require().layer(Probe::default());
    for (method, lines, status) in [
        (Method::POST, &["1"][..], 425),
        (Method::PUT, &["1"], 425),
        (Method::DELETE, &["1", "1"], 425),
        (Method::PATCH, &["0"], 425),
        (Method::POST, &[""], 425),
        (Method::POST, &[], 200),
        (Method::GET, &["1"], 200),
        (Method::HEAD, &["1"], 200),
        (Method::OPTIONS, &["1"], 200),
    ] {
        let mut request = lines.iter().fold(get("/"), |request, line| with(request, "early-data", line));
        *request.method_mut() = method.clone();
        assert_eq!(send(&service, request).await.status(), status, "{method} {lines:?}");
    }
    let proved = with(with(get("/"), "early-data", "1"), "dpop", "x");
    assert_eq!(send(&service, proved).await.status(), 425, "a proof is for one use");
    assert_eq!(send(&service, with(get("/"), "dpop", "x")).await.status(), 200);
    let mut plain = with(get_plain("/"), "early-data", "1");
    *plain.method_mut() = Method::POST;
    assert_eq!(send(&service, plain).await.status(), 403, "plain HTTP has no handshake");
}
