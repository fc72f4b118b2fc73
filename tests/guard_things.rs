//! Guards that know what the request is about: the thing in the path, relations to it, and how strongly somebody proved who
//! they are; and guards that hide.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::{convert::Infallible, sync::Mutex, time::Duration};

use async_trait::async_trait;
use axum::{Router, body::Body, routing};
use http::{Request, Response, header};
use portcullis::{
    Clock, Now, Principal, PrincipalBuilder, PrincipalKind, Rejection, RejectionKind, SecurityContext, ShadowMode,
    authn::AuthnLayer,
    guard::{
        Authorizer, GuardLayer, Hours, Requirement, ResourceSource, acr, all, amr, any, attribute, authenticated,
        authenticated_within, deny, during, from_head, from_path, network, not, owner, policy, predicate, public,
        relation, require, role, same_tenant, scope,
    },
    policy::{AccessQuery, Attributes, Decision, Directive, PolicyBackend, Rbac, Resource, Verdict},
    problem::{ProblemDetails, ProblemLayer, RejectionRenderer, RenderRequest, Rendered},
    stack::Stack,
    tls::TlsLayer,
};
use support::{NOW, Probe, Still, everybody, get, on_route, send, test_scheme, text, with};
use tower::{Layer, ServiceBuilder, ServiceExt};

/// The kind of a refusal.
fn kind<T: std::fmt::Debug>(answer: Result<T, Rejection>) -> RejectionKind {
    answer.unwrap_err().kind()
}

const ISSUER: &str = "https://id.example.com";

fn alice() -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt")
}

fn authn(who: Principal) -> AuthnLayer {
    AuthnLayer::new(everybody(who)).dangerous_plain_http()
}

/// Keeps what it was asked, and allows what is called `yes`.
#[derive(Debug, Default)]
struct Listening(Mutex<Vec<String>>);

impl Listening {
    fn hear(&self, query: &AccessQuery<'_>) -> Verdict {
        let thing = query.resource().map_or("-".to_owned(), |thing| {
            format!("{} {} {}", thing.kind(), thing.id(), thing.tenant().unwrap_or("-"))
        });
        let heard = format!("{} {} {thing}", query.action(), query.route().unwrap_or("-"));
        self.0.lock().unwrap().push(heard);
        if query.action() == "yes" { Verdict::allow() } else { Verdict::deny("no") }
    }
}

#[async_trait]
impl PolicyBackend for Listening {
    fn name(&self) -> &'static str {
        "listening"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(self.hear(query))
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.hear(query)
    }
}

#[tokio::test]
async fn the_policy_hears_of_the_thing_in_the_path() {
    let order = || from_path("order", "{id}").unwrap();
    let of_several = || from_path("order", "{t}-{id}").unwrap();
    let report = from_head("report", |head, path| {
        let month = path.get("id").filter(|month| month.len() == 7)?;
        Some(Resource::new("report", month).with("drafts", head.uri().query().is_some()))
    });
    for (name, template, source, path, status, heard) in [
        ("a parameter", "/orders/{id}", order(), "/orders/42", 200, "yes /orders/{id} order 42 -"),
        ("decoded", "/orders/{id}", order(), "/orders/caf%C3%A9", 200, "yes /orders/{id} order café -"),
        (
            "with a tenant",
            "/t/{t}/orders/{id}",
            order().in_tenant("{t}").unwrap(),
            "/t/acme/orders/42",
            200,
            "yes /t/{t}/orders/{id} order 42 acme",
        ),
        (
            "the rest",
            "/files/{*path}",
            from_path("file", "{path}").unwrap(),
            "/files/a/b",
            200,
            "yes /files/{*path} file a/b -",
        ),
        ("a function", "/reports/{id}", report.clone(), "/reports/2027-01", 200, "yes /reports/{id} report 2027-01 -"),
        ("a function that finds nothing", "/reports/{id}", report, "/reports/2027", 400, ""),
        ("no such parameter", "/orders/{number}", order(), "/orders/42", 500, ""),
        ("no text", "/orders/{id}", order(), "/orders/%E9", 400, ""),
        ("of several parameters", "/t/{t}/{id}", of_several(), "/t/a/b-c", 200, "yes /t/{t}/{id} order a-b-c -"),
        ("which would be read as another thing", "/t/{t}/{id}", of_several(), "/t/a-b/c", 400, ""),
        ("also encoded", "/t/{t}/{id}", of_several(), "/t/a%2Db/c", 400, ""),
    ] {
        let policy_heard = std::sync::Arc::new(Listening::default());
        let guard = require(policy("yes").unwrap()).with_policy(std::sync::Arc::clone(&policy_heard)).on(source);
        assert_eq!(on_route(template, guard, alice(), path).await, status, "{name}");
        assert_eq!(policy_heard.0.lock().unwrap().join(";"), heard, "{name}");
    }
}

