//! What is in the entries of the audit trail, and that the manual's page says the same.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code, helpers included")]

mod support;

use std::{collections::BTreeSet, convert::Infallible, future::ready};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, Request, Response, header};
use http_body_util::Full;
use portcullis::{
    Challenge, Connection, Instants, Now, Principal, PrincipalKind, Rejection, RejectionKind, RequestHead, Secret,
    SecurityContext, StoreError, StoreErrorKind,
    audit::{AuditEntry, AuditLayer, AuditSink, JsonLines, Personal, Privacy},
    authn::{Authenticator, AuthnLayer, Outcome, authenticate_fn, both, one_of},
    event::{Event, EventKind, tell},
    evidence::TrustedProxies,
    guard::{Authorizer, policy, public, require},
    policy::{AccessQuery, Decision, PolicyBackend, Resource, Verdict},
    rate_limit::{Draw, OnStoreError, Quota, RateLimitLayer, RateLimitStore, Taken},
    stack::{Stack, StackBuilder},
    testing::Captured,
    tls::TlsLayer,
};
use serde_json::{Value, json};
use support::{Still, get, get_plain, test_scheme, with};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[derive(Debug)]
struct Ledger;

#[async_trait]
impl PolicyBackend for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(match query.action() {
            "ledger:read" => {
                Verdict::allow().by("r1").by("r2").of_version("7").because("in the ledger").advising("ask")
            }
            _ => Verdict::deny("not in the ledger"),
        })
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => Verdict::cannot_decide("it never waits"),
        }
    }
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn builder(audit: AuditLayer) -> StackBuilder {
    Stack::builder()
        .clock(Still)
        .audit(audit)
        .proxies(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap())
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .policy(Ledger)
        .route("GET /public/{how}", public())
        .route("GET /ledger/{page}", require(policy("ledger:read").unwrap()))
        .route("GET /closed", require(policy("ledger:burn").unwrap()))
}

async fn send(stack: &Stack, request: Request<()>) -> u16 {
    let handler = service_fn(|request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap();
        context.note("page", "monthly");
        ready(Answer::Ok(Response::new(Full::from("hello"))))
    });
    stack.layer(handler).oneshot(request).await.unwrap().status().as_u16()
}

/// The one record that the stack left, as JSON.
async fn record(builder: StackBuilder, captured: &Captured, request: Request<()>) -> Value {
    let _ = captured.take();
    send(&builder.build().unwrap(), request).await;
    let records = captured.take();
    assert_eq!(records.len(), 1);
    serde_json::to_value(&records[0]).unwrap()
}

fn audited() -> (Captured, AuditLayer) {
    let captured = Captured::new();
    (captured.clone(), AuditLayer::new(captured).without_events())
}

fn from_proxy(mut request: Request<()>) -> Request<()> {
    request.extensions_mut().insert(Connection::plain("10.0.12.7:40100".parse().unwrap()));
    with(with(request, "x-forwarded-for", "192.0.2.1"), "x-forwarded-proto", "https")
}

#[tokio::test]
async fn ids_that_a_client_sends_are_claims_and_those_of_a_proxy_count() {
    let (captured, audit) = audited();
    let whole = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let by_client = record(builder(audit.clone()), &captured, with(get("/public/x"), "x-request-id", "mine")).await;
    assert_eq!(by_client["client_request_id"], "mine");
    assert!(by_client["proxy_request_id"].is_null() && by_client["request_id"].as_str().unwrap().len() == 32);

    let request = with(with(get("/public/x"), "x-request-id", &"x".repeat(9000)), "traceparent", &whole);
    let by_client = record(builder(audit.clone()), &captured, request).await;
    assert_eq!(by_client["client_request_id"].as_str().unwrap().len(), 128);
    assert_eq!((&by_client["client_traceparent"], &by_client["trace_id"]), (&json!(whole), &Value::Null));

    let request = with(with(from_proxy(get("/public/x")), "x-request-id", "edge-7"), "traceparent", &whole);
    let by_proxy = record(builder(audit.clone()), &captured, request).await;
    assert_eq!((&by_proxy["proxy_request_id"], &by_proxy["client_request_id"]), (&json!("edge-7"), &Value::Null));
    assert_eq!((&by_proxy["trace_id"], &by_proxy["parent_id"]), (&json!(TRACE), &json!("00f067aa0ba902b7")));

    let malformed = with(from_proxy(get("/public/x")), "traceparent", "00-xyz");
    let by_proxy = record(builder(audit.clone()), &captured, malformed).await;
    assert_eq!((&by_proxy["client_traceparent"], &by_proxy["trace_id"]), (&json!("00-xyz"), &Value::Null));

    // A proxy that adds its own leaves the client's before it.
    let mut twice = with(with(from_proxy(get("/public/x")), "x-request-id", "mine"), "traceparent", &whole);
    twice.headers_mut().append("x-request-id", "edge-7".parse().unwrap());
    twice.headers_mut().append("traceparent", whole.replace("00f0", "11f0").parse().unwrap());
    let by_both = record(builder(audit), &captured, twice).await;
    assert_eq!((&by_both["client_request_id"], &by_both["proxy_request_id"]), (&json!("mine"), &Value::Null));
    assert_eq!((&by_both["client_traceparent"], &by_both["trace_id"]), (&json!(whole), &Value::Null));
}

