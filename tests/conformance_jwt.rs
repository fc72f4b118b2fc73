//! The suites for what a JWT authenticator asks, on what the crate has, on stores that are written with public API alone, and on
//! faulty ones.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use portcullis::{
    Instants, Now, StoreError, StoreErrorKind, conformance,
    jwt::bound::{MemoryReplays, ProofUse, Remembered, ReplayStore},
    revocation::{Revocation, RevocationLimits, RevocationState, RevocationStore},
};

const AT: Instants = Instants::new(1_800_000_000_000_000_000, 0);

/// What a suite said when it found a fault; nothing if it found none.
async fn found(suite: impl Future<Output = ()> + 'static) -> String {
    let here = tokio::task::LocalSet::new();
    let Err(error) = here.run_until(async { tokio::task::spawn_local(suite).await }).await else {
        return String::new();
    };
    let panic = error.into_panic();
    let said = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(ToString::to_string));
    said.unwrap_or_default()
}

/// Written with the public API alone, and asked only by the way that may wait.
#[derive(Debug, Default)]
struct Unbounded(Mutex<HashSet<[u8; 32]>>);

#[async_trait]
impl ReplayStore for Unbounded {
    async fn remember(&self, proof: &ProofUse, _: Instants) -> Result<Remembered, StoreError> {
        let is_new = self.0.lock().unwrap().insert(*proof.id());
        Ok(if is_new { Remembered::Fresh } else { Remembered::Seen })
    }
}

#[tokio::test]
async fn replay_stores_keep_their_contract() {
    for store in [
        Box::new(MemoryReplays::new()) as Box<dyn ReplayStore>,
        Box::new(MemoryReplays::new().with_bounds(128, 32).unwrap()),
        Box::new(Arc::new(MemoryReplays::new())),
        Box::new(Unbounded::default()),
    ] {
        conformance::replay_store(&store, "first", AT).await;
        conformance::replay_store(&store, "second", AT).await;
    }
}

#[tokio::test]
async fn replay_stores_keep_their_bounds() {
    let bounded = |entries, per_key| MemoryReplays::new().with_bounds(entries, per_key).unwrap();
    conformance::replay_store_that_is_full(&bounded(20, 8), "run", AT, 8, Some(20)).await;
    conformance::replay_store_that_is_full(&Arc::new(bounded(2, 1)), "run", AT, 1, Some(2)).await;
    conformance::replay_store_that_is_full(&MemoryReplays::new(), "run", AT, 1_000, None).await;
    conformance::replay_store_that_is_full(&Faulty::new(ReplayFault::None), "run", AT, 8, Some(20)).await;
}

/// Where processes keep what they know, each of which takes turns with itself alone.
#[derive(Debug, Default)]
struct InTurns {
    place: Arc<Mutex<HashSet<[u8; 32]>>>,
    turn: tokio::sync::Mutex<()>,
}

#[async_trait]
impl ReplayStore for InTurns {
    async fn remember(&self, proof: &ProofUse, _: Instants) -> Result<Remembered, StoreError> {
        let _turn = self.turn.lock().await;
        let is_known = self.place.lock().unwrap().contains(proof.id());
        tokio::task::yield_now().await;
        self.place.lock().unwrap().insert(*proof.id());
        Ok(if is_known { Remembered::Seen } else { Remembered::Fresh })
    }
}