#[tokio::test]
async fn nested_routers_name_the_whole_route() {
    let heard = std::sync::Arc::new(Listening::default());
    let order = from_path("order", "{id}").unwrap().in_tenant("{tenant}").unwrap();
    let guard = require(policy("yes").unwrap()).with_policy(std::sync::Arc::clone(&heard)).on(order);
    let inner = Router::new().route("/orders/{id}", routing::get(async || "handler").layer(guard));
    let router = Router::new().nest("/t/{tenant}", inner).layer(authn(alice().build()));
    let response = router.oneshot(get("/t/acme/orders/7").map(|()| Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*heard.0.lock().unwrap(), ["yes /t/{tenant}/orders/{id} order 7 acme"]);
}

#[tokio::test]
async fn where_no_route_is_known_a_thing_of_the_path_is_refused() {
    let guard = require(authenticated()).on(from_path("order", "{id}").unwrap());
    let app = authn(alice().build()).layer(guard.layer(Probe::default()));
    assert_eq!(send(&app, get("/orders/42")).await.status(), 500, "not skipped");
    let all = require(authenticated()).on(from_path("report", "all").unwrap());
    let app = authn(alice().build()).layer(all.layer(Probe::default()));
    assert_eq!(send(&app, get("/orders/42")).await.status(), 500, "a path pattern needs a route");
    let found = require(authenticated()).on(from_head("by path", |head, _| Some(Resource::new("path", head.path()))));
    let app = authn(alice().build()).layer(found.layer(Probe::default()));
    assert_eq!(send(&app, get("/orders/42")).await.status(), 200);
}

#[tokio::test]
async fn relations_and_roles_mix() {
    let thing = from_head("thing", |head, _| {
        let thing = Resource::new("order", 1).with("open", true);
        Some(match head.path() {
            "/x/own" => thing.owned_by(ISSUER, "alice").in_tenant("acme"),
            "/x/bobs" => thing.owned_by(ISSUER, "bob").in_tenant("acme"),
            _ => thing.owned_by(ISSUER, "bob").in_tenant("globex").with("open", false),
        })
    });
    let clerk = || role("clerk").unwrap();
    let rows: Vec<(&str, Requirement, [u16; 3])> = vec![
        ("owner", owner(), [200, 403, 403]),
        ("tenant", same_tenant(), [200, 200, 403]),
        ("attribute", attribute("open", true).unwrap(), [200, 200, 403]),
        ("not the owner", not(owner()), [403, 200, 200]),
        ("owner or role", any((owner(), role("boss").unwrap())), [200, 403, 403]),
        ("tenant and role", all((same_tenant(), clerk())), [200, 200, 403]),
        ("four eyes", all((clerk(), same_tenant(), not(owner()))), [403, 200, 403]),
    ];
    for (name, requirement, expected) in rows {
        for (path, expected) in ["/x/own", "/x/bobs", "/x/foreign"].into_iter().zip(expected) {
            let guard = require(requirement.clone()).on(thing.clone());
            let who = alice().roles(["clerk"]).tenant("acme");
            assert_eq!(on_route("/x/{id}", guard, who, path).await, expected, "{name}, {path}");
        }
        let bare = require(requirement).layer(Probe::default());
        let status = send(&authn(alice().build()).layer(bare), get("/x/own")).await.status();
        assert_eq!(status, 500, "{name}: a condition on a thing that nobody names");
    }
}

#[tokio::test]
async fn a_permission_handle_knows_the_tenant_of_the_path() {
    let text = "version = \"1\"\npermissions = [\"orders:read\"]\n[roles.clerk]\ngrants = [\"orders:read\"]\n[roles.own]\ngrants_own = [\"*\"]";
    let read = Rbac::from_toml(text).unwrap().permission("orders:read").unwrap();
    for (name, permission, role) in [("granted", read.clone(), "clerk"), ("owners pass", read.allow_owners(), "own")] {
        let guard = || require(&permission).on(from_path("order", "{id}").unwrap().in_tenant("{t}").unwrap());
        for (path, status) in [("/t/acme/orders/1", 200), ("/t/globex/orders/1", 403)] {
            let who = alice().roles([role]).tenant("acme");
            assert_eq!(on_route("/t/{t}/orders/{id}", guard(), who, path).await, status, "{name}, {path}");
        }
    }
}

/// A handler has to ask whose the thing is where the guard does not know; what the guard knows counts at once.
#[tokio::test]
async fn owners_pass_where_the_thing_is_not_known_to_be_another_s() {
    let text = "version = '1'\npermissions = ['edit']\n[roles.own]\ngrants_own = ['*']\n[roles.all]\ngrants = ['*']";
    let edit = Rbac::from_toml(text).unwrap().permission("edit").unwrap().allow_owners();
    let note = Resource::new("note", 1).in_tenant("acme");
    let (theirs, others) = (note.clone().owned_by(ISSUER, "alice"), note.clone().owned_by(ISSUER, "bob"));
    for (name, thing, own) in [
        ("nobody is told", note.clone(), 200),
        ("theirs", theirs, 200),
        ("another's", others.clone(), 403),
        ("theirs as well", others.also_owned_by(ISSUER, "alice"), 200),
        ("only theirs as well", note.clone().also_owned_by(ISSUER, "alice"), 200),
        ("another's as well", note.also_owned_by(ISSUER, "bob"), 403),
    ] {
        for (role, status) in [("own", own), ("all", 200), ("none", 403)] {
            let found = thing.clone();
            let guard = require(&edit).on(from_head("note", move |_, _| Some(found.clone())));
            let who = alice().roles([role]).tenant("acme");
            assert_eq!(on_route("/notes", guard, who, "/notes").await, status, "{name}, {role}");
        }
    }
}

/// What a firm denial settles already is not asked for: whoever names things of others costs the policy nothing.
#[tokio::test]
async fn no_policy_is_asked_about_a_thing_of_another_tenant() {
    let text = "version = \"1\"\npermissions = [\"orders:read\"]\n[roles.clerk]\ngrants = [\"orders:read\"]";
    let read = Rbac::from_toml(text).unwrap().permission("orders:read").unwrap();
    let yes = || policy("yes").unwrap();
    let both = || all((&read, yes()));
    for (name, requirement, owning, status, asked) in [
        ("at home", both(), "acme", 200, 1),
        ("a foreign thing", both(), "globex", 403, 0),
        ("a foreign thing, inside another", all((authenticated(), both())), "globex", 403, 0),
        ("another way in", any((both(), yes())), "globex", 200, 1),
        // Behind a `not` the answer of the policy still matters.
        ("negated, at home", not(all((&read, policy("no").unwrap()))), "acme", 200, 1),
        ("negated, a foreign thing", not(all((&read, policy("no").unwrap()))), "globex", 200, 1),
        ("negated, and allowed", not(both()), "globex", 403, 1),
    ] {
        let heard = std::sync::Arc::new(Listening::default());
        let thing = from_path("order", "{id}").unwrap().in_tenant("{t}").unwrap();
        let guard = require(requirement).on(thing).with_policy(std::sync::Arc::clone(&heard));
        let (who, path) = (alice().roles(["clerk"]).tenant("acme"), format!("/t/{owning}/orders/1"));
        assert_eq!(on_route("/t/{t}/orders/{id}", guard, who, &path).await, status, "{name}");
        assert_eq!(heard.0.lock().unwrap().len(), asked, "{name}");
    }
}

/// A role handle beside a thing: no thing of another tenant, and the roles that are assigned where the thing is.
#[tokio::test]
async fn a_role_handle_knows_the_tenant_of_the_path() {
    let policy = Rbac::from_toml(
        r#"
        version = "1"
        allow_tenantless = true
        permissions = ["orders:read"]
        [roles.clerk]
        grants = ["orders:read"]
        [roles.manager]
        inherits = ["clerk"]
        [roles.auditor]
        [[exclusive]]
        name = "books"
        roles = ["clerk", "auditor"]
        [[assignments]]
        issuer = "https://id.example.com"
        subject = "alice"
        tenant = "acme"
        roles = ["manager"]
        [[assignments]]
        issuer = "https://id.example.com"
        subject = "alice"
        tenant = "initech"
        roles = ["auditor"]
        "#,
    )
    .unwrap();
    let (clerk, read) = (policy.role("clerk").unwrap(), policy.permission("orders:read").unwrap());
    let with_role = || require(&clerk);
    let with_permission = || require(&read);
    let without_role = || require(not(&clerk));
    let of = |tenant: &'static str| if tenant.is_empty() { alice() } else { alice().tenant(tenant) };
    for (name, who, owning, [role, not_role]) in [
        ("at home", of("acme"), "acme", [200, 403]),
        ("assigned at home, a foreign thing", of("acme"), "globex", [403, 403]),
        ("of the credential, a foreign thing", of("globex").roles(["manager"]), "acme", [403, 403]),
        ("of the credential, at home", of("globex").roles(["manager"]), "globex", [200, 403]),
        ("a consultant where she is assigned", of(""), "acme", [200, 403]),
        ("and where she is not", of(""), "globex", [403, 200]),
        ("exclusive there alone", of("").roles(["clerk"]), "initech", [403, 403]),
        ("and not elsewhere", of("").roles(["clerk"]), "globex", [200, 403]),
    ] {
        let path = format!("/t/{owning}/orders/1");
        let ask = async |guard: GuardLayer| {
            let guard = guard.on(from_path("order", "{id}").unwrap().in_tenant("{t}").unwrap());
            on_route("/t/{t}/orders/{id}", guard, who.clone(), &path).await
        };
        assert_eq!([ask(with_role()).await, ask(without_role()).await], [role, not_role], "{name}");
        assert_eq!(ask(with_permission()).await, role, "{name}: what the role grants goes with it");
    }
    assert!(clerk.is_held_by(&of("acme").build()) && !clerk.is_held_by(&of("").build()), "where no thing is named");
}

#[tokio::test]
async fn circumstances() {
    let office = || network(["198.51.100.0/24"]).unwrap();
    let elsewhere = || network(["192.0.2.0/24"]).unwrap();
    let day = |from, until| during(Hours::between(from, until).unwrap());
    let own = |decision| predicate("own", move |_| decision);
    let rows: Vec<(&str, Requirement, u16)> = vec![
        ("network", office(), 200),
        ("another network", elsewhere(), 403),
        ("not from there", not(elsewhere()), 200),
        ("office hours", day("08:00", "09:00"), 200),
        ("too early", day("08:01", "09:00"), 403),
        ("mfa", amr("mfa").unwrap(), 200),
        ("no smart card", amr("sc").unwrap(), 403),
        ("one's own: allow", own(Decision::Allow), 200),
        ("one's own: deny", own(Decision::Deny), 403),
        ("one's own: unknown", own(Decision::CannotDecide), 503),
        ("not what is unknown", not(own(Decision::CannotDecide)), 503),
        ("all", all((office(), day("07:00", "12:00"), amr("mfa").unwrap())), 200),
    ];
    let who = std::sync::Arc::new(everybody(alice().methods(["pwd", "mfa"]).build()));
    for (name, requirement, status) in rows {
        let stack = Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .authenticate(std::sync::Arc::clone(&who))
            .route("GET /x", require(requirement))
            .build()
            .unwrap();
        let response = send(&stack.protect(Probe::default()), get("/x")).await;
        assert_eq!(response.status(), status, "{name}");
    }
    // By hand, without evidence and without a connection: the address is not known, and neither way opens.
    for requirement in [office(), not(office())] {
        let app = authn(alice().build()).layer(require(requirement).layer(Probe::default()));
        let request = Request::get("/x").body(()).unwrap();
        assert_eq!(send(&app, request).await.status(), 503);
    }
}

#[tokio::test]
async fn a_stronger_proof_is_asked_for() {
    let gold = || acr(["gold", "silver"]).unwrap();
    let fresh = || authenticated_within(Duration::from_secs(300));
    let step_up = |parameters: &str| {
        Some(format!("Bearer realm=\"api\", error=\"insufficient_user_authentication\"{parameters}"))
    };
    let bronze = || alice().acr("bronze").auth_time(NOW - 1_000).roles(["clerk"]);
    let rows: Vec<(&str, Requirement, PrincipalBuilder, u16, Option<String>)> = vec![
        ("strong", gold(), bronze().acr("silver"), 200, None),
        ("weak", gold(), bronze(), 401, step_up(", acr_values=\"gold silver\"")),
        ("not told", gold(), alice(), 401, step_up(", acr_values=\"gold silver\"")),
        ("old", fresh(), bronze(), 401, step_up(", max_age=\"300\"")),
        ("fresh", fresh(), bronze().auth_time(NOW - 300), 200, None),
        (
            "both",
            all((gold(), fresh(), authenticated_within(Duration::from_secs(600)))),
            bronze(),
            401,
            step_up(", acr_values=\"gold silver\", max_age=\"300\""),
        ),
        (
            "and a role that is held",
            all((gold(), role("clerk").unwrap())),
            bronze(),
            401,
            step_up(", acr_values=\"gold silver\""),
        ),
        ("and a role that is not", all((gold(), role("boss").unwrap())), bronze(), 403, None),
        ("and a scope that is not", all((gold(), scope("a").unwrap())), bronze(), 403, None),
        ("or a role that is held", any((gold(), role("clerk").unwrap())), bronze(), 200, None),
        ("turned around", not(gold()), bronze().acr("gold"), 403, None),
    ];
    for (name, requirement, who, status, challenge) in rows {
        let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(everybody(who.build()));
        let stack = stack.route("GET /x", require(requirement)).build().unwrap();
        let response = send(&stack.protect(Probe::default()), get("/x")).await;
        assert_eq!(response.status(), status, "{name}");
        let sent = response.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(sent, challenge, "{name}");
    }
}

#[derive(Debug)]
struct OwnPage;

impl RejectionRenderer for OwnPage {
    fn render(&self, _: &Rejection, _: &RenderRequest) -> Option<Rendered> {
        Some(Rendered::new(header::HeaderValue::from_static("text/html"), "<h1>Nothing here</h1>"))
    }
}

/// Everything that a client can see of an answer.
async fn seen(response: Response<Body>) -> (u16, Vec<(String, String)>, String) {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.collect();
    (status, headers, text(response).await)
}

#[tokio::test]
async fn what_is_hidden_looks_like_what_is_not_there() {
    let router = || {
        let fallback = async || Rejection::new(RejectionKind::NotFound, "no such route");
        Router::new().route("/secret", routing::get(async || "secret")).fallback(fallback)
    };
    let builder = || {
        Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .authenticate(test_scheme())
            .route("GET /secret", require(role("manager").unwrap()).hide())
            .route("GET /scoped", require(scope("none").unwrap()).hide())
            .route("GET /strong", require(acr(["gold"]).unwrap()).hide())
            .route("GET /denied", deny().hide())
            .route("GET /unnamed", require(owner()).on(from_head("thing", |_, _| None)).hide())
            .route("GET /nothing", require(authenticated()))
            .route("ANY /wide/{*rest}", require(role("manager").unwrap()).hide())
            .route("GET /wide/secret", require(role("owner").unwrap()).hide())
            .fallback(deny().hide())
    };
    for (name, stack) in [("the details", builder()), ("a page of one's own", builder().not_found(OwnPage))] {
        let app = stack.build().unwrap().protect(router());
        let sent_by = async |who: &str, request: Request<()>| {
            let request = if who.is_empty() { request } else { with(request, "authorization", &format!("Test {who}")) };
            app.clone().oneshot(request.map(|()| Body::empty())).await.unwrap()
        };
        let ask = async |who: &str, path: &str| sent_by(who, get(path)).await;
        let without_id = |(status, headers, body): (u16, Vec<_>, String)| {
            // Each request has an id of its own; nothing else may differ.
            let body = body.split("\"request_id\"").next().unwrap_or_default().to_owned();
            (status, headers, body)
        };
        let nothing = without_id(seen(ask("alice", "/nothing").await).await);
        assert_eq!(nothing.0, 404, "{name}");
        for path in ["/secret", "/scoped", "/strong", "/denied", "/unnamed", "/unknown"] {
            assert_eq!(without_id(seen(ask("alice", path).await).await), nothing, "{name}, {path}");
            assert_eq!(ask("", path).await.status(), 401, "{name}, {path}: the anonymous are asked who they are");
        }
        let refused = without_id(seen(ask("", "/unknown").await).await);
        assert_eq!(refused.0, 401, "{name}");
        for (path, method, is_preflight) in [
            ("/secret", "POST", false),
            ("/secret", "OPTIONS", false),
            ("/secret", "CONNECT", false),
            ("/secret", "OPTIONS", true),
            ("/denied", "OPTIONS", true),
            ("/wide/secret", "OPTIONS", true),
            ("/wide/else", "OPTIONS", true),
            ("/unknown", "OPTIONS", true),
            ("/%73ecret", "GET", false),
            ("/%73ecret", "OPTIONS", true),
            ("/%2573ecret", "GET", false),
            ("/%75nknown", "GET", false),
            ("/secret/", "GET", false),
            ("/%73ecret/", "GET", false),
            ("/unknown/", "GET", false),
            ("/wide/secret", "GET", false),
            ("/wide/%73ecret", "GET", false),
            ("/wide/%65lse", "GET", false),
            ("/wide/secret/", "GET", false),
            ("/wide/else/", "GET", false),
        ] {
            for who in ["", "alice"] {
                let mut request = get(path);
                *request.method_mut() = method.parse().unwrap();
                if is_preflight {
                    request =
                        with(with(request, "origin", "https://a.example"), "access-control-request-method", "GET");
                }
                let expected = if who.is_empty() { &refused } else { &nothing };
                let answer = without_id(seen(sent_by(who, request).await).await);
                assert_eq!(answer, *expected, "{name}: {method} {path} by {who:?}, {is_preflight}");
            }
        }
        // What means more than one path whatever the table is tells nothing of the table.
        for path in ["/./secret", "/./unknown", "/secret;x", "/unknown;x", "/secret%2F", "/unknown%2F"] {
            assert_eq!(ask("alice", path).await.status(), 400, "{name}: {path}");
        }
        let mut post = get("/secret");
        *post.method_mut() = http::Method::POST;
        assert_eq!(without_id(seen(sent_by("boss", post).await).await), nothing, "{name}: another method");
        assert_eq!(text(ask("boss", "/secret").await).await, "secret", "{name}");
        assert_eq!(nothing.2.contains("Nothing here"), name.starts_with("a page"), "{name}");
    }
}

/// The answer to HEAD has the fields of the answer to GET (RFC 9110 §9.3.2), and a router's own 404 has them: they must not tell.
#[tokio::test]
async fn what_is_hidden_looks_so_to_head_as_well() {
    let page = async || (http::StatusCode::NOT_FOUND, axum::response::Html("<h1>Nothing here</h1>"));
    let router = Router::new().route("/secret", routing::get(async || "secret")).fallback(page);
    let stack = Stack::builder()
        .clock(Still)
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .route("GET /secret", require(role("manager").unwrap()).hide())
        .route("GET /nothing", require(authenticated()))
        .fallback(deny().hide())
        .not_found(OwnPage);
    let app = stack.build().unwrap().protect(router);
    let ask = async |method: http::Method, path: &str| {
        let mut request = with(get(path), "authorization", "Test alice").map(|()| Body::empty());
        *request.method_mut() = method;
        let (status, mut headers, body) = seen(app.clone().oneshot(request).await.unwrap()).await;
        headers.sort();
        (status, headers, body)
    };
    let nothing = ask(http::Method::HEAD, "/nothing").await;
    assert_eq!(nothing.0, 404);
    assert!(nothing.1.contains(&("content-length".to_owned(), "21".to_owned())), "{nothing:?}");
    for path in ["/secret", "/unknown"] {
        assert_eq!(ask(http::Method::HEAD, path).await, nothing, "{path}");
        let (_, of_get, body) = ask(http::Method::GET, path).await;
        assert_eq!(body, "<h1>Nothing here</h1>", "{path}");
        // The server writes the length of a body.
        let of_head = nothing.1.iter().filter(|(name, _)| name != "content-length");
        assert!(of_get.iter().eq(of_head), "{path}: {of_get:?}");
    }
}

#[tokio::test]
async fn layers_by_hand_hide_as_well() {
    let guard = require(role("boss").unwrap()).hide();
    assert_eq!(guard.to_string(), "role boss, hidden");
    let layers = ServiceBuilder::new().layer(ProblemLayer::new().not_found(OwnPage)).layer(authn(alice().build()));
    let response = send(&layers.layer(guard).service(Probe::default()), get("/x")).await;
    assert_eq!(response.status(), 404);
    assert!(text(response).await.contains("Nothing here"));
    let other = ServiceBuilder::new().layer(ProblemLayer::with_renderer(ProblemDetails::new()).not_found(OwnPage));
    let response = send(
        &other.layer(authn(alice().build())).layer(require(role("boss").unwrap())).service(Probe::default()),
        get("/x"),
    )
    .await;
    assert_eq!(response.status(), 403);
    assert!(!text(response).await.contains("Nothing here"));
}

#[tokio::test]
async fn the_authorizer_hides_as_well() {
    let handler = async |request: Request<()>| {
        let authz = Authorizer::of(request.extensions()).unwrap();
        assert_eq!(kind(authz.check("no", None).await), RejectionKind::Forbidden);
        assert_eq!(kind(authz.hiding().check("no", None).await), RejectionKind::NotFound);
        Ok::<_, Infallible>(Response::<String>::default())
    };
    let guard = require(authenticated()).with_policy(Listening::default());
    let app = ServiceBuilder::new().layer(authn(alice().build())).layer(guard).service_fn(handler);
    assert_eq!(send(&app, get("/x")).await.status(), 200);
}

#[test]
fn a_stack_finds_rules_about_things_that_are_not_in_the_path() {
    let build = |line: &str, guard: GuardLayer| {
        let stack = Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme()).route(line, guard);
        stack.build().map_err(|error| error.to_string())
    };
    let order = |id: &str| -> ResourceSource { from_path("order", id).unwrap() };
    for (name, line, guard, expected) in [
        ("no parameter", "GET /orders", require(owner()).on(order("{id}")), "names a thing by {id}"),
        ("another parameter", "GET /orders/{number}", require(owner()).on(order("{id}")), "names a thing by {id}"),
        ("the tenant's", "GET /orders/{id}", require(owner()).on(order("{id}").in_tenant("{t}").unwrap()), "by {t}"),
        ("no thing", "GET /orders/{id}", require(any((owner(), authenticated()))), "add .on(..)"),
        ("nobody asks", "GET /orders/{id}", require(authenticated()).on(order("{id}")), "no condition looks at it"),
        ("a scope", "GET /orders/{id}", require(scope("s").unwrap()).on(order("{id}")), "no condition looks at it"),
        (
            "a role by name",
            "GET /t/{t}/{id}",
            require(not(role("clerk").unwrap())).on(order("{id}").in_tenant("{t}").unwrap()),
            "no condition looks at it",
        ),
        (
            "where somebody is",
            "GET /t/{t}/{id}",
            require(network(["198.51.100.0/24"]).unwrap()).on(order("{id}").in_tenant("{t}").unwrap()),
            "no condition looks at it",
        ),
        (
            "when, and how they proved who they are",
            "GET /orders/{id}",
            require(all((during(Hours::between("08:00", "18:00").unwrap()), not(amr("pwd").unwrap()))))
                .on(order("{id}")),
            "no condition looks at it",
        ),
    ] {
        let error = build(line, guard).unwrap_err();
        assert!(error.starts_with(&format!("route: {line}")) && error.contains(expected), "{name}: {error}");
    }
    assert!(build("GET /t/{t}/x-{id}", require(same_tenant()).on(order("{id}").in_tenant("{t}").unwrap())).is_ok());
    let even = || relation("even", |thing, _| thing.id().ends_with('2'));
    assert!(build("GET /files/{*id}", require(even()).on(order("{id}"))).is_ok());
    let asks = predicate("asks", |query| if query.resource().is_some() { Decision::Allow } else { Decision::Deny });
    assert!(build("GET /orders/{id}", require(any((authenticated(), asks))).on(order("{id}"))).is_ok());
    let fallback = Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme());
    assert!(fallback.fallback(require(even()).on(order("{id}"))).build().is_err());
    for bad in ["", "{", "{}", "a}b", "{t}{id}"] {
        assert!(from_path("order", bad).is_err() && order("{id}").in_tenant(bad).is_err(), "{bad:?}");
    }
    assert!(from_path("", "{id}").is_err());
    assert!(from_head("x", |_, _| None).in_tenant("{t}").is_err());
}

