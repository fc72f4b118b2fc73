use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, header};

use crate::testing::TestToken;

/// Somebody who sends requests, and how they show who they are. A [`TestToken`] alone is sent as `Authorization: Bearer`.
///
/// One whom the service knows by something else gets a function that puts it on each request: a header field, or what the
/// [`Connection`](crate::Connection) knows.
///
#[cfg_attr(
    feature = "tls-self-signed",
    doc = r#"
```
use portcullis::{
    Connection,
    testing::{TestAuthority, TestIssuer, attack::{Caller, Profile}},
};

let (issuer, authority) = (TestIssuer::new("orders-api"), TestAuthority::new("orders test authority"));
let certificate = authority.client(["billing.internal"]).client_certificate();
let billing = Caller::new(move |request| {
    if let Some(connection) = request.extensions_mut().remove::<Connection>() {
        request.extensions_mut().insert(connection.with_client_certificate(certificate.clone()));
    }
});
let profile = Profile::new()
    .route("GET /orders", ["clerk", "service"])?
    .role("clerk", Caller::cookie("__Host-session", issuer.token().subject("alice").role("clerk"))) // in a browser
    .role("service", billing)
    .role("guest", issuer.token().subject("mallory").role("guest"));
# let _ = profile;
# Ok::<(), portcullis::ConfigError>(())
```
"#
)]
#[must_use]
#[derive(Clone)]
pub struct Caller {
    token: Option<TestToken>,
    way: Way,
    by_browser: bool,
}

#[derive(Clone)]
enum Way {
    Bearer,
    Cookie(String),
    Other(Arc<Show>),
}

/// Puts the text of a token, which is empty for who has none, on a request.
type Show = dyn Fn(&mut Request<Bytes>, &str) + Send + Sync;

/// The credential that a request shows: what its refusal must not.
#[derive(Clone)]
struct Shown(String);

impl From<TestToken> for Caller {
    fn from(token: TestToken) -> Self {
        Self { token: Some(token), way: Way::Bearer, by_browser: false }
    }
}

impl Caller {
    /// Somebody without a token, whom this makes of each request that they send. It replaces nothing that the request has, but
    /// for its `Connection`, which comes from an address of its own. Over the network that is not sent.
    ///
    /// Attacks on tokens have no occasion with them; all others have.
    pub fn new(show: impl Fn(&mut Request<Bytes>) + Send + Sync + 'static) -> Self {
        let way = Way::Other(Arc::new(move |request: &mut Request<Bytes>, _: &str| show(request)));
        Self { token: None, way, by_browser: false }
    }

    /// Somebody whose token this puts on each request that they send, such as in a header field of its own. Forged tokens are put
    /// there as well.
    pub fn token(token: TestToken, show: impl Fn(&mut Request<Bytes>, &str) + Send + Sync + 'static) -> Self {
        Self { token: Some(token), way: Way::Other(Arc::new(show)), by_browser: false }
    }

    /// Somebody whose token is in the cookie of this name, and whose requests a [browser](Self::by_browser) sends.
    pub fn cookie(name: &str, token: TestToken) -> Self {
        Self { token: Some(token), way: Way::Cookie(name.to_owned()), by_browser: true }
    }

    /// Says that a browser sends what shows who they are along with every request, whoever caused it: a cookie does so. Then
    /// the suite has other sites cause requests (`csrf-origin`, `csrf-no-origin`, `csrf-websocket`), and all others of theirs
    /// say `Sec-Fetch-Site: same-origin`, or the origin of [`Profile::origin`](super::Profile::origin).
    pub const fn by_browser(mut self) -> Self {
        self.by_browser = true;
        self
    }

    pub(super) const fn test_token(&self) -> Option<&TestToken> {
        self.token.as_ref()
    }

    pub(super) const fn is_by_browser(&self) -> bool {
        self.by_browser
    }

    /// Whether the token is where RFC 6750 §2.1 has it.
    pub(super) const fn is_bearer(&self) -> bool {
        matches!(self.way, Way::Bearer)
    }

    /// The name of the cookie.
    pub(super) fn cookie_name(&self) -> Option<&str> {
        match &self.way {
            Way::Cookie(name) => Some(name),
            Way::Bearer | Way::Other(_) => None,
        }
    }

    /// The request with this text where the token is.
    pub(super) fn showing(&self, mut request: Request<Bytes>, text: &str) -> Request<Bytes> {
        let (name, value) = match &self.way {
            Way::Bearer => (header::AUTHORIZATION, format!("Bearer {text}")),
            Way::Cookie(name) => (header::COOKIE, format!("{name}={text}")),
            Way::Other(show) => {
                show(&mut request, text);
                return note(request, text);
            }
        };
        if let Ok(value) = HeaderValue::from_str(&value) {
            request.headers_mut().append(name, value);
        }
        note(request, text)
    }
}

fn note(mut request: Request<Bytes>, text: &str) -> Request<Bytes> {
    request.extensions_mut().insert(Shown(text.to_owned()));
    request
}

/// The token that a request shows; of several, the last.
pub(super) fn shown(request: &Request<Bytes>) -> Option<&str> {
    request.extensions().get::<Shown>().map(|Shown(text)| text.as_str())
}

/// Without what is secret.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match &self.way {
            Way::Bearer => "bearer",
            Way::Cookie(name) => name,
            Way::Other(_) => "other",
        };
        f.debug_struct("Caller").field("way", &way).field("by_browser", &self.by_browser).finish_non_exhaustive()
    }
}
