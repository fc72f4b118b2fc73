use super::{Ask, DAY, Suite};
use crate::{
    clock::Instants,
    rate_limit::{KeyPart, LimitKey, Quota, RateLimitStore},
};

/// How many keys come to a store that this process cannot fill, and how many more than four times what another one has room for: it
/// may have somewhat more than it says.
const MANY: usize = 1_000;

/// Checks what a [`RateLimitStore`] does that has no more room: what is in debt is not forgotten, however many keys come after it;
/// new keys share what room there is, so that the store does not grow; and once the debts are paid there is room again.
///
/// `entries` is how many counts the store has room for, about; the suite tries four times as many, and a thousand. Without it, the
/// store is bounded by what this process cannot fill, and only the debts are looked at. The store is new, and `start` is as for
/// [`rate_limit_store`](super::rate_limit_store).
///
/// # Panics
/// With a sentence that says which rule is broken.
pub async fn rate_limit_store_that_is_full(store: &dyn RateLimitStore, entries: Option<usize>, start: Instants) {
    let (suite, quotas) = (Suite { store, start }, [Quota::per_day(1)]);
    let granted = async |name: &str, after: u64| {
        let parts = [KeyPart::Custom(name)];
        suite.take(Ask::new(LimitKey::new("conformance-full", &parts), &quotas), after).await.is_granted()
    };
    let keys = entries.unwrap_or(0).saturating_mul(4).saturating_add(MANY);
    assert!(granted("first", 0).await, "a key that comes to an empty store has its whole burst");
    let (mut in_debt, mut refused) = (vec!["first".to_owned()], 0_usize);
    for name in (0..keys).map(|number| format!("key-{number}")) {
        if granted(&name, 0).await {
            in_debt.push(name);
        } else {
            refused = refused.saturating_add(1);
        }
    }
    for name in &in_debt {
        assert!(!granted(name, 0).await, "{name}: what is in debt is not forgotten, however many keys come after it");
    }
    if entries.is_some() {
        assert!(refused > 0, "a store does not grow with the number of keys: where there is no room, new ones share");
    } else {
        assert_eq!(refused, 0, "a store that this process cannot fill grants each key its burst");
    }
    assert!(granted("last", DAY).await, "once debts are paid there is room for a new key");
}
