//! Layers and extractors of other crates, with a fixed key each.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_jwt_auth::{Decoder, LocalDecoder};
use http::Request;
use jwt_authorizer::{AuthError, IntoLayer, JwtAuthorizer};
use tower::{Layer, Service, util::MapResponse};
use tower_oauth2_resource_server::{server::OAuth2ResourceServer, tenant::TenantConfiguration};

use super::{
    Claims,
    issuer::{AUDIENCE, ISSUER, Issuer},
};
use crate::ratio::router;

/// An extractor of the handler, with jsonwebtoken 10 on RustCrypto.
pub fn axum_jwt_auth(issuer: &Issuer) -> Router {
    let jwk = serde_json::from_value(issuer.jwks()["keys"][0].take()).expect("a JWK");
    let key = jsonwebtoken_10::DecodingKey::from_jwk(&jwk).expect("a key");
    let name = format!("{:?}", issuer.algorithm());
    let mut validation = jsonwebtoken_10::Validation::new(name.parse().expect("an algorithm"));
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    let decoder: Decoder<Claims> = Arc::new(LocalDecoder::new(vec![key], validation).expect("a decoder"));
    let handler = get(async |_: axum_jwt_auth::Claims<Claims>| "orders");
    Router::new().route("/orders", handler).with_state(decoder)
}

/// Its layer is for axum 0.7; around a service whose answer it can make, it is for any.
struct Answer(Response);

impl Answer {
    fn inside(self) -> Response {
        self.0
    }
}

impl From<AuthError> for Answer {
    fn from(_: AuthError) -> Self {
        Self(StatusCode::UNAUTHORIZED.into_response())
    }
}

/// A layer, with jsonwebtoken 9 on ring.
pub fn jwt_authorizer(
    issuer: &Issuer,
) -> impl Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + use<> {
    let builder = if issuer.is_asymmetric() {
        JwtAuthorizer::<Claims>::from_jwks_text(&issuer.jwks().to_string())
    } else {
        JwtAuthorizer::<Claims>::from_secret(Issuer::secret())
    };
    let validation = jwt_authorizer::Validation::new().iss(&[ISSUER]).aud(&[AUDIENCE]);
    let authorizer = now(builder.validation(validation).build()).expect("an authorizer");
    let inner = MapResponse::new(router(), Answer as fn(Response) -> Answer);
    MapResponse::new(authorizer.into_layer().layer(inner), Answer::inside as fn(Answer) -> Response)
}

/// A layer, with jsonwebtoken 11 on aws-lc-rs.
pub fn oauth2(
    issuer: &Issuer,
) -> impl Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + use<> {
    let tenant = TenantConfiguration::static_builder(issuer.jwks().to_string())
        .audiences(&[AUDIENCE])
        .claims_validation(tower_oauth2_resource_server::validation::ClaimsValidationSpec::recommended(
            ISSUER,
            &vec![AUDIENCE.to_owned()],
        ))
        .build()
        .expect("a tenant");
    let server = now(OAuth2ResourceServer::<Claims>::builder().add_tenant(tenant).build()).expect("a server");
    server.into_layer::<Body>().layer(router())
}

fn now<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
