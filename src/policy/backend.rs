use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{
    now::Now,
    policy::{AccessQuery, Verdict},
};

/// May this principal do this action on this resource, in this context?
///
/// # Contract
/// - What the backend does not know (an action, a role, an attribute) is a denial; what it cannot find out is
///   [`cannot decide`](crate::policy::Decision::CannotDecide), which the client sees as `503`.
/// - [`decide_now`](Self::decide_now) and [`decide`](Self::decide) give the same verdict. The conformance suite (feature
///   `conformance`) checks it.
/// - Time is in the query; a backend reads no clock.
#[async_trait]
pub trait PolicyBackend: Debug + Send + Sync + 'static {
    /// The backend's name in records, such as `rbac`.
    fn name(&self) -> &'static str;

    /// Answers without waiting, if it can.
    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        let _ = query;
        Now::Wait
    }

    /// Answers.
    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<P: PolicyBackend + ?Sized> PolicyBackend for $pointer<P> {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
                (**self).decide_now(query)
            }

            async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
                (**self).decide(query).await
            }
        }
    )*};
}

forward!(Arc, Box);