#[tokio::test]
async fn replay_stores_that_are_shared_keep_their_contract() {
    let store = Arc::new(MemoryReplays::new());
    conformance::replay_store_that_is_shared(async || Arc::clone(&store), "run", AT).await;

    conformance::replay_store(&InTurns::default(), "run", AT).await;
    let place = Arc::default();
    let open = async move || InTurns { place: Arc::clone(&place), ..InTurns::default() };
    let said = found(async move { conformance::replay_store_that_is_shared(open, "run", AT).await }).await;
    assert!(said.contains("in every process, exactly one is told that a proof is fresh"), "{said}");

    let apart = async || MemoryReplays::new();
    let said = found(async move { conformance::replay_store_that_is_shared(apart, "run", AT).await }).await;
    assert!(said.contains("a process knows which proofs another one took"), "{said}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplayFault {
    None,
    ReadsThenWrites,
    ReadsThenWritesAtOnce,
    /// As the one before, and every fourth has to wait.
    WaitsAtTimes,
    LooksThenAdds,
    ForgetsWhenTheClockGoesBack,
    EvictsTheOldest,
    EvictsTheOldestOfAKey,
    KnowsNoBounds,
    EvictsAndFails,
    EvictsAndTellsOfTooMany,
}

/// Has room for 8 proofs of a key and 20 in all, or for 32 and 128.
#[derive(Debug)]
struct Faulty {
    fault: ReplayFault,
    per_key: usize,
    entries: usize,
    /// The oldest first.
    held: Mutex<Vec<ProofUse>>,
    asked: AtomicUsize,
}

impl Faulty {
    const fn new(fault: ReplayFault) -> Self {
        Self { fault, per_key: 8, entries: 20, held: Mutex::new(Vec::new()), asked: AtomicUsize::new(0) }
    }

    fn roomy(fault: ReplayFault) -> Self {
        Self { per_key: 32, entries: 128, ..Self::new(fault) }
    }

    fn knows(&self, proof: &ProofUse) -> bool {
        self.held.lock().unwrap().iter().any(|held| held.id() == proof.id())
    }

    fn add(&self, proof: &ProofUse) -> Result<Remembered, StoreError> {
        use ReplayFault::{LooksThenAdds, ReadsThenWrites, ReadsThenWritesAtOnce, WaitsAtTimes};
        let mut held = self.held.lock().unwrap();
        let looks_again = !matches!(self.fault, LooksThenAdds | ReadsThenWrites | ReadsThenWritesAtOnce | WaitsAtTimes);
        if looks_again && held.iter().any(|held| held.id() == proof.id()) {
            return Ok(Remembered::Seen);
        }
        let of_key = |held: &ProofUse| held.key_thumbprint() == proof.key_thumbprint();
        if held.iter().filter(|held| of_key(held)).count() >= self.per_key {
            match self.fault {
                ReplayFault::EvictsTheOldestOfAKey => {
                    let oldest = held.iter().position(of_key).unwrap();
                    held.remove(oldest);
                }
                ReplayFault::KnowsNoBounds => {}
                ReplayFault::EvictsAndTellsOfTooMany => {
                    held.retain(|held| !of_key(held));
                    return Ok(Remembered::TooMany);
                }
                _ => return Ok(Remembered::TooMany),
            }
        }
        if held.len() >= self.entries {
            match self.fault {
                ReplayFault::EvictsTheOldest => held.remove(0),
                ReplayFault::EvictsAndFails => {
                    held.clear();
                    return Err(StoreError::new(StoreErrorKind::Unavailable, "faulty"));
                }
                _ => return Err(StoreError::new(StoreErrorKind::Unavailable, "faulty")),
            };
        }
        held.push(*proof);
        Ok(Remembered::Fresh)
    }
}

#[async_trait]
impl ReplayStore for Faulty {
    fn remember_now(&self, proof: &ProofUse, _: Instants) -> Now<Result<Remembered, StoreError>> {
        let waits = match self.fault {
            ReplayFault::ReadsThenWritesAtOnce => false,
            ReplayFault::WaitsAtTimes => self.asked.fetch_add(1, Ordering::SeqCst) % 4 == 3,
            _ => true,
        };
        if waits {
            return Now::Wait;
        }
        if self.knows(proof) {
            return Now::Known(Ok(Remembered::Seen));
        }
        // Time for another thread to ask the same.
        (0..100).for_each(|_| std::thread::yield_now());
        Now::Known(self.add(proof))
    }

    async fn remember(&self, proof: &ProofUse, at: Instants) -> Result<Remembered, StoreError> {
        if self.fault == ReplayFault::ForgetsWhenTheClockGoesBack {
            self.held.lock().unwrap().retain(|held| held.until_unix_nanos() > at.unix_nanos());
        }
        if self.knows(proof) {
            return Ok(Remembered::Seen);
        }
        if self.fault == ReplayFault::LooksThenAdds {
            (0..100).for_each(|_| std::thread::yield_now());
        }
        if self.fault == ReplayFault::ReadsThenWrites {
            tokio::task::yield_now().await;
        }
        self.add(proof)
    }
}

#[tokio::test]
async fn the_suite_of_replay_stores_finds_each_fault() {
    for (fault, sentence) in [
        (ReplayFault::ReadsThenWrites, "of all who ask at once exactly one is told that a proof is fresh"),
        (ReplayFault::ReadsThenWritesAtOnce, "of all threads that ask at once one is told that a proof is fresh"),
        (ReplayFault::LooksThenAdds, "of all threads that `remember` at once one is told that a proof is fresh"),
        (ReplayFault::WaitsAtTimes, "of all threads that ask at once one is told that a proof is fresh"),
        (ReplayFault::ForgetsWhenTheClockGoesBack, "is not fresh when the clock goes back"),
    ] {
        let said = found(async move { conformance::replay_store(&Faulty::roomy(fault), "run", AT).await }).await;
        assert!(said.contains(sentence), "{fault:?}: {said}");
    }
    conformance::replay_store(&Faulty::roomy(ReplayFault::None), "run", AT).await;
    for (fault, sentence) in [
        (ReplayFault::EvictsTheOldest, "a store that is full fails"),
        (ReplayFault::EvictsTheOldestOfAKey, "a key with too many gets no more"),
        (ReplayFault::KnowsNoBounds, "a key with too many gets no more"),
        (ReplayFault::EvictsAndTellsOfTooMany, "a key with too many"),
        (ReplayFault::EvictsAndFails, "a store that is full"),
    ] {
        let store = Faulty::new(fault);
        let suite = async move { conformance::replay_store_that_is_full(&store, "run", AT, 8, Some(20)).await };
        let said = found(suite).await;
        assert!(said.contains(sentence), "{fault:?}: {said}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RevocationFault {
    None,
    WritesNothing,
    TellsNobodyThatRuns,
    KeepsTheLastEnd,
    ForgetsEarly,
    KeepsTokensAlone,
    KeepsTheFirstIssue,
    CallsTheEndedRevoked,
    LosesTheIssuer,
    LosesTheKind,
    FoldsCase,
}

type Key = (String, String, String);

/// What processes share.
#[derive(Debug, Default)]
struct Place {
    written: Mutex<HashMap<Key, Revocation>>,
    running: Mutex<Vec<RevocationState>>,
}

#[derive(Debug)]
struct Sharing {
    fault: RevocationFault,
    place: Arc<Place>,
    state: RevocationState,
}

impl Sharing {
    fn open(place: &Arc<Place>, fault: RevocationFault) -> Self {
        let state = RevocationState::own(RevocationLimits::new());
        state.add(place.written.lock().unwrap().values(), AT).unwrap();
        place.running.lock().unwrap().push(state.clone());
        Self { fault, place: Arc::clone(place), state }
    }
}

#[async_trait]
impl RevocationStore for Sharing {
    fn state(&self) -> &RevocationState {
        &self.state
    }

    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        if self.fault != RevocationFault::CallsTheEndedRevoked {
            self.state.check_end(revocation, at, "sharing")?;
        }
        let mut revocation = revocation.clone();
        if self.fault == RevocationFault::ForgetsEarly {
            revocation = revocation.until(at.unix_seconds() + 60);
        }
        self.state.add([&revocation], at)?;
        let is_token = revocation.kind().as_str() == "token";
        if self.fault == RevocationFault::WritesNothing
            || (self.fault == RevocationFault::KeepsTokensAlone && !is_token)
        {
            return Ok(());
        }
        if self.fault != RevocationFault::TellsNobodyThatRuns {
            for running in self.place.running.lock().unwrap().iter() {
                running.add([&revocation], at)?;
            }
        }
        let key =
            (revocation.kind().as_str().to_owned(), revocation.issuer().to_owned(), revocation.value().to_owned());
        let mut written = self.place.written.lock().unwrap();
        if self.fault != RevocationFault::KeepsTheLastEnd
            && let Some(before) = written.get(&key)
        {
            let end = before.end().max(revocation.end());
            revocation = end.into_iter().fold(revocation, Revocation::until);
            let last = match self.fault {
                RevocationFault::KeepsTheFirstIssue => before.last_issue(),
                _ => before.last_issue().max(revocation.last_issue()),
            };
            revocation = last.into_iter().fold(revocation, Revocation::issued_until);
        }
        // What a column that is missing or compares too much makes of a row, for those that read it.
        let (issuer, value, end) = (revocation.issuer().to_owned(), revocation.value().to_owned(), revocation.end());
        let also = match self.fault {
            RevocationFault::LosesTheIssuer => Revocation::session("https://other.example.com", &value),
            RevocationFault::LosesTheKind => Revocation::client(&issuer, &value),
            RevocationFault::FoldsCase => Revocation::session(&issuer, &value.to_ascii_uppercase()),
            _ => {
                written.insert(key, revocation);
                return Ok(());
            }
        };
        let also = end.into_iter().fold(also.unwrap(), Revocation::until);
        let also_key = (also.kind().as_str().to_owned(), also.issuer().to_owned(), also.value().to_owned());
        written.insert(key, revocation);
        written.entry(also_key).or_insert(also);
        Ok(())
    }
}

#[tokio::test]
async fn the_suite_of_revocation_stores_finds_each_fault() {
    let shared = |fault| async move {
        let place = Arc::default();
        conformance::revocation_store_that_is_shared(async || Sharing::open(&place, fault), async || {}, "run", AT)
            .await;
    };
    shared(RevocationFault::None).await;
    for (fault, sentence) in [
        (RevocationFault::WritesNothing, "a process that starts later knows what was revoked"),
        (RevocationFault::KeepsTokensAlone, "run-session: a process that starts later knows what was revoked"),
        (RevocationFault::TellsNobodyThatRuns, "a process that runs learns of what another revoked"),
        (RevocationFault::KeepsTheLastEnd, "a process that starts later knows what was revoked"),
        (RevocationFault::KeepsTheFirstIssue, "run-subject-short-first: a process that starts later knows"),
        (RevocationFault::CallsTheEndedRevoked, "what has ended is not called revoked"),
        (RevocationFault::LosesTheIssuer, "another issuer's run-session is good for a process that starts later"),
        (RevocationFault::LosesTheKind, "what was revoked as another kind is good for a process that starts later"),
        (RevocationFault::FoldsCase, "RUN-SESSION was not revoked, and is good for a process that starts later"),
        (RevocationFault::ForgetsEarly, "what is revoked twice is met until the later end"),
    ] {
        let said = found(shared(fault)).await;
        assert!(said.contains(sentence), "{fault:?}: {said}");
    }
    let alone = Sharing::open(&Arc::default(), RevocationFault::ForgetsEarly);
    let said = found(async move { conformance::revocation_store(&alone, "run", AT).await }).await;
    assert!(said.contains("what is revoked twice is met until the later end"), "{said}");
}
