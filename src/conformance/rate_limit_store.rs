use std::{net::Ipv4Addr, num::NonZeroU32};

use crate::{
    clock::Instants,
    now::Now,
    principal::{Principal, PrincipalKind},
    rate_limit::{LimitKey, Quota, Quotas, RateLimitStore, Taken},
};

const SECOND: u64 = 1_000_000_000;

/// Checks a [`RateLimitStore`] against its contract. Time is an argument, so nothing sleeps.
///
/// `start` is the first moment that the store is asked at; the suite goes on from there by less than a day, both clocks
/// alike. The store must be able to hold 64 keys and must not know the scopes that begin with `conformance-`.
///
/// # Panics
/// With a sentence that says which rule is broken.
///
/// ```
/// use portcullis::{Instants, conformance::rate_limit_store, rate_limit::MemoryLimits};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// rate_limit_store(&MemoryLimits::new(), Instants::new(1_800_000_000_000_000_000, 0)).await;
/// # }
/// ```
pub async fn rate_limit_store(store: &dyn RateLimitStore, start: Instants) {
    let suite = Suite { store, start };
    suite.a_burst_then_refusals().await;
    suite.what_was_used_comes_back().await;
    suite.waiting_as_told_is_enough().await;
    suite.all_or_nothing().await;
    suite.too_costly_is_for_good().await;
    suite.keys_are_independent().await;
    suite.now_and_async_agree().await;
}

struct Suite<'a> {
    store: &'a dyn RateLimitStore,
    start: Instants,
}

