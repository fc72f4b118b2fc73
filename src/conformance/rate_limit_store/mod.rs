mod clock;
mod crowd;
mod full;
mod shared;

use std::{net::Ipv4Addr, num::NonZeroU32};

use crate::{
    clock::Instants,
    now::Now,
    rate_limit::{Charge, Draw, KeyPart, LimitKey, Quota, RateLimitStore, Taken},
};

pub use full::rate_limit_store_that_is_full;
pub use shared::rate_limit_store_that_is_shared;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Checks a [`RateLimitStore`] against its contract. Time is an argument, so nothing sleeps.
///
/// `start` is the moment that the suite goes by: the store is asked up to two years later. Some readings are older than those before
/// them, by up to an hour, and once the wall clock is set back by an hour while the monotonic one goes on. The store must be able to
/// hold 256 counts and must not know the scopes that begin with `conformance-`. A store that answers in another process may count in
/// microseconds: the quotas here are whole ones. It must be usable from several threads where [`take_now`](RateLimitStore::take_now)
/// knows the answer; what waits is asked many times at once from this task. A store whose `take` answers without waiting is asked
/// that from several threads too, which are in no runtime. [`rate_limit_store_that_is_full`] checks its bounds, and
/// [`rate_limit_store_that_is_shared`] asks other processes too.
///
/// # Panics
/// With a sentence that says which rule is broken.
///
/// ```
/// use portcullis::{Instants, conformance::rate_limit_store, rate_limit::MemoryLimits};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let start = Instants::new(1_800_000_000_000_000_000, 86_400_000_000_000);
/// rate_limit_store(&MemoryLimits::new(), start).await;
/// # }
/// ```
pub async fn rate_limit_store(store: &dyn RateLimitStore, start: Instants) {
    // Each part has days of its own: time goes on, but for readings that are old on purpose.
    let part = |days| Suite { store, start: later(start, days) };
    part(2).exact_traces().await;
    part(6).refusals_take_nothing().await;
    part(7).refusals_that_count().await;
    part(8).waiting_as_told_is_enough().await;
    part(12).all_or_nothing().await;
    part(13).several_keys_at_once().await;
    part(14).too_costly_is_for_good().await;
    part(15).keys_are_independent().await;
    part(16).quotas_may_change().await;
    part(17).extreme_quotas().await;
    part(18).now_and_async_agree().await;
    part(19).many_tasks().await;
    part(20).many_threads().await;
    part(21).the_clock_may_jump().await;
    part(22).many_threads_that_could_wait().await;
}

/// So many days later, on both clocks.
const fn later(at: Instants, days: u64) -> Instants {
    let by = days.saturating_mul(DAY);
    Instants::new(at.unix_nanos().saturating_add(by), at.monotonic_nanos().saturating_add(by))
}

struct Suite<'a> {
    store: &'a dyn RateLimitStore,
    start: Instants,
}

/// What is asked, and of whom.
#[derive(Clone, Copy)]
struct Ask<'a> {
    key: LimitKey<'a>,
    quotas: &'a [Quota],
    cost: u32,
    counts_refused: bool,
}

impl<'a> Ask<'a> {
    const fn new(key: LimitKey<'a>, quotas: &'a [Quota]) -> Self {
        Self { key, quotas, cost: 1, counts_refused: false }
    }

    const fn costing(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    fn charges(&self) -> Vec<Charge<'a>> {
        self.quotas.iter().map(|quota| Charge::new(self.key, quota)).collect()
    }

    fn draw<'c>(&self, charges: &'c [Charge<'a>]) -> Draw<'c>
    where
        'a: 'c,
    {
        let draw = Draw::new(charges).with_cost(NonZeroU32::new(self.cost).unwrap_or(NonZeroU32::MIN));
        if self.counts_refused { draw.counting_refused() } else { draw }
    }
}

#[expect(clippy::panic, reason = "a suite reports by panicking")]
impl Suite<'_> {
    /// Takes as a layer does: at once if the store can, else waiting. `after` is in nanoseconds from the start.
    async fn draw(&self, draw: Draw<'_>, after: i64) -> Taken {
        self.draw_at(draw, self.at(after)).await
    }

