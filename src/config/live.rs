//! What can be changed while requests run.

use toml::{Table, Value};

use crate::{
    config::{
        Config, Problems, limits, policy,
        problem::{Report, Sheet},
    },
    rate_limit::Plans,
};

/// A handle on the parts of an assembled stack that can be changed while requests run.
#[derive(Debug)]
pub struct LiveConfig {
    sheet: Sheet,
    /// By the order of the limits in the document.
    plans: Vec<Plans>,
    policy: policy::Held,
}

impl LiveConfig {
    pub(super) const fn new(sheet: Sheet, plans: Vec<Plans>, policy: policy::Held) -> Self {
        Self { sheet, plans, policy }
    }

    /// The policy, if the document names one: for handles of permissions, and to reload it by hand.
    #[cfg(feature = "rbac")]
    #[must_use]
    pub const fn policy(&self) -> Option<&crate::policy::Rbac> {
        self.policy.as_ref()
    }

    /// Takes over the quotas and plans of a newer document. What was used stays where quotas keep their names.
    ///
    /// # Errors
    /// If the newer document has a mistake, or differs in more than `quotas`, `plans`, and which of them a limit names, or in a
    /// quota that `failure_budget` names: that needs a restart. Then nothing changes.
    pub fn apply(&self, newer: &Config) -> Result<(), Problems> {
        let mut report = Report::new(&newer.sheet);
        let (before, after) = (table(&self.sheet), table(&newer.sheet));
        // The failure budget is made once, of quotas that stand in a section that may change.
        for (name, at) in limits::of_failure_budget(&newer.document) {
            let quota = |table: &Table| table.get("quotas")?.get(name).cloned();
            if let Some(newer) = quota(&after)
                && quota(&before) != Some(newer)
            {
                let advice = "is one of [failure_budget] and has changed, which needs a restart: nothing is taken over";
                report.add(at, format!("quotas.{name}"), "the quota", advice);
            }
        }
        let (before, after) = (fixed(before), fixed(after));
        let sections = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
        for section in sections.filter(|section| before.get(*section) != after.get(*section)) {
            report.add(None, section, "the section", "has changed, which needs a restart: nothing is taken over");
        }
        let limits = limits::read(&newer.document, &mut report);
        limits::failure_budget(&newer.document, &mut report);
        report.finish()?;
        for (plans, newer) in self.plans.iter().zip(&limits) {
            plans.take_over(&newer.plans);
        }
        Ok(())
    }

    /// Reads the file again and [applies](Self::apply) it. This blocks.
    ///
    /// # Errors
    /// As [`Config::read`] and [`apply`](Self::apply); or if the document was a text.
    pub fn reload(&self) -> Result<(), Problems> {
        if self.sheet.is_file {
            return self.apply(&Config::read(&*self.sheet.file)?);
        }
        let mut report = Report::new(&self.sheet);
        report.add(None, "document", "a text", "has no file to be read again: use apply");
        report.finish()
    }
}

fn table(sheet: &Sheet) -> Table {
    // It was read before: it parses.
    sheet.text.parse().unwrap_or_default()
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
