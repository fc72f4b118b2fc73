//! Mistakes that a stack refuses to be built with, each naming the setting and the value.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use http::HeaderName;
use portcullis::{
    Challenge, ConfigError, Instants, RequestHead,
    authn::{Authenticator, Outcome},
    evidence::TrustedProxies,
    guard::{self, GuardLayer, RouteRules, RuleNames, all, any, authenticated, not, public, require, scope},
    policy::{Combined, PolicyBackend, Rbac},
    problem::ProblemDetails,
    rate_limit::{ConcurrencyLayer, LimitBy, Quota, RateLimitLayer},
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
    let twice = error(closed().authenticate(test_scheme())).to_string();
    assert_eq!(twice, "authenticate: 2 calls are made, and a stack takes one: join them with one_of or both");
}

/// Reads a field of its own.
#[derive(Debug)]
struct Tickets(&'static str);

#[async_trait::async_trait]
impl Authenticator for Tickets {
    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::new("Ticket", "events").unwrap()]
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![HeaderName::from_static(self.0)]
    }

    async fn authenticate(&self, _: &RequestHead<'_>, _: Instants) -> Outcome {
        Outcome::Absent
    }
}

/// What a client sends as its credential would be read as its address.
#[test]
fn a_proxys_word_stands_in_no_field_of_a_credential() {
    let name = HeaderName::from_static;
    let stack = || Stack::builder().tls(TlsLayer::require()).authenticate(Tickets("x-ticket"));
    let address = |field| TrustedProxies::address_header(name(field), ["10.0.0.7"]).unwrap();
    for (case, proxies, accepted) in [
        ("address", address("x-ticket"), false),
        ("scheme", address("x-real-ip").with_scheme_header(name("x-ticket")).unwrap(), false),
        ("others", address("x-real-ip").with_scheme_header(name("x-scheme")).unwrap(), true),
    ] {
        let built = stack().proxies(proxies.clone()).build().map_err(|error| error.to_string());
        let expected =
            Err("proxies: x-ticket carries a credential, and no proxy's word: name another field".to_owned());
        assert_eq!(built.map(|_| ()), if accepted { Ok(()) } else { expected }, "{case}");
        assert!(Stack::builder().dangerous_plain_http().proxies(proxies).build().is_ok(), "{case}: nobody reads it");
    }
}

/// What proxies write is removed before anybody is authenticated: such a credential never arrived.
#[test]
fn a_field_that_is_removed_from_every_request_is_no_place_of_credentials() {
    let stack = |field, proxies| {
        Stack::builder().tls(TlsLayer::require()).authenticate(Tickets(field)).proxies(proxies).build().map(drop)
    };
    let family = || TrustedProxies::x_forwarded(["10.0.0.7"]).unwrap();
    for (field, by_strangers, by_proxies) in [
        ("x-ticket", true, true),
        ("remote", true, true),
        ("x-remote", true, true),
        ("remote-key", false, true),
        ("x-goog-iap-jwt-assertion", false, true),
        ("remote_key", false, false),
        ("x-real-ip", false, false),
        ("x-ssl-client-verify", false, false),
    ] {
        for (proxies, accepted) in [(TrustedProxies::none(), by_strangers), (family(), by_proxies)] {
            let built = stack(field, proxies).map_err(|error| (error.setting().to_owned(), error.value().to_owned()));
            let expected = Err(("authenticate".to_owned(), field.to_owned()));
            assert_eq!(built, if accepted { Ok(()) } else { expected }, "{field}");
        }
    }
}

#[cfg(feature = "client-cert")]
#[test]
fn a_certificate_stands_in_no_field_of_a_credential() {
    use portcullis::evidence::CertificateHeader;

    let stack = || Stack::builder().tls(TlsLayer::require()).authenticate(Tickets("x-ticket"));
    let proxies = |field| {
        let header = CertificateHeader::escaped_pem(HeaderName::from_static(field));
        TrustedProxies::x_forwarded(["10.0.0.7"]).unwrap().with_client_certificates(header)
    };
    for field in ["x-ticket", "authorization", "cookie", "x-api-key"] {
        let error = stack().proxies(proxies(field)).build().map(drop).unwrap_err();
        assert_eq!((error.setting(), error.value()), ("proxies", field), "{error}");
    }
    assert!(stack().proxies(proxies("x-ssl-client-cert")).build().is_ok());
}

