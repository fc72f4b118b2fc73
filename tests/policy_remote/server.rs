//! A server of a test's own that speaks what it is told to, and people who ask.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use portcullis::{
    Instants, Principal, PrincipalBuilder, PrincipalKind, Secret,
    policy::{AccessQuery, DecisionPoint, PolicyBackend, Resource, Verdict},
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::NOW;

pub const ISSUER: &str = "https://id.example.com";

pub fn at() -> Instants {
    Instants::new(NOW * 1_000_000_000 + 7, 0)
}

pub fn person(subject: &str) -> PrincipalBuilder {
    Principal::builder(PrincipalKind::User, ISSUER, subject, "jwt")
}

pub fn order() -> Resource {
    Resource::new("order", "42").owned_by(ISSUER, "alice").in_tenant("acme").with("status", "open")
}

/// Whether alice, a clerk, may read an order.
pub async fn reads(policy: &dyn PolicyBackend) -> Verdict {
    let (alice, order) = (person("alice").roles(["clerk"]).build(), order());
    policy.decide(&AccessQuery::new(&alice, "orders:read", at()).on(&order)).await
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

type Reply = dyn Fn(&Asked) -> Response + Send + Sync;

pub struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Desk {
    reply: Arc<Reply>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn answer(State(desk): State<Desk>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let asked = Asked { path: uri.to_string(), headers, body: serde_json::from_slice(&body).unwrap() };
    desk.asked.lock().unwrap().push(asked.clone());
    (desk.reply)(&asked)
}

impl Server {
    pub async fn start(reply: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        let (asked, connections) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counted = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let desk = Desk { reply: Arc::new(reply), asked: Arc::clone(&asked) };
        let app = axum::Router::new().fallback(answer).with_state(desk);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, asked, connections }
    }

    /// Answers everything with this text.
    pub async fn saying(text: &'static str) -> Self {
        Self::start(move |_| ([("content-type", "application/json")], text).into_response()).await
    }

    pub fn point(&self) -> DecisionPoint {
        DecisionPoint::at(format!("http://{}", self.address)).dangerous_http_on_loopback()
    }

    pub fn with_token(&self) -> DecisionPoint {
        self.point().bearer(Secret::from("t0ken".to_owned()))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
