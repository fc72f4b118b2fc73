//! What a proof of possession costs (RFC 9449 §4.3): all its checks, beside the one of its signature that nobody can leave out.
//!
//! `cargo bench --bench proof --all-features` prints the table (see `ratio/mod.rs`).

#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench stops where it cannot go on"
)]

#[path = "../tests/jwt/mint.rs"]
mod mint;
#[path = "../tests/jwt/owner.rs"]
mod owner;
mod ratio;

use std::{
    cell::Cell,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Request;
use mint::{AUDIENCE, ISSUER, key};
use owner::{Owner, URL, claims_at};
use portcullis::{
    Clock, Instants, RequestHead, SystemClock,
    authn::{Authenticator, Outcome},
    jwt::{Algorithm, Issuer, JwtAuthenticator, KeySet, bound::Dpop},
};
use ratio::{Timed, measure, time};

/// As many owners, each with as many proofs as the store remembers of one key, nearly: a proof is good once.
const OWNERS: usize = 8;
const PROOFS: usize = 900;

const FLOOR: &str = "aws-lc-rs, parsed key: signature alone";

fn with_proof(token: &str, proof: &str) -> Request<()> {
    let request = Request::get("/orders").header("authorization", format!("DPoP {token}")).header("dpop", proof);
    request.body(()).expect("a request")
}

fn authenticate(jwt: &JwtAuthenticator, request: &Request<()>, at: Instants) -> Outcome {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(jwt.authenticate(&RequestHead::of(request), at)).poll(&mut cx) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("the answer is in memory"),
    }
}

/// Where the proofs are whose turn comes: the next one is another owner's.
const fn place(number: usize) -> usize {
    number % OWNERS * PROOFS + number / OWNERS
}

fn main() {
    let at = SystemClock::new().now();
    let profile = Issuer::fixed(ISSUER, KeySet::new([key(Algorithm::ES256)]).expect("keys"))
        .access_tokens(AUDIENCE)
        .algorithms([Algorithm::ES256]);
    let dpop = Dpop::at([URL]).expect("the API's URL");
    let jwt = JwtAuthenticator::builder().issuer(profile).dpop(dpop).build().expect("an authenticator");

    let with_token = |owner: Owner| {
        let token = owner.token();
        (owner, token)
    };
    let owners: Vec<(Owner, String)> = (0..OWNERS).map(|_| with_token(Owner::new())).collect();
    let proofs = owners.iter().flat_map(|(owner, token)| {
        (0..PROOFS).map(move |number| {
            (token.as_str(), owner.proof(&claims_at(token, &format!("proof-{number}"), at.unix_seconds())))
        })
    });
    let proofs: Vec<(&str, String)> = proofs.collect();
    // Each owner's token is remembered before its proofs are timed.
    for (owner, token) in &owners {
        let first = owner.proof(&claims_at(token, "first", at.unix_seconds()));
        assert!(matches!(authenticate(&jwt, &with_proof(token, &first), at), Outcome::Verified(_)));
    }
    let next = Cell::new(0);
    let request = || {
        let number = next.replace(next.get() + 1);
        assert!(number < proofs.len(), "no proof is left: the machine is faster than this bench expects");
        let (token, proof) = &proofs[place(number)];
        with_proof(token, proof)
    };

    // The floor checks the signatures of the same proofs, one owner's after the other's.
    let keys =
        owners.iter().map(|(owner, _)| ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, owner.point()).expect("a key"));
    let keys: Vec<ParsedPublicKey> = keys.collect();
    let signed = proofs.iter().map(|(_, proof)| {
        let (message, signature) = proof.rsplit_once('.').expect("a JWS");
        (message, BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url"))
    });
    let signed: Vec<(&str, Vec<u8>)> = signed.collect();
    let turn = Cell::new(0);
    let check = || {
        let number = turn.replace((turn.get() + 1) % signed.len());
        let (message, signature) = &signed[place(number)];
        assert!(black_box(keys[number % OWNERS].verify_sig(message.as_bytes(), signature)).is_ok());
    };

    let admit = |request: &Request<()>| {
        assert!(matches!(black_box(authenticate(&jwt, request, at)), Outcome::Verified(_)));
    };
    measure(&[
        Timed {
            name: FLOOR,
            slice: Box::new(|count| time(|| (0..count).for_each(|_| check())) / count as f64),
            once: Box::new(|| allocation_counter::measure(check).count_total),
        },
        Timed {
            name: "a request with a proof, token remembered",
            slice: Box::new(|count| {
                let requests: Vec<_> = (0..count).map(|_| request()).collect();
                time(|| requests.iter().for_each(&admit)) / count as f64
            }),
            once: Box::new(|| {
                let request = request();
                allocation_counter::measure(|| admit(&request)).count_total
            }),
        },
    ])
    .print("proofs of possession, ES256", FLOOR);
}
