//! For tonic: who calls, the question that needs the data, and refusals as a [`Status`].
//!
//! A stack goes around a tonic server with `Server::builder().layer(stack)`, or around the router that tonic's `Routes` are,
//! beside routes of HTTP on the same port; the manual's page
#![cfg_attr(feature = "full", doc = "[on gRPC](crate::manual::grpc)")]
#![cfg_attr(not(feature = "full"), doc = "on gRPC")]
//! shows both. A rule names a method by its path: `POST /orders.Orders/Cancel`.
//!
//! ```
//! use portcullis::tonic::RequestExt;
//! use tonic::{Request, Response, Status};
//!
//! async fn cancel(request: Request<u64>) -> Result<Response<String>, Status> {
//!     let principal = request.principal()?;
//!     request.authorizer()?.check("orders:cancel", None).await?; // a refusal becomes a status
//!     Ok(Response::new(format!("cancelled for {}", principal.subject())))
//! }
//! ```

use std::sync::Arc;

use ::tonic::{Code, Request, Status, metadata::MetadataMap};
use bytes::Bytes;

#[cfg(feature = "guard")]
use crate::guard::Authorizer;
use crate::{
    body::{BodyWatch, ResponseBody, Watched},
    context::{SecurityContext, authenticated_context},
    grpc,
    principal::Principal,
    rejection::Rejection,
};

/// What a handler may ask of a request. Implemented for tonic's [`Request`] alone.
pub trait RequestExt: sealed::Sealed {
    /// Who acts.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if nobody is, `INTERNAL` if no authentication ran outside the handler.
    fn principal(&self) -> Result<Principal, Status>;

    /// The question that needs the data. See [`Authorizer`].
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if nobody is, `INTERNAL` if no authentication ran outside the handler or no policy is set.
    #[cfg(feature = "guard")]
    fn authorizer(&self) -> Result<Authorizer, Status>;

    /// When a stream must end that outlasts the credential. See [`Lifetime`](crate::lifetime::Lifetime).
    ///
    /// # Errors
    /// As [`principal`](Self::principal).
    #[cfg(feature = "lifetime")]
    fn lifetime(&self) -> Result<crate::lifetime::Lifetime, Status>;

    /// What the layers found out; `None` if none ran.
    fn security(&self) -> Option<&SecurityContext>;
}

mod sealed {
    #[expect(unnameable_types, reason = "so that nobody else implements it")]
    pub trait Sealed {}

    impl<T> Sealed for ::tonic::Request<T> {}
}

impl<T> RequestExt for Request<T> {
    fn principal(&self) -> Result<Principal, Status> {
        Ok(authenticated_context(self.extensions())?.with(|envelope| envelope.authenticated().cloned())?)
    }

    #[cfg(feature = "guard")]
    fn authorizer(&self) -> Result<Authorizer, Status> {
        Ok(Authorizer::of(self.extensions())?.for_method(&http::Method::POST))
    }

    #[cfg(feature = "lifetime")]
    fn lifetime(&self) -> Result<crate::lifetime::Lifetime, Status> {
        Ok(crate::lifetime::Lifetime::of(self.extensions())?)
    }

    fn security(&self) -> Option<&SecurityContext> {
        SecurityContext::of(self.extensions())
    }
}

impl From<Rejection> for Status {
    /// Code, message and details as a layer's refusal has them; never the operator's reason, which only the audit record finds.
    fn from(rejection: Rejection) -> Self {
        let code = Code::from_i32(grpc::code(rejection.kind()).into());
        let metadata = MetadataMap::from_headers(grpc::metadata(&rejection));
        let details = Bytes::from(grpc::details(&rejection));
        let mut status = Self::with_details_and_metadata(code, rejection.kind().detail(), details, metadata);
        status.set_source(Arc::new(grpc::Cause(rejection)));
        status
    }
}

impl ResponseBody for ::tonic::body::Body {
    fn full(bytes: Bytes) -> Self {
        Self::new(http_body_util::Full::new(bytes))
    }

    fn watch(self, watch: BodyWatch) -> Self {
        Self::new(Watched::new(self, watch))
    }

    #[cfg(feature = "lifetime")]
    fn until(self, lifetime: crate::lifetime::Lifetime, grpc: bool) -> Self {
        Self::new(crate::body::limited(self, lifetime, grpc))
    }
}
