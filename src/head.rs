//! A borrowed view of a request without its body.

use std::{any::TypeId, fmt};

use http::{Extensions, HeaderMap, HeaderName, Method, Request, Uri, Version, header, request::Parts};

use crate::{
    attempt::Attempt,
    client::{ClientInfo, Connection},
    context::SecurityContext,
    credential::{self, Credential},
    rejection::Rejection,
};

/// A request without its body, borrowed: what every decision is made from. `Debug` shows the names of the header fields and
/// no value, and no query: credentials stand there, and are not marked sensitive yet while a layer decides.
///
/// ```
/// use portcullis::RequestHead;
///
/// let request = http::Request::get("/orders").header("authorization", "Bearer abc").body(()).unwrap();
/// let head = RequestHead::of(&request);
/// let credential = head.authorization().unwrap().unwrap();
/// assert!(credential.is_scheme("bearer"));
/// assert_eq!(credential.token(), "abc");
/// ```
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
    client: Option<&'a ClientInfo>,
    attempt: Attempt<'a>,
    /// `Authorization` is another authenticator's, and not to be seen.
    hides_authorization: bool,
}

impl<'a> RequestHead<'a> {
    /// Borrows a request's head.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
            client: None,
            attempt: Attempt::uncounted(),
            hides_authorization: false,
        }
    }

    /// Borrows a head that was taken off its body.
    #[must_use]
    pub fn of_parts(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
            client: None,
            attempt: Attempt::uncounted(),
            hides_authorization: false,
        }
    }

    /// Adds what is known of the caller.
    #[must_use]
    pub const fn with_client(mut self, client: Option<&'a ClientInfo>) -> Self {
        self.client = client;
        self
    }

    /// Adds who counts the attempts at costly steps.
    #[must_use]
    pub(crate) const fn with_attempt(mut self, attempt: Attempt<'a>) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same for who is not to see `Authorization`, since another authenticator has taken it.
    #[must_use]
    pub(crate) const fn without_authorization(mut self) -> Self {
        self.hides_authorization = true;
        self
    }

    #[cfg(any(feature = "jwt", feature = "jwt-pure-rust"))]
    pub(crate) const fn hides_authorization(&self) -> bool {
        self.hides_authorization
    }

    /// Whether there is an `Authorization` to be seen.
    pub(crate) fn shows_authorization(&self) -> bool {
        !self.hides_authorization && self.headers.contains_key(header::AUTHORIZATION)
    }

    /// What an authenticator asks before a step that costs.
    #[must_use]
    pub const fn attempt(&self) -> Attempt<'a> {
        self.attempt
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> &'a Method {
        self.method
    }

    /// The request target.
    #[must_use]
    pub const fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// The path as it was sent: not decoded, not normalised.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.uri.path()
    }

    /// The HTTP version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The header fields. For a field that may stand once only, use [`single_header`](Self::single_header).
    #[must_use]
    pub const fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Something that the server put into the request extensions.
    ///
    /// The [`SecurityContext`] is not shown: while a layer decides, it is that layer's own, and whoever reached for it in
    /// here would wait for themselves.
    #[must_use]
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&'a T> {
        if TypeId::of::<T>() == TypeId::of::<SecurityContext>() {
            return None;
        }
        self.extensions.get()
    }

    /// Who is calling, as the evidence layer found it; `None` where no layer has looked yet.
    #[must_use]
    pub const fn client(&self) -> Option<&'a ClientInfo> {
        self.client
    }

    /// What the server knows of the connection: [`Connection`], axum's `ConnectInfo`, or tonic's `TcpConnectInfo`.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.see_connection(Connection::clone)
    }

    /// Looks at it without a copy.
    pub(crate) fn see_connection<T>(&self, see: impl FnOnce(&Connection) -> T) -> Option<T> {
        if let Some(connection) = self.extensions.get::<Connection>() {
            return Some(see(connection));
        }
        #[cfg(feature = "axum")]
        {
            use std::net::SocketAddr;

            use axum::extract::ConnectInfo;

            if let Some(ConnectInfo(connection)) = self.extensions.get::<ConnectInfo<Connection>>() {
                return Some(see(connection));
            }
            if let Some(ConnectInfo(peer)) = self.extensions.get::<ConnectInfo<SocketAddr>>() {
                return Some(see(&Connection::plain(*peer)));
            }
        }
        // Beside it, tonic's own TLS leaves more; that is not read, and such a connection counts as plain.
        #[cfg(feature = "tonic")]
        if let Some(info) = self.extensions.get::<tonic::transport::server::TcpConnectInfo>() {
            return info.remote_addr().map(|peer| see(&Connection::plain(peer)));
        }
        None
    }

    /// Reads `Authorization` strictly: it stands once, and is a scheme, spaces, and a token68 (RFC 9110 §11.4). None as well
    /// for who [would disclose](crate::authn::Authenticator::discloses) one that is another authenticator's.
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::RejectionKind::InvalidRequest) (`400`) if it stands twice or is not of that form.
    pub fn authorization(&self) -> Result<Option<Credential<'a>>, Rejection> {
        if self.hides_authorization { Ok(None) } else { credential::authorization(self.headers) }
    }

    /// Reads a field that may stand once only.
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::RejectionKind::InvalidRequest) (`400`) if it stands twice, is empty or is not visible
    /// ASCII.
    pub fn single_header(&self, name: &HeaderName) -> Result<Option<&'a str>, Rejection> {
        let is_hidden = self.hides_authorization && *name == header::AUTHORIZATION;
        if is_hidden { Ok(None) } else { credential::single(self.headers, name) }
    }
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("version", &self.version)
            .field("headers", &names)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_credential() {
        let request = Request::get("/orders?access_token=hunter2")
            .header("authorization", "Bearer hunter2")
            .header("cookie", "session=hunter2")
            .body(())
            .unwrap();
        let shown = format!("{:?}", RequestHead::of(&request));
        assert!(shown.contains("GET") && shown.contains("/orders") && shown.contains("authorization"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
