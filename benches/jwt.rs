//! What a JWT costs: seen before, never seen, and refused; against the least that it can cost, and against jsonwebtoken.
//!
//! `cargo bench --bench jwt --all-features -- ratios` prints the tables alone (see `ratio/mod.rs`).

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::{collections::HashMap, hint::black_box, sync::Arc};

use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use axum::{body::Body, extract::Request, http::StatusCode, middleware::Next, response::Response};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use criterion::{BatchSize, Criterion};
use foldhash::quality::RandomState;
use portcullis::{
    Challenge, Clock, Instants, Principal, PrincipalKind, SystemClock,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    jwt::{Algorithm, JwtAuthenticator, TokenCache},
};
use ratio::{
    Contender, Timed, base, bearer, measure,
    provider::{Provider, SECRET},
    router, send,
};
use tower::Layer;

/// How many tokens live at the same time.
const LIVE: usize = 10_000;

fn now() -> Instants {
    SystemClock::new().now()
}

/// What nobody can avoid: hash the end of the token under a key, look it up, compare all of it.
struct Floor<V>(HashMap<[u8; 32], (Box<str>, V), RandomState>);

impl<V> Floor<V> {
    fn of(tokens: &[String], value: impl Fn() -> V) -> Self {
        let entry = |token: &String| (Self::tail(token), (token.as_str().into(), value()));
        Self(tokens.iter().map(entry).collect())
    }

    fn tail(token: &str) -> [u8; 32] {
        *token.as_bytes().last_chunk().expect("a token")
    }

    fn get(&self, token: &str) -> &V {
        let (known, value) = self.0.get(&Self::tail(token)).expect("the token is there");
        assert_eq!(&**known, token);
        value
    }
}

/// The same with a hash over the whole token.
struct WholeFloor(HashMap<Box<str>, (), RandomState>);

fn seen(name: &'static str, jwt: &JwtAuthenticator) -> impl Fn(&str) + Sync + use<> {
    let (jwt, at) = (jwt.clone(), now());
    move |token| drop(black_box(jwt.verify(token, at).expect(name)))
}

fn cached_tokens() {
    let provider = Provider::hs256();
    let tokens: Vec<String> = (0..LIVE).map(|number| provider.token_of(&format!("user-{number}"), 3600)).collect();
    let floor = Floor::of(&tokens, || ());
    let counted = Floor::of(&tokens, || Arc::new([0_u8; 700]));
    let whole = WholeFloor(tokens.iter().map(|token| (token.as_str().into(), ())).collect());
    let plain = provider.authenticator();
    let digests = provider.builder().cache(TokenCache::new().digest_keys()).build().expect("an authenticator");
    for token in &tokens {
        assert!(plain.verify(token, now()).is_ok() && digests.verify(token, now()).is_ok());
    }
    const FLOOR: &str = "floor: hash of the end, look-up, compare";
    let one = |texts| {
        [
            Timed::by_text(FLOOR, texts, |token| *black_box(floor.get(token))),
            Timed::by_text("floor and a count of the principal", texts, |token| {
                drop(black_box(Arc::clone(counted.get(token))));
            }),
            Timed::by_text("floor with a hash of the whole token", texts, |token| {
                black_box(whole.0.get(token).expect("the token is there"));
            }),
            Timed::by_text("portcullis", texts, seen("plain", &plain)),
            Timed::by_text("portcullis, digest_keys()", texts, seen("digests", &digests)),
        ]
    };
    let two = |texts| {
        [
            Timed::by_text_on_two_threads(FLOOR, texts, |token| *black_box(floor.get(token))),
            Timed::by_text_on_two_threads("floor and a count of the principal", texts, |token| {
                drop(black_box(Arc::clone(counted.get(token))));
            }),
            Timed::by_text_on_two_threads("portcullis", texts, seen("plain", &plain)),
            Timed::by_text_on_two_threads("portcullis, digest_keys()", texts, seen("digests", &digests)),
        ]
    };
    measure(&one(&tokens)).print("10 000 tokens seen before, random order", FLOOR);
    measure(&one(&tokens[..1])).print("one token seen before", FLOOR);
    measure(&two(&tokens)).print("the 10 000 on two threads, each", FLOOR);
    measure(&two(&tokens[..1])).print("the one on two threads, each", FLOOR);
    let stats = plain.cache_stats().expect("a cache");
    assert_eq!((stats.evictions, stats.entries), (0, LIVE), "all of them were hits");
    println!("{} bytes for each of the tokens of {} characters\n", stats.bytes / LIVE, tokens[0].len());
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "read as a service would")]
struct PeerClaims {
    sub: String,
    iss: String,
    aud: String,
    exp: u64,
    scope: String,
    roles: Vec<String>,
    email: String,
    name: String,
}

fn validation(provider: &Provider) -> jsonwebtoken::Validation {
    let mut validation = jsonwebtoken::Validation::new(provider.peer_algorithm());
    validation.set_issuer(&["https://id.example.com"]);
    validation.set_audience(&["orders-api"]);
    validation
}

/// The check of the signature alone, with a key that was parsed before.
fn bare(provider: &Provider, token: &str) -> impl Fn(&str) + use<> {
    let (_, signature) = token.rsplit_once('.').expect("a token");
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let parsed = |algorithm: &'static dyn VerificationAlgorithm| {
        let key = ParsedPublicKey::new(algorithm, &provider.spki).expect("a key");
        Box::new(move |message: &[u8], signature: &[u8]| key.verify_sig(message, signature).is_ok())
            as Box<dyn Fn(&[u8], &[u8]) -> bool>
    };
    let check = match provider.algorithm {
        Algorithm::RS256 => parsed(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::ES256 => parsed(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::EdDSA => parsed(&signature::ED25519),
        _ => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
            Box::new(move |message: &[u8], signature: &[u8]| hmac::verify(&key, message, signature).is_ok())
        }
    };
    move |token| {
        let (message, _) = token.rsplit_once('.').expect("a token");
        assert!(black_box(check(message.as_bytes(), &signature)));
    }
}

