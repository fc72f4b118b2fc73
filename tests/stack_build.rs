//! Mistakes that a stack refuses to be built with, each naming the setting and the value.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use portcullis::{
    ConfigError,
    guard::{authenticated, public, require, scope},
    policy::Rbac,
    problem::ProblemDetails,
    rate_limit::Quota,
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};
use support::test_scheme;

const POLICY: &str = r#"
version = "1"
permissions = ["orders:list"]
[roles.clerk]
grants = ["orders:list"]
"#;

fn closed() -> StackBuilder {
    Stack::builder().tls(TlsLayer::require()).authenticate(test_scheme())
}

fn error(builder: StackBuilder) -> ConfigError {
    builder.build().expect_err("must be refused")
}

#[test]
fn wrong_combinations_are_refused() {
    let policy = || Rbac::from_toml(POLICY).unwrap();
    let list = || policy().permission("orders:list").unwrap();
    let bare = || Stack::builder().tls(TlsLayer::require());
    for (name, builder, setting) in [
        ("authentication without TLS", Stack::builder().authenticate(test_scheme()), "authenticate"),
        ("TLS, and not", closed().dangerous_plain_http(), "dangerous_plain_http"),
        ("rule without authentication", bare().route("GET /", require(authenticated())), "route"),
        ("fallback without authentication", bare().fallback(require(scope("a").unwrap())), "route"),
        ("policy without authentication", bare().policy(policy()), "policy"),
        ("limit without authentication", bare().limit_principals(Quota::per_second(1)), "limit_principals"),
        ("permission without policy", closed().route("GET /", require(list())), "policy"),
        ("permission of another policy", closed().policy(policy()).route("GET /", require(list())), "policy"),
        ("route without method", closed().route("/orders", public()), "route"),
        ("route twice", closed().route("GET /", public()).route("GET /", public()), "route"),
        ("TLS twice", closed().tls(TlsLayer::require()), "tls"),
        ("authentication twice", closed().authenticate(test_scheme()), "authenticate"),
        ("policy twice", closed().policy(policy()).policy(policy()), "policy"),
        ("fallback twice", closed().fallback(public()).fallback(public()), "fallback"),
        (
            "limit twice",
            closed().limit_clients(Quota::per_second(1)).limit_clients(Quota::per_second(2)),
            "limit_clients",
        ),
        ("renderer twice", closed().renderer(ProblemDetails::new()).renderer(ProblemDetails::new()), "renderer"),
    ] {
        assert_eq!(error(builder).setting(), setting, "{name}");
    }
}

/// Who has two hundred lines wants to know which.
#[test]
fn an_error_names_the_line() {
    let policy = || Rbac::from_toml(POLICY).unwrap();
    let list = || policy().permission("orders:list").unwrap();
    let bare = || Stack::builder().tls(TlsLayer::require());
    for (builder, named) in [
        (bare().route("GET /open", public()).route("GET /orders", require(authenticated())), "GET /orders"),
        (bare().fallback(require(authenticated())), "fallback"),
        (bare().limit_principals(Quota::per_second(1)), "the limit principal"),
        (bare().policy(policy()), "rbac"),
        (closed().route("GET /open", public()).route("GET /orders", require(list())), "GET /orders"),
        (closed().policy(policy()).route("PUT /orders", require(list())), "PUT /orders"),
    ] {
        let error = error(builder);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn zero_quotas_are_refused() {
    for builder in
        [closed().limit_clients(Quota::per_second(0)), closed().limit_principals(Quota::per_minute(10).burst(0))]
    {
        let error = error(builder);
        assert!(error.to_string().contains('0'), "{error}");
    }
}

#[test]
fn any_call_order_builds_the_same_stack() {
    let policy = Rbac::from_toml(POLICY).unwrap();
    let list = policy.permission("orders:list").unwrap();
    let one = Stack::builder()
        .route("GET /orders", require(list.clone()))
        .limit_principals(Quota::per_second(5))
        .policy(policy.clone())
        .authenticate(test_scheme())
        .tls(TlsLayer::require())
        .limit_clients(Quota::per_second(50))
        .build()
        .unwrap();
    let other = Stack::builder()
        .limit_clients(Quota::per_second(50))
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .policy(policy)
        .limit_principals(Quota::per_second(5))
        .route("GET /orders", require(list))
        .build()
        .unwrap();
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[test]
fn a_stack_is_shared_between_threads() {
    fn shared<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    shared::<Stack>();
    shared::<portcullis::stack::Protected<support::Probe>>();
}
