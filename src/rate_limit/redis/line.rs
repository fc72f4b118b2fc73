//! The task that speaks with Redis: a call for all that wait, and the next one while Redis works on it.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use redis::Script;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::{
    ask::{Answer, Ask, Failure, MOST, What},
    call::{Answers, SCRIPT, call},
    leases::Table,
    link::Link,
    state::{RedisState, Tally},
};
use crate::redis::Target;

/// The most calls that are under way at the same time: while Redis works on one, the next is there already.
const FLIGHTS: usize = 2;
/// So many draws are worth a call of their own while another is under way.
const ENOUGH: usize = 16;
/// What the store and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) timeout: Duration,
    pub(super) in_cluster: bool,
    /// How much longer than its debt a key lives: none where the server's own clock counts.
    pub(super) outlives: Duration,
    pub(super) leases: Option<Table>,
    pub(super) tally: Tally,
    /// Wakes the task where somebody else said that Redis is away.
    pub(super) doubted: Notify,
}

impl Shared {
    /// Somebody waited in vain. From now on nobody waits, so nobody orders either: the task has to look by itself.
    pub(super) fn doubt(&self) {
        Tally::add(&self.tally.failures, 1);
        self.tally.set(RedisState::Away);
        self.doubted.notify_one();
    }
}

#[derive(Debug)]
pub(super) enum Order {
    Take(Ask),
    GiveBack(oneshot::Sender<()>),
}

/// A call that is under way, with those who wait for it.
type Flight = Pin<Box<dyn Future<Output = Landed> + Send>>;

struct Landed {
    asks: Vec<Ask>,
    answers: Result<Answers, String>,
    /// Which connection it went over.
    connection: u64,
}

/// What a turn begins with.
enum Event {
    Landed(Landed),
    Due,
    /// Nobody is left who could order.
    Over,
}

struct Line {
    shared: Arc<Shared>,
    hash: Arc<str>,
    link: Link,
    /// In the order in which Redis gets them.
    flights: Vec<Flight>,
    waiting: Vec<Ask>,
    /// What ended leases give back. Nobody waits for that: it goes along a few at a time, so that no call takes long.
    giving: Vec<Ask>,
    ending: Vec<oneshot::Sender<()>>,
    next_sweep: Option<Instant>,
}

pub(super) async fn run(shared: Arc<Shared>, mut orders: mpsc::Receiver<Order>) {
    let mut line = Line::new(shared);
    while line.turn(&mut orders).await {}
}

