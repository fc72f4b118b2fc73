//! What can be changed while requests run.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

use toml::{Table, Value};

use crate::{
    config::{
        Config, MAX_LEN, Problems, limits, policy,
        problem::{Report, Sheet},
    },
    event::{self, Event, EventKind, MAX_DETAILS},
    rate_limit::Plans,
};

const CHANGED: &str = "has changed, which needs a restart: nothing is taken over";

/// A handle on the parts of an assembled stack that can be changed while requests run.
pub struct LiveConfig {
    sheet: Sheet,
    /// The rules of routes, where they have a file of their own.
    routes_file: Option<Table>,
    /// The document that was taken over last. Held while another one is.
    applied: Mutex<Table>,
    /// Held by who reads the file again, from before that on: who read it first must not take over last.
    reloading: Mutex<()>,
    /// By the order of the limits in the document.
    plans: Vec<Plans>,
    policy: policy::Held,
    #[allow(dead_code, reason = "without tokens and keys nothing is held")]
    handles: Handles,
}

/// On what the document made, for code that needs it besides.
#[derive(Default)]
pub(super) struct Handles {
    #[cfg(feature = "jwt-remote")]
    pub(super) jwt: Option<crate::jwt::JwtAuthenticator>,
    #[cfg(feature = "api-key")]
    pub(super) key_issuer: Option<crate::api_key::KeyIssuer>,
}

impl LiveConfig {
    pub(super) fn new(
        sheet: Sheet,
        routes_file: Option<String>,
        plans: Vec<Plans>,
        policy: policy::Held,
        handles: Handles,
    ) -> Self {
        let routes_file = routes_file.map(|text| table(&text));
        Self {
            applied: Mutex::new(table(&sheet.text)),
            reloading: Mutex::default(),
            sheet,
            routes_file,
            plans,
            policy,
            handles,
        }
    }

    /// The authenticator of the document's issuers, if it names any: for the
    #[cfg_attr(feature = "health", doc = "[health](crate::health::Health::watch_tokens)")]
    #[cfg_attr(not(feature = "health"), doc = "health")]
    /// of their keys.
    #[cfg(feature = "jwt-remote")]
    #[must_use]
    pub const fn jwt(&self) -> Option<&crate::jwt::JwtAuthenticator> {
        self.handles.jwt.as_ref()
    }

    /// What makes keys of the format and the peppers of the document, if it has API keys: for
    #[cfg_attr(feature = "api-key-admin", doc = "[`KeyAdmin::with_issuer`](crate::key_admin::KeyAdmin::with_issuer)")]
    #[cfg_attr(not(feature = "api-key-admin"), doc = "`KeyAdmin::with_issuer`")]
    /// beside the same store, opened once more.
    #[cfg(feature = "api-key")]
    #[must_use]
    pub const fn key_issuer(&self) -> Option<&crate::api_key::KeyIssuer> {
        self.handles.key_issuer.as_ref()
    }

    /// The policy, if the document names one: for handles of permissions, and to reload it by hand.
    #[cfg(feature = "rbac")]
    #[must_use]
    pub const fn policy(&self) -> Option<&crate::policy::Rbac> {
        self.policy.as_ref()
    }

    /// Takes over the quotas and plans of a newer document. What was used stays where quotas keep their names. If it says
    /// something else than the one before, an event [`LimitsChanged`](EventKind::LimitsChanged) tells what.
    ///
    /// # Errors
    /// If the newer document has a mistake, or differs in more than `quotas`, `plans`, and which of them a limit names, or in a
    /// quota that `failure_budget` names, or its `routes_file` does not say what it did: that needs a restart. Then nothing
    /// changes. Secrets were read at start, and are not read again.
    pub fn apply(&self, newer: &Config) -> Result<(), Problems> {
        let mut report = Report::new(&newer.sheet);
        let (before, newest) = (table(&self.sheet.text), table(&newer.sheet.text));
        // The failure budget is made once, of quotas that stand in a section that may change.
        for (name, at) in limits::of_failure_budget(&newer.document) {
            let quota = |table: &Table| table.get("quotas")?.get(name).cloned();
            if let Some(newer) = quota(&newest)
                && quota(&before) != Some(newer)
            {
                let advice = "is one of [failure_budget] and has changed, which needs a restart: nothing is taken over";
                report.add(at, format!("quotas.{name}"), "the quota", advice);
            }
        }
        let (before, after) = (fixed(before), fixed(newest.clone()));
        let sections = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
        for section in sections.filter(|section| before.get(*section) != after.get(*section)) {
            report.add(None, section, "the section", CHANGED);
        }
        self.compare_routes(&before, &after, newer, &mut report);
        // The server stays, and so its address is not read again.
        let limits = limits::read(&newer.document, &limits::Shared::default(), &mut report);
        limits::failure_budget(&newer.document, &mut report);
        report.finish()?;
        let changes = {
            let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
            for (plans, newer) in self.plans.iter().zip(&limits) {
                plans.take_over(&newer.plans);
            }
            let changes = changes(&applied, &newest);
            *applied = newest;
            changes
        };
        tell(&newer.sheet.file, changes);
        Ok(())
    }

