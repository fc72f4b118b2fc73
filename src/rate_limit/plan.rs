use std::{collections::HashMap, convert::Infallible, fmt, iter, sync::Arc};

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::{
    error::ConfigError,
    principal::{Principal, PrincipalKind},
    rate_limit::{Quota, Quotas, headers::Fields},
};

/// How many times the quota of an IPv6 /64 its /48 has, unless another number is said.
pub(super) const WIDE_FACTOR: u32 = 16;

/// Quotas by name, of which each principal is on one, and a default for the others. Clones are one and the same, so
/// [`set`](Self::set) reaches the limiters that use it, at once.
///
/// Which plan a principal is on is told by [`Principal::plan`], which an API key's record sets, unless
/// [`by_claim`](Self::by_claim) or [`by`](Self::by) says otherwise. A plan that is not known here is the default.
///
/// What was used stays when a quota changes or a principal changes its plan, if the quotas have the same names: as the time
/// until the quota is whole. Who comes to a plan of a shorter quota with a longer debt waits until it is paid, so give quotas of
/// different lengths different names. Quotas of other names begin whole.
///
/// ```
/// use portcullis::rate_limit::{Plans, Quota, RateLimitLayer};
///
/// let plans = Plans::new([Quota::per_minute(60)])?
///     .with("gold", [Quota::per_minute(6_000), Quota::per_day(1_000_000).named("day")])?;
/// let limit = RateLimitLayer::per_principal(&plans)?;
///
/// plans.set("gold", [Quota::per_minute(9_000), Quota::per_day(1_000_000).named("day")])?;
/// # let _ = limit;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Plans {
    tiers: Arc<ArcSwap<Table>>,
    choose: Choose,
}

#[derive(Clone)]
struct Table {
    default: Arc<Tier>,
    named: HashMap<Box<str>, Arc<Tier>>,
}

impl Table {
    /// Tells each quota how long the debts of its name may be: a principal takes them from plan to plan, and one with a key on
    /// each of two has them on both. What no plan explains is a clock that was set back.
    fn agree(&mut self) {
        let mut longest: HashMap<String, u64> = HashMap::new();
        for quota in iter::once(&self.default).chain(self.named.values()).flat_map(|tier| &*tier.quotas) {
            let known = longest.entry(quota.name().to_owned()).or_default();
            *known = (*known).max(quota.clone().believing(0).longest_nanos());
        }
        for tier in iter::once(&mut self.default).chain(self.named.values_mut()) {
            let quotas = tier.quotas.believing(|name| longest.get(name).copied().unwrap_or_default());
            if quotas != tier.quotas {
                *tier = Arc::new(Tier { wide: Tier::around(&quotas), fields: Arc::clone(&tier.fields), quotas });
            }
        }
    }
}

#[derive(Clone)]
enum Choose {
    Plan,
    Claim(Arc<str>),
    By(Arc<PlanFn>),
}

type PlanFn = dyn Fn(&Principal) -> Option<String> + Send + Sync;

impl Plans {
    /// Starts with the quotas of those who are on no plan.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Quotas::new`] says.
    pub fn new(default: impl IntoIterator<Item = Quota>) -> Result<Self, ConfigError> {
        let table = Table { default: Arc::new(Tier::new(default)?), named: HashMap::new() };
        Ok(Self { tiers: Arc::new(ArcSwap::from_pointee(table)), choose: Choose::Plan })
    }

    /// Adds a plan.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Quotas::new`] says.
    pub fn with(self, name: impl Into<Box<str>>, quotas: impl IntoIterator<Item = Quota>) -> Result<Self, ConfigError> {
        self.set(name, quotas)?;
        Ok(self)
    }

    /// Adds a plan or replaces it, while requests run.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Quotas::new`] says; then nothing changes.
    pub fn set(&self, name: impl Into<Box<str>>, quotas: impl IntoIterator<Item = Quota>) -> Result<(), ConfigError> {
        let (name, tier) = (name.into(), Arc::new(Tier::new(quotas)?));
        self.change(|table| {
            table.named.insert(name.clone(), Arc::clone(&tier));
        });
        Ok(())
    }

    /// Replaces the quotas of those who are on no plan, while requests run.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Quotas::new`] says; then nothing changes.
    pub fn set_default(&self, quotas: impl IntoIterator<Item = Quota>) -> Result<(), ConfigError> {
        let tier = Arc::new(Tier::new(quotas)?);
        self.change(|table| table.default = Arc::clone(&tier));
        Ok(())
    }

    /// Removes a plan, while requests run: who is on it gets the default.
    pub fn remove(&self, name: &str) {
        self.change(|table| {
            table.named.remove(name);
        });
    }

