use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Json, Router, body::Body, http::StatusCode, response::IntoResponse, routing};
use portcullis::{
    Challenge, Clock,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    guard::{policy, require},
    health::{Condition, Health},
    policy::{
        AccessQuery, Attributes, Cached, Combined, Decision, DecisionPoint, Directive, Opa, PolicyBackend, QueryParts,
        Rbac, Rego, Resource, Shadow, explain,
    },
    testing::TestClock,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    server::{Asked, Server, at, order, person, reads},
    support::{get, text},
};

fn opa(point: DecisionPoint) -> Opa {
    Opa::builder(point, "data.orders.allow").build().unwrap()
}

/// As OPA would with a policy that lets clerks read.
fn clerks_read(asked: &Asked) -> Value {
    let input = &asked.body["input"];
    let is_clerk = input["subject"]["roles"].as_array().is_some_and(|roles| roles.contains(&json!("clerk")));
    match input["action"].as_str() {
        Some("orders:read") => json!({ "result": is_clerk, "decision_id": "d-1" }),
        Some("orders:cancel") => json!({ "result": false }),
        Some("conflict") => json!({ "code": "internal_error", "message": "eval_conflict_error" }),
        _ => json!({}),
    }
}

async fn server() -> Server {
    Server::start(|asked| {
        let answer = clerks_read(asked);
        let status = if answer["code"].is_null() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        (status, Json(answer)).into_response()
    })
    .await
}

#[tokio::test]
async fn opa_conforms() {
    let server = server().await;
    let clerk = person("alice").roles(["clerk"]).build();
    let question = |action: &str| PolicyQuestion::new(clerk.clone(), action);
    let fixture =
        || PolicyFixture::new(question("orders:read"), question("orders:cancel")).undecidable(question("conflict"));
    policy_backend(&opa(server.point()), fixture()).await;
    let some = Opa::builder(server.point(), "data.orders.allow").reads(QueryParts::ROLES).build().unwrap();
    policy_backend(&some, fixture()).await;
    let held = Opa::builder(server.point(), "data.orders.allow").reads(QueryParts::ROLES);
    let held = held.holds_for(std::time::Duration::from_secs(5)).build().unwrap();
    policy_backend(&Cached::new(held).unwrap(), fixture()).await;
}