/// A path tells neither owner nor attributes, and a tenant only where it is said: a `not` would pass everybody.
#[tokio::test]
async fn what_the_thing_can_never_tell_is_asked_of_nobody() {
    let order = || from_path("order", "{id}").unwrap();
    let of_tenant = || order().in_tenant("{id}").unwrap();
    let open = || attribute("open", true).unwrap();
    let of_the_head = || from_head("order", |_, _| Some(Resource::new("order", 1)));
    let (function, tenant) = ("can never tell: find the thing by a function", "can never tell: add .in_tenant(..)");
    for (name, requirement, thing, status, problem) in [
        ("owner", owner(), order(), 503, function),
        ("not the owner", not(owner()), order(), 503, function),
        ("four eyes", all((authenticated(), not(owner()))), order(), 503, function),
        ("owner, of a tenant", not(owner()), of_tenant(), 503, function),
        ("another way in", any((owner(), authenticated())), order(), 200, function),
        ("attribute", open(), order(), 503, function),
        ("not the attribute", not(open()), order(), 503, function),
        ("tenant", same_tenant(), order(), 503, tenant),
        ("another tenant", not(same_tenant()), order(), 503, tenant),
        ("of a tenant", same_tenant(), of_tenant(), 200, ""),
        ("not of a tenant", not(same_tenant()), of_tenant(), 403, ""),
        ("nobody's, as a function says", not(owner()), of_the_head(), 200, ""),
    ] {
        let guard = require(requirement).on(thing);
        let by_hand = on_route("/orders/{id}", guard.clone(), alice().tenant("acme"), "/orders/acme").await;
        assert_eq!(by_hand, status, "{name}");
        let stack = Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme());
        match stack.route("GET /orders/{id}", guard).build() {
            Ok(_) => assert_eq!(problem, "", "{name}"),
            Err(error) => assert!(!problem.is_empty() && error.to_string().contains(problem), "{name}: {error}"),
        }
    }
}

