//! What the life of a token costs: asking whether it was revoked, among 100 000 revocations.
//!
//! `cargo bench --bench token_life --all-features -- ratios` prints the tables (see `ratio/mod.rs`).

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::hint::black_box;

use portcullis::{
    Clock, Instants, SystemClock,
    revocation::{MemoryRevocations, Revocation, RevocationStore, Standing, TokenMarks},
};
use ratio::{Timed, measure, provider::Provider};

/// How many tokens live at the same time.
const LIVE: usize = 10_000;
/// How many revocations there are.
const REVOKED: usize = 100_000;
const ISSUER: &str = "https://id.example.com";

fn now() -> Instants {
    SystemClock::new().now()
}

fn full() -> MemoryRevocations {
    let store = MemoryRevocations::new();
    let revocation = |number: usize| Revocation::token(ISSUER, &format!("revoked-{number}")).expect("a revocation");
    store.state().add(&(0..REVOKED).map(revocation).collect::<Vec<_>>(), now()).expect("there is room");
    store
}

/// A remembered token, with and without the question.
fn remembered(store: &MemoryRevocations) {
    let provider = Provider::es256();
    let tokens: Vec<String> = (0..LIVE).map(|number| provider.token_of(&format!("user-{number}"), 3_600)).collect();
    let plain = provider.authenticator();
    let asking = provider.builder().revocations(store.clone()).build().expect("an authenticator");
    for jwt in [&plain, &asking] {
        tokens.iter().for_each(|token| drop(jwt.verify(token, now()).expect("a good token")));
    }
    let at = now();
    let seen = |name, jwt: &portcullis::jwt::JwtAuthenticator| {
        let jwt = jwt.clone();
        Timed::by_text(name, &tokens, move |token| drop(black_box(jwt.verify(token, at).expect("a good token"))))
    };
    measure(&[seen("without revocations", &plain), seen("100 000 revocations", &asking)])
        .print("10 000 tokens seen before, random order", "without revocations");
}

/// The question alone, for a token that was not asked about since the last revocation: each of its five facts is looked up.
fn looked_up(store: &MemoryRevocations) {
    let texts: Vec<String> = (0..LIVE).map(|number| number.to_string()).collect();
    let marks = |text: &str| {
        let marks = TokenMarks::new(ISSUER).token(text).session(text).subject(text);
        marks.client("web").key("k-1").issued_at(now().unix_seconds())
    };
    let known: Vec<TokenMarks> = texts.iter().map(|text| marks(text)).collect();
    let at = now();
    let pick = |text: &str| &known[text.parse::<usize>().expect("a number")];
    let contenders = [
        Timed::by_text("picking the facts", &texts, |text| {
            black_box(pick(text));
        }),
        Timed::by_text("five look-ups", &texts, |text| {
            assert_eq!(black_box(store.state().check_marks(pick(text), at)), Standing::Good);
        }),
    ];
    measure(&contenders).print("facts of 10 000 tokens among 100 000 revocations", "picking the facts");
}

fn main() {
    let store = full();
    remembered(&store);
    looked_up(&store);
}
