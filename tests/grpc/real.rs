//! Whole services: tonic's server and axum's, called by tonic and by grpcio.

use std::{net::SocketAddr, path::Path, pin::Pin, process::Stdio, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response, uri::PathAndQuery};
use portcullis::{
    Challenge, Ended, Instants, Now, Principal, PrincipalKind, RejectionKind, Voucher,
    audit::{AuditLayer, AuditOutcome},
    authn::{Outcome, authenticate_fn},
    guard::{authenticated, policy, public, require},
    policy::{AccessQuery, PolicyBackend, Rbac, Resource, Verdict},
    rate_limit::{Quota, RateLimitLayer},
    stack::{Stack, StackBuilder},
    testing::Captured,
    tonic::RequestExt,
};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Code, Status, Streaming,
    body::Body,
    client::Grpc as Client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    server::{Grpc, NamedService},
    service::Routes,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_types::StatusExt;
use tower::{Service, service_fn};

use crate::support::test_scheme;

const POLICY: &str = "version = '1'\npermissions = ['orders:read', 'orders:cancel', 'orders:cancel-any']\n[roles.clerk]\n\
    grants = ['orders:read', 'orders:cancel']\n[roles.manager]\ngrants = ['*']\n";

/// Messages as they are: no schema, no generated code.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

fn caller<T>(request: &tonic::Request<T>) -> Result<String, Status> {
    Ok(request.principal()?.subject().to_owned())
}

async fn get(request: tonic::Request<Bytes>) -> Result<tonic::Response<Bytes>, Status> {
    let name = caller(&request)?;
    let order = String::from_utf8_lossy(request.get_ref()).into_owned();
    Ok(tonic::Response::new(format!("{order} of {name}").into()))
}

/// The policy is asked about the thing in the message, which no layer has read.
async fn cancel(request: tonic::Request<Bytes>) -> Result<tonic::Response<Bytes>, Status> {
    let order = String::from_utf8_lossy(request.get_ref()).into_owned();
    let action = if order == "foreign" { "orders:cancel-any" } else { "orders:cancel" };
    request.authorizer()?.check(action, &Resource::new("order", &order)).await?;
    Ok(tonic::Response::new("cancelled".into()))
}

async fn watch(request: tonic::Request<Bytes>) -> Result<tonic::Response<Answers>, Status> {
    let name = caller(&request)?;
    let answers: Vec<_> = (1..=3).map(|number| Ok(Bytes::from(format!("{number} for {name}")))).collect();
    Ok(tonic::Response::new(Box::pin(tokio_stream::iter(answers))))
}

async fn import(request: tonic::Request<Streaming<Bytes>>) -> Result<tonic::Response<Bytes>, Status> {
    let (name, mut orders, mut count) = (caller(&request)?, request.into_inner(), 0);
    while let Some(order) = orders.next().await {
        order?;
        count += 1;
    }
    Ok(tonic::Response::new(format!("{count} from {name}").into()))
}

async fn chat(request: tonic::Request<Streaming<Bytes>>) -> Result<tonic::Response<Answers>, Status> {
    let name = caller(&request)?;
    let echo = request
        .into_inner()
        .map(move |line| line.map(|line| Bytes::from([b"> ", &line[..], name.as_bytes()].concat())));
    Ok(tonic::Response::new(Box::pin(echo)))
}

/// What a code generator would write.
#[derive(Clone, Copy)]
struct Orders;

impl NamedService for Orders {
    const NAME: &'static str = "orders.Orders";
}

