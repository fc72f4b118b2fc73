//! The application as a browser meets it.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, header},
    response::Response,
};
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use portcullis::Connection;
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};
use tower::ServiceExt;

const ORIGIN: &str = "http://localhost:3000";
const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

async fn ask(app: &Router, method: &str, target: &str, fields: &[(&str, &str)], body: &'static str) -> Response {
    let mut request = Request::builder().method(method).uri(target).header("host", "localhost");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body)).unwrap();
    request.extensions_mut().insert(Connection::plain(SocketAddr::from(([127, 0, 0, 1], 52_100))));
    app.clone().oneshot(request).await.unwrap()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Logs in, and gives the `Cookie` of the session.
async fn session(app: &Router) -> String {
    let answer = ask(app, "POST", "/log-in", &[FORM], "return_to=/account").await;
    let cookie = text(answer.headers(), "set-cookie").to_owned();
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age="] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

async fn log_out(app: &Router, cookie: &str) -> Response {
    ask(app, "POST", "/log-out", &[("cookie", cookie), ("sec-fetch-site", "same-origin")], "").await
}

#[tokio::test]
async fn a_browser_logs_in_and_out() {
    let app = portcullis_live::app(ORIGIN).unwrap();
    let navigates = [("accept", HTML), ("sec-fetch-mode", "navigate")];
    let away = ask(&app, "GET", "/account?tab=1", &navigates, "").await;
    assert_eq!(
        (away.status().as_u16(), text(away.headers(), "location")),
        (303, "/log-in?return_to=/account%3ftab%3d1")
    );
    assert_eq!(ask(&app, "GET", "/account", &[("accept", "application/json")], "").await.status(), 401);

    let cookie = session(&app).await;
    let page = ask(&app, "GET", "/account", &[("cookie", &cookie), navigates[0]], "").await;
    assert_eq!((page.status().as_u16(), text(page.headers(), "cache-control")), (200, "no-store"));

    let forged = [("cookie", &*cookie), ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    let refused = ask(&app, "POST", "/log-out", &forged, "").await;
    assert_eq!(refused.status(), 403);
    let problem = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&problem).contains(r#""code":"cross_site""#));

    let ended = log_out(&app, &cookie).await;
    assert_eq!((ended.status().as_u16(), text(ended.headers(), "location")), (303, "/log-in"));
    assert!(text(ended.headers(), "set-cookie").contains("Max-Age=0"), "{:?}", ended.headers());
    // A copy of the cookie is worth nothing.
    assert_eq!(ask(&app, "GET", "/account", &[("cookie", &cookie)], "").await.status(), 401);
}

#[tokio::test]
async fn log_in_leads_nowhere_else() {
    let app = portcullis_live::app(ORIGIN).unwrap();
    for (body, location) in [
        ("return_to=/prices%3Fa%3Db", "/prices?a=b"),
        ("return_to=//evil.example", "/account"),
        ("return_to=/%5Cevil.example", "/account"),
        ("return_to=https://evil.example", "/account"),
        ("return_to=/a%0d%0ab", "/account"),
        ("", "/account"),
    ] {
        let answer = ask(&app, "POST", "/log-in", &[FORM], body).await;
        assert_eq!(text(answer.headers(), "location"), location, "{body}");
    }
    let page = ask(&app, "GET", "/log-in?return_to=/%22%3E%3Cscript%3E", &[], "").await;
    let page = page.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&page).contains("<script"), "{page:?}");
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_session() {
    let app = portcullis_live::app(ORIGIN).unwrap();
    let cookie = session(&app).await;
    let answer = ask(&app, "GET", "/prices", &[("cookie", &cookie)], "").await;
    assert_eq!(text(answer.headers(), header::CONTENT_TYPE.as_str()), "text/event-stream");
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"data: 101\n\n");
    log_out(&app, &cookie).await;
    let rest = timeout(Duration::from_secs(10), body.collect()).await.expect("it goes on after log-out");
    rest.unwrap();
}

#[tokio::test]
async fn a_socket_ends_with_the_session() {
    let app = portcullis_live::app(ORIGIN).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://127.0.0.1:{}/talk", listener.local_addr().unwrap().port());
    tokio::spawn({
        let app = app.clone();
        async move { portcullis::axum::serve(listener, app).await }
    });
    let cookie = session(&app).await;
    let open = async |fields: &[(&'static str, &str)]| {
        let mut request = url.as_str().into_client_request().unwrap();
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        connect_async(request).await
    };
    let status = |refused| match refused {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("{:?}", other.map(|(_, answer)| answer)),
    };
    assert_eq!(status(open(&[]).await), 401);
    let forged = [("cookie", &*cookie), ("origin", "https://evil.example")];
    assert_eq!(status(open(&forged).await), 403, "another site opens a socket with the visitor's cookie");

    let (mut socket, _) = open(&[("cookie", &cookie), ("origin", ORIGIN)]).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    log_out(&app, &cookie).await;
    let last = timeout(Duration::from_secs(10), socket.next()).await.expect("it stays open after log-out");
    match last.unwrap().unwrap() {
        Message::Close(Some(frame)) => assert_eq!((frame.code, &*frame.reason), (CloseCode::Policy, "revoked")),
        other => panic!("{other:?}"),
    }
}
