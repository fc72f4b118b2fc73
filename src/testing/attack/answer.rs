//! What comes back, and what of it can be compared.

use std::{collections::BTreeSet, pin::Pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, response::Parts};

pub(super) type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The status is made of a `grpc-status`: no field of HTTP goes with it.
    pub(super) is_grpc: bool,
}

impl Answer {
    /// What came back, with what stood after the body. A gRPC call that was refused or failed is `200` to HTTP: of one, the status is
    /// that by which HTTP says the same.
    pub(super) fn of(head: Parts, body: Bytes, trailers: Option<&HeaderMap>) -> Self {
        let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        let says_so = head.headers.get(header::CONTENT_TYPE).is_some_and(is_grpc);
        let status = head.status.as_u16();
        if !says_so || status != 200 {
            return Self { status, headers: head.headers, body, is_grpc: false };
        }
        // In the head where nothing else comes ("Trailers-Only"), else after the messages.
        let code = head.headers.get("grpc-status").or_else(|| trailers?.get("grpc-status"));
        let status = grpc_as_http(code.and_then(|code| code.to_str().ok()));
        Self { status, headers: head.headers, body, is_grpc: true }
    }

    /// The connection was closed: nobody is let in, and a refusal it is not.
    pub(super) fn unanswered() -> Self {
        Self { status: 0, headers: HeaderMap::new(), body: Bytes::new(), is_grpc: false }
    }

    /// Whether it is one that two others to one request are, as far as these agree: what is made anew has another number.
    pub(super) fn is_like(&self, [one, two]: [&Self; 2]) -> bool {
        let is_same_body = if one.body == two.body {
            self.body == one.body
        } else {
            outline(&one.body) != outline(&two.body) || outline(&self.body) == outline(&one.body)
        };
        self.status == one.status && is_same_body
    }

    /// What of its form another answer has not: a field, the kind of its body, its challenge. What stands in the body
    /// may tell of the request.
    pub(super) fn form_unlike(&self, other: &Self) -> Option<String> {
        fn names(answer: &Answer) -> BTreeSet<&str> {
            answer.headers.keys().map(HeaderName::as_str).collect()
        }
        if let Some(name) = names(self).symmetric_difference(&names(other)).next() {
            return Some(format!("set of fields ({name})"));
        }
        let unlike = [header::CONTENT_TYPE, header::WWW_AUTHENTICATE, header::ALLOW, header::VARY]
            .into_iter()
            .find(|name| self.headers.get_all(name) != other.headers.get_all(name));
        unlike
            .map(|name| name.to_string())
            .or_else(|| (self.body.is_empty() != other.body.is_empty()).then(|| "body".to_owned()))
    }

    /// Whether it says that the credential is none (RFC 9110 §15.5.2), and not that a stronger one is asked for (RFC 9470 §3).
    pub(super) fn takes_no_token(&self) -> bool {
        let steps_up = |challenge: &HeaderValue| {
            String::from_utf8_lossy(challenge.as_bytes()).contains("insufficient_user_authentication")
        };
        self.status == 401 && !self.headers.get_all(header::WWW_AUTHENTICATE).iter().any(steps_up)
    }

    /// Whether it cannot be decided now, and may be later (RFC 9110 §15.6.4, §10.2.3).
    pub(super) fn asks_to_come_again(&self) -> bool {
        self.status == 503 && self.headers.contains_key(header::RETRY_AFTER)
    }
}

/// What HTTP says for a status of gRPC. One that says none has failed (gRPC over HTTP/2, "Responses").
fn grpc_as_http(code: Option<&str>) -> u16 {
    match code {
        Some("0") => 200,
        Some("3" | "9" | "11") => 400,
        Some("16") => 401,
        Some("7") => 403,
        Some("5" | "12") => 404,
        Some("6" | "10") => 409,
        Some("8") => 429,
        Some("14") => 503,
        _ => 500,
    }
}

/// What of a body is the same when only numbers and times in it are others.
pub(super) fn outline(body: &[u8]) -> Vec<u8> {
    body.iter().copied().filter(|byte| !byte.is_ascii_digit()).collect()
}
