use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use crate::{
    context::RequestId,
    error::ConfigError,
    grpc,
    rejection::{Rejection, RejectionKind},
};

/// What a renderer may know of the request.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    has_body: bool,
    json: bool,
    grpc: bool,
    id: Option<RequestId>,
}

impl Request {
    pub(crate) fn of<B>(request: &http::Request<B>, id: Option<RequestId>) -> Self {
        let (method, headers) = (request.method(), request.headers());
        // A look at each name costs less than the hash of one, for as many fields as requests have.
        let mut named = headers.iter().filter(|(name, _)| **name == header::ACCEPT).peekable();
        let json = named.peek().is_none() || named.any(|(_, value)| names_json(value.as_bytes()));
        Self { has_body: method != Method::HEAD, json, grpc: grpc::is_call(method, request.version(), headers), id }
    }

    /// Tells its id, once it has one.
    #[cfg(feature = "stack")]
    pub(crate) const fn is_of(&mut self, id: RequestId) {
        self.id = Some(id);
    }

    /// Whether the client takes JSON: it said so, or named nothing. Only one that names neither JSON nor a wildcard does
    /// not.
    #[must_use]
    pub const fn accepts_json(&self) -> bool {
        self.json
    }

    /// The request's id, for support staff to find the audit record by.
    #[must_use]
    pub const fn id(&self) -> Option<RequestId> {
        self.id
    }
}

/// Whether `Accept` names JSON, `*/*` or `application/*`. One pass, since it runs for every request.
fn names_json(accept: &[u8]) -> bool {
    let starts = |at: usize, word: &[u8]| {
        accept.get(at..at.saturating_add(word.len())).is_some_and(|part| part.eq_ignore_ascii_case(word))
    };
    accept.iter().enumerate().any(|(at, byte)| match byte {
        b'j' | b'J' => starts(at, b"json"),
        b'*' => starts(at, b"*/*") || at.checked_sub(12).is_some_and(|start| starts(start, b"application/*")),
        _ => false,
    })
}

/// A body and its media type.
#[derive(Clone, Debug)]
pub struct Rendered {
    content_type: HeaderValue,
    body: Bytes,
}

impl Rendered {
    /// A body of this media type.
    pub fn new(content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self { content_type, body: body.into() }
    }

    /// The media type.
    #[must_use]
    pub const fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Writes the bodies of refusals.
///
/// # Contract
/// A renderer shows [`RejectionKind`], never [`Rejection::reason`]: that is for the operator. It must not panic.
pub trait RejectionRenderer: fmt::Debug + Send + Sync + 'static {
    /// Writes a body, or none.
    fn render(&self, rejection: &Rejection, request: &Request) -> Option<Rendered>;
}

impl<R: RejectionRenderer + ?Sized> RejectionRenderer for Arc<R> {
    fn render(&self, rejection: &Rejection, request: &Request) -> Option<Rendered> {
        (**self).render(rejection, request)
    }
}

/// Writes what is not there, or hidden, with one renderer, and everything else with another.
#[derive(Clone, Debug)]
pub(crate) struct NotFoundApart {
    pub(crate) not_found: Arc<dyn RejectionRenderer>,
    pub(crate) others: Arc<dyn RejectionRenderer>,
}

impl RejectionRenderer for NotFoundApart {
    fn render(&self, rejection: &Rejection, request: &Request) -> Option<Rendered> {
        match rejection.kind() {
            RejectionKind::NotFound => self.not_found.render(rejection, request),
            _ => self.others.render(rejection, request),
        }
    }
}

/// Writes problem details (RFC 9457), or one line of text for a client that does not take JSON.
///
/// Members: `type`, `title` (the status phrase, §4.2.1), `status`, `detail` (from a fixed table), `code`
/// ([`RejectionKind::code`]), `request_id`, and `violated-policies` where a quota refuses. `type` is `about:blank` unless [`with_type_base`](Self::with_type_base) gives
/// documents of your own; for `429` it is the registered `quota-exceeded`
/// (draft-ietf-httpapi-ratelimit-headers-10 §5).
#[derive(Clone, Debug, Default)]
pub struct ProblemDetails {
    type_base: Option<Arc<str>>,
}