    async fn draw_at(&self, draw: Draw<'_>, at: Instants) -> Taken {
        let answer = match self.store.take_now(&draw, at) {
            Now::Known(answer) => answer,
            Now::Wait => self.store.take(&draw, at).await,
        };
        answer.unwrap_or_else(|error| panic!("the store failed: {error}"))
    }

    fn later(&self, days: u8) -> Self {
        Self { start: later(self.start, days.into()), ..*self }
    }

    async fn take(&self, ask: Ask<'_>, after: u64) -> Taken {
        let charges = ask.charges();
        self.draw(ask.draw(&charges), signed(after)).await
    }

    async fn take_waiting(&self, ask: Ask<'_>, after: u64) -> Taken {
        let charges = ask.charges();
        let answer = self.store.take(&ask.draw(&charges), self.at(signed(after))).await;
        answer.unwrap_or_else(|error| panic!("the store failed: {error}"))
    }

    fn at(&self, after: i64) -> Instants {
        let unix = self.start.unix_nanos().saturating_add_signed(after);
        Instants::new(unix, self.start.monotonic_nanos().saturating_add_signed(after))
    }

    /// Traces that GCRA gives, worked out by hand: milliseconds, cost, and what is answered.
    async fn exact_traces(&self) {
        enum Answer {
            Left(u32, u64),
            Wait(u64),
        }
        use Answer::{Left, Wait};
        type Trace = [(u64, u32, Answer)];
        let traces: [(&str, Quota, &Trace); 3] = [
            (
                "five at once, one a second",
                Quota::per_minute(60).burst(5),
                &[
                    (0, 1, Left(4, 1_000)),
                    (0, 3, Left(1, 4_000)),
                    (0, 2, Wait(1_000)),
                    (0, 1, Left(0, 5_000)),
                    (0, 1, Wait(1_000)),
                    (500, 1, Wait(500)),
                    (999, 1, Wait(1)),
                    (1_000, 1, Left(0, 5_000)),
                    (3_500, 1, Left(1, 3_500)),
                    (3_500, 2, Wait(500)),
                    (4_000, 2, Left(0, 5_000)),
                    (600_000, 5, Left(0, 5_000)),
                    (600_000, 1, Wait(1_000)),
                    (604_999, 5, Wait(1)),
                    (605_000, 5, Left(0, 5_000)),
                ],
            ),
            (
                "one at once, ten a second",
                Quota::per_second(10).burst(1),
                &[
                    (0, 1, Left(0, 100)),
                    (0, 1, Wait(100)),
                    (99, 1, Wait(1)),
                    (100, 1, Left(0, 100)),
                    (250, 1, Left(0, 100)),
                    (300, 1, Wait(50)),
                    (350, 1, Left(0, 100)),
                ],
            ),
            (
                "a thousand a day, all at once",
                Quota::per_day(1_000),
                &[
                    (0, 1_000, Left(0, 86_400_000)),
                    (0, 1, Wait(86_400)),
                    (86_399, 1, Wait(1)),
                    (86_400, 1, Left(0, 86_400_000)),
                    (43_200_000 + 86_400, 500, Left(0, 86_400_000)),
                    (43_200_000 + 86_400, 1, Wait(86_400)),
                ],
            ),
        ];
        for (number, (name, quota, trace)) in (1..).zip(traces) {
            let parts = client(number);
            let quotas = [quota];
            let ask = Ask::new(LimitKey::new("conformance-trace", &parts), &quotas);
            let suite = self.later(number);
            for (step, (after, cost, expected)) in trace.iter().enumerate() {
                let taken = suite.take(ask.costing(*cost), after.saturating_mul(SECOND / 1_000)).await;
                let told = match expected {
                    Left(remaining, reset) => Taken::granted(0, *remaining, reset.saturating_mul(SECOND / 1_000)),
                    Wait(wait) => Taken::refused(0, wait.saturating_mul(SECOND / 1_000)),
                };
                assert_eq!(taken, told, "{name}: step {step}, {cost} at {after} ms");
            }
        }
    }

