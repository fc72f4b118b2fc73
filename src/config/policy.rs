//! The policy and the rules of routes.

use crate::{
    config::{document::Document, problem::Report},
    guard::{RouteRules, RuleNames},
    stack::{StackBuilder, mistakes_of},
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
    if let Some(watch) = policy.watch.as_ref().filter(|watch| watch.value.0 > crate::policy::LONGEST_WATCH) {
        report.add(watch.at, "policy.watch", format!("{:?}", watch.value.0), "must be at most 1d");
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
            report.bad_file(policy.file.at, "policy.file", &policy.file.value, "", &error);
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

/// The rules. A policy that is not good makes every permission unknown, and so do names that code has yet to tell: then the rules are
/// looked at for their other mistakes.
pub(super) fn routes(document: &Document, names: RuleNames, held: &Held, report: &mut Report<'_>) -> Option<Routes> {
    let no_policy = (document.policy.is_some() || report.took_from("policy")) && !is_there(held);
    let names = if no_policy { names.unfinished() } else { names };
    #[cfg(feature = "rbac")]
    let names = match held {
        Some(policy) => names.rbac(policy),
        None => names,
    };
    let inline = document.routes.as_ref().map(|routes| routes.at);
    let inline = inline.or_else(|| document.fallback.as_ref().map(|fallback| fallback.at));
    let routes = match (&document.routes_file, inline) {
        (Some(file), Some(_)) => {
            let advice = "contradicts the rules in this document: move all of them to one place";
            report.add(file.at, "routes_file", format!("{:?}", file.value), advice);
            None
        }
        (Some(file), None) => match RouteRules::with_text(&file.value, &names) {
            Ok((rules, text)) => Some(Routes { rules, text: Some(text) }),
            Err(error) => {
                report.bad_file(file.at, "routes_file", &file.value, "", &error);
                None
            }
        },
        (None, Some(_)) => {
            let (rules, mistakes) = RouteRules::among(&report.sheet().text, &names);
            for (at, error) in mistakes {
                report.add(at, error.setting(), error.value(), error.problem());
            }
            Some(Routes { rules, text: None })
        }
        (None, None) => None,
    }?;
    check_lines(document, &routes, report);
    Some(routes)
}

/// Notes what the stack would refuse in the lines.
fn check_lines(document: &Document, routes: &Routes, report: &mut Report<'_>) {
    for (start, error) in mistakes_of(routes.rules.placed()) {
        match (&document.routes_file, &routes.text) {
            (Some(file), Some(text)) => {
                let before = text.get(..start).map_or(0, |before| before.matches('\n').count());
                report.bad_file(file.at, "routes_file", &file.value, &format!("line {}: ", before + 1), &error);
            }
            _ if error.value() == "\"fallback\"" => {
                let advice = "is no line of the table, and stands in it: move it before [routes]";
                report.add(start, "routes.fallback", "the rule", advice);
            }
            _ => {
                report.take::<()>(start, "routes", Err(error));
            }
        }
    }
    let Some(problem) = routes.rules.fallback().and_then(|rule| rule.check_route("/").err()) else { return };
    let (at, field) = match (&document.routes_file, &document.fallback) {
        (Some(file), _) => (Some(file.at), "routes_file"),
        (None, fallback) => (fallback.as_ref().map(|fallback| fallback.at), "fallback"),
    };
    report.add(at, field, "the fallback", problem);
}

#[cfg(feature = "rbac")]
const fn is_there(held: &Held) -> bool {
    held.is_some()
}

#[cfg(not(feature = "rbac"))]
const fn is_there(_: &Held) -> bool {
    false
}
