//! The input is a method, a space and a request target. With a table that lets everybody in everywhere, no path reaches
//! the service that means another one when it is decoded once or twice; with a closed table, none that is not named.

use std::{borrow::Cow, sync::LazyLock};

use http::{Method, Request, StatusCode, Uri};
use portcullis::{Connection, TlsVersion, guard::public, stack::Stack};

use super::memory::{Reached, clock, handler, send};

static OPEN: LazyLock<Stack> = LazyLock::new(|| {
    let stack = Stack::builder().dangerous_plain_http().clock(clock()).fallback(public());
    stack.route("ANY /files/{*rest}", public()).route("ANY /", public()).build().unwrap()
});
static CLOSED: LazyLock<Stack> = LazyLock::new(|| {
    let stack = Stack::builder().dangerous_plain_http().clock(clock()).route("GET /health", public());
    stack.route("DELETE /orders/{id}", public()).route("ANY /files/{*rest}", public()).build().unwrap()
});

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    let mut halves = data.splitn(2, |byte| *byte == b' ');
    let (Some(Ok(method)), Some(Ok(uri))) = (halves.next().map(Method::from_bytes), halves.next().map(Uri::try_from))
    else {
        return;
    };
    let path = uri.path();
    let never = [Method::TRACE, Method::CONNECT].contains(&method);
    if reaches(&OPEN, &method, &uri) {
        assert!(path.starts_with('/') || path == "*" && method == Method::OPTIONS, "{path}");
        let once = decoded(path.as_bytes());
        for form in [path.as_bytes(), &once, &decoded(&once)] {
            assert!(!ambiguous(form), "{path}");
        }
        let slashes = |form: &[u8]| form.iter().filter(|byte| **byte == b'/').count();
        assert_eq!(slashes(path.as_bytes()), slashes(&decoded(&once)), "{path}");
        assert!(!never);
    }
    if reaches(&CLOSED, &method, &uri) {
        let orders = path.strip_prefix("/orders/").is_some_and(|id| !id.is_empty() && !id.contains('/'));
        let reads = [Method::GET, Method::HEAD].contains(&method);
        let files = path.strip_prefix("/files/").is_some_and(|rest| !rest.is_empty());
        assert!(reads && path == "/health" || method == Method::DELETE && orders || files && !never, "{path}");
    }
}

pub fn reaches(stack: &Stack, method: &Method, uri: &Uri) -> bool {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    request.extensions_mut().insert(Connection::tls(([198, 51, 100, 7], 52100).into(), TlsVersion::Tls13));
    let reached = Reached::default();
    let status = send(stack.protect(handler(&reached)), request).status();
    let reached = reached.lock().unwrap().is_some();
    let expected = if reached { &[StatusCode::OK][..] } else { &[StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN] };
    assert!(expected.contains(&status), "{status}");
    reached
}

/// Whether somebody who normalises the path makes another one of it.
fn ambiguous(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"//")
        || path.iter().any(|byte| matches!(byte, b';' | b'\\' | 0))
        || path.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..")
}

/// Decodes percent signs once, as the lenient do: one that is not followed by two digits stays.
pub fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let value = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.push(value.unwrap_or(*first));
        rest = if value.is_some() { &rest[3..] } else { after };
    }
    out.into()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}
