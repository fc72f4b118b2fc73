//! The input is a request target, and each further line one `Host` field. Plain HTTP never passes, and it is sent on to
//! hosts of the list alone, with path and query as they came, bytes beyond ASCII encoded.

use std::sync::LazyLock;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use portcullis::{Connection, tls::TlsLayer};
use tower::Layer;

use super::memory::{Reached, clock, handler, lines, send};

static TLS: LazyLock<TlsLayer> = LazyLock::new(|| {
    TlsLayer::require().redirect_to(["api.example.com", "shop.example.com:8443"]).unwrap().with_clock(clock())
});

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    let mut lines = lines(data);
    let Some(Ok(uri)) = lines.next().map(Uri::try_from) else { return };
    let mut request = Request::new(());
    for host in lines.filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        request.headers_mut().append(header::HOST, host);
    }
    *request.uri_mut() = uri.clone();
    *request.method_mut() = if data.len().is_multiple_of(5) { Method::POST } else { Method::GET };
    request.extensions_mut().insert(Connection::plain(([198, 51, 100, 7], 52100).into()));
    let posts = request.method() == Method::POST;

    let reached = Reached::default();
    let response = send(TLS.layer(handler(&reached)), request);
    assert!(reached.lock().unwrap().is_none());
    match response.headers().get(header::LOCATION) {
        None => assert_eq!(response.status(), StatusCode::FORBIDDEN),
        Some(location) => {
            assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
            let location = location.to_str().unwrap();
            let listed = ["https://api.example.com/", "https://shop.example.com:8443/"];
            let rest = listed.into_iter().find_map(|base| location.strip_prefix(base)).expect("a host of the list");
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let encode = |byte: u8| if byte.is_ascii() { char::from(byte).into() } else { format!("%{byte:02X}") };
            assert_eq!(format!("/{rest}"), path.bytes().map(encode).collect::<String>());
            assert!(!posts);
        }
    }
}
