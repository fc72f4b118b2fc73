//! For test code: never enable the feature `testing` in a production build.
//!
//! Put it into the dev-dependencies: `portcullis = { version = "..", features = ["testing"] }`. [`TestClock`] goes wherever a
//! `clock` or `with_clock` is, and [`Captured`] wherever an [`AuditSink`](crate::audit::AuditSink) is. So a test of your own
//! application moves the time instead of sleeping, and asks the record what was decided:
#![cfg_attr(
    all(feature = "stack", feature = "api-key"),
    doc = r#"
```
use std::time::Duration;

use http::{Request, Response};
use portcullis::{
    Clock, Connection, RejectionKind, TlsVersion,
    api_key::{ApiKeyAuthenticator, KeyLife, MemoryKeyStore, NewApiKey},
    audit::AuditLayer,
    guard::{authenticated, require},
    stack::Stack,
    testing::{Captured, TestClock},
    tls::TlsLayer,
};
use tower::{ServiceExt, service_fn};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
let (clock, records) = (TestClock::at_unix(1_800_000_000), Captured::new());
let keys = MemoryKeyStore::new();
let (key, record) = NewApiKey::for_subject("billing").lives(KeyLife::For(Duration::from_secs(3600))).mint(clock.now())?;
keys.add(record)?;

let app = Stack::builder()
    .clock(clock.clone())
    .audit(AuditLayer::new(records.clone()))
    .tls(TlsLayer::require())
    .authenticate(ApiKeyAuthenticator::new(keys))
    .route("GET /orders", require(authenticated()))
    .build()?
    .protect(service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(String::from("orders")))));
let request = || {
    let mut request = Request::get("/orders").header("x-api-key", key.expose()).body(()).unwrap();
    request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
    request
};

assert_eq!(app.clone().oneshot(request()).await?.status(), 200);
assert_eq!(records.take()[0].subject().unwrap().subject(), "billing");

clock.advance(Duration::from_secs(3600)); // the key is over
assert_eq!(app.oneshot(request()).await?.status(), 401);
assert_eq!(records.take()[0].rejection(), Some(RejectionKind::InvalidCredential));
# Ok(())
# }
```
"#
)]

#[cfg(feature = "jwt")]
pub mod attack;
#[cfg(feature = "audit")]
mod audit;
#[cfg(feature = "tls-self-signed")]
mod certificates;
mod clock;
mod identity;
#[cfg(feature = "jwt")]
mod issuer;
#[cfg(feature = "api-key")]
mod keys;

#[cfg(feature = "audit")]
pub use audit::{Captured, sample_record};
#[cfg(feature = "tls-self-signed")]
pub use certificates::{TestAuthority, TestCertificate};
pub use clock::TestClock;
pub use identity::as_principal;
#[cfg(all(feature = "jwt", feature = "axum"))]
pub use issuer::{Answers, IssuerServer};
#[cfg(feature = "jwt")]
pub use issuer::{TestIssuer, TestToken};
#[cfg(feature = "api-key")]
pub use keys::TestKeys;

/// What is made for tests says so where a build looks like one for production.
fn not_for_production() {
    static ONCE: crate::log::Once = crate::log::Once::new();
    if !cfg!(debug_assertions) {
        ONCE.error("the feature `testing` is in use in a release build: it belongs into dev-dependencies");
    }
}