#[tokio::test]
async fn every_attempt_to_authenticate_is_told() {
    let (captured, audit) = audited();
    let good = record(builder(audit.clone()), &captured, with(get("/public/x"), "authorization", "Test alice")).await;
    assert_eq!(good["attempts"], json!([{ "outcome": "verified", "credential": "test" }]));
    let bad = record(builder(audit.clone()), &captured, with(get("/public/x"), "authorization", "Test bad")).await;
    let refused = json!([{
        "outcome": "refused", "fields": ["authorization"], "code": "invalid_credential", "reason": "bad test credential",
    }]);
    assert_eq!(bad["attempts"], refused);
    assert_eq!(bad["rejection"]["layer"], "authentication");
    let malformed = record(builder(audit.clone()), &captured, with(get("/public/x"), "authorization", "Test")).await;
    let refused = json!([{
        "outcome": "refused", "fields": ["authorization"], "code": "invalid_request",
        "reason": "Authorization has no space after its scheme",
    }]);
    assert_eq!(malformed["attempts"], refused);
    let nobody = record(builder(audit.clone()), &captured, get("/public/x")).await;
    assert!(nobody["attempts"].is_null());
    // Nobody looks at it but the layer.
    for (name, value) in [("malformed", "Test"), ("not claimed", "Other abc")] {
        let stack = Stack::builder().audit(audit.clone()).tls(TlsLayer::require()).route("GET /", public());
        let seen = record(stack.authenticate(self::nobody()), &captured, with(get("/"), "authorization", value)).await;
        let attempt = &seen["attempts"][0];
        assert_eq!((&attempt["outcome"], &attempt["fields"]), (&json!("refused"), &json!(["authorization"])), "{name}");
        assert_eq!(seen["rejection"]["layer"], "authentication", "{name}");
    }

    let (captured, audit) = audited();
    let by_cookie = authenticate_fn(Challenge::new("Test", "tests").unwrap(), |_, _| {
        Outcome::RefusedIfNeeded(Rejection::new(RejectionKind::InvalidCredential, "an old session"))
    });
    let stack = Stack::builder().audit(audit).tls(TlsLayer::require()).authenticate(by_cookie).route("GET /", public());
    let ignored = record(stack, &captured, with(get("/"), "cookie", "session=1")).await;
    assert_eq!(
        (&ignored["attempts"][0]["outcome"], &ignored["attempts"][0]["fields"]),
        (&json!("ignored"), &json!(["cookie"]))
    );
    assert_eq!(ignored["outcome"], "allowed");
}

/// A bad cookie beside a good credential is told, whichever is asked first, and at whatever depth.
#[tokio::test]
async fn a_bad_cookie_that_a_good_credential_outweighs_is_told() {
    /// Refuses each cookie, in `authenticate` only where it waits.
    #[derive(Clone, Debug)]
    struct OldSessions {
        waits: bool,
    }

    #[async_trait]
    impl Authenticator for OldSessions {
        fn challenges(&self) -> Vec<Challenge> {
            vec![Challenge::new("Cookie", "tests").unwrap()]
        }

        fn credential_headers(&self) -> Vec<HeaderName> {
            vec![header::AUTHORIZATION, header::COOKIE]
        }

        fn authenticate_now(&self, head: &RequestHead<'_>, _: Instants) -> Now<Outcome> {
            if self.waits {
                return Now::Wait;
            }
            let rejection = || Rejection::new(RejectionKind::InvalidCredential, "an old session");
            let came = head.headers().contains_key(header::COOKIE);
            Now::Known(if came { Outcome::RefusedIfNeeded(rejection()) } else { Outcome::Absent })
        }

        async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
            match (Self { waits: false }).authenticate_now(head, at) {
                Now::Known(outcome) => outcome,
                Now::Wait => Outcome::Absent,
            }
        }
    }

    let told = json!([
        { "outcome": "verified", "credential": "test" },
        { "outcome": "ignored", "fields": ["cookie"], "code": "invalid_credential", "reason": "an old session" },
    ]);
    for waits in [false, true] {
        let old = OldSessions { waits };
        let cases: [(&str, Box<dyn Authenticator>); 4] = [
            ("before", Box::new(one_of((old.clone(), test_scheme())))),
            ("after", Box::new(one_of((test_scheme(), old.clone())))),
            ("inside", Box::new(one_of((one_of((old.clone(), test_scheme())), nobody())))),
            ("around", Box::new(one_of((one_of((nobody(), test_scheme())), old)))),
        ];
        for (name, authenticator) in cases {
            let (captured, audit) = audited();
            let stack = || Stack::builder().audit(audit.clone()).tls(TlsLayer::require()).route("GET /", public());
            let both = with(with(get("/"), "authorization", "Test alice"), "cookie", "session=1");
            let seen = record(stack().authenticate(authenticator), &captured, both).await;
            assert_eq!(seen["attempts"], told, "{name}, waits: {waits}");
            assert_eq!((&seen["outcome"], &seen["subject"]["subject"]), (&json!("allowed"), &json!("alice")), "{name}");
        }
    }
}

/// Finds no credential, whatever comes.
fn nobody() -> impl Authenticator {
    authenticate_fn(Challenge::new("Nobody", "tests").unwrap(), |_, _| Outcome::Absent)
}