    /// Notes if the file of the rules says something else than it did at start. Another file is noted with the sections.
    fn compare_routes(&self, before: &Table, after: &Table, newer: &Config, report: &mut Report<'_>) {
        let Some(file) = newer.document.routes_file.as_ref() else { return };
        if before.get("routes_file") != after.get("routes_file") {
            return;
        }
        match crate::policy::read_file("rule file", file.value.as_ref(), MAX_LEN) {
            Ok(source) if source.text.parse().ok() == self.routes_file => {}
            Ok(_) => report.add(file.at, "routes_file", format!("{:?}", file.value), CHANGED),
            Err(error) => {
                report.take::<()>(file.at, "routes_file", Err(error));
            }
        }
    }

    /// Reads the file again and [applies](Self::apply) it. This blocks.
    ///
    /// # Errors
    /// As [`Config::read`] and [`apply`](Self::apply); or if the document was a text.
    pub fn reload(&self) -> Result<(), Problems> {
        if self.sheet.is_file {
            let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
            return self.apply(&Config::read(&*self.sheet.file)?);
        }
        let mut report = Report::new(&self.sheet);
        report.add(None, "document", "a text", "has no file to be read again: use apply");
        report.finish()
    }
}

impl fmt::Debug for LiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveConfig").field("file", &self.sheet.file).finish_non_exhaustive()
    }
}

/// What is other, by section: name, what was there, and what is there now.
fn changes(before: &Table, after: &Table) -> Vec<(&'static str, String)> {
    let shown = |value: Option<&Value>| {
        value.and_then(|value| serde_json::to_string(value).ok()).unwrap_or_else(|| "none".to_owned())
    };
    let mut found = Vec::new();
    let mut compare = |section, name: String, before: Option<&Value>, after: Option<&Value>| {
        if before != after {
            found.push((section, format!("{name}: {} -> {}", shown(before), shown(after))));
        }
    };
    for section in ["quotas", "plans"] {
        let [before, after] = [before, after].map(|table| table.get(section).and_then(Value::as_table));
        let names: BTreeSet<&String> = [before, after].into_iter().flatten().flat_map(Table::keys).collect();
        for name in names {
            let [was, is] = [before, after].map(|table| table.and_then(|table| table.get(name)));
            compare(section, name.clone(), was, is);
        }
    }
    // As many as there were, in their order: all else in them stays.
    let limits = |table: &Table| table.get("limits").and_then(Value::as_array).cloned().unwrap_or_default();
    for (was, is) in limits(before).iter().zip(&limits(after)) {
        let name = ["name", "by"].into_iter().find_map(|field| is.get(field)?.as_str()).unwrap_or_default();
        for field in ["quotas", "plans"] {
            compare("limits", format!("{name}.{field}"), was.get(field), is.get(field));
        }
    }
    found
}

/// Tells how much is other, and of it as much as an event has room for.
fn tell(file: &str, changes: Vec<(&'static str, String)>) {
    if changes.is_empty() {
        return;
    }
    let event = Event::new(EventKind::LimitsChanged, file).with("changes", changes.len().to_string());
    let shown = changes.into_iter().take(MAX_DETAILS.saturating_sub(1));
    event::tell(shown.fold(event, |event, (section, change)| event.with(section, change)));
}

fn table(text: &str) -> Table {
    // It was read before: it parses.
    text.parse().unwrap_or_default()
}

/// The part of a document that stays while the process runs.
fn fixed(mut table: Table) -> Table {
    table.remove("quotas");
    table.remove("plans");
    if let Some(Value::Array(limits)) = table.get_mut("limits") {
        for limit in limits.iter_mut().filter_map(Value::as_table_mut) {
            limit.remove("quotas");
            limit.remove("plans");
        }
    }
    table
}
