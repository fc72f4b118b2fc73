//! Who a client certificate belongs to, from the connection or as a trusted proxy forwards it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use portcullis::{
    Connection, Instants, Now, Principal, PrincipalKind, RejectionKind, RequestHead, SecurityContext, Slot, TlsVersion,
    authn::{Authenticator, Outcome, both, one_of},
    client_cert::{ClientCertAuthenticator, ClientCertAuthenticatorBuilder},
    conformance::{self, AuthenticatorFixture},
    evidence::{CertificateHeader, TrustedProxies},
    guard::{authenticated, public, require},
    stack::Stack,
    tls::TlsLayer,
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use support::{
    NOW, Still,
    certs::{Authority, Issued, client},
    get, send, test_scheme, text, with,
};
use tower::service_fn;

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);
const WEB: &str = "spiffe://prod.example/ns/shop/web";

fn issue(params: &CertificateParams) -> Issued {
    Authority::new("clients").issue(params)
}

fn over(connection: Connection) -> Request<()> {
    let mut request = get("/guarded");
    request.extensions_mut().insert(connection);
    request
}

fn ask(authenticator: &impl Authenticator, issued: &Issued) -> Outcome {
    let request = over(issued.connection());
    match authenticator.authenticate_now(&RequestHead::of(&request), AT) {
        Now::Known(outcome) => outcome,
        Now::Wait => panic!("a certificate is read at once"),
    }
}

fn verified(authenticator: &ClientCertAuthenticator, params: &CertificateParams) -> Result<Principal, String> {
    match ask(authenticator, &issue(params)) {
        Outcome::Verified(identity) => Ok(identity.in_slot(Slot::Subject).unwrap().clone()),
        Outcome::RefusedIfNeeded(rejection) => {
            assert_eq!(rejection.kind(), RejectionKind::InvalidCredential);
            assert_eq!(
                rejection.challenges().values(),
                ["ClientCertificate realm=\"api\", error=\"invalid_certificate\""]
            );
            Err(rejection.reason().to_owned())
        }
        other => panic!("a certificate is verified or refused, not {other:?}"),
    }
}

fn by_dns() -> ClientCertAuthenticator {
    let builder = ClientCertAuthenticator::by_dns_name().allow(["billing.internal", "*.batch.internal"]).unwrap();
    let builder = builder.roles("billing.internal", ["clerk", "auditor"]).unwrap();
    builder.roles("*.batch.internal", ["batch"]).unwrap().build().unwrap()
}

fn of_tenants() -> ClientCertAuthenticatorBuilder {
    let builder = ClientCertAuthenticator::by_spiffe_id(["prod.example"]).unwrap();
    builder.tenant("spiffe://prod.example/acme/*", "acme").unwrap()
}

fn by_spiffe() -> ClientCertAuthenticator {
    ClientCertAuthenticator::by_spiffe_id(["prod.example"]).unwrap().build().unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let good = issue(&client(&["billing.internal"], &[]));
    let bad = issue(&client(&["stranger.internal"], &[]));
    let fixture = AuthenticatorFixture::new(AT)
        .in_connection()
        .good(over(good.connection()))
        .bad(over(bad.connection()))
        .bad(over(Issued { der: b"no certificate".to_vec(), pem: String::new(), key: String::new() }.connection()))
        .absent(get("/"))
        .absent(support::get_plain("/"));
    conformance::authenticator(&by_dns(), &fixture).await;
    let as_client = ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).unwrap().as_client().build();
    conformance::authenticator(&as_client.unwrap(), &fixture).await;
}