#[tokio::test]
async fn what_nothing_depends_on_is_not_enforced() {
    let (captured, audit) = audited();
    let handler = service_fn(async |request: Request<()>| {
        let (mut parts, ()) = request.into_parts();
        use axum::extract::FromRequestParts;
        let authz = Authorizer::from_request_parts(&mut parts, &()).await.unwrap();
        let _ = authz.allows("ledger:burn", None).await;
        authz.check("ledger:read", None).await.unwrap();
        Answer::Ok(Response::default())
    });
    let app = builder(audit).build().unwrap().layer(handler);
    app.oneshot(with(get("/ledger/1"), "authorization", "Test alice")).await.unwrap();
    let record = serde_json::to_value(&captured.take()[0]).unwrap();
    let seen: Vec<_> =
        record["decisions"].as_array().unwrap().iter().map(|it| (&it["decision"], &it["enforced"])).collect();
    assert_eq!(
        seen,
        [(&json!("allow"), &json!(true)), (&json!("deny"), &json!(false)), (&json!("allow"), &json!(true))]
    );
}

#[tokio::test]
async fn limits_tell_how_they_stand() {
    /// Fails over one address, has nothing to ask for another, and is degraded otherwise.
    #[derive(Debug)]
    struct Shaky;

    #[async_trait]
    impl RateLimitStore for Shaky {
        async fn take(&self, draw: &Draw<'_>, _: portcullis::Instants) -> Result<Taken, StoreError> {
            let key = draw.charges()[0].key().to_string();
            if key.contains("192.0.2.2") {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "shaky"));
            }
            if key.contains("192.0.2.3") {
                return Ok(Taken::too_costly(0));
            }
            Ok(Taken::granted(0, 3, 0).degraded())
        }
    }

    let (captured, audit) = audited();
    let stack = builder(audit.clone()).limit_clients(Quota::per_minute(1)).build().unwrap();
    send(&stack, get("/public/x")).await;
    send(&stack, get("/public/x")).await;
    let records: Vec<Value> = captured.take().iter().map(|record| serde_json::to_value(record).unwrap()).collect();
    assert_eq!(records[0]["limits"], json!([{ "scope": "client", "state": "granted", "remaining": 0 }]));
    assert_eq!(records[1]["limits"], json!([{ "scope": "client", "state": "refused", "retry_after_ms": 60_000 }]));
    assert_eq!(records[1]["rejection"]["layer"], "client_limit");

    let events = Captured::new();
    let _hears = AuditLayer::new(events.clone());
    let limit = RateLimitLayer::per_client(Quota::per_second(9)).unwrap().with_store(Shaky);
    let limit = limit.with_scope("of-this-test").unwrap().on_store_error(OnStoreError::Admit);
    let stack = builder(audit).limit(limit).build().unwrap();
    let from = |address: &str| {
        let mut request = get("/public/x");
        let peer = (address.parse::<std::net::IpAddr>().unwrap(), 1).into();
        request.extensions_mut().insert(Connection::tls(peer, portcullis::TlsVersion::Tls13));
        request
    };
    let failing = || from("192.0.2.2");
    for request in [get("/public/x"), get("/public/x"), failing(), failing(), get("/public/x")] {
        assert_eq!(send(&stack, request).await, 200);
    }
    // What is refused without asking says nothing of how the store is, however often a client has it refused.
    for request in [from("192.0.2.3"), get("/public/x"), from("192.0.2.3"), get("/public/x")] {
        send(&stack, request).await;
    }
    let records: Vec<Value> = captured.take().iter().map(|record| serde_json::to_value(record).unwrap()).collect();
    let degraded = json!([{ "scope": "of-this-test", "state": "granted", "degraded": true, "remaining": 3 }]);
    assert_eq!(records[0]["limits"], degraded);
    assert_eq!(records[2]["limits"], json!([{ "scope": "of-this-test", "state": "failed_open" }]));
    let told: Vec<_> = events
        .entries()
        .iter()
        .filter_map(|entry| match entry {
            AuditEntry::Event(event) if event.about() == "limit of-this-test" => Some(event.kind()),
            _ => None,
        })
        .collect();
    use EventKind::{FailedOpen, FailedOpenEnded, LimiterDegraded, LimiterRestored};
    assert_eq!(told, [LimiterDegraded, LimiterRestored, FailedOpen, LimiterDegraded, FailedOpenEnded]);
}

#[tokio::test]
async fn header_fields_are_recorded_by_name_and_never_a_credential() {
    let (captured, audit) = audited();
    for credential in [
        "Authorization",
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "X-Auth-Token",
        "x-goog-iap-jwt-assertion",
        "sec-websocket-protocol",
        "no name",
    ] {
        assert!(audit.clone().with_headers([credential]).is_err(), "{credential}");
    }
    assert!(audit.clone().with_headers((0..9).map(|n| format!("x-{n}"))).is_err());
    let listed = audit.clone().with_headers(["user-agent", "x-absent"]).unwrap();
    let mut request = with(get("/public/x"), "x-secret", "s3cr3t");
    request.headers_mut().insert("user-agent", http::HeaderValue::from_bytes(b"curl\xff\t\xe2\x80\xae").unwrap());
    let record = record(builder(listed), &captured, request).await;
    assert_eq!(record["headers"], json!({ "user-agent": r"curl\xff\u{9}\u{202e}" }));
    assert!(!record.to_string().contains("s3cr3t"));
    assert!(audit.clone().with_headers(["user-agent", "User-Agent"]).is_err(), "named twice");

    /// Reads a field of its own.
    #[derive(Debug)]
    struct Badge;

    #[async_trait]
    impl Authenticator for Badge {
        fn challenges(&self) -> Vec<Challenge> {
            vec![Challenge::new("Badge", "tests").unwrap()]
        }

        fn credential_headers(&self) -> Vec<http::HeaderName> {
            vec![http::HeaderName::from_static("x-badge")]
        }

        async fn authenticate(&self, _: &portcullis::RequestHead<'_>, _: portcullis::Instants) -> Outcome {
            Outcome::Absent
        }
    }

    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(Badge);
    let error = stack.audit(audit.with_headers(["x-badge"]).unwrap()).build().unwrap_err();
    assert!(error.to_string().contains("x-badge"), "{error}");
}

