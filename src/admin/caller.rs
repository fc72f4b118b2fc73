use ::axum::{
    extract::{FromRequestParts, Request},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;

use super::{Fault, body, moment::Moment};
use crate::{
    clock::Instants,
    context::{SecurityContext, Stage, misordered},
    gate,
    guard::Authorizer,
    principal::{Principal, Slot},
    rejection::Rejection,
};

/// Who asks.
#[derive(Clone)]
pub(crate) struct Caller {
    context: SecurityContext,
    authorizer: Authorizer,
    /// When its handler began.
    came: Moment,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let authorizer = Authorizer::from_request_parts(parts, state).await?;
        let context = SecurityContext::of(&parts.extensions).cloned();
        let context = context.ok_or_else(|| misordered("the context is gone"))?;
        let came = Moment::begins(context.at());
        Ok(Self { context, authorizer, came })
    }
}

impl Caller {
    /// The time by now: whoever sends a body takes as long for it as they like.
    pub(crate) fn at(&self) -> Instants {
        self.came.now()
    }

    pub(crate) const fn context(&self) -> &SecurityContext {
        &self.context
    }

    pub(crate) const fn principal(&self) -> &Principal {
        self.authorizer.principal()
    }

    /// Who acts, and what acts for them.
    pub(crate) fn identities(&self) -> impl Iterator<Item = Principal> + use<> {
        [Slot::Subject, Slot::Client].map(|slot| self.context.identity(slot)).into_iter().flatten()
    }

    /// Demands a permission.
    pub(crate) async fn demand(&self, permission: &str) -> Result<(), Rejection> {
        self.authorizer.check(permission, None).await.map(drop)
    }

    /// Demands the permission for a change, and reads its body. What the caller was let in with must count by then, and the permission be
    /// there still: either may have been taken away, in order to stop this very change, while the body was on its way.
    pub(crate) async fn read_for(&self, permission: &str, request: Request) -> Result<Bytes, Fault> {
        self.demand(permission).await?;
        let json = self.read(request).await?;
        for principal in self.identities() {
            principal.counts(self.at()).await.map_err(Rejection::from)?;
        }
        self.demand(permission).await?;
        Ok(json)
    }

    /// Reads a body that needs no permission.
    pub(crate) async fn read(&self, request: Request) -> Result<Bytes, Fault> {
        let (head, body) = request.into_parts();
        body::read(&head.headers, body).await
    }

    /// The answer, which nobody keeps.
    pub(crate) fn respond<T: Serialize>(&self, answer: Result<(StatusCode, T), Fault>) -> Response {
        let (status, document) = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                if let Some(rejection) = fault.rejection() {
                    gate::report(Stage::Authentication, rejection, self.context.at());
                }
                return fault.to_response(self.context.request_id());
            }
        };
        // Texts and numbers under texts: they are always JSON.
        let mut response = Response::new(serde_json::to_vec(&document).unwrap_or_default().into());
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
