//! Services that know their users by cookies, header fields, certificates or authenticators of their own.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, Method, Request};
use portcullis::{
    Challenge, Connection, Principal, PrincipalKind, RejectionKind,
    authn::{Outcome, authenticate_fn},
    client_cert::ClientCertAuthenticator,
    guard::{authenticated, require, role},
    jwt::{CookiePlace, CsrfRules, JwtAuthenticator},
    stack::Stack,
    testing::{
        TestAuthority, TestIssuer,
        attack::{AttackReport, Caller, Profile, attack_suite},
    },
    tls::TlsLayer,
};
use tower::{ServiceExt, service_fn};

const COOKIE: &str = "__Host-session";
const PAGES: &str = "https://app.example.com";

/// What the service does wrong, if anything.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hole {
    None,
    /// It asks nobody where a request comes from.
    Everywhere,
    /// It believes that a request without a word of it is its own page's.
    SaysNothing,
    /// It looks for its name in the origin.
    Contains,
    /// It looks whether the origin begins with its own.
    Begins,
    /// It takes `null` for its own.
    Null,
    /// It takes pages of the same site for its own.
    SameSite,
    /// It looks at unsafe methods alone.
    WebSocket,
    /// It lets pages of other sites read what its users may see.
    Shares,
    /// It lets all of its users do everything.
    Roles,
    /// It takes the last of two cookies.
    Last,
}

/// Takes what it is careless in for a request of its own page.
fn careless(hole: Hole, request: &mut Request<Body>) {
    let field = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (origin, site) = (field(request.headers(), "origin"), field(request.headers(), "sec-fetch-site"));
    let is_own = match hole {
        Hole::None | Hole::Shares | Hole::Roles => false,
        Hole::Everywhere => true,
        Hole::SaysNothing => origin.is_empty() && site.is_empty(),
        Hole::Contains => origin.contains("app.example.com"),
        Hole::Begins => origin.starts_with(PAGES),
        Hole::Null => origin == "null",
        Hole::SameSite => site == "same-site",
        Hole::WebSocket => request.method() == Method::GET,
        Hole::Last => {
            let cookies: Vec<_> = request.headers().get_all("cookie").into_iter().cloned().collect();
            if cookies.len() > 1 {
                request.headers_mut().insert("cookie", cookies.last().unwrap().clone());
            }
            false
        }
    };
    if is_own {
        request.headers_mut().insert("origin", PAGES.parse().unwrap());
        request.headers_mut().remove("sec-fetch-site");
    }
}

async fn run(hole: Hole) -> AttackReport {
    let issuer = TestIssuer::new("shop");
    let cookie = CookiePlace::new(COOKIE, CsrfRules::origins([PAGES]).unwrap()).unwrap();
    let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).cookie(cookie).without_authorization();
    let shopper = || match hole {
        Hole::Roles => require(authenticated()),
        _ => require(role("shopper").unwrap()),
    };
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(jwt.build().unwrap());
    let stack = ["GET /cart", "POST /cart", "DELETE /cart", "GET /feed"]
        .into_iter()
        .fold(stack, |stack, line| stack.route(line, shopper()));
    let app = stack.build().unwrap().protect(
        Router::new()
            .route("/cart", get(async || "a winch").post(async || "one more").delete(async || StatusCode::NO_CONTENT))
            .route("/feed", get(super::feed)),
    );
    let service = service_fn(move |mut request: Request<Body>| {
        careless(hole, &mut request);
        let (app, origin) = (app.clone(), request.headers().get("origin").cloned());
        async move {
            let mut response = app.oneshot(request).await.unwrap();
            if let Some(origin) = origin.filter(|_| hole == Hole::Shares) {
                response.headers_mut().insert("access-control-allow-origin", origin);
                response.headers_mut().insert("access-control-allow-credentials", "true".parse().unwrap());
            }
            Ok::<Response, Infallible>(response)
        }
    });
    let of = |subject: &str, role: &str| Caller::cookie(COOKIE, issuer.token().subject(subject).role(role));
    let profile = Profile::new()
        .route("GET /cart", ["shopper"])
        .unwrap()
        .route("POST /cart", ["shopper"])
        .unwrap()
        .route("DELETE /cart", ["shopper"])
        .unwrap()
        .websocket("GET /feed", ["shopper"])
        .unwrap()
        .role("shopper", of("carol", "shopper"))
        .role("guest", of("mallory", "guest"))
        .origin(PAGES)
        .unwrap();
    attack_suite(service, profile).run::<Body, _>().await
}

