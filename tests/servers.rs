//! The same stack around an axum router, a bare function and a hyper server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    Connection, SecurityContext, TlsVersion,
    guard::{authenticated, public, require},
    stack::Stack,
    tls::TlsLayer,
};
use support::{Probe, Waiting, get, send, test_scheme, text, with};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceExt, service_fn};

fn stack() -> Stack {
    Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(test_scheme())
        .route("GET /open", public())
        .route("GET /guarded", require(authenticated()))
        .build()
        .unwrap()
}

fn subject<B>(request: &Request<B>) -> String {
    let context = SecurityContext::of(request.extensions()).expect("the stack ran");
    context.principal().map_or_else(|| "-".to_owned(), |principal| principal.subject().to_owned())
}

#[tokio::test]
async fn around_a_bare_function() {
    let app = stack().protect(service_fn(async |request: Request<()>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(subject(&request))))
    }));
    assert_eq!(text(send(&app, get("/open")).await).await, "-");
    assert_eq!(text(send(&app, with(get("/guarded"), "authorization", "Test alice")).await).await, "alice");
    assert_eq!(send(&app, get("/guarded")).await.status(), 401);
}

/// Request bodies need neither `Send` nor `'static` nor `Default`.
#[tokio::test]
async fn around_a_function_of_any_body() {
    struct Borrowed<'a>(&'a str, std::marker::PhantomData<*const ()>);

    let text = "body".to_owned();
    let app = stack().protect(service_fn(async |request: Request<Borrowed<'_>>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(request.into_body().0.to_owned())))
    }));
    let request = get("/open").map(|()| Borrowed(&text, std::marker::PhantomData));
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(support::text(response).await, "body");
}

#[tokio::test]
async fn around_an_axum_router() {
    let router = axum::Router::new()
        .route("/guarded", axum::routing::get(async |request: axum::extract::Request| subject(&request)));
    let app = stack().protect(router);
    let request = with(get("/guarded"), "authorization", "Test alice").map(|()| axum::body::Body::empty());
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(text(response).await, "alice");
    let response = app.oneshot(get("/guarded").map(|()| axum::body::Body::empty())).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(text(response).await.contains("unauthenticated"));
}

#[tokio::test]
async fn behind_a_hyper_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = stack().protect(service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(subject(&request))))
    }));
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let app = app.clone();
            // This server stands for one that terminates TLS itself.
            let app = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
                app.clone().oneshot(request)
            });
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(
                async move { server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await },
            );
        }
    });

    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (path, credential, status, body) in [
        ("/guarded", Some("Test alice"), 200, Some("alice")),
        ("/guarded", None, 401, None),
        ("/open", None, 200, Some("-")),
        ("/else", Some("Test alice"), 403, None),
    ] {
        let mut request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
        if let Some(credential) = credential {
            request.headers_mut().insert("authorization", credential.parse().unwrap());
        }
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{path} {credential:?}");
        let received = response.into_body().collect().await.unwrap().to_bytes();
        if let Some(body) = body {
            assert_eq!(received, body, "{path}");
        }
    }
}

/// The service that was found ready is the one that is called, also after a decision that waited.
#[tokio::test]
async fn readiness_is_kept() {
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let at_once = stack().protect(probe.clone());
    let waiting = Stack::builder()
        .tls(TlsLayer::require())
        .authenticate(Waiting(test_scheme()))
        .route("GET /guarded", require(authenticated()))
        .build()
        .unwrap()
        .protect(probe);
    let request = || with(get("/guarded"), "authorization", "Test alice");
    assert_eq!(text(send(&at_once, request()).await).await, "alice");
    assert_eq!(text(send(&waiting, request()).await).await, "alice");
    assert_eq!(send(&waiting, get("/guarded")).await.status(), 401);
    assert_eq!(seen.calls(), 2);
}

/// What the stack's authenticator reads is taken off a request that may pass over plain HTTP, whatever the field is called.
#[tokio::test]
async fn a_credential_in_a_field_of_its_own_is_ignored_over_plain_http() {
    #[derive(Debug)]
    struct Own;

    #[async_trait::async_trait]
    impl portcullis::authn::Authenticator for Own {
        fn challenges(&self) -> Vec<portcullis::Challenge> {
            vec![portcullis::Challenge::new("Own", "tests").unwrap()]
        }

        fn credential_headers(&self) -> Vec<http::HeaderName> {
            vec![http::HeaderName::from_static("x-own")]
        }

        async fn authenticate(
            &self,
            head: &portcullis::RequestHead<'_>,
            _: portcullis::Instants,
        ) -> portcullis::authn::Outcome {
            match head.headers().get("x-own") {
                Some(_) => portcullis::authn::Outcome::verified(support::person("alice")),
                None => portcullis::authn::Outcome::Absent,
            }
        }
    }

    let app = Stack::builder()
        .tls(TlsLayer::require().exempt(http::Method::GET, "/open").unwrap())
        .authenticate(Own)
        .route("GET /open", public())
        .build()
        .unwrap()
        .protect(Probe::default());
    assert_eq!(text(send(&app, with(get("/open"), "x-own", "alice")).await).await, "alice");
    assert_eq!(text(send(&app, with(support::get_plain("/open"), "x-own", "alice")).await).await, "-");
}

/// What is for one identity alone is kept out of shared caches, and by choice out of all; the handler may know better.
#[tokio::test]
async fn responses_to_the_authenticated_are_private() {
    let build = |no_store: bool| {
        let stack = Stack::builder()
            .tls(TlsLayer::require())
            .authenticate(test_scheme())
            .route("GET /open", public())
            .route("GET /public", require(authenticated()));
        let stack = if no_store { stack.no_store() } else { stack };
        stack.build().unwrap().protect(service_fn(async |request: Request<()>| {
            let mut response = Response::new(Full::<Bytes>::default());
            if request.uri().path() == "/public" {
                response.headers_mut().insert("cache-control", http::HeaderValue::from_static("public, max-age=60"));
            }
            Ok::<_, Infallible>(response)
        }))
    };
    for (no_store, default) in [(false, "private"), (true, "no-store")] {
        let app = build(no_store);
        for (path, credential, expected) in [
            ("/open", Some("Test alice"), Some(default)),
            ("/open", None, None),
            ("/public", Some("Test alice"), Some("public, max-age=60")),
        ] {
            let request = get(path);
            let request = match credential {
                Some(credential) => with(request, "authorization", credential),
                None => request,
            };
            let answer = send(&app, request).await;
            let found = answer.headers().get("cache-control").map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{path} {credential:?}");
        }
    }
}
