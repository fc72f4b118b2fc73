use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use zeroize::Zeroizing;

use super::{
    endpoint::Endpoint,
    fetch::{FetchLimits, HttpFetch, nonsense, unavailable},
};
use crate::{
    error::{ConfigError, StoreError},
    secret::Secret,
};

/// A client that asks by POST, and the limits that it is used with. A clone costs one reference count.
#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Arc<dyn HttpFetch>,
    limits: FetchLimits,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Form,
}

impl Media {
    const fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        })
    }
}

impl HttpClient {
    pub(crate) const fn new(client: Arc<dyn HttpFetch>, limits: FetchLimits) -> Self {
        Self { client, limits }
    }

    /// Sends a body and gets the answer, of whatever status but a redirect: that is an error, as is an answer that is too
    /// large or comes too late.
    pub(crate) async fn post(
        &self,
        to: &Endpoint,
        media: Media,
        body: impl Into<Bytes>,
        headers: HeaderMap,
    ) -> Result<Response<Bytes>, StoreError> {
        let mut request = Request::new(body.into());
        *request.method_mut() = http::Method::POST;
        request.uri_mut().clone_from(to.uri());
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::CONTENT_TYPE, media.name());
        request.headers_mut().insert(header::ACCEPT, Media::Json.name());
        // A client of somebody else's may not keep the time.
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(unavailable("needs a tokio runtime"));
        }
        let late = |_| unavailable(format!("timed out: no answer within {:?}", self.limits.time()));
        let response =
            tokio::time::timeout(self.limits.time(), self.client.fetch(request, self.limits)).await.map_err(late)??;
        if response.status().is_redirection() {
            let status = response.status().as_u16();
            return Err(nonsense(format!("{to} answers {status}: redirects are not followed")));
        }
        // A client of somebody else's may not have kept the bound.
        if response.body().len() > self.limits.bytes() {
            return Err(nonsense(format!("{to} answers more than {} bytes", self.limits.bytes())));
        }
        Ok(response)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("client", &self.client).field("limits", &self.limits).finish()
    }
}

/// The `Authorization` of a bearer token (RFC 6750 §2.1), which nothing shows.
pub(crate) fn bearer(token: &Secret) -> Result<HeaderValue, ConfigError> {
    let refuse = || ConfigError::new("bearer token", "a secret", "is empty or has characters that no token has");
    let token = token.expose_str().ok_or_else(refuse)?;
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse());
    }
    let bearer = Zeroizing::new(["Bearer ", token].concat());
    let mut value = HeaderValue::from_str(&bearer).map_err(|_| refuse())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_not_shown_and_breaks_no_line() {
        let value = bearer(&Secret::from("t0ken".to_owned())).unwrap();
        assert_eq!((value.as_bytes(), value.is_sensitive()), (&b"Bearer t0ken"[..], true));
        assert!(!format!("{value:?}").contains("t0ken"));
        for bad in ["", "a b", "a\r\nX: y", "é", "a\u{0}"] {
            let error = bearer(&Secret::from(bad.to_owned())).unwrap_err().to_string();
            assert_eq!(error, "bearer token: a secret is empty or has characters that no token has");
        }
        assert!(bearer(&Secret::new(vec![0xff])).is_err());
    }
}
