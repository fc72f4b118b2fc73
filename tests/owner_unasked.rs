//! A permission that lets owners pass leaves the question whose a thing is to the handler: one that does not ask is told of.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::{convert::Infallible, future::pending};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    Principal, PrincipalKind, Rejection, SecurityContext,
    audit::{AuditLayer, AuditRecord},
    guard::{Authorizer, any, require, role},
    policy::{Rbac, Resource},
    stack::Stack,
    testing::Captured,
};
use support::{Still, everybody, get};
use tower::{ServiceExt, service_fn};

const POLICY: &str = "version = '1'\npermissions = ['notes:edit', 'notes:read']\n\
    [roles.member]\ngrants_own = ['notes:edit']\n[roles.editor]\ngrants = ['notes:edit']\n[roles.reader]\ngrants = ['notes:read']\n";

fn note(owner: &str) -> Resource {
    Resource::new("note", 1).owned_by("i", owner)
}

/// Answers as the last segment of the path says.
async fn handle(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let asks = async {
        let authorizer = Authorizer::of(request.extensions())?;
        let (own, foreign) = (note("alice"), note("bob"));
        match request.uri().path().rsplit('/').next().unwrap_or_default() {
            "asks" => authorizer.check("notes:edit", &own).await.map(drop),
            "asks-foreign" => authorizer.check("notes:edit", &foreign).await.map(drop),
            "asks-all" => authorizer.check_all("notes:edit", &[own]).await.map(drop),
            "asks-of-none" => authorizer.check_all("notes:edit", &[]).await.map(drop),
            "filters" => authorizer.filter("notes:edit", vec!["bob"], |owner| note(owner)).await.map(drop),
            "shows" => {
                let _ = authorizer.allows("notes:edit", &foreign).await;
                Ok(())
            }
            // No thing is named: that says nothing of whose it is.
            "asks-about-nothing" => {
                let _ = authorizer.allows("notes:edit", None).await;
                Ok(())
            }
            "goes-on" => {
                let context = SecurityContext::of(request.extensions()).cloned();
                tokio::spawn(async move {
                    pending::<()>().await;
                    drop(context);
                });
                Ok(())
            }
            "fails" => Err(Rejection::new(portcullis::RejectionKind::Unavailable, "the table is away")),
            _ => Ok::<_, Rejection>(()),
        }
    };
    let status = asks.await.map_or_else(|rejection| rejection.status(), |()| StatusCode::OK);
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    Ok(response)
}

async fn record(role_name: &str, path: &str) -> (u16, AuditRecord) {
    let policy = Rbac::from_toml(POLICY).unwrap();
    let edit = policy.permission("notes:edit").unwrap().allow_owners();
    let alice = Principal::builder(PrincipalKind::User, "i", "alice", "test").roles([role_name]).build();
    let captured = Captured::new();
    let stack = Stack::builder()
        .clock(Still)
        .audit(AuditLayer::new(captured.clone()))
        .dangerous_plain_http()
        .authenticate(everybody(alice))
        .policy(policy)
        .route("GET /notes/{how}", require(edit.clone()))
        .route("GET /either/{how}", require(any((edit, role("reader").unwrap()))))
        .build()
        .unwrap();
    let answer = stack.protect(service_fn(handle)).oneshot(get(path)).await.unwrap();
    let [record] = captured.records().try_into().unwrap();
    (answer.status().as_u16(), record)
}

#[tokio::test]
async fn a_handler_that_does_not_ask_whose_the_thing_is_is_told_of() {
    for (name, who, path, status, told) in [
        ("forgets", "member", "/notes/forgets", 200, true),
        ("forgets, by another way in", "member", "/either/forgets", 200, true),
        ("asks of nothing", "member", "/notes/asks-about-nothing", 200, true),
        ("asks", "member", "/notes/asks", 200, false),
        ("asks of another's", "member", "/notes/asks-foreign", 403, false),
        ("asks of several", "member", "/notes/asks-all", 200, false),
        ("there are none", "member", "/notes/asks-of-none", 200, false),
        ("filters", "member", "/notes/filters", 200, false),
        ("shows", "member", "/notes/shows", 200, false),
        ("fails before it asks", "member", "/notes/fails", 503, false),
        ("goes on, and may yet ask", "member", "/notes/goes-on", 200, false),
        ("all notes are theirs to edit", "editor", "/notes/forgets", 200, false),
        ("nobody lets them pass as an owner", "reader", "/either/forgets", 200, false),
        ("is not let in", "reader", "/notes/forgets", 403, false),
    ] {
        let (answered, record) = record(who, path).await;
        assert_eq!(answered, status, "{name}");
        assert_eq!(record.flags().contains(&"owner_not_asked"), told, "{name}: {record:?}");
    }
}

/// A call of gRPC fails under `200`, and mostly before it has asked anything.
#[tokio::test]
async fn a_call_that_fails_before_it_asks_is_not_told_of() {
    for (code, told) in [("0", true), ("5", false)] {
        let policy = Rbac::from_toml(POLICY).unwrap();
        let edit = policy.permission("notes:edit").unwrap().allow_owners();
        let alice = Principal::builder(PrincipalKind::User, "i", "alice", "test").roles(["member"]).build();
        let captured = Captured::new();
        let stack = Stack::builder()
            .clock(Still)
            .audit(AuditLayer::new(captured.clone()))
            .dangerous_plain_http()
            .authenticate(everybody(alice))
            .policy(policy)
            .route("POST /notes.Notes/Edit", require(edit));
        let handler = service_fn(async |_: Request<()>| {
            let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", code);
            Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
        });
        let mut request = get("/notes.Notes/Edit");
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        stack.build().unwrap().protect(handler).oneshot(request).await.unwrap();
        assert_eq!(captured.records()[0].flags().contains(&"owner_not_asked"), told, "{code}");
    }
}

#[tokio::test]
async fn the_record_tells_that_a_role_grants_it_on_own_things_alone() {
    for (who, reason) in [("member", Some("on the principal's own things")), ("editor", None)] {
        let (_, record) = record(who, "/notes/forgets").await;
        let decision = record.decisions().next().unwrap();
        assert_eq!(decision.rule().as_deref(), Some(&*format!("role \"{who}\"")));
        assert_eq!(decision.reasons().next().as_deref(), reason);
    }
}
