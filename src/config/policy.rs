//! The policy and the rules of routes.

use crate::{
    config::{document::Document, problem::Report},
    guard::{RouteRules, RuleNames},
    stack::StackBuilder,
};

#[cfg(feature = "rbac")]
pub(super) type Held = Option<crate::policy::Rbac>;
#[cfg(not(feature = "rbac"))]
pub(super) type Held = ();

#[cfg(feature = "rbac")]
pub(super) fn read(document: &Document, report: &mut Report<'_>) -> Held {
    use crate::policy::Rbac;

    let policy = &document.policy.as_ref()?.value;
    if let Some(watch) = policy.watch.as_ref().filter(|watch| watch.value.0.as_secs() == 0) {
        report.add(watch.at, "policy.watch", format!("{:?}", watch.value.0), "must be at least 1s");
    }
    let made = match policy.file.value.rsplit_once('.') {
        Some((_, "toml")) => Rbac::from_toml_file(&policy.file.value),
        Some((_, "json")) => Rbac::from_json_file(&policy.file.value),
        _ => {
            let advice = "must end in .toml or .json, which says how it is written";
            report.add(policy.file.at, "policy.file", format!("{:?}", policy.file.value), advice);
            return None;
        }
    };
    match made {
        Ok(policy) => Some(policy),
        Err(error) => {
            // The error has the file, and the line in it.
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            let value = format!("{:?}", policy.file.value);
            report.add(policy.file.at, "policy.file", value, format!("is not good: {error}{cause}"));
            None
        }
    }
}

#[cfg(not(feature = "rbac"))]
pub(super) fn read(document: &Document, report: &mut Report<'_>) -> Held {
    if let Some(policy) = &document.policy {
        super::feature_is_off(policy.at, "policy", "rbac", report);
    }
}

#[cfg(feature = "rbac")]
pub(super) fn add(mut stack: StackBuilder, document: &Document, held: &Held, report: &mut Report<'_>) -> StackBuilder {
    if let (Some(policy), Some(written)) = (held, &document.policy) {
        if let Some(every) = &written.value.watch {
            report.take(every.at, "policy.watch", policy.watch(every.value.0));
        }
        stack = stack.policy(policy.clone());
    }
    stack
}

#[cfg(not(feature = "rbac"))]
pub(super) fn add(stack: StackBuilder, _: &Document, _: &Held, _: &mut Report<'_>) -> StackBuilder {
    stack
}

/// The rules of routes, and the text of their file if they have one.
pub(super) struct Routes {
    pub(super) rules: RouteRules,
    pub(super) text: Option<String>,
}

pub(super) fn routes(document: &Document, names: RuleNames, held: &Held, report: &mut Report<'_>) -> Option<Routes> {
    // A policy that is not good makes every permission unknown: its own problem is enough.
    if document.policy.is_some() && !is_there(held) {
        return None;
    }
    #[cfg(feature = "rbac")]
    let names = match held {
        Some(policy) => names.rbac(policy),
        None => names,
    };
    let inline = document.routes.as_ref().map(|routes| routes.at);
    let inline = inline.or_else(|| document.fallback.as_ref().map(|fallback| fallback.at));
    match (&document.routes_file, inline) {
        (Some(file), Some(_)) => {
            let advice = "contradicts the rules in this document: move all of them to one place";
            report.add(file.at, "routes_file", format!("{:?}", file.value), advice);
            None
        }
        (Some(file), None) => match RouteRules::with_text(&file.value, &names) {
            Ok((rules, text)) => Some(Routes { rules, text: Some(text) }),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
                let value = format!("{:?}", file.value);
                report.add(file.at, "routes_file", value, format!("is not good: {error}{cause}"));
                None
            }
        },
        (None, Some(_)) => match RouteRules::among(&report.sheet().text, &names) {
            Ok(rules) => Some(Routes { rules, text: None }),
            Err(mistakes) => {
                for (at, error) in mistakes {
                    report.add(at, error.setting(), error.value(), error.problem());
                }
                None
            }
        },
        (None, None) => None,
    }
}

#[cfg(feature = "rbac")]
const fn is_there(held: &Held) -> bool {
    held.is_some()
}

#[cfg(not(feature = "rbac"))]
const fn is_there(_: &Held) -> bool {
    false
}
