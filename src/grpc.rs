//! What gRPC calls a refusal: a status in the head and no body ("Trailers-Only" in gRPC over HTTP/2), or in the trailers of an
//! answer that has begun.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use crate::rejection::{Rejection, RejectionKind};

const MEDIA_TYPE: &[u8] = b"application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
#[cfg(feature = "rate-limit")]
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// How long a client that retries by itself waits (gRFC A6); below zero it does not try again.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Whether a request is a gRPC call: a POST of `application/grpc`, with or without `+proto` and the like, over HTTP/2 at least, or with
/// the `TE: trailers` of every gRPC client, which a translation of gRPC-Web writes into a request of HTTP/1.1.
/// `application/grpc-web` is not.
pub(crate) fn is_call(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    let te = || headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let may_be = method == Method::POST && (version >= Version::HTTP_2 || te());
    may_be && headers.get(header::CONTENT_TYPE).is_some_and(|value| is_media_type(value.as_bytes()))
}

/// Whether a response is one of gRPC: `application/grpc`, with or without `+proto` and the like. `application/grpc-web` is not.
#[cfg(feature = "stack")]
pub(crate) fn is_answer(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| is_media_type(value.as_bytes()))
}

fn is_media_type(value: &[u8]) -> bool {
    value.split_at_checked(MEDIA_TYPE.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest, [] | [b'+' | b';' | b' ', ..])
    })
}

/// The trailers that end a call whose answer has begun.
#[cfg(feature = "lifetime")]
pub(crate) fn trailers(rejection: &Rejection) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(u16::from(code(rejection.kind()))));
    trailers.insert(MESSAGE, HeaderValue::from_static(rejection.kind().detail()));
    #[cfg(feature = "rate-limit")]
    if let Some(details) = details::header(rejection) {
        trailers.insert(DETAILS, details);
    }
    trailers
}

/// The status code of a kind (`google.rpc.Code`).
pub(crate) const fn code(kind: RejectionKind) -> u8 {
    match kind {
        RejectionKind::InvalidRequest => 3,
        // What is not there, or not of the form of a method's path, is a method that nobody implements: to tonic as well.
        RejectionKind::NotFound | RejectionKind::InvalidPath => 12,
        RejectionKind::Forbidden | RejectionKind::CrossSite | RejectionKind::InsufficientScope => 7,
        RejectionKind::RateLimited => 8,
        // Another connection is needed, not another call.
        RejectionKind::PlainHttp | RejectionKind::Redirect | RejectionKind::Misdirected => 9,
        RejectionKind::Misconfigured => 13,
        RejectionKind::TooEarly | RejectionKind::Unavailable => 14,
        RejectionKind::Unauthenticated
        | RejectionKind::InvalidCredential
        | RejectionKind::InsufficientAuthentication => 16,
    }
}

/// The fields that tell a client when to come back, beside what the response of a refusal has anyway.
fn pushback(rejection: &Rejection) -> Option<HeaderValue> {
    match (rejection.kind(), rejection.retry_after_seconds()) {
        (_, Some(seconds)) => Some(HeaderValue::from(i64::from(seconds).saturating_mul(1_000))),
        (RejectionKind::RateLimited, None) => Some(HeaderValue::from(-1)),
        (_, None) => None,
    }
}

/// What goes along with a status that a handler answers: challenges, and when to come back.
#[cfg(feature = "tonic")]
pub(crate) fn metadata(rejection: &Rejection) -> HeaderMap {
    let mut fields = rejection.head::<()>().into_parts().0.headers;
    if let Some(pushback) = pushback(rejection) {
        fields.insert(PUSHBACK, pushback);
    }
    fields
}

/// The refusal that a handler's status was made of.
#[cfg(feature = "tonic")]
pub(crate) struct Cause(pub(crate) Rejection);

/// Without the reason: a status shows its source in its `Display`, which a handler may send to a client.
#[cfg(feature = "tonic")]
impl std::fmt::Debug for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cause").field(&self.0.kind()).finish()
    }
}

#[cfg(feature = "tonic")]
impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(feature = "tonic")]
impl std::error::Error for Cause {}

/// The refusal that a response tells of: a layer's, or one that a handler of tonic has made a status of.
#[cfg(feature = "audit")]
pub(crate) fn told(response: &http::Extensions) -> Option<&Rejection> {
    let rejection = response.get::<Rejection>();
    #[cfg(feature = "tonic")]
    let rejection = rejection.or_else(|| {
        let status = response.get::<::tonic::Status>()?;
        std::error::Error::source(status)?.downcast_ref().map(|Cause(rejection)| rejection)
    });
    rejection
}