/// A reader takes the first of two members of one name, or the last.
#[tokio::test]
async fn a_field_that_is_sent_several_times_is_one_member() {
    let (captured, audit) = audited();
    let listed = audit.with_headers(["user-agent", "accept"]).unwrap();
    let stack = builder(listed).build().unwrap();
    let (long, many) = ("a".repeat(250), ["b"; 4000]);
    for (name, values, shown) in [
        ("one", &["a"][..], "a".to_owned()),
        ("two", &["a", "b"], "a, b".to_owned()),
        ("the same", &["a", "a"], "a, a".to_owned()),
        ("three, one of them empty", &["a", "", "c"], "a, , c".to_owned()),
        ("too long together", &[&long, "bcdefgh"], format!("{long}, b…")),
        ("too many", &many, format!("{}b…", "b, ".repeat(84))),
    ] {
        let mut request = with(get("/public/x"), "accept", "text/plain");
        for value in values {
            request.headers_mut().append("user-agent", value.parse().unwrap());
        }
        assert_eq!(send(&stack, request).await, 200);
        let record = captured.take().pop().unwrap();
        let told: Vec<_> = record.headers().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        assert_eq!(told, [("user-agent".into(), shown), ("accept".into(), "text/plain".to_owned())], "{name}");
        let mut line = Vec::new();
        AuditEntry::from(record).write_json(&mut line);
        assert_eq!(String::from_utf8(line).unwrap().matches(r#""user-agent""#).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_is_hidden_is_hidden_everywhere() {
    let key = Secret::new(vec![7; 32]);
    let privacy = Privacy::new()
        .omit(Personal::Notes)
        .omit(Personal::Reasons)
        .hide_parameters(["how"])
        .pseudonymise(&key, [Personal::Subject, Personal::Address])
        .unwrap();
    let (captured, audit) = audited();
    let audit = audit.with_privacy(privacy);
    let request = || with(get("/public/s3cr3t"), "authorization", "Test alice");
    let shown = record(builder(audit.clone()), &captured, request()).await;
    assert_eq!(shown["path"], "/public/{how}");
    assert!(shown["notes"].is_null());
    let (subject, address) =
        (shown["subject"]["subject"].as_str().unwrap(), shown["client"]["address"].as_str().unwrap());
    assert!(subject.starts_with("p-") && address.starts_with("p-") && subject != address);
    let again = record(builder(audit.clone()), &captured, request()).await;
    assert_eq!((&again["subject"], &again["client"]), (&shown["subject"], &shown["client"]));

    send(&builder(audit.clone()).build().unwrap(), with(get("/closed"), "authorization", "Test alice")).await;
    let record = captured.take().remove(0);
    assert_eq!((record.address(), record.rejection_reason()), (None, None));
    let all = format!("{shown} {} {record:?} {:?}", serde_json::to_string(&record).unwrap(), record.subject());
    for personal in ["alice", "198.51.100.7", "s3cr3t", "monthly", "not in the ledger"] {
        assert!(!all.contains(personal), "{personal}: {all}");
    }
}

/// Which part of a path is the parameter is told by a template alone.
#[tokio::test]
async fn a_path_that_no_template_explains_hides_what_may_be_a_parameter() {
    let hiding = || Privacy::new().hide_parameters(["how"]);
    let (captured, audit) = audited();
    for path in ["/public/s3cr3t/", "/public//s3cr3t", "/pulbic/s3cr3t"] {
        let shown = record(builder(audit.clone().with_privacy(hiding())), &captured, get(path)).await;
        assert_eq!((&shown["path"], &shown["route"]), (&json!("[omitted]"), &Value::Null), "{path}: {shown}");
        assert!(!shown.to_string().contains("s3cr3t"), "{path}: {shown}");
    }
    let shown = record(builder(audit.clone().with_privacy(Privacy::new())), &captured, get("/pulbic/x")).await;
    assert_eq!(shown["path"], "/pulbic/x", "where nothing is to be hidden");

    // Nobody outside of a router by hand learns its templates.
    let authn = AuthnLayer::new(test_scheme()).allow_anonymous().dangerous_plain_http();
    let router = axum::Router::new().route("/public/{how}", axum::routing::get(async || "hello"));
    let layers = ServiceBuilder::new().layer(audit.with_privacy(hiding())).layer(authn);
    let answer = layers.service(router).oneshot(get("/public/s3cr3t").map(|()| axum::body::Body::empty())).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(captured.take().remove(0).path(), "[omitted]");
}

#[test]
fn a_stack_finds_hidden_parameters_that_no_line_has() {
    let privacy = Privacy::new().hide_parameters(["page", "hwo"]);
    let error = builder(audited().1.with_privacy(privacy)).build().unwrap_err().to_string();
    assert!(error.contains("hwo") && !error.contains("page"), "{error}");
}

/// A type that is asked to be hashed is hashed, or refused.
#[tokio::test]
async fn no_type_that_is_to_be_a_pseudonym_is_shown() {
    let key = Secret::new(vec![7; 32]);
    let refused = Privacy::new().pseudonymise(&key, [Personal::Path, Personal::Reasons]).unwrap_err();
    assert!(refused.to_string().contains("Personal::Reasons"), "{refused}");

    let hashed = || Privacy::new().pseudonymise(&key, [Personal::Path, Personal::Notes]).unwrap();
    let (captured, audit) = audited();
    let audit = audit.with_privacy(hashed());
    let request = |path: &str| with(get(path), "authorization", "Test alice");
    let one = record(builder(audit.clone()), &captured, request("/public/s3cr3t")).await;
    let again = record(builder(audit.clone()), &captured, request("/public/s3cr3t")).await;
    let other = record(builder(audit.clone()), &captured, request("/public/other")).await;
    let path = one["path"].as_str().unwrap();
    assert!(path.starts_with("p-") && path.len() == 34, "{path}");
    assert_eq!((&one["path"], &one["route"]), (&again["path"], &json!("/public/{how}")));
    assert_ne!(one["path"], other["path"]);
    assert!(one["notes"][0]["value"].as_str().unwrap().starts_with("p-"), "{one}");

    let heard = Captured::new();
    let _hearing = AuditLayer::new(heard.clone()).with_privacy(hashed());
    tell(Event::new(EventKind::PolicyRefused, "hashed details").with("reason", "line 3 names alice"));
    let told = heard.entries().into_iter().find_map(|entry| match entry {
        AuditEntry::Event(event) if event.about() == "hashed details" => {
            Some(event.details().map(|(_, value)| value.into_owned()).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert!(told.unwrap()[0].starts_with("p-"));
}

#[tokio::test]
async fn what_happens_to_the_service_is_told() {
    let captured = Captured::new();
    let audit = AuditLayer::new(captured.clone()).with_clock(Still);
    let deaf = Captured::new();
    let _deaf = AuditLayer::new(deaf.clone()).without_events();
    tell(Event::new(EventKind::PolicyRefused, "what happens\n.toml").with("reason", "line 3"));
    let mine = |captured: &Captured| {
        let is_mine =
            |entry: &AuditEntry| matches!(entry, AuditEntry::Event(event) if event.about().starts_with("what happens"));
        captured.entries().into_iter().filter(is_mine).collect::<Vec<_>>()
    };
    let told = serde_json::to_value(&mine(&captured)[0]).unwrap();
    assert_eq!((&told["entry"], &told["event"]), (&json!("event"), &json!("policy_refused")));
    assert_eq!(told["about"], r"what happens\u{a}.toml");
    assert_eq!(told["details"], json!([{ "name": "reason", "value": "line 3" }]));
    drop(audit);
    tell(Event::new(EventKind::PolicyReloaded, "what happens.toml"));
    assert_eq!((mine(&captured).len(), mine(&deaf).len()), (1, 0));
}

/// Also in an entry that has no room for the list: the client says how long that is.
#[tokio::test]
async fn a_list_hides_nothing_that_a_handler_asks_after_it() {
    let (captured, audit) = audited();
    let handler = service_fn(async |request: Request<()>| {
        let authorizer = Authorizer::of(request.extensions()).unwrap();
        for page in 0..100 {
            let decision = authorizer.allows("ledger:read", &Resource::new("page", page)).await;
            assert_eq!(decision, Decision::Allow);
        }
        assert!(authorizer.check("ledger:burn", None).await.is_err());
        Answer::Ok(Response::new(Full::from("hello")))
    });
    builder(audit)
        .build()
        .unwrap()
        .layer(handler)
        .oneshot(with(get("/ledger/7"), "authorization", "Test boss"))
        .await
        .unwrap();
    let record = captured.take().remove(0);
    let actions: Vec<_> = record.decisions().map(|decision| (decision.action(), decision.is_enforced())).collect();
    assert_eq!(actions.last(), Some(&(Some("ledger:burn".into()), true)));
    assert_eq!((actions.len(), record.decisions_lost()), (25, 77), "102 were asked");

    let mut line = Vec::new();
    AuditEntry::from(record).write_json(&mut line);
    let told: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(told["truncated"], true, "{told}");
    let shown = told["decisions"].as_array().unwrap();
    let shown: Vec<_> =
        shown.iter().map(|decision| (decision["action"].as_str().unwrap(), decision["enforced"] == true)).collect();
    let read = ("ledger:read", false);
    assert_eq!(shown, [("ledger:read", true), read, read, ("ledger:burn", true)], "in their order");
    assert_eq!(told["decisions_lost"], 98, "those that this entry has no room for are counted, too");
}

#[tokio::test]
async fn an_entry_is_never_longer_than_it_may_be_and_forges_nothing() {
    let (captured, audit) = audited();
    let ugly = "\"\\\u{202e}\r\n{\"outcome\":\"allowed\"}\u{1b}[2J\u{2028}é".repeat(40);
    let text = ugly.clone();
    let person = authenticate_fn(Challenge::new("Test", "tests").unwrap(), move |_, _| {
        let person = Principal::builder(PrincipalKind::User, &*text, &*text, "test");
        Outcome::verified(person.credential_id(&*text).tenant(&*text).methods(vec![text.clone(); 40]).build())
    });
    let names: Vec<String> = (0..8).map(|n| format!("x-header-number-{n}")).collect();
    let stack = Stack::builder()
        .audit(audit.with_headers(&names).unwrap())
        .tls(TlsLayer::require())
        .authenticate(person)
        .fallback(public())
        .build()
        .unwrap();
    let handler = service_fn(move |request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap();
        (0..40).for_each(|_| context.note(&ugly, &ugly));
        let reason = format!("no {ugly}");
        ready(Answer::Ok(Rejection::new(RejectionKind::Forbidden, reason).to_response()))
    });
    for path in ["/".to_owned(), format!("/{}", "%0d%0a".repeat(10_000)), format!("/{}", "\u{9b}".repeat(30_000))] {
        let mut request = get("/");
        *request.uri_mut() = http::Uri::from_maybe_shared(Bytes::from(path)).unwrap();
        for name in &names {
            let value = http::HeaderValue::from_bytes(&b"\"\\\xff\x80".repeat(200)).unwrap();
            request.headers_mut().append(http::HeaderName::try_from(name).unwrap(), value.clone());
            request.headers_mut().append(http::HeaderName::try_from(name).unwrap(), value);
        }
        stack.layer(handler.clone()).oneshot(request).await.unwrap();
    }
    let records = captured.take();
    assert_eq!(records.len(), 3);
    for record in records {
        let mut line = Vec::new();
        AuditEntry::from(record).write_json(&mut line);
        assert!(line.len() <= 4096, "{} bytes", line.len());
        let text = String::from_utf8(line).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["truncated"], true);
        assert!(names.iter().all(|name| text.matches(name).count() <= 1), "one member of each name: {text}");
        assert_ne!(value["outcome"], "allowed");
        assert!(text.chars().all(|c| c == '…' || c == 'é' || c.is_ascii_graphic() || c == ' '), "{text}");
    }
}

/// Escapes take room as well: where all is quotation marks, and there are decisions and limits, it still fits.
#[tokio::test]
async fn an_entry_of_nothing_but_what_is_escaped_fits() {
    #[derive(Debug)]
    struct Verbose(String);

    #[async_trait]
    impl PolicyBackend for Verbose {
        fn name(&self) -> &'static str {
            "verbose"
        }

        async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
            let text = &self.0;
            let verdict = if query.action() == "read" { Verdict::allow() } else { Verdict::deny(text.clone()) };
            let verdict = (0..8)
                .fold(verdict, |verdict, _| verdict.by(text.as_str()).because(text.clone()).advising(text.clone()));
            verdict.of_version(text.as_str())
        }
    }

    let long = "\"".repeat(300);
    let (captured, audit) = audited();
    let who = |issuer: &'static str| {
        let long = long.clone();
        authenticate_fn(Challenge::new("Test", "tests").unwrap(), move |_, _| {
            let person = Principal::builder(PrincipalKind::User, format!("{issuer}{long}"), &*long, "test");
            Outcome::verified(person.credential_id(&*long).tenant(&*long).methods(vec![long.clone(); 16]).build())
        })
    };
    let names: Vec<String> = (0..8).map(|n| format!("x-header-number-{n}")).collect();
    let limited =
        |scope: &str| RateLimitLayer::per_client(Quota::per_second(1_000_000)).unwrap().with_scope(scope.repeat(64));
    let stack = Stack::builder()
        .audit(audit.with_headers(&names).unwrap())
        .tls(TlsLayer::require())
        .limit(limited("a").unwrap())
        .limit(limited("b").unwrap())
        .authenticate(both(who("https://a.example"), who("https://b.example")))
        .policy(Verbose(long.clone()))
        .route("GET /{*rest}", require(policy("read").unwrap()))
        .build()
        .unwrap();
    let handler = service_fn(move |request: Request<()>| {
        let long = long.clone();
        async move {
            let context = SecurityContext::of(request.extensions()).unwrap();
            (0..16).for_each(|_| context.note(&long, &long));
            let authorizer = Authorizer::of(request.extensions()).unwrap();
            for n in 0..6 {
                let _ = authorizer.allows(&format!("{n}{}", "w".repeat(60)), &Resource::new("page", "7")).await;
            }
            Answer::Ok(Rejection::new(RejectionKind::Forbidden, long).to_response())
        }
    });
    let mut request = get("/");
    *request.uri_mut() = http::Uri::from_maybe_shared(Bytes::from(format!("/{}", "\"".repeat(400)))).unwrap();
    let marks = http::HeaderValue::try_from("\"".repeat(100)).unwrap();
    for name in names.iter().map(String::as_str).chain(["x-request-id", "traceparent"]) {
        request.headers_mut().append(http::HeaderName::try_from(name).unwrap(), marks.clone());
    }
    stack.layer(handler).oneshot(request).await.unwrap();
    let mut line = Vec::new();
    AuditEntry::from(captured.take()[0].clone()).write_json(&mut line);
    assert!(line.len() <= 4096, "{} bytes", line.len());
    assert_eq!(serde_json::from_slice::<Value>(&line).unwrap()["truncated"], true);
}

/// Every member of every kind of entry, by its path.
fn members(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                members(value, &path, into);
                into.insert(path);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| members(value, prefix, into)),
        _ => {}
    }
}