#[expect(clippy::panic, reason = "a suite reports by panicking")]
impl Suite<'_> {
    /// Takes as a layer does: at once if the store can, else waiting.
    async fn take(&self, key: &LimitKey<'_>, quotas: &Quotas, cost: u32, after: u64) -> Taken {
        let at = self.at(after);
        let answer = match self.store.take_now(key, quotas, amount(cost), at) {
            Now::Known(answer) => answer,
            Now::Wait => self.store.take(key, quotas, amount(cost), at).await,
        };
        answer.unwrap_or_else(|error| panic!("the store failed: {error}"))
    }

    async fn take_waiting(&self, key: &LimitKey<'_>, quotas: &Quotas, cost: u32, after: u64) -> Taken {
        let answer = self.store.take(key, quotas, amount(cost), self.at(after)).await;
        answer.unwrap_or_else(|error| panic!("the store failed: {error}"))
    }

    fn at(&self, after: u64) -> Instants {
        let unix = self.start.unix_nanos().saturating_add(after);
        Instants::new(unix, self.start.monotonic_nanos().saturating_add(after))
    }

    async fn a_burst_then_refusals(&self) {
        let (key, quotas) = (client("conformance-burst", 1), quotas([Quota::per_minute(60).burst(5)]));
        for remaining in (0..5).rev() {
            let taken = self.take(&key, &quotas, 1, 0).await;
            assert!(
                taken.is_granted(),
                "a key that the store does not know has its whole burst; refused with {taken:?}"
            );
            assert_eq!(taken.remaining(), remaining, "what remains is counted down");
            assert!(taken.reset_nanos() > Some(0), "after a grant the quota is whole later than now");
        }
        for _ in 0..20 {
            let taken = self.take(&key, &quotas, 1, 0).await;
            assert!(!taken.is_granted(), "beyond the burst a request is refused");
            assert_eq!(taken.remaining(), 0, "after a refusal nothing remains");
            assert_eq!(
                taken.retry_after_nanos(),
                Some(SECOND),
                "the time to wait is that of one request, however often it was refused: a refusal takes nothing"
            );
        }
    }

    async fn what_was_used_comes_back(&self) {
        let (key, quotas) = (client("conformance-back", 1), quotas([Quota::per_minute(60).burst(5)]));
        assert!(self.take(&key, &quotas, 5, 0).await.is_granted(), "a whole burst may be taken as one cost");
        assert!(!self.take(&key, &quotas, 1, SECOND / 2).await.is_granted(), "half a request is none");
        let two = self.take(&key, &quotas, 1, 5 * SECOND / 2).await;
        assert_eq!((two.is_granted(), two.remaining()), (true, 1), "after 2.5 s two came back, rounded down");
        assert!(self.take(&key, &quotas, 5, 600 * SECOND).await.is_granted(), "after a long time all is back");
        assert!(!self.take(&key, &quotas, 1, 600 * SECOND).await.is_granted(), "and never more than the burst");
    }

    async fn waiting_as_told_is_enough(&self) {
        let quotas = quotas([Quota::per_second(7).burst(3), Quota::per_hour(3_600).burst(8).named("hour")]);
        for (number, cost) in [(1, 1), (2, 2), (3, 3)] {
            let key = client("conformance-wait", number);
            let mut now = 0;
            for round in 0..24 {
                let taken = self.take(&key, &quotas, cost, now).await;
                let Some(wait) = taken.retry_after_nanos() else {
                    assert!(taken.is_granted(), "a cost within the burst is never refused for good");
                    continue;
                };
                assert!(wait > 0, "a request that is refused now is not granted now");
                // Microseconds are exact enough for a store outside this process.
                let early = now.saturating_add(wait.saturating_sub(1_000));
                if early > now {
                    let early = self.take(&key, &quotas, cost, early).await;
                    assert!(!early.is_granted(), "a microsecond early is too early (round {round})");
                }
                now = now.saturating_add(wait);
                let taken = self.take(&key, &quotas, cost, now).await;
                assert!(taken.is_granted(), "waiting as long as told is enough (round {round})");
            }
            assert!(now > 0, "the quotas were met");
        }
    }

    async fn all_or_nothing(&self) {
        let key = client("conformance-all", 1);
        let quotas = quotas([
            Quota::per_hour(60).burst(10).named("wide"),
            Quota::per_hour(60).burst(2).named("narrow"),
            Quota::per_hour(60).burst(5).named("middle"),
        ]);
        let first = self.take(&key, &quotas, 1, 0).await;
        assert_eq!((first.quota(), first.remaining()), (1, 1), "a grant tells of the tightest quota");
        assert!(self.take(&key, &quotas, 1, 0).await.is_granted());
        for _ in 0..20 {
            let taken = self.take(&key, &quotas, 1, 0).await;
            assert_eq!((taken.is_granted(), taken.quota()), (false, 1), "a refusal tells of the quota that refuses");
        }
        // After two minutes `narrow` is whole, `wide` and `middle` as well: had a refusal taken from them, they were not.
        let later = self.take(&key, &quotas, 2, 120 * SECOND).await;
        assert!(later.is_granted(), "a request that one quota refuses takes from no other");
        let much = self.take(&key, &quotas, 1, 120 * SECOND).await;
        assert_eq!((much.is_granted(), much.quota()), (false, 1));
        assert_eq!(much.retry_after_nanos(), Some(60 * SECOND), "one comes back in a minute");
    }

    async fn too_costly_is_for_good(&self) {
        let (key, quotas) = (client("conformance-cost", 1), quotas([Quota::per_minute(60).burst(5)]));
        for cost in [6, 1_000, u32::MAX] {
            let taken = self.take(&key, &quotas, cost, 0).await;
            assert!(!taken.is_granted(), "a cost of {cost} is more than a burst of 5");
            assert_eq!(taken.retry_after_nanos(), None, "waiting does not help, so no time is told");
        }
        assert!(self.take(&key, &quotas, 5, 0).await.is_granted(), "such a refusal takes nothing");
    }

    async fn keys_are_independent(&self) {
        let quotas = quotas([Quota::per_hour(1)]);
        let principals = [
            ("https://a.example", "alice"),
            ("https://a.example", "bob"),
            ("https://b.example", "alice"),
            ("a", "b:c"),
            ("a:b", "c"),
            ("", "a:b:c"),
        ]
        .map(|(issuer, subject)| Principal::builder(PrincipalKind::User, issuer, subject, "jwt").build());
        let mut keys: Vec<LimitKey<'_>> =
            principals.iter().map(|principal| LimitKey::principal("conformance-keys", principal)).collect();
        keys.extend([1, 2].map(|number| client("conformance-keys", number)));
        keys.push(client("conformance-other", 1));
        for key in &keys {
            assert!(self.take(key, &quotas, 1, 0).await.is_granted(), "{key} counts alone");
        }
        for key in &keys {
            assert!(!self.take(key, &quotas, 1, 0).await.is_granted(), "{key} was counted");
        }
    }

    async fn now_and_async_agree(&self) {
        let quotas = quotas([Quota::per_second(3).burst(2), Quota::per_minute(20).named("minute")]);
        let (one, other, mixed) =
            (client("conformance-now", 1), client("conformance-now", 2), client("conformance-now", 3));
        for step in 0..60_u64 {
            let (after, cost) = (step.saturating_mul(SECOND / 8), if step % 3 == 0 { 2 } else { 1 });
            let first = self.take(&one, &quotas, cost, after).await;
            let second = self.take_waiting(&other, &quotas, cost, after).await;
            assert_eq!(first, second, "`take_now` and `take` give the same answers (step {step})");
            let third = if step % 2 == 0 {
                self.take(&mixed, &quotas, cost, after).await
            } else {
                self.take_waiting(&mixed, &quotas, cost, after).await
            };
            assert_eq!(first, third, "`take_now` and `take` count together (step {step})");
        }
    }
}

fn client(scope: &str, number: u8) -> LimitKey<'_> {
    LimitKey::client(scope, Ipv4Addr::new(192, 0, 2, number).into())
}

fn amount(cost: u32) -> NonZeroU32 {
    NonZeroU32::new(cost).unwrap_or(NonZeroU32::MIN)
}

#[expect(clippy::panic, reason = "a suite reports by panicking")]
fn quotas<const N: usize>(quotas: [Quota; N]) -> Quotas {
    Quotas::new(quotas).unwrap_or_else(|error| panic!("{error}"))
}