/// Turns the response of a refusal into one that a gRPC client understands. Its other header fields become metadata.
pub(crate) fn render<B>(rejection: &Rejection, response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let kind = rejection.kind();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(u16::from(code(kind))));
    if kind == RejectionKind::NotFound {
        // As tonic answers to a method that it does not have: nothing more, so that what is hidden cannot be told from it.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        return;
    }
    // Printable ASCII without a percent sign, so there is nothing to encode.
    headers.insert(MESSAGE, HeaderValue::from_static(kind.detail()));
    if let Some(pushback) = pushback(rejection) {
        headers.insert(PUSHBACK, pushback);
    }
    #[cfg(feature = "rate-limit")]
    if let Some(details) = details::header(rejection) {
        headers.insert(DETAILS, details);
    }
}

#[cfg(feature = "tonic")]
pub(crate) use details::of as details;

/// `google.rpc.Status` with a `google.rpc.ErrorInfo` and a `google.rpc.RetryInfo`, in the wire format of Protocol Buffers:
/// all fields are varints or texts.
#[cfg(any(feature = "rate-limit", feature = "tonic"))]
mod details {
    use crate::rejection::Rejection;

    /// Whose reasons they are.
    const DOMAIN: &[u8] = b"portcullis";

    #[cfg(feature = "rate-limit")]
    pub(super) fn header(rejection: &Rejection) -> Option<http::HeaderValue> {
        use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

        http::HeaderValue::try_from(STANDARD_NO_PAD.encode(of(rejection))).ok()
    }

    pub(crate) fn of(rejection: &Rejection) -> Vec<u8> {
        let kind = rejection.kind();
        // ErrorInfo { reason = 1, domain = 2 }
        let reason = kind.code().to_ascii_uppercase();
        let error_info = [bytes(1, reason.as_bytes()), bytes(2, DOMAIN)].concat();
        // Status { code = 1, message = 2, details = 3 }
        let mut status = [number(1, super::code(kind).into()), bytes(2, kind.detail().as_bytes())].concat();
        status.extend(any(b"type.googleapis.com/google.rpc.ErrorInfo", &error_info));
        if let Some(seconds) = rejection.retry_after_seconds() {
            // Duration { seconds = 1 } in RetryInfo { retry_delay = 1 }
            status.extend(any(b"type.googleapis.com/google.rpc.RetryInfo", &bytes(1, &number(1, seconds))));
        }
        status
    }

    /// One of a status's details: Any { type_url = 1, value = 2 }.
    fn any(url: &[u8], value: &[u8]) -> Vec<u8> {
        bytes(3, &[bytes(1, url), bytes(2, value)].concat())
    }

    fn varint(mut number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    fn number(field: u8, value: u32) -> Vec<u8> {
        [vec![field << 3], varint(value)].concat()
    }

    fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        [vec![field << 3 | 2], varint(length), value.to_vec()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_media_type() {
        for (method, version, content_type, call) in [
            (Method::POST, Version::HTTP_2, "application/grpc", true),
            (Method::POST, Version::HTTP_2, "Application/gRPC+proto", true),
            (Method::POST, Version::HTTP_3, "application/grpc", true),
            (Method::POST, Version::HTTP_11, "application/grpc", false),
            (Method::POST, Version::HTTP_2, "application/grpc;x=1", true),
            (Method::POST, Version::HTTP_2, "application/grpc-web", false),
            (Method::POST, Version::HTTP_2, "application/grpcx", false),
            (Method::POST, Version::HTTP_2, "application/json", false),
            (Method::POST, Version::HTTP_2, "", false),
            (Method::GET, Version::HTTP_2, "application/grpc", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::try_from(content_type).unwrap())]);
            assert_eq!(is_call(&method, version, &headers), call, "{method} {version:?} {content_type}");
        }
        assert!(!is_call(&Method::POST, Version::HTTP_2, &HeaderMap::new()));
        let translated = [(header::CONTENT_TYPE, "application/grpc"), (header::TE, "trailers")];
        let translated = translated.map(|(name, value)| (name, HeaderValue::from_static(value)));
        assert!(is_call(&Method::POST, Version::HTTP_11, &HeaderMap::from_iter(translated)));
    }

    #[test]
    fn messages_need_no_encoding() {
        for kind in [RejectionKind::RateLimited, RejectionKind::InvalidCredential, RejectionKind::Unavailable] {
            assert!(kind.detail().bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'%'));
        }
    }
}
