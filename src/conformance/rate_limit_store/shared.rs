use super::{Ask, Suite, client, later, rate_limit_store};
use crate::{
    clock::Instants,
    conformance::together::together,
    rate_limit::{LimitKey, Quota, RateLimitStore},
};

/// Checks what a [`RateLimitStore`] must do that several processes share: all of [`rate_limit_store`], and that what one process takes
/// is taken from all, also if they ask at the same time.
///
/// `open` opens the store as one more process would. For the rest see [`rate_limit_store`].
///
/// # Panics
/// With a sentence that says which rule is broken.
pub async fn rate_limit_store_that_is_shared<S: RateLimitStore>(open: impl AsyncFn() -> S, start: Instants) {
    let (here, there) = (open().await, open().await);
    rate_limit_store(&here, start).await;
    // The suite came to a year later.
    let start = later(start, 700);
    let processes = [&here, &there].map(|store| Suite { store, start });

    let (parts, quotas) = (client(1), [Quota::per_hour(4)]);
    let ask = Ask::new(LimitKey::new("conformance-shared", &parts), &quotas);
    let mut granted = 0;
    for _ in 0..4 {
        for process in &processes {
            granted += u32::from(process.take(ask, 0).await.is_granted());
        }
    }
    assert_eq!(granted, 4, "what one process took is taken from all that share the store");

    let (parts, quotas) = (client(2), [Quota::per_hour(30)]);
    let ask = Ask::new(LimitKey::new("conformance-shared", &parts), &quotas);
    let each = (0..50).flat_map(|_| &processes);
    let answers = together(each.map(async |process| process.take(ask, 0).await.is_granted())).await;
    let mut granted = answers.into_iter().filter(|granted| *granted).count();
    for process in &processes {
        while granted <= 30 && process.take(ask, 0).await.is_granted() {
            granted = granted.saturating_add(1);
        }
    }
    assert_eq!(granted, 30, "processes that ask at once are granted as many as one after the other");
}
