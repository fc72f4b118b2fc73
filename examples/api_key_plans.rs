//! API keys with plans, and a router to administer them.
//!
//! ```sh
//! cargo run --example api_key_plans --features api-key-admin
//! ```
//!
//! It prints `export` lines with two keys. Paste those, then:
//!
//! ```sh
//! curl -i localhost:3000/report                                            # 401
//! curl -i localhost:3000/report -H "X-API-Key: $FREE"                      # 200
//! curl -i localhost:3000/report -H "X-API-Key: $FREE"                      # 429
//! curl -i localhost:3000/report -H "X-API-Key: $GOLD"                      # 200
//! curl -i localhost:3000/report -H "X-API-Key: $GOLD"                      # 200
//! curl -i localhost:3000/admin/keys -H "X-API-Key: $FREE"                  # 429
//! curl -i localhost:3000/admin/keys -H "X-API-Key: $GOLD"                  # 200
//! curl -i localhost:3000/admin/keys -H "X-API-Key: $GOLD" --json '{"subject": "nightly", "plan": "gold"}' # 201
//! curl -i localhost:3000/admin/keys -H "X-API-Key: $GOLD" --json '{"subject": "nightly", "plan": "free"}' # 403
//! ```

use std::{error::Error, sync::Arc};

use axum::{Router, routing::get};
use portcullis::{
    Clock, Principal, SystemClock,
    api_key::{ApiKeyAuthenticator, MemoryKeyStore, NewApiKey},
    guard::{authenticated, require},
    key_admin::{self, KeyAdmin},
    policy::Rbac,
    rate_limit::{Plans, Quota},
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

const POLICY: &str = r#"
    version = "1"
    permissions = ["keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:disable-owner", "keys:any-owner", "keys:grant-any"]
    [roles.admin]
    grants = ["keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:any-owner"]
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, now) = (Arc::new(MemoryKeyStore::new()), SystemClock::new().now());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let (free, _) = keys.issuer().issue(&store, NewApiKey::for_subject("trial").plan("free"), now).await?;
    let (gold, _) = keys.issuer().issue(&store, NewApiKey::for_subject("shop").plan("gold").role("admin"), now).await?;
    println!("export FREE={}\nexport GOLD={}", free.expose(), gold.expose());

    let plans = Plans::new([Quota::per_hour(1)])?.with("gold", [Quota::per_minute(600)])?;
    let admin = KeyAdmin::new(store).with_issuer(keys.issuer()).with_known_plans(["free", "gold"]);
    let app = Router::new()
        .route("/report", get(async |who: Principal| format!("for {}, on {:?}\n", who.subject(), who.plan())))
        .nest("/admin", admin.router());

    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(keys)
        .limit_principals(&plans)
        .policy(Rbac::from_toml(POLICY)?)
        .route("GET /report", require(authenticated()));
    let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.build()?.protect(app)).await?)
}
