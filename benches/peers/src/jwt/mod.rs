//! A token through axum: layers of other crates, a middleware by hand, and this one, for each algorithm.

mod issuer;
mod keycloak;
mod others;

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::Response,
};
use portcullis::authn::AuthnLayer;
use tower::Layer;

use self::issuer::Issuer;
use crate::ratio::{Contender, base, bearer, measure, router, send};

const BARE: &str = "bare axum router";

/// What a handler reads of a token.
#[derive(Clone, Debug, serde::Deserialize)]
#[expect(dead_code, reason = "read as a service would")]
pub struct Claims {
    sub: String,
    iss: String,
    aud: String,
    exp: u64,
    scope: String,
    roles: Vec<String>,
    email: String,
    name: String,
}

pub fn tables() {
    for issuer in [Issuer::hs256(), Issuer::rs256(), Issuer::es256()] {
        table(&issuer);
    }
}

fn table(issuer: &Issuer) {
    let request = bearer(&issuer.token(3_600));
    let by_hand = by_hand(issuer);
    let layer = |remembers: bool| {
        let builder = issuer.builder();
        let builder = if remembers { builder } else { builder.without_cache() };
        AuthnLayer::new(builder.build().expect("an authenticator")).dangerous_plain_http().layer(router())
    };
    let mut contenders = vec![
        Contender::new(BARE, router(), &request),
        Contender::new("from_fn and jsonwebtoken 11, by hand", by_hand, &request),
        Contender::new("axum-jwt-auth 0.7", others::axum_jwt_auth(issuer), &request),
        Contender::new("jwt-authorizer 0.15", others::jwt_authorizer(issuer), &request),
    ];
    // These know asymmetric keys alone.
    if issuer.is_asymmetric() {
        contenders.push(Contender::new("tower-oauth2-resource-server 0.12", others::oauth2(issuer), &request));
        contenders.push(Contender::new("axum-keycloak-auth 0.8", keycloak::service(issuer), &request));
    }
    contenders.push(Contender::new("portcullis, never seen", layer(false), &request));
    contenders.push(Contender::new("portcullis, seen before", layer(true), &request));

    let expired = bearer(&issuer.token(-3_600));
    for contender in &contenders {
        contender.warm_up();
        let status =
            |request: http::Request<()>| send(&contender.app, request.map(|()| Body::empty())).status().as_u16();
        if contender.name != BARE {
            assert_eq!(status(expired.clone()), 401, "{}, a token that has ended", contender.name);
            assert!(matches!(status(base()), 400 | 401), "{}, no token", contender.name);
        }
    }
    let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
    measure(&timed).print(&format!("one {:?} token, through axum", issuer.algorithm()), BARE);
}

fn by_hand(issuer: &Issuer) -> axum::Router {
    let mut validation = jsonwebtoken::Validation::new(issuer.algorithm());
    validation.set_issuer(&[issuer::ISSUER]);
    validation.set_audience(&[issuer::AUDIENCE]);
    let shared = std::sync::Arc::new((issuer.decoding(), validation));
    router().layer(from_fn(move |mut request: Request, next: Next| {
        let shared = std::sync::Arc::clone(&shared);
        async move {
            let field = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let token = field.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
            let decoded = jsonwebtoken::decode::<Claims>(token, &shared.0, &shared.1);
            request.extensions_mut().insert(decoded.map_err(|_| StatusCode::UNAUTHORIZED)?.claims);
            Ok::<Response, StatusCode>(next.run(request).await)
        }
    }))
}
