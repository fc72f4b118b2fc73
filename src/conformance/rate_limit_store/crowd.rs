//! Many at once: answers that wait and those that do not, tasks, threads.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Ask, SECOND, Suite, client};
use crate::{
    conformance::{
        threads::{at_once, from_threads},
        together::together,
    },
    now::Now,
    rate_limit::{LimitKey, Quota},
};

impl Suite<'_> {
    pub(super) async fn now_and_async_agree(&self) {
        let quotas = [Quota::per_second(4).burst(2), Quota::per_minute(20).named("minute")];
        let keys = [client(1), client(2), client(3)];
        let [one, other, mixed] =
            keys.each_ref().map(|parts| Ask::new(LimitKey::new("conformance-now", parts), &quotas));
        for step in 0..60_u64 {
            let (after, cost) = (step.saturating_mul(SECOND / 8), if step % 3 == 0 { 2 } else { 1 });
            let first = self.take(one.costing(cost), after).await;
            let second = self.take_waiting(other.costing(cost), after).await;
            assert_eq!(first, second, "`take_now` and `take` give the same answers (step {step})");
            let third = if step % 2 == 0 {
                self.take(mixed.costing(cost), after).await
            } else {
                self.take_waiting(mixed.costing(cost), after).await
            };
            assert_eq!(first, third, "`take_now` and `take` count together (step {step})");
        }
    }

    /// Many ask at once, and their waits interleave.
    pub(super) async fn many_tasks(&self) {
        let parts = client(1);
        let quotas = [Quota::per_hour(30), Quota::per_hour(60).named("other")];
        let ask = Ask::new(LimitKey::new("conformance-tasks", &parts), &quotas);
        let granted = together((0..100).map(|_| async { self.take_waiting(ask, 0).await.is_granted() })).await;
        let granted = granted.into_iter().filter(|granted| *granted).count();
        assert_eq!(granted, 30, "of many at once as many are granted as one after the other");
        let other = self.take(Ask { quotas: quotas.split_at(1).1, ..ask }, 0).await;
        assert_eq!(other.remaining(), 29, "and the refused ones took nothing");
    }

    /// On threads, by the way that could wait and does not.
    pub(super) async fn many_threads_that_could_wait(&self) {
        let (parts, quotas) = (client(1), [Quota::per_hour(1_000), Quota::per_hour(10_000).named("other")]);
        let ask = Ask::new(LimitKey::new("conformance-threads-take", &parts), &quotas);
        let charges = ask.charges();
        let draw = ask.draw(&charges);
        if !matches!(at_once(self.store.take(&draw, self.at(0))), Some(Ok(taken)) if taken.is_granted()) {
            return;
        }
        let each = async |_| {
            let mut granted = 0_u32;
            for _ in 0..500 {
                let taken = self.store.take(&draw, self.at(0)).await;
                granted += u32::from(taken.is_ok_and(|taken| taken.is_granted()));
            }
            granted
        };
        let Some(granted) = from_threads(each) else { return };
        assert_eq!(granted.iter().sum::<u32>(), 999, "threads that `take` are granted as many as one after the other");
        let other = self.take(Ask { quotas: quotas.split_at(1).1, ..ask }, 0).await;
        assert_eq!(other.remaining(), 8_999, "what one quota refused to threads was taken from no other");
    }

    /// The same on threads, where the store answers at once.
    pub(super) async fn many_threads(&self) {
        for (number, costs) in [(1, [1, 1, 1, 1]), (2, [1, 2, 3, 4])] {
            let parts = client(number);
            let quotas = [Quota::per_hour(1_000), Quota::per_hour(10_000).named("other")];
            for quotas in [quotas.split_at(1).0, &quotas] {
                let scope = if quotas.len() == 1 { "conformance-thread" } else { "conformance-threads" };
                let ask = Ask::new(LimitKey::new(scope, &parts), quotas);
                let granted = AtomicU32::new(0);
                std::thread::scope(|scope| {
                    for cost in costs {
                        let granted = &granted;
                        scope.spawn(move || {
                            let ask = ask.costing(cost);
                            let charges = ask.charges();
                            for _ in 0..1_000 {
                                match self.store.take_now(&ask.draw(&charges), self.at(0)) {
                                    Now::Known(Ok(taken)) if taken.is_granted() => {
                                        granted.fetch_add(cost, Ordering::Relaxed);
                                    }
                                    Now::Known(_) | Now::Wait => {}
                                }
                            }
                        });
                    }
                });
                let mut granted = granted.into_inner();
                assert!(granted <= 1_000, "threads got {granted} of 1000");
                while self.take(ask, 0).await.is_granted() {
                    granted = granted.saturating_add(1);
                }
                assert_eq!(granted, 1_000, "what threads were refused is still there");
                if let [_, other] = quotas {
                    let other = self.take(Ask { quotas: std::slice::from_ref(other), ..ask }, 0).await;
                    assert_eq!(other.remaining(), 8_999, "what one quota refused was taken from no other");
                }
            }
        }
    }
}
