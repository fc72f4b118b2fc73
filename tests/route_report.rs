//! What a reviewer asks of a stack: routes without a rule, rules without a route, and who may use which.

mod support;

use async_trait::async_trait;
use axum::{Router, body::Body};
use portcullis::{
    Clock, Now, ShadowMode,
    axum::Routes,
    guard::{all, any, authenticated, deny, from_head, from_path, not, policy, public, relation, require, role, scope},
    policy::{AccessQuery, Decision, PolicyBackend, QueryParts, Rbac, Resource, Verdict},
    stack::{RouteList, Stack, StackBuilder},
    tls::TlsLayer,
};
use support::{Still, get, test_scheme, text, with};
use tower::ServiceExt;

fn base() -> StackBuilder {
    Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme())
}

#[test]
fn what_does_not_fit_is_told() {
    let stack = base()
        .route("GET /health", public())
        .route("GET /orders/{id}", require(authenticated()))
        .route("DELETE /orders/{id}", require(authenticated()))
        .route("ANY /files/{*path}", require(authenticated()))
        .route("GET /files/{*path}", require(authenticated()))
        .route("GET /odrers", require(authenticated()))
        .route("ANY /any", require(authenticated()))
        .build()
        .unwrap();
    let report = |lines: &[&str]| stack.report(&RouteList::from_lines(lines.iter().copied()).unwrap());
    let all = [
        "GET /health",
        "GET /orders/{number}",
        "DELETE /orders/{number}",
        "POST /files/{*rest}",
        "GET /files/{*rest}",
        "ANY /any",
        "GET /odrers",
    ];
    assert!(report(&all).is_clean(), "{}", report(&all));
    let told = report(&[
        "GET /health",
        "POST /health",
        "GET /orders",
        "GET /orders/new",
        "GET /orders/{id}",
        "POST /files/{name}",
        "ANY /health",
    ]);
    assert_eq!(told.routes_without_rule(), ["POST /health", "GET /orders", "ANY /health"]);
    assert_eq!(
        told.routes_under_another(),
        [
            ("GET /orders/new".to_owned(), "GET /orders/{id}".to_owned()),
            ("POST /files/{name}".to_owned(), "ANY /files/{*path}".to_owned()),
        ]
    );
    assert_eq!(told.rules_without_route(), ["DELETE /orders/{id}", "GET /files/{*path}", "GET /odrers", "ANY /any"]);
    assert!(!told.is_clean());
    let text = told.to_string();
    for line in [
        "a route without a rule: GET /orders\n",
        "a route under the rule of another: GET /orders/new, under GET /orders/{id}\n",
        "a rule without a route: GET /odrers\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // The fallback is no rule of a route's own.
    let open = base().route("GET /a", public()).fallback(require(authenticated())).build().unwrap();
    let list = RouteList::from_lines(["GET /a", "GET /b"]).unwrap();
    assert_eq!(open.report(&list).routes_without_rule(), ["GET /b"]);
}

#[tokio::test]
async fn routes_are_kept_while_the_router_is_built() {
    let orders = Routes::new().route("GET /", async || "list").route("DELETE /{id}", async || "gone");
    let (router, list): (Router, _) = Routes::new()
        .route("GET /health", async || "well")
        .route("ANY /echo", async || "echo")
        .route("POST /health", async || "set")
        .nest("/orders", orders)
        .build()
        .unwrap();
    let lines: Vec<String> = list.lines().collect();
    assert_eq!(lines, ["GET /health", "ANY /echo", "POST /health", "GET /orders", "DELETE /orders/{id}"]);
    let stack = lines.iter().fold(base(), |stack, line| stack.route(line, require(authenticated())));
    let stack = stack.build().unwrap();
    assert!(stack.report(&list).is_clean());
    let app = stack.protect(router);
    for (method, path, expected) in [
        ("GET", "/health", "well"),
        ("POST", "/health", "set"),
        ("PUT", "/echo", "echo"),
        ("GET", "/orders", "list"),
        ("DELETE", "/orders/7", "gone"),
    ] {
        let mut request = with(get(path), "authorization", "Test alice").map(|()| Body::empty());
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(text(app.clone().oneshot(request).await.unwrap()).await, expected, "{method} {path}");
    }
    for (name, routes) in [
        ("a method that axum does not know", Routes::<()>::new().route("PURGE /x", async || "")),
        ("no method", Routes::new().route("/x", async || "")),
        ("twice", Routes::new().route("GET /x", async || "").route("GET /x", async || "")),
        ("two names", Routes::new().route("GET /{a}", async || "").route("PUT /{b}", async || "")),
        ("no path", Routes::new().route("GET x", async || "")),
        ("a parameter of old", Routes::new().route("GET /orders/:id", async || "")),
        ("the rest of a path of old", Routes::new().route("ANY /files/*rest", async || "")),
        ("nested below a parameter of old", Routes::new().nest("/:t", Routes::new().route("GET /x", async || ""))),
        ("nested with a mistake", Routes::new().nest("/a", Routes::new().route("FOO /x", async || ""))),
        ("nested below nothing", Routes::new().nest("a", Routes::new().route("GET /x", async || ""))),
    ] {
        assert!(routes.build().is_err(), "{name}");
    }
}

/// Waits for everything that it is asked.
#[derive(Debug)]
struct Remote;

#[async_trait]
impl PolicyBackend for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::allow()
    }
}

