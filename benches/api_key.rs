//! What an API key costs: known, unknown and refused, with and without a pepper; and how much memory a key takes.
//!
//! `cargo bench --bench api_key --all-features -- ratios` prints the tables alone (see `ratio/mod.rs`).

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::{collections::HashMap, convert::Infallible, hint::black_box, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{body::Body, extract::Request, http::StatusCode, middleware::Next, response::Response};
use criterion::{BatchSize, Criterion};
use portcullis::{
    Challenge, Clock, Instants, Now, Principal, PrincipalKind, RequestHead, Secret, SystemClock,
    api_key::{ApiKeyAuthenticator, ApiKeyFormat, KeyIssuer, MemoryKeyStore, NewApiKey, Peppers, UseLog},
    authn::{Authenticator, AuthnLayer, Outcome, authenticate_fn},
};
use ratio::{Contender, Timed, base, measure, router, send, with};
use tower::{Layer, Service};

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;

fn now() -> Instants {
    SystemClock::new().now()
}

fn peppers() -> Peppers {
    Peppers::new("2026-01".parse().expect("a name"), Secret::new(vec![7; 32])).expect("a pepper")
}

fn typical(number: usize) -> NewApiKey {
    NewApiKey::for_subject(format!("service-{number}")).name("nightly export").tenant("acme").scope("orders:read")
}

/// So many keys in a store, and their texts.
fn filled(issuer: &KeyIssuer, count: usize) -> (Arc<MemoryKeyStore>, Arc<[String]>) {
    let (store, at) = (MemoryKeyStore::new(), now());
    let texts = (0..count).map(|number| {
        let (key, record) = issuer.mint(typical(number), at).expect("a key");
        store.add(record).expect("a new id");
        key.expose().to_owned()
    });
    let texts = texts.collect();
    (Arc::new(store), texts)
}

fn unknown(count: usize) -> Vec<String> {
    let mint = |number| KeyIssuer::new().mint(typical(number), now()).expect("a key").0.expose().to_owned();
    (0..count).map(mint).collect()
}

fn memory() {
    let (at, issuer) = (now(), KeyIssuer::new());
    let minted: Vec<_> = (0..100_000).map(|number| issuer.mint(typical(number), at).expect("a key")).collect();
    let (keys, records): (Vec<_>, Vec<_>) = minted.into_iter().unzip();
    let count = records.len();
    let store = Arc::new(MemoryKeyStore::new());
    let kept = allocation_counter::measure(|| {
        // A copy: what the record itself takes is counted too.
        records.iter().for_each(|record| store.add(record.clone()).expect("a new id"));
    });
    let keys_of = ApiKeyAuthenticator::new(Arc::clone(&store));
    let used = allocation_counter::measure(|| {
        for key in &keys {
            let request = with("x-api-key", key.expose());
            let outcome = keys_of.authenticate_now(&RequestHead::of(&request), at);
            assert!(matches!(outcome, Now::Known(Outcome::Verified(_))));
        }
    });
    let each = |bytes: i64| bytes / i64::try_from(count).expect("a small number");
    println!(
        "{} bytes for a key in memory, {} more once it was used\n",
        each(kept.bytes_current),
        each(used.bytes_current)
    );
}

/// A map from the hash of the key to a principal, in a middleware, as it is written by hand.
fn by_hand(texts: &[String]) -> axum::Router {
    let hash = |text: &str| -> [u8; 32] { digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("32 bytes") };
    let known: HashMap<[u8; 32], Arc<str>> = texts.iter().map(|text| (hash(text), "billing".into())).collect();
    let known = Arc::new(known);
    router().layer(axum::middleware::from_fn(move |mut request: Request, next: Next| {
        let known = Arc::clone(&known);
        async move {
            let header = request.headers().get("x-api-key").and_then(|value| value.to_str().ok());
            match header.and_then(|text| known.get(&hash(text))).cloned() {
                Some(subject) => {
                    request.extensions_mut().insert(subject);
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
    let billing = Principal::builder(PrincipalKind::Key, "api-keys", "billing", "api_key").build();
    let challenge = Challenge::new("ApiKey", "api").expect("a challenge");
    AuthnLayer::new(authenticate_fn(challenge, move |_, _| Outcome::verified(billing.clone()))).dangerous_plain_http()
}

struct Keys {
    few: (Arc<MemoryKeyStore>, Arc<[String]>),
    many: (Arc<MemoryKeyStore>, Arc<[String]>),
    peppered_few: (Arc<MemoryKeyStore>, Arc<[String]>),
    peppered: (Arc<MemoryKeyStore>, Arc<[String]>),
}

/// A key in its own header, as if it was just read from a socket.
fn request(text: &str) -> Request {
    let mut request = with("x-api-key", text).map(|()| Body::empty());
    request.headers_mut().reserve(4);
    request
}

/// Each of the keys, in random order.
fn each<S>(name: &'static str, app: S, texts: &Arc<[String]>) -> Contender
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let texts = Arc::clone(texts);
    Contender::with_made_requests(name, app, texts.len(), move |index| request(&texts[index]))
}

fn through_axum(keys: &Keys) -> Vec<Contender> {
    let layer = |store: &Arc<MemoryKeyStore>| ApiKeyAuthenticator::new(Arc::clone(store));
    let http = |keys: ApiKeyAuthenticator| AuthnLayer::new(keys).dangerous_plain_http().layer(router());
    let (few, many) = (&keys.few, &keys.many);
    let good = &few.1[0];
    let mut mistyped = good.clone();
    let last = if mistyped.pop() == Some('0') { '1' } else { '0' };
    mistyped.push(last);
    let logged = layer(&few.0).record_uses(UseLog::new(Arc::clone(&few.0)));
    let strangers: Arc<[String]> = unknown(FEW).into();
    vec![
        Contender::new("bare axum router", router(), &base()),
        each("bare axum router, with a key", router(), &few.1),
        each("a principal that is there", ready_made().layer(router()), &few.1),
        Contender::new("one key of 10 000", http(layer(&few.0)), &with("x-api-key", good)),
        each("10 000 keys", http(layer(&few.0)), &few.1),
        each("10 000 keys, uses noted", http(logged), &few.1),
        each("10 000 keys, pepper", http(layer(&keys.peppered_few.0).with_peppers(peppers())), &keys.peppered_few.1),
        each("1 000 000 keys", http(layer(&many.0)), &many.1),
        each("1 000 000 keys, pepper", http(layer(&keys.peppered.0).with_peppers(peppers())), &keys.peppered.1),
        each("by hand, 10 000 keys", by_hand(&few.1), &few.1),
        each("by hand, 1 000 000 keys", by_hand(&many.1), &many.1),
        each("refused: unknown, of 1 000 000", http(layer(&many.0)), &strangers).refused(401),
        Contender::new("refused: wrong checksum", http(layer(&few.0)), &with("x-api-key", &mistyped)).refused(401),
        Contender::new("refused: malformed", http(layer(&few.0)), &with("x-api-key", "pc_v1_noise")).refused(401),
    ]
}

/// Without a router around it.
fn alone(keys: &Keys) {
    let at = now();
    let ask = |keys: ApiKeyAuthenticator, good: bool| {
        move |text: &str| {
            let request = with("x-api-key", text);
            let answer = keys.authenticate_now(&RequestHead::of(&request), at);
            assert_eq!(matches!(black_box(answer), Now::Known(Outcome::Verified(_))), good);
        }
    };
    let layer = |store: &Arc<MemoryKeyStore>| ApiKeyAuthenticator::new(Arc::clone(store));
    let format = ApiKeyFormat::default();
    let (few, many) = (&keys.few, &keys.many);
    let mistyped: Vec<String> = few.1.iter().map(|text| format!("{}0", text.get(..70).expect("a key"))).collect();
    let mistyped: Vec<String> = mistyped.into_iter().filter(|text| format.parse(text).is_none()).collect();
    const FLOOR: &str = "a request with a key, made and dropped";
    let measured = measure(&[
        Timed::by_text(FLOOR, &few.1, |text| drop(black_box(with("x-api-key", text)))),
        Timed::by_text("and SHA-256 of 36 bytes", &few.1, |text| {
            drop(black_box(with("x-api-key", text)));
            black_box(digest(&SHA256, &text.as_bytes()[..36]));
        }),
        Timed::by_text("10 000 keys", &few.1, ask(layer(&few.0), true)),
        Timed::by_text("1 000 000 keys", &many.1, ask(layer(&many.0), true)),
        Timed::by_text(
            "10 000 keys, pepper",
            &keys.peppered_few.1,
            ask(layer(&keys.peppered_few.0).with_peppers(peppers()), true),
        ),
        Timed::by_text("wrong checksum", &mistyped, ask(layer(&few.0), false)),
        Timed::by_text_on_two_threads("10 000 keys on two threads, each", &few.1, ask(layer(&few.0), true)),
    ]);
    measured.print("the authenticator alone", FLOOR);
}

fn main() {
    memory();
    let plain = KeyIssuer::new();
    let peppered = KeyIssuer::new().with_peppers(peppers());
    let keys = Keys {
        few: filled(&plain, FEW),
        many: filled(&plain, MANY),
        peppered_few: filled(&peppered, FEW),
        peppered: filled(&peppered, MANY),
    };
    let contenders = through_axum(&keys);
    contenders.iter().for_each(Contender::warm_up);
    let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
    measure(&timed).print("through axum", "bare axum router, with a key");
    alone(&keys);
    if std::env::args().any(|argument| argument == "ratios") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("api_key");
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
