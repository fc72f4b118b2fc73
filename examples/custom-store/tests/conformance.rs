//! The suites that the built-in stores run, and what only this store can tell: how many counts there are.

use portcullis::{
    Instants,
    conformance::{rate_limit_store, rate_limit_store_that_is_full},
    rate_limit::{Charge, Draw, KeyPart, LimitKey, MAX_CHARGES, Quota, RateLimitStore},
};
use portcullis_custom_store::MapLimits;

const NOW: Instants = Instants::new(1_800_000_000_000_000_000, 0);

#[tokio::test]
async fn it_keeps_the_contract() {
    rate_limit_store(&MapLimits::new(100_000), NOW).await;
    rate_limit_store_that_is_full(&MapLimits::new(100), Some(100), NOW).await;
}

#[tokio::test]
async fn it_is_bounded() {
    let (store, quota) = (MapLimits::new(100), Quota::per_day(1));
    for number in 0..1_000 {
        let name = number.to_string();
        let parts = [KeyPart::Custom(&name)];
        let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
        let taken = store.take(&Draw::new(&charges), NOW).await.unwrap();
        assert_eq!(taken.is_granted(), number <= 100, "a hundred, and one for everybody else");
        assert!(store.len() <= 100 + MAX_CHARGES);
    }
}
