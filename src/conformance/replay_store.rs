use std::sync::{
    Barrier,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    clock::Instants,
    conformance::{
        threads::{at_once, from_threads},
        together::together,
    },
    error::StoreError,
    jwt::bound::{ProofUse, Remembered, ReplayStore},
    now::Now,
};

/// How long the proofs of the suite are good.
const GOOD_FOR: u64 = 30_000_000_000;
/// How long one of them is.
const SHORTLY: u64 = 10_000_000_000;
/// How often threads ask at once.
const ROUNDS: usize = 16;

/// Checks what every [`ReplayStore`] must do: a proof is fresh once, by whichever way it is asked about and however many ask at
/// once; it is remembered at least until it ends, and what is remembered is not forgotten when the clock goes back; another proof
/// of the same key, and the same `jti` of another key, are other proofs.
///
/// `run` is a text that no run before had with this store, which has room for 32 proofs of one key and 64 in all. A store that
/// answers without waiting is asked from several threads as well, which are in no runtime.
/// [`replay_store_that_is_full`] checks its bounds, and [`replay_store_that_is_shared`] asks other processes too.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn replay_store(store: &dyn ReplayStore, run: &str, at: Instants) {
    let until = at.unix_nanos().saturating_add(GOOD_FOR);
    let later =
        |nanos: u64| Instants::new(at.unix_nanos().saturating_add(nanos), at.monotonic_nanos().saturating_add(nanos));
    let proof = |number: u8, jti: &str| ProofUse::new(key(run, number), &format!("{run}-{jti}"), until);
    let ask = async |proof: &ProofUse, at: Instants| answer(store.remember(proof, at).await);

    assert_eq!(ask(&proof(1, "a"), at).await, Ok(Remembered::Fresh), "a proof that nobody used is fresh");
    assert_eq!(ask(&proof(1, "a"), at).await, Ok(Remembered::Seen), "a proof is fresh once");
    assert_eq!(ask(&proof(1, "b"), at).await, Ok(Remembered::Fresh), "another proof of the same key");
    assert_eq!(ask(&proof(2, "a"), at).await, Ok(Remembered::Fresh), "the same jti of another key");
    let last = later(GOOD_FOR.saturating_sub(1));
    assert_eq!(ask(&proof(1, "a"), last).await, Ok(Remembered::Seen), "a proof is remembered until it ends");
    assert_eq!(ask(&proof(1, "a"), at).await, Ok(Remembered::Seen), "a clock that goes back opens nothing");

    // The way that does not wait.
    match store.remember_now(&proof(1, "c"), at) {
        Now::Known(told) => assert_eq!(answer(told), Ok(Remembered::Fresh), "remember_now: nobody used it"),
        Now::Wait => {
            let told = ask(&proof(1, "c"), at).await;
            assert_eq!(told, Ok(Remembered::Fresh), "remember_now that says Wait remembers nothing");
        }
    }
    assert_eq!(ask(&proof(1, "c"), at).await, Ok(Remembered::Seen), "what remember_now took is remembered");
    if let Now::Known(told) = store.remember_now(&proof(1, "b"), at) {
        assert_eq!(answer(told), Ok(Remembered::Seen), "remember_now knows what remember took");
    }

    // A later end of the same proof is no other proof.
    let longer = ProofUse::new(key(run, 1), &format!("{run}-a"), until.saturating_add(GOOD_FOR));
    assert_eq!(ask(&longer, at).await, Ok(Remembered::Seen), "the end is no part of what a proof is");

    // Many at once, whose waits interleave.
    let wanted = proof(3, "together");
    let answers = together((0..20).map(|_| ask(&wanted, at))).await;
    assert_eq!(fresh(&answers), 1, "of all who ask at once exactly one is told that a proof is fresh: {answers:?}");
    many_threads(store, at, |round| proof(4, &format!("round-{round}")));
    threads_that_could_wait(store, at, |round| proof(7, &format!("round-{round}")));

    // What ended long before the others; a store that says Seen of it has forgotten more already.
    let short = ProofUse::new(key(run, 5), &format!("{run}-short"), at.unix_nanos().saturating_add(SHORTLY));
    if ask(&short, at).await == Ok(Remembered::Fresh) {
        // An occasion to forget it, which a store whose own clock tells another time need not take.
        let _answer = ask(&proof(5, "after"), later(SHORTLY.saturating_add(1))).await;
        let again = ask(&short, at).await;
        assert_eq!(fresh(&[again]), 0, "a proof that may have been forgotten is not fresh when the clock goes back");
    }
}

/// The same on threads, where the store answers at once.
fn many_threads(store: &dyn ReplayStore, at: Instants, proof: impl Fn(usize) -> ProofUse) {
    const THREADS: usize = 4;
    for round in 0..ROUNDS {
        let (proof, start) = (proof(round), Barrier::new(THREADS));
        let (told, is_fresh) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    if let Now::Known(answer) = store.remember_now(&proof, at) {
                        told.fetch_add(1, Ordering::Relaxed);
                        is_fresh.fetch_add(fresh(&[self::answer(answer)]), Ordering::Relaxed);
                    }
                });
            }
        });
        // Who was told to wait took nothing.
        let expected = told.into_inner().min(1);
        assert_eq!(
            is_fresh.into_inner(),
            expected,
            "of all threads that ask at once one is told that a proof is fresh"
        );
    }
}

