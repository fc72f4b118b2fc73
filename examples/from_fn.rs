//! From a `from_fn` middleware with jsonwebtoken to a stack: the same tokens, the same handlers.
//!
//! ```sh
//! cargo run --example from_fn
//! ```
//!
//! It prints `export` lines with tokens. Paste those, then try both: `/old` is under the middleware that is replaced, `/new`
//! under the stack.
//!
//! ```sh
//! curl -i localhost:3000/old -H "Authorization: Bearer $TOKEN"             # 200
//! curl -i localhost:3000/new -H "Authorization: Bearer $TOKEN"             # 200
//! curl -i localhost:3000/old -H "Authorization: Bearer $EXPIRED"           # 401
//! curl -i localhost:3000/new -H "Authorization: Bearer $EXPIRED"           # 401
//! curl -i localhost:3000/old -H "Authorization: Bearer $WITHOUT_AUDIENCE"  # 200
//! curl -i localhost:3000/new -H "Authorization: Bearer $WITHOUT_AUDIENCE"  # 401
//! curl -i localhost:3000/old/forgotten                                     # 200
//! curl -i localhost:3000/new/forgotten                                     # 401
//! ```
//!
//! The last four are what changes: a token that leaves out its audience is not for this service, and a route that nobody
//! wrote a rule for is closed.

use std::error::Error;

use axum::{
    Extension, Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use portcullis::{
    Clock, Principal, Secret, SystemClock,
    guard::{authenticated, require},
    jwt::{self, Issuer, JwtAuthenticator, Key, KeySet},
    stack::Stack,
    tls::TlsLayer,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

const ISSUER: &str = "https://id.example.com";
/// A real one comes from outside of the program.
const SECRET: &[u8] = b"a secret of both, of this example";

#[derive(Clone, Deserialize, Serialize)]
struct Claims {
    sub: String,
}

/// Before: every service has one of these, and each is a little different.
async fn check_token(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["orders"]);
    validation.set_issuer(&[ISSUER]);
    let token = decode::<Claims>(token, &DecodingKey::from_secret(SECRET), &validation);
    request.extensions_mut().insert(token.map_err(|_| StatusCode::UNAUTHORIZED)?.claims);
    Ok(next.run(request).await)
}

/// After: issuer, audience and algorithm are needed to build it, and the table names every route.
fn stack() -> Result<Stack, Box<dyn Error>> {
    let keys = KeySet::new([Key::hmac(jwt::Algorithm::HS256, Secret::new(SECRET.to_vec()))?])?;
    let issuer = Issuer::fixed(ISSUER, keys).access_tokens("orders").algorithms([jwt::Algorithm::HS256]);
    // These tokens were made before RFC 9068: the claims that it asks for besides are let be. So would an ID token be, if the issuer made one
    // for this audience with this key.
    let issuer = issuer.dangerous_untyped().may_lack(["client_id", "iat", "jti"]);
    Ok(Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(JwtAuthenticator::builder().issuer(issuer).build()?)
        .route("GET /new", require(authenticated()))
        .build()?)
}

fn print_token(name: &str, claims: &serde_json::Value) -> Result<(), Box<dyn Error>> {
    let token = encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET))?;
    println!("export {name}={token}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let now = SystemClock::new().now().unix_seconds();
    print_token("TOKEN", &json!({ "iss": ISSUER, "aud": "orders", "sub": "alice", "exp": now + 3_600 }))?;
    print_token("EXPIRED", &json!({ "iss": ISSUER, "aud": "orders", "sub": "alice", "exp": now - 3_600 }))?;
    print_token("WITHOUT_AUDIENCE", &json!({ "iss": ISSUER, "sub": "alice", "exp": now + 3_600 }))?;

    let old = Router::new()
        .route("/old", get(async |Extension(claims): Extension<Claims>| format!("hello {}\n", claims.sub)))
        .layer(from_fn(check_token))
        .route("/old/forgotten", get(async || "who added this below the layer?\n"));
    let new = Router::new()
        .route("/new", get(async |who: Principal| format!("hello {}\n", who.subject())))
        .route("/new/forgotten", get(async || "nobody comes here\n"));
    let app = old.fallback_service(stack()?.protect(new));

    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, app).await?)
}
