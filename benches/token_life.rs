//! What the life of a token costs: asking whether it was revoked, among 100 000 revocations; an opaque token that its issuer was
//! asked about, beside a JWT that was verified.
//!
//! `cargo bench --bench token_life --all-features -- ratios` prints the tables (see `ratio/mod.rs`).

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::hint::black_box;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use portcullis::{
    Clock, Instants, Now, RequestHead, Secret, StoreError, SystemClock,
    authn::{Authenticator, Outcome},
    http_client::{FetchLimits, HttpFetch},
    jwt::introspection::{ClientAuthentication, Introspection, by_shape},
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
    for (title, tokens) in
        [("10 000 tokens seen before, random order", &tokens[..]), ("one token seen before", &tokens[..1])]
    {
        let seen = |name, jwt: &portcullis::jwt::JwtAuthenticator| {
            let jwt = jwt.clone();
            Timed::by_text(name, tokens, move |token| drop(black_box(jwt.verify(token, at).expect("a good token"))))
        };
        measure(&[seen("without revocations", &plain), seen("100 000 revocations", &asking)])
            .print(title, "without revocations");
    }
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

/// Says of every token that it is good.
#[derive(Debug)]
struct Yes(String);

#[async_trait]
impl HttpFetch for Yes {
    async fn fetch(&self, _: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        Ok(Response::new(Bytes::from(self.0.clone())))
    }
}

fn opaque() -> Introspection {
    let now = now().unix_seconds();
    let answer = format!(
        r#"{{"active":true,"iss":"{ISSUER}","sub":"alice","aud":"orders-api","client_id":"web","token_type":"Bearer","scope":"orders:read","exp":{},"iat":{now},"jti":"t-1"}}"#,
        now + 3_600
    );
    let client = ClientAuthentication::basic("orders-api", &Secret::from("s3cret".to_owned())).expect("a client");
    Introspection::builder()
        .issuer(ISSUER)
        .endpoint("https://id.example.com/introspect")
        .client(client)
        .audience("orders-api")
        .http(Yes(answer))
        .build()
        .expect("an authenticator")
}

/// From the header field to the identity, for tokens that are remembered.
fn side_by_side() {
    let provider = Provider::es256();
    let requests = |tokens: Vec<String>| -> Vec<Request<()>> {
        let request = |token| Request::get("/orders").header("authorization", format!("Bearer {token}"));
        tokens.iter().map(|token| request(token).body(()).expect("a request")).collect()
    };
    let jwts = requests((0..LIVE).map(|number| provider.token_of(&format!("user-{number}"), 3_600)).collect());
    let opaques = requests((0..LIVE).map(|number| format!("{number:0>43}")).collect());
    let (jwt, introspection) = (provider.authenticator(), opaque());
    let both = by_shape(provider.authenticator(), opaque()).expect("an authenticator");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let at = now();
    let fill = |tokens: &dyn Authenticator, requests: &[Request<()>]| {
        for request in requests {
            let outcome = runtime.block_on(tokens.authenticate(&RequestHead::of(request), at));
            assert!(matches!(outcome, Outcome::Verified(_)), "{outcome:?}");
        }
    };
    for (tokens, requests) in
        [(&jwt as &dyn Authenticator, &jwts), (&introspection, &opaques), (&both, &jwts), (&both, &opaques)]
    {
        fill(tokens, requests);
    }
    let numbers: Vec<String> = (0..LIVE).map(|number| number.to_string()).collect();
    fn seen<'a>(
        name: &'static str,
        numbers: &'a [String],
        tokens: &'a dyn Authenticator,
        requests: &'a [Request<()>],
        at: Instants,
    ) -> Timed<'a> {
        Timed::by_text(name, numbers, move |number| {
            let request = &requests[number.parse::<usize>().expect("a number")];
            let outcome = tokens.authenticate_now(&RequestHead::of(request), at);
            assert!(matches!(black_box(outcome), Now::Known(Outcome::Verified(_))));
        })
    }
    measure(&[
        seen("JWT cache hit", &numbers, &jwt, &jwts, at),
        seen("introspection cache hit", &numbers, &introspection, &opaques, at),
        seen("by shape, JWT", &numbers, &both, &jwts, at),
        seen("by shape, opaque", &numbers, &both, &opaques, at),
    ])
    .print("10 000 tokens seen before, from the header to the identity", "JWT cache hit");
}

fn main() {
    side_by_side();
    let store = full();
    remembered(&store);
    looked_up(&store);
}
