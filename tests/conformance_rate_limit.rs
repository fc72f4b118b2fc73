//! The suite for rate limit stores, on the store of this crate, its pointers, and stores written with public API alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{
    collections::HashMap,
    num::NonZeroU32,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use portcullis::{
    Instants, Now, StoreError,
    conformance::rate_limit_store,
    rate_limit::{LimitKey, MAX_QUOTAS, MemoryLimits, Quotas, RateLimitStore, Taken},
};

const NOW: Instants = Instants::new(1_800_000_000_000_000_000, 0);

#[tokio::test]
async fn memory() {
    rate_limit_store(&MemoryLimits::new(), NOW).await;
    rate_limit_store(&MemoryLimits::new(), Instants::new(0, 123_456_789_012_345)).await;
}

#[tokio::test]
async fn pointers() {
    let shared: Arc<dyn RateLimitStore> = Arc::new(MemoryLimits::new());
    rate_limit_store(&shared, NOW).await;
    let boxed: Box<dyn RateLimitStore> = Box::new(MemoryLimits::new());
    rate_limit_store(&boxed, NOW).await;
}

/// A token bucket, in plain arithmetic of its own: how many nanoseconds' worth is left, and since when.
#[derive(Debug, Default)]
struct TokenBuckets(Mutex<HashMap<String, (u128, u64)>>);

#[async_trait]
impl RateLimitStore for TokenBuckets {
    async fn take(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Result<Taken, StoreError> {
        let mut buckets = self.0.lock().unwrap();
        let now = at.unix_nanos();
        let nanos = |number: u128| u64::try_from(number).unwrap();
        let mut after = Vec::new();
        let mut granted: Option<Taken> = None;
        let mut refused: Option<Taken> = None;
        for (index, quota) in quotas.iter().enumerate() {
            let each = u128::from(quota.interval_nanos());
            let whole = each * u128::from(quota.burst_size());
            let price = each * u128::from(cost.get());
            if price > whole {
                return Ok(Taken::too_costly(index));
            }
            let name = format!("{key}/{}", quota.name());
            let (left, since) = buckets.get(&name).copied().unwrap_or((whole, now));
            let left = whole.min(left + u128::from(now - since));
            if left < price {
                let wait = nanos(price - left);
                if refused.is_none_or(|refused| refused.retry_after_nanos() < Some(wait)) {
                    refused = Some(Taken::refused(index, wait));
                }
                continue;
            }
            let left = left - price;
            let remaining = u32::try_from(left / each).unwrap();
            if granted.is_none_or(|granted| remaining < granted.remaining()) {
                granted = Some(Taken::granted(index, remaining, nanos(whole - left)));
            }
            after.push((name, (left, now)));
        }
        if let Some(refused) = refused {
            return Ok(refused);
        }
        buckets.extend(after);
        Ok(granted.unwrap())
    }
}

#[tokio::test]
async fn a_token_bucket_of_your_own() {
    rate_limit_store(&TokenBuckets::default(), NOW).await;
}

/// What a store may get wrong.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    None,
    TakesWhenItRefuses,
    ForgetsTheIssuer,
    TakesBeforeItSaysWait,
    CountsTheFastWayApart,
    OnlyTheFirstQuota,
    SaysTooShortAWait,
    ForgetsEverything,
}

#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    kept: Mutex<HashMap<String, [u64; MAX_QUOTAS]>>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, kept: Mutex::default() }
    }

    fn ask(&self, key: &LimitKey<'_>, quotas: &Quotas, cost: NonZeroU32, at: Instants, fast: bool) -> Taken {
        let mut text = key.to_string();
        match self.flaw {
            Flaw::ForgetsTheIssuer => text = text.rsplit(':').next().unwrap().to_owned(),
            Flaw::CountsTheFastWayApart if fast => text.push_str("/fast"),
            _ => {}
        }
        let mut kept = self.kept.lock().unwrap();
        let tats = kept.entry(text).or_default();
        let first;
        let quotas = match self.flaw {
            Flaw::OnlyTheFirstQuota => {
                first = Quotas::new([quotas[0].clone()]).unwrap();
                &first
            }
            _ => quotas,
        };
        let taken = quotas.take(tats, at.unix_nanos(), cost);
        match self.flaw {
            Flaw::TakesWhenItRefuses if !taken.is_granted() => tats[0] += quotas[0].interval_nanos(),
            Flaw::SaysTooShortAWait => {
                if let Some(wait) = taken.retry_after_nanos() {
                    return Taken::refused(taken.quota(), wait / 2);
                }
            }
            Flaw::ForgetsEverything => kept.clear(),
            _ => {}
        }
        taken
    }
}

#[async_trait]
impl RateLimitStore for Flawed {
    fn take_now(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Now<Result<Taken, StoreError>> {
        let taken = self.ask(key, quotas, cost, at, true);
        if matches!(self.flaw, Flaw::TakesBeforeItSaysWait) { Now::Wait } else { Now::Known(Ok(taken)) }
    }

    async fn take(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Result<Taken, StoreError> {
        Ok(self.ask(key, quotas, cost, at, false))
    }
}

#[test]
fn the_suite_finds_what_is_wrong() {
    let passes = |flaw| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = Flawed::new(flaw);
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(rate_limit_store(&store, NOW)))).is_ok()
    };
    assert!(passes(Flaw::None));
    for flaw in [
        Flaw::TakesWhenItRefuses,
        Flaw::ForgetsTheIssuer,
        Flaw::TakesBeforeItSaysWait,
        Flaw::CountsTheFastWayApart,
        Flaw::OnlyTheFirstQuota,
        Flaw::SaysTooShortAWait,
        Flaw::ForgetsEverything,
    ] {
        assert!(!passes(flaw), "{flaw:?} went unnoticed");
    }
}
