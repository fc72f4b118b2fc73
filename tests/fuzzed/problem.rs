//! The first byte picks a refusal, the second a method, and each further line is one `Accept` field. Whatever a client
//! accepts, the body is one of two media types, true to the kind, and never shows the reason; HEAD is told of it as GET is.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use portcullis::{Rejection, RejectionKind, problem::ProblemLayer};
use tower::{Layer, service_fn};

use super::memory::{lines, now, send};

const KINDS: [RejectionKind; 16] = [
    RejectionKind::InvalidRequest,
    RejectionKind::InvalidPath,
    RejectionKind::Unauthenticated,
    RejectionKind::InvalidCredential,
    RejectionKind::InsufficientAuthentication,
    RejectionKind::Forbidden,
    RejectionKind::NotFound,
    RejectionKind::InsufficientScope,
    RejectionKind::PlainHttp,
    RejectionKind::Redirect,
    RejectionKind::Misdirected,
    RejectionKind::TooEarly,
    RejectionKind::RateLimited,
    RejectionKind::Misconfigured,
    RejectionKind::Unavailable,
    RejectionKind::CrossSite,
];
const REASON: &str = "for the operator alone";

/// Panics if something of that does not hold.
pub fn check(data: &[u8]) {
    let [kind, method, accept @ ..] = data else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let accept: Vec<_> = lines(accept).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let answer = |method: Method| {
        let mut request = Request::new(());
        *request.method_mut() = method;
        request.headers_mut().extend(accept.iter().map(|value| (header::ACCEPT, value.clone())));
        let refuse = service_fn(move |_: Request<()>| {
            std::future::ready(Ok::<_, Infallible>(Rejection::new(kind, REASON).to_response::<Full<Bytes>>()))
        });
        let (parts, body) = send(ProblemLayer::new().layer(refuse), request).into_parts();
        let Ok(body) = now(body.collect()).map(|body| body.to_bytes());
        (parts, body)
    };
    let (mut parts, body) = answer(Method::GET);
    assert_eq!(parts.status, kind.status());
    assert_eq!(parts.headers.get(header::CONTENT_LENGTH), None, "the server writes it");
    if method % 8 == 0 {
        let (of_head, nothing) = answer(Method::HEAD);
        assert!(nothing.is_empty());
        assert_eq!(of_head.status, parts.status);
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        assert_eq!(of_head.headers, parts.headers);
    }
    let media_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let text = std::str::from_utf8(&body).unwrap();
    assert!(!text.contains(REASON));
    match media_type {
        None => panic!("no media type"),
        Some(b"application/problem+json") => {
            let document: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!((&document["status"], &document["code"]), (&kind.status().as_u16().into(), &kind.code().into()));
        }
        Some(b"text/plain; charset=utf-8") => {
            assert_eq!(text, kind.detail());
            let names =
                |word: &[u8]| accept.iter().any(|value| value.as_bytes().windows(word.len()).any(|at| at == word));
            assert!(!accept.is_empty() && !names(b"*/*") && !names(b"application/json") && !names(b"application/*"));
        }
        Some(other) => panic!("{}", String::from_utf8_lossy(other)),
    }
}
