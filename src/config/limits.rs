//! Quotas, plans, and what they limit.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    config::{
        document::{ByText, CountedIn, Document, Limit, PeriodText, QuotaText},
        needed_word,
        problem::Report,
        tree::At,
    },
    error::ConfigError,
    near::near,
    rate_limit::{FailureBudget, LimitBy, Plans, Quota, RateLimitLayer},
    shadow::ShadowMode,
};

/// A limit, and the handle on its quotas.
pub(super) struct Made {
    pub(super) layer: RateLimitLayer,
    pub(super) plans: Plans,
}

const fn scope(by: ByText) -> &'static str {
    match by {
        ByText::Client => "client",
        ByText::Principal => "principal",
        ByText::Credential => "credential",
        ByText::Tenant => "tenant",
        ByText::Route => "route",
    }
}

/// Where limits count together.
#[cfg(feature = "rate-limit-redis")]
pub(super) type Shared = Option<crate::rate_limit::RedisLimits>;
#[cfg(not(feature = "rate-limit-redis"))]
pub(super) type Shared = ();

#[cfg(feature = "rate-limit-redis")]
pub(super) fn shared(document: &Document, report: &mut Report<'_>) -> Shared {
    let written = document.redis.as_ref()?;
    let unused = document.limits.iter().all(|limit| limit.value.store.value == CountedIn::Memory);
    if unused && !report.took_from("limits") {
        let advice = "is used by no limit: add store = \"redis\" to those that count together, or remove it";
        report.add(written.at, "redis", "the section", advice);
    }
    connect(written, report)
}

#[cfg(not(feature = "rate-limit-redis"))]
pub(super) fn shared(document: &Document, report: &mut Report<'_>) -> Shared {
    if let Some(redis) = &document.redis {
        super::feature_is_off(redis.at, "redis", "rate-limit-redis", report);
    }
}

/// Each limit of the document, and a note of each that is not good. Without `shared`, which is enough to look for what is
/// wrong, all count in memory.
#[cfg_attr(not(feature = "rate-limit-redis"), expect(unused_variables, reason = "all count in memory"))]
pub(super) fn read(document: &Document, shared: &Shared, report: &mut Report<'_>) -> Vec<Made> {
    for (name, quota) in &document.quotas {
        check_quota(name, quota, report);
    }
    for (name, plan) in &document.plans {
        quotas(document, &plan.value.quotas, &format!("plans.{name}.quotas"), report);
    }
    let mut scopes: Vec<(String, String)> = Vec::new();
    let mut made = Vec::new();
    for (index, limit) in document.limits.iter().enumerate() {
        let field = report.item("limits", index);
        let by = needed_word(limit.value.by, limit.at, &format!("{field}.by"), report);
        let name = limit.value.name.as_ref().map(|name| name.value.clone());
        let name = name.or_else(|| by.map(|by| scope(by).to_owned()));
        if let Some(name) = name.as_ref().filter(|_| !report.took_from(&format!("{field}.name"))) {
            if let Some((first, _)) = scopes.iter().find(|(_, other)| other == name) {
                let advice = format!("is the name of {first} as well: give each a name of its own, name = \"..\"");
                report.add(limit.at, format!("{field}.name"), format!("{name:?}"), advice);
            }
            scopes.push((field.clone(), name.clone()));
        }
        let no_server = document.redis.is_none() && !report.took_from("redis");
        if limit.value.store.value == CountedIn::Redis && no_server {
            let advice = "needs a server: add a [redis] section with its address";
            report.add(limit.value.store.at, format!("{field}.store"), "\"redis\"", advice);
        }
        let Some(one) = self::limit(document, limit, &field, by.zip(name), report) else { continue };
        #[cfg(feature = "rate-limit-redis")]
        let one = match (shared, limit.value.store.value) {
            (Some(redis), CountedIn::Redis) => Made { layer: one.layer.with_store(redis.clone()), ..one },
            (_, CountedIn::Redis | CountedIn::Memory) => one,
        };
        made.push(one);
    }
    unused(document, report);
    made
}

/// Notes quotas and plans that nothing names: they limit nobody. While a name is not known, or something was taken out, one of
/// them may be what was meant.
fn unused(document: &Document, report: &mut Report<'_>) {
    let plans: BTreeSet<&str> =
        document.limits.iter().flat_map(|limit| &limit.value.plans).map(|name| name.value.as_str()).collect();
    let lists = document.limits.iter().map(|limit| &limit.value.quotas);
    let lists = lists.chain(document.plans.values().map(|plan| &plan.value.quotas));
    let mut quotas: BTreeSet<&str> = lists.flat_map(|list| &list.value).map(|name| name.value.as_str()).collect();
    quotas.extend(of_failure_budget(document).map(|(name, _)| name));

    if !report.took_from("limits") && plans.iter().all(|name| document.plans.contains_key(*name)) {
        for (name, plan) in document.plans.iter().filter(|(name, _)| !plans.contains(name.as_str())) {
            let advice = "is named by no limit: name it in the plans of one, or remove it";
            report.add(plan.at, format!("plans.{name}"), "the plan", advice);
        }
    }
    let whole = ["limits", "plans", "failure_budget"].iter().all(|section| !report.took_from(section));
    if whole && quotas.iter().all(|name| document.quotas.contains_key(*name)) {
        for (name, quota) in document.quotas.iter().filter(|(name, _)| !quotas.contains(name.as_str())) {
            let advice = "is named by no limit, plan or failure budget: name it in one, or remove it";
            report.add(quota.at, format!("quotas.{name}"), "the quota", advice);
        }
    }
}

