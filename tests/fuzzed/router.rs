//! Routers for administration, behind a stack.

use std::sync::LazyLock;

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt;
use portcullis::{
    Challenge, Connection, Principal, TlsVersion,
    authn::{Outcome, authenticate_fn},
    guard::Rule,
    policy::Rbac,
    stack::Stack,
};
use tower::ServiceExt;

use super::memory::{clock, now};

/// What somebody asks: a method and a target in the first line, the type of the body in the second one, and the body.
#[derive(Debug)]
pub struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub media: Option<HeaderValue>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn read(data: &[u8]) -> Option<Self> {
        let mut parts = data.splitn(3, |byte| *byte == b'\n');
        let mut words = parts.next()?.splitn(2, |byte| *byte == b' ');
        let (method, uri) = (Method::from_bytes(words.next()?).ok()?, Uri::try_from(words.next()?).ok()?);
        let media = parts.next().and_then(|media| HeaderValue::from_bytes(media).ok());
        Some(Self { method, uri, media, body: parts.next().unwrap_or_default().to_vec() })
    }

    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.uri.path() == path
    }

    /// Whether the body is said to be of this type.
    pub fn is_of(&self, media: &str) -> bool {
        let said = self.media.as_ref().map_or(&[][..], HeaderValue::as_bytes);
        let said = String::from_utf8_lossy(said);
        said.split_once(';').map_or(&*said, |(said, _)| said).trim().to_ascii_lowercase() == media
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(self.body.clone().into());
        (*request.method_mut(), *request.uri_mut()) = (self.method.clone(), self.uri.clone());
        request.headers_mut().extend(self.media.clone().map(|media| (header::CONTENT_TYPE, media)));
        request.extensions_mut().insert(Connection::tls(([198, 51, 100, 7], 52100).into(), TlsVersion::Tls13));
        request
    }
}

static POLICY: LazyLock<Rbac> = LazyLock::new(|| {
    let policy = r#"
        version = "1"
        permissions = [
            "keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:disable-owner", "keys:any-owner",
            "keys:grant-any", "tokens:revoke", "tokens:revoke-many",
        ]
        [roles.support]
        grants = ["keys:create", "keys:read", "keys:rotate", "keys:revoke", "tokens:revoke"]
        [roles.operator]
        grants = ["*"]
    "#;
    Rbac::from_toml(policy).unwrap()
});

/// The status and the body of the answer that somebody gets. Each body is JSON in which no member stands twice.
pub fn ask(app: Router, rules: Vec<(String, Rule)>, who: &Principal, asked: &Asked) -> (u16, Bytes) {
    let who = who.clone();
    let known = authenticate_fn(Challenge::new("Test", "fuzz").unwrap(), move |_, _| Outcome::verified(who.clone()));
    let stack = Stack::builder().dangerous_plain_http().clock(clock()).authenticate(known).policy(POLICY.clone());
    let stack = rules.into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
    let Ok(response) = now(stack.build().unwrap().protect(app).oneshot(asked.request()));
    let (head, body) = response.into_parts();
    let body = now(body.collect()).unwrap().to_bytes();
    assert!(body.is_empty() || super::json::once(&body).is_some(), "{body:?}");
    // What the guard refuses, the stack tells, and shows nothing of what is administered.
    let kept = head.headers.get(header::CACHE_CONTROL).and_then(|said| said.to_str().ok());
    assert!(body.is_empty() || kept == Some("no-store") || kept == Some("private"), "{head:?}");
    (head.status.as_u16(), body)
}