impl ProblemDetails {
    /// Problem details without types of your own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `type` to this absolute URI followed by the kind's code, for example
    /// `https://errors.example.com/` and `forbidden`.
    ///
    /// # Errors
    /// If `base` is not an absolute URI in `https` that ends in `/` or `#`.
    pub fn with_type_base(base: &str) -> Result<Self, ConfigError> {
        let absolute = base.starts_with("https://") && base.ends_with(['/', '#']);
        // RFC 3986 has neither quotes nor backslashes, and a document would have to escape them.
        if !absolute || !base.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            return Err(ConfigError::new(
                "problem type base",
                format!("{base:?}"),
                "must be an https URI ending in / or #",
            ));
        }
        Ok(Self { type_base: Some(base.into()) })
    }

    fn type_of(&self, kind: RejectionKind) -> [&str; 2] {
        match (&self.type_base, kind) {
            (Some(base), _) => [base, kind.code()],
            (None, RejectionKind::RateLimited) => {
                ["https://iana.org/assignments/http-problem-types#quota-exceeded", ""]
            }
            (None, _) => ["about:blank", ""],
        }
    }

    /// The document. Whoever floods a service with bad requests makes it write this each time, so it is put together of pieces
    /// that need no escaping: all but the name of a policy come from fixed tables, or were checked.
    fn document(&self, rejection: &Rejection, id: Option<RequestId>) -> Option<String> {
        let (kind, status) = (rejection.kind(), rejection.kind().status());
        let [base, code] = self.type_of(kind);
        let mut document = String::with_capacity(320_usize.saturating_add(base.len()));
        let title = status.canonical_reason().unwrap_or("Error");
        for piece in [r#"{"type":""#, base, code, r#"","title":""#, title, r#"","status":"#, status.as_str()] {
            document.push_str(piece);
        }
        for piece in [r#","detail":""#, kind.detail(), r#"","code":""#, kind.code(), r#"""#] {
            document.push_str(piece);
        }
        if let Some(id) = id {
            document.push_str(r#","request_id":""#);
            document.push_str(std::str::from_utf8(&id.digits()).ok()?);
            document.push('"');
        }
        if let Some(name) = rejection.violated_policy() {
            // The name is the draft's, hyphen and all, although RFC 9457 §3.2 advises against it.
            document.push_str(r#","violated-policies":["#);
            document.push_str(&serde_json::to_string(name).ok()?);
            document.push(']');
        }
        document.push('}');
        Some(document)
    }
}

impl RejectionRenderer for ProblemDetails {
    fn render(&self, rejection: &Rejection, request: &Request) -> Option<Rendered> {
        let kind = rejection.kind();
        if !request.accepts_json() {
            return Some(Rendered::new(HeaderValue::from_static("text/plain; charset=utf-8"), kind.detail()));
        }
        let document = self.document(rejection, request.id)?;
        Some(Rendered::new(HeaderValue::from_static("application/problem+json"), document))
    }
}

/// Renders into a body, where the request takes one.
pub(crate) fn render_into<B: crate::body::ResponseBody>(
    renderer: &dyn RejectionRenderer,
    rejection: &Rejection,
    request: &Request,
    response: &mut http::Response<B>,
) {
    if request.grpc {
        grpc::render(rejection, response);
        return;
    }
    if !request.has_body {
        // A router may have written that of the empty body, and the reply to GET has another (RFC 9110 §8.6).
        response.headers_mut().remove(header::CONTENT_LENGTH);
        return;
    }
    if let Some(rendered) = renderer.render(rejection, request) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, rendered.content_type);
        // The one of the empty body: a router may have written it already.
        headers.remove(header::CONTENT_LENGTH);
        *response.body_mut() = B::full(rendered.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(accept: Option<&'static str>) -> Request {
        let mut request = http::Request::new(());
        if let Some(accept) = accept {
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        Request::of(&request, None)
    }

    fn rendered(renderer: &ProblemDetails, accept: Option<&'static str>) -> Rendered {
        let rejection = Rejection::new(RejectionKind::InvalidCredential, "kid 4711 unknown");
        renderer.render(&rejection, &request(accept)).unwrap()
    }

    #[test]
    fn a_problem_document_has_the_members_and_not_the_reason() {
        let rendered = rendered(&ProblemDetails::new(), None);
        let document: serde_json::Value = serde_json::from_slice(rendered.body()).unwrap();
        assert_eq!(document["type"], "about:blank");
        assert_eq!(document["title"], "Unauthorized");
        assert_eq!(document["status"], 401);
        assert_eq!(document["code"], "invalid_credential");
        assert!(!String::from_utf8_lossy(rendered.body()).contains("4711"));
    }

    /// The pieces make a document whatever the kind and the name of the policy.
    #[test]
    fn every_document_is_json() {
        let kinds = [
            RejectionKind::InvalidRequest,
            RejectionKind::Unauthenticated,
            RejectionKind::InvalidCredential,
            RejectionKind::InsufficientAuthentication,
            RejectionKind::Forbidden,
            RejectionKind::NotFound,
            RejectionKind::InsufficientScope,
            RejectionKind::PlainHttp,
            RejectionKind::Redirect,
            RejectionKind::Misdirected,
            RejectionKind::InvalidPath,
            RejectionKind::TooEarly,
            RejectionKind::RateLimited,
            RejectionKind::Misconfigured,
            RejectionKind::Unavailable,
        ];
        let id = crate::SecurityContext::open(crate::clock::Instants::new(0, 0)).request_id();
        for kind in kinds {
            for renderer in [ProblemDetails::new(), ProblemDetails::with_type_base("https://e.example.com/#").unwrap()]
            {
                let rejection = Rejection::new(kind, "kid 4711").with_violated_policy(r#"a "b" \ c"#);
                let text = renderer.document(&rejection, Some(id)).unwrap();
                let read: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(
                    (read["status"].as_u64(), &read["code"]),
                    (Some(kind.status().as_u16().into()), &kind.code().into())
                );
                assert_eq!(read["detail"], kind.detail());
                assert_eq!(read["request_id"], id.to_string());
                assert_eq!(read["violated-policies"], serde_json::json!([r#"a "b" \ c"#]));
                assert_eq!(read.as_object().unwrap().len(), 7, "{text}");
            }
        }
    }

    #[test]
    fn media_types_are_negotiated() {
        for (name, accept, media_type) in [
            ("nothing said", None, "application/problem+json"),
            ("anything", Some("*/*"), "application/problem+json"),
            ("problem", Some("Application/Problem+JSON"), "application/problem+json"),
            ("a browser's", Some("text/html,application/xhtml+xml,*/*;q=0.8"), "application/problem+json"),
            ("any application", Some("application/*"), "application/problem+json"),
            ("any text", Some("text/*"), "text/plain; charset=utf-8"),
            ("html alone", Some("text/html"), "text/plain; charset=utf-8"),
        ] {
            assert_eq!(rendered(&ProblemDetails::new(), accept).content_type(), media_type, "{name}");
        }
    }

    #[test]
    fn a_type_base_is_absolute() {
        let renderer = ProblemDetails::with_type_base("https://errors.example.com/").unwrap();
        assert!(
            String::from_utf8_lossy(rendered(&renderer, None).body())
                .contains("https://errors.example.com/invalid_credential")
        );
        for (name, base) in [
            ("relative", "errors/"),
            ("a quote", "https://a\"/"),
            ("a backslash", "https://a\\/"),
            ("http", "http://a/"),
            ("no end", "https://a"),
            ("space", "https://a b/"),
        ] {
            assert!(ProblemDetails::with_type_base(base).is_err(), "{name}");
        }
    }
}
