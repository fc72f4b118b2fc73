//! A verdict that is remembered, of a policy that is slow enough to remember its verdicts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use portcullis::policy::{AccessQuery, Cached, PolicyBackend, QueryParts, Rego, Verdict};

use super::{allows, person, query, rego, role, timed};
use crate::ratio::measure;

/// Says how long its verdicts hold, and answers after waiting alone, as one far away would.
#[derive(Debug)]
struct Held(Arc<Rego>);

#[async_trait]
impl PolicyBackend for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        self.0.decide(query).await
    }

    fn parts(&self) -> QueryParts {
        QueryParts::SUBJECT.and(QueryParts::ROLES)
    }

    fn holds_for(&self) -> Option<Duration> {
        Some(Duration::from_secs(5))
    }
}

pub fn table() {
    let policy = Arc::new(rego::policy());
    let cached = Cached::new(Held(Arc::clone(&policy))).expect("it says how long");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let people: Vec<_> = (0..1_000).map(|number| person(&role(number))).collect();
    for who in &people {
        assert!(runtime.block_on(cached.decide(&query(who, "orders:read"))).is_allow());
    }
    let who = &people[500];
    measure(&[
        timed("Rego", || assert!(allows(&*policy, &query(who, "orders:read")))),
        timed("Cached, remembered", || assert!(allows(&cached, &query(who, "orders:read")))),
        timed("Cached, 1 000 in turn", {
            let next = std::cell::Cell::new(0);
            let (cached, people) = (&cached, &people);
            move || {
                next.set((next.get() + 1) % people.len());
                assert!(allows(cached, &query(&people[next.get()], "orders:read")));
            }
        }),
    ])
    .print("a decision that is remembered", "Rego");
}