#[test]
fn the_principal() {
    let mut params = client(&["Billing.internal"], &[]);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let issued = issue(&params);
    let Outcome::Verified(identity) = ask(&by_dns(), &issued) else { panic!("it is on the list") };
    let principal = identity.in_slot(Slot::Subject).unwrap();
    assert_eq!((principal.kind(), principal.credential()), (PrincipalKind::Service, "client_cert"));
    assert_eq!((principal.issuer(), principal.subject()), ("client-certificates", "billing.internal"));
    assert_eq!(principal.roles(), ["clerk", "auditor"]);
    assert_eq!(principal.expires_at(), Some(1_893_456_001), "the second of notAfter is within");
    let id: Vec<u8> = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &issued.der).as_ref().to_vec();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(principal.credential_id(), Some(&*id));

    let spiffe = verified(&by_spiffe(), &client(&[], &[WEB])).unwrap();
    assert_eq!((spiffe.issuer(), spiffe.subject()), ("spiffe://prod.example", WEB));
    assert_eq!(verified(&by_dns(), &client(&["a.batch.internal"], &[])).unwrap().roles(), ["batch"]);
}

/// The same second ends what is under way and refuses what comes anew.
#[test]
fn the_last_second_is_the_same_for_requests_and_for_streams() {
    const NOT_AFTER: u64 = 1_893_456_000;
    let mut params = client(&["billing.internal"], &[]);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let request = over(issue(&params).connection());
    let authenticator = by_dns();
    for (nanos, counts) in [
        (NOT_AFTER * 1_000_000_000 - 1, true),
        (NOT_AFTER * 1_000_000_000, true),
        (NOT_AFTER * 1_000_000_000 + 999_999_999, true),
        ((NOT_AFTER + 1) * 1_000_000_000, false),
    ] {
        let at = Instants::new(nanos, 0);
        let outcome = match authenticator.authenticate_now(&RequestHead::of(&request), at) {
            Now::Known(outcome) => outcome,
            Now::Wait => panic!("a certificate is read at once"),
        };
        match outcome {
            Outcome::Verified(identity) => {
                let end = identity.in_slot(Slot::Subject).unwrap().expires_at().unwrap();
                assert!(counts && nanos < end * 1_000_000_000, "{nanos}: a stream would end at {end}");
            }
            Outcome::RefusedIfNeeded(_) => assert!(!counts, "{nanos}"),
            other => panic!("{nanos}: {other:?}"),
        }
    }
}

#[test]
fn a_connection_s_principal_is_made_once_for_each_authenticator() {
    let request = over(issue(&client(&["billing.internal"], &[WEB])).connection());
    let subject = |authenticator: &ClientCertAuthenticator| match authenticator
        .authenticate_now(&RequestHead::of(&request), AT)
    {
        Now::Known(Outcome::Verified(identity)) => identity.in_slot(Slot::Subject).unwrap().subject().to_owned(),
        other => panic!("{other:?}"),
    };
    let (dns, spiffe) = (by_dns(), by_spiffe());
    for _ in 0..2 {
        assert_eq!((subject(&dns), subject(&spiffe)), ("billing.internal".to_owned(), WEB.to_owned()));
    }
    let allocated = allocation_counter::measure(|| drop(dns.authenticate_now(&RequestHead::of(&request), AT)));
    assert_eq!(allocated.count_total, 0, "a connection's second request");
}

#[test]
fn what_is_refused() {
    type Change = fn(&mut CertificateParams);
    let dns = ["billing.internal"];
    let cases: [(&str, ClientCertAuthenticator, CertificateParams, Change, &str); 11] = [
        ("not on the list", by_dns(), client(&["x.internal"], &[]), |_| {}, "is not allowed: x.internal"),
        ("below a name", by_dns(), client(&["x.billing.internal"], &[]), |_| {}, "not allowed"),
        ("the common name alone", by_dns(), client(&[], &[]), |_| {}, "has no DNS name"),
        ("a wildcard", by_dns(), client(&["*.batch.internal"], &[]), |_| {}, "has no DNS name"),
        (
            "two names",
            by_dns(),
            client(&["billing.internal", "a.batch.internal"], &[]),
            |_| {},
            "has several DNS names that are allowed",
        ),
        (
            "expired",
            by_dns(),
            client(&dns, &[]),
            |params| params.not_after = rcgen::date_time_ymd(2027, 1, 15),
            "is expired",
        ),
        (
            "not valid yet",
            by_dns(),
            client(&dns, &[]),
            |params| params.not_before = rcgen::date_time_ymd(2027, 1, 16),
            "is not valid yet",
        ),
        (
            "a server's",
            by_dns(),
            client(&dns, &[]),
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            "is not for clients",
        ),
        ("another domain", by_spiffe(), client(&[], &["spiffe://test.example/a"]), |_| {}, "another trust domain"),
        ("two URIs", by_spiffe(), client(&[], &[WEB, "spiffe://prod.example/b"]), |_| {}, "several URIs"),
        ("no SPIFFE ID", by_spiffe(), client(&["prod.example"], &[]), |_| {}, "has no SPIFFE ID"),
    ];
    for (name, authenticator, mut params, change, reason) in cases {
        change(&mut params);
        let refused = verified(&authenticator, &params).unwrap_err();
        assert!(refused.starts_with("client certificate: ") && refused.contains(reason), "{name}: {refused}");
    }
    let allowed = verified(&by_dns(), &client(&["billing.internal", "x.internal"], &[])).unwrap();
    assert_eq!(allowed.subject(), "billing.internal", "one of its names is on the list");
}

