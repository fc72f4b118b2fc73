use axum::{Json, response::IntoResponse};
use portcullis::{
    Principal, PrincipalKind,
    conformance::{PolicyFixture, PolicyQuestion, policy_backend},
    policy::{
        AccessQuery, Attributes, AuthZen, AuthZenBuilder, Decision, DecisionPoint, PolicyBackend, QueryParts, Resource,
        Verdict,
    },
};
use serde_json::{Value, json};

use crate::server::{Asked, ISSUER, Server, at, order, person, reads};

fn authzen(point: DecisionPoint) -> AuthZenBuilder {
    AuthZen::builder(point).subjects(ISSUER, "user")
}

/// As a decision point would that lets clerks read.
fn evaluation(subject: &Value, question: &Value) -> Value {
    let is_clerk = subject["properties"]["roles"].as_array().is_some_and(|roles| roles.contains(&json!("clerk")));
    match question["action"]["name"].as_str() {
        Some("orders:read") => json!({ "decision": is_clerk }),
        Some("broken") => json!({ "decision": false, "context": { "error": { "status": 500, "message": "no" } } }),
        _ => json!({ "decision": false, "context": { "reason": "not for you" } }),
    }
}

fn answer(asked: &Asked) -> Value {
    if asked.path == "/access/v1/evaluation" {
        return evaluation(&asked.body["subject"], &asked.body);
    }
    let of = |question: &Value| evaluation(question.get("subject").unwrap_or(&asked.body["subject"]), question);
    json!({ "evaluations": asked.body["evaluations"].as_array().unwrap().iter().map(of).collect::<Vec<_>>() })
}

async fn server() -> Server {
    Server::start(|asked| Json(answer(asked)).into_response()).await
}

fn decisions(verdicts: &[Verdict]) -> Vec<Decision> {
    verdicts.iter().map(Verdict::decision).collect()
}

#[tokio::test]
async fn authzen_conforms() {
    let server = server().await;
    let clerk = person("alice").roles(["clerk"]).build();
    let question = |action: &str| PolicyQuestion::new(clerk.clone(), action);
    let fixture =
        || PolicyFixture::new(question("orders:read"), question("orders:cancel")).undecidable(question("broken"));
    let policy = || authzen(server.point()).resource_if_none("service", "orders");
    policy_backend(&policy().build().unwrap(), fixture()).await;
    policy_backend(&policy().reads(QueryParts::ROLES).build().unwrap(), fixture()).await;
}

#[tokio::test]
async fn the_request_has_the_four_fields() {
    let server = server().await;
    let policy = authzen(server.with_token()).roles_property("cerbos.roles").build().unwrap();
    let alice = person("alice").roles(["clerk"]).tenant("acme").claims(r#"{"sub":"alice"}"#).build();
    let order = order().with("owner", "mallory");
    let attributes = Attributes::new().with("urgent", true).with("address", "127.0.0.1");
    let query = AccessQuery::new(&alice, "orders:read", at()).on(&order).with_attributes(&attributes);
    policy.decide(&query.with_route("GET", Some("/orders/{id}"))).await;
    let asked = server.asked().remove(0);
    assert_eq!(
        (&*asked.path, &asked.headers["authorization"]),
        ("/access/v1/evaluation", &"Bearer t0ken".parse().unwrap())
    );
    let properties = json!({
        "issuer": ISSUER, "cerbos.roles": ["clerk"], "scopes": [], "permissions": [], "amr": [], "tenant": "acme",
        "kind": "user", "credential": "jwt", "claims": { "sub": "alice" },
    });
    let owner = json!({ "issuer": ISSUER, "id": "alice" });
    let expected = json!({
        "subject": { "type": "user", "id": "alice", "properties": properties },
        "action": { "name": "orders:read" },
        "resource": { "type": "order", "id": "42", "properties": { "status": "open", "tenant": "acme", "owner": owner } },
        "context": {
            "urgent": true, "method": "GET", "route": "/orders/{id}", "time": at().unix_seconds(), "time_ns": at().unix_nanos(),
        },
    });
    assert_eq!(asked.body, expected, "and no attribute stands in the place of what is known, or is not known");
}

#[tokio::test]
async fn a_subject_is_its_issuer_too() {
    let server = server().await;
    let policy = authzen(server.point()).subjects("keys", "api_key").build().unwrap();
    let asks = |issuer: &'static str| {
        let (policy, who) = (policy.clone(), Principal::builder(PrincipalKind::User, issuer, "alice", "jwt"));
        async move {
            let (who, order) = (who.roles(["clerk"]).build(), order());
            let verdict = policy.decide(&AccessQuery::new(&who, "orders:read", at()).on(&order)).await;
            (verdict.decision(), verdict.is_firm())
        }
    };
    assert_eq!(asks(ISSUER).await, (Decision::Allow, false));
    assert_eq!(asks("keys").await, (Decision::Allow, false));
    assert_eq!(asks("https://evil.example.com").await, (Decision::Deny, true));
    let types: Vec<_> = server.asked().iter().map(|asked| asked.body["subject"]["type"].clone()).collect();
    assert_eq!(types, ["user", "api_key"], "who is of another issuer is not asked about");
}