fn check_quota(name: &str, quota: &At<QuotaText>, report: &mut Report<'_>) {
    needed_word(quota.value.per, quota.at, &format!("quotas.{name}.per"), report);
    let Err(error) = make(name, &quota.value).validate() else { return };
    let burst = quota.value.burst.as_ref().filter(|_| error.setting() == "burst");
    let (at, of) = match burst {
        Some(burst) => (burst.at, "burst"),
        None if error.setting().starts_with("per_") => (quota.value.count.at, "count"),
        None => (quota.at, "name"),
    };
    report.add(at, format!("quotas.{name}.{of}"), error.value(), error.problem());
}

fn make(name: &str, written: &QuotaText) -> Quota {
    let count = written.count.value;
    let quota = match written.per {
        // One without a period is noted, and count and burst are looked at all the same.
        Some(PeriodText::Second) | None => Quota::per_second(count),
        Some(PeriodText::Minute) => Quota::per_minute(count),
        Some(PeriodText::Hour) => Quota::per_hour(count),
        Some(PeriodText::Day) => Quota::per_day(count),
    };
    let quota = quota.named(Cow::Owned(name.to_owned()));
    match &written.burst {
        Some(burst) => quota.burst(burst.value),
        None => quota,
    }
}

/// The quotas of these names; none if one is not known or not good.
fn quotas(
    document: &Document,
    names: &At<Vec<At<String>>>,
    field: &str,
    report: &mut Report<'_>,
) -> Option<Vec<Quota>> {
    if names.value.is_empty() {
        if !report.took_from(field) {
            report.add(names.at, field, "[]", "must name at least one of [quotas]");
        }
        return None;
    }
    let mut made = Vec::new();
    for (index, name) in names.value.iter().enumerate() {
        match document.quotas.get(&name.value) {
            Some(quota) => made.push(make(&name.value, &quota.value)),
            None => unknown(name, &report.item(field, index), "quota", document.quotas.keys(), report),
        }
    }
    (made.len() == names.value.len() && made.iter().all(|quota| quota.validate().is_ok())).then_some(made)
}

fn unknown<'a>(
    name: &At<String>,
    field: &str,
    what: &str,
    known: impl Iterator<Item = &'a String>,
    report: &mut Report<'_>,
) {
    // What was taken out is there, and its own problem is enough.
    if report.took_from(&format!("{what}s.{}", name.value)) {
        return;
    }
    let meant = near(&name.value, known.map(String::as_str));
    let advice = format!("is no {what}{meant}; write a section [{what}s.{}] or another name", name.value);
    report.add(name.at, field, format!("{:?}", name.value), advice);
}

/// `named` is what it goes by, and its name.
fn limit(
    document: &Document,
    limit: &At<Limit>,
    field: &str,
    named: Option<(ByText, String)>,
    report: &mut Report<'_>,
) -> Option<Made> {
    let written = &limit.value;
    let default = quotas(document, &written.quotas, &format!("{field}.quotas"), report);
    let mut tiers = Vec::new();
    for (index, plan) in written.plans.iter().enumerate() {
        let Some(text) = document.plans.get(&plan.value) else {
            let item = report.item(&format!("{field}.plans"), index);
            unknown(plan, &item, "plan", document.plans.keys(), report);
            continue;
        };
        // What is wrong with its quotas is told where the plan is.
        let mut told = Report::new(report.sheet());
        tiers.extend(quotas(document, &text.value.quotas, "", &mut told).map(|quotas| (plan.value.as_str(), quotas)));
    }
    if let Some(claim) = written.plan_claim.as_ref().filter(|claim| claim.value.is_empty()) {
        report.add(claim.at, format!("{field}.plan_claim"), "\"\"", "must not be empty: name the claim, or remove it");
        return None;
    }
    let day = written.shadow_until.as_ref();
    let mode = day.map(|day| report.take(day.at, &format!("{field}.shadow_until"), ShadowMode::until(&day.value)));
    let (by, name) = named?;
    if matches!(by, ByText::Client | ByText::Route) && !written.plans.is_empty() {
        let advice =
            "counts before anybody is authenticated and has a plan: use by = \"principal\", \"credential\", \"tenant\"";
        report.add(limit.at, format!("{field}.plans"), format!("by {}", scope(by)), advice);
        return None;
    }
    if let (Some(claim), ByText::Client | ByText::Route) = (&written.plan_claim, by) {
        let advice = "is never read: this limit counts before anybody is authenticated: remove it";
        report.add(claim.at, format!("{field}.plan_claim"), format!("{:?}", claim.value), advice);
        return None;
    }
    let mut plans = report.take(written.quotas.at, &format!("{field}.quotas"), Plans::new(default?))?;
    if let Some(claim) = &written.plan_claim {
        plans = plans.by_claim(&claim.value);
    }
    for (name, quotas) in tiers {
        report.take(limit.at, &format!("plans.{name}"), plans.set(name, quotas))?;
    }
    let at = written.name.as_ref().map_or(limit.at, |name| name.at);
    let mut layer = report.take(at, &format!("{field}.name"), layer(written, by, &plans, name))?;
    if let Some(mode) = mode {
        layer = layer.shadow(mode?);
    }
    Some(Made { layer, plans })
}

