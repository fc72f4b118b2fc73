//! A service behind nginx, which ends TLS: who is calling, and over what, is what nginx says, and nobody else.
//!
//! nginx takes `nginx.conf` of this folder and a certificate beside it:
//!
//! ```sh
//! export TLS=$(mktemp -d) && cp examples/behind_nginx/nginx.conf $TLS
//! openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout $TLS/key.pem -out $TLS/certificate.pem
//! nginx -p $TLS -c nginx.conf -e stderr -g 'daemon off;' &
//! cargo run --example behind_nginx
//! ```
//!
//! It prints an `export` line with a key. Paste that, then:
//!
//! ```sh
//! curl -i --cacert $TLS/certificate.pem https://localhost:8443/address                          # 200
//! curl -i --cacert $TLS/certificate.pem https://localhost:8443/orders                           # 401
//! curl -i --cacert $TLS/certificate.pem https://localhost:8443/orders -H "X-API-Key: $KEY"      # 200
//! curl -i --cacert $TLS/certificate.pem https://localhost:8443/address -H "X-Forwarded-For: 203.0.113.7" # 200
//! curl -i http://localhost:8080/orders -H "X-API-Key: $KEY"                                     # 403
//! curl -i http://localhost:8080/orders -H "X-API-Key: $KEY" -H "X-Forwarded-Proto: https"       # 403
//! curl -i http://localhost:3000/orders -H "X-API-Key: $KEY"                                     # 403
//! ```
//!
//! The address that the fourth one makes up is not believed: the first line of the answer is the same as for the first. The last one
//! goes around nginx, and says nothing of HTTPS. On this machine whoever connects from 127.0.0.1 could say so in nginx's place: a
//! service has an address that only its proxy reaches, and names the proxy's own.

use std::{error::Error, sync::Arc};

use axum::{Router, extract::Request, routing::get};
use portcullis::{
    Clock, Principal, SecurityContext, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    evidence::TrustedProxies,
    guard::{authenticated, public, require},
    rate_limit::Quota,
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

/// What limits and audit records go by as well.
async fn address(request: Request) -> String {
    let client = SecurityContext::of(request.extensions()).and_then(SecurityContext::client);
    let address = client.and_then(|client| client.address());
    address.map_or_else(|| "unknown\n".to_owned(), |address| format!("{address}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, now) = (Arc::new(MemoryKeyStore::new()), SystemClock::new().now());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let (key, _) = keys.issuer().issue(&store, NewApiKey::for_subject("billing"), now).await?;
    println!("export KEY={}", key.expose());

    let app = Router::new()
        .route("/address", get(address))
        .route("/orders", get(async |who: Principal| format!("orders for {}\n", who.subject())));
    let stack = Stack::builder()
        .proxies(TrustedProxies::x_forwarded(["127.0.0.1"])?) // where nginx connects from; the family that it writes
        .tls(TlsLayer::require()) // between client and nginx
        .limit_clients(Quota::per_second(100)) // of the client's address, not of nginx's
        .authenticate(keys)
        .route("GET /address", public())
        .route("GET /orders", require(authenticated()))
        .build()?;

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.protect(app)).await?)
}