/// A store outside keeps a key as text: whoever reads it there would have the credential.
#[test]
fn no_limit_counts_by_a_field_that_the_authenticator_reads() {
    let stack = || Stack::builder().tls(TlsLayer::require()).authenticate(Tickets("x-ticket"));
    let by = |field| LimitBy::header(field).unwrap();
    let quota = |by| RateLimitLayer::per(by, Quota::per_second(5)).unwrap();
    for (case, by) in [
        ("alone", by("X-Ticket")),
        ("beside the address", LimitBy::source().and(by("x-ticket")).unwrap()),
        ("beside the identity", LimitBy::principal().and(by("x-ticket")).unwrap()),
    ] {
        let at_once = ConcurrencyLayer::per(by.clone(), 5).unwrap();
        for built in [stack().limit(quota(by.clone())).build(), stack().limit_concurrency(at_once).build()] {
            let error = built.map(drop).unwrap_err();
            assert_eq!((error.setting(), error.value()), ("limit key", "x-ticket"), "{case}: {error}");
        }
    }
    assert!(stack().limit(quota(by("x-device"))).build().is_ok());
    assert!(Stack::builder().dangerous_plain_http().limit(quota(by("x-ticket"))).build().is_ok(), "nobody reads it");
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

/// A handle asks its role policy alone: what else the stack's policy is made of would not count on the line.
#[test]
fn handles_are_of_the_policy_that_is_asked_on_their_line() {
    let rbac = Rbac::from_toml(POLICY).unwrap();
    let (list, clerk) = (rbac.permission("orders:list").unwrap(), rbac.role("clerk").unwrap());
    let barred = || Rbac::from_toml(&POLICY.replace("grants", "denies")).unwrap();
    let combined = || Combined::deny_overrides(barred()).with(rbac.clone());
    let rules = |rule: &str| {
        let text = format!("[routes]\n\"GET /\" = {rule}\n");
        RouteRules::from_toml(&text, &RuleNames::new().rbac(&rbac)).unwrap()
    };
    let at = |rule: GuardLayer| closed().route("GET /", rule);
    for (name, builder, instead) in [
        ("permission", at(require(&list)).policy(combined()), "write policy(\"orders:list\")"),
        ("role", at(require(&clerk)).policy(combined()), "write policy(..)"),
        ("inside", at(require(not(any((authenticated(), &clerk))))).policy(combined()), "write policy(..)"),
        (
            "rule of a file",
            closed().routes(rules("{ permission = 'orders:list' }")).policy(combined()),
            "write policy(",
        ),
        ("role in a file", closed().routes(rules("{ role = 'clerk' }")).policy(combined()), "write policy("),
        ("fallback", closed().fallback(require(&list)).policy(combined()), "write policy("),
        #[cfg(feature = "policy-cached")]
        ("cached", at(require(&list)).policy(portcullis::policy::Cached::new(rbac.clone()).unwrap()), "write policy("),
        #[cfg(feature = "policy-shadow")]
        (
            "shadowed",
            at(require(&list)).policy(portcullis::policy::Shadow::new(rbac.clone(), barred())),
            "write policy(",
        ),
        ("boxed", at(require(&list)).policy(Box::new(combined()) as Box<dyn PolicyBackend>), "write policy("),
        ("guard's own", at(require(&list).with_policy(combined())).policy(rbac.clone()), "write policy("),
        ("another", at(require(&list)).policy(barred()), "of another policy"),
        ("guard's own is another", at(require(&list).with_policy(barred())).policy(rbac.clone()), "of another policy"),
    ] {
        let error = error(builder).to_string();
        assert!(error.contains("orders:list of") || error.contains("clerk of"), "{name}: {error}");
        assert!(error.contains(instead), "{name}: {error}");
    }
    for (name, builder) in [
        ("the very policy", at(require(&list)).policy(rbac.clone())),
        ("shared", at(require(&list)).policy(std::sync::Arc::new(rbac.clone()))),
        ("guard's own", at(require(&list).with_policy(rbac.clone())).policy(combined())),
        ("guard's own alone", at(require(&list).with_policy(rbac.clone()))),
        ("no handle", at(require(guard::policy("orders:list").unwrap())).policy(combined())),
        ("no handle in a file", closed().routes(rules("{ policy = 'orders:list' }")).policy(combined())),
        ("said", at(require(all((&list, &clerk)))).policy(combined()).handles_ask_their_own_policy()),
        ("said of another", at(require(&list)).policy(barred()).handles_ask_their_own_policy()),
    ] {
        assert!(builder.build().is_ok(), "{name}");
    }
    assert_eq!(error(at(require(&list)).handles_ask_their_own_policy()).setting(), "policy", "there is none at all");
}

/// What the policy does not know is denied to everybody, and nobody would see why before they ask.
#[test]
fn an_action_that_the_policy_does_not_know_is_refused() {
    let rbac = || Rbac::from_toml(POLICY).unwrap();
    let other = || Rbac::from_toml(&POLICY.replace("orders:list", "orders:cancel")).unwrap();
    let asks = |action: &str| require(guard::policy(action).unwrap());
    let at = |rule: GuardLayer| closed().route("GET /orders", rule);
    let both = |how: fn(Rbac) -> Combined| how(rbac()).with(other());
    let known = |name: &str, builder: StackBuilder| assert!(builder.build().is_ok(), "{name}");
    for (name, builder) in [
        ("a typo", at(asks("orders:lits")).policy(rbac())),
        ("inside", at(require(not(any((authenticated(), guard::policy("orders:lits").unwrap()))))).policy(rbac())),
        ("of the guard's own", at(asks("orders:list").with_policy(other())).policy(rbac())),
        ("shared", at(asks("orders:lits")).policy(std::sync::Arc::new(rbac()))),
        ("all must allow", at(asks("orders:list")).policy(both(Combined::all_of))),
        ("none of several", at(asks("orders:lits")).policy(both(Combined::any_of))),
        #[cfg(feature = "policy-cached")]
        ("cached", at(asks("orders:lits")).policy(portcullis::policy::Cached::new(rbac()).unwrap())),
        #[cfg(feature = "policy-shadow")]
        ("shadowed", at(asks("orders:cancel")).policy(portcullis::policy::Shadow::new(rbac(), other()))),
    ] {
        let error = error(builder);
        assert_eq!((error.setting(), error.value()), ("route", "GET /orders"), "{name}");
        assert!(error.to_string().contains("what its policy does not know: permission: \"orders:"), "{name}: {error}");
    }
    let error = error(closed().policy(rbac()).fallback(asks("orders:lits"))).to_string();
    assert!(error.contains("fallback") && error.contains("orders:list"), "and says what is close: {error}");
    known("known", at(asks("orders:list")).policy(rbac()));
    known("known to one", at(asks("orders:list")).policy(both(Combined::any_of)));
    known("known to one, and the other leaves it", at(asks("orders:list")).policy(both(Combined::deny_overrides)));
    known("of the guard's own", at(asks("orders:cancel").with_policy(other())).policy(rbac()));
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