#[tokio::test]
async fn only_a_decision_of_true_allows() {
    for (answer, expected) in [
        (r#"{"decision": true}"#, Decision::Allow),
        (r#"{"decision": true, "context": {"id": "7", "obligations": ["log"]}}"#, Decision::Allow),
        (r#"{"decision": false}"#, Decision::Deny),
        (r#"{"decision": false, "context": {"error": {"status": 404, "message": "no order"}}}"#, Decision::Deny),
        (r#"{"decision": false, "context": {"error": {"status": 503}}}"#, Decision::CannotDecide),
        (r#"{"decision": false, "context": {"error": "down"}}"#, Decision::CannotDecide),
        (r#"{"decision": true, "context": {"error": {"status": 404}}}"#, Decision::CannotDecide),
        (r#"{"decision": true, "context": {"obligations": "log"}}"#, Decision::CannotDecide),
        (r#"{"decision": true, "context": {"obligations": [{"id": "log"}]}}"#, Decision::CannotDecide),
        (r#"{"decision": true, "context": [{"obligations": ["log"]}]}"#, Decision::CannotDecide),
        (r#"{"decision": true, "context": {"obligations": ["log"], "obligations": []}}"#, Decision::CannotDecide),
        (r#"{"decision": "true"}"#, Decision::CannotDecide),
        (r#"{"decision": 1}"#, Decision::CannotDecide),
        (r#"{"decision": null}"#, Decision::CannotDecide),
        (r#"{"decision": false, "decision": true}"#, Decision::CannotDecide),
        (r#"{"evaluations": [{"decision": true}]}"#, Decision::CannotDecide),
        ("{}", Decision::CannotDecide),
        ("[true]", Decision::CannotDecide),
        ("true", Decision::CannotDecide),
    ] {
        let server = Server::saying(answer).await;
        assert_eq!(reads(&authzen(server.point()).build().unwrap()).await.decision(), expected, "{answer}");
    }
    let told = r#"{"decision": false, "context": {"id": "0", "reason": "a", "reason_admin": {"en": "b\nc"},
                   "reason_user": {"en": "for the user"}, "reasons": ["d", {"id": "1", "reason_admin": {"en": "e"}}]}}"#;
    let verdict = reads(&authzen(Server::saying(told).await.point()).build().unwrap()).await;
    assert_eq!(verdict.reasons(), ["reason 0", "a", "b c", "d", "reason 1", "e"]);
    let binds = r#"{"decision": true, "context": {"obligations": ["log"]}}"#;
    let verdict = reads(&authzen(Server::saying(binds).await.point()).build().unwrap()).await;
    assert_eq!(verdict.obligations(), ["log".into()]);
}

#[tokio::test]
async fn several_questions_are_one_request() {
    let server = server().await;
    let policy = authzen(server.point()).build().unwrap();
    let (alice, bob) = (person("alice").roles(["clerk"]).build(), person("bob").build());
    let stranger = Principal::builder(PrincipalKind::User, "elsewhere", "alice", "jwt").roles(["clerk"]).build();
    let order = order();
    let read = |who| AccessQuery::new(who, "orders:read", at());
    let queries = [read(&alice).on(&order), read(&stranger).on(&order), read(&bob).on(&order), read(&alice)];
    let expected = [Decision::Allow, Decision::Deny, Decision::Deny, Decision::CannotDecide];
    assert_eq!(decisions(&policy.decide_all(&queries).await), expected);
    let asked = server.asked();
    assert_eq!(asked.iter().map(|asked| &*asked.path).collect::<Vec<_>>(), ["/access/v1/evaluations"; 2]);
    assert_eq!(asked[0].body["options"]["evaluations_semantic"], "execute_all");
    let subjects: Vec<_> = asked.iter().map(|asked| asked.body["subject"]["id"].clone()).collect();
    assert_eq!(subjects, ["alice", "bob"], "two have nothing to ask");

    let orders: Vec<Resource> = (0..250).map(|id| Resource::new("order", id)).collect();
    let queries: Vec<_> = orders.iter().map(|order| read(&alice).on(order)).collect();
    assert!(policy.decide_all(&queries).await.iter().all(Verdict::is_allow));
    let asked = server.asked();
    let sizes: Vec<_> = asked[2..].iter().map(|asked| asked.body["evaluations"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(asked[2].body["subject"]["id"], "alice", "the same for all: said once");
    let evaluation =
        json!({ "action": { "name": "orders:read" }, "resource": { "type": "order", "id": "0", "properties": {} } });
    assert_eq!(asked[2].body["evaluations"][0], evaluation);
    assert_eq!(server.connections(), 1);
}

/// Some answer all questions about an id by the properties that they saw first.
#[tokio::test]
async fn what_differs_in_more_than_its_id_is_never_asked_about_in_one_request() {
    let server = server().await;
    let policy = authzen(server.point()).build().unwrap();
    let (clerk, guest) = (person("alice").roles(["clerk"]).build(), person("alice").roles(["guest"]).build());
    let (open, shut) =
        (Resource::new("order", 1).with("status", "open"), Resource::new("order", 1).with("status", "shut"));
    let (here, there) = (Attributes::new().with("at", "here"), Attributes::new().with("at", "there"));
    let read = |who, order| AccessQuery::new(who, "orders:read", at()).on(order).with_attributes(&here);
    let requests = async |queries: &[AccessQuery<'_>]| {
        let before = server.asked().len();
        let verdicts = decisions(&policy.decide_all(queries).await);
        (verdicts, server.asked().len() - before)
    };
    use Decision::{Allow, Deny};
    assert_eq!(requests(&[read(&clerk, &open), read(&guest, &open)]).await, (vec![Allow, Deny], 2));
    assert_eq!(requests(&[read(&guest, &open), read(&clerk, &open)]).await, (vec![Deny, Allow], 2));
    assert_eq!(requests(&[read(&clerk, &open), read(&clerk, &shut)]).await, (vec![Allow; 2], 2));
    let elsewhere = read(&clerk, &open).with_attributes(&there);
    assert_eq!(requests(&[read(&clerk, &open), elsewhere]).await, (vec![Allow; 2], 2));
    let cancel = AccessQuery::new(&clerk, "orders:cancel", at()).on(&open).with_attributes(&here);
    assert_eq!(requests(&[read(&clerk, &open), cancel, read(&clerk, &open)]).await, (vec![Allow, Deny, Allow], 1));
}

#[tokio::test]
async fn as_many_answers_as_questions_or_none() {
    for text in [
        r#"{"decision": true}"#,
        r#"{"evaluations": []}"#,
        r#"{"evaluations": [{"decision": true}]}"#,
        r#"{"evaluations": [{"decision": true}, {"decision": true}, {"decision": true}]}"#,
        r#"{"evaluations": [{"decision": true}, {}]}"#,
        r#"{"evaluations": true}"#,
        r#"{"evaluations": [[true], [true]]}"#,
        r#"{"evaluations": [{"decision": true}, [true, {}]]}"#,
        r#"{"evaluations": [{"decision": true}, true]}"#,
        r#"{"evaluations": [{"decision": true}, null]}"#,
        r#"{"evaluations": [{"decision": true}, {"decision": [true]}]}"#,
        r#"{"evaluations": [{"decision": true}, {"decision": false, "decision": true}]}"#,
        r#"[[{"decision": true}, {"decision": true}]]"#,
    ] {
        let server = Server::saying(text).await;
        let policy = authzen(server.point()).build().unwrap();
        let (alice, order) = (person("alice").build(), order());
        let query = AccessQuery::new(&alice, "orders:read", at()).on(&order);
        let verdicts = policy.decide_all(&[query, query]).await;
        assert_eq!(decisions(&verdicts), [Decision::CannotDecide; 2], "{text}");
        assert_eq!(decisions(&policy.decide_all(&vec![query; 201]).await), vec![Decision::CannotDecide; 201]);
        assert_eq!(server.asked().len(), 2, "after one that has no answer, the rest is not asked");
    }
}

#[test]
fn what_is_refused_at_build() {
    let point = || DecisionPoint::at("https://pdp.internal");
    assert!(authzen(point()).build().is_ok());
    assert!(AuthZen::builder(point()).build().is_err(), "no issuer");
    assert!(authzen(point()).subjects(ISSUER, "person").build().is_err(), "one issuer twice");
    assert!(
        authzen(point()).subjects("keys", "user").build().is_err(),
        "two issuers whose ids would be taken for each other"
    );
    assert!(authzen(point()).subjects("keys", "").build().is_err());
    assert!(authzen(DecisionPoint::at("http://pdp.internal")).build().is_err());
}

#[tokio::test]
async fn a_denial_may_ask_for_a_step_up() {
    for (context, demand) in [
        (
            json!({ "acr_values": "urn:example:gold urn:example:mfa", "max_age": 300 }),
            Some("acr urn:example:gold or urn:example:mfa, authenticated within 300 s"),
        ),
        (json!({ "acr_values": ["urn:example:gold"] }), Some("acr urn:example:gold")),
        (json!({ "factors": 2, "reason": "large amount" }), Some("factors 2")),
        (json!({ "max_age": 0 }), Some("authenticated within 0 s")),
        (json!({ "acr_values": "" }), None),
        (json!({ "acr_values": 7 }), None),
        (json!({ "acr_values": "a\"b" }), None),
        (json!({ "max_age": "300" }), None),
        (json!({ "max_age": -1 }), None),
        (json!({ "factors": 9 }), None),
        (json!({}), None),
        (json!(null), None),
    ] {
        let (denial, allow) =
            (json!({ "decision": false, "context": context }), json!({ "decision": true, "context": context }));
        let server = Server::start(move |_| Json(denial.clone()).into_response()).await;
        let (alice, order) = (person("alice").build(), order());
        let query = AccessQuery::new(&alice, "orders:pay", at()).on(&order);
        let verdict = authzen(server.point()).build().unwrap().decide(&query).await;
        assert_eq!(verdict.decision(), Decision::Deny, "{context}");
        assert_eq!(verdict.step_up_demand().map(ToString::to_string).as_deref(), demand, "{context}");
        let server = Server::start(move |_| Json(allow.clone()).into_response()).await;
        let verdict = authzen(server.point()).build().unwrap().decide(&query).await;
        assert_eq!((verdict.decision(), verdict.step_up_demand()), (Decision::Allow, None), "{context}");
    }
}