impl Line {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            next_sweep: shared.leases.as_ref().and_then(|table| Instant::now().checked_add(table.hold() / 2)),
            hash: Script::new(SCRIPT).get_hash().into(),
            link: Link::new(Arc::clone(&shared)),
            flights: Vec::new(),
            waiting: Vec::new(),
            giving: Vec::new(),
            ending: Vec::new(),
            shared,
        }
    }

    /// Waits until there is something to do, and does it. False once nobody is left who could order.
    async fn turn(&mut self, orders: &mut mpsc::Receiver<Order>) -> bool {
        match self.event(orders).await {
            Event::Landed(landed) => self.land(landed),
            Event::Due => {}
            Event::Over => {
                self.give_back().await;
                return false;
            }
        }
        while self.waiting.len() < MOST
            && let Ok(order) = orders.try_recv()
        {
            self.note(order);
        }
        self.serve().await;
        if !self.ending.is_empty() {
            self.give_back().await;
            for done in std::mem::take(&mut self.ending) {
                let _ = done.send(());
            }
        }
        true
    }

    async fn event(&mut self, orders: &mut mpsc::Receiver<Order>) -> Event {
        let wake = self.wake();
        let mut due = pin!(async move {
            match wake {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        });
        let listens = self.flights.len() < FLIGHTS && self.waiting.len() < MOST;
        let shared = Arc::clone(&self.shared);
        // Whoever doubts after the state was read leaves word here, also if this is not polled yet.
        let mut doubted = pin!(shared.doubted.notified());
        poll_fn(|cx| {
            if doubted.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Due);
            }
            if let Poll::Ready(landed) = poll_landed(&mut self.flights, cx) {
                return Poll::Ready(Event::Landed(landed));
            }
            while listens && let Poll::Ready(order) = orders.poll_recv(cx) {
                let Some(order) = order else { return Poll::Ready(Event::Over) };
                self.note(order);
                if self.may_send() || !self.ending.is_empty() {
                    return Poll::Ready(Event::Due);
                }
            }
            due.as_mut().poll(cx).map(|()| Event::Due)
        })
        .await
    }

    fn note(&mut self, order: Order) {
        match order {
            Order::Take(ask) => self.waiting.push(ask),
            Order::GiveBack(done) => self.ending.push(done),
        }
    }

    /// When there is something to do that nobody asks for. While Redis is away no lease can be given back.
    fn wake(&self) -> Option<Instant> {
        if self.shared.tally.state() == RedisState::Away {
            return Some(self.link.patient().unwrap_or_else(|| Instant::now() + self.shared.timeout));
        }
        self.next_sweep
    }

    /// Sends what waits, if it is time.
    async fn serve(&mut self) {
        if self.shared.tally.state() == RedisState::Away {
            self.settle().await;
            self.refuse();
            self.link.look_again().await;
            return;
        }
        self.unused();
        self.waiting.retain(Ask::is_wanted);
        if self.has_some() && !self.link.is_connected() {
            self.settle().await;
            if !self.link.connect().await {
                self.refuse();
                return;
            }
        }
        if self.may_send() {
            self.send();
        }
    }

    const fn has_some(&self) -> bool {
        !self.waiting.is_empty() || !self.giving.is_empty()
    }

    /// At once where Redis has nothing to do, else once there is enough for a call, so that it always has one.
    fn may_send(&self) -> bool {
        let flights = self.flights.len();
        flights == 0 || (flights < FLIGHTS && self.waiting.len() >= ENOUGH)
    }

    /// Waits for all calls that are under way.
    async fn settle(&mut self) {
        while !self.flights.is_empty() {
            let landed = poll_fn(|cx| poll_landed(&mut self.flights, cx)).await;
            self.land(landed);
        }
    }

    /// Leases that end.
    fn unused(&mut self) {
        let Some(table) = &self.shared.leases else { return };
        let now = Instant::now();
        if self.next_sweep.is_some_and(|due| now < due) {
            return;
        }
        self.next_sweep = now.checked_add(table.hold() / 2);
        self.giving.extend(table.unused(now, false));
    }

    /// Gives back what all leases hold, once nothing is under way that could fill one.
    async fn give_back(&mut self) {
        self.flush().await;
        if let Some(table) = &self.shared.leases {
            self.giving.extend(table.unused(Instant::now(), true));
        }
        self.flush().await;
        self.refuse();
    }

    /// Sends what waits and what is given back, as long as there is a connection, and waits for all answers.
    async fn flush(&mut self) {
        self.settle().await;
        while self.has_some() && self.link.is_connected() {
            self.send();
            self.settle().await;
        }
    }

    /// Sends all that waits, and some of what is given back.
    fn send(&mut self) {
        if !self.has_some() {
            return;
        }
        let Some((connection, mut commands)) = self.link.commands() else { return };
        let asks = for_a_call(&mut self.waiting, &mut self.giving);
        let tally = &self.shared.tally;
        let taking = asks.iter().filter(|ask| ask.what != What::Give);
        Tally::add(&tally.asked, taking.count());
        let given = asks.iter().filter(|ask| ask.what == What::Give).map(|ask| u64::from(ask.most)).sum::<u64>();
        Tally::add(&tally.returned, usize::try_from(given).unwrap_or(usize::MAX));
        let (shared, hash) = (Arc::clone(&self.shared), Arc::clone(&self.hash));
        self.flights.push(Box::pin(async move {
            let answers = match timeout(shared.timeout, call(&shared, &hash, &mut commands, &asks)).await {
                Ok(answers) => answers.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".into()),
            };
            Landed { asks, answers, connection }
        }));
    }

    fn land(&mut self, landed: Landed) {
        match landed.answers {
            Ok(answers) => {
                self.link.answered(landed.connection);
                self.link.complain(answers.complaint);
                let mut answers = answers.of_asks.into_iter();
                self.deliver(landed.asks, |_| answers.next().unwrap_or(Err(Failure::Corrupt)));
            }
            Err(why) => {
                self.link.failed(landed.connection, &why);
                self.deliver(landed.asks, |_| Err(Failure::Away));
            }
        }
    }

    /// Tells all that wait that Redis is away.
    fn refuse(&mut self) {
        let mut asks = std::mem::take(&mut self.waiting);
        asks.append(&mut self.giving);
        self.deliver(asks, |_| Err(Failure::Away));
    }

    fn deliver(&mut self, asks: Vec<Ask>, mut answer: impl FnMut(&Ask) -> Result<Answer, Failure>) {
        let now = Instant::now();
        for mut ask in asks {
            let answer = answer(&ask);
            if answer == Err(Failure::Corrupt) {
                Tally::add(&self.shared.tally.corrupt, 1);
            }
            if let Some(table) = &self.shared.leases {
                let (kept, beyond) = table.fill(&mut ask, answer, now);
                self.giving.extend(beyond);
                Tally::add(&self.shared.tally.leased, usize::try_from(kept).unwrap_or(usize::MAX));
            }
            if let Some(reply) = ask.reply {
                // Who no longer waits does not want to know.
                let _ = reply.send(answer);
            }
        }
    }
}

