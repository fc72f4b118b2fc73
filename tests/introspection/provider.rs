//! An introspection endpoint on loopback, and how it is asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use bytes::Bytes;
use http::{HeaderMap, Request};
use portcullis::{
    Instants, Now, Principal, RejectionKind, RequestHead, Secret, Slot,
    authn::{Authenticator, Outcome},
    jwt::introspection::{ClientAuthentication, Introspection, IntrospectionBuilder},
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::support::NOW;

pub const ISSUER: &str = "https://id.example.com";
pub const AUDIENCE: &str = "orders-api";
pub const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

/// What a provider says of a good token, with other members in the place of its own or besides.
pub fn active(changes: &str) -> String {
    let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!(
        r#"{{"active":true,"iss":"{ISSUER}","sub":"alice","aud":"{AUDIENCE}","client_id":"web","token_type":"Bearer",
            "scope":"orders:read orders:write","exp":{},"iat":{},"jti":"t-1","username":"Alice","plan":"paid"}}"#,
        NOW + 3_600,
        NOW - 60,
    ))
    .unwrap();
    let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{changes}}}")).unwrap();
    for (name, value) in changes {
        match value {
            serde_json::Value::Null => drop(members.remove(&name)),
            value => drop(members.insert(name, value)),
        }
    }
    serde_json::Value::from(members).to_string()
}

/// One question as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub headers: HeaderMap,
    pub form: HashMap<String, String>,
}

type Reply = dyn Fn(&Asked) -> Response + Send + Sync;

pub struct Provider {
    pub address: SocketAddr,
    desk: Desk,
    connections: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Desk {
    reply: Arc<Mutex<Arc<Reply>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// As many answers may go out as there are permits.
    gate: Arc<Semaphore>,
}

async fn answer(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let form = reqwest::Url::parse(&format!("http://form/?{}", std::str::from_utf8(&body).unwrap())).unwrap();
    let form = form.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let asked = Asked { headers, form };
    desk.asked.lock().unwrap().push(asked.clone());
    desk.gate.acquire().await.unwrap().forget();
    let reply = Arc::clone(&*desk.reply.lock().unwrap());
    reply(&asked)
}

pub fn json(text: impl Into<String>) -> Response {
    ([("content-type", "application/json")], text.into()).into_response()
}

impl Provider {
    pub async fn start(reply: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let gate = Arc::new(Semaphore::new(1_000_000));
        let desk = Desk { reply: Arc::new(Mutex::new(Arc::new(reply))), asked: Arc::default(), gate };
        let app = axum::Router::new().fallback(answer).with_state(desk.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, desk, connections }
    }

    /// Answers everything with this text.
    pub async fn saying(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::start(move |_| json(text.clone())).await
    }

    /// Tokens that begin with `good` are [good](is_good), the rest is not active.
    pub async fn usual() -> Self {
        Self::start(|asked| match is_good(&asked.form["token"]) {
            true => json(active("")),
            false => json(r#"{"active":false}"#),
        })
        .await
    }

    pub fn now_replies(&self, reply: impl Fn(&Asked) -> Response + Send + Sync + 'static) {
        *self.desk.reply.lock().unwrap() = Arc::new(reply);
    }

    pub fn now_says(&self, text: impl Into<String>) {
        let text = text.into();
        self.now_replies(move |_| json(text.clone()));
    }

    /// Lets no answer out until [`open`](Self::open).
    pub fn hold(&self) {
        self.desk.gate.forget_permits(1_000_000);
    }

    pub fn open(&self) {
        self.desk.gate.add_permits(1_000_000);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.desk.asked.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.desk.asked.lock().unwrap().len()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many questions have come.
    pub async fn called(&self, times: usize) {
        while self.calls() < times {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    pub fn builder(&self) -> IntrospectionBuilder {
        Introspection::builder()
            .issuer(ISSUER)
            .endpoint(format!("http://{}/introspect", self.address))
            .dangerous_http_on_loopback()
            .client(client())
            .audience(AUDIENCE)
    }

    pub fn tokens(&self) -> Introspection {
        self.builder().build().unwrap()
    }
}

pub fn client() -> ClientAuthentication {
    ClientAuthentication::basic(AUDIENCE, &Secret::from("s3cret".to_owned())).unwrap()
}

pub fn request(scheme: &str, token: &str) -> Request<()> {
    Request::get("/orders").header("authorization", format!("{scheme} {token}")).body(()).unwrap()
}

pub fn now(authenticator: &impl Authenticator, token: &str, at: Instants) -> Now<Outcome> {
    authenticator.authenticate_now(&RequestHead::of(&request("Bearer", token)), at)
}

/// As the layer asks: at once, and else with patience.
pub async fn ask(authenticator: &impl Authenticator, request: &Request<()>, at: Instants) -> Outcome {
    let head = RequestHead::of(request);
    match authenticator.authenticate_now(&head, at) {
        Now::Known(outcome) => outcome,
        Now::Wait => authenticator.authenticate(&head, at).await,
    }
}

pub async fn bearer(authenticator: &impl Authenticator, token: &str, at: Instants) -> Outcome {
    ask(authenticator, &request("Bearer", token), at).await
}

pub fn principal(outcome: Outcome) -> Principal {
    match outcome {
        Outcome::Verified(identity) => identity.in_slot(Slot::Subject).unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

/// The status that the outcome leads to, and why.
pub fn status(outcome: &Outcome) -> (u16, String) {
    match outcome {
        Outcome::Verified(_) => (200, String::new()),
        Outcome::Absent => (0, String::new()),
        Outcome::Refused(rejection) | Outcome::RefusedIfNeeded(rejection) => {
            let response = rejection.to_response::<()>();
            let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap());
            match rejection.kind() {
                RejectionKind::InvalidCredential => assert!(challenge.unwrap().contains(r#"error="invalid_token""#)),
                _ => assert_eq!(challenge, None),
            }
            if rejection.kind() == RejectionKind::Unavailable {
                assert!(response.headers().contains_key("retry-after"));
            }
            (response.status().as_u16(), rejection.reason().to_owned())
        }
    }
}

/// Whatever begins so, but for a good token that the suite of authenticators makes longer or shorter.
pub fn is_good(token: &str) -> bool {
    let spoilt = [
        "good-token-of-alice-that-is-longx",
        "good-token-of-alice-that-is-lon",
        "good-with.one-dotx",
        "good-with.one-do",
    ];
    token.starts_with("good") && !spoilt.contains(&token)
}
