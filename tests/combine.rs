//! `one_of` takes exactly one credential, `both` needs two: with keys in one place and tokens in another.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use portcullis::{
    Challenge, Challenges, Instants, Now, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead,
    SecurityContext, Slot,
    authn::{Authenticator, AuthnLayer, Both, Identity, Outcome, authenticate_fn, both, one_of},
};
use support::{NOW, Probe, get, send, text, with};
use tower::{Layer, service_fn};

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

/// Takes `<header>: good-<scheme>` as the user `<scheme>`, and refuses every other value of that field.
#[derive(Clone, Debug)]
struct ByHeader {
    name: &'static str,
    scheme: &'static str,
    /// Answers in `authenticate` only.
    waits: bool,
    asked: Arc<AtomicUsize>,
}

impl ByHeader {
    fn new(name: &'static str, scheme: &'static str) -> Self {
        Self { name, scheme, waits: false, asked: Arc::default() }
    }

    fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }

    fn answer(&self, head: &RequestHead<'_>) -> Outcome {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match head.single_header(&HeaderName::from_static(self.name)) {
            Ok(None) => Outcome::Absent,
            Ok(Some(value)) if value.strip_prefix("good-") == Some(self.scheme) => {
                Outcome::verified(Principal::builder(PrincipalKind::User, "test", self.scheme, "test").build())
            }
            Ok(Some(_)) => Rejection::new(RejectionKind::InvalidCredential, "bad").into(),
            Err(rejection) => rejection.into(),
        }
    }
}

#[async_trait]
impl Authenticator for ByHeader {
    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::new(self.scheme, "test").unwrap()]
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![HeaderName::from_static(self.name)]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, _: Instants) -> Now<Outcome> {
        if self.waits { Now::Wait } else { Now::Known(self.answer(head)) }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, _: Instants) -> Outcome {
        tokio::task::yield_now().await;
        self.answer(head)
    }
}

fn key() -> ByHeader {
    ByHeader::new("x-key", "Key")
}

fn token() -> ByHeader {
    ByHeader::new("x-token", "Token")
}

