//! Where tokens come from: `Authorization`, a header field, a cookie; and what a cookie may do.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "helpers of tests are shared and panic as tests do"
)]

mod support;

#[path = "jwt/mint.rs"]
mod mint;

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use mint::{AUDIENCE, CLAIMS, ISSUER, claims_but, key, with_claims};
use portcullis::{
    ConfigError, Instants, Now, Principal, PrincipalKind, RequestHead,
    authn::{Authenticator, AuthnLayer, Identity, Outcome, authenticate_fn, both, one_of},
    guard::{acr, authenticated, public, require, scope},
    jwt::{Algorithm, CookiePlace, CsrfRules, Issuer, JwtAuthenticator, JwtAuthenticatorBuilder, KeySet},
    stack::Stack,
    tls::TlsLayer,
};
use proptest::prelude::*;
use support::{NOW, Probe, get, send, text, with};
use tower::{Layer, ServiceBuilder, service_fn};

const COOKIE: &str = "__Host-session";
const IAP: &str = "x-goog-iap-jwt-assertion";

fn builder() -> JwtAuthenticatorBuilder {
    let keys = KeySet::new([key(Algorithm::ES256)]).unwrap();
    let profile = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    JwtAuthenticator::builder().issuer(profile).realm("orders")
}

fn place() -> CookiePlace {
    CookiePlace::new(COOKIE, CsrfRules::origins(["https://app.example.com"]).unwrap()).unwrap()
}

fn with_cookie() -> JwtAuthenticator {
    builder().cookie(place()).build().unwrap()
}

fn with_header() -> JwtAuthenticator {
    builder().header(IAP).build().unwrap()
}

fn good() -> String {
    with_claims(CLAIMS)
}

fn expired() -> String {
    with_claims(&claims_but("exp", "1000000000"))
}

fn cookie(value: &str) -> String {
    format!("{COOKIE}={value}")
}

fn post(request: Request<()>) -> Request<()> {
    let (mut parts, body) = request.into_parts();
    parts.method = Method::POST;
    Request::from_parts(parts, body)
}

/// Status, body, and how often the handler ran.
async fn through(layer: AuthnLayer, request: Request<()>) -> (StatusCode, String, Vec<String>) {
    let response = send(&layer.dangerous_plain_http().layer(Probe::default()), request).await;
    let challenges = challenges(&response);
    (response.status(), text(response).await, challenges)
}

