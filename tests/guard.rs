//! The guard through real layers: who passes, who is refused, with which status, and what is asked of whom.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use portcullis::{
    Challenge, Now, Principal, PrincipalKind, Rejection, RejectionKind, SecurityContext,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    guard::{Authorizer, GuardLayer, Requirement, all, any, authenticated, check, not, policy, require, role, scope},
    policy::{AccessQuery, Decision, PolicyBackend, Rbac, Resource, Verdict},
};
use support::{Probe, get, send, text, with};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const ISSUER: &str = "https://id.example.com";

/// Takes `Device NAME`; each name has its roles and scopes. Anonymous requests pass to the guard.
fn authn() -> AuthnLayer {
    let devices = authenticate_fn(Challenge::new("Device", "factory").unwrap(), |head, _| match head.authorization() {
        Ok(Some(credential)) if credential.is_scheme("Device") => {
            let builder = Principal::builder(PrincipalKind::User, ISSUER, credential.token(), "device");
            Outcome::verified(match credential.token() {
                "clerk" => builder.roles(["clerk"]).build(),
                "manager" => builder.roles(["manager"]).scopes(["a"]).build(),
                "scoped" => builder.scopes(["a", "b"]).build(),
                _ => builder.build(),
            })
        }
        Ok(_) => Outcome::Absent,
        Err(rejection) => Outcome::Refused(rejection),
    });
    AuthnLayer::new(devices).allow_anonymous().dangerous_plain_http()
}

fn shop() -> Rbac {
    Rbac::from_toml(
        r#"
        version = "1"
        permissions = ["orders:list", "orders:read", "orders:cancel"]
        [roles.clerk]
        grants = ["orders:list"]
        grants_own = ["orders:read"]
        [roles.manager]
        inherits = ["clerk"]
        grants = ["orders:read", "orders:cancel"]
        "#,
    )
    .unwrap()
}

fn by(name: &str) -> Request<()> {
    if name.is_empty() { get("/orders") } else { with(get("/orders"), "authorization", &format!("Device {name}")) }
}

async fn ask(guard: &GuardLayer, name: &str) -> Response<http_body_util::Full<bytes::Bytes>> {
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let response = send(&authn().layer(guard.layer(probe)), by(name)).await;
    assert_eq!(seen.calls(), usize::from(response.status() == 200), "only what passes reaches the inner service");
    response
}

async fn status(requirement: impl Into<Requirement>, name: &str) -> u16 {
    ask(&require(requirement), name).await.status().as_u16()
}

/// Before an action about which the policy below always waits.
const LATER: &str = "later-";

/// A policy that knows what its actions are called, and answers at once or after waiting.
#[derive(Debug, Default)]
struct Scripted {
    waits: bool,
    asked: AtomicUsize,
}

impl Scripted {
    fn at_once() -> Arc<Self> {
        Arc::default()
    }

    fn waiting() -> Arc<Self> {
        Arc::new(Self { waits: true, ..Self::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer(&self, query: &AccessQuery<'_>) -> Verdict {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match query.action().trim_start_matches(LATER) {
            "yes" => Verdict::allow(),
            "masked" => Verdict::allow().obliging("mask:email"),
            "unknown" => Verdict::cannot_decide("nobody knows"),
            "masked-no" => Verdict::deny("no").obliging("mask:email"),
            "get" if query.method() == Some("GET") => Verdict::allow(),
            _ => Verdict::deny("no"),
        }
    }
}

#[async_trait]
impl PolicyBackend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let waits = self.waits || query.action().starts_with(LATER);
        if waits { Now::Wait } else { Now::Known(self.answer(query)) }
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        self.answer(query)
    }
}

