use crate::{
    clock::Instants,
    error::StoreError,
    jwt::bound::{ProofUse, Remembered, ReplayStore},
    now::Now,
};

/// How long the proofs of the suite are good.
const GOOD_FOR: u64 = 30_000_000_000;

/// Checks what every [`ReplayStore`] must do: a proof is fresh once, by whichever way it is asked about; it is remembered at
/// least until it ends, and what is remembered is not forgotten when the clock goes back; another proof of the same key, and the
/// same `jti` of another key, are other proofs.
///
/// `run` is a text that no run before had with this store, which has room for eight proofs of one key and ten in all.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn replay_store(store: &dyn ReplayStore, run: &str, at: Instants) {
    let until = at.unix_nanos().saturating_add(GOOD_FOR);
    let later =
        |nanos: u64| Instants::new(at.unix_nanos().saturating_add(nanos), at.monotonic_nanos().saturating_add(nanos));
    let key = |number: u8| {
        let mut key = [number; 32];
        for (place, byte) in key.iter_mut().zip(run.bytes()) {
            *place ^= byte;
        }
        key
    };
    let proof = |number: u8, jti: &str| ProofUse::new(key(number), &format!("{run}-{jti}"), until);
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
    let longer = ProofUse::new(key(1), &format!("{run}-a"), until.saturating_add(GOOD_FOR));
    assert_eq!(ask(&longer, at).await, Ok(Remembered::Seen), "the end is no part of what a proof is");
}

fn answer(told: Result<Remembered, StoreError>) -> Result<Remembered, String> {
    told.map_err(|error| error.to_string())
}