/// All that waits, and as much of what is given back as there is room for in one script call; a little also where there is none.
fn for_a_call(waiting: &mut Vec<Ask>, giving: &mut Vec<Ask>) -> Vec<Ask> {
    let mut asks = std::mem::take(waiting);
    let room = MOST.saturating_sub(asks.len()).max(ENOUGH).min(giving.len());
    asks.extend(giving.drain(..room));
    asks
}

/// The first call that ends.
fn poll_landed(flights: &mut Vec<Flight>, cx: &mut Context<'_>) -> Poll<Landed> {
    let landed = flights.iter_mut().enumerate().find_map(|(index, flight)| match flight.as_mut().poll(cx) {
        Poll::Ready(landed) => Some((index, landed)),
        Poll::Pending => None,
    });
    let Some((index, landed)) = landed else { return Poll::Pending };
    drop(flights.remove(index));
    Poll::Ready(landed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{Leases, RedisLimits};

    /// A caller gives up just as its answer lands: the task has read that Redis is up, and waits, when it is said to be away.
    #[tokio::test(start_paused = true)]
    async fn a_doubt_wakes_a_task_that_waits_for_orders() {
        for parked in [true, false] {
            let limits = RedisLimits::builder("redis+unix:///nowhere/redis.sock").build().unwrap();
            let shared = Arc::clone(&limits.inner.shared);
            let (_sender, mut orders) = mpsc::channel(1);
            let mut line = Line::new(Arc::clone(&shared));
            shared.tally.set(RedisState::Up);
            {
                let mut turn = pin!(line.turn(&mut orders));
                let mut context = Context::from_waker(std::task::Waker::noop());
                if parked {
                    assert!(turn.as_mut().poll(&mut context).is_pending());
                    shared.doubt();
                } else {
                    shared.doubt();
                    // What landed meanwhile.
                    shared.tally.set(RedisState::Up);
                    assert!(turn.as_mut().poll(&mut context).is_ready(), "it looks once too often");
                    continue;
                }
                let turned = timeout(Duration::from_secs(60), turn).await;
                assert_eq!(turned, Ok(true), "nobody orders while Redis is away");
            }
            assert_eq!(shared.tally.counts().failures, 2, "it tried to connect, in vain");
            assert!(line.link.patient().is_some(), "and tries again");
        }
    }

    /// However many leases end at once, who waits for a draw does not wait for all of them.
    #[test]
    fn what_is_given_back_goes_along_a_few_at_a_time() {
        let ask = |what| Ask { what, ..Ask::giving_back(Vec::new(), 1, None) };
        let asks = |count: usize, what| (0..count).map(|_| ask(what)).collect::<Vec<_>>();
        for (waits, given, expected) in [
            (0, 16_384, MOST),
            (0, 5, 5),
            (100, 16_384, MOST - 100),
            (MOST, 16_384, ENOUGH),
            (2 * MOST, 16_384, ENOUGH),
            (3, 0, 0),
        ] {
            let (mut waiting, mut giving) = (asks(waits, What::Take), asks(given, What::Give));
            let call = for_a_call(&mut waiting, &mut giving);
            assert_eq!((waiting.len(), giving.len()), (0, given - expected), "{waits} and {given}");
            let (first, rest) = call.split_at(waits);
            assert!(first.iter().all(|ask| ask.what == What::Take), "who waits comes first");
            assert!(rest.len() == expected && rest.iter().all(|ask| ask.what == What::Give));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_a_few_turns_with_leases_and_without() {
        for leases in [None, Some(Leases::new())] {
            // Nobody listens there.
            let builder = RedisLimits::builder("redis+unix:///nowhere/redis.sock");
            let builder = match leases {
                Some(leases) => builder.leases(leases),
                None => builder,
            };
            let limits = builder.build().unwrap();
            let mut line = Line::new(Arc::clone(&limits.inner.shared));
            let (_sender, mut orders) = mpsc::channel(1);
            let (start, mut turns) = (Instant::now(), 0);
            line.shared.tally.set(RedisState::Away);
            while start.elapsed() < Duration::from_secs(60) {
                turns += 1;
                assert!(turns < 200, "{leases:?}: {turns} in {:?}", start.elapsed());
                assert!(line.turn(&mut orders).await);
            }
            assert!(turns > 5, "{leases:?}: {turns}: it is tried again");
        }
    }
}