#[tokio::test]
async fn single_requirements() {
    let shop = shop();
    let permission = |name| Requirement::from(shop.permission(name).unwrap());
    let rows: Vec<(&str, Requirement, [u16; 4])> = vec![
        // anonymous, nobody in particular, clerk, manager
        ("authenticated", authenticated(), [401, 200, 200, 200]),
        ("permission", permission("orders:list"), [401, 403, 200, 200]),
        ("permission on own things only", permission("orders:read"), [401, 403, 403, 200]),
        ("permission, owners too", shop.permission("orders:read").unwrap().allow_owners().into(), [401, 403, 200, 200]),
        (
            "owners who own nothing",
            shop.permission("orders:cancel").unwrap().allow_owners().into(),
            [401, 403, 403, 200],
        ),
        ("role of the policy", shop.role("clerk").unwrap().into(), [401, 403, 200, 200]),
        ("role by name", role("clerk").unwrap(), [401, 403, 200, 403]),
        ("scope", scope("a").unwrap(), [401, 403, 403, 200]),
        ("check", check("short", |principal, _| principal.subject().len() < 6), [401, 403, 200, 403]),
        ("check of the head", check("orders", |_, head| head.path() == "/orders"), [401, 200, 200, 200]),
        ("nobody is not not a clerk", not(role("clerk").unwrap()), [401, 200, 403, 200]),
        ("not authenticated", not(authenticated()), [401, 403, 403, 403]),
        ("not not", not(not(role("clerk").unwrap())), [401, 403, 200, 403]),
    ];
    for (name, requirement, expected) in rows {
        let guard = require(requirement);
        for (who, expected) in ["", "nobody", "clerk", "manager"].into_iter().zip(expected) {
            assert_eq!(ask(&guard, who).await.status().as_u16(), expected, "{name} for {who:?}");
        }
    }
}

#[tokio::test]
async fn a_check_that_reaches_for_the_context_does_not_wait_for_itself() {
    let reaches = check("context", |_, head| head.extension::<SecurityContext>().and_then(|c| c.principal()).is_none());
    assert_eq!(status(reaches, "clerk").await, 200);
}

#[tokio::test]
async fn an_anonymous_request_is_asked_for_credentials_whatever_the_requirement() {
    for requirement in [not(role("x").unwrap()), any((not(authenticated()), check("always", |_, _| true)))] {
        let response = ask(&require(requirement), "").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], r#"Device realm="factory""#);
    }
}

#[tokio::test]
async fn combinations_of_allow_deny_and_cannot_decide() {
    let part = |name: &str| policy(name).unwrap();
    for backend in [Scripted::at_once(), Scripted::waiting()] {
        let waits = backend.waits;
        for (a, b, and, or) in [
            ("yes", "yes", 200, 200),
            ("yes", "no", 403, 200),
            ("yes", "unknown", 503, 200),
            ("no", "no", 403, 403),
            ("no", "unknown", 403, 503),
            ("unknown", "unknown", 503, 503),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let guard = |requirement| require(requirement).with_policy(Arc::clone(&backend));
                let both = ask(&guard(all((part(a), part(b)))), "clerk").await;
                assert_eq!(both.status().as_u16(), and, "all({a}, {b}), waits: {waits}");
                let either = ask(&guard(any((part(a), part(b)))), "clerk").await;
                assert_eq!(either.status().as_u16(), or, "any({a}, {b}), waits: {waits}");
            }
        }
        for (a, negated) in [("yes", 403), ("no", 200), ("unknown", 503)] {
            let guard = require(not(part(a))).with_policy(Arc::clone(&backend));
            assert_eq!(ask(&guard, "clerk").await.status().as_u16(), negated, "not({a}), waits: {waits}");
        }
    }
}

#[tokio::test]
async fn lists_put_together_at_run_time() {
    let roles = ["clerk", "manager"].map(|name| role(name).unwrap());
    assert_eq!(status(Requirement::any_of(roles.clone()).unwrap(), "manager").await, 200);
    assert_eq!(status(Requirement::all_of(roles).unwrap(), "manager").await, 403);
}

#[tokio::test]
async fn missing_scopes_are_named() {
    let scopes = |names: [&str; 2]| Requirement::all_of(names.map(|name| scope(name).unwrap())).unwrap();
    let bearer = |scopes: &str| format!(r#"Bearer realm="api", error="insufficient_scope", scope="{scopes}""#);
    let has = |name: &str| scope(name).unwrap();
    let rows: Vec<(&str, &str, Requirement, Option<String>)> = vec![
        ("one", "clerk", has("a"), Some(bearer("a"))),
        ("one of two", "manager", scopes(["a", "b"]), Some(bearer("a b"))),
        ("alternatives", "clerk", any((has("a"), has("b"))), Some(bearer("a"))),
        ("scope and a role that is held", "clerk", all((has("a"), role("clerk").unwrap())), Some(bearer("a"))),
        ("scope and a role that is not", "clerk", all((has("a"), role("boss").unwrap())), None),
        ("the role first", "clerk", all((role("boss").unwrap(), has("a"))), None),
        ("scope or a role", "clerk", any((has("a"), role("boss").unwrap())), Some(bearer("a"))),
        ("a scope that must not be there", "scoped", not(has("a")), None),
        ("behind two nots", "clerk", not(not(has("a"))), None),
        ("no scope in it", "clerk", role("boss").unwrap(), None),
    ];
    for (name, who, requirement, challenge) in rows {
        let response = ask(&require(requirement), who).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{name}");
        let kind = response.extensions().get::<Rejection>().unwrap().kind();
        let expected = if challenge.is_some() { RejectionKind::InsufficientScope } else { RejectionKind::Forbidden };
        assert_eq!(kind, expected, "{name}");
        let sent = response.headers().get(header::WWW_AUTHENTICATE).map(HeaderValue::as_bytes);
        assert_eq!(sent, challenge.as_ref().map(String::as_bytes), "{name}");
    }
    let guard = require(has("a")).with_realm("orders").unwrap();
    let response = ask(&guard, "clerk").await;
    let challenge = r#"Bearer realm="orders", error="insufficient_scope", scope="a""#;
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], challenge);
    assert!(guard.with_realm("a\"b").is_err());
}