/// Every way in which the two can answer: at once, one of them later, both later.
fn pairs() -> [(&'static str, ByHeader, ByHeader); 4] {
    [
        ("both at once", key(), token()),
        ("the first waits", key().waiting(), token()),
        ("the second waits", key(), token().waiting()),
        ("both wait", key().waiting(), token().waiting()),
    ]
}

async fn status_and_body(authenticator: impl Authenticator, request: Request<()>) -> (u16, String) {
    let service = AuthnLayer::new(authenticator).dangerous_plain_http().layer(Probe::default());
    let response = send(&service, request).await;
    (response.status().as_u16(), text(response).await)
}

fn keyed(value: &str) -> Request<()> {
    with(get("/"), "x-key", value)
}

fn tokened(request: Request<()>, value: &str) -> Request<()> {
    with(request, "x-token", value)
}

#[tokio::test]
async fn one_of_takes_exactly_one() {
    for (how, key, token) in pairs() {
        for (name, request, expected) in [
            ("none", get("/"), (401, "")),
            ("the first", keyed("good-Key"), (200, "Key")),
            ("the second", tokened(get("/"), "good-Token"), (200, "Token")),
            ("two good ones", tokened(keyed("good-Key"), "good-Token"), (400, "")),
            ("the first bad", keyed("bad"), (401, "")),
            ("the second bad", tokened(get("/"), "bad"), (401, "")),
            ("the first bad, the second good", tokened(keyed("bad"), "good-Token"), (401, "")),
            ("the first good, the second bad", tokened(keyed("good-Key"), "bad"), (401, "")),
            ("the first twice", with(keyed("good-Key"), "x-key", "good-Key"), (400, "")),
        ] {
            let answer = status_and_body(one_of((key.clone(), token.clone())), request).await;
            assert_eq!((answer.0, answer.1.as_str()), expected, "{name}, {how}");
        }
    }
}

#[tokio::test]
async fn a_bad_first_credential_ends_the_matter() {
    let (key, token) = (key(), token());
    let either = one_of((key.clone(), token.clone()));
    let request = tokened(keyed("bad"), "good-Token");
    let head = RequestHead::of(&request);
    for outcome in [either.authenticate(&head, AT).await, known(either.authenticate_now(&head, AT))] {
        assert!(matches!(outcome, Outcome::Refused(refused) if refused.kind() == RejectionKind::InvalidCredential));
    }
    assert_eq!(key.asked.load(Ordering::SeqCst), 2);
    assert_eq!(token.asked.load(Ordering::SeqCst), 0, "nobody is asked after a refusal");
}

#[tokio::test]
async fn one_of_keeps_its_order_and_offers_all() {
    let third = authenticate_fn(Challenge::new("Third", "test").unwrap(), |_, _| Outcome::Absent);
    let either = one_of((key(), token(), third));
    let offered: Vec<String> = either.challenges().iter().map(|challenge| challenge.scheme().to_owned()).collect();
    assert_eq!(offered, ["Key", "Token", "Third"]);
    let headers = either.credential_headers();
    assert_eq!(headers, [HeaderName::from_static("x-key"), HeaderName::from_static("x-token"), header::AUTHORIZATION]);

    let service = AuthnLayer::new(either).dangerous_plain_http().layer(Probe::default());
    let response = send(&service, get("/")).await;
    let lines: Vec<&HeaderValue> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
    assert_eq!(lines, [r#"Key realm="test""#, r#"Token realm="test""#, r#"Third realm="test""#]);

    let boxed: Vec<Box<dyn Authenticator>> = vec![Box::new(key()), Box::new(token())];
    assert_eq!(status_and_body(one_of(boxed), tokened(get("/"), "good-Token")).await, (200, "Token".to_owned()));
}

#[tokio::test]
async fn both_needs_two() {
    for (how, key, token) in pairs() {
        for (name, request, expected) in [
            ("none", get("/"), (401, "")),
            ("the application alone", keyed("good-Key"), (401, "")),
            ("the subject alone", tokened(get("/"), "good-Token"), (401, "")),
            ("two good ones: the subject acts", tokened(keyed("good-Key"), "good-Token"), (200, "Token")),
            ("a bad application", tokened(keyed("bad"), "good-Token"), (401, "")),
            ("a bad subject", tokened(keyed("good-Key"), "bad"), (401, "")),
            ("two bad ones", tokened(keyed("bad"), "bad"), (401, "")),
            ("the application twice", with(tokened(keyed("good-Key"), "good-Token"), "x-key", "good-Key"), (400, "")),
        ] {
            let answer = status_and_body(both(key.clone(), token.clone()), request).await;
            assert_eq!((answer.0, answer.1.as_str()), expected, "{name}, {how}");
        }
    }
}

#[tokio::test]
async fn both_fills_the_two_slots() {
    let handler = service_fn(|request: Request<()>| async move {
        let context = SecurityContext::of(request.extensions()).unwrap();
        let name = |slot| context.identity(slot).map_or("-".to_owned(), |principal| principal.subject().to_owned());
        let body = format!("{} for {}", name(Slot::Client), name(Slot::Subject));
        let shown = |headers: &HeaderMap, name: &str| headers[name].is_sensitive();
        assert!(shown(request.headers(), "x-key") && shown(request.headers(), "x-token"), "both are marked");
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    for (how, key, token) in pairs() {
        let service = AuthnLayer::new(both(key, token)).dangerous_plain_http().layer(handler);
        let response = send(&service, tokened(keyed("good-Key"), "good-Token")).await;
        assert_eq!(response.into_body(), "Key for Token", "{how}");
    }
}

#[tokio::test]
async fn both_is_optional_only_as_a_whole() {
    let pair: Both<ByHeader, ByHeader> = both(key(), token());
    let service = AuthnLayer::new(pair).allow_anonymous().dangerous_plain_http().layer(Probe::default());
    for (name, request, status) in [
        ("none", get("/"), 200),
        ("one", keyed("good-Key"), 401),
        ("the other", tokened(get("/"), "good-Token"), 401),
        ("one, bad", keyed("bad"), 401),
    ] {
        assert_eq!(send(&service, request).await.status(), status, "{name}");
    }
}

#[test]
fn both_inside_both_is_refused() {
    let nested = both(key(), both(ByHeader::new("x-app", "App"), token()));
    let request = with(tokened(keyed("good-Key"), "good-Token"), "x-app", "good-App");
    let outcome = known(nested.authenticate_now(&RequestHead::of(&request), AT));
    assert!(matches!(outcome, Outcome::Refused(refused) if refused.kind() == RejectionKind::Misconfigured));
}

#[test]
fn a_missing_half_is_offered_both_schemes() {
    let request = keyed("good-Key");
    let outcome = known(both(key(), token()).authenticate_now(&RequestHead::of(&request), AT));
    let Outcome::Refused(rejection) = outcome else { panic!("not refused") };
    let expected: Challenges = [key(), token()].iter().flat_map(ByHeader::challenges).collect();
    assert_eq!(rejection.challenges(), &expected);
}

/// One that names its field, and says that it looked at no other.
fn leaving(field: &'static str) -> impl Authenticator {
    authenticate_fn(Challenge::new("Own", "test").unwrap(), move |head, _| {
        match head.single_header(&HeaderName::from_static(field)) {
            Ok(Some(_)) => {
                let owner = Principal::builder(PrincipalKind::User, "test", field, "test").build();
                Outcome::Verified(Identity::from(owner).leaving_authorization())
            }
            Ok(None) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        }
    })
}

#[tokio::test]
async fn two_credentials_do_not_excuse_a_third_that_nobody_claims() {
    let bearing = |request| with(request, "authorization", "Bearer somebody.elses.token");
    let two = || with(with(get("/"), "x-app", "good"), "x-own", "good");
    let neither_reads_it = || both(leaving("x-app"), leaving("x-own"));
    assert_eq!(status_and_body(neither_reads_it(), two()).await, (200, "x-own".to_owned()));
    assert_eq!(status_and_body(neither_reads_it(), bearing(two())).await.0, 400);

    let bearer = || {
        authenticate_fn(Challenge::new("Bearer", "test").unwrap(), |head, _| match head.authorization() {
            Ok(Some(_)) => Outcome::verified(Principal::builder(PrincipalKind::User, "test", "bearer", "test").build()),
            Ok(None) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        })
    };
    for (name, expected) in [
        ("the subject reads it", status_and_body(both(leaving("x-app"), bearer()), bearing(two())).await),
        ("the application reads it", status_and_body(both(bearer(), leaving("x-own")), bearing(two())).await),
    ] {
        assert_eq!(expected.0, 200, "{name}");
    }
}

#[tokio::test]
async fn one_credential_does_not_fill_both_slots() {
    for (how, key, token) in pairs() {
        let overlapping = || both(one_of((key.clone(), token.clone())), token.clone());
        let answer = status_and_body(overlapping(), tokened(get("/"), "good-Token")).await;
        assert_eq!(answer.0, 401, "the token alone, {how}");
    }
}

/// Takes `Authorization: Bearer abc` as somebody of this name.
fn bearer_as(kind: PrincipalKind, subject: &'static str, waits: bool) -> impl Authenticator {
    #[derive(Debug)]
    struct Bearer(PrincipalKind, &'static str, bool);
    #[async_trait]
    impl Authenticator for Bearer {
        fn challenges(&self) -> Vec<Challenge> {
            vec![Challenge::new("Bearer", "test").unwrap()]
        }

        fn authenticate_now(&self, head: &RequestHead<'_>, _: Instants) -> Now<Outcome> {
            if self.2 {
                return Now::Wait;
            }
            Now::Known(match head.authorization() {
                Ok(Some(_)) => Outcome::verified(Principal::builder(self.0, "test", self.1, "test").build()),
                Ok(None) => Outcome::Absent,
                Err(rejection) => rejection.into(),
            })
        }

        async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
            known(Self(self.0, self.1, false).authenticate_now(head, at))
        }
    }
    Bearer(kind, subject, waits)
}

/// `Authorization` stands once: who reads it as an application and who reads it as a user read one credential.
#[tokio::test]
async fn one_authorization_does_not_fill_both_slots_under_two_names() {
    let bearing = |request| with(request, "authorization", "Bearer abc");
    let app = |waits| bearer_as(PrincipalKind::Service, "app", waits);
    let alice = |waits| bearer_as(PrincipalKind::User, "alice", waits);
    for (one, other) in [(false, false), (true, false), (false, true), (true, true)] {
        let answer = status_and_body(both(app(one), alice(other)), bearing(get("/"))).await;
        assert_eq!(answer.0, 401, "{one} {other}");
        let choice = one_of((alice(other), leaving("x-own")));
        assert_eq!(status_and_body(both(app(one), choice), bearing(get("/"))).await.0, 401, "{one} {other}");
    }
    // Beside one from elsewhere, which says so, or whose fields say so, it counts.
    let elsewhere = || with(bearing(with(get("/"), "x-own", "good")), "x-key", "good-Key");
    for (name, answer) in [
        ("a field of its own", status_and_body(both(leaving("x-own"), alice(false)), elsewhere()).await),
        ("a field of its own, second", status_and_body(both(app(false), leaving("x-own")), elsewhere()).await),
        ("a field that is named alone", status_and_body(both(key(), alice(false)), elsewhere()).await),
        ("the same, second", status_and_body(both(app(false), key()), elsewhere()).await),
    ] {
        assert_eq!(answer.0, 200, "{name}");
    }
}

#[tokio::test]
async fn every_line_of_a_credential_field_is_marked() {
    // HTTP/2 clients send one Cookie line for each cookie (RFC 9113 §8.2.3).
    struct Cookie;
    impl std::fmt::Debug for Cookie {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cookie")
        }
    }
    #[async_trait]
    impl Authenticator for Cookie {
        fn challenges(&self) -> Vec<Challenge> {
            vec![Challenge::new("Cookie", "test").unwrap()]
        }

        fn credential_headers(&self) -> Vec<HeaderName> {
            vec![header::COOKIE]
        }

        async fn authenticate(&self, _: &RequestHead<'_>, _: Instants) -> Outcome {
            Outcome::verified(Principal::builder(PrincipalKind::User, "test", "alice", "cookie").build())
        }
    }
    let handler = service_fn(|request: Request<()>| async move {
        Ok::<_, std::convert::Infallible>(http::Response::new(format!("{request:?}")))
    });
    let service = AuthnLayer::new(Cookie).dangerous_plain_http().layer(handler);
    let request = with(with(get("/"), "cookie", "theme=dark"), "cookie", "session=hunter2");
    let shown = send(&service, request).await.into_body();
    assert!(shown.contains("cookie") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn an_authenticator_that_offers_nothing_is_a_mistake() {
    let nobody: Vec<Box<dyn Authenticator>> = Vec::new();
    let probe = Probe::default();
    let app = AuthnLayer::new(one_of(nobody)).allow_anonymous().dangerous_plain_http().layer(probe.clone());
    let response = send(&app, get("/")).await;
    assert_eq!((response.status().as_u16(), probe.seen.calls()), (500, 0));
}

#[track_caller]
fn known(answer: Now<Outcome>) -> Outcome {
    match answer {
        Now::Known(outcome) => outcome,
        Now::Wait => panic!("the answer should be known"),
    }
}

/// A good credential in a field of its own does not excuse an `Authorization` that nobody claims.
#[tokio::test]
async fn a_second_credential_that_nobody_claims_is_refused() {
    let own_field = authenticate_fn(Challenge::new("Own", "test").unwrap(), |head, _| {
        match head.single_header(&HeaderName::from_static("x-own")) {
            Ok(Some(_)) => {
                let alice = Principal::builder(PrincipalKind::User, "test", "alice", "test").build();
                Outcome::Verified(Identity::from(alice).leaving_authorization())
            }
            Ok(None) => Outcome::Absent,
            Err(rejection) => rejection.into(),
        }
    });
    let probe = Probe::default();
    let app = AuthnLayer::new(own_field).dangerous_plain_http().layer(probe.clone());
    assert_eq!(send(&app, with(get("/"), "x-own", "good")).await.status(), 200);
    let request = with(with(get("/"), "x-own", "good"), "authorization", "Bearer somebody.elses.token");
    assert_eq!(send(&app, request).await.status(), 400);
    assert_eq!(probe.seen.calls(), 1);
}

/// RFC 6750 §3.1: who sent a Bearer token that nobody takes learns that it is the token, and who sent a malformed one that it is
/// the request; who sent none, or something else, is only asked.
#[tokio::test]
async fn an_unclaimed_token_is_an_invalid_one() {
    let offering = |schemes: &[&str]| {
        let offers = schemes.iter().map(|scheme| -> Box<dyn Authenticator> {
            Box::new(authenticate_fn(Challenge::new(scheme, "test").unwrap(), |_, _| Outcome::Absent))
        });
        AuthnLayer::new(one_of(offers.collect::<Vec<_>>())).dangerous_plain_http().layer(Probe::default())
    };
    const BEARER: &str = r#"Bearer realm="test""#;
    const DPOP: &str = r#"DPoP realm="test""#;
    const OWN: &str = r#"Own realm="test""#;
    const BAD_BEARER: &str = r#"Bearer realm="test", error="invalid_token""#;
    const BAD_DPOP: &str = r#"DPoP realm="test", error="invalid_token""#;
    const MALFORMED: &str = r#"Bearer realm="test", error="invalid_request""#;
    const MALFORMED_DPOP: &str = r#"DPoP realm="test", error="invalid_request""#;
    /// What is offered, what came, and what is told.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], u16, &'a [&'a str]);
    let rows: [Row<'_>; 20] = [
        (&["Bearer"], &[], 401, &[BEARER]),
        (&["Bearer"], &["Bearer abc"], 401, &[BAD_BEARER]),
        (&["Bearer"], &["bEARER abc"], 401, &[BAD_BEARER]),
        (&["Bearer"], &["Basic YTpi"], 401, &[BEARER]),
        (&["Bearer"], &["DPoP abc"], 401, &[BEARER]),
        (&["Bearer"], &["Bearers abc"], 401, &[BEARER]),
        (&["Bearer", "Own"], &["Own abc"], 401, &[BEARER, OWN]),
        (&["Bearer", "Own"], &["Bearer abc"], 401, &[BAD_BEARER, OWN]),
        (&["Bearer", "DPoP"], &["DPoP abc"], 401, &[BEARER, BAD_DPOP]),
        (&["Bearer", "DPoP"], &["Bearer abc"], 401, &[BAD_BEARER, DPOP]),
        (&["Own"], &["Bearer abc"], 401, &[OWN]),
        (&["Bearer"], &["Bearer"], 400, &[MALFORMED]),
        (&["Bearer"], &["Bearer a b"], 400, &[MALFORMED]),
        (&["Bearer"], &["abc"], 400, &[MALFORMED]),
        (&["Bearer"], &["Bearer abc", "Bearer abc"], 400, &[MALFORMED]),
        (&["Bearer"], &["Bearer abc", "Basic YTpi"], 400, &[MALFORMED]),
        (&["Bearer"], &["Digest username=\"a\""], 400, &[]),
        (&["Bearer", "Own"], &["Own a b"], 400, &[]),
        (&["Bearer", "DPoP", "Own"], &["DPoP a b"], 400, &[MALFORMED, MALFORMED_DPOP]),
        (&["Own"], &["Bearer"], 400, &[]),
    ];
    for (schemes, values, status, challenges) in rows {
        let request = values.iter().fold(get("/"), |request, value| with(request, "authorization", value));
        let response = send(&offering(schemes), request).await;
        assert_eq!(response.status(), status, "{schemes:?} {values:?}");
        let told: Vec<_> = response.headers().get_all("www-authenticate").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(told, challenges.iter().map(|it| it.as_bytes()).collect::<Vec<_>>(), "{schemes:?} {values:?}");
    }
}

/// Takes `good` in its field, for its slot; what is sent by itself is ambient. The field ends here, and the response names it.
fn half(field: &'static str, slot: Slot, by_itself: bool) -> Box<dyn Authenticator> {
    let challenge = Challenge::new("Half", field).unwrap();
    let challenges: Challenges = [challenge.clone()].into_iter().collect();
    Box::new(authenticate_fn(challenge, move |head, _| {
        let name = HeaderName::from_static(field);
        let rejection = match head.single_header(&name) {
            Ok(None) => return Outcome::Absent,
            Ok(Some("good")) => {
                let owner = Principal::builder(PrincipalKind::User, "test", field, "test").build();
                let identity = match slot {
                    Slot::Subject => Identity::from(owner),
                    Slot::Client => Identity::of_client(owner),
                };
                let answer = (HeaderName::from_static("x-answer"), HeaderValue::from_static(field));
                let identity = identity.stripping(name).answering(answer.0, answer.1);
                return Outcome::Verified(if by_itself { identity.ambient() } else { identity });
            }
            Ok(Some(_)) => Rejection::new(RejectionKind::InvalidCredential, "bad").with_challenges(challenges.clone()),
            Err(rejection) => rejection,
        };
        if by_itself { Outcome::RefusedIfNeeded(rejection) } else { rejection.into() }
    }))
}

const FIELDS: [&str; 5] = ["x-certificate", "x-app", "x-cookie", "x-session", "x-token"];

fn half_named(field: &'static str) -> Box<dyn Authenticator> {
    let slot = if matches!(field, "x-certificate" | "x-app") { Slot::Client } else { Slot::Subject };
    half(field, slot, matches!(field, "x-certificate" | "x-cookie" | "x-session"))
}

/// All orders of these.
fn orders(of: &[&'static str]) -> Vec<Vec<&'static str>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let first = |first: &&'static str| {
        let others: Vec<&'static str> = of.iter().copied().filter(|other| other != first).collect();
        let begin = *first;
        orders(&others).into_iter().map(move |order| [vec![begin], order].concat())
    };
    of.iter().flat_map(first).collect()
}

/// Status, who acts by which application, which credentials the handler sees, and what is answered.
async fn told(layer: &AuthnLayer, request: Request<()>) -> (u16, String) {
    let handler = service_fn(|request: Request<()>| async move {
        let context = SecurityContext::of(request.extensions()).unwrap();
        let name = |slot| context.identity(slot).map_or("-".to_owned(), |principal| principal.subject().to_owned());
        let left = FIELDS.into_iter().filter(|field| request.headers().contains_key(*field));
        let left = left.fold(String::new(), |left, field| format!("{left}, {field} is left"));
        let body = format!("{} for {}{left}", name(Slot::Client), name(Slot::Subject));
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    let response = send(&layer.layer(handler), request).await;
    let answer = response.headers().get("x-answer").map_or("-", |value| value.to_str().unwrap()).to_owned();
    (response.status().as_u16(), format!("{} ({answer})", response.into_body()))
}

#[tokio::test]
async fn a_cookie_takes_no_application_away_in_any_order() {
    for (client, others) in [("x-certificate", "x-app"), ("x-app", "x-certificate")] {
        for (sent, status, expected) in [
            (vec![("C", "good"), ("x-token", "good")], 200, "C for x-token (x-token)"),
            (
                vec![("C", "good"), ("x-cookie", "bad"), ("x-token", "good")],
                200,
                "C for x-token, x-cookie is left (x-token)",
            ),
            (
                vec![("C", "good"), ("x-cookie", "good"), ("x-token", "good")],
                200,
                "C for x-token, x-cookie is left (x-token)",
            ),
            (vec![("C", "good"), ("x-cookie", "good")], 200, "C for x-cookie (x-cookie)"),
            (vec![("C", "good"), ("x-cookie", "bad")], 200, "C for -, x-cookie is left (C)"),
            (
                vec![("C", "good"), ("x-cookie", "good"), ("x-session", "bad")],
                200,
                "C for -, x-cookie is left, x-session is left (C)",
            ),
            (vec![("C", "good"), ("x-cookie", "good"), ("x-session", "good")], 400, " (-)"),
            (
                vec![("C", "good"), ("x-cookie", "good"), ("x-session", "good"), ("x-token", "good")],
                200,
                "C for x-token, x-cookie is left, x-session is left (x-token)",
            ),
            (vec![("C", "good"), ("x-cookie", "good"), ("x-token", "bad")], 401, " (-)"),
            (vec![("C", "good")], 200, "C for - (C)"),
            (vec![("x-cookie", "bad"), ("x-token", "good")], 200, "- for x-token, x-cookie is left (x-token)"),
            (vec![("x-cookie", "bad"), ("x-session", "good")], 200, "- for -, x-cookie is left, x-session is left (-)"),
        ] {
            let expected = expected.replace('C', client);
            for order in orders(&[client, "x-cookie", "x-session", "x-token"]) {
                let authenticators: Vec<_> = order.iter().copied().map(half_named).collect();
                let layer = AuthnLayer::new(one_of(authenticators)).allow_anonymous().dangerous_plain_http();
                let request = sent.iter().fold(get("/"), |request, (field, value)| {
                    with(request, if *field == "C" { client } else { field }, value)
                });
                assert_eq!(told(&layer, request).await, (status, expected.clone()), "{sent:?} in the order {order:?}");
            }
        }
        // Of two applications the one that was sent on purpose.
        for order in orders(&[client, others, "x-cookie", "x-token"]) {
            let layer = AuthnLayer::new(one_of(order.iter().copied().map(half_named).collect::<Vec<_>>()));
            let request = with(with(with(get("/"), client, "good"), others, "good"), "x-cookie", "good");
            let expected = (200, "x-app for x-cookie, x-certificate is left (x-cookie)".to_owned());
            assert_eq!(told(&layer.dangerous_plain_http(), request).await, expected, "{order:?}");
        }
    }
}

/// Where somebody has to act, a bad cookie is why nobody does.
#[tokio::test]
async fn an_application_with_a_bad_cookie_is_refused_for_the_cookie() {
    for order in orders(&["x-certificate", "x-cookie", "x-token"]) {
        let layer = AuthnLayer::new(one_of(order.iter().copied().map(half_named).collect::<Vec<_>>()));
        let service = layer.dangerous_plain_http().layer(Probe::default());
        let alone = || with(get("/"), "x-certificate", "good");
        for (request, challenges) in [(with(alone(), "x-cookie", "bad"), vec!["x-cookie"]), (alone(), order.clone())] {
            let response = send(&service, request).await;
            let offered: Vec<HeaderValue> =
                response.headers().get_all(header::WWW_AUTHENTICATE).iter().cloned().collect();
            let expected: Vec<String> = challenges.iter().map(|realm| format!(r#"Half realm="{realm}""#)).collect();
            assert_eq!(response.status(), 401);
            assert_eq!(offered, expected, "{order:?}");
        }
    }
}

/// A pair that `both` asked for stays one: beside a token it is ignored as a whole, in either order.
#[tokio::test]
async fn a_pair_that_came_by_itself_is_ignored_as_a_whole() {
    let pair = || -> Box<dyn Authenticator> { Box::new(both(half_named("x-certificate"), half_named("x-cookie"))) };
    for authenticators in [vec![pair(), half_named("x-token")], vec![half_named("x-token"), pair()]] {
        let layer = AuthnLayer::new(one_of(authenticators)).dangerous_plain_http();
        let request = with(with(get("/"), "x-certificate", "good"), "x-cookie", "good");
        assert_eq!(told(&layer, request).await, (200, "x-certificate for x-cookie (x-cookie)".to_owned()));
        let request = with(with(with(get("/"), "x-certificate", "good"), "x-cookie", "good"), "x-token", "good");
        let expected = "- for x-token, x-certificate is left, x-cookie is left (x-token)";
        assert_eq!(told(&layer, request).await, (200, expected.to_owned()));
    }
}

/// What was decided about the application at once is not asked twice, and a refusal is the last word.
#[tokio::test]
async fn both_asks_for_the_subject_last_and_once() {
    for (name, key, key_value, asked) in [
        ("a good key", key(), "good-Key", (1, 1)),
        ("a bad key", key(), "bad", (1, 0)),
        ("a good key that waits", key().waiting(), "good-Key", (1, 1)),
        ("a bad key that waits", key().waiting(), "bad", (1, 0)),
    ] {
        let token = token();
        let request = tokened(keyed(key_value), "good-Token");
        let status = if key_value == "bad" { 401 } else { 200 };
        assert_eq!(status_and_body(both(key.clone(), token.clone()), request).await.0, status, "{name}");
        let counted = (key.asked.load(Ordering::SeqCst), token.asked.load(Ordering::SeqCst));
        assert_eq!(counted, asked, "{name}");
    }
}