/// One line of the page's tables: `| entry | member | ..`.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../docs/audit.md");
    let mut found = BTreeSet::new();
    let mut entry = None;
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### `") {
            entry = title.split('`').next();
        } else if line.starts_with("## ") {
            entry = None;
        }
        let (Some(entry), Some(cell)) = (entry, line.strip_prefix("| `")) else { continue };
        let cell = cell.split(" |").next().unwrap();
        for name in cell.split(", ") {
            found.insert(format!("{entry}: {}", name.trim_matches('`')));
        }
    }
    found
}

/// Brings about entries of every kind, with nearly every member. `captured` hears what `audit` does.
async fn bring_about(audit: AuditLayer, captured: &Captured) {
    let audit = audit.with_completions().with_headers(["user-agent"]).unwrap();
    let person = authenticate_fn(Challenge::new("Test", "tests").unwrap(), |head, _| {
        if head.headers().contains_key("x-bad") {
            return Rejection::new(RejectionKind::InvalidCredential, "bad").into();
        }
        let part = |name: &str| {
            let part = Principal::builder(PrincipalKind::User, "https://id.test", name, "test");
            part.credential_id("c1").tenant("acme").methods(["pwd"]).build()
        };
        Outcome::Verified(portcullis::authn::Identity::with_client(part("alice"), part("shop")))
    });
    let stack = Stack::builder()
        .clock(Still)
        .audit(audit)
        .proxies(TrustedProxies::x_forwarded(["10.0.12.7"]).unwrap())
        .tls(TlsLayer::require())
        .limit_clients(Quota::per_minute(5))
        .authenticate(person)
        .policy(Ledger)
        .route("GET /ledger/{page}", require(policy("ledger:read").unwrap()).fulfilling(["mask"]))
        .route("GET /public", public())
        .route("GET /closed", require(policy("ledger:burn").unwrap()))
        .build()
        .unwrap();
    let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keeping = std::sync::Arc::clone(&kept);
    let app = stack.layer(service_fn(move |request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap();
        (0..20).for_each(|n| context.note("page", &n.to_string()));
        if let Ok(authorizer) = Authorizer::of(request.extensions()) {
            *keeping.lock().unwrap() = Some((context.clone(), authorizer));
        }
        let mut response = Response::new(Full::<Bytes>::from("hello"));
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("0"));
        ready(Answer::Ok(response))
    }));
    let traced = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let through = with(with(from_proxy(get("/ledger/7")), "x-request-id", "edge"), "traceparent", &traced);
    let mut http2 = with(with(get("/ledger/7"), "x-request-id", "mine"), "traceparent", &traced);
    *http2.version_mut() = http::Version::HTTP_2;
    let bad = || with(with(get("/public"), "x-bad", "1"), "authorization", "Test x");
    let plain = with(get_plain("/ledger/7"), "authorization", "Test x");
    let requests = [through, with(http2, "user-agent", "curl"), bad(), bad(), bad(), plain];
    for request in requests.into_iter().chain((0..5).map(|_| get("/closed"))) {
        app.clone().oneshot(request).await.unwrap();
    }
    let mut given_up = app.clone();
    let mut request = get("/public");
    request.extensions_mut().insert(Connection::plain("203.0.113.9:1".parse().unwrap()));
    drop(given_up.ready().await.unwrap().call(request));
    // From more networks than are told apart.
    for n in 0..1100_u32 {
        let mut request = bad();
        let peer = (std::net::Ipv4Addr::from_bits(0x0a63_0000 + n), 1).into();
        request.extensions_mut().insert(Connection::tls(peer, portcullis::TlsVersion::Tls13));
        app.clone().oneshot(request).await.unwrap();
    }
    let (context, authorizer) = kept.lock().unwrap().take().unwrap();
    for n in 0..20 {
        let _ = authorizer.check("ledger:burn", None).await;
        let _ = authorizer.check(&format!("{n}"), None).await;
        let _ = authorizer.allows("ledger:read", None).await;
        context.note("page", &n.to_string());
    }
    drop((context, authorizer));
    tell(
        Event::new(EventKind::KeyCreated, "k1")
            .with("owner", "alice")
            .by(captured.records()[0].request_id(), support::person("boss")),
    );
}

