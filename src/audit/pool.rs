//! Records that were written are used again, so that a request whose record goes into a queue allocates nothing for it.
//!
//! Each thread has a few at hand; between threads they go by the batch, so that the lock is taken once in a while.

use std::{
    cell::RefCell,
    ops::Deref,
    sync::{Mutex, OnceLock, PoisonError},
};

use triomphe::{Arc, UniqueArc};

use crate::audit::facts::Facts;

type Spare = Vec<UniqueArc<Facts>>;

/// How many go between threads at once.
const BATCH: usize = 64;
/// The most batches that lie around for all threads: what a full queue had.
const MAX_BATCHES: usize = 160;

static SHELF: Mutex<Vec<Spare>> = Mutex::new(Vec::new());

thread_local!(static AT_HAND: RefCell<Spare> = const { RefCell::new(Vec::new()) });

/// Empty facts.
pub(crate) fn take() -> UniqueArc<Facts> {
    let spare = AT_HAND.try_with(|at_hand| {
        let mut at_hand = at_hand.try_borrow_mut().ok()?;
        pick(&mut at_hand, &SHELF)
    });
    spare.ok().flatten().unwrap_or_else(|| UniqueArc::new(Facts::default()))
}

fn pick(at_hand: &mut Spare, shelf: &Mutex<Vec<Spare>>) -> Option<UniqueArc<Facts>> {
    if at_hand.is_empty()
        && let Some(batch) = shelf.lock().unwrap_or_else(PoisonError::into_inner).pop()
    {
        *at_hand = batch;
    }
    at_hand.pop()
}

/// The facts of a record. The last of its clones gives them back.
#[derive(Clone)]
pub(crate) struct Pooled(Option<Arc<Facts>>);

impl Pooled {
    pub(crate) const fn new(facts: Arc<Facts>) -> Self {
        Self(Some(facts))
    }
}

impl Deref for Pooled {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        static NOTHING: OnceLock<Facts> = OnceLock::new();
        // They are only missing once the record is gone.
        self.0.as_deref().unwrap_or_else(|| NOTHING.get_or_init(Facts::default))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(facts) = self.0.take() {
            give_back(facts);
        }
    }
}

/// Takes facts back, unless somebody else still has them.
fn give_back(facts: Arc<Facts>) {
    let Ok(mut facts) = Arc::try_unique(facts) else { return };
    facts.clear();
    let _ = AT_HAND.try_with(|at_hand| {
        let Ok(mut at_hand) = at_hand.try_borrow_mut() else { return };
        put(facts, &mut at_hand, &SHELF);
    });
}

fn put(facts: UniqueArc<Facts>, at_hand: &mut Spare, shelf: &Mutex<Vec<Spare>>) {
    at_hand.push(facts);
    // Who gives back more than it takes, a writer, hands them on.
    if at_hand.len() >= 2 * BATCH {
        let batch = at_hand.split_off(BATCH);
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() < MAX_BATCHES {
            shelf.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;
    use crate::{
        audit::{AuditIdentity, Privacy},
        client::{ClientInfo, Connection},
        context::Stage,
        policy::Verdict,
        principal::{Principal, PrincipalKind},
        rejection::RejectionKind,
        trail::{DecisionFact, LimitFact, LimitState},
    };

    #[test]
    fn what_is_given_back_is_taken_again_and_empty() {
        let mut facts = take();
        facts.path.push_str("/orders");
        facts.status = Some(200);
        let facts = facts.shareable();
        let address = Arc::as_ptr(&facts);
        drop(Pooled::new(facts));
        let again = take();
        assert_eq!((again.path.as_str(), again.status), ("", None));
        assert_eq!(Arc::as_ptr(&again.shareable()), address);
    }

    #[test]
    fn nothing_of_a_record_is_left_in_the_next() {
        let mut facts = take();
        let all: &mut Facts = &mut facts;
        (all.sent_request_id, all.sent_traceparent) = ("sent".into(), "sent".into());
        all.headers.push((header::USER_AGENT, HeaderValue::from_static("curl")));
        all.route = Some("/orders".into());
        all.client = Some(ClientInfo::from_connection(Connection::unaddressed()));
        let alice = || Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "test").build();
        all.subject = Some(AuditIdentity::new(alice(), None));
        all.client_identity = Some(AuditIdentity::new(alice(), None));
        all.rejection = Some((RejectionKind::Forbidden, "no".into()));
        (all.refused_by, all.status, all.grpc_status) = (Some(Stage::Guard), Some(403), Some(7));
        all.trail.decided(DecisionFact::new("first", None, Verdict::allow()));
        all.trail.limited(LimitFact {
            scope: "client".into(),
            state: LimitState::Granted,
            degraded: false,
            remaining: None,
            retry_after_nanos: None,
        });
        all.trail.note("found", "something");
        all.privacy = Some(std::sync::Arc::new(Privacy::new()));
        drop(Pooled::new(facts.shareable()));
        let again = take();
        assert!(again.sent_request_id.is_empty() && again.sent_traceparent.is_empty() && again.headers.is_empty());
        assert!(again.route.is_none() && again.client.is_none() && again.privacy.is_none());
        assert!(again.subject.is_none() && again.client_identity.is_none());
        assert!(again.rejection.is_none() && again.refused_by.is_none());
        assert_eq!((again.status, again.grpc_status), (None, None));
        assert!(again.trail.decisions.is_empty() && again.trail.limits.iter().next().is_none());
        assert!(again.trail.rare().notes.is_empty());
    }

    #[test]
    fn what_somebody_still_has_stays_as_it_is() {
        let mut facts = take();
        facts.status = Some(200);
        let facts = facts.shareable();
        let (one, other) = (Pooled::new(facts.clone()), Pooled::new(facts));
        drop(one);
        assert_eq!(other.status, Some(200));
    }

    #[test]
    fn batches_go_from_thread_to_thread() {
        // One of its own: other tests write records as well.
        let shelf = Mutex::new(Vec::new());
        let new = || UniqueArc::new(Facts::default());
        let left = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut at_hand = Vec::new();
                (0..4 * BATCH).for_each(|_| put(new(), &mut at_hand, &shelf));
                at_hand.len()
            });
            writer.join().unwrap()
        });
        let on_shelf = || shelf.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((left, on_shelf()), (BATCH, vec![BATCH; 3]), "what is more than it needs is handed on");

        let mut at_hand = Vec::new();
        for taken in 1..=BATCH {
            assert!(pick(&mut at_hand, &shelf).is_some());
            assert_eq!((at_hand.len(), on_shelf()), (BATCH - taken, vec![BATCH; 2]), "one batch at a time");
        }
        assert!((0..2 * BATCH).all(|_| pick(&mut at_hand, &shelf).is_some()));
        assert!(pick(&mut at_hand, &shelf).is_none());

        (0..2 * MAX_BATCHES * BATCH).for_each(|_| put(new(), &mut at_hand, &shelf));
        assert_eq!(on_shelf(), vec![BATCH; MAX_BATCHES], "the shelf has an end");
    }
}