impl Service<Request<Body>> for Orders {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/orders.Orders/Get" => grpc.unary(service_fn(get), request).await,
                "/orders.Orders/Cancel" => grpc.unary(service_fn(cancel), request).await,
                "/orders.Orders/Watch" => grpc.server_streaming(service_fn(watch), request).await,
                "/orders.Orders/Import" => grpc.client_streaming(service_fn(import), request).await,
                "/orders.Orders/Chat" => grpc.streaming(service_fn(chat), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A policy that cannot decide.
#[derive(Debug)]
struct Undecided;

#[async_trait::async_trait]
impl PolicyBackend for Undecided {
    fn name(&self) -> &'static str {
        "undecided"
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        Verdict::cannot_decide("for a test")
    }
}

/// A rule for each method; `Missing` has none, and `Broken` asks a policy that cannot decide.
fn stack() -> StackBuilder {
    let rbac = Rbac::from_toml(POLICY).unwrap();
    let (read, cancel) = (rbac.permission("orders:read").unwrap(), rbac.permission("orders:cancel").unwrap());
    let any = rbac.permission("orders:cancel-any").unwrap();
    let undecided = require(policy("orders:guess").unwrap()).with_policy(Undecided);
    // A second call of `limited` is over the quota; nobody else comes near it.
    let quota = Quota::per_hour(100).named("calls");
    Stack::builder()
        .dangerous_plain_http()
        .limit_clients(Quota::per_minute(1_000))
        .authenticate(test_scheme())
        .limit(RateLimitLayer::per_principal(quota).unwrap().with_cost_by(|request| match request.principal() {
            Some(principal) if principal.subject() == "limited" => 60,
            _ => 1,
        }))
        .policy(rbac)
        .route("GET /health", public())
        .route("POST /orders.Orders/Get", require(read.clone()))
        .route("POST /orders.Orders/Cancel", require(cancel))
        .route("POST /orders.Orders/Watch", require(read.clone()))
        .route("POST /orders.Orders/Import", require(read.clone()))
        .route("POST /orders.Orders/Chat", require(read))
        .route("POST /orders.Orders/Purge", require(any))
        .route("POST /orders.Orders/Broken", undecided)
}

/// tonic's own server, with the stack as its layer.
async fn tonic_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(stack().build().unwrap()).add_service(Orders);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

/// HTTP and gRPC on one port, behind one stack.
async fn mixed_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Routes::new(Orders).into_axum_router().route("/health", axum::routing::get(async || "ok"));
    let app = stack().build().unwrap().protect(app);
    tokio::spawn(async move { portcullis::axum::serve(listener, app).await });
    address
}

struct Calls(Client<Channel>);

impl Calls {
    fn to(server: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
        Self(Client::new(endpoint.connect_timeout(Duration::from_secs(60)).connect_lazy()))
    }

    fn request<T>(subject: Option<&str>, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(subject) = subject {
            request.metadata_mut().insert("authorization", format!("Test {subject}").parse().unwrap());
        }
        request
    }

    fn path(method: &str) -> PathAndQuery {
        format!("/orders.Orders/{method}").parse().unwrap()
    }

    async fn unary(&mut self, method: &str, subject: Option<&str>, message: &'static str) -> Result<String, Status> {
        self.0.ready().await.unwrap();
        let answer = self.0.unary(Self::request(subject, message.into()), Self::path(method), Raw).await?;
        Ok(String::from_utf8(answer.into_inner().to_vec()).unwrap())
    }

    async fn watch(&mut self, subject: Option<&str>) -> Result<Vec<String>, Status> {
        self.0.ready().await.unwrap();
        let request = Self::request(subject, Bytes::from("all"));
        texts(self.0.server_streaming(request, Self::path("Watch"), Raw).await?.into_inner()).await
    }