fn layer(written: &Limit, by: ByText, plans: &Plans, name: String) -> Result<RateLimitLayer, ConfigError> {
    let layer = match by {
        ByText::Client => RateLimitLayer::per_client(plans)?,
        ByText::Principal => RateLimitLayer::per_principal(plans)?,
        ByText::Credential => RateLimitLayer::per(LimitBy::credential(), plans)?,
        ByText::Tenant => RateLimitLayer::per(LimitBy::tenant(), plans)?,
        ByText::Route => RateLimitLayer::per(LimitBy::route(), plans)?,
    };
    let layer = layer.with_scope(name)?;
    Ok(if written.without_headers { layer.without_headers() } else { layer })
}

#[cfg(feature = "rate-limit-redis")]
fn connect(
    redis: &At<crate::config::document::Redis>,
    report: &mut Report<'_>,
) -> Option<crate::rate_limit::RedisLimits> {
    use crate::{
        config::document::AwayText,
        rate_limit::{RedisLimits, WhenAway},
        redis::RedisServer,
    };

    let written = &redis.value;
    let address = match written.address.value.read_text() {
        Ok(address) => address,
        Err((value, advice)) => {
            report.add(written.address.at, "redis.address", value, advice);
            return None;
        }
    };
    let mut server = RedisServer::at(&address);
    if written.dangerous_plain_tcp {
        server = server.dangerous_plain_tcp();
    }
    if let Some(prefix) = &written.prefix {
        server = server.prefix(&prefix.value);
    }
    let mut builder = RedisLimits::builder(server);
    if let Some(timeout) = &written.timeout {
        builder = builder.timeout(timeout.value.0);
    }
    let percent = written.share_percent.as_ref().map_or(50, |percent| percent.value);
    builder = builder.when_away(match written.when_away {
        AwayText::InProcess => WhenAway::InProcess { percent },
        AwayText::Refuse => WhenAway::Fail,
    });
    if let (AwayText::Refuse, Some(percent)) = (written.when_away, &written.share_percent) {
        let advice = "is of when_away = \"in-process\": remove one of them";
        report.add(percent.at, "redis.share_percent", percent.value.to_string(), advice);
    }
    let error = match builder.build() {
        Ok(shared) => return Some(shared),
        Err(error) => error,
    };
    let place = match error.setting() {
        "key prefix" => written.prefix.as_ref().map(|prefix| (prefix.at, "redis.prefix")),
        "time-out" => written.timeout.as_ref().map(|timeout| (timeout.at, "redis.timeout")),
        "share while Redis is away" => {
            written.share_percent.as_ref().map(|percent| (percent.at, "redis.share_percent"))
        }
        _ => None,
    };
    let (at, field) = place.unwrap_or((redis.at, "redis"));
    report.take(at, field, Err(error))
}

/// The quotas that the failure budget names, and where they stand.
pub(super) fn of_failure_budget(document: &Document) -> impl Iterator<Item = (&str, Option<usize>)> {
    let written = document.failure_budget.iter().map(|written| &written.value);
    let names = written.flat_map(|written| [&written.per_source, &written.per_key]).flatten();
    names.map(|name| (name.value.as_str(), document.quotas.get(&name.value).map(|quota| quota.at)))
}

pub(super) fn failure_budget(document: &Document, report: &mut Report<'_>) -> Option<FailureBudget> {
    let written = &document.failure_budget.as_ref()?.value;
    let mut budget = FailureBudget::new();
    for (field, name) in
        [("failure_budget.per_source", &written.per_source), ("failure_budget.per_key", &written.per_key)]
    {
        let Some(name) = name else { continue };
        let Some(quota) = document.quotas.get(&name.value) else {
            unknown(name, field, "quota", document.quotas.keys(), report);
            continue;
        };
        let quota = make(&name.value, &quota.value);
        if quota.validate().is_ok() {
            let per_source = field.ends_with("per_source");
            budget = report.take(
                name.at,
                field,
                if per_source { budget.per_source(quota) } else { budget.per_key(quota) },
            )?;
        }
    }
    Some(budget)
}
