//! From a decision document to a verdict, whoever made the document.

use std::sync::Arc;

use crate::policy::{Basis, Decision, Directive, StepUp, Verdict};

/// A value of a decision document. What is undefined is no value.
pub(super) trait Document: Sized {
    /// What it is, with an article.
    fn kind(&self) -> &'static str;
    fn truth(&self) -> Option<bool>;
    fn text(&self) -> Option<&str>;
    /// Of a whole number that is not negative.
    fn count(&self) -> Option<u64>;
    fn is_object(&self) -> bool;
    /// A field of an object; none of what is no object.
    fn field(&self, name: &str) -> Option<&Self>;
    /// Of an array or a set.
    fn items(&self) -> Option<Vec<&Self>>;
    /// Of an object; none if a name is no text.
    fn members(&self) -> Option<Vec<(&str, &Self)>>;
    fn to_json(&self) -> Option<serde_json::Value>;
}

/// `true` allows, and an object whose `allow` is `true`; nothing else does.
pub(super) fn verdict<D: Document>(document: Option<&D>, rule: &Arc<str>, basis: &Arc<Basis>) -> Verdict {
    let plain = |decision| Verdict::from_basis(decision, Arc::clone(basis));
    let Some(document) = document else { return plain(Decision::Deny).because("the decision is undefined") };
    match document.truth() {
        Some(true) => plain(Decision::Allow),
        Some(false) => plain(Decision::Deny),
        None if document.is_object() => of_object(document, rule, basis),
        None => plain(Decision::Deny).because(format!("the decision is {}, and only true allows", document.kind())),
    }
}

fn of_object<D: Document>(document: &D, rule: &Arc<str>, basis: &Arc<Basis>) -> Verdict {
    let allow = document.field("allow");
    let truth = allow.and_then(Document::truth);
    let decision = if truth == Some(true) { Decision::Allow } else { Decision::Deny };
    let mut verdict = Verdict::from_basis(decision, Arc::clone(basis));
    match allow {
        Some(_) if truth.is_some() => {}
        None => verdict = verdict.because("the decision has no allow"),
        Some(other) => verdict = verdict.because(format!("its allow is {}, and only true allows", other.kind())),
    }
    // A name or an obligation that cannot be read must not be lost: an allow would mean more than the policy says.
    let read = || -> Result<Verdict, String> {
        let mut verdict = verdict.clone();
        for reason in texts(document, "reasons")? {
            verdict = verdict.because(reason.to_owned());
        }
        for name in texts(document, "rules")? {
            verdict = verdict.by(name);
        }
        for advice in directives(document, "advice")? {
            verdict = verdict.advising(advice);
        }
        if let Some(step_up) = document.field("step_up") {
            if decision == Decision::Allow {
                return Err("it allows, and demands a step_up".to_owned());
            }
            let demand = demand(step_up)?.ok_or("step_up demands nothing")?;
            verdict = verdict.demanding(demand);
        }
        with_obligations(verdict, document)
    };
    read().unwrap_or_else(|problem| Verdict::cannot_decide(format!("{rule}: {problem}")).with_facts_of(&verdict))
}

/// The verdict with the obligations of the document; none of them is dropped.
pub(super) fn with_obligations<D: Document>(verdict: Verdict, document: &D) -> Result<Verdict, String> {
    Ok(directives(document, "obligations")?.into_iter().fold(verdict, Verdict::obliging))
}

/// What an object demands: `acr_values`, an array of strings or one string of several separated by spaces; `max_age`, in seconds;
/// `factors`. None if it has none of them.
pub(super) fn demand<D: Document>(object: &D) -> Result<Option<StepUp>, String> {
    if !object.is_object() {
        return Err(format!("step_up is {}, and must be an object", object.kind()));
    }
    let count = |name: &str| match object.field(name) {
        None => Ok(None),
        Some(value) => match value.count() {
            Some(count) => Ok(Some(count)),
            None => Err(format!("{name} is {}, and must be a whole number", value.kind())),
        },
    };
    let classes = match object.field("acr_values").and_then(Document::text) {
        Some(text) => text.split(' ').collect(),
        None => texts(object, "acr_values")?,
    };
    StepUp::of_parts(&classes, count("max_age")?, count("factors")?).map_err(|error| error.to_string())
}

