//! A gRPC service and a page of HTTP on one port, under one stack.
//!
//! ```sh
//! cargo run --example grpc --features tonic
//! ```
//!
//! It prints `export` lines with keys of a clerk and a manager. Paste those, and two shorthands: one sends an empty message, the
//! other none, since a refusal does not wait for it (and some versions of curl lose an answer that comes while they send).
//!
//! ```sh
//! call() { printf '\0\0\0\0\0' | curl -i --http2-prior-knowledge -H content-type:application/grpc --data-binary @- "$@"; }
//! ask() { curl -i --http2-prior-knowledge -X POST -H content-type:application/grpc "$@"; }
//! curl -i localhost:3000/health                                            # 200
//! ask localhost:3000/orders.Orders/Count                                   # grpc-status 16
//! call localhost:3000/orders.Orders/Count -H "x-api-key: $CLERK"           # grpc-status 0
//! ask localhost:3000/orders.Orders/Purge -H "x-api-key: $CLERK"            # grpc-status 7
//! call localhost:3000/orders.Orders/Purge -H "x-api-key: $MANAGER"         # grpc-status 0
//! ask localhost:3000/orders.Orders/Other -H "x-api-key: $MANAGER"          # grpc-status 7
//! ask localhost:3000/orders.Orders/Count -H "x-api-key: $CLERK"            # grpc-status 8
//! ```

use std::{convert::Infallible, error::Error, pin::Pin, sync::Arc, task};

use bytes::{Buf, BufMut, Bytes};
use portcullis::{
    Clock, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    guard::{authenticated, public, require, role},
    rate_limit::Quota,
    stack::Stack,
    tls::TlsLayer,
    tonic::RequestExt,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService},
    service::Routes,
};
use tower::{Service, service_fn};

async fn count(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    Ok(Response::new(format!("three orders of {}\n", request.principal()?.subject()).into()))
}

async fn purge(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    Ok(Response::new(format!("purged by {}\n", request.principal()?.subject()).into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, now) = (Arc::new(MemoryKeyStore::new()), SystemClock::new().now());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    for (name, role) in [("CLERK", "clerk"), ("MANAGER", "manager")] {
        let (key, _) = keys.issuer().issue(&store, NewApiKey::for_subject(name).role(role), now).await?;
        println!("export {name}={}", key.expose());
    }

    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(keys)
        .limit_principals(Quota::per_hour(2))
        .route("GET /health", public())
        .route("POST /orders.Orders/Count", require(authenticated()))
        .route("POST /orders.Orders/Purge", require(role("manager")?))
        .build()?;
    let app = Routes::new(Orders).into_axum_router().route("/health", axum::routing::get(async || "ok\n"));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.protect(app)).await?)
}

// From here on, what tonic's code generator would write from a .proto file.

#[derive(Clone)]
struct Orders;

impl NamedService for Orders {
    const NAME: &'static str = "orders.Orders";
}

impl Service<http::Request<Body>> for Orders {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/orders.Orders/Count" => Grpc::new(Raw).unary(service_fn(count), request).await,
                "/orders.Orders/Purge" => Grpc::new(Raw).unary(service_fn(purge), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

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

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
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