/// Obliges to mask, and advises to tell.
#[derive(Debug)]
struct Masking;

#[async_trait]
impl PolicyBackend for Masking {
    fn name(&self) -> &'static str {
        "masking"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        tokio::task::yield_now().await;
        let mask = Directive::new("mask").with("fields", vec!["email"]);
        match query.resource().map(Resource::id) {
            Some("undecided") => Verdict::cannot_decide("away"),
            Some("no") => Verdict::deny("no").obliging("never"),
            Some("plain") => Verdict::allow(),
            _ if query.attribute("urgent").is_some() => Verdict::allow().advising("hurry"),
            _ => Verdict::allow().obliging(mask).advising("tell"),
        }
    }
}

#[tokio::test]
async fn obligations_and_advice_reach_the_handler() {
    let handler = async |request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap();
        let [mask] = &context.obligations()[..] else { panic!("one obligation: {:?}", context.obligations()) };
        assert_eq!(mask.parameter("fields"), Some(&serde_json::json!(["email"])));
        assert_eq!(context.advice(), ["tell".into()]);
        let authz = Authorizer::of(request.extensions()).unwrap();
        let thing = |id: &str| Resource::new("thing", id);
        assert_eq!(kind(authz.check("read", &thing("x")).await), RejectionKind::Misconfigured, "nobody fulfils it");
        let masking = authz.clone().fulfilling(["mask"]);
        let permit = masking.check("read", &thing("x")).await.unwrap();
        assert_eq!(permit.obligation("mask").unwrap().to_string(), r#"mask {"fields":["email"]}"#);
        assert!(permit.obligation("other").is_none() && permit.advice().len() == 1);
        let urgent = authz.clone().with_attributes(Attributes::new().with("urgent", true));
        assert_eq!(urgent.check("read", None).await.unwrap().advice(), ["hurry".into()]);
        let more = urgent.with_attributes(Attributes::new().with("ticket", "T-7"));
        assert_eq!(more.check("read", None).await.unwrap().advice(), ["hurry".into()], "what was said before counts");
        let several = authz.clone().fulfilling(["mask"]).fulfilling(["log"]);
        assert!(several.check("read", &thing("x")).await.is_ok(), "one declaration adds to the other");

        assert_eq!(masking.check_all("read", &[thing("a"), thing("plain")]).await.unwrap().len(), 2);
        assert!(masking.check_all("read", &[]).await.unwrap().is_empty());
        for (things, expected) in [
            (&["a", "no"][..], RejectionKind::Forbidden),
            (&["undecided", "a"], RejectionKind::Unavailable),
            (&["undecided", "no"], RejectionKind::Forbidden),
            (&["no", "undecided"], RejectionKind::Forbidden),
        ] {
            let things: Vec<Resource> = things.iter().map(|id| thing(id)).collect();
            assert_eq!(kind(masking.check_all("read", &things).await), expected, "{things:?}");
        }
        let ids = |ids: &[&'static str]| ids.to_vec();
        assert_eq!(masking.filter("read", ids(&["a", "no", "plain"]), |id| thing(id)).await.unwrap(), ["a", "plain"]);
        assert_eq!(authz.filter("read", ids(&["a", "no", "plain"]), |id| thing(id)).await.unwrap(), ["plain"]);
        assert_eq!(
            kind(masking.filter("read", ids(&["a", "undecided"]), |id| thing(id)).await),
            RejectionKind::Unavailable
        );
        Ok::<_, Infallible>(Response::<String>::default())
    };
    let guard = require(policy("read").unwrap()).with_policy(Masking).fulfilling(["mask"]).fulfilling(["log"]);
    let app = ServiceBuilder::new().layer(authn(alice().build())).layer(guard).service_fn(handler);
    assert_eq!(send(&app, get("/x")).await.status(), 200);
}

#[tokio::test]
async fn public_routes_stay_public() {
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme()).route("GET /x", public().hide());
    assert_eq!(send(&stack.build().unwrap().protect(Probe::default()), get("/x")).await.status(), 200);
}