#[tokio::test]
async fn the_request_is_that_of_the_data_api_and_its_input_that_of_the_local_policy() {
    let server = Server::saying(r#"{"result": true, "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1"}"#).await;
    let remote = Opa::builder(server.with_token(), "data.orders.allow").build().unwrap();
    let local = Rego::from_text(
        "data.orders.allow",
        "package orders\nallow := {\"allow\": true, \"reasons\": [json.marshal(input)]}\n",
    );
    let local = local.unwrap();

    let alice = person("alice").roles(["clerk"]).scopes(["a", "b"]).permissions(["p"]).tenant("acme").acr("aal2");
    let alice = alice.methods(["otp"]).auth_time(1_700_000_000).plan("gold").expires_at(1_900_000_000);
    let alice = alice.claims(r#"{"sub":"alice","n":{"x":[1,2.5,null]}}"#).build();
    let (app, order) = (person("app").build(), order());
    let attributes = Attributes::new().with("urgent", true);
    let query = AccessQuery::new(&alice, "orders:read", at()).on(&order).with_client(Some(&app));
    let query = query.with_attributes(&attributes).with_route("GET", Some("/orders/{id}"));
    let query = query.with_address(Some("192.0.2.7".parse().unwrap()));
    let verdict = remote.decide(&query).await;
    assert_eq!(verdict.decision(), Decision::Allow);
    assert_eq!(verdict.reasons(), ["decision 4ca636c1-55e4-417a-b1d8-4aceb67960d1"]);
    assert_eq!(&*verdict.rules()[0], "data.orders.allow");

    let asked = server.asked().remove(0);
    assert_eq!(asked.path, "/v1/data/orders/allow");
    assert_eq!(asked.headers["content-type"], "application/json");
    assert_eq!(asked.headers["authorization"], "Bearer t0ken");
    assert_eq!(asked.body.as_object().unwrap().len(), 1);
    let given: Value = serde_json::from_str(&local.decide(&query).await.reasons()[0]).unwrap();
    assert_eq!(asked.body["input"], given);
    assert_eq!(asked.body["input"]["resource"]["attributes"]["status"], "open");

    let few = Opa::builder(server.point(), "data.orders.allow").reads(QueryParts::NONE).build().unwrap();
    few.decide(&query).await;
    assert_eq!(server.asked()[1].body["input"], json!({ "action": "orders:read", "subject": {} }));
    assert!(!server.asked()[1].headers.contains_key("authorization"));
}

#[tokio::test]
async fn only_true_allows() {
    for (answer, expected) in [
        (r#"{"result": true}"#, Decision::Allow),
        (r#"{"result": {"allow": true}}"#, Decision::Allow),
        (r#"{"result": false}"#, Decision::Deny),
        (r#"{"result": "true"}"#, Decision::Deny),
        (r#"{"result": 1}"#, Decision::Deny),
        (r#"{"result": [true]}"#, Decision::Deny),
        (r#"{"result": null}"#, Decision::Deny),
        (r#"{"result": {"allow": "true"}}"#, Decision::Deny),
        (r#"{"result": {"result": true}}"#, Decision::Deny),
        (r#"{"allow": true}"#, Decision::Deny),
        ("{}", Decision::Deny),
        (r#"{"result": {"allow": true, "obligations": "log"}}"#, Decision::CannotDecide),
        (r#"{"result": false, "result": true}"#, Decision::CannotDecide),
        (r#"{"result": {"allow": false, "allow": true}}"#, Decision::CannotDecide),
        (r#"{"result": true, "decision_id": 7}"#, Decision::CannotDecide),
        ("[true]", Decision::CannotDecide),
        ("true", Decision::CannotDecide),
        ("", Decision::CannotDecide),
        (r#"{"result": true"#, Decision::CannotDecide),
        (r#"{"result": true} {"result": true}"#, Decision::CannotDecide),
    ] {
        assert_eq!(reads(&opa(Server::saying(answer).await.point())).await.decision(), expected, "{answer}");
    }
    let rich = r#"{"result": {"allow": true, "reasons": ["r"], "rules": ["a"],
                   "obligations": ["log", {"name": "mask", "fields": ["email"]}], "advice": ["ask"]}}"#;
    let verdict = reads(&opa(Server::saying(rich).await.point())).await;
    assert_eq!(verdict.obligations(), ["log".into(), Directive::new("mask").with("fields", vec!["email"])]);
    assert_eq!((verdict.reasons(), verdict.rules().len(), verdict.advice().len()), (&["r".into()][..], 2, 1));
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = server().await;
    let policy = opa(server.point());
    for _ in 0..50 {
        assert!(reads(&policy).await.is_allow());
    }
    assert_eq!((server.asked().len(), server.connections()), (50, 1));
}

#[tokio::test]
async fn several_questions_end_with_the_first_that_has_no_answer() {
    let server = server().await;
    let policy = opa(server.point());
    let clerk = person("alice").roles(["clerk"]).build();
    let ask = |actions: &[&'static str]| {
        let queries: Vec<_> = actions.iter().map(|action| AccessQuery::new(&clerk, action, at())).collect();
        let policy = policy.clone();
        async move {
            policy.decide_all(&queries).await.iter().map(portcullis::policy::Verdict::decision).collect::<Vec<_>>()
        }
    };
    assert_eq!(
        ask(&["orders:read", "orders:cancel", "other"]).await,
        [Decision::Allow, Decision::Deny, Decision::Deny]
    );
    assert_eq!(
        ask(&["orders:read", "conflict", "orders:read", "orders:read"]).await,
        [Decision::Allow, Decision::CannotDecide, Decision::CannotDecide, Decision::CannotDecide],
    );
    assert_eq!(server.asked().len(), 5, "the last two are not asked");
}

#[tokio::test]
async fn it_combines_with_what_wraps_policies() {
    let server = server().await;
    let parts = QueryParts::ALL.without(QueryParts::TIME);
    let by = |parts| Opa::builder(server.point(), "data.orders.allow").reads(parts);
    assert!(Cached::new(by(parts).build().unwrap()).is_err(), "it says not how long a verdict holds");
    let holds = |parts| by(parts).holds_for(std::time::Duration::from_secs(2)).build().unwrap();
    assert!(Cached::new(holds(QueryParts::ALL)).is_err(), "it reads the time");

    let cached = Cached::new(holds(parts)).unwrap();
    for _ in 0..3 {
        assert!(reads(&cached).await.is_allow());
    }
    assert_eq!(server.asked().len(), 1);

    let rbac =
        || Rbac::from_toml("version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ndenies = ['orders:read']");
    let combined = Combined::deny_overrides(rbac().unwrap()).with(opa(server.point()));
    assert_eq!(reads(&combined).await.decision(), Decision::Deny);
    assert_eq!(server.asked().len(), 1, "who denies comes first, and nobody else is asked");
    let both = Combined::all_of(opa(server.point())).with(rbac().unwrap());
    assert_eq!(reads(&both).await.decision(), Decision::Deny);

    let shadow = Shadow::new(opa(server.point()), rbac().unwrap());
    assert!(reads(&shadow).await.is_allow());
    let told = explain(&opa(server.point()), &AccessQuery::new(&person("a").build(), "orders:read", at())).await;
    assert!(told.to_string().contains("/v1/data/orders/allow is asked"), "{told}");
}

/// The policy may tell them apart: the input has `"resource": {"attributes": {}}` for a thing without facts.
#[tokio::test]
async fn what_is_remembered_of_no_thing_is_not_for_a_thing_without_facts() {
    let server = Server::start(|asked| {
        let input = &asked.body["input"];
        let something = input.get("resource").is_some() || input.get("attributes").is_some();
        Json(json!({ "result": something })).into_response()
    })
    .await;
    let parts = QueryParts::SUBJECT.and(QueryParts::RESOURCE_FACTS).and(QueryParts::ATTRIBUTES);
    let opa = Opa::builder(server.point(), "data.orders.allow").reads(parts);
    let policy = Cached::new(opa.holds_for(std::time::Duration::from_secs(5)).build().unwrap()).unwrap();
    let (alice, thing, none) = (person("alice").build(), Resource::new("order", 1), Attributes::new());
    let asked = AccessQuery::new(&alice, "orders:read", at());
    for _ in 0..2 {
        for (query, expected) in [(asked, false), (asked.on(&thing), true), (asked.with_attributes(&none), true)] {
            assert_eq!(policy.decide(&query).await.is_allow(), expected, "{query:?}");
        }
    }
    assert_eq!(policy.asked(), 3);
}

#[tokio::test]
async fn a_client_sees_503_and_nothing_of_the_cause() {
    let server = Server::start(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the secret cause").into_response()).await;
    let guard = require(policy("orders:read").unwrap()).with_policy(opa(server.point()));
    let challenge = Challenge::new("Test", "tests").unwrap();
    let authn = AuthnLayer::new(authenticate_fn(challenge, |_, _| Outcome::verified(person("alice").build())))
        .dangerous_plain_http();
    let router = Router::new().route("/orders", routing::get(async || "orders").layer(guard)).layer(authn);
    let response = router.oneshot(get("/orders").map(|()| Body::empty())).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(!format!("{:?}", response.headers()).contains("cause"));
    assert!(!text(response).await.contains("cause"));
    let verdict = reads(&opa(server.point())).await;
    assert!(verdict.reasons()[0].contains("answers 500: the secret cause"), "{verdict:?}");
}

#[tokio::test]
async fn health_tells_what_the_last_question_found() {
    let is_up = Arc::new(AtomicBool::new(true));
    let up = Arc::clone(&is_up);
    let server = Server::start(move |_| {
        let status = if up.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, r#"{"result": true}"#).into_response()
    })
    .await;
    let policy = opa(server.point());
    let health = Health::new().watch_decision_point(policy.health());
    let clock = TestClock::at_unix(1_800_000_000);
    let alice = person("alice").build();
    let ask = async || policy.decide(&AccessQuery::new(&alice, "orders:read", clock.now())).await.decision();
    let condition = || health.look(clock.now()).condition();

    assert_eq!((ask().await, condition()), (Decision::Allow, Condition::Ready));
    is_up.store(false, Ordering::SeqCst);
    assert_eq!((ask().await, condition()), (Decision::CannotDecide, Condition::Failing));
    let report = health.look(clock.now());
    let (name, source) = report.sources().next().unwrap();
    assert_eq!(name, format!("decision_point:http://{}", server.address));
    assert!(source.cause().unwrap().contains("answers 503"), "{source:?}");
    clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(condition(), Condition::Stale, "it may be back: whoever waits for a question would wait for ever");
    is_up.store(true, Ordering::SeqCst);
    assert_eq!((ask().await, condition()), (Decision::Allow, Condition::Ready));
}

/// A client that has the decision point fail at its own question takes nothing out of rotation.
#[tokio::test]
async fn one_odd_question_does_not_make_the_service_unready() {
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    let server = Server::start(move |asked| {
        let status = match asked.body["input"]["resource"]["id"].as_str().unwrap_or_default() {
            _ if away.load(Ordering::SeqCst) => 503,
            "" => 200,
            status => status.parse().unwrap(),
        };
        let body = if status == 299 { r#"{"decision_id": 7}"# } else { "<html>" };
        (StatusCode::from_u16(if status == 299 { 200 } else { status }).unwrap(), body).into_response()
    })
    .await;
    let policy = opa(server.point());
    let health = Health::new().watch_decision_point(policy.health());
    let clock = TestClock::at_unix(1_800_000_000);
    let alice = person("alice").build();
    let ask = async |id: &'static str| {
        let thing = Resource::new("order", id);
        policy.decide(&AccessQuery::new(&alice, "orders:read", clock.now()).on(&thing)).await.decision()
    };
    let condition = || health.look(clock.now()).condition();
    for status in ["400", "413", "414", "422", "431"] {
        assert_eq!((ask(status).await, condition()), (Decision::CannotDecide, Condition::Ready), "{status}");
    }
    // The last is JSON of another form.
    for status in ["500", "299"] {
        assert_eq!((ask(status).await, condition()), (Decision::CannotDecide, Condition::Stale), "{status}");
    }
    for status in ["401", "404", "502", "200"] {
        assert_eq!((ask(status).await, condition()), (Decision::CannotDecide, Condition::Failing), "{status}");
    }
    is_away.store(true, Ordering::SeqCst);
    let _ = ask("").await;
    is_away.store(false, Ordering::SeqCst);
    assert_eq!((ask("500").await, condition()), (Decision::CannotDecide, Condition::Failing), "it has just been away");
}

#[test]
fn what_is_refused_at_build() {
    let build = |url: &str, decision: &'static str| Opa::builder(DecisionPoint::at(url), decision).build();
    assert!(build("https://opa.internal:8181", "data.orders.allow").is_ok());
    assert!(build("https://gateway.internal/opa/", "data.a_b.c-d").is_ok());
    for url in ["http://opa.internal", "http://127.0.0.1", "opa", "https://u:p@opa", "https://opa?x", "https://opa/#a"]
    {
        let error = build(url, "data.orders.allow").unwrap_err().to_string();
        assert!(!error.contains("u:p"), "{error}");
    }
    for decision in
        ["", "data", "data.", "orders.allow", "data.a..b", "data.a/../b", "data.a?b", "data.a b", "data.a%2Fb"]
    {
        assert!(build("https://opa.internal", decision).is_err(), "{decision}");
    }
    let point = || DecisionPoint::at("https://opa.internal");
    let limits =
        |millis, bytes| portcullis::http_client::FetchLimits::new(std::time::Duration::from_millis(millis), bytes);
    for bad in [
        point().max_in_flight(0),
        point().max_in_flight(10_001),
        point().limits(limits(0, 1)),
        point().limits(limits(1, 0)),
        point().limits(limits(60_001, 1)),
        point().bearer(portcullis::Secret::from("a\r\nb".to_owned())),
        DecisionPoint::at("http://10.0.0.1").dangerous_http_on_loopback(),
    ] {
        assert!(Opa::builder(bad, "data.orders.allow").build().is_err());
    }
    let shown = format!("{:?}", opa(point().bearer(portcullis::Secret::from("t0ken".to_owned()))));
    assert!(shown.contains("https://opa.internal") && !shown.contains("t0ken"), "{shown}");
}

#[tokio::test]
async fn a_document_may_ask_for_a_step_up() {
    for (result, decision, demand) in [
        (
            json!({ "allow": false, "step_up": { "acr_values": ["gold"], "max_age": 60 } }),
            Decision::Deny,
            Some("acr gold, authenticated within 60 s"),
        ),
        (json!({ "step_up": { "factors": 2 } }), Decision::Deny, Some("factors 2")),
        (json!({ "allow": true, "step_up": { "factors": 2 } }), Decision::CannotDecide, None),
        (json!({ "allow": false, "step_up": { "factors": "2" } }), Decision::CannotDecide, None),
    ] {
        let answer = json!({ "result": result });
        let server = Server::start(move |_| Json(answer.clone()).into_response()).await;
        let alice = person("alice").build();
        let verdict = opa(server.point()).decide(&AccessQuery::new(&alice, "orders:pay", at())).await;
        assert_eq!(verdict.decision(), decision, "{result}");
        assert_eq!(verdict.step_up_demand().map(ToString::to_string).as_deref(), demand, "{result}");
    }
}
