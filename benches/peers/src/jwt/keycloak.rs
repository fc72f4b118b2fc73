//! axum-keycloak-auth, which finds its keys by discovery alone: from a server on loopback that stays as long as the program.

use std::{convert::Infallible, thread, time::Duration};

use axum::{Json, Router, body::Body, response::Response, routing::get};
use axum_keycloak_auth::{
    Url,
    instance::{KeycloakAuthInstance, KeycloakConfig},
    layer::KeycloakAuthLayer,
};
use http::Request;
use serde_json::json;
use tower::{Layer, Service};

use super::issuer::{AUDIENCE, Issuer};
use crate::ratio::router;

/// Claims of a profile are not asked for.
#[derive(Clone, Debug, serde::Deserialize)]
struct Nothing {}

/// A layer, with jsonwebtoken 9 on ring.
pub fn service(
    issuer: &Issuer,
) -> impl Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + use<> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = Box::leak(Box::new(runtime.expect("a runtime")));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let metadata = json!({
        "issuer": format!("{server}/realms/bench"), "authorization_endpoint": format!("{server}/auth"),
        "jwks_uri": format!("{server}/jwks"), "response_types_supported": ["code"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256", "ES256"],
    });
    let keys = issuer.jwks();
    let provider = Router::new()
        .route("/realms/bench/.well-known/openid-configuration", get(async move || Json(metadata)))
        .route("/jwks", get(async move || Json(keys)));
    runtime.spawn(async move { axum::serve(listener, provider).await });
    let instance = runtime.block_on(async {
        let server = Url::parse(&server).expect("a URL");
        KeycloakAuthInstance::new(KeycloakConfig::builder().server(server).realm("bench".to_owned()).build())
    });
    let mut looks = 0;
    while !runtime.block_on(instance.is_operational()) {
        looks += 1;
        assert!(looks < 500, "axum-keycloak-auth does not find its keys");
        thread::sleep(Duration::from_millis(20));
    }
    KeycloakAuthLayer::<String, Nothing>::builder()
        .instance(instance)
        .expected_audiences(vec![AUDIENCE.to_owned()])
        .build()
        .layer(router())
}