#[test]
fn other_kinds_of_names() {
    let uri = ClientCertAuthenticator::by_uri().allow(["urn:acme:*", "https://acme.example/services/*"]).unwrap();
    let uri = uri.issuer_name("acme").build().unwrap();
    let found = verified(&uri, &client(&[], &["https://acme.example/services/a"])).unwrap();
    assert_eq!((found.issuer(), found.subject()), ("acme", "https://acme.example/services/a"));
    assert!(verified(&uri, &client(&[], &["urn:acme:a"])).is_err(), "an asterisk stands after a slash alone");

    let name = "CN=billing.internal,O=Acme";
    let subject = ClientCertAuthenticator::by_full_subject_name().allow([name]).unwrap().build().unwrap();
    assert_eq!(verified(&subject, &client(&[], &[])).unwrap().subject(), name);
    let mut other = client(&[], &[]);
    other.distinguished_name.push(DnType::OrganizationalUnitName, "Guests");
    assert!(verified(&subject, &other).is_err(), "the common name and a part of the rest");

    let issued = issue(&client(&[], &[]));
    let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &issued.der);
    let id: Vec<String> = id.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let pinned = ClientCertAuthenticator::by_sha256().allow([id.join(":")]).unwrap().build().unwrap();
    assert!(matches!(ask(&pinned, &issued), Outcome::Verified(_)));
    assert!(verified(&pinned, &client(&[], &[])).is_err());
}

#[test]
fn a_tenant_is_that_of_the_name() {
    let tellers = of_tenants().tenant("spiffe://prod.example/globex/teller", "globex").unwrap().build().unwrap();
    let tenant = |uri: &str| {
        let principal = verified(&tellers, &client(&[], &[uri])).unwrap();
        principal.tenant().map(ToOwned::to_owned)
    };
    assert_eq!(tenant("spiffe://prod.example/acme/teller").as_deref(), Some("acme"));
    assert_eq!(tenant("spiffe://prod.example/globex/teller").as_deref(), Some("globex"));
    for nobodys in ["acmex/teller", "acme", "globex/teller/acme", "globex/auditor", "x/acme/teller"] {
        assert_eq!(tenant(&format!("spiffe://prod.example/{nobodys}")), None, "{nobodys}");
    }
    assert_eq!(verified(&by_dns(), &client(&["billing.internal"], &[])).unwrap().tenant(), None);
}

#[test]
fn a_client_has_one_tenant() {
    let of = |name: &str, tenant| of_tenants().tenant(name, tenant).unwrap().build();
    for name in ["acme/*", "acme/teller", "acme/ns/*", "*"] {
        let name = format!("spiffe://prod.example/{name}");
        let torn = of(&name, "globex").unwrap_err();
        assert_eq!((torn.setting(), torn.value()), ("client certificates", &*format!("{name:?}")));
        assert!(torn.to_string().contains("\"acme\" and to \"globex\""), "{torn}");
        assert!(of(&name, "acme").is_ok(), "{name}: it is the same one");
    }
    assert!(of("spiffe://prod.example/acmex/*", "globex").is_ok());
    assert!(of_tenants().tenant("spiffe://prod.example/x", "").is_err());
    assert!(of_tenants().tenant("spiffe://test.example/x", "globex").is_err());
    let stranger = ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).unwrap();
    let stranger = stranger.tenant("acme", "billing.internal").unwrap().build().unwrap_err();
    assert_eq!(stranger.value(), "\"acme\"");
}