    async fn refusals_take_nothing(&self) {
        let (parts, quotas) = (client(1), [Quota::per_minute(60).burst(5)]);
        let ask = Ask::new(LimitKey::new("conformance-refusals", &parts), &quotas);
        for remaining in (0..5).rev() {
            let taken = self.take(ask, 0).await;
            assert!(
                taken.is_granted(),
                "a key that the store does not know has its whole burst; refused with {taken:?}"
            );
            assert_eq!(taken.remaining(), remaining, "what remains is counted down");
            assert!(taken.reset_nanos() > Some(0), "after a grant the quota is whole later than now");
        }
        for _ in 0..20 {
            let taken = self.take(ask, 0).await;
            assert!(!taken.is_granted(), "beyond the burst a request is refused");
            assert_eq!(taken.remaining(), 0, "after a refusal nothing remains");
            assert_eq!(
                taken.retry_after_nanos(),
                Some(SECOND),
                "the time to wait is that of one request, however often it was refused: a refusal takes nothing"
            );
        }
        let two = self.take(ask, 5 * SECOND / 2).await;
        assert_eq!((two.is_granted(), two.remaining()), (true, 1), "after 2.5 s two came back, rounded down");
    }

    async fn refusals_that_count(&self) {
        let parts = client(1);
        let quotas = [Quota::per_minute(60).burst(5), Quota::per_hour(60).burst(10).named("hour")];
        let (first, rest) = quotas.split_at(1);
        let both = Ask::new(LimitKey::new("conformance-counted", &parts), &quotas);
        let counting = Ask { counts_refused: true, quotas: first, ..both };
        assert!(self.take(counting.costing(4), 0).await.is_granted(), "who is granted pays as ever");
        let refused = self.take(counting.costing(2), 0).await;
        assert_eq!(refused, Taken::refused(0, 2 * SECOND), "the one that was left is taken, so two are to wait for");
        for _ in 0..20 {
            let refused = self.take(counting, SECOND / 2).await;
            assert_eq!(refused.retry_after_nanos(), Some(SECOND), "who knocks again waits anew, and for no longer");
        }
        assert_eq!(self.take(counting, 3 * SECOND / 2).await, Taken::granted(0, 0, 5 * SECOND));
        let several = Ask { counts_refused: true, ..both };
        for _ in 0..3 {
            assert!(!self.take(several.costing(2), 3 * SECOND / 2).await.is_granted());
        }
        let hour = self.take(Ask { quotas: rest, ..both }, 3 * SECOND / 2).await;
        assert_eq!(
            hour.remaining(),
            3,
            "a refusal that counts takes from every quota: three times two of ten, then one"
        );
    }

    async fn waiting_as_told_is_enough(&self) {
        let quotas = [Quota::per_second(8).burst(3), Quota::per_hour(3_600).burst(8).named("hour")];
        for (number, cost) in [(1, 1), (2, 2), (3, 3)] {
            let parts = client(number);
            let ask = Ask::new(LimitKey::new("conformance-wait", &parts), &quotas).costing(cost);
            let (suite, mut now) = (self.later(number), 0);
            for round in 0..24 {
                let taken = suite.take(ask, now).await;
                let Some(wait) = taken.retry_after_nanos() else {
                    assert!(taken.is_granted(), "a cost within the burst is never refused for good");
                    continue;
                };
                assert!(wait > 0, "a request that is refused now is not granted now");
                // Microseconds are exact enough for a store outside this process.
                let early = now.saturating_add(wait.saturating_sub(1_000));
                if early > now {
                    let early = suite.take(ask, early).await;
                    assert!(!early.is_granted(), "a microsecond early is too early (round {round})");
                }
                now = now.saturating_add(wait);
                let taken = suite.take(ask, now).await;
                assert!(taken.is_granted(), "waiting as long as told is enough (round {round})");
            }
            assert!(now > 0, "the quotas were met");
        }
    }

