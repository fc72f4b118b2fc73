//! Policies in Cedar, checked against a schema at start.
//!
//! ```sh
//! cargo run --example cedar --features cedar
//! ```
//!
//! It prints `export` lines with keys of a clerk and of a trainee. Paste those, then:
//!
//! ```sh
//! curl -i localhost:3000/orders/1                                      # 401
//! curl -i localhost:3000/orders/1 -H "X-API-Key: $CLERK"               # 200
//! curl -i localhost:3000/orders/1 -H "X-API-Key: $TRAINEE"             # 403
//! curl -i -X DELETE localhost:3000/orders/1 -H "X-API-Key: $CLERK"     # 200
//! curl -i -X DELETE localhost:3000/orders/2 -H "X-API-Key: $CLERK"     # 403
//! ```
//!
//! Order 1 is open and may be cancelled, order 2 was shipped: that is known to the handler, which asks the policy again.

use std::{error::Error, sync::Arc};

use axum::{Router, extract::Path, routing::get};
use portcullis::{
    Clock, Rejection, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    guard::{Authorizer, authenticated, from_path, policy, require},
    policy::{Cedar, Resource},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

const SCHEMA: &str = r#"
    entity Role;
    entity Key in [Role];
    entity Order { status?: String };
    action "orders:read", "orders:cancel" appliesTo { principal: Key, resource: Order };
"#;

const POLICIES: &str = r#"
    @id("clerks-read")
    permit (principal in Role::"clerk", action == Action::"orders:read", resource);

    @id("clerks-cancel-what-is-open")
    permit (principal in Role::"clerk", action == Action::"orders:cancel", resource)
    when { resource has status && resource.status == "open" };
"#;

async fn cancel(authz: Authorizer, Path(id): Path<u32>) -> Result<String, Rejection> {
    let status = if id == 1 { "open" } else { "shipped" }; // from the database
    authz.check("orders:cancel", &Resource::new("order", id).with("status", status)).await?;
    Ok(format!("cancelled {id}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, now) = (Arc::new(MemoryKeyStore::new()), SystemClock::new().now());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    for (name, role) in [("CLERK", "clerk"), ("TRAINEE", "trainee")] {
        let (key, _) = keys.issuer().issue(&store, NewApiKey::for_subject(name).role(role), now).await?;
        println!("export {name}={}", key.expose());
    }

    let rules = Cedar::builder().schema("shop.cedarschema", SCHEMA).policies("shop.cedar", POLICIES).build()?;
    let order = from_path("order", "{id}")?;
    let app =
        Router::new().route("/orders/{id}", get(async |Path(id): Path<u32>| format!("order {id}\n")).delete(cancel));
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(keys)
        .policy(rules)
        .route("GET /orders/{id}", require(policy("orders:read")?).on(order))
        .route("DELETE /orders/{id}", require(authenticated()));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.build()?.protect(app)).await?)
}