/// On threads, by the way that could wait and does not.
fn threads_that_could_wait(store: &dyn ReplayStore, at: Instants, proof: impl Fn(usize) -> ProofUse) {
    if at_once(store.remember(&proof(0), at)).is_none() {
        return;
    }
    for round in 1..ROUNDS {
        let proof = proof(round);
        let Some(answers) = from_threads(|_| async { answer(store.remember(&proof, at).await) }) else { return };
        let told = fresh(&answers);
        assert_eq!(told, 1, "of all threads that `remember` at once one is told that a proof is fresh: {answers:?}");
    }
}

/// Checks what a [`ReplayStore`] must do that several processes share: all of [`replay_store`], and that a proof is fresh once among
/// all of them, also if they ask at the same time.
///
/// `open` opens the store as one more process would. For the rest see [`replay_store`].
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn replay_store_that_is_shared<S: ReplayStore>(open: impl AsyncFn() -> S, run: &str, at: Instants) {
    let (here, there) = (open().await, open().await);
    replay_store(&here, run, at).await;
    let until = at.unix_nanos().saturating_add(GOOD_FOR);
    let proof = |jti: &str| ProofUse::new(key(run, 6), &format!("{run}-{jti}"), until);
    let ask = async |store: &S, proof: &ProofUse| match store.remember_now(proof, at) {
        Now::Known(told) => answer(told),
        Now::Wait => answer(store.remember(proof, at).await),
    };
    let used = proof("one");
    assert_eq!(ask(&here, &used).await, Ok(Remembered::Fresh), "a proof that nobody used is fresh");
    assert_eq!(ask(&there, &used).await, Ok(Remembered::Seen), "a process knows which proofs another one took");
    for round in 0..8 {
        let wanted = proof(&format!("together-{round}"));
        let processes = (0..10).flat_map(|_| [&here, &there]);
        let answers = together(processes.map(|store| ask(store, &wanted))).await;
        assert_eq!(
            fresh(&answers),
            1,
            "of all who ask at once, in every process, exactly one is told that a proof is fresh: {answers:?}"
        );
    }
}

/// Checks what a [`ReplayStore`] does that has no more room: a key that has `per_key` proofs gets [`TooMany`](Remembered::TooMany),
/// a store that has `entries`, more than that, fails, and neither forgets a proof that could be used again. Without `entries`, the store is bounded
/// by what this process cannot fill.
///
/// The store is empty, and `run` a text that no run before had with it.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn replay_store_that_is_full(
    store: &dyn ReplayStore,
    run: &str,
    at: Instants,
    per_key: usize,
    entries: Option<usize>,
) {
    let until = at.unix_nanos().saturating_add(GOOD_FOR);
    let proof = |number: u8, jti: usize| ProofUse::new(key(run, number), &format!("{run}-{jti}"), until);
    let ask = async |proof: ProofUse| answer(store.remember(&proof, at).await);
    let ask_now = |proof: ProofUse| match store.remember_now(&proof, at) {
        Now::Known(told) => Some(answer(told)),
        Now::Wait => None,
    };

    for jti in 0..per_key {
        assert_eq!(ask(proof(1, jti)).await, Ok(Remembered::Fresh), "a key has room for as many as it says");
    }
    for more in per_key..per_key.saturating_add(3) {
        assert_eq!(ask(proof(1, more)).await, Ok(Remembered::TooMany), "a key with too many gets no more");
        let told = ask_now(proof(1, more));
        assert!(told.is_none_or(|told| told == Ok(Remembered::TooMany)), "remember_now: a key with too many");
    }
    for jti in 0..per_key {
        assert_eq!(ask(proof(1, jti)).await, Ok(Remembered::Seen), "a key with too many forgets none of them");
    }
    let Some(entries) = entries else {
        assert_eq!(ask(proof(2, 0)).await, Ok(Remembered::Fresh), "a key with too many takes nothing from another");
        return;
    };

    let mut held: Vec<ProofUse> = (0..per_key).map(|jti| proof(1, jti)).collect();
    let others = (2..=u8::MAX).flat_map(|number| (0..per_key).map(move |jti| (number, jti)));
    for (number, jti) in others.take(entries.saturating_sub(per_key)) {
        let another = proof(number, jti);
        assert_eq!(ask(another).await, Ok(Remembered::Fresh), "a store has room for as many as it says");
        held.push(another);
    }
    assert_eq!(held.len(), entries, "the suite fills 255 keys: bounds of which that is enough");
    for jti in 0..3 {
        assert!(ask(proof(0, jti)).await.is_err(), "a store that is full fails");
        assert!(ask_now(proof(0, jti)).is_none_or(|told| told.is_err()), "remember_now: a store that is full fails");
    }
    for proof in held {
        let told = ask(proof).await;
        assert_eq!(fresh(&[told]), 0, "a store that is full forgets no proof that could be used again");
    }
}

/// A key that is another in each run.
fn key(run: &str, number: u8) -> [u8; 32] {
    let mut key = [number; 32];
    for (place, byte) in key.iter_mut().zip(run.bytes()) {
        *place ^= byte;
    }
    key
}

fn fresh(answers: &[Result<Remembered, String>]) -> usize {
    answers.iter().filter(|told| **told == Ok(Remembered::Fresh)).count()
}

fn answer(told: Result<Remembered, StoreError>) -> Result<Remembered, String> {
    told.map_err(|error| error.to_string())
}