    async fn all_or_nothing(&self) {
        let parts = client(1);
        let quotas = [
            Quota::per_hour(60).burst(10).named("wide"),
            Quota::per_hour(60).burst(2).named("narrow"),
            Quota::per_hour(60).burst(5).named("middle"),
        ];
        let ask = Ask::new(LimitKey::new("conformance-all", &parts), &quotas);
        let first = self.take(ask, 0).await;
        assert_eq!((first.charge(), first.remaining()), (1, 1), "a grant tells of the tightest quota");
        assert!(self.take(ask, 0).await.is_granted());
        for _ in 0..20 {
            let taken = self.take(ask, 0).await;
            assert_eq!((taken.is_granted(), taken.charge()), (false, 1), "a refusal tells of the quota that refuses");
        }
        let wide = self.take(Ask { quotas: quotas.split_at(1).0, ..ask }, 0).await;
        assert_eq!(
            (wide.is_granted(), wide.remaining()),
            (true, 7),
            "a request that one quota refuses takes from no other; a quota is known by its name, alone or among others"
        );
        // After two minutes `narrow` is whole.
        let later = self.take(ask.costing(2), 120 * SECOND).await;
        assert!(later.is_granted(), "a request that one quota refuses takes from no other");
        let much = self.take(ask, 120 * SECOND).await;
        assert_eq!((much.is_granted(), much.charge()), (false, 1));
        assert_eq!(much.retry_after_nanos(), Some(60 * SECOND), "one comes back in a minute");
    }

