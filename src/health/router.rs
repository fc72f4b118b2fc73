use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, header};
use serde::Serialize;

use super::{Health, Report, SourceHealth};
use crate::{axum::fixed_path, clock::Clock, error::ConfigError};

/// Where [`probes`] tells that the process answers at all.
pub const LIVE_PATH: &str = "/livez";
/// Where [`probes`] tells whether requests can be served.
pub const READY_PATH: &str = "/readyz";

/// The routes for an orchestrator's probes, which have no credential: the answers are a word, and tell nothing of what a service
/// depends on. A stack that closes everything names them as public, or they are served on another port.
///
/// | route | answer |
/// |---|---|
/// | `GET /livez` | `200` and `live`, as long as the process answers: a restart mends no dependency |
/// | `GET /readyz` | `200` and `ready`, or `503` and `not ready` while a source is failing |
///
/// Responses are `no-store`.
///
/// ```
/// use portcullis::{SystemClock, health::{Health, probes}};
///
/// let app: axum::Router = axum::Router::new().merge(probes(Health::new(), SystemClock::new()));
/// # let _ = app;
/// ```
pub fn probes(health: Health, clock: impl Clock) -> Router {
    let shared = Arc::new((health, clock));
    let ready = move || {
        let shared = Arc::clone(&shared);
        async move {
            let (health, clock) = &*shared;
            if health.look(clock.now()).is_ready() {
                unstored((StatusCode::OK, "ready"))
            } else {
                unstored((StatusCode::SERVICE_UNAVAILABLE, "not ready"))
            }
        }
    };
    Router::new().route(LIVE_PATH, get(async || unstored("live"))).route(READY_PATH, get(ready))
}

/// A router that serves the whole report at `path`, for people: names and causes, which are nobody else's business. Put it behind
/// a guard, or on a port that only operators reach.
///
/// `200`, or `503` while a source is failing; `no-store`; a document such as
///
/// ```json
/// {"condition": "stale", "sources": [{"name": "policy:rbac", "condition": "stale", "cause": "policy.toml: line 3: ..."}]}
/// ```
///
/// # Errors
/// If `path` does not begin with `/`, or has a parameter, a wildcard, a query or a fragment.
pub fn report_router(path: &str, health: Health, clock: impl Clock) -> Result<Router, ConfigError> {
    fixed_path("health path", path)?;
    let shared = Arc::new((health, clock));
    let show = move || {
        let shared = Arc::clone(&shared);
        async move {
            let (health, clock) = &*shared;
            let report = health.look(clock.now());
            let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            unstored((status, Json(Document::of(&report))))
        }
    };
    Ok(Router::new().route(path, get(show)))
}

fn unstored(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], answer).into_response()
}

#[derive(Serialize)]
struct Document<'a> {
    condition: &'static str,
    sources: Vec<Source<'a>>,
}

#[derive(Serialize)]
struct Source<'a> {
    name: &'a str,
    condition: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn of(report: &'a Report) -> Self {
        let source = |(name, health): (&'a str, &'a SourceHealth)| Source {
            name,
            condition: health.condition().as_str(),
            cause: health.cause(),
        };
        Self { condition: report.condition().as_str(), sources: report.sources().map(source).collect() }
    }
}