    async fn import(&mut self, subject: Option<&str>, messages: &[&'static str]) -> Result<String, Status> {
        self.0.ready().await.unwrap();
        let messages: Vec<Bytes> = messages.iter().map(|message| Bytes::from(*message)).collect();
        let request = Self::request(subject, tokio_stream::iter(messages));
        let answer = self.0.client_streaming(request, Self::path("Import"), Raw).await?;
        Ok(String::from_utf8(answer.into_inner().to_vec()).unwrap())
    }

    async fn chat(&mut self, subject: Option<&str>, messages: &[&'static str]) -> Result<Vec<String>, Status> {
        self.0.ready().await.unwrap();
        let messages: Vec<Bytes> = messages.iter().map(|message| Bytes::from(*message)).collect();
        let request = Self::request(subject, tokio_stream::iter(messages));
        texts(self.0.streaming(request, Self::path("Chat"), Raw).await?.into_inner()).await
    }
}

async fn texts(mut answers: Streaming<Bytes>) -> Result<Vec<String>, Status> {
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await {
        all.push(String::from_utf8(answer?.to_vec()).unwrap());
    }
    Ok(all)
}

/// A refusal tells its code in words for programs, and nothing of the reason.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> MetadataMap {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "portcullis"));
    status.metadata().clone()
}

async fn converse(server: SocketAddr) {
    let mut calls = Calls::to(server);
    let alice = Some("alice");
    assert_eq!(calls.unary("Get", alice, "order 1").await.unwrap(), "order 1 of alice");
    assert_eq!(calls.watch(alice).await.unwrap(), ["1 for alice", "2 for alice", "3 for alice"]);
    assert_eq!(calls.import(alice, &["a", "b"]).await.unwrap(), "2 from alice");
    assert_eq!(calls.chat(alice, &["hi ", "ho "]).await.unwrap(), ["> hi alice", "> ho alice"]);
    // What the handler asks of the policy: the same status as a layer's refusal.
    assert_eq!(calls.unary("Cancel", alice, "own").await.unwrap(), "cancelled");
    refused(calls.unary("Cancel", alice, "foreign").await, Code::PermissionDenied, "FORBIDDEN");
    assert_eq!(calls.unary("Cancel", Some("boss"), "foreign").await.unwrap(), "cancelled");

    // Nobody, and somebody who is not who they say: on every kind of call, before a message is read.
    for subject in [None, Some("bad")] {
        let reason = if subject.is_none() { "UNAUTHENTICATED" } else { "INVALID_CREDENTIAL" };
        let metadata = refused(calls.unary("Get", subject, "").await, Code::Unauthenticated, reason);
        assert_eq!(metadata.get("www-authenticate").unwrap(), "Test realm=\"tests\"");
        refused(calls.watch(subject).await, Code::Unauthenticated, reason);
        refused(calls.import(subject, &["a"]).await, Code::Unauthenticated, reason);
        refused(calls.chat(subject, &["a"]).await, Code::Unauthenticated, reason);
    }
    // A rule for each method: what has none, and what is another service's, is refused.
    refused(calls.unary("Purge", alice, "").await, Code::PermissionDenied, "FORBIDDEN");
    refused(calls.unary("Missing", Some("boss"), "").await, Code::PermissionDenied, "FORBIDDEN");
    refused(calls.unary("get", Some("boss"), "").await, Code::PermissionDenied, "FORBIDDEN");
    // A method that passes its rule and that the service does not have is tonic's own affair.
    assert_eq!(calls.unary("Purge", Some("boss"), "").await.unwrap_err().code(), Code::Unimplemented);
    refused(calls.unary("Broken", alice, "").await, Code::Unavailable, "UNAVAILABLE");

    let limited = Some("limited");
    assert_eq!(calls.unary("Get", limited, "1").await.unwrap(), "1 of limited");
    let status = calls.watch(limited).await.unwrap_err();
    assert!(status.get_details_retry_info().and_then(|info| info.retry_delay).is_some_and(|delay| !delay.is_zero()));
    let metadata = refused(Err::<(), _>(status), Code::ResourceExhausted, "RATE_LIMITED");
    assert!(metadata.contains_key("grpc-retry-pushback-ms") && metadata.contains_key("ratelimit"));
}

#[tokio::test]
async fn a_tonic_server_under_a_stack() {
    converse(tonic_server().await).await;
}

#[tokio::test]
async fn http_and_grpc_on_one_port() {
    let server = mixed_server().await;
    converse(server).await;
    // The client wants a provider, though it speaks plain HTTP here.
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let health = http.get(format!("http://{server}/health")).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.text().await.unwrap()), (200, "ok".to_owned()));
    // The path of a method, asked for by another client than one of gRPC, is refused as HTTP is.
    let denied = http.post(format!("http://{server}/orders.Orders/Get")).send().await.unwrap();
    assert_eq!(
        (denied.status().as_u16(), &denied.headers()["content-type"]),
        (401, &"application/problem+json".parse().unwrap())
    );
    let denied = http.get(format!("http://{server}/orders.Orders/Get")).send().await.unwrap();
    assert_eq!(denied.status().as_u16(), 401);
}

/// The record tells of a handler's refusal as of a layer's, with the reason that the client does not see.
#[tokio::test]
async fn a_handler_s_refusal_is_recorded_as_one() {
    let captured = Captured::new();
    let stack = stack().audit(AuditLayer::new(captured.clone())).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().layer(stack).add_service(Orders).serve_with_incoming(TcpIncoming::from(listener)));
    let mut calls = Calls::to(address);

    assert_eq!(calls.unary("Cancel", Some("alice"), "own").await.unwrap(), "cancelled");
    captured.assert_allowed();
    let status = calls.unary("Cancel", Some("alice"), "foreign").await.unwrap_err();
    let record = captured.one();
    assert_eq!((record.outcome(), record.rejection()), (AuditOutcome::Denied, Some(RejectionKind::Forbidden)));
    let reason = record.rejection_reason().unwrap().to_owned();
    assert!(!format!("{status:?}").contains(&reason), "{reason} in {status:?}");
    let made = Status::from(portcullis::Rejection::new(RejectionKind::Forbidden, reason.clone()));
    assert!(!format!("{made} {made:?}").contains(&reason), "nor where a handler writes a status into another: {made}");
    // A status of the handler's own is an answer.
    assert_eq!(calls.unary("Purge", Some("boss"), "").await.unwrap_err().code(), Code::Unimplemented);
    captured.assert_allowed();
}

