use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::jwt::ResourceMetadata;

impl ResourceMetadata {
    /// A router that serves the document at its [`path`](Self::path), and nothing else: merge it into the application's.
    ///
    /// | request | answer |
    /// |---|---|
    /// | `GET` | `200`, `application/json`, `Cache-Control: public, max-age=3600`, `Access-Control-Allow-Origin: *` |
    /// | `HEAD` | the same without the document |
    /// | another method | `405` |
    ///
    /// Pages of any origin may read it (RFC 9728 §3.2): there is nothing in it that a client does not know, and no credential
    /// changes it. A preflight is answered by the `CorsLayer` that stands outside the stack.
    ///
    /// It must stay public, and be reached at the host that the resource's identifier names; limits hold for it as for any other
    /// route.
    ///
    /// ```
    /// use axum::Router;
    /// use portcullis::{guard::public, jwt::ResourceMetadata, stack::Stack};
    ///
    /// let metadata = ResourceMetadata::builder("https://api.example.com").build()?;
    /// let app = Stack::builder()
    ///     .route(metadata.route(), public())
    ///     .build()?
    ///     .protect(Router::new().merge(metadata.router()));
    /// # let _ = app;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn router(&self) -> Router {
        let json: Bytes = self.shared.json.clone();
        let cache = format!("public, max-age={}", self.shared.max_age.as_secs());
        // Digits cannot fail.
        let cache = HeaderValue::from_str(&cache).unwrap_or(HeaderValue::from_static("no-cache"));
        let answer = async move || {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, cache.clone()),
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            ];
            (headers, json.clone())
        };
        Router::new().route(self.path(), get(answer))
    }
}