    /// A network and the wide one around it, under quotas of one name.
    async fn several_keys_at_once(&self) {
        let (narrow, wide) = (Quota::per_hour(2), Quota::per_hour(5));
        let take = async |subnet: u16| {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1).into();
            let (inner, outer) = ([KeyPart::network(address)], [KeyPart::wide_network(address)]);
            let charges = [
                Charge::new(LimitKey::new("conformance-wide", &inner), &narrow),
                Charge::new(LimitKey::new("conformance-wide", &outer), &wide),
            ];
            let taken = self.draw(Draw::new(&charges), 0).await;
            (taken.is_granted(), taken.charge())
        };
        for subnet in [1, 2] {
            assert_eq!(take(subnet).await, (true, 0));
            assert_eq!(take(subnet).await, (true, 0));
            for _ in 0..5 {
                assert_eq!(
                    take(subnet).await,
                    (false, 0),
                    "the key's own quota refuses, and the wide one keeps its rest"
                );
            }
        }
        assert_eq!(take(3).await, (true, 1), "four of five were taken, so one is left to a third");
        assert_eq!(take(3).await, (false, 1), "and that was the last");
        assert_eq!(take(4).await, (false, 1), "a fourth has none");
    }

    async fn too_costly_is_for_good(&self) {
        let (parts, quotas) = (client(1), [Quota::per_minute(60).burst(5)]);
        let ask = Ask::new(LimitKey::new("conformance-cost", &parts), &quotas);
        for cost in [6, 1_000, u32::MAX] {
            let taken = self.take(ask.costing(cost), 0).await;
            assert!(!taken.is_granted(), "a cost of {cost} is more than a burst of 5");
            assert_eq!(taken.retry_after_nanos(), None, "waiting does not help, so no time is told");
        }
        assert!(self.take(ask.costing(5), 0).await.is_granted(), "such a refusal takes nothing");
        let empty: [Charge<'_>; 0] = [];
        assert!(!self.draw(Draw::new(&empty), 0).await.is_granted(), "nothing to take from grants nothing");
    }

    async fn keys_are_independent(&self) {
        let quotas = [Quota::per_hour(1)];
        let long = "x".repeat(5_000);
        let parts: Vec<Vec<KeyPart<'_>>> = vec![
            vec![KeyPart::Principal { issuer: "https://a.example", tenant: None, subject: "alice" }],
            vec![KeyPart::Principal { issuer: "https://a.example", tenant: None, subject: "bob" }],
            vec![KeyPart::Principal { issuer: "https://b.example", tenant: None, subject: "alice" }],
            vec![KeyPart::Principal { issuer: "https://a.example", tenant: Some("acme"), subject: "alice" }],
            vec![KeyPart::Principal { issuer: "https://a.example", tenant: Some("globex"), subject: "alice" }],
            vec![KeyPart::Principal { issuer: "a", tenant: None, subject: "b:c" }],
            vec![KeyPart::Principal { issuer: "a:b", tenant: None, subject: "c" }],
            vec![KeyPart::Principal { issuer: "", tenant: None, subject: "a:b:c" }],
            vec![KeyPart::Principal { issuer: "a", tenant: None, subject: &long }],
            vec![KeyPart::Credential { issuer: "a", id: "b:c" }],
            vec![KeyPart::Tenant { issuer: "a", tenant: "b:c" }],
            vec![KeyPart::Route("/orders/{id}")],
            vec![KeyPart::Custom("/orders/{id}")],
            vec![KeyPart::Identity("/orders/{id}")],
            vec![KeyPart::Custom("{}\r\n\0 ä")],
            vec![KeyPart::Header { name: "x-device", value: "7" }],
            vec![KeyPart::Tenant { issuer: "a", tenant: "b" }, KeyPart::Route("/")],
            vec![],
            client(1).to_vec(),
            client(2).to_vec(),
            vec![KeyPart::wide_network(Ipv4Addr::new(192, 0, 2, 1).into())],
        ];
        let mut keys: Vec<LimitKey<'_>> = parts.iter().map(|parts| LimitKey::new("conformance-keys", parts)).collect();
        keys.extend(parts.iter().take(1).map(|parts| LimitKey::new("conformance-other", parts)));
        for key in &keys {
            assert!(self.take(Ask::new(*key, &quotas), 0).await.is_granted(), "{key} counts alone");
        }
        for key in &keys {
            assert!(!self.take(Ask::new(*key, &quotas), 0).await.is_granted(), "{key} was counted");
        }
    }

    async fn quotas_may_change(&self) {
        let parts = client(1);
        let ask = |quotas| Ask::new(LimitKey::new("conformance-change", &parts), quotas);
        let (small, large) = ([Quota::per_minute(10)], [Quota::per_minute(60)]);
        assert!(self.take(ask(&small).costing(5), 0).await.is_granted());
        // Half of ten is 30 s of debt, and so is half of sixty.
        let changed = self.take(ask(&large), 0).await;
        assert_eq!((changed.is_granted(), changed.remaining()), (true, 29), "a quota that grew goes on from its share");
        let back = self.take(ask(&small), 0).await;
        assert_eq!((back.is_granted(), back.remaining()), (true, 3), "and so does one that shrank");
        let day = [Quota::per_day(10)];
        assert!(self.take(ask(&day).costing(9), 0).await.is_granted());
        let wait = self.take(ask(&small), 0).await;
        assert_eq!(wait.retry_after_nanos(), Some(6 * SECOND), "a debt beyond the burst is that of a whole burst");
        assert!(self.take(ask(&small), 6 * SECOND).await.is_granted(), "and is kept as such");
    }

    async fn extreme_quotas(&self) {
        for (number, name, quota, cost) in [
            (1, "a billion a second", Quota::per_second(1_000_000_000), 1_000_000_000),
            (2, "the largest burst", Quota::per_second(1_000_000).burst(u32::MAX), u32::MAX),
            (3, "the largest count", Quota::per_day(u32::MAX), u32::MAX),
            (4, "one a day", Quota::per_day(1), 1),
            (5, "a burst of a hundred years", Quota::per_day(1).burst(36_500), 36_500),
        ] {
            let (parts, quotas) = (client(number), [quota]);
            let ask = Ask::new(LimitKey::new("conformance-extreme", &parts), &quotas);
            assert!(quotas.iter().all(|quota| quota.validate().is_ok()), "{name}");
            assert!(self.take(ask.costing(cost), 0).await.is_granted(), "{name}: the whole burst at once");
            assert!(!self.take(ask.costing(cost), 0).await.is_granted(), "{name}: and not again");
            let last = self.take(ask.costing(cost), 0).await.retry_after_nanos();
            assert!(last.is_some_and(|wait| wait > 0), "{name}: waiting helps");
        }
    }
}

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn client(number: u8) -> [KeyPart<'static>; 1] {
    [KeyPart::network(Ipv4Addr::new(192, 0, 2, number).into())]
}