#[test]
fn the_matrix_of_routes() {
    let rbac = Rbac::from_toml(
        "version = \"1\"\npermissions = [\"read\", \"cancel\"]\n[roles.clerk]\ngrants = [\"read\"]\n\
         [roles.manager]\ninherits = [\"clerk\"]\ngrants = [\"cancel\"]\n[[assignments]]\nissuer = \"i\"\n\
         subject = \"s\"\nkind = \"service\"\nroles = [\"manager\"]",
    )
    .unwrap();
    let [read, cancel] = ["read", "cancel"].map(|name| rbac.permission(name).unwrap());
    let clerk = rbac.role("clerk").unwrap();
    let own = relation("own", |user, subject| user.id() == subject.subject());
    let stack = base()
        .policy(rbac.clone())
        .route("GET /health", public())
        .route("GET /closed", deny())
        .route("GET /orders", require(read.clone()))
        .route("DELETE /orders", require(cancel.clone()))
        .route("GET /policy", require(policy("cancel").unwrap()))
        .route("GET /named", require(role("clerk").unwrap()))
        .route("GET /inherited", require(&clerk))
        .route("GET /scoped", require(all((read.clone(), scope("s").unwrap()))))
        .route("GET /either", require(any((cancel, scope("s").unwrap()))))
        .route("GET /not", require(not(scope("s").unwrap())))
        .route("GET /own/{id}", require(any((read, own))).on(from_path("user", "{id}").unwrap()))
        .build()
        .unwrap();
    let matrix = stack.matrix(rbac.roles());
    for (line, clerk, manager) in [
        ("GET /health", "yes", "yes"),
        ("GET /closed", "", ""),
        ("GET /orders", "yes", "yes"),
        ("DELETE /orders", "", "yes"),
        ("GET /policy", "", "yes"),
        ("GET /named", "yes", ""),
        ("GET /inherited", "yes", "yes"),
        ("GET /scoped", "depends", "depends"),
        ("GET /either", "depends", "yes"),
        ("GET /not", "depends", "depends"),
        ("GET /own/{id}", "yes", "yes"),
    ] {
        assert_eq!((matrix.cell("clerk", line), matrix.cell("manager", line)), (Some(clerk), Some(manager)), "{line}");
    }
    let guest = stack.matrix(["guest"]);
    assert_eq!((guest.cell("guest", "GET /scoped"), guest.cell("guest", "GET /own/{id}")), (Some(""), Some("depends")));
    let rules = stack.rules();
    assert!(rules.contains(&("GET /own/{id}".to_owned(), "any(permission read, own) on user {id}".to_owned())));
    let remote = base().policy(Remote).route("GET /x", require(policy("x").unwrap())).build().unwrap();
    assert_eq!(remote.matrix(["clerk"]).cell("clerk", "GET /x"), Some("depends"));
}

