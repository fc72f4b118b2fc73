use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::PathAndQuery};

use super::log_in::is_target;
use crate::{
    context::RequestId,
    error::ConfigError,
    grpc, log,
    rejection::{Rejection, RejectionKind},
};

/// What a renderer may know of the request.
#[derive(Clone, Debug)]
pub struct Request {
    has_body: bool,
    json: bool,
    html: bool,
    grpc: bool,
    id: Option<RequestId>,
    /// Of browsers alone, and shared with the request: hardly any is refused.
    navigation: Option<PathAndQuery>,
}

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The longest path and query that a renderer is told.
const LONGEST_NAVIGATION: usize = 2_048;

impl Request {
    pub(crate) fn of<B>(request: &http::Request<B>, id: Option<RequestId>) -> Self {
        let (method, headers) = (request.method(), request.headers());
        // A look at each name costs less than the hash of one, for as many fields as requests have.
        let (mut is_named, mut json, mut html) = (false, false, false);
        for (_, value) in headers.iter().filter(|(name, _)| **name == header::ACCEPT) {
            is_named = true;
            json |= names_json(value.as_bytes());
            html |= names_html(value.as_bytes());
        }
        let json = json || !is_named;
        let navigation = if html { navigation(request) } else { None };
        let grpc = grpc::is_call(method, request.version(), headers);
        Self { has_body: method != Method::HEAD, json, html, grpc, id, navigation }
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

    /// Whether the client asks for HTML: it named `text/html`, as browsers do for pages, and not as a wildcard alone. Browsers accept
    /// JSON besides.
    #[must_use]
    pub const fn accepts_html(&self) -> bool {
        self.html
    }

    /// Path and query, if a browser navigates to a page: a GET that accepts HTML, and whose `Sec-Fetch-Mode`, if there is one, is
    /// `navigate`. What a script fetches and what a form sends is none. It is printable ASCII of at most 2 048 bytes, and begins with one
    /// `/`, so that it names this host, wherever it is linked: none for a target that does not.
    ///
    /// # Security
    /// The client's own text. Escape it in a page, and encode it in a URL, as [`LogInRedirect`](super::LogInRedirect) does. The query may
    /// hold what the application put there.
    #[must_use]
    pub fn navigation(&self) -> Option<&str> {
        let target = self.navigation.as_ref()?.as_str();
        (target.len() <= LONGEST_NAVIGATION && target.starts_with('/') && is_target(target)).then_some(target)
    }

    /// The request's id, for support staff to find the audit record by.
    #[must_use]
    pub const fn id(&self) -> Option<RequestId> {
        self.id
    }
}

fn names_html(accept: &[u8]) -> bool {
    const HTML: &[u8] = b"text/html";
    accept.windows(HTML.len()).any(|part| part.eq_ignore_ascii_case(HTML))
}

fn navigation<B>(request: &http::Request<B>) -> Option<PathAndQuery> {
    let navigates = request.headers().get(&SEC_FETCH_MODE).is_none_or(|mode| mode == "navigate");
    request.uri().path_and_query().filter(|_| navigates && request.method() == Method::GET).cloned()
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

/// A body and its media type, or a redirect.
#[derive(Clone, Debug)]
pub struct Rendered {
    content_type: HeaderValue,
    body: Bytes,
    location: Option<HeaderValue>,
}

impl Rendered {
    /// A body of this media type.
    pub fn new(content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self { content_type, body: body.into(), location: None }
    }

    /// A redirect in place of the refusal: `303` with this `Location` (RFC 9110 §15.4.4) and `Cache-Control: no-store`. The record tells the
    /// refusal as ever, with this status.
    ///
    /// For a browser that [navigates](Request::navigation): a client of an API takes what it finds there for an answer.
    ///
    /// # Errors
    /// If the target is neither a path that begins with one `/` nor an `https` URL, or not printable ASCII.
    pub fn see_other(location: &str) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::new("redirect", format!("{location:?}"), "must be a path or an https URL");
        let location = HeaderValue::from_str(location).ok().filter(|_| is_target(location)).ok_or_else(refuse)?;
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        Ok(Self { content_type, body: Bytes::from_static(b"See Other"), location: Some(location) })
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
/// A renderer shows [`RejectionKind`], never [`Rejection::reason`]: that is for the operator. One that panics leaves the refusal
/// without a body.
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

static PANICKED: log::Once = log::Once::new();

/// Renders into a body; where the request takes none, into the fields that tell of it.
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
    // A refusal without a body is one all the same.
    let rendered = catch_unwind(AssertUnwindSafe(|| renderer.render(rejection, request))).unwrap_or_else(|_| {
        PANICKED.error("a renderer panicked, and a refusal goes out without a body; it is said once");
        None
    });
    let Some(rendered) = rendered else {
        if !request.has_body {
            // A router may have written that of the empty body, and the reply to GET may have another (RFC 9110 §8.6).
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        return;
    };
    if let Some(location) = rendered.location {
        *response.status_mut() = StatusCode::SEE_OTHER;
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let body = B::full(rendered.body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, rendered.content_type);
    // The one of the empty body: a router may have written it already.
    headers.remove(header::CONTENT_LENGTH);
    if request.has_body {
        *response.body_mut() = body;
    } else if let Some(length) = body.size_hint().exact() {
        // As for GET (RFC 9110 §9.3.2), which is also what a router answers to HEAD: what is hidden must not differ in it.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
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
            RejectionKind::CrossSite,
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
    fn a_navigation_is_what_a_browser_shows() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let long = format!("/{}", "x".repeat(LONGEST_NAVIGATION));
        type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: [Case<'_>; 11] = [
            ("a page", "GET", "/account?tab=1", &[html], Some("/account?tab=1")),
            ("said so", "GET", "/", &[html, ("sec-fetch-mode", "navigate")], Some("/")),
            ("of a proxy", "GET", "https://orders.example.com/account", &[html], Some("/account")),
            ("a script", "GET", "/account", &[html, ("sec-fetch-mode", "cors")], None),
            ("a client of an API", "GET", "/account", &[("accept", "*/*")], None),
            ("any text", "GET", "/account", &[("accept", "text/*")], None),
            ("nothing said", "GET", "/account", &[], None),
            ("a form", "POST", "/account", &[html], None),
            ("another host", "GET", "https://orders.example.com//evil.example", &[html], None),
            ("no path", "OPTIONS", "*", &[html], None),
            ("too long", "GET", &long, &[html], None),
        ];
        for (name, method, target, fields, expected) in cases {
            let mut request = http::Request::builder().method(method).uri(target);
            for (field, value) in fields {
                request = request.header(*field, *value);
            }
            let request = Request::of(&request.body(()).unwrap(), None);
            assert_eq!(request.navigation(), expected, "{name}");
            assert_eq!(request.accepts_html(), fields.contains(&html), "{name}");
        }
    }

    #[test]
    fn a_redirect_names_a_path_or_a_host_of_https() {
        for target in ["/", "/login?return_to=%2F", "https://id.example.com/login"] {
            assert!(Rendered::see_other(target).is_ok(), "{target}");
        }
        for target in [
            "",
            "login",
            "//evil.example",
            "/\\evil.example",
            "http://a.example",
            "https:///a",
            "javascript:x",
            "/a b",
            "/\u{e4}",
        ] {
            assert_eq!(Rendered::see_other(target).unwrap_err().value(), format!("{target:?}"));
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
