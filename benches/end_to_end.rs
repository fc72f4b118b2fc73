//! Requests a second over loopback: an axum server behind the whole stack beside the same server without it.
//!
//! `cargo bench --bench end_to_end --all-features` prints the table. Server and client share the machine, so that a request costs
//! several microseconds on either side and the ratio is kinder to what stands in between than those of the other benches.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

#[path = "ratio/orders.rs"]
mod orders;
mod ratio;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use axum::Router;
use orders::{Discard, policy};
use portcullis::{
    audit::AuditLayer, authn::AuthnLayer, evidence::TrustedProxies, guard::require, rate_limit::Quota, stack::Stack,
    tls::TlsLayer,
};
use ratio::{App, provider::Provider, router};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::Layer;

/// Open connections of the client, each with one request at a time.
const CONNECTIONS: usize = 32;
/// How long a contender is asked in a round.
const SLICE: Duration = Duration::from_millis(400);
const ROUNDS: usize = 15;

/// Behind a proxy on this machine, which says that the client came over HTTPS.
fn stack(provider: &Provider) -> Stack {
    let (policy, list) = policy();
    let quota = || Quota::per_second(1_000_000_000);
    Stack::builder()
        .proxies(TrustedProxies::x_forwarded(["127.0.0.1"]).expect("an address"))
        .tls(TlsLayer::require())
        .audit(AuditLayer::new(Discard))
        .limit_clients(quota())
        .authenticate(provider.authenticator())
        .limit_principals(quota())
        .policy(policy)
        .route("GET /orders", require(list))
        .build()
        .expect("a stack")
}

/// jsonwebtoken in a middleware, as it is written by hand.
fn by_hand(provider: &Provider) -> Router {
    let mut validation = jsonwebtoken::Validation::new(provider.peer_algorithm());
    validation.set_issuer(&["https://id.example.com"]);
    validation.set_audience(&["orders-api"]);
    let shared = Arc::new((provider.decoding.clone(), validation));
    router().layer(axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
        let shared = Arc::clone(&shared);
        async move {
            let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let token = header.and_then(|value| value.strip_prefix("Bearer ")).expect("a token");
            jsonwebtoken::decode::<serde_json::Value>(token, &shared.0, &shared.1).expect("a good token");
            next.run(request).await
        }
    }))
}

/// One that serves on a thread of its own, and the client's connections to it.
struct Served {
    name: &'static str,
    connections: Vec<Connection>,
    rates: Vec<f64>,
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Asks until the time is over. How often it was answered.
    async fn ask(mut self, request: Arc<[u8]>, until: Instant) -> (Self, u64) {
        let mut answers = 0;
        while now() < until {
            self.stream.write_all(&request).await.expect("the server reads");
            self.answer.clear();
            while !is_whole(&self.answer) {
                assert_ne!(self.stream.read_buf(&mut self.answer).await.expect("the server answers"), 0, "it hung up");
            }
            assert!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
            answers += 1;
        }
        (self, answers)
    }
}

/// The body is always the same.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n\r\norders")
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
fn now() -> Instant {
    Instant::now()
}

impl Served {
    fn new(client: &Runtime, name: &'static str, app: App) -> Self {
        let (sender, address) = mpsc::channel();
        // Named, so that a profiler tells them apart.
        let thread = std::thread::Builder::new().name(name.to_owned());
        let serve = move || {
            let server = Builder::new_current_thread().enable_all().build().expect("a runtime");
            server.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                sender.send(listener.local_addr().expect("an address")).expect("somebody waits");
                portcullis::axum::serve(listener, app).await.expect("it serves");
            });
        };
        thread.spawn(serve).expect("a thread");
        let address = address.recv().expect("the server starts");
        let connect = async || {
            let stream = TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("an option");
            Connection { stream, answer: Vec::with_capacity(1024) }
        };
        let connections = client.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                connections.push(connect().await);
            }
            connections
        });
        Self { name, connections, rates: Vec::new() }
    }

    /// Requests a second over one slice.
    fn slice(&mut self, client: &Runtime, request: &Arc<[u8]>) -> f64 {
        let connections = std::mem::take(&mut self.connections);
        let (connections, answers, taken) = client.block_on(async {
            let start = now();
            let mut asking = JoinSet::new();
            for connection in connections {
                asking.spawn(connection.ask(Arc::clone(request), start + SLICE));
            }
            let answers = asking.join_all().await;
            let taken = start.elapsed().as_secs_f64();
            let total: u64 = answers.iter().map(|(_, answers)| answers).sum();
            (answers.into_iter().map(|(connection, _)| connection).collect(), total, taken)
        });
        self.connections = connections;
        answers as f64 / taken
    }
}

/// The value that a part of them is below.
fn part(values: &[f64], of_ten: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * of_ten / 10]
}

fn main() {
    let provider = Provider::es256();
    let token = provider.token(3_600);
    let request: Arc<[u8]> = format!(
        "GET /orders HTTP/1.1\r\nhost: api.example.com\r\nauthorization: Bearer {token}\r\n\
         x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\n\r\n"
    )
    .into_bytes()
    .into();
    let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let token_alone = AuthnLayer::new(provider.authenticator()).dangerous_plain_http();
    let mut contenders = [
        Served::new(&client, "bare axum router", App::new(router())),
        Served::new(&client, "bare axum router again (noise)", App::new(router())),
        Served::new(&client, "JWT alone, ES256, seen before", App::new(token_alone.layer(router()))),
        Served::new(
            &client,
            "stack: all stages by protect, the same token",
            App::new(stack(&provider).protect(router())),
        ),
        Served::new(&client, "from_fn and jsonwebtoken, ES256", App::new(by_hand(&provider))),
    ];
    for contender in &mut contenders {
        contender.slice(&client, &request);
    }
    for round in 0..ROUNDS {
        for offset in 0..contenders.len() {
            let index = (round + offset) % contenders.len();
            let rate = contenders[index].slice(&client, &request);
            contenders[index].rates.push(rate);
        }
    }
    println!("{:<42} {:>12} {:>7} {:>7}", "requests a second over loopback", "median", "ratio", "p10");
    let bare = contenders[0].rates.clone();
    for Served { name, rates, .. } in &contenders {
        let ratios: Vec<f64> = rates.iter().zip(&bare).map(|(rate, bare)| rate / bare).collect();
        println!("{name:<42} {:>12.0} {:>7.3} {:>7.3}", part(rates, 5), part(&ratios, 5), part(&ratios, 1));
    }
}
