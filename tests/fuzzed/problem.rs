//! The first byte picks a refusal, the second a method, and each further line is one `Accept` field. Whatever a client
//! accepts, the body is one of two media types, true to the kind, and never shows the reason.

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
    let mut request = Request::new(());
    *request.method_mut() = if method % 8 == 0 { Method::HEAD } else { Method::GET };
    let accept: Vec<_> = lines(accept).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    request.headers_mut().extend(accept.iter().map(|value| (header::ACCEPT, value.clone())));
    let head = request.method() == Method::HEAD;

    let refuse = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Rejection::new(kind, REASON).to_response::<Full<Bytes>>()))
    });
    let (parts, body) = send(ProblemLayer::new().layer(refuse), request).into_parts();
    let Ok(body) = now(body.collect()).map(|body| body.to_bytes());

    assert_eq!(parts.status, kind.status());
    let length = parts.headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap());
    assert!(head || length.is_none_or(|length| length == body.len().to_string()));
    let media_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let text = std::str::from_utf8(&body).unwrap();
    assert!(!text.contains(REASON));
    match media_type {
        None => assert!(head && body.is_empty()),
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