#[test]
fn configuration() {
    assert!(ClientCertAuthenticator::by_dns_name().build().is_err(), "nobody is allowed");
    assert!(ClientCertAuthenticator::by_dns_name().roles("a.example", ["x"]).unwrap().build().is_err());
    let by = |name| ClientCertAuthenticator::by_dns_name().allow([name]).unwrap();
    // The role before the client: "service" is a name that nobody has.
    let swapped = by("billing.internal").roles("service", ["billing.internal"]).unwrap().build().unwrap_err();
    assert_eq!((swapped.setting(), swapped.value()), ("client certificates", "\"service\""));
    for (allowed, given, good) in [
        ("*.internal", "billing.internal", true),
        ("billing.internal", "*.internal", true),
        ("*.internal", "billing.batch.internal", false),
        ("billing.internal", "biling.internal", false),
    ] {
        assert_eq!(by(allowed).roles(given, ["clerk"]).unwrap().build().is_ok(), good, "{allowed} {given}");
    }
    let everybody = ClientCertAuthenticator::by_dns_name().allow_everybody_issued();
    assert!(everybody.roles("billing.internal", ["clerk"]).unwrap().build().is_ok());
    assert!(ClientCertAuthenticator::by_dns_name().allow_everybody_issued().build().is_ok());
    assert!(ClientCertAuthenticator::by_dns_name().allow(["not a name"]).is_err());
    assert!(ClientCertAuthenticator::by_spiffe_id([""; 0]).is_err());
    assert_eq!(ClientCertAuthenticator::by_spiffe_id(["Prod.example"]).unwrap_err().value(), "\"Prod.example\"");
    assert!(by_dns_builder().realm("a\"b").build().is_err());
    assert!(by_dns_builder().issuer_name("").build().is_err());
}

fn by_dns_builder() -> ClientCertAuthenticatorBuilder {
    ClientCertAuthenticator::by_dns_name().allow(["billing.internal"]).unwrap()
}

/// Answers `subject/client`.
fn app(
    authenticator: impl Authenticator,
    proxies: TrustedProxies,
) -> impl tower::Service<Request<()>, Response = Response<Full<bytes::Bytes>>, Error = std::convert::Infallible> + Clone
{
    Stack::builder()
        .clock(Still)
        .proxies(proxies)
        .tls(TlsLayer::require())
        .authenticate(authenticator)
        .route("GET /open", public())
        .route("GET /guarded", require(authenticated()))
        .build()
        .unwrap()
        .protect(service_fn(async |request: Request<()>| {
            let context = SecurityContext::of(request.extensions()).unwrap();
            let name = |slot| context.identity(slot).map_or("-".to_owned(), |it| it.subject().to_owned());
            let seen = format!("{}/{}", name(Slot::Subject), name(Slot::Client));
            Ok::<_, std::convert::Infallible>(Response::new(Full::from(seen)))
        }))
}