/// A handler that asks for the principal where no layer ran.
#[tokio::test]
async fn without_a_stack_no_principal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(Orders).serve_with_incoming(TcpIncoming::from(listener)));
    let mut calls = Calls::to(address);
    refused(calls.unary("Get", Some("alice"), "").await, Code::Internal, "MISCONFIGURED");
    refused(calls.unary("Cancel", Some("alice"), "").await, Code::Internal, "MISCONFIGURED");
}

#[tokio::test]
#[ignore = "needs the Python packages that tests/run installs"]
async fn grpcio_reads_the_same() {
    for server in [tonic_server().await, mixed_server().await] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut python = tokio::process::Command::new(root.join("target/interop/python/bin/python"));
        python.arg(root.join("tests/interop/python/grpc_calls.py")).arg(server.to_string());
        python.env("no_proxy", "*").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(120), python.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Vec<serde_json::Value> =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = [
            ("unary", "OK", "", "order 1 of alice"),
            ("server streaming", "OK", "", "1 for alice,2 for alice,3 for alice"),
            ("client streaming", "OK", "", "2 from alice"),
            ("both streaming", "OK", "", "> hi alice,> ho alice"),
            ("anonymous", "UNAUTHENTICATED", "UNAUTHENTICATED", "www-authenticate"),
            ("anonymous stream", "UNAUTHENTICATED", "UNAUTHENTICATED", "www-authenticate"),
            ("anonymous import", "UNAUTHENTICATED", "UNAUTHENTICATED", "www-authenticate"),
            ("bad", "UNAUTHENTICATED", "INVALID_CREDENTIAL", "www-authenticate"),
            ("not allowed", "PERMISSION_DENIED", "FORBIDDEN", ""),
            ("no rule", "PERMISSION_DENIED", "FORBIDDEN", ""),
            ("not allowed by the handler", "PERMISSION_DENIED", "FORBIDDEN", ""),
            ("undecided", "UNAVAILABLE", "UNAVAILABLE", ""),
            ("over the quota", "RESOURCE_EXHAUSTED", "RATE_LIMITED", "retry"),
        ];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, (name, code, reason, rest)) in told.iter().zip(expected) {
            let read = |field: &str| told[field].as_str().unwrap();
            assert_eq!((read("name"), read("code"), read("reason"), read("rest")), (name, code, reason, rest));
            // Trailers-Only: grpcio tells no head of its own.
            assert!(code == "OK" || told["head"].as_array().unwrap().is_empty(), "{told}");
        }
    }
}

/// Vouches until it is told otherwise.
#[derive(Debug, Default)]
struct Switch(std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl Voucher for Switch {
    fn vouches_now(&self, _: &Principal, _: Instants) -> Now<Result<(), Ended>> {
        let off = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Now::Known(if off { Err(Ended::Revoked) } else { Ok(()) })
    }

    async fn vouches(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
        match self.vouches_now(principal, at) {
            Now::Known(answer) => answer,
            Now::Wait => Err(Ended::Unknown),
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_credential() {
    let switch = std::sync::Arc::new(Switch::default());
    let vouching = std::sync::Arc::clone(&switch);
    let devices = authenticate_fn(Challenge::new("Device", "factory").unwrap(), move |_, _| {
        let device = Principal::builder(PrincipalKind::Service, "factory", "d1", "device");
        Outcome::verified(device.vouched_by(std::sync::Arc::<Switch>::clone(&vouching)).build())
    });
    let stack = Stack::builder().dangerous_plain_http().authenticate(devices);
    let stack = stack.route("POST /orders.Orders/Chat", require(authenticated())).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().layer(stack).add_service(Orders).serve_with_incoming(TcpIncoming::from(listener)));

    let mut calls = Calls::to(address);
    calls.0.ready().await.unwrap();
    let unending = tokio_stream::iter([Bytes::from("a"), Bytes::from("b")]).chain(tokio_stream::pending());
    let request = Calls::request(None, unending);
    let mut answers = calls.0.streaming(request, Calls::path("Chat"), Raw).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap(), "> ad1");
    assert_eq!(answers.next().await.unwrap().unwrap(), "> bd1");
    switch.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(60), answers.next()).await.unwrap();
    let status = ended.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "The credential is not accepted."));
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "INVALID_CREDENTIAL");
    assert!(answers.next().await.is_none());
}
