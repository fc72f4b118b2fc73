//! What a reviewer asks of a stack: routes without a rule, rules without a route, and who may use which.

mod support;

use async_trait::async_trait;
use axum::{Router, body::Body};
use portcullis::{
    axum::Routes,
    guard::{all, any, authenticated, deny, from_path, not, owner, policy, public, require, role, scope},
    policy::{AccessQuery, PolicyBackend, Rbac, Verdict},
    stack::{RouteList, Stack, StackBuilder},
    tls::TlsLayer,
};
use support::{get, test_scheme, text, with};
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
         [roles.manager]\ninherits = [\"clerk\"]\ngrants = [\"cancel\"]",
    )
    .unwrap();
    let [read, cancel] = ["read", "cancel"].map(|name| rbac.permission(name).unwrap());
    let clerk = rbac.role("clerk").unwrap();
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
        .route("GET /own/{id}", require(any((read, owner()))).on(from_path("order", "{id}").unwrap()))
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
    assert!(rules.contains(&("GET /own/{id}".to_owned(), "any(permission read, owner) on order {id}".to_owned())));
    let remote = base().policy(Remote).route("GET /x", require(policy("x").unwrap())).build().unwrap();
    assert_eq!(remote.matrix(["clerk"]).cell("clerk", "GET /x"), Some("depends"));
}
