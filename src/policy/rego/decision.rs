//! From a decision document to a verdict.

use std::sync::Arc;

use regorus::Value;

use crate::policy::{Basis, Decision, Directive, Verdict};

/// `true` allows, and an object whose `allow` is `true`; nothing else does.
pub(super) fn verdict(document: &Value, rule: &Arc<str>, basis: &Arc<Basis>) -> Verdict {
    let plain = |decision| Verdict::from_basis(decision, Arc::clone(basis));
    match document {
        Value::Bool(true) => plain(Decision::Allow),
        Value::Bool(false) => plain(Decision::Deny),
        Value::Undefined => plain(Decision::Deny).because("the decision is undefined"),
        Value::Object(_) => of_object(document, rule, basis),
        other => plain(Decision::Deny).because(format!("the decision is {}, and only true allows", kind(other))),
    }
}

fn of_object(document: &Value, rule: &Arc<str>, basis: &Arc<Basis>) -> Verdict {
    let decision = match &document["allow"] {
        Value::Bool(true) => Decision::Allow,
        _ => Decision::Deny,
    };
    let mut verdict = Verdict::from_basis(decision, Arc::clone(basis));
    match &document["allow"] {
        Value::Bool(_) => {}
        Value::Undefined => verdict = verdict.because("the decision has no allow"),
        other => verdict = verdict.because(format!("its allow is {}, and only true allows", kind(other))),
    }
    // A name or an obligation that cannot be read must not be lost: an allow would mean more than the policy says.
    let read = || -> Result<Verdict, String> {
        let mut verdict = verdict.clone();
        for reason in texts(&document["reasons"], "reasons")? {
            verdict = verdict.because(reason.to_owned());
        }
        for name in texts(&document["rules"], "rules")? {
            verdict = verdict.by(name);
        }
        for obligation in items(&document["obligations"], "obligations")? {
            verdict = verdict.obliging(directive(obligation, "obligations")?);
        }
        for advice in items(&document["advice"], "advice")? {
            verdict = verdict.advising(directive(advice, "advice")?);
        }
        Ok(verdict)
    };
    read().unwrap_or_else(|problem| Verdict::cannot_decide(format!("{rule}: {problem}")).with_facts_of(&verdict))
}

/// An array or a set; nothing if it is not there.
fn items<'a>(value: &'a Value, field: &str) -> Result<Vec<&'a Value>, String> {
    match value {
        Value::Undefined => Ok(Vec::new()),
        Value::Array(items) => Ok(items.iter().collect()),
        Value::Set(items) => Ok(items.iter().collect()),
        other => Err(format!("{field} is {}, and must be an array or a set", kind(other))),
    }
}

fn texts<'a>(value: &'a Value, field: &str) -> Result<Vec<&'a str>, String> {
    let text = |item: &'a Value| match item {
        Value::String(text) => Ok(&**text),
        other => Err(format!("{field} has {}, and must have strings", kind(other))),
    };
    items(value, field)?.into_iter().map(text).collect()
}

/// A name, or an object with a `name` and parameters.
fn directive(value: &Value, field: &str) -> Result<Directive, String> {
    let nameless = || format!("{field} has {} without a name", kind(value));
    let mut directive = match value {
        Value::String(name) => return Ok(Directive::new(name.to_string())),
        Value::Object(_) => match &value["name"] {
            Value::String(name) => Directive::new(name.to_string()),
            _ => return Err(nameless()),
        },
        _ => return Err(nameless()),
    };
    for (name, parameter) in value.as_object().map_err(|_| nameless())?.iter() {
        let (Value::String(name), Ok(parameter)) = (name, serde_json::to_value(parameter)) else {
            return Err(format!("{field} has a parameter that is no JSON"));
        };
        if **name != *"name" {
            directive = directive.with(name.to_string(), parameter);
        }
    }
    Ok(directive)
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Verdict {
        verdict(&Value::from_json_str(json).unwrap(), &"data.a.allow".into(), &Arc::new(Basis::new()))
    }

    #[test]
    fn only_true_allows() {
        assert!(of("true").is_allow() && of(r#"{"allow": true}"#).is_allow());
        for no in [
            "false",
            "null",
            "1",
            "\"true\"",
            "[]",
            "[true]",
            "{}",
            r#"{"allow": "true"}"#,
            r#"{"allow": 1}"#,
            r#"{"Allow": true}"#,
            r#"{"allow": {"allow": true}}"#,
        ] {
            assert_eq!(of(no).decision(), Decision::Deny, "{no}");
        }
        let undefined = verdict(&Value::Undefined, &"data.a.allow".into(), &Arc::new(Basis::new()));
        assert_eq!(undefined.decision(), Decision::Deny);
    }

    #[test]
    fn a_decision_document_says_more() {
        let verdict = of(r#"{"allow": true, "reasons": ["r"], "rules": ["a", "b"], "more": 1,
                "obligations": ["log", {"name": "mask", "fields": ["email"]}], "advice": ["ask"]}"#);
        assert!(verdict.is_allow());
        assert_eq!((verdict.reasons(), verdict.rules().len()), (&["r".into()][..], 2));
        let mask = Directive::new("mask").with("fields", vec!["email"]);
        assert_eq!(verdict.obligations(), ["log".into(), mask]);
        assert_eq!(verdict.advice(), ["ask".into()]);
    }

    #[test]
    fn what_cannot_be_read_of_a_decision_is_never_dropped() {
        for broken in [
            r#"{"allow": true, "obligations": "log"}"#,
            r#"{"allow": true, "obligations": [1]}"#,
            r#"{"allow": true, "obligations": [{"fields": []}]}"#,
            r#"{"allow": true, "reasons": [1]}"#,
            r#"{"allow": true, "advice": {}}"#,
            r#"{"allow": true, "rules": 7}"#,
        ] {
            assert_eq!(of(broken).decision(), Decision::CannotDecide, "{broken}");
        }
    }
}