fn tokens_never_seen() {
    for provider in [Provider::hs256(), Provider::rs256(), Provider::es256(), Provider::eddsa()] {
        let tokens = [provider.token(3600)];
        let (expired, garbage) = ([provider.token(-3600)], ["a.b.c".to_owned()]);
        let validation = validation(&provider);
        let jwt = provider.builder().without_cache().build().expect("an authenticator");
        let at = now();
        let decode =
            |token: &str| black_box(jsonwebtoken::decode::<PeerClaims>(token, &provider.decoding, &validation)).is_ok();
        let verify = |token: &str| black_box(jwt.verify(token, at)).is_ok();
        assert!(decode(&tokens[0]) && verify(&tokens[0]));
        let measured = measure(&[
            Timed::by_text("aws-lc-rs, parsed key: signature alone", &tokens, bare(&provider, &tokens[0])),
            Timed::by_text("portcullis", &tokens, |token| assert!(verify(token))),
            Timed::by_text("jsonwebtoken::decode", &tokens, |token| assert!(decode(token))),
            Timed::by_text("portcullis, expired", &expired, |token| assert!(!verify(token))),
            Timed::by_text("jsonwebtoken::decode, expired", &expired, |token| assert!(!decode(token))),
            Timed::by_text("portcullis, garbage", &garbage, |token| assert!(!verify(token))),
            Timed::by_text("jsonwebtoken::decode, garbage", &garbage, |token| assert!(!decode(token))),
        ]);
        let name = provider.algorithm.name();
        measured.print(&format!("{name}, never seen, to the signature"), "aws-lc-rs, parsed key: signature alone");
        measured.print(&format!("{name}, never seen, to jsonwebtoken"), "jsonwebtoken::decode");
    }
}

/// jsonwebtoken in a middleware, as it is written by hand.
fn by_hand(provider: &Provider) -> axum::Router {
    let shared = Arc::new((provider.decoding.clone(), validation(provider)));
    router().layer(axum::middleware::from_fn(move |mut request: Request, next: Next| {
        let shared = Arc::clone(&shared);
        async move {
            let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let token = header.and_then(|value| value.strip_prefix("Bearer "));
            let decoded = token.and_then(|token| jsonwebtoken::decode::<PeerClaims>(token, &shared.0, &shared.1).ok());
            match decoded {
                Some(decoded) => {
                    request.extensions_mut().insert(Arc::new(decoded.claims));
                    next.run(request).await
                }
                None => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                    response
                }
            }
        }
    }))
}

/// What the layer itself costs: it is not asked who is there.
fn ready_made() -> AuthnLayer {
    let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").build();
    let challenge = Challenge::new("Bearer", "api").expect("a challenge");
    AuthnLayer::new(authenticate_fn(challenge, move |_, _| Outcome::verified(alice.clone()))).dangerous_plain_http()
}

fn through_axum() -> Vec<Contender> {
    let (hs256, rs256, es256) = (Provider::hs256(), Provider::rs256(), Provider::es256());
    let layer = |provider: &Provider| AuthnLayer::new(provider.authenticator()).dangerous_plain_http();
    let hot = |provider: &Provider| bearer(&provider.token(3600));
    let live: Vec<_> = (0..LIVE).map(|number| bearer(&hs256.token_of(&format!("user-{number}"), 3600))).collect();
    let expired = |provider: &Provider| bearer(&provider.token(-3600));
    vec![
        Contender::new("bare axum router", router(), &base()),
        Contender::new("bare axum router, with a token", router(), &hot(&es256)),
        Contender::new("a principal that is there", ready_made().layer(router()), &hot(&es256)),
        Contender::new("seen before, RS256", layer(&rs256).layer(router()), &hot(&rs256)),
        Contender::new("seen before, ES256", layer(&es256).layer(router()), &hot(&es256)),
        Contender::with_requests("seen before, 10 000 in random order", layer(&hs256).layer(router()), &live),
        Contender::new("from_fn and jsonwebtoken, HS256", by_hand(&hs256), &hot(&hs256)),
        Contender::new("from_fn and jsonwebtoken, RS256", by_hand(&rs256), &hot(&rs256)),
        Contender::new("from_fn and jsonwebtoken, ES256", by_hand(&es256), &hot(&es256)),
        Contender::new("refused: garbage", layer(&es256).layer(router()), &bearer("a.b.c")).refused(401),
        Contender::new("by hand: garbage", by_hand(&es256), &bearer("a.b.c")).refused(401),
        Contender::new("refused: expired, ES256", layer(&es256).layer(router()), &expired(&es256)).refused(401),
        Contender::new("by hand: expired, ES256", by_hand(&es256), &expired(&es256)).refused(401),
    ]
}

fn main() {
    cached_tokens();
    tokens_never_seen();
    let contenders = through_axum();
    contenders.iter().for_each(Contender::warm_up);
    let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
    measure(&timed).print("through axum", "bare axum router, with a token");
    if std::env::args().any(|argument| argument == "ratios") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("jwt");
    for contender in &contenders {
        group.bench_function(contender.name, |bencher| {
            bencher.iter_batched(
                || contender.a_request(),
                |request| send(&contender.app, request),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}
