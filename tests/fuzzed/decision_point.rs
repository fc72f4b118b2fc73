//! What a decision point answers, by the protocol of OPA and by AuthZEN, one question and two. It is allowed exactly if a second
//! reader of the JSON finds that it says so, with every obligation that this reader finds; what cannot be read is never allowed
//! and never just denied.

use std::{collections::BTreeMap, sync::LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use portcullis::{
    Principal, PrincipalKind, StoreError,
    http_client::{FetchLimits, HttpFetch},
    policy::{AccessQuery, AuthZen, Decision, DecisionPoint, Opa, PolicyBackend, Verdict},
};
use serde_json::{Map, Value, value::RawValue};

use super::{json::once, memory::at};

const ISSUER: &str = "https://id.example.com";

/// Answers the same to every question.
#[derive(Debug)]
struct Answers(Bytes);

#[async_trait]
impl HttpFetch for Answers {
    async fn fetch(&self, _: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        Ok(Response::new(self.0.clone()))
    }
}

static ALICE: LazyLock<Principal> =
    LazyLock::new(|| Principal::builder(PrincipalKind::User, ISSUER, "alice", "test").roles(["clerk"]).build());

/// Panics if something of that does not hold. How many questions are allowed, of five.
pub fn check(answer: &[u8]) -> usize {
    let point = || DecisionPoint::at("https://pdp.internal").http(Answers(Bytes::copy_from_slice(answer)));
    let opa = Opa::builder(point(), "data.orders.allow").build().unwrap();
    let authzen = AuthZen::builder(point()).subjects(ISSUER, "user").resource_if_none("service", "orders");
    let authzen = authzen.build().unwrap();
    let read = AccessQuery::new(&ALICE, "orders:read", at());
    let both = [read, AccessQuery::new(&ALICE, "orders:cancel", at())];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (of_opa, of_authzen, several) = runtime
        .block_on(async { (opa.decide(&read).await, authzen.decide(&read).await, authzen.decide_all(&both).await) });

    let object = once(answer).filter(Value::is_object);
    // A member that means nothing to it may stand twice, or be a number beyond all bounds.
    let known = known(answer);
    match (&object, &known) {
        (Some(object), _) => is_as(&of_opa, &by_opa(object)),
        (None, Some(known)) => assert!(!of_opa.is_allow() || by_opa(known).0 == Decision::Allow),
        (None, None) => is_as(&of_opa, &(Decision::CannotDecide, Vec::new())),
    }
    let undecided = (Decision::CannotDecide, Vec::new());
    is_as(&of_authzen, &object.as_ref().map_or(undecided.clone(), by_authzen));

    assert_eq!(several.len(), 2);
    let of_two = known
        .as_ref()
        .and_then(|known| known["evaluations"].as_array())
        .filter(|all| all.len() == 2 && all.iter().all(|one| one.is_object() && one["decision"].is_boolean()));
    for (place, verdict) in several.iter().enumerate() {
        let expected = of_two.map_or(undecided.clone(), |all| by_authzen(&all[place]));
        if object.is_some() || verdict.is_allow() {
            is_as(verdict, &expected);
        }
    }
    [of_opa, of_authzen].iter().chain(&several).filter(|verdict| verdict.is_allow()).count()
}

/// The members of an object that mean something, each with nothing in it that stands twice.
fn known(answer: &[u8]) -> Option<Value> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(answer).ok()?;
    let known = members.iter().filter_map(|(name, value)| Some((name.clone(), once(value.get().as_bytes())?)));
    Some(known.collect::<Map<_, _>>().into())
}

/// The decision, and the names of the obligations if it allows.
type Expected = (Decision, Vec<String>);

fn is_as(verdict: &Verdict, (decision, obligations): &Expected) {
    assert_eq!(verdict.decision(), *decision, "{verdict:?}");
    assert!(verdict.step_up_demand().is_none() || *decision == Decision::Deny);
    if verdict.is_allow() {
        assert!(verdict.obligations().iter().map(|one| one.name()).eq(obligations.iter().map(String::as_str)));
    }
}

fn by_opa(answer: &Value) -> Expected {
    let undecided = (Decision::CannotDecide, Vec::new());
    if answer.get("decision_id").is_some_and(|id| !id.is_string() && !id.is_null()) {
        return undecided;
    }
    let document = &answer["result"];
    let allows = *document == true || document["allow"] == true;
    let texts = |name: &str| list(document, name).is_some_and(|items| items.iter().all(Value::is_string));
    let fits = !document.is_object() || texts("reasons") && texts("rules") && names(document, "advice").is_some();
    let steps_up = document.get("step_up").is_none_or(|demand| !allows && demands(demand) == Some(true));
    match names(document, "obligations") {
        Some(obligations) if fits && steps_up => (if allows { Decision::Allow } else { Decision::Deny }, obligations),
        _ => undecided,
    }
}

fn by_authzen(answer: &Value) -> Expected {
    let undecided = (Decision::CannotDecide, Vec::new());
    let (decision, context) = (&answer["decision"], &answer["context"]);
    match (decision.as_bool(), context.get("error")) {
        (Some(false), None) => (Decision::Deny, Vec::new()),
        (Some(false), Some(error)) if error["status"].as_u64().is_some_and(|status| status < 500) => {
            (Decision::Deny, Vec::new())
        }
        (Some(true), None) if context.is_null() || context.is_object() => {
            names(context, "obligations").map_or(undecided, |obligations| (Decision::Allow, obligations))
        }
        _ => undecided,
    }
}

/// What stands in a list; nothing if there is none.
fn list<'v>(object: &'v Value, name: &str) -> Option<&'v [Value]> {
    object.get(name).map_or(Some(&[][..]), |list| list.as_array().map(Vec::as_slice))
}

/// Each a name, or an object with one.
fn names(object: &Value, name: &str) -> Option<Vec<String>> {
    let named = |item: &Value| item.as_str().or(item["name"].as_str()).map(str::to_owned);
    list(object, name)?.iter().map(named).collect()
}

/// Whether an object demands something; none if it cannot be read.
fn demands(step_up: &Value) -> Option<bool> {
    let is_class = |text: &str| {
        (1..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\')
    };
    let classes: Vec<&str> = match step_up.as_object()?.get("acr_values") {
        Some(Value::String(text)) => text.split(' ').collect(),
        _ => list(step_up, "acr_values")?.iter().map(Value::as_str).collect::<Option<_>>()?,
    };
    let number = |name: &str, fits: fn(u64) -> bool| step_up.get(name).map(|number| number.as_u64().is_some_and(fits));
    let numbers = [number("max_age", |_| true), number("factors", |count| (1..=3).contains(&count))];
    let fits = classes.iter().all(|class| is_class(class)) && !numbers.contains(&Some(false));
    fits.then_some(!classes.is_empty() || numbers.iter().any(Option::is_some))
}