fn challenges<B>(response: &Response<B>) -> Vec<String> {
    let values = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_header_field_holds_the_bare_token() {
    const MALFORMED: &str = r#"Bearer realm="orders", error="invalid_request""#;
    const BASIC: &str = "beside an Authorization that nobody claims";
    let layer = || AuthnLayer::new(with_header()).allow_anonymous();
    let token = good();
    let bearer = format!("Bearer {token}");
    let rows: [(&str, Request<()>, StatusCode, &str); 12] = [
        ("alone", with(get("/"), IAP, &token), StatusCode::OK, "alice"),
        ("Bearer as before", with(get("/"), "authorization", &bearer), StatusCode::OK, "alice"),
        ("neither", get("/"), StatusCode::OK, "-"),
        ("with a scheme", with(get("/"), IAP, &bearer), StatusCode::UNAUTHORIZED, ""),
        ("expired", with(get("/"), IAP, &expired()), StatusCode::UNAUTHORIZED, ""),
        ("not a token", with(get("/"), IAP, "alice"), StatusCode::UNAUTHORIZED, ""),
        ("empty", with(get("/"), IAP, ""), StatusCode::BAD_REQUEST, ""),
        ("two lines", with(with(get("/"), IAP, &token), IAP, &token), StatusCode::BAD_REQUEST, ""),
        ("a list", with(get("/"), IAP, &format!("{token}, {token}")), StatusCode::UNAUTHORIZED, ""),
        ("in both places", with(with(get("/"), IAP, &token), "authorization", &bearer), StatusCode::BAD_REQUEST, ""),
        (BASIC, with(with(get("/"), IAP, &token), "authorization", "Basic YTpi"), StatusCode::BAD_REQUEST, ""),
        ("in the URL", get(&format!("/?access_token={token}&{IAP}={token}")), StatusCode::OK, "-"),
    ];
    for (name, request, status, body) in rows {
        let (found, text, challenges) = through(layer(), request).await;
        assert_eq!((found, text.as_str()), (status, body), "{name}");
        if status == StatusCode::UNAUTHORIZED {
            assert_eq!(challenges, [r#"Bearer realm="orders", error="invalid_token""#], "{name}");
        } else if status == StatusCode::BAD_REQUEST && name != BASIC {
            assert_eq!(challenges, [MALFORMED], "{name}");
        } else {
            assert_eq!(challenges, [""; 0], "{name}");
        }
    }
    let strange = Request::get("/").header(IAP, [0xff].as_slice()).body(()).unwrap();
    assert_eq!(through(layer(), strange).await, (StatusCode::BAD_REQUEST, String::new(), vec![MALFORMED.to_owned()]));
}

#[tokio::test]
async fn a_proxy_alone_may_be_believed() {
    let jwt = builder().header(IAP).without_authorization().build().unwrap();
    assert_eq!(jwt.credential_headers(), [IAP.parse::<header::HeaderName>().unwrap()]);
    let (status, _, challenges) = through(AuthnLayer::new(jwt.clone()), get("/")).await;
    assert_eq!((status, challenges), (StatusCode::UNAUTHORIZED, vec![r#"JWT realm="orders""#.to_owned()]));
    let bearer = with(get("/"), "authorization", &format!("Bearer {}", good()));
    assert_eq!(through(AuthnLayer::new(jwt.clone()).allow_anonymous(), bearer).await.0, StatusCode::UNAUTHORIZED);
    let (status, body, _) = through(AuthnLayer::new(jwt), with(get("/"), IAP, &good())).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "alice"));
}

#[tokio::test]
async fn a_good_cookie_is_an_identity() {
    let token = good();
    let mine = cookie(&token);
    let rows: [(&str, Vec<String>); 6] = [
        ("alone", vec![mine.clone()]),
        ("among others", vec![format!("a=1; {mine}; theme=\"dark\"; __Host-session2=x; x__Host-session=y")]),
        ("without spaces", vec![format!("a=1;{mine};b=2")]),
        ("with more white space", vec![format!("a=1 ;\t{mine} ; ")]),
        ("on several lines", vec!["a=1".to_owned(), mine.clone(), "b".to_owned()]),
        ("beside one that is not text", vec![mine.clone()]),
    ];
    for (name, lines) in rows {
        let mut request = get("/");
        for line in &lines {
            request.headers_mut().append(header::COOKIE, line.parse().unwrap());
        }
        if name.ends_with("text") {
            request.headers_mut().append(header::COOKIE, http::HeaderValue::from_bytes(b"b=\xff").unwrap());
        }
        let (status, body, _) = through(AuthnLayer::new(with_cookie()), request).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "alice"), "{name}");
    }
}

/// Each is refused where an identity is needed, and anonymous where none is.
#[tokio::test]
async fn a_bad_cookie_is_anonymous_where_that_is_allowed() {
    let token = good();
    let mine = cookie(&token);
    let with_lines = |lines: &[&str]| lines.iter().fold(get("/"), |request, line| with(request, "cookie", line));
    let unauthorized = StatusCode::UNAUTHORIZED;
    let rows: Vec<(&str, Request<()>, StatusCode)> = vec![
        ("expired", with_lines(&[&cookie(&expired())]), unauthorized),
        ("not a token", with_lines(&[&cookie("alice")]), unauthorized),
        ("empty", with_lines(&[&cookie("")]), unauthorized),
        ("in quotes", with_lines(&[&cookie(&format!("\"{token}\""))]), unauthorized),
        ("with a scheme", with_lines(&[&cookie(&format!("Bearer {token}"))]), unauthorized),
        ("too long", with_lines(&[&cookie(&"a.".repeat(9000))]), unauthorized),
        ("twice", with_lines(&[&format!("{mine}; {mine}")]), StatusCode::BAD_REQUEST),
        ("twice, one empty", with_lines(&[&format!("{mine}; {COOKIE}=")]), StatusCode::BAD_REQUEST),
        ("twice on two lines", with_lines(&[&mine, &mine]), StatusCode::BAD_REQUEST),
        ("in lower case", with_lines(&[&format!("__host-session={token}")]), StatusCode::BAD_REQUEST),
        ("in capitals", with_lines(&[&format!("__HOST-SESSION={token}")]), StatusCode::BAD_REQUEST),
        ("a look-alike besides", with_lines(&[&format!("{mine}; __host-Session=x")]), StatusCode::BAD_REQUEST),
        ("cross-site POST", post(with(with_lines(&[&mine]), "sec-fetch-site", "cross-site")), StatusCode::FORBIDDEN),
        ("POST that says nothing", post(with_lines(&[&mine])), StatusCode::FORBIDDEN),
        (
            "WebSocket of another site",
            with(with(with_lines(&[&mine]), "upgrade", "websocket"), "origin", "https://evil.example"),
            StatusCode::FORBIDDEN,
        ),
    ];
    for (name, request, status) in rows {
        let copy = || request.clone();
        let (found, body, challenges) = through(AuthnLayer::new(with_cookie()), copy()).await;
        assert_eq!((found, body.as_str()), (status, ""), "{name}");
        if status == unauthorized {
            assert_eq!(challenges, [r#"Bearer realm="orders", error="invalid_token""#], "{name}");
        } else if status == StatusCode::BAD_REQUEST {
            assert_eq!(challenges, [r#"Bearer realm="orders", error="invalid_request""#], "{name}");
        }
        let (found, body, _) = through(AuthnLayer::new(with_cookie()).allow_anonymous(), copy()).await;
        assert_eq!((found, body.as_str()), (StatusCode::OK, "-"), "{name}");

        // The guard refuses for the same reason, and so does the table of a stack.
        let guarded = ServiceBuilder::new()
            .layer(AuthnLayer::new(with_cookie()).allow_anonymous().dangerous_plain_http())
            .layer(require(authenticated()))
            .service(Probe::default());
        assert_eq!(send(&guarded, copy()).await.status(), status, "{name}, guarded");
        for (rule, status) in [("public", StatusCode::OK), ("required", status)] {
            let rule = if rule == "public" { public() } else { require(authenticated()).into() };
            let stack = Stack::builder().tls(TlsLayer::require()).authenticate(with_cookie());
            let stack = stack.route("GET /", rule.clone()).route("POST /", rule).build().unwrap();
            assert_eq!(send(&stack.protect(Probe::default()), copy()).await.status(), status, "{name}, stack");
        }
    }
    // A request that another site may have caused tells that there is a cookie, and nothing of its value.
    let cross = |line: &str| post(with(with_lines(&[line]), "sec-fetch-site", "cross-site"));
    let refusal = async |line: &str| {
        let (status, body, challenges) = through(AuthnLayer::new(with_cookie()), cross(line)).await;
        (status.as_u16(), body, challenges)
    };
    let of_good = refusal(&mine).await;
    assert_eq!(of_good.0, 403);
    for other in [cookie(&expired()), cookie("alice"), cookie("")] {
        assert_eq!(refusal(&other).await, of_good, "{other}");
    }
    assert_eq!(refusal("a=1").await, (401, String::new(), vec![r#"Bearer realm="orders""#.to_owned()]));
    // No cookie at all.
    let (status, _, challenges) = through(AuthnLayer::new(with_cookie()), with_lines(&["a=1; session=x"])).await;
    assert_eq!((status, challenges), (unauthorized, vec![r#"Bearer realm="orders""#.to_owned()]));
}

/// What a client cannot send is not asked for.
#[tokio::test]
async fn a_guard_names_the_scheme_of_the_place() {
    let offered = |jwt: JwtAuthenticatorBuilder| jwt.build().unwrap();
    let rows: [(&str, JwtAuthenticator, Request<()>, &str); 4] = [
        (
            "a cookie",
            offered(builder().cookie(place()).without_authorization()),
            with(get("/"), "cookie", &cookie(&good())),
            "Cookie",
        ),
        ("a field", offered(builder().header(IAP).without_authorization()), with(get("/"), IAP, &good()), "JWT"),
        ("a cookie beside Bearer", with_cookie(), with(get("/"), "cookie", &cookie(&good())), "Bearer"),
        ("a field beside Bearer", with_header(), with(get("/"), IAP, &good()), "Bearer"),
    ];
    for (name, jwt, request, scheme) in rows {
        for (rule, status, told) in [
            (scope("drill").unwrap(), 403, "error=\"insufficient_scope\", scope=\"drill\""),
            (acr(["gold"]).unwrap(), 401, "error=\"insufficient_user_authentication\", acr_values=\"gold\""),
        ] {
            for beside in [false, true] {
                let jwt = jwt.clone();
                let authn = if beside { AuthnLayer::new(both(device(), jwt)) } else { AuthnLayer::new(jwt) };
                let service = authn.dangerous_plain_http().layer(require(rule.clone()).layer(Probe::default()));
                let response = send(&service, with(request.clone(), "x-device", "1")).await;
                let expected = format!("{scheme} realm=\"api\", {told}");
                assert_eq!((response.status().as_u16(), challenges(&response)), (status, vec![expected]), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_cookie_may_act_for_its_own_site() {
    let mine = cookie(&good());
    let base = || post(with(get("/"), "cookie", &mine));
    for (name, request) in [
        ("same origin", with(base(), "sec-fetch-site", "same-origin")),
        ("by the user", with(base(), "sec-fetch-site", "none")),
        ("listed origin", with(base(), "origin", "https://app.example.com")),
        (
            "listed origin of another site",
            with(with(base(), "origin", "https://app.example.com"), "sec-fetch-site", "cross-site"),
        ),
    ] {
        let (status, body, _) = through(AuthnLayer::new(with_cookie()), request).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "alice"), "{name}");
    }
    // What was sent on purpose needs no such rule.
    let bearer = post(with(get("/"), "authorization", &format!("Bearer {}", good())));
    assert_eq!(through(AuthnLayer::new(with_cookie()), bearer).await.0, StatusCode::OK);
}

/// A second authenticator with a header field of its own.
fn device() -> impl Authenticator {
    authenticate_fn(portcullis::Challenge::new("Device", "d").unwrap(), |head, _| {
        match head.headers().get("x-device").map(|value| value.as_bytes()) {
            None => Outcome::Absent,
            Some(b"bad") => {
                portcullis::Rejection::new(portcullis::RejectionKind::InvalidCredential, "bad device").into()
            }
            Some(_) => {
                let device = Principal::builder(PrincipalKind::Service, "factory", "device", "device").build();
                Outcome::Verified(Identity::from(device).leaving_authorization())
            }
        }
    })
}

#[tokio::test]
async fn cookies_count_only_where_no_other_credential_came() {
    let (good_cookie, bad_cookie) = (cookie(&good()), cookie(&expired()));
    let bearer = |token: &str| format!("Bearer {token}");
    let bob = with_claims(&claims_but("sub", r#""bob""#));
    let plain = |value: &str| with(get("/"), "cookie", value);
    let unauthorized = (StatusCode::UNAUTHORIZED, "");
    const OPAQUE: &str = "good cookie, opaque Bearer";
    const BASIC: &str = "good cookie, Basic";
    let rows: Vec<(&str, Request<()>, (StatusCode, &str))> = vec![
        (
            "good cookie, Bearer of another",
            with(plain(&good_cookie), "authorization", &bearer(&bob)),
            (StatusCode::OK, "bob"),
        ),
        ("bad cookie, good Bearer", with(plain(&bad_cookie), "authorization", &bearer(&bob)), (StatusCode::OK, "bob")),
        ("good cookie, bad Bearer", with(plain(&good_cookie), "authorization", &bearer(&expired())), unauthorized),
        (OPAQUE, with(plain(&good_cookie), "authorization", "Bearer abc"), unauthorized),
        (BASIC, with(plain(&good_cookie), "authorization", "Basic YTpi"), unauthorized),
        ("good cookie, good device", with(plain(&good_cookie), "x-device", "1"), (StatusCode::OK, "device")),
        ("bad cookie, good device", with(plain(&bad_cookie), "x-device", "1"), (StatusCode::OK, "device")),
        ("good cookie, bad device", with(plain(&good_cookie), "x-device", "bad"), unauthorized),
        (
            "cross-site cookie, good device",
            post(with(plain(&good_cookie), "x-device", "1")),
            (StatusCode::OK, "device"),
        ),
        ("good cookie", plain(&good_cookie), (StatusCode::OK, "alice")),
        ("bad cookie", plain(&bad_cookie), unauthorized),
    ];
    for (name, request, expected) in rows {
        let orders: [Box<dyn Authenticator>; 2] =
            [Box::new(one_of((with_cookie(), device()))), Box::new(one_of((device(), with_cookie())))];
        for either in orders {
            let (status, body, challenges) = through(AuthnLayer::new(either), request.clone()).await;
            assert_eq!((status, body.as_str()), expected, "{name}");
            let is_told =
                |error: bool| challenges.iter().any(|it| it.starts_with("Bearer ") && it.contains("error=") == error);
            match name {
                OPAQUE => assert!(is_told(true) && !is_told(false), "{challenges:?}"),
                BASIC => assert!(is_told(false) && !is_told(true), "{challenges:?}"),
                _ => {}
            }
        }
    }
    let two = with(with(get("/"), "authorization", &bearer(&bob)), "x-device", "1");
    let (status, ..) = through(AuthnLayer::new(one_of((with_cookie(), device()))), two).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "two that were sent on purpose");
}

#[tokio::test]
async fn two_cookies_of_two_authenticators() {
    let other = || {
        let place = CookiePlace::new("__Secure-other", CsrfRules::same_origin()).unwrap();
        builder().cookie(place).build().unwrap()
    };
    let either = || one_of((with_cookie(), other()));
    let (first, second) = (cookie(&good()), format!("__Secure-other={}", good()));
    let rows = [
        ("both good", format!("{first}; {second}"), StatusCode::BAD_REQUEST),
        ("first", first.clone(), StatusCode::OK),
        ("second", second.clone(), StatusCode::OK),
        ("second bad", format!("{first}; __Secure-other=x"), StatusCode::UNAUTHORIZED),
        ("first bad", format!("{second}; {COOKIE}=x"), StatusCode::UNAUTHORIZED),
        ("both bad", format!("__Secure-other=x; {COOKIE}=x"), StatusCode::UNAUTHORIZED),
    ];
    for (name, line, status) in rows {
        let request = with(get("/"), "cookie", &line);
        assert_eq!(through(AuthnLayer::new(either()), request).await.0, status, "{name}");
    }
    let one = builder().cookie(place()).cookie(CookiePlace::new("__Secure-b", CsrfRules::same_origin()).unwrap());
    let request = with(get("/"), "cookie", &format!("{first}; __Secure-b={}", good()));
    assert_eq!(through(AuthnLayer::new(one.build().unwrap()), request).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_device_and_a_cookie_together() {
    let strict = || AuthnLayer::new(both(device(), with_cookie()));
    let pair = || strict().allow_anonymous();
    let (good, bad) = (cookie(&good()), cookie("x"));
    let rows: [(&str, Request<()>, StatusCode, &str); 5] = [
        ("both", with(with(get("/"), "x-device", "1"), "cookie", &good), StatusCode::OK, "alice"),
        ("device and bad cookie", with(with(get("/"), "x-device", "1"), "cookie", &bad), StatusCode::UNAUTHORIZED, ""),
        ("cookie alone, which came by itself", with(get("/"), "cookie", &good), StatusCode::OK, "-"),
        ("bad cookie alone", with(get("/"), "cookie", &bad), StatusCode::OK, "-"),
        ("bad device", with(with(get("/"), "x-device", "bad"), "cookie", &bad), StatusCode::UNAUTHORIZED, ""),
    ];
    for (name, request, status, expected) in rows {
        let (found, body, _) = through(pair(), request).await;
        assert_eq!((found, body.as_str()), (status, expected), "{name}");
    }
    for (name, line) in [("cookie", &good), ("bad cookie", &bad)] {
        let (found, ..) = through(strict(), with(get("/"), "cookie", line)).await;
        assert_eq!(found, StatusCode::UNAUTHORIZED, "{name} alone, where an identity is needed");
    }
    let (found, ..) = through(strict(), with(get("/"), "x-device", "1")).await;
    assert_eq!(found, StatusCode::UNAUTHORIZED, "device alone");
}

#[tokio::test]
async fn every_field_that_was_read_is_sensitive() {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let keep = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<()>| {
        *keep.lock().unwrap() = request.headers().clone();
        std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(String::new())))
    });
    let jwt = builder().cookie(place()).header(IAP).build().unwrap();
    assert_eq!(jwt.credential_headers().len(), 3);
    let service = AuthnLayer::new(jwt).dangerous_plain_http().layer(inner);
    let request = with(with(with(get("/"), "cookie", "a=1"), "cookie", &cookie(&good())), "accept", "*/*");
    assert_eq!(send(&service, request).await.status(), StatusCode::OK);
    let headers = seen.lock().unwrap();
    assert_eq!(headers.get_all(header::COOKIE).iter().filter(|value| value.is_sensitive()).count(), 2);
    assert!(!headers[header::ACCEPT].is_sensitive());
}

#[test]
fn bad_places_are_told() {
    let rules = CsrfRules::same_origin;
    for name in ["session", "__host-session", "__HOST-session", "__Secure_x", "__Host-", "__Host-a b", "__Host-a=b", ""]
    {
        assert!(CookiePlace::new(name, rules()).is_err(), "{name}");
    }
    for name in ["__Host-session", "__Secure-session", "__Host-Http-session"] {
        assert!(CookiePlace::new(name, rules()).is_ok(), "{name}");
    }
    let built = |change: fn(JwtAuthenticatorBuilder) -> JwtAuthenticatorBuilder| change(builder()).build();
    let rows: [(&str, Result<JwtAuthenticator, ConfigError>); 6] = [
        ("authorization", built(|builder| builder.header("Authorization"))),
        ("cookie", built(|builder| builder.header("Cookie"))),
        ("x y", built(|builder| builder.header("x y"))),
        ("twice", built(|builder| builder.header("X-A").header("x-a"))),
        ("twice", built(|builder| builder.cookie(place()).cookie(place()))),
        ("none", built(JwtAuthenticatorBuilder::without_authorization)),
    ];
    for (part, built) in rows {
        let error = built.unwrap_err().to_string().to_lowercase();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[cfg(feature = "conformance")]
#[tokio::test]
async fn header_fields_and_cookies_keep_the_contract_of_the_trait() {
    use portcullis::conformance::{AuthenticatorFixture, authenticator};

    let at = Instants::new(NOW * 1_000_000_000, 0);
    let in_cookie = |token: &str| with(get("/"), "cookie", &cookie(token));
    let in_header = |token: &str| with(get("/"), IAP, token);
    let bearing = |token: &str| with(get("/"), "authorization", &format!("Bearer {token}"));
    let fixture = AuthenticatorFixture::new(at)
        .good(in_cookie(&good()))
        .good(bearing(&good()))
        .bad(in_cookie(&expired()))
        .bad(bearing(&expired()))
        .absent(get("/"))
        .absent(with(get("/"), "cookie", "session=x"));
    authenticator(&with_cookie(), &fixture).await;
    let fixture = AuthenticatorFixture::new(at).good(in_header(&good())).bad(in_header(&expired())).absent(get("/"));
    authenticator(&with_header(), &fixture).await;
    authenticator(&builder().header(IAP).without_authorization().build().unwrap(), &fixture).await;
}

proptest! {
    #[test]
    fn random_cookies_never_pass(line in "[ -~]{0,200}") {
        let request = with(get("/"), "cookie", &line);
        let outcome = with_cookie().authenticate_now(&RequestHead::of(&request), Instants::new(NOW * 1_000_000_000, 0));
        prop_assert!(matches!(outcome, Now::Known(Outcome::Absent | Outcome::RefusedIfNeeded(_))));
    }
}

/// A token that was remembered takes a shorter way: it must refuse, and pass, exactly what the long one does.
#[test]
fn a_remembered_token_passes_where_an_unknown_one_does() {
    let token = good();
    let bearer = format!("Bearer {token}");
    let at = Instants::new(NOW * 1_000_000_000, 0);
    let rows: [(&str, Vec<(&str, String)>); 14] = [
        ("plain", vec![("authorization", bearer.clone())]),
        ("lower case", vec![("authorization", format!("bearer {token}"))]),
        ("spaces", vec![("authorization", format!("BEARER   {token}"))]),
        ("a tab", vec![("authorization", format!("Bearer\t{token}"))]),
        ("a space and a tab", vec![("authorization", format!("Bearer  \t{token}"))]),
        ("a space behind", vec![("authorization", format!("{bearer} "))]),
        ("padding", vec![("authorization", format!("{bearer}="))]),
        ("cut", vec![("authorization", bearer.split_at(bearer.len() - 1).0.to_owned())]),
        ("another scheme", vec![("authorization", format!("Basic {token}"))]),
        ("a longer scheme", vec![("authorization", format!("XBearer {token}"))]),
        ("twice", vec![("authorization", bearer.clone()), ("authorization", bearer.clone())]),
        ("and another", vec![("authorization", bearer.clone()), ("authorization", "Basic YWJj".to_owned())]),
        ("also in a field", vec![("authorization", bearer.clone()), (IAP, token.clone())]),
        ("also in a cookie", vec![("authorization", bearer), ("cookie", format!("{COOKIE}={token}"))]),
    ];
    let builders =
        [("Authorization", builder()), ("a field", builder().header(IAP)), ("a cookie", builder().cookie(place()))];
    for (places, builder) in builders {
        let (cached, plain) = (builder.clone().build().unwrap(), builder.without_cache().build().unwrap());
        cached.verify(&token, at).unwrap();
        for (name, fields) in &rows {
            let request = fields.iter().fold(get("/"), |mut request, (field, value)| {
                let name = http::HeaderName::from_bytes(field.as_bytes()).unwrap();
                request.headers_mut().append(name, value.parse().unwrap());
                request
            });
            let seen = |jwt: &JwtAuthenticator| match jwt.authenticate_now(&RequestHead::of(&request), at) {
                Now::Known(Outcome::Verified(identity)) => format!("{identity:?}"),
                Now::Known(Outcome::Refused(refusal)) => format!("{refusal:?}"),
                answer => format!("{answer:?}"),
            };
            assert_eq!(seen(&cached), seen(&plain), "{name}, {places}");
        }
    }
}
