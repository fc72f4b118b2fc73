//! Every pair of layers in both orders: the sensible one works, the other refuses with `500` and reaches nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    audit::AuditLayer,
    authn::AuthnLayer,
    evidence::{EvidenceLayer, TrustedProxies},
    guard::{authenticated, require},
    problem::ProblemLayer,
    rate_limit::{Quota, RateLimitLayer},
    tls::TlsLayer,
};
use support::{Discard, Probe, Seen, get, get_plain, test_scheme, with};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};

type App = BoxCloneSyncService<Request<()>, Response<Full<Bytes>>, Infallible>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Audit,
    Problem,
    Evidence,
    Tls,
    ClientLimit,
    Authn,
    PrincipalLimit,
    Guard,
}

const ALL: [Kind; 8] = [
    Kind::Audit,
    Kind::Problem,
    Kind::Evidence,
    Kind::Tls,
    Kind::ClientLimit,
    Kind::Authn,
    Kind::PrincipalLimit,
    Kind::Guard,
];

fn apply(kind: Kind, inner: App) -> App {
    match kind {
        Kind::Audit => BoxCloneSyncService::new(AuditLayer::new(Discard).layer(inner)),
        Kind::Problem => BoxCloneSyncService::new(ProblemLayer::new().layer(inner)),
        Kind::Evidence => BoxCloneSyncService::new(EvidenceLayer::new(TrustedProxies::none()).layer(inner)),
        Kind::Tls => BoxCloneSyncService::new(TlsLayer::require().layer(inner)),
        Kind::ClientLimit => {
            BoxCloneSyncService::new(RateLimitLayer::per_client(Quota::per_second(100)).unwrap().layer(inner))
        }
        Kind::Authn => BoxCloneSyncService::new(AuthnLayer::new(test_scheme()).dangerous_plain_http().layer(inner)),
        Kind::PrincipalLimit => {
            BoxCloneSyncService::new(RateLimitLayer::per_principal(Quota::per_second(100)).unwrap().layer(inner))
        }
        Kind::Guard => BoxCloneSyncService::new(require(authenticated()).layer(inner)),
    }
}

/// Stacks the kinds, the first outermost.
fn stacked(kinds: &[Kind]) -> (App, Arc<Seen>) {
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let app = kinds.iter().rev().fold(BoxCloneSyncService::new(probe), |inner, kind| apply(*kind, inner));
    (app, seen)
}

/// The two layers, and authentication where one of them cannot do without.
fn sensible(a: Kind, b: Kind) -> Vec<Kind> {
    let mut kinds = vec![a, b];
    if kinds.iter().any(|kind| matches!(kind, Kind::PrincipalLimit | Kind::Guard)) && !kinds.contains(&Kind::Authn) {
        kinds.push(Kind::Authn);
    }
    kinds.sort();
    kinds
}

async fn status(app: &App, request: Request<()>) -> u16 {
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_pair_in_both_orders() {
    let mut pairs = 0;
    for (index, a) in ALL.into_iter().enumerate() {
        for b in ALL.into_iter().skip(index + 1) {
            let mut kinds = sensible(a, b);
            let (app, seen) = stacked(&kinds);
            assert_eq!(status(&app, with(get("/"), "authorization", "Test alice")).await, 200, "{kinds:?}");
            assert_eq!(seen.calls(), 1, "{kinds:?}");

            let place = |kind| kinds.iter().position(|held| *held == kind).unwrap();
            let (first, second) = (place(a), place(b));
            kinds.swap(first, second);
            let (app, seen) = stacked(&kinds);
            for request in [
                with(get("/"), "authorization", "Test alice"),
                get("/"),
                get_plain("/"),
                with(get("/"), "authorization", "Test bad"),
            ] {
                let status = status(&app, request).await;
                assert!(matches!(status, 400..600), "{kinds:?} answered {status}");
            }
            assert_eq!(status(&app, with(get("/"), "authorization", "Test alice")).await, 500, "{kinds:?}");
            assert_eq!(seen.calls(), 0, "{kinds:?} let something pass");
            pairs += 1;
        }
    }
    assert_eq!(pairs, 28);
}

#[tokio::test]
async fn the_whole_in_its_order_keeps_what_should_stay_out() {
    let (app, seen) = stacked(&ALL);
    for (name, request, expected) in [
        ("allowed", with(get("/"), "authorization", "Test alice"), 200),
        ("anonymous", get("/"), 401),
        ("bad credential", with(get("/"), "authorization", "Test bad"), 401),
        ("plain HTTP", with(get_plain("/"), "authorization", "Test alice"), 403),
        ("two credentials", with(with(get("/"), "authorization", "Test alice"), "authorization", "Test alice"), 400),
    ] {
        assert_eq!(status(&app, request).await, expected, "{name}");
    }
    assert_eq!(seen.calls(), 1);
}

#[tokio::test]
async fn what_needs_authentication_refuses_without_it() {
    for kind in [Kind::PrincipalLimit, Kind::Guard] {
        let (app, seen) = stacked(&[kind]);
        assert_eq!(status(&app, with(get("/"), "authorization", "Test alice")).await, 500, "{kind:?}");
        assert_eq!(seen.calls(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn authentication_refuses_without_tls_enforcement() {
    let probe = Probe::default();
    let app = AuthnLayer::new(test_scheme()).layer(probe.clone());
    let response = app.oneshot(with(get("/"), "authorization", "Test alice")).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(probe.seen.calls(), 0);
}

#[tokio::test]
async fn a_stage_that_stands_twice_refuses() {
    for kind in [Kind::Audit, Kind::Problem, Kind::Evidence, Kind::Tls, Kind::Authn] {
        let (app, seen) = stacked(&[kind, kind]);
        assert_eq!(status(&app, with(get("/"), "authorization", "Test alice")).await, 500, "{kind:?}");
        assert_eq!(seen.calls(), 0, "{kind:?}");
    }
}