/// Answers for fewer things than it was asked about.
#[derive(Debug)]
struct Forgetful;

#[async_trait]
impl PolicyBackend for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::allow()
    }

    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        vec![Verdict::allow(); queries.len() - 1]
    }
}

#[tokio::test]
async fn in_shadow_mode_the_handler_asks_the_guards_policy_whatever_the_guard_refuses() {
    let handler = async |request: Request<()>| {
        let authz = Authorizer::of(request.extensions()).unwrap();
        assert_eq!(kind(authz.check("no", None).await), RejectionKind::Forbidden, "the stack's policy would allow it");
        Ok::<_, Infallible>(Response::<String>::default())
    };
    let later = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
    let nameless = from_head("nothing", |_, _| None);
    let guard = require(policy("no").unwrap()).with_policy(Listening::default()).on(nameless).shadow(later);
    let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(test_scheme()).policy(Masking);
    let app = stack.route("GET /", guard.clone()).build().unwrap().protect(tower::service_fn(handler));
    let response = send(&app, with(get("/"), "authorization", "Test alice")).await;
    assert_eq!((response.status().as_u16(), guard.would_refuse()), (200, 1));
}

#[tokio::test]
async fn a_batch_with_a_hole_decides_nothing() {
    let handler = async |request: Request<()>| {
        let authz = Authorizer::of(request.extensions()).unwrap();
        let things = [Resource::new("a", 1), Resource::new("a", 2)];
        let rejection = authz.check_all("read", &things).await.unwrap_err();
        assert_eq!(rejection.kind(), RejectionKind::Unavailable);
        assert!(authz.filter("read", things.to_vec(), Clone::clone).await.is_err());
        Ok::<_, Infallible>(Response::<String>::default())
    };
    let guard = require(authenticated()).with_policy(Forgetful);
    let app = ServiceBuilder::new().layer(authn(alice().build())).layer(guard).service_fn(handler);
    assert_eq!(send(&app, get("/x")).await.status(), 200);
}

