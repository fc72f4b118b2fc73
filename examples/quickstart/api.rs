//! The orders API: what a service author writes.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use portcullis::{Principal, Rejection, guard::Authorizer, policy::Resource};
use serde::Serialize;

use crate::identity::ISSUER;

#[derive(Clone, Serialize)]
struct Order {
    id: u32,
    owner: &'static str,
    item: &'static str,
}

const ORDERS: [Order; 2] = [
    Order { id: 1, owner: "alice", item: "portcullis winch" },
    Order { id: 2, owner: "bob", item: "drawbridge chain" },
];

pub(crate) fn router() -> Router {
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/me", get(me))
        .route("/orders", get(list))
        .route("/orders/{id}", get(read))
        .route("/orders/{id}", delete(cancel))
}

async fn me(principal: Principal) -> Json<BTreeMap<&'static str, String>> {
    Json(BTreeMap::from([
        ("subject", principal.subject().to_owned()),
        ("kind", principal.kind().as_str().to_owned()),
        ("proved_by", principal.credential().to_owned()),
    ]))
}

/// The route table lets nobody in here without `orders:list`.
async fn list() -> Json<Vec<Order>> {
    Json(ORDERS.to_vec())
}

/// The fine-grained question, next to the data: everybody may read what they own, a manager may read all.
async fn read(authz: Authorizer, Path(id): Path<u32>) -> Result<Response, Rejection> {
    let found = ORDERS.into_iter().find(|order| order.id == id);
    let resource = match &found {
        Some(order) => Resource::new("order", id).owned_by(ISSUER, order.owner),
        None => Resource::new("order", id),
    };
    // Whether the order exists is not told to who may not read it.
    authz.check("orders:read", &resource).await?;
    Ok(found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |order| Json(order).into_response()))
}

async fn cancel(Path(_id): Path<u32>) -> StatusCode {
    StatusCode::NO_CONTENT
}
