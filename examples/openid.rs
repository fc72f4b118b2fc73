//! A service that takes the tokens of an OpenID provider: its keys come by discovery, and follow it when they rotate.
//!
//! ```sh
//! cargo run --example openid --features jwt-remote -- --issuer https://id.example.com --audience orders-api
//! ```
//!
//! It asks for access tokens as RFC 9068 has them. Providers that are older than it, or sign something else, have profiles of
//! their own, with `--provider`:
//!
//! | `--provider` | `--issuer` | `--audience` | tokens |
//! |---|---|---|---|
//! | `keycloak` | `https://login.example.com/realms/shop` | the client, `orders-api` | access tokens |
//! | `auth0` | `https://shop.eu.auth0.com/` | the API identifier, `https://orders.example.com` | access tokens |
//! | `google` | `https://accounts.google.com` | the OAuth client, `1234.apps.googleusercontent.com` | ID tokens, without scopes; `--domain example.com`, or everybody with a Google account gets in |
//!
//! A provider in house whose certificate is of an authority in house: `--roots authority.pem`. One on this machine, without TLS,
//! as Keycloak starts for development: `--dangerous-http-on-loopback`.
//!
//! With `TOKEN`, an access token for the audience with the scope `orders:read`; `ID_TOKEN`, which its client got with it; and
//! `OTHER`, a token of the same provider for another audience:
//!
//! ```sh
//! curl -i localhost:3000/health                                               # 200
//! curl -i localhost:3000/me                                                   # 401
//! curl -i localhost:3000/me -H "Authorization: Bearer $TOKEN"                 # 200
//! curl -i localhost:3000/orders -H "Authorization: Bearer $TOKEN"             # 200
//! curl -i -X DELETE localhost:3000/orders/1 -H "Authorization: Bearer $TOKEN" # 403
//! curl -i localhost:3000/me -H "Authorization: Bearer $ID_TOKEN"              # 401
//! curl -i localhost:3000/me -H "Authorization: Bearer $OTHER"                 # 401
//! curl -i localhost:3000/me -H "Authorization: Bearer ${TOKEN}x"              # 401
//! ```

use std::{error::Error, path::PathBuf, time::Duration};

use axum::{
    Router,
    routing::{delete, get},
};
use clap::{Parser, ValueEnum};
use portcullis::{
    ConfigError, Principal,
    guard::{authenticated, public, require, scope},
    http_client::HttpsFetch,
    jwt::{
        Algorithm::{ES256, EdDSA, PS256, RS256},
        Issuer, IssuerProfile, JwtAuthenticator, Provider,
        keys::LiveKeys,
    },
    stack::Stack,
    tls::TlsLayer,
};
use tokio::net::TcpListener;

#[derive(Parser)]
struct Options {
    /// The issuer's name, byte for byte as `iss` in its tokens has it.
    #[arg(long)]
    issuer: String,
    /// Who the tokens are for: this service.
    #[arg(long)]
    audience: String,
    #[arg(long, value_enum, default_value_t = Shape::Rfc9068)]
    provider: Shape,
    /// The authorities that signed the provider's certificate, in PEM. Default: those of the system.
    #[arg(long)]
    roots: Option<PathBuf>,
    /// With `google`, the domain whose accounts get in. Without it, everybody with a Google account does.
    #[arg(long)]
    domain: Option<String>,
    #[arg(long)]
    dangerous_http_on_loopback: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    Rfc9068,
    Keycloak,
    Auth0,
    Google,
}

/// Where the keys come from.
fn keys(options: &Options) -> Result<LiveKeys, Box<dyn Error>> {
    let mut keys = LiveKeys::discover(&options.issuer);
    if let Some(file) = &options.roots {
        keys = keys.http(HttpsFetch::with_roots(std::fs::read(file)?)?);
    }
    if matches!(options.provider, Shape::Google) {
        keys = keys.allow_host("www.googleapis.com"); // where its metadata says that they are
    }
    if options.dangerous_http_on_loopback {
        keys = keys.dangerous_http_on_loopback();
    }
    Ok(keys.build()?)
}

/// What a token must be.
fn trusted(options: &Options, keys: LiveKeys) -> Result<IssuerProfile, ConfigError> {
    let Options { issuer, audience, .. } = options;
    let profile = match options.provider {
        Shape::Rfc9068 => {
            Issuer::with_keys(issuer, keys).access_tokens(audience).algorithms([ES256, EdDSA, PS256, RS256])
        }
        Shape::Keycloak => Provider::keycloak(issuer, audience)?.with_keys(keys),
        Shape::Auth0 => {
            let domain = issuer.trim_start_matches("https://").trim_end_matches('/');
            Provider::auth0(domain, audience)?.with_keys(keys)
        }
        Shape::Google => {
            let google = Provider::google([audience])?.with_keys(keys);
            match &options.domain {
                Some(domain) => google.claim_must_be("hd", [domain]),
                None => google,
            }
        }
    };
    // Whatever a provider is set to: what lives longer than a day was not meant for this.
    Ok(profile.max_lifetime(Duration::from_secs(24 * 60 * 60)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let keys = keys(&options)?;
    let tokens = JwtAuthenticator::builder().issuer(trusted(&options, keys.clone())?).build()?;

    let app = Router::new()
        .route("/health", get(async || "well\n"))
        .route("/me", get(async |who: Principal| format!("{} of {}\n", who.subject(), who.issuer())))
        .route("/orders", get(async || "orders\n"))
        .route("/orders/{id}", delete(async || "cancelled\n"));
    let stack = Stack::builder()
        .tls(TlsLayer::require().dangerous_plain_http_on_loopback()) // HTTPS, but for curl on this machine
        .authenticate(tokens)
        .route("GET /health", public())
        .route("GET /me", require(authenticated()))
        .route("GET /orders", require(scope("orders:read")?))
        .route("DELETE /orders/{id}", require(scope("orders:write")?))
        .build()?;

    // Without keys it starts all the same, answers tokens with 503, and goes on asking.
    if let Err(error) = keys.load().await {
        eprintln!("no keys yet: {}", error.cause());
    }
    let port = std::env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving {}", listener.local_addr()?);
    Ok(portcullis::axum::serve(listener, stack.protect(app)).await?)
}