#[tokio::test]
async fn the_handlers_question_carries_the_route() {
    let heard = std::sync::Arc::new(Listening::default());
    let ask = async |authz: Authorizer| authz.check("yes", &Resource::new("order", 1)).await.map(|_| "done");
    let inner = Router::new().route("/orders/{id}", routing::get(ask));
    let guard = require(authenticated()).with_policy(std::sync::Arc::clone(&heard));
    let router = Router::new().nest("/api", inner).layer(guard).layer(authn(alice().build()));
    let response = router.oneshot(get("/api/orders/7").map(|()| Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*heard.0.lock().unwrap(), ["yes /api/orders/{id} order 1 -"]);
}

/// A stack matches the path that it sees: stripped, if it stands inside a nest. A guard inside it goes by the router's.
#[tokio::test]
async fn stacks_and_guards_inside_nests_find_the_thing() {
    let order = || from_path("order", "{id}").unwrap();
    for (name, stack_line, nested) in
        [("the stack inside the nest", "GET /orders/{id}", true), ("outside", "GET /api/orders/{id}", false)]
    {
        let heard = std::sync::Arc::new(Listening::default());
        let stack = Stack::builder()
            .tls(TlsLayer::require())
            .authenticate(test_scheme())
            .policy(std::sync::Arc::clone(&heard))
            .route(stack_line, require(policy("yes").unwrap()).on(order()))
            .build()
            .unwrap();
        let guard = || require(policy("yes").unwrap()).on(order());
        let inner = Router::new().route("/orders/{id}", routing::get(async || "handler").layer(guard()));
        let request = with(get("/api/orders/7"), "authorization", "Test alice").map(|()| Body::empty());
        let response = if nested {
            Router::new().nest_service("/api", stack.protect(inner)).oneshot(request).await.unwrap()
        } else {
            stack.protect(Router::new().nest("/api", inner)).oneshot(request).await.unwrap()
        };
        assert_eq!(response.status(), 200, "{name}");
        let heard = heard.0.lock().unwrap();
        assert!(heard.len() == 2 && heard.iter().all(|heard| heard.ends_with("order 7 -")), "{name}: {heard:?}");
    }
}

/// The line of the table stands for many routes; the policy is asked about the one that the router matched.
#[tokio::test]
async fn a_guard_inside_the_router_asks_about_the_route_of_the_router() {
    let heard = std::sync::Arc::new(Listening::default());
    let stack = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .policy(std::sync::Arc::clone(&heard))
        .route("ANY /api/{*rest}", require(authenticated()))
        .build()
        .unwrap();
    let guarded = routing::get(async || "handler").layer(require(policy("yes").unwrap()));
    let router = Router::new().route("/api/admin/{id}", guarded);
    let request = with(get("/api/admin/7"), "authorization", "Test alice").map(|()| Body::empty());
    assert_eq!(stack.protect(router).oneshot(request).await.unwrap().status(), 200);
    assert_eq!(*heard.0.lock().unwrap(), ["yes /api/admin/{id} -"]);
}

/// A guard would decide about the first, and a handler that takes the last would act on another thing.
#[tokio::test]
async fn a_parameter_that_stands_twice_names_no_thing() {
    let user = || from_path("user", "{id}").unwrap();
    let build = |line: &str| {
        Stack::builder()
            .tls(TlsLayer::require())
            .authenticate(test_scheme())
            .policy(Listening::default())
            .route(line, require(policy("yes").unwrap()).on(user()))
            .build()
    };
    assert!(build("DELETE /orgs/{org}/users/{id}").is_ok());
    let error = build("DELETE /orgs/{id}/users/{id}").unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let heard = std::sync::Arc::new(Listening::default());
    let guard = require(policy("yes").unwrap()).with_policy(std::sync::Arc::clone(&heard)).on(user());
    assert_eq!(on_route("/orgs/{id}/users/{id}", guard, alice(), "/orgs/7/users/42").await, 500);
    assert!(heard.0.lock().unwrap().is_empty());
}