#[tokio::test]
async fn what_is_done_wrong_with_cookies_is_found() {
    let report = run(Hole::None).await;
    assert!(report.is_clean(), "{report}");
    for attack in ["token-expired", "credential-twice", "credential-joined", "role-crossing", "csrf-no-origin"] {
        assert!(report.sent().any(|(sent, count)| sent == attack && count > 0), "{attack}: {report}");
    }
    for (hole, attack, route, sent) in [
        (Hole::Everywhere, "csrf-origin", "POST /cart", "another Origin"),
        (Hole::Everywhere, "csrf-origin", "DELETE /cart", "Sec-Fetch-Site: cross-site"),
        (Hole::Everywhere, "csrf-no-origin", "POST /cart", "neither Origin nor Sec-Fetch-Site"),
        (Hole::Everywhere, "csrf-websocket", "GET /feed", "another Origin, Sec-Fetch-Site: cross-site"),
        (Hole::SaysNothing, "csrf-no-origin", "DELETE /cart", "neither Origin nor Sec-Fetch-Site"),
        (Hole::SaysNothing, "csrf-websocket", "GET /feed", "neither Origin nor Sec-Fetch-Site"),
        (Hole::Contains, "csrf-origin", "POST /cart", "Origin: https://mallory-app.example.com"),
        (Hole::Begins, "csrf-origin", "POST /cart", "Origin: https://app.example.com.mallory.invalid"),
        (Hole::Null, "csrf-origin", "POST /cart", "Origin: null"),
        (Hole::SameSite, "csrf-origin", "POST /cart", "Sec-Fetch-Site: same-site"),
        (Hole::WebSocket, "csrf-websocket", "GET /feed", "another Origin"),
        (Hole::Shares, "cors-origin", "GET /cart", "a foreign Origin"),
        (Hole::Roles, "role-crossing", "POST /cart", "somebody of the role guest"),
        (Hole::Last, "credential-twice", "GET /cart", "good, good"),
    ] {
        let report = run(hole).await;
        let is_it = |finding: &&portcullis::testing::attack::Finding| {
            finding.attack() == attack && finding.route() == route && finding.sent() == sent
        };
        assert!(report.findings().iter().any(|finding| is_it(&finding)), "{hole:?}, {sent}: {report}");
        // A hole of one kind is not told as one of another.
        let family = attack.split('-').next().unwrap();
        let others = report.findings().iter().filter(|finding| !finding.attack().starts_with(family));
        assert!(hole == Hole::Roles || others.count() == 0, "{hole:?}: {report}");
    }
}

/// A profile that shows no cookie proves nothing of a service that takes nothing else.
#[tokio::test]
async fn tokens_in_the_wrong_place_are_not_clean() {
    let issuer = TestIssuer::new("shop");
    let cookie = CookiePlace::new(COOKIE, CsrfRules::same_origin()).unwrap();
    let jwt = JwtAuthenticator::builder().issuer(issuer.access_tokens()).cookie(cookie).without_authorization();
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(jwt.build().unwrap());
    let stack = stack.route("POST /cart", require(role("shopper").unwrap())).build().unwrap();
    let app = stack.protect(Router::new().route("/cart", post(async || "one more")));
    let token = || issuer.token().role("shopper");
    let (bearer, cookie) = (Caller::from(token()), Caller::cookie(COOKIE, token()));
    let elsewhere = Caller::cookie("session", token());
    for (name, who, is_clean) in [("bearer", bearer, false), ("elsewhere", elsewhere, false), ("cookie", cookie, true)]
    {
        let profile = Profile::new().route("POST /cart", ["shopper"]).unwrap().role("shopper", who);
        let report = attack_suite(app.clone(), profile).run::<Body, _>().await;
        assert_eq!(report.is_clean(), is_clean, "{name}: {report}");
    }
}