#[tokio::test]
async fn the_page_and_the_entries_have_the_same_members() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    std::fs::write(&path, "{\"torn\":").unwrap();
    let key = portcullis::audit::chain::ChainKey::generate().unwrap();
    let captured = Captured::new();
    let sink =
        std::sync::Arc::new(JsonLines::builder().chain(portcullis::audit::chain::Chain::new(key)).open(&path).unwrap());
    let audit = AuditLayer::new((captured.clone(), std::sync::Arc::clone(&sink)));
    bring_about(audit, &captured).await;
    sink.flush().await.unwrap();
    drop(sink);
    let mut seen = BTreeSet::new();
    for line in std::fs::read_to_string(&path).unwrap().lines().skip(1) {
        let value: Value = serde_json::from_str(line).unwrap();
        let entry = value["entry"].as_str().unwrap();
        let mut all = BTreeSet::new();
        members(&value, "", &mut all);
        all.retain(|member| !member.starts_with("headers."));
        let every = ["seq", "hash", "schema", "entry", "time"];
        seen.extend(all.into_iter().map(|member| {
            // What stands in several places is told once.
            let member = member.replace("client_identity.", "subject.").replace("by.", "subject.");
            // And what is told in the words of a record.
            let member =
                if entry == "later" && member.contains('.') { return format!("decided: {member}") } else { member };
            if every.contains(&&*member) { format!("every entry: {member}") } else { format!("{entry}: {member}") }
        }));
    }
    seen.retain(|member| !member.starts_with("event: subject.") && *member != "event: subject");
    let page = documented();
    let missing: Vec<_> = seen.difference(&page).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    // What takes more to bring about than this test does; other tests do.
    let rare = [
        "completed: grpc_status",
        "decided: decisions.obligations",
        "decided: decisions_lost",
        "decided: limits.degraded",
        "decided: truncated",
        "gap: truncated",
        "opened: unsigned",
    ];
    let unseen: Vec<_> = page.difference(&seen).filter(|member| !rare.contains(&&***member)).collect();
    assert!(unseen.is_empty(), "on the page and nowhere else: {unseen:?}");
}

