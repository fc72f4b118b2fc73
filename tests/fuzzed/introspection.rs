//! Answers of an introspection endpoint. Whatever they are, nobody passes unless an independent reader of the JSON finds an
//! active token for us in it; what is no JSON object is nobody's fault but the endpoint's.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use portcullis::{
    Instants, RejectionKind, Secret, StoreError,
    http_client::{FetchLimits, HttpFetch},
    jwt::introspection::{ClientAuthentication, Introspection},
};
use serde_json::Value;

pub const ANSWER: &str = r#"{"active":true,"iss":"https://id.example.com","aud":["orders-api"],"sub":"alice","exp":1800003600,"iat":1799999900,"client_id":"web","token_type":"Bearer","scope":"orders:read","cnf":{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0"}}"#;

const NOW: u64 = 1_800_000_000;

#[derive(Debug, Default)]
struct Endpoint(Mutex<Bytes>);

#[async_trait]
impl HttpFetch for Endpoint {
    async fn fetch(&self, _: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        Ok(Response::new(std::mem::take(&mut *self.0.lock().expect("nobody panics"))))
    }
}

/// Whether a token of which this is said passes.
pub fn check(answer: &[u8]) -> bool {
    let secret = Secret::from("s3cret".to_owned());
    let tokens = Introspection::builder()
        .issuer("https://id.example.com")
        .endpoint("https://id.example.com/introspect")
        .client(ClientAuthentication::basic("orders-api", &secret).expect("a client"))
        .audience("orders-api")
        .http(Endpoint(Mutex::new(Bytes::copy_from_slice(answer))))
        .jwts_too()
        .build()
        .expect("an authenticator");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let verdict = runtime.block_on(tokens.verify("token", Instants::new(NOW * 1_000_000_000, 0)));
    let read = serde_json::from_slice::<Value>(answer).ok().filter(Value::is_object);
    match verdict {
        Ok(principal) => {
            let members = read.expect("a JSON object");
            assert_eq!(members["active"], Value::Bool(true));
            let ours = |audience: &Value| audience == "orders-api";
            assert!(ours(&members["aud"]) || members["aud"].as_array().is_some_and(|all| all.iter().any(ours)));
            assert!(members.get("iss").is_none_or(|iss| iss == "https://id.example.com"));
            assert!(members["exp"].as_f64().is_some_and(|exp| exp + 60.0 > NOW as f64));
            let begun = |name| {
                members.get(name).is_none_or(|date: &Value| date.as_f64().is_some_and(|date| date <= NOW as f64 + 60.0))
            };
            assert!(begun("nbf") && begun("iat"));
            assert!(!principal.subject().is_empty() && members["sub"] == principal.subject());
            // Here is no connection and no proof to look at.
            assert!(members.get("cnf").is_none());
            let scope = members.get("scope").map_or("", |scope| scope.as_str().expect("a text"));
            assert!(principal.scopes().eq(scope.split(' ').filter(|scope| !scope.is_empty())));
            true
        }
        Err(rejection) => {
            // What one reader takes for an object with a member once, and the other does not, is no answer either.
            let expected = [RejectionKind::InvalidCredential, RejectionKind::Unavailable];
            assert!(expected.contains(&rejection.kind()), "{rejection:?}");
            assert!(read.is_some() || rejection.kind() == RejectionKind::Unavailable, "{rejection:?}");
            false
        }
    }
}
