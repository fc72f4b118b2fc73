//! Decision points that hang, lie, flood and break off, and one that is not who it should be.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Redirect},
    routing,
};
use portcullis::{
    http_client::{FetchLimits, HttpsFetch},
    policy::{AuthZen, Decision, DecisionPoint, Opa, PolicyBackend, Verdict},
    tls::TlsListener,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    server::{ISSUER, Server, reads},
    support::certs::Authority,
};

/// Both protocols at one decision point.
fn policies(point: impl Fn() -> DecisionPoint) -> [Box<dyn PolicyBackend>; 2] {
    let opa = Opa::builder(point(), "data.orders.allow").build().unwrap();
    let authzen = AuthZen::builder(point()).subjects(ISSUER, "user").build().unwrap();
    [Box::new(opa), Box::new(authzen)]
}

fn cause(verdict: &Verdict) -> &str {
    assert_eq!(verdict.decision(), Decision::CannotDecide, "{verdict:?}");
    &verdict.reasons()[0]
}

/// A server that does with each connection what it is told.
async fn raw<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// 50 ms: what hangs is waited for in full.
fn at(address: SocketAddr) -> DecisionPoint {
    let limits = FetchLimits::new(Duration::from_millis(50), 1_024);
    DecisionPoint::at(format!("http://{address}")).dangerous_http_on_loopback().limits(limits)
}

async fn read_request(stream: &mut TcpStream) {
    let mut bytes = [0; 4_096];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
}

#[tokio::test]
async fn a_server_that_hangs() {
    let silent = raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let silent = silent.await;
    for policy in policies(|| at(silent)) {
        let verdict = reads(&policy).await;
        assert!(cause(&verdict).contains("timed out"), "{verdict:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_end() {
    let slow = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"result\":").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    for policy in policies(|| at(slow)) {
        assert!(cause(&reads(&policy).await).contains("timed out"));
    }
    let broken_off = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"result\": true}").await.unwrap();
    })
    .await;
    for policy in policies(|| at(broken_off)) {
        cause(&reads(&policy).await);
    }
}

#[tokio::test]
async fn a_body_without_bounds() {
    let flood = raw(|mut stream| async move {
        read_request(&mut stream).await;
        let mut more = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while more.is_ok() {
            more = stream.write_all(b"400\r\n").await;
            more = more.and(stream.write_all(&[b' '; 0x400]).await).and(stream.write_all(b"\r\n").await);
        }
    })
    .await;
    for policy in policies(|| at(flood).limits(FetchLimits::new(Duration::from_secs(30), 4_096))) {
        let verdict = reads(&policy).await;
        assert!(cause(&verdict).contains("more than 4096 bytes"), "{verdict:?}");
    }
}

#[tokio::test]
async fn connections_that_break() {
    let closed = raw(|stream| async move { drop(stream) }).await;
    for policy in policies(|| at(closed)) {
        cause(&reads(&policy).await);
    }
    let nonsense = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
    })
    .await;
    for policy in policies(|| at(nonsense)) {
        cause(&reads(&policy).await);
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for policy in policies(|| at(gone)) {
        cause(&reads(&policy).await);
    }
}

#[tokio::test]
async fn other_statuses_are_no_decision() {
    for status in [201, 202, 204, 206, 400, 401, 403, 404, 429, 500, 502, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        let server = Server::start(move |_| (status, r#"{"result": true, "decision": true}"#).into_response()).await;
        for policy in policies(|| server.point()) {
            let verdict = reads(&policy).await;
            assert!(cause(&verdict).contains(&format!("answers {}", status.as_u16())), "{verdict:?}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::saying(r#"{"result": true, "decision": true}"#).await;
    let target = format!("http://{}/elsewhere", elsewhere.address);
    let server = Server::start(move |_| Redirect::temporary(&target).into_response()).await;
    for policy in policies(|| server.with_token()) {
        assert!(cause(&reads(&policy).await).contains("redirects are not followed"));
    }
    assert!(elsewhere.asked().is_empty(), "the token went nowhere");
}

#[tokio::test]
async fn a_log_line_stays_one() {
    let server = Server::start(|_| (StatusCode::BAD_GATEWAY, "a\r\nb\u{1b}[31m".repeat(10_000)).into_response()).await;
    for policy in policies(|| server.point()) {
        let verdict = reads(&policy).await;
        assert!(cause(&verdict).len() <= 500 && !cause(&verdict).contains(char::is_control), "{verdict:?}");
    }
}

#[tokio::test]
async fn over_tls_the_name_and_the_authority_count() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let listener = TlsListener::bind("127.0.0.1:0", ours.server(&["localhost"]).for_server()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().fallback(routing::post(async || r#"{"result": true, "decision": true}"#));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let ask = |host: &'static str, trusted: &Authority| {
        let client = HttpsFetch::builder().roots(&trusted.pem).keep_connections(1).build().unwrap();
        let limits = FetchLimits::new(Duration::from_secs(30), 1_024);
        policies(|| DecisionPoint::at(format!("https://{host}:{port}")).http(client.clone()).limits(limits))
    };
    for policy in ask("localhost", &ours) {
        assert!(reads(&policy).await.is_allow());
    }
    for policy in ask("127.0.0.1", &ours).into_iter().chain(ask("localhost", &theirs)) {
        let verdict = reads(&policy).await;
        assert!(cause(&verdict).to_lowercase().contains("certificate"), "{verdict:?}");
    }
}

#[tokio::test]
async fn no_more_questions_than_the_bound_are_on_their_way() {
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (arrived, gate) = (Arc::clone(&came), Arc::clone(&may_go));
    let slow = raw(move |mut stream| {
        let (arrived, gate) = (Arc::clone(&arrived), Arc::clone(&gate));
        async move {
            read_request(&mut stream).await;
            arrived.add_permits(1);
            gate.acquire().await.unwrap().forget();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"result\": true}";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let limits = FetchLimits::new(Duration::from_secs(30), 1_024);
    let policy = Opa::builder(at(slow).limits(limits).max_in_flight(2), "data.orders.allow").build().unwrap();
    let ask = || {
        let policy = policy.clone();
        tokio::spawn(async move { reads(&policy).await })
    };
    let waiting = [ask(), ask()];
    came.acquire_many(2).await.unwrap().forget();
    for _ in 0..3 {
        let verdict = reads(&policy).await;
        assert!(cause(&verdict).contains("2 questions are on their way already"), "{verdict:?}");
    }
    assert!(policy.health().failure().is_none(), "the decision point is well");
    // Who gives up makes room.
    let [given_up, kept] = waiting;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    let third = ask();
    came.acquire().await.unwrap().forget();
    may_go.add_permits(3);
    assert!(kept.await.unwrap().is_allow() && third.await.unwrap().is_allow());
    assert_eq!(came.available_permits(), 0, "what was over the bound never came");
}