/// What an event says, by the names of its fields.
#[cfg(feature = "audit-tracing")]
#[derive(Clone, Default)]
struct Fields(std::sync::Arc<std::sync::Mutex<Vec<std::collections::BTreeMap<&'static str, Value>>>>);

#[cfg(feature = "audit-tracing")]
mod fields {
    use std::{collections::BTreeMap, fmt};

    use serde_json::Value;
    use tracing::{
        Event, Metadata, Subscriber,
        field::{Field, Visit},
        span::{Attributes, Id, Record},
    };

    struct Reader(BTreeMap<&'static str, Value>);

    impl Visit for Reader {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.insert(field.name(), format!("{value:?}").into());
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.insert(field.name(), value.into());
        }

        fn record_u64(&mut self, field: &Field, value: u64) {
            self.0.insert(field.name(), value.into());
        }

        fn record_bool(&mut self, field: &Field, value: bool) {
            self.0.insert(field.name(), value.into());
        }
    }

    impl Subscriber for super::Fields {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut reader = Reader(BTreeMap::new());
            event.record(&mut reader);
            self.0.lock().unwrap().push(reader.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }
}

/// What a sink for `tracing` says is what a file says, field by field.
#[cfg(feature = "audit-tracing")]
#[tokio::test]
async fn events_of_tracing_say_what_the_entries_say() {
    use portcullis::audit::{Channel, TracingSink, WhenFull};

    /// The name of the field that a member of an object becomes.
    fn flat(object: &str, member: &str) -> String {
        match (object, member) {
            ("subject" | "client_identity" | "by", "subject") | ("rejection", "code") => object.to_owned(),
            _ => format!("{object}_{member}"),
        }
    }

    let key = Secret::new(vec![7; 32]);
    let hidden = Privacy::new().pseudonymise(&key, [Personal::Subject, Personal::Address, Personal::Tenant]).unwrap();
    for privacy in [Privacy::new(), hidden] {
        let captured = Captured::new();
        let (channel, mut receiver) = Channel::new(20_000, WhenFull::Discard).unwrap();
        bring_about(AuditLayer::new((captured.clone(), channel)).with_privacy(privacy), &captured).await;
        let mut entries = Vec::new();
        while let Some(more) = receiver.receive(std::time::Duration::ZERO) {
            entries.extend(more);
        }
        let (channel, mut receiver) = Channel::new(1, WhenFull::Discard).unwrap();
        for record in captured.records().into_iter().take(2) {
            let _ = channel.accept(record.into());
        }
        entries.extend(receiver.receive(std::time::Duration::ZERO).unwrap());

        let mut kinds = BTreeSet::new();
        for entry in entries {
            let fields = Fields::default();
            tracing::subscriber::with_default(fields.clone(), || TracingSink::new().accept(entry.clone()).unwrap());
            let mut events = std::mem::take(&mut *fields.0.lock().unwrap());
            let (mut told, 1) = (events.pop().unwrap(), events.len() + 1) else { panic!("{entry:?}") };
            let mut expected = std::collections::BTreeMap::new();
            let Value::Object(members) = serde_json::to_value(&entry).unwrap() else { panic!("{entry:?}") };
            for (name, value) in members {
                match value {
                    Value::Object(inner) if name != "headers" => {
                        expected.extend(inner.into_iter().map(|(member, value)| (flat(&name, &member), value)));
                    }
                    value => drop(expected.insert(name, value)),
                }
            }
            for (name, value) in &mut told {
                if expected.get(*name).is_some_and(|expected| expected.is_array() || expected.is_object()) {
                    *value = serde_json::from_str(value.as_str().unwrap()).unwrap();
                }
            }
            let told: std::collections::BTreeMap<_, _> =
                told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(told, expected);
            kinds.insert(entry.kind());
            kinds.extend(expected.contains_key("many_sources").then_some("many_sources"));
        }
        let all = ["completed", "decided", "event", "gap", "later", "many_sources", "repeated"];
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    }
}