#[tokio::test]
async fn misordered_stacks_stay_shut() {
    let guard = || require(authenticated());
    let inside_out = guard().layer(authn().layer(Probe::default()));
    assert_eq!(send(&inside_out, by("clerk")).await.status(), 500, "authentication inside the guard");
    assert_eq!(send(&guard().layer(Probe::default()), by("clerk")).await.status(), 500, "no authentication");
    let mut forged = by("clerk");
    forged.extensions_mut().insert(Principal::builder(PrincipalKind::User, ISSUER, "clerk", "jwt").build());
    assert_eq!(send(&guard().layer(Probe::default()), forged).await.status(), 500, "somebody else's principal");
    let twice = authn().layer(guard().layer(require(role("clerk").unwrap()).layer(Probe::default())));
    assert_eq!(send(&twice, by("clerk")).await.status(), 200, "guards nest");
    assert_eq!(send(&twice, by("manager")).await.status(), 403, "and each of them decides");
}

#[tokio::test]
async fn a_policy_is_needed_where_one_is_asked() {
    for requirement in [policy("yes").unwrap(), any((role("clerk").unwrap(), policy("yes").unwrap()))] {
        assert_eq!(status(requirement, "clerk").await, 500);
    }
    let inner = require(policy("orders:list").unwrap());
    let outer = require(authenticated()).with_policy(shop());
    let stack = authn().layer(outer.layer(inner.layer(Probe::default())));
    assert_eq!(send(&stack, by("clerk")).await.status(), 200);
    assert_eq!(send(&stack, by("nobody")).await.status(), 403);
    // The inner one counts from where it stands.
    let own = require(policy("yes").unwrap()).with_policy(Scripted::at_once());
    let stack = authn().layer(require(authenticated()).with_policy(shop()).layer(own.layer(Probe::default())));
    assert_eq!(send(&stack, by("nobody")).await.status(), 200);
}

#[tokio::test]
async fn the_policy_hears_of_the_request() {
    for backend in [Scripted::at_once(), Scripted::waiting()] {
        let guard = require(policy("get").unwrap()).with_policy(Arc::clone(&backend));
        assert_eq!(ask(&guard, "clerk").await.status(), 200);
        // HEAD runs GET's handler, so what the policy says of GET holds for it, a denial too.
        let forbidden = require(not(policy("get").unwrap())).with_policy(Arc::clone(&backend));
        for (guard, method, status) in [
            (&guard, Method::HEAD, 200),
            (&forbidden, Method::GET, 403),
            (&forbidden, Method::HEAD, 403),
            (&guard, Method::POST, 403),
        ] {
            let mut request = by("clerk");
            *request.method_mut() = method.clone();
            let service = ServiceBuilder::new().layer(authn()).layer(guard.clone()).service(Probe::default());
            assert_eq!(send(&service, request).await.status(), status, "{method}");
        }
    }
}