/// The status, and who acts for whom where it is 200.
async fn seen<S>(app: &S, mut request: Request<()>, path: &'static str, token: Option<&str>) -> String
where
    S: tower::Service<Request<()>, Response = Response<Full<bytes::Bytes>>, Error = std::convert::Infallible> + Clone,
{
    *request.uri_mut() = path.parse().unwrap();
    if let Some(token) = token {
        request = with(request, "authorization", token);
    }
    let answer = send(app, request).await;
    if answer.status() == 200 { text(answer).await } else { answer.status().as_u16().to_string() }
}

#[tokio::test]
async fn a_certificate_acts_or_stands_beside_who_acts() {
    let as_client = || by_dns_builder().as_client().build().unwrap();
    let alone = app(by_dns(), TrustedProxies::none());
    let beside = app(one_of((test_scheme(), as_client())), TrustedProxies::none());
    let either = app(one_of((test_scheme(), by_dns())), TrustedProxies::none());
    let together = app(both(by_dns(), test_scheme()), TrustedProxies::none());
    let together_as_client = app(both(as_client(), test_scheme()), TrustedProxies::none());
    let client_alone = app(as_client(), TrustedProxies::none());
    let good = issue(&client(&["billing.internal"], &[])).connection();
    let bad = issue(&client(&["x.internal"], &[])).connection();
    let none = Connection::tls("198.51.100.7:1".parse().unwrap(), TlsVersion::Tls13);
    let (token, bad_token, no): (_, _, Option<&str>) = (Some("Test alice"), Some("Test bad"), None);

    macro_rules! check {
        ($app:ident: $($connection:ident $token:expr => $open:literal $guarded:literal;)*) => {$(
            let name = concat!(stringify!($app), " ", stringify!($connection));
            assert_eq!(seen(&$app, over($connection.clone()), "/open", $token).await, $open, "{name} {:?}", $token);
            assert_eq!(seen(&$app, over($connection.clone()), "/guarded", $token).await, $guarded, "{name} {:?}", $token);
        )*};
    }
    check! { alone:
        good no => "billing.internal/-" "billing.internal/-";
        bad no => "-/-" "401";
        none no => "-/-" "401";
        good token => "400" "400";
    }
    check! { either:
        good no => "billing.internal/-" "billing.internal/-";
        good token => "alice/-" "alice/-";
        bad token => "alice/-" "alice/-";
        good bad_token => "401" "401";
        none token => "alice/-" "alice/-";
    }
    check! { beside:
        good no => "-/billing.internal" "401";
        good token => "alice/billing.internal" "alice/billing.internal";
        bad token => "alice/-" "alice/-";
        none token => "alice/-" "alice/-";
        good bad_token => "401" "401";
        bad no => "-/-" "401";
    }
    check! { together:
        good token => "alice/billing.internal" "alice/billing.internal";
        good no => "-/-" "401";
        none token => "401" "401";
        bad token => "401" "401";
        none no => "-/-" "401";
    }
    check! { together_as_client:
        good token => "alice/billing.internal" "alice/billing.internal";
        none token => "401" "401";
    }
    check! { client_alone:
        good no => "-/billing.internal" "401";
    }
}

#[tokio::test]
async fn one_certificate_is_not_two_credentials() {
    let as_client = by_dns_builder().as_client().build().unwrap();
    let app = app(both(as_client, by_dns()), TrustedProxies::none());
    let good = issue(&client(&["billing.internal"], &[])).connection();
    assert_eq!(seen(&app, over(good), "/guarded", None).await, "401");
}

fn forwarded(peer: &str, scheme: &str, header: &HeaderName, values: &[&str]) -> Request<()> {
    let mut request = over(Connection::plain(peer.parse().unwrap()));
    request = with(with(request, "x-forwarded-for", "198.51.100.7"), "x-forwarded-proto", scheme);
    for value in values {
        request.headers_mut().append(header, value.parse().unwrap());
    }
    request
}

/// A field, how it is read, and how a proxy writes a certificate into it.
type Forwarding = (HeaderName, CertificateHeader, fn(&Issued) -> String);

/// The headers of three proxies.
fn headers() -> [Forwarding; 3] {
    let nginx = HeaderName::from_static("x-ssl-client-cert");
    [
        (HeaderName::from_static("client-cert"), CertificateHeader::client_cert(), |issued| {
            format!(":{}:", STANDARD.encode(&issued.der))
        }),
        (nginx.clone(), CertificateHeader::escaped_pem(nginx), |issued| escaped(&issued.pem)),
        (HeaderName::from_static("x-forwarded-client-cert"), CertificateHeader::x_forwarded_client_cert(), |issued| {
            format!("By=spiffe://x/y;Cert=\"{}\";Subject=\"CN=evil\"", escaped(&issued.pem))
        }),
    ]
}

fn escaped(pem: &str) -> String {
    pem.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

#[tokio::test]
async fn a_trusted_proxy_forwards_what_it_verified() {
    let (good, other) = (issue(&client(&["billing.internal"], &[])), issue(&client(&["x.internal"], &[])));
    for (name, header, write) in headers() {
        let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().with_client_certificates(header);
        let counts = proxies.counts();
        let app = app(by_dns(), proxies);
        let (value, other) = (write(&good), write(&other));
        let (proxy, stranger) = ("10.0.12.7:1", "203.0.113.1:1");
        type Case<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a str, u64, u64);
        let cases: [Case<'_>; 7] = [
            ("in order", proxy, "https", &[&value], "billing.internal/-", 0, 0),
            ("not on the list", proxy, "https", &[&other], "401", 0, 0),
            ("no certificate", proxy, "https", &[], "401", 0, 0),
            ("two certificates", proxy, "https", &[&other, &value], "401", 1, 0),
            ("garbage", proxy, "https", &["garbage"], "401", 1, 0),
            ("over plain HTTP", proxy, "http", &[&value], "403", 1, 0),
            ("a stranger's", stranger, "https", &[&value], "403", 0, 1),
        ];
        for (case, peer, scheme, values, expected, malformed, removed) in cases {
            let before = (counts.malformed(), counts.removed());
            let answer = seen(&app, forwarded(peer, scheme, &name, values), "/guarded", None).await;
            assert_eq!(answer, expected, "{name}: {case}");
            let now = (counts.malformed() - before.0, counts.removed() - before.1);
            assert_eq!(now, (malformed, removed), "{name}: {case}");
        }
        // Over TLS of its own, a stranger is anonymous, and its header is gone.
        let mut request = forwarded(stranger, "https", &name, &[&value]);
        request.extensions_mut().insert(Connection::tls(stranger.parse().unwrap(), TlsVersion::Tls13));
        assert_eq!(seen(&app, request, "/guarded", None).await, "401", "{name}");
    }
}

#[tokio::test]
async fn a_header_that_nobody_configured_is_nothing() {
    let good = issue(&client(&["billing.internal"], &[]));
    let app = app(by_dns(), TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap());
    for (name, _, write) in headers() {
        let answer = seen(&app, forwarded("10.0.12.7:1", "https", &name, &[&write(&good)]), "/guarded", None).await;
        assert_eq!(answer, "401", "{name}");
    }
}

/// The proxy's own certificate, of its connection to this process, is not the client's.
#[tokio::test]
async fn a_proxy_does_not_lend_its_certificate() {
    let proxies = TrustedProxies::x_forwarded(["198.51.100.7"]).unwrap();
    let app = app(by_dns(), proxies);
    let own = issue(&client(&["billing.internal"], &[])).connection();
    let request = with(with(over(own.clone()), "x-forwarded-for", "192.0.2.1"), "x-forwarded-proto", "https");
    assert_eq!(seen(&app, request, "/guarded", None).await, "401");
    assert_eq!(seen(&app, with(over(own), "x-forwarded-proto", "https"), "/guarded", None).await, "401");
}

#[tokio::test]
async fn names_that_a_proxy_tells_without_the_certificate() {
    let header = CertificateHeader::x_forwarded_client_cert();
    let proxies = TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap().with_client_certificates(header);
    let app = app(by_spiffe(), proxies);
    let hash = "ab".repeat(32);
    let name = HeaderName::from_static("x-forwarded-client-cert");
    for (case, value, expected) in [
        ("in order", format!("By=spiffe://prod.example/proxy;Hash={hash};URI={WEB}"), format!("{WEB}/-")),
        ("another domain", format!("Hash={hash};URI=spiffe://test.example/a"), "401".to_owned()),
        ("By is the proxy", format!("By={WEB};Hash={hash}"), "401".to_owned()),
        (
            "the client's element first",
            format!("Hash={hash};URI={WEB},Hash={hash};URI=spiffe://prod.example/x"),
            "401".to_owned(),
        ),
        ("a URI in a subject", format!("Hash={hash};Subject=\"CN=;URI={WEB}\""), "401".to_owned()),
    ] {
        let answer = seen(&app, forwarded("10.0.12.7:1", "https", &name, &[&value]), "/guarded", None).await;
        assert_eq!(answer, expected, "{case}");
    }
}
