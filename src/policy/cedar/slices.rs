//! Sets of the policies that can apply, made once for each combination that is met.

use std::{collections::HashMap, sync::Arc};

use cedar_policy::{Policy, PolicySet, SlotId};
use quick_cache::{Weighter, sync::Cache};

/// How many policies the sets that are kept may have in total.
const MAX_POLICIES: u64 = 32_768;
/// How many sets are expected.
const SETS: usize = 1_024;

/// Cedar evaluates sets, and to make one costs more than to evaluate it: sets are kept.
pub(super) struct Slices {
    all: Arc<PolicySet>,
    kept: Cache<Box<[u32]>, Arc<PolicySet>, Policies>,
}

#[derive(Clone)]
struct Policies;

impl Weighter<Box<[u32]>, Arc<PolicySet>> for Policies {
    fn weight(&self, key: &Box<[u32]>, _: &Arc<PolicySet>) -> u64 {
        u64::try_from(key.len()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Slices {
    pub(super) fn new(all: PolicySet) -> Self {
        Self { all: Arc::new(all), kept: Cache::with_weighter(SETS, MAX_POLICIES, Policies) }
    }

    /// The set of the policies at these positions, which are sorted.
    pub(super) fn get<'p>(
        &self,
        positions: &[u32],
        policy: impl Fn(u32) -> Option<&'p Policy>,
    ) -> Result<Arc<PolicySet>, String> {
        if positions.len() == self.all.num_of_policies() {
            return Ok(Arc::clone(&self.all));
        }
        if let Some(set) = self.kept.get(positions) {
            return Ok(set);
        }
        let set = Arc::new(self.make(positions.iter().filter_map(|position| policy(*position)))?);
        self.kept.insert(positions.into(), Arc::clone(&set));
        Ok(set)
    }

    fn make<'p>(&self, policies: impl Iterator<Item = &'p Policy>) -> Result<PolicySet, String> {
        let mut set = PolicySet::new();
        for policy in policies {
            let Some(template_id) = policy.template_id() else {
                set.add(policy.clone()).map_err(|error| error.to_string())?;
                continue;
            };
            if set.template(template_id).is_none() {
                let template = self.all.template(template_id).ok_or("a linked policy has no template")?;
                set.add_template(template.clone()).map_err(|error| error.to_string())?;
            }
            let values: HashMap<SlotId, _> = policy.template_links().unwrap_or_default();
            set.link(template_id.clone(), policy.id().clone(), values).map_err(|error| error.to_string())?;
        }
        Ok(set)
    }
}
