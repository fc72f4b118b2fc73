//! The input is the metadata of an issuer, at the place of OpenID Connect Discovery and at that of RFC 8414. A key set is
//! fetched only if a second reader of the JSON finds the issuer, byte for byte, and the set's URL, which a second reader of
//! URLs finds on the issuer's origin or on a listed host, over https.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use portcullis::{
    StoreError,
    http_client::{FetchLimits, HttpFetch},
    jwt::keys::{KeySource, LiveKeys},
};
use serde_json::Value;
use url::Url;

use super::memory::{at, clock, now};

const ISSUER: &str = "https://id.example.com";
const LISTED: &str = "keys.example.net";
const PLACES: [&str; 2] = [
    "https://id.example.com/.well-known/openid-configuration",
    "https://id.example.com/.well-known/oauth-authorization-server",
];
const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Has the input at one place, nothing at the other, and a key set everywhere else.
#[derive(Clone, Debug)]
struct Origin {
    place: &'static str,
    metadata: Bytes,
    asked: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl HttpFetch for Origin {
    async fn fetch(&self, request: Request<Bytes>, _: FetchLimits) -> Result<Response<Bytes>, StoreError> {
        let url = request.uri().to_string();
        let (status, body) = match &*url {
            url if url == self.place => (200, self.metadata.clone()),
            url if PLACES.contains(&url) => (404, Bytes::new()),
            _ => (200, Bytes::from_static(SET.as_bytes())),
        };
        self.asked.lock().unwrap().push(url);
        Ok(Response::builder().status(status).body(body).unwrap())
    }
}

/// Panics if something of that does not hold.
pub fn check(metadata: &[u8]) {
    for (place, looked_at) in PLACES.into_iter().zip(1..) {
        let origin = Origin { place, metadata: Bytes::copy_from_slice(metadata), asked: Arc::default() };
        let keys = LiveKeys::discover(ISSUER).allow_host(LISTED).http(origin.clone()).clock(clock()).build().unwrap();
        let loaded = now(keys.load()).is_ok();
        assert_eq!(keys.health(at()).is_ready(), loaded);
        let asked = origin.asked.lock().unwrap();
        let (places, sets) = asked.split_at(looked_at);
        assert_eq!(places, &PLACES[..looked_at]);
        match sets {
            [] => assert!(!loaded),
            [set] => may_be_fetched(metadata, set),
            more => panic!("{more:?}"),
        }
    }
}

fn may_be_fetched(metadata: &[u8], fetched: &str) {
    let metadata: Value = serde_json::from_slice(metadata.trim_ascii()).unwrap();
    assert_eq!(metadata["issuer"], ISSUER);
    let named = Url::parse(metadata["jwks_uri"].as_str().unwrap()).unwrap();
    assert_eq!(named, Url::parse(fetched).unwrap());
    assert_eq!(named.scheme(), "https");
    assert!(named.username().is_empty() && named.password().is_none() && named.fragment().is_none());
    let ours = Url::parse(ISSUER).unwrap().origin() == named.origin();
    assert!(ours || named.host_str() == Some(LISTED), "{named}");
}