    /// Takes over the quotas of all the other's plans, and its default, at once.
    #[cfg(feature = "config")]
    pub(crate) fn take_over(&self, other: &Self) {
        self.tiers.store(other.tiers.load_full());
    }

    fn change(&self, edit: impl Fn(&mut Table)) {
        self.tiers.rcu(|table| {
            let mut table = Table::clone(table);
            edit(&mut table);
            table.agree();
            table
        });
    }

    /// Reads the plan from this claim of the token, a string at the top level. An API key keeps the plan of its record. A token
    /// without the claim, and any other principal without a token, are on no plan. A limiter refuses an empty name when it is made.
    pub fn by_claim(mut self, name: &str) -> Self {
        self.choose = Choose::Claim(name.into());
        self
    }

    /// Asks this function for the plan of a principal.
    pub fn by(mut self, choose: impl Fn(&Principal) -> Option<String> + Send + Sync + 'static) -> Self {
        self.choose = Choose::By(Arc::new(choose));
        self
    }

    /// Whether a limiter can go by them.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        match &self.choose {
            Choose::Claim(name) if name.is_empty() => Err(ConfigError::new("plan claim", "\"\"", "is no name")),
            Choose::Claim(_) | Choose::Plan | Choose::By(_) => Ok(()),
        }
    }

    pub(super) fn tier(&self, principal: Option<&Principal>) -> Arc<Tier> {
        let table = self.tiers.load();
        let named = principal.and_then(|principal| match &self.choose {
            Choose::Plan => table.named.get(principal.plan()?),
            // It has no claims, and its record says the plan.
            Choose::Claim(_) if principal.kind() == PrincipalKind::Key => table.named.get(principal.plan()?),
            Choose::Claim(name) => {
                let read = || Ok::<_, Infallible>(PlanClaim::read(principal, name));
                let Ok(kept) = principal.keep_of_claims(read);
                // Another limiter may read another claim of the same principal.
                let own = if kept.name == *name { kept } else { Arc::new(PlanClaim::read(principal, name)) };
                table.named.get(own.plan.as_deref()?)
            }
            Choose::By(choose) => table.named.get(choose(principal)?.as_str()),
        });
        Arc::clone(named.unwrap_or(&table.default))
    }
}

#[cfg(feature = "stack")]
impl Plans {
    /// The names of the quotas of all plans.
    pub(super) fn quota_names(&self) -> std::collections::BTreeSet<String> {
        let table = self.tiers.load();
        let tiers = iter::once(&table.default).chain(table.named.values());
        tiers.flat_map(|tier| &*tier.quotas).map(|quota| quota.name().to_owned()).collect()
    }
}

/// What a claim says, which a principal keeps in place of all of its claims.
struct PlanClaim {
    name: Arc<str>,
    plan: Option<Box<str>>,
}

impl PlanClaim {
    fn read(principal: &Principal, name: &Arc<str>) -> Self {
        let claims = principal.claims::<Value>().ok();
        let plan = claims.as_ref().and_then(|claims| claims.get(&**name)?.as_str()).map(Box::from);
        Self { name: Arc::clone(name), plan }
    }
}

impl fmt::Debug for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.tiers.load();
        let mut plans = f.debug_map();
        plans.entry(&"default", &table.default.quotas);
        table.named.iter().for_each(|(name, tier)| {
            plans.entry(name, &tier.quotas);
        });
        plans.finish()
    }
}

/// What a limiter holds requests to: one [`Quota`], or [`Plans`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Limits(pub(super) Held);

#[derive(Clone, Debug)]
pub(super) enum Held {
    Quota(Quota),
    Plans(Plans),
}

impl From<Quota> for Limits {
    fn from(quota: Quota) -> Self {
        Self(Held::Quota(quota))
    }
}

impl From<Plans> for Limits {
    fn from(plans: Plans) -> Self {
        Self(Held::Plans(plans))
    }
}

impl From<&Plans> for Limits {
    fn from(plans: &Plans) -> Self {
        Self(Held::Plans(plans.clone()))
    }
}

/// The quotas of one plan, and what is the same in every response under them.
#[derive(Clone, Debug)]
pub(super) struct Tier {
    pub(super) quotas: Quotas,
    /// Those of the network around an IPv6 /64.
    pub(super) wide: Vec<Quota>,
    pub(super) fields: Arc<Fields>,
}

impl Tier {
    pub(super) fn new(quotas: impl IntoIterator<Item = Quota>) -> Result<Self, ConfigError> {
        let quotas = Quotas::new(quotas)?;
        Ok(Self { fields: Arc::new(Fields::of(&quotas)?), wide: Self::around(&quotas), quotas })
    }

    fn around(quotas: &[Quota]) -> Vec<Quota> {
        quotas.iter().map(|quota| quota.times(WIDE_FACTOR)).collect()
    }
}