#[tokio::test]
async fn a_part_that_waits_is_not_overtaken_by_an_obligation_after_it() {
    // (what is asked first, what then, all, any): an allow whose obligation nobody declared is 500 where it is asked.
    for (first, then, by_all, by_any) in
        [("yes", "masked", 500, 200), ("no", "masked", 403, 500), ("unknown", "masked", 500, 500)]
    {
        for [first, then] in ["", LATER].map(|one| ["", LATER].map(|two| [(one, first), (two, then)])).concat() {
            let asked = |(when, action)| policy(&format!("{when}{action}")).unwrap();
            let parts = || (asked(first), asked(then));
            for (expected, requirement) in [(by_all, all(parts())), (by_any, any(parts()))] {
                let name = requirement.to_string();
                let guard = require(requirement).with_policy(Scripted::at_once());
                assert_eq!(ask(&guard, "clerk").await.status(), expected, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn an_obligation_must_be_declared() {
    for backend in [Scripted::at_once(), Scripted::waiting()] {
        let masked = || require(policy("masked").unwrap()).with_policy(Arc::clone(&backend));
        assert_eq!(ask(&masked(), "clerk").await.status(), 500, "nobody declared it");
        assert_eq!(ask(&masked().fulfilling(["mask:name"]), "clerk").await.status(), 500, "another one");
        assert_eq!(ask(&masked().fulfilling(["mask:name", "mask:email"]), "clerk").await.status(), 200);
        let negated = require(not(policy("masked").unwrap())).with_policy(Arc::clone(&backend));
        assert_eq!(ask(&negated, "clerk").await.status(), 500, "not even turned around");
        let denied = require(policy("masked-no").unwrap()).with_policy(Arc::clone(&backend));
        assert_eq!(ask(&denied, "clerk").await.status(), 403, "a denial obliges to nothing");
    }
}

#[tokio::test]
async fn what_settles_the_answer_saves_the_question() {
    for (name, requirement, expected, asked) in [
        ("denied before", all((role("boss").unwrap(), policy("yes").unwrap())), 403, 0),
        ("denied after", all((policy("yes").unwrap(), role("boss").unwrap())), 403, 0),
        ("allowed after", any((policy("yes").unwrap(), role("clerk").unwrap())), 200, 0),
        ("open", all((policy("yes").unwrap(), role("clerk").unwrap())), 200, 1),
    ] {
        let backend = Scripted::waiting();
        let guard = require(requirement).with_policy(Arc::clone(&backend));
        assert_eq!(ask(&guard, "clerk").await.status().as_u16(), expected, "{name}");
        assert_eq!(backend.asked(), asked, "{name}");
    }
}

#[tokio::test]
async fn only_an_answer_that_waits_clones_the_inner_service() {
    for (backend, clones) in [(Scripted::at_once(), 0), (Scripted::waiting(), 1)] {
        let probe = Probe::default();
        let seen = Arc::clone(&probe.seen);
        let guard = require(policy("yes").unwrap()).with_policy(backend);
        let mut service = authn().layer(guard.layer(probe));
        // The probe panics if a clone is called that was never found ready.
        let response = ready(&mut service).await.call(by("clerk")).await.unwrap();
        assert_eq!(text(response).await, "clerk");
        assert_eq!((seen.calls(), seen.clones()), (1, clones));
    }
}

/// Answers when it is let, and counts how many wait.
#[derive(Debug)]
struct Gated {
    open: Semaphore,
    waiting: AtomicUsize,
}

#[async_trait]
impl PolicyBackend for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _permit = self.open.acquire().await.unwrap();
        Verdict::allow()
    }
}

#[tokio::test]
async fn a_request_given_up_while_it_waits_leaves_the_service_usable() {
    let backend = Arc::new(Gated { open: Semaphore::new(0), waiting: AtomicUsize::new(0) });
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let guard = require(policy("yes").unwrap()).with_policy(Arc::clone(&backend));
    let mut service = authn().layer(guard.layer(probe));
    let mut given_up = by_hand(ready(&mut service).await.call(by("clerk")));
    assert!(given_up.poll_once().await.is_none(), "nothing has answered yet");
    assert_eq!(backend.waiting.load(Ordering::SeqCst), 1);
    drop(given_up);
    assert_eq!(seen.calls(), 0);
    backend.open.add_permits(1);
    let response = ready(&mut service).await.call(by("clerk")).await.unwrap();
    assert_eq!((response.status().as_u16(), seen.calls()), (200, 1));
}

async fn ready<S: Service<Request<()>, Error = std::convert::Infallible>>(service: &mut S) -> &mut S {
    service.ready().await.unwrap()
}

/// A future that is polled by hand.
struct ByHand<F>(std::pin::Pin<Box<F>>);

fn by_hand<F: Future>(future: F) -> ByHand<F> {
    ByHand(Box::pin(future))
}

impl<F: Future> ByHand<F> {
    async fn poll_once(&mut self) -> Option<F::Output> {
        std::future::poll_fn(|cx| match self.0.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}

#[test]
fn services_are_clone_send_and_sync() {
    fn assert<T: Clone + Send + Sync>(_: &T) {}
    assert(&require(authenticated()).layer(Probe::default()));
    fn assert_send<T: Send>(_: &T) {}
    let guard = require(policy("yes").unwrap()).with_policy(Scripted::waiting());
    assert_send(&authn().layer(guard.layer(Probe::default())).oneshot(by("clerk")));
}

/// A handler that asks about the order that the path names: `/orders/{owner}`.
async fn handler(request: Request<()>) -> Result<Response<String>, std::convert::Infallible> {
    let extensions = request.extensions();
    let action = request.headers().get("x-action").map_or("orders:read", |value| value.to_str().unwrap());
    let owner = request.uri().path().trim_start_matches("/orders/");
    let order = Resource::new("order", 1).owned_by(ISSUER, owner);
    let answer = match Authorizer::of(extensions) {
        Ok(authz) => authz.check(action, &order).await,
        Err(rejection) => Err(rejection),
    };
    Ok(answer.map_or_else(|rejection| rejection.to_response(), |_| Response::default()))
}

#[tokio::test]
async fn the_authorizer_asks_about_the_thing() {
    let request = |who: &str, owner: &str, action: &str| {
        let mut request = with(by(who), "x-action", action);
        *request.uri_mut() = format!("/orders/{owner}").parse().unwrap();
        request
    };
    let read = shop().permission("orders:read").unwrap().allow_owners();
    let rbac = ServiceBuilder::new().layer(authn()).layer(require(read).with_policy(shop())).service_fn(handler);
    for (name, who, owner, action, expected) in [
        ("one's own", "clerk", "clerk", "orders:read", 200),
        ("somebody else's", "clerk", "bob", "orders:read", 403),
        ("somebody else's, by a manager", "manager", "bob", "orders:read", 200),
        ("not granted", "clerk", "clerk", "orders:cancel", 403),
        ("unknown to the policy", "manager", "bob", "orders:raed", 403),
    ] {
        assert_eq!(send(&rbac, request(who, owner, action)).await.status().as_u16(), expected, "{name}");
    }
    for backend in [Scripted::at_once(), Scripted::waiting()] {
        let stack = ServiceBuilder::new()
            .layer(authn())
            .layer(require(authenticated()).with_policy(backend))
            .service_fn(handler);
        for (action, expected) in [("yes", 200), ("no", 403), ("unknown", 503), ("masked", 500)] {
            assert_eq!(send(&stack, request("clerk", "clerk", action)).await.status().as_u16(), expected, "{action}");
        }
    }
}

#[tokio::test]
async fn the_authorizer_refuses_where_layers_are_missing() {
    let no_layer = service_fn(handler);
    assert_eq!(send(&no_layer, by("clerk")).await.status(), 500, "no layer at all");
    let no_policy = authn().layer(service_fn(handler));
    assert_eq!(send(&no_policy, by("clerk")).await.status(), 500, "no policy");
    let response = send(&no_policy, by("")).await;
    assert_eq!(response.status(), 401, "nobody");
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], r#"Device realm="factory""#);
}

#[tokio::test]
async fn the_authorizer_tells_and_fulfils() {
    let handler = |request: Request<()>| async move {
        let authz = Authorizer::of(request.extensions()).unwrap();
        assert_eq!(authz.principal().subject(), "clerk");
        for (action, expected) in [
            ("yes", Decision::Allow),
            ("no", Decision::Deny),
            ("unknown", Decision::CannotDecide),
            ("masked", Decision::Deny),
        ] {
            assert_eq!(authz.allows(action, None).await, expected, "{action}");
        }
        let fulfilling = authz.fulfilling(["mask:email"]);
        assert!(fulfilling.check("masked", None).await.is_ok());
        Ok::<_, std::convert::Infallible>(Response::<String>::default())
    };
    let stack = ServiceBuilder::new()
        .layer(authn())
        .layer(require(authenticated()).with_policy(Scripted::waiting()))
        .service_fn(handler);
    assert_eq!(send(&stack, by("clerk")).await.status(), 200);
}

#[tokio::test]
async fn a_route_of_an_axum_router_carries_its_own_guard() {
    use axum::{Router, body::Body, routing};

    let shop = shop();
    let [list, cancel] = ["orders:list", "orders:cancel"].map(|name| require(shop.permission(name).unwrap()));
    let router = Router::new()
        .route("/orders", routing::get(async || "orders").layer(list).delete(async || "gone").layer(cancel))
        .layer(authn());
    let ask = async |method: &str, who: &str| {
        let request = Request::builder().method(method).uri("/orders").header("authorization", format!("Device {who}"));
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    // A method router's layer covers what was added before it: GET has both.
    assert_eq!((ask("GET", "manager").await, ask("DELETE", "manager").await), (200, 200));
    assert_eq!((ask("GET", "clerk").await, ask("DELETE", "clerk").await), (403, 403));
}