/// Programs with certificates: the role that may, and one that may not.
#[tokio::test]
async fn whoever_has_a_certificate_is_attacked_as_well() {
    let authority = TestAuthority::new("services");
    let has = |name: &str| {
        let certificate = authority.client([name]).client_certificate();
        Caller::new(move |request| {
            let connection = request.extensions_mut().remove::<Connection>().unwrap();
            request.extensions_mut().insert(connection.with_client_certificate(certificate.clone()));
        })
    };
    for is_open in [false, true] {
        let trusted = ClientCertAuthenticator::by_dns_name().allow(["billing.internal", "mail.internal"]).unwrap();
        let trusted = trusted.roles("billing.internal", ["clerk"]).unwrap().build().unwrap();
        let clerk = if is_open { require(authenticated()) } else { require(role("clerk").unwrap()) };
        let stack = Stack::builder().tls(TlsLayer::require()).authenticate(trusted);
        let stack = stack.route("GET /orders", clerk).build().unwrap();
        let app = stack.protect(Router::new().route("/orders", get(async || "orders")));
        let profile = Profile::new().route("GET /orders", ["billing"]).unwrap();
        let profile = profile.role("billing", has("billing.internal")).role("mail", has("mail.internal"));
        let report = attack_suite(app, profile).run::<Body, _>().await;
        let crosses = report.findings().iter().any(|finding| finding.attack() == "role-crossing");
        assert_eq!((report.is_clean(), crosses), (!is_open, is_open), "{report}");
        assert!(report.not_sent().any(|attack| attack == "token-expired"), "no tokens: {report}");
    }
}

/// Tickets of an authenticator of the service's own, in a header field, and forged tokens in one.
#[tokio::test]
async fn a_field_of_its_own_is_attacked_as_well() {
    for hole in [false, true] {
        let tickets = authenticate_fn(Challenge::new("Ticket", "shop").unwrap(), move |head, _| {
            let tickets: Vec<_> = head.headers().get_all("x-ticket").iter().collect();
            let named = |name: &str| {
                let who = Principal::builder(PrincipalKind::Service, "tickets", name, "ticket");
                Outcome::verified(if name == "t-billing" { who.roles(["clerk"]).build() } else { who.build() })
            };
            match tickets.as_slice() {
                [] => Outcome::Absent,
                [ticket] if *ticket == "t-billing" => named("t-billing"),
                [ticket] if *ticket == "t-mail" => named("t-mail"),
                _ if hole => named("t-billing"),
                _ => Outcome::Refused(portcullis::Rejection::new(RejectionKind::InvalidCredential, "ticket")),
            }
        });
        let issuer = TestIssuer::new("shop");
        let stack = Stack::builder().tls(TlsLayer::require()).authenticate(tickets);
        let stack = stack.route("GET /orders", require(role("clerk").unwrap())).build().unwrap();
        let app = stack.protect(Router::new().route("/orders", get(async || "orders")));
        let has = |ticket: &'static str| {
            Caller::new(move |request| {
                request.headers_mut().append("x-ticket", ticket.parse().unwrap());
            })
        };
        let profile = Profile::new().route("GET /orders", ["billing"]).unwrap();
        let profile = profile.role("billing", has("t-billing")).role("mail", has("t-mail"));
        // A token, and every forgery of it, where the ticket is: whoever takes any is careless.
        let profile = match hole {
            true => profile.route("GET /orders", ["token"]).unwrap().role(
                "token",
                Caller::token(issuer.token(), |request, token| {
                    request.headers_mut().append("x-ticket", token.parse().unwrap());
                }),
            ),
            false => profile,
        };
        let report = attack_suite(app, profile).run::<Body, _>().await;
        let forged = report.findings().iter().any(|finding| finding.attack() == "token-expired");
        assert_eq!((report.is_clean(), forged), (!hole, hole), "{report}");
    }
}

/// No credential is shown, whatever it is in.
#[tokio::test]
async fn a_cookie_that_is_shown_is_a_leak() {
    let issuer = TestIssuer::new("shop");
    let shows = service_fn(async |request: Request<Body>| {
        let cookie = request.headers().get("cookie").map(|value| value.to_str().unwrap().to_owned());
        let refusal = (StatusCode::UNAUTHORIZED, [("www-authenticate", "Cookie")], cookie.unwrap_or_default());
        Ok::<Response, Infallible>(refusal.into_response())
    });
    let profile = Profile::new().route("GET /cart", ["shopper"]).unwrap();
    let profile = profile.role("shopper", Caller::cookie(COOKIE, issuer.token().role("shopper")));
    assert!(!format!("{profile:?}").contains("eyJ"));
    let report = attack_suite(shows, profile).run::<Body, _>().await;
    assert!(report.findings().iter().any(|finding| finding.attack() == "leak-body"), "{report}");
}
