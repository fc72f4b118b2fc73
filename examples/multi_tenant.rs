//! Tenants that do not see each other, and orders that belong to somebody: rows are asked about where they are read.
//!
//! ```sh
//! cargo run --example multi_tenant
//! ```
//!
//! It prints `export` lines with keys of two clerks and a manager. Paste those, then:
//!
//! ```sh
//! curl -i localhost:3000/orders -H "X-API-Key: $ALICE"               # 200
//! curl -i localhost:3000/orders/1 -H "X-API-Key: $ALICE"             # 200
//! curl -i localhost:3000/orders/2 -H "X-API-Key: $ALICE"             # 404
//! curl -i localhost:3000/orders/2 -H "X-API-Key: $MANAGER"           # 200
//! curl -i localhost:3000/orders/3 -H "X-API-Key: $MANAGER"           # 404
//! curl -i localhost:3000/orders/3 -H "X-API-Key: $BOB"               # 200
//! curl -i localhost:3000/orders/9 -H "X-API-Key: $BOB"               # 404
//! curl -i -X DELETE localhost:3000/orders/1 -H "X-API-Key: $ALICE"   # 403
//! curl -i -X DELETE localhost:3000/orders/2 -H "X-API-Key: $MANAGER" # 200
//! curl -i -X DELETE localhost:3000/orders/3 -H "X-API-Key: $MANAGER" # 404
//! ```
//!
//! Alice's order is hers, order 2 is a colleague's, order 3 is of another company. What may not be seen is answered like what
//! is not there.

use std::{error::Error, sync::Arc};

use axum::{Json, Router, extract::Path, routing::get};
use portcullis::{
    Clock, Rejection, RejectionKind, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    guard::{Authorizer, authenticated, require},
    policy::{Rbac, Resource},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

const POLICY: &str = r#"
    version = "1"
    permissions = ["orders:read", "orders:cancel"]
    [roles.clerk]
    grants_own = ["orders:read"]
    [roles.manager]
    grants = ["orders:*"]
"#;

/// A row: number, tenant, owner.
type Order = (u32, &'static str, &'static str);

const ORDERS: [Order; 3] = [(1, "acme", "alice"), (2, "acme", "carol"), (3, "globex", "bob")];

/// What the policy shall know of a row: one that named no tenant would be for all of them. Keys' owners are subjects of the
/// issuer `api-keys`.
fn resource((id, tenant, owner): &Order) -> Resource {
    Resource::new("order", id).in_tenant(*tenant).owned_by("api-keys", *owner)
}

/// Those that the caller may see. A database would be asked for those of `authz.principal().tenant()` to begin with.
async fn list(authz: Authorizer) -> Result<Json<Vec<u32>>, Rejection> {
    let visible = authz.filter("orders:read", ORDERS.to_vec(), resource).await?;
    Ok(Json(visible.into_iter().map(|(id, ..)| id).collect()))
}

async fn show(authz: Authorizer, Path(id): Path<u32>) -> Result<String, Rejection> {
    let order = ORDERS.iter().find(|(known, ..)| *known == id);
    let order = order.ok_or_else(|| Rejection::new(RejectionKind::NotFound, "no such order"))?;
    authz.hiding().check("orders:read", &resource(order)).await?;
    Ok(format!("order {id} of {}\n", order.2))
}

async fn cancel_order(authz: Authorizer, Path(id): Path<u32>) -> Result<String, Rejection> {
    let order = ORDERS.iter().find(|(known, ..)| *known == id);
    let order = order.ok_or_else(|| Rejection::new(RejectionKind::NotFound, "no such order"))?;
    // The rule of the table says who may cancel at all, and does not know whose order it is.
    authz.hiding().check("orders:cancel", &resource(order)).await?;
    Ok(format!("cancelled {id}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, now) = (Arc::new(MemoryKeyStore::new()), SystemClock::new().now());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    // A key without a tenant gets no order: the policy does not say `allow_tenantless`.
    for (name, subject, tenant, role) in [
        ("ALICE", "alice", "acme", "clerk"),
        ("MANAGER", "mallory", "acme", "manager"),
        ("BOB", "bob", "globex", "clerk"),
    ] {
        let (key, _) =
            keys.issuer().issue(&store, NewApiKey::for_subject(subject).tenant(tenant).role(role), now).await?;
        println!("export {name}={}", key.expose());
    }

    let policy = Rbac::from_toml(POLICY)?;
    let cancel = policy.permission("orders:cancel")?;
    let app = Router::new().route("/orders", get(list)).route("/orders/{id}", get(show).delete(cancel_order));
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(keys)
        .policy(policy)
        .route("GET /orders", require(authenticated()))
        .route("GET /orders/{id}", require(authenticated()))
        .route("DELETE /orders/{id}", require(cancel));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.build()?.protect(app)).await?)
}