/// What stands in an array or a set; nothing if it is not there.
fn items<'a, D: Document>(document: &'a D, field: &str) -> Result<Vec<&'a D>, String> {
    let Some(value) = document.field(field) else { return Ok(Vec::new()) };
    value.items().ok_or_else(|| format!("{field} is {}, and must be an array or a set", value.kind()))
}

fn texts<'a, D: Document>(document: &'a D, field: &str) -> Result<Vec<&'a str>, String> {
    let text = |item: &'a D| item.text().ok_or_else(|| format!("{field} has {}, and must have strings", item.kind()));
    items(document, field)?.into_iter().map(text).collect()
}

/// Each a name, or an object with a `name` and parameters.
fn directives<D: Document>(document: &D, field: &str) -> Result<Vec<Directive>, String> {
    items(document, field)?.into_iter().map(|value| directive(value, field)).collect()
}

fn directive<D: Document>(value: &D, field: &str) -> Result<Directive, String> {
    if let Some(name) = value.text() {
        return Ok(Directive::new(name.to_owned()));
    }
    let Some(name) = value.field("name").and_then(Document::text) else {
        return Err(format!("{field} has {} without a name", value.kind()));
    };
    let no_json = || format!("{field} has a parameter that is no JSON");
    let mut directive = Directive::new(name.to_owned());
    for (name, parameter) in value.members().ok_or_else(no_json)? {
        if name != "name" {
            directive = directive.with(name.to_owned(), parameter.to_json().ok_or_else(no_json)?);
        }
    }
    Ok(directive)
}

#[cfg(feature = "rego")]
impl Document for regorus::Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Set(_) => "a set",
            Self::Object(_) => "an object",
            Self::Undefined => "undefined",
        }
    }

    fn truth(&self) -> Option<bool> {
        self.as_bool().ok().copied()
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    fn count(&self) -> Option<u64> {
        match self {
            Self::Number(_) => self.as_u64().ok(),
            _ => None,
        }
    }

    fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(_) => Some(&self[name]).filter(|value| **value != Self::Undefined),
            _ => None,
        }
    }

    fn items(&self) -> Option<Vec<&Self>> {
        match self {
            Self::Array(items) => Some(items.iter().collect()),
            Self::Set(items) => Some(items.iter().collect()),
            _ => None,
        }
    }

    fn members(&self) -> Option<Vec<(&str, &Self)>> {
        self.as_object().ok()?.iter().map(|(name, value)| Some((name.text()?, value))).collect()
    }

    fn to_json(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self).ok()
    }
}

#[cfg(any(test, feature = "policy-remote"))]
impl Document for serde_json::Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    fn truth(&self) -> Option<bool> {
        self.as_bool()
    }

    fn text(&self) -> Option<&str> {
        self.as_str()
    }

    fn count(&self) -> Option<u64> {
        self.as_u64()
    }

    fn is_object(&self) -> bool {
        Self::is_object(self)
    }

    fn field(&self, name: &str) -> Option<&Self> {
        self.get(name)
    }

    fn items(&self) -> Option<Vec<&Self>> {
        self.as_array().map(|items| items.iter().collect())
    }

    fn members(&self) -> Option<Vec<(&str, &Self)>> {
        self.as_object().map(|members| members.iter().map(|(name, value)| (name.as_str(), value)).collect())
    }

    fn to_json(&self) -> Option<serde_json::Value> {
        Some(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same from whatever made the document.
    fn of(json: &str) -> Verdict {
        let document: serde_json::Value = serde_json::from_str(json).unwrap();
        let verdict = verdict(Some(&document), &"data.a.allow".into(), &Arc::new(Basis::new()));
        #[cfg(feature = "rego")]
        {
            let document = regorus::Value::from_json_str(json).unwrap();
            assert_eq!(super::verdict(Some(&document), &"data.a.allow".into(), &Arc::new(Basis::new())), verdict);
        }
        verdict
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
        let undefined = verdict::<serde_json::Value>(None, &"data.a.allow".into(), &Arc::new(Basis::new()));
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