/// Says at once what it was made with, and what that depends on.
#[derive(Debug)]
struct Fixed(Decision, QueryParts);

#[async_trait]
impl PolicyBackend for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(if self.0 == Decision::Allow { Verdict::allow() } else { Verdict::deny("fixed") })
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::deny("never asked")
    }

    fn parts(&self) -> QueryParts {
        self.1
    }
}

/// Nobody is said to be refused, or to pass, who is not: what depends on more than the role says so.
#[test]
fn the_matrix_says_where_it_depends() {
    let rbac = Rbac::from_toml(
        "version = \"1\"\npermissions = [\"read\", \"cancel\"]\n[roles.clerk]\ngrants = [\"read\"]\n\
         grants_own = [\"cancel\"]\n[roles.guest]\ngrants = []\n[roles.banned]\ndenies = [\"*\"]",
    )
    .unwrap();
    let [read, cancel] = ["read", "cancel"].map(|name| rbac.permission(name).unwrap());
    let path = || from_path("order", "{id}").unwrap();
    let of_tenant = || from_path("order", "{id}").unwrap().in_tenant("{t}").unwrap();
    let of_head = || from_head("order", |_, _| Some(Resource::new("order", 1)));
    let ask = || require(policy("read").unwrap());
    let fixed = |decision, parts| ask().with_policy(Fixed(decision, parts));
    let later = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
    let roles = QueryParts::ROLES;
    let stack = base()
        .clock(Still)
        .policy(rbac.clone())
        // The guard's own policy, and not the stack's.
        .route("GET /yes", fixed(Decision::Allow, roles))
        .route("GET /no", fixed(Decision::Deny, roles.and(QueryParts::METHOD).and(QueryParts::ROUTE)))
        .route("ANY /no", fixed(Decision::Deny, roles.and(QueryParts::ROUTE)))
        .route("ANY /method", fixed(Decision::Deny, roles.and(QueryParts::METHOD)))
        .route("GET /waits", ask().with_policy(Remote))
        .route("GET /rbac", ask().with_policy(rbac.clone()))
        .route("GET /time", fixed(Decision::Deny, roles.and(QueryParts::TIME)))
        .route("GET /address", fixed(Decision::Deny, roles.and(QueryParts::ADDRESS)))
        .route("GET /client", fixed(Decision::Deny, roles.and(QueryParts::CLIENT)))
        .route("GET /scopes", fixed(Decision::Deny, roles.and(QueryParts::SCOPES)))
        .route("GET /strength", fixed(Decision::Deny, roles.and(QueryParts::STRENGTH)))
        .route("GET /claims", fixed(Decision::Allow, roles.and(QueryParts::CLAIMS)))
        .route("GET /carried", fixed(Decision::Allow, roles.and(QueryParts::PERMISSIONS)))
        .route("GET /tenant", fixed(Decision::Deny, roles.and(QueryParts::TENANT)))
        .route("GET /subject", fixed(Decision::Deny, roles.and(QueryParts::SUBJECT)))
        .route("GET /all", fixed(Decision::Deny, QueryParts::ALL))
        // Shadow mode refuses nobody until its day.
        .route("GET /shadow", require(read.clone()).shadow(later))
        // Whose the thing is.
        .route("GET /path/{id}", require(read.clone()).on(path()))
        .route("DELETE /path/{id}", require(cancel.clone()).on(path()))
        .route("GET /t/{t}/{id}", require(read.clone()).on(of_tenant()))
        .route("GET /head", require(read.clone()).on(of_head()))
        .route("DELETE /head", require(cancel.clone()).on(of_head()))
        .route("DELETE /later", require(cancel.clone().allow_owners()))
        .route("DELETE /none", require(cancel))
        .build()
        .unwrap();
    let matrix = stack.matrix(rbac.roles());
    for (line, clerk, guest, banned) in [
        ("GET /yes", "yes", "yes", "yes"),
        ("GET /no", "", "", ""),
        ("ANY /no", "", "", ""),
        // Which method it is, the line does not say.
        ("ANY /method", "depends", "depends", "depends"),
        ("GET /waits", "depends", "depends", "depends"),
        ("GET /rbac", "yes", "", ""),
        ("GET /time", "depends", "depends", "depends"),
        ("GET /address", "depends", "depends", "depends"),
        ("GET /client", "depends", "depends", "depends"),
        ("GET /scopes", "depends", "depends", "depends"),
        ("GET /strength", "depends", "depends", "depends"),
        ("GET /claims", "depends", "depends", "depends"),
        ("GET /carried", "depends", "depends", "depends"),
        ("GET /tenant", "depends", "depends", "depends"),
        ("GET /subject", "depends", "depends", "depends"),
        ("GET /all", "depends", "depends", "depends"),
        ("GET /shadow", "yes", "depends", "depends"),
        // A path names no owner, and here no tenant.
        ("GET /path/{id}", "yes", "", ""),
        ("DELETE /path/{id}", "", "", ""),
        ("GET /t/{t}/{id}", "depends", "", ""),
        ("GET /head", "depends", "", ""),
        ("DELETE /head", "depends", "", ""),
        // The handler asks.
        ("DELETE /later", "depends", "", ""),
        ("DELETE /none", "", "", ""),
    ] {
        let cells = ["clerk", "guest", "banned"].map(|role| matrix.cell(role, line));
        assert_eq!(cells, [Some(clerk), Some(guest), Some(banned)], "{line}");
    }

    let trusting = rbac.trust_credential_permissions();
    let read = trusting.permission("read").unwrap();
    let stack = base().policy(trusting.clone()).route("GET /x", require(read)).route("GET /y", ask()).build().unwrap();
    let matrix = stack.matrix(trusting.roles());
    for (line, clerk, guest, banned) in [("GET /x", "yes", "depends", ""), ("GET /y", "depends", "depends", "depends")]
    {
        let cells = ["clerk", "guest", "banned"].map(|role| matrix.cell(role, line));
        assert_eq!(cells, [Some(clerk), Some(guest), Some(banned)], "permissions of a credential: {line}");
    }
}

/// A router of this crate that is nested has its lines, so that a report can be clean.
#[cfg(all(feature = "api-key-admin", feature = "revocation-admin"))]
#[test]
fn routers_of_administration_are_told_of_as_well() {
    use portcullis::{key_admin, revocation_admin};

    let policy = Rbac::from_toml(
        "version = '1'\npermissions = ['keys:create', 'keys:read', 'keys:rotate', 'keys:revoke', 'keys:disable-owner', \
         'tokens:revoke', 'tokens:revoke-many']",
    );
    let rules = key_admin::rules("/admin").into_iter().chain(revocation_admin::rules("/admin"));
    let stack = rules.fold(base().policy(policy.unwrap()), |stack, (line, rule)| stack.route(line, rule));
    let stack = stack.route("GET /orders", require(authenticated())).build().unwrap();
    let own = RouteList::from_lines(["GET /orders"]).unwrap();
    assert!(!stack.report(&own).is_clean());
    let all = own.and(key_admin::routes("/admin").unwrap()).and(revocation_admin::routes("/admin").unwrap());
    assert!(stack.report(&all).is_clean(), "{}", stack.report(&all));
}
