//! What AuthZEN answers, and the verdict that it is.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    log::one_line,
    policy::{
        Decision, Verdict,
        decision::{self, Document as _},
        unique::Unique,
    },
};

/// The most reasons that are taken over from one answer.
const MOST_REASONS: usize = 16;

/// The answer to one question: an object, alone and in a list. A derived reader would take `[true]` for one as well.
#[derive(Deserialize)]
#[serde(try_from = "Unique")]
pub(super) struct Evaluation {
    decision: bool,
    context: Value,
}

impl TryFrom<Unique> for Evaluation {
    type Error = String;

    fn try_from(Unique(answer): Unique) -> Result<Self, String> {
        let Value::Object(mut members) = answer else {
            return Err(format!("an evaluation is {}, and must be an object", answer.kind()));
        };
        match members.get("decision").map(|decision| decision.as_bool().ok_or(decision)) {
            Some(Ok(decision)) => Ok(Self { decision, context: members.remove("context").unwrap_or_default() }),
            Some(Err(other)) => Err(format!("decision is {}, and must be a boolean", other.kind())),
            None => Err("an evaluation has no decision".to_owned()),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Evaluations {
    pub(super) evaluations: Vec<Evaluation>,
}

impl Evaluation {
    pub(super) fn verdict(self) -> Verdict {
        let decision = if self.decision { Decision::Allow } else { Decision::Deny };
        let context = self.context;
        if self.decision && !(context.is_null() || context.is_object()) {
            return Verdict::cannot_decide("the context of the answer is no object");
        }
        let verdict = reasons(&context).fold(Verdict::new(decision), Verdict::because);
        let trouble = |why: String| Verdict::cannot_decide(why).with_facts_of(&verdict);
        let Some(error) = context.get("error") else {
            return match decision {
                Decision::Allow => decision::with_obligations(verdict.clone(), &context).unwrap_or_else(trouble),
                Decision::Deny | Decision::CannotDecide => demanding(verdict, &context),
            };
        };
        let is_own_fault = error.get("status").and_then(Value::as_u64).is_none_or(|status| status >= 500);
        if self.decision || is_own_fault { trouble("the evaluation failed".to_owned()) } else { verdict }
    }
}

/// A denial's context may say what would help; one that cannot be read is a denial all the same.
fn demanding(verdict: Verdict, context: &Value) -> Verdict {
    if !context.is_object() {
        return verdict;
    }
    match decision::demand(context) {
        Ok(Some(demand)) => verdict.demanding(demand),
        Ok(None) => verdict,
        Err(problem) => verdict.because(one_line(&problem)),
    }
}

/// What the context says for whoever reads the record. A client must see none of it.
fn reasons(context: &Value) -> impl Iterator<Item = String> {
    let texts = |value: Option<&Value>| -> Vec<String> {
        match value {
            Some(Value::String(text)) => vec![text.clone()],
            // One text for each language or status.
            Some(Value::Object(texts)) => texts.values().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    };
    let of = |object: &Value| {
        let id = object.get("id").and_then(Value::as_str).map(|id| format!("reason {id}"));
        let said = ["reason", "reason_admin"].into_iter().flat_map(|name| texts(object.get(name)));
        id.into_iter().chain(said).collect::<Vec<_>>()
    };
    let listed = context.get("reasons").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let listed = listed.iter().flat_map(|reason| match reason {
        Value::String(text) => vec![text.clone()],
        other => of(other),
    });
    let failed = texts(context.get("error").and_then(|error| error.get("message")));
    let all: Vec<String> = of(context).into_iter().chain(listed).chain(failed).take(MOST_REASONS).collect();
    all.into_iter().map(|reason| one_line(&reason))
}
