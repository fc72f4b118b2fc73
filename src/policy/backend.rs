use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    error::ConfigError,
    now::Now,
    policy::{AccessQuery, QueryParts, ReloadState, Verdict},
};

/// May this principal do this action on this resource, in this context?
///
/// # Contract
/// - What the backend does not know (an action, a role, an attribute) is a denial; what it cannot find out is
///   [`cannot decide`](crate::policy::Decision::CannotDecide), which the client sees as `503`.
/// - [`decide_now`](Self::decide_now), [`decide`](Self::decide) and [`decide_all`](Self::decide_all) give the same verdict.
/// - The verdict depends on the action, on the [`parts`](Self::parts) of the question, on the
///   [`generation`](Self::generation), and on nothing else; for a remote decision point, on nothing else that it can see.
/// - Time is in the query; a backend reads no clock.
///
/// The conformance suite (feature `conformance`) checks what can be checked of it.
///
/// `name` and `decide` are enough. A backend that answers from memory has `decide_now` too; one whose policy can change has
/// `generation`; one that asks somebody far away has `decide_all`; one that is cached has `parts`. A wrapper has all of them.
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

    /// Answers several questions: one verdict for each, in their order. As it stands, it asks one after the other.
    ///
    /// A list of another length is no answer: whoever asked takes all of it for [`cannot
    /// decide`](crate::policy::Decision::CannotDecide).
    async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(queries.len());
        for query in queries {
            verdicts.push(match self.decide_now(query) {
                Now::Known(verdict) => verdict,
                Now::Wait => self.decide(query).await,
            });
        }
        verdicts
    }

    /// A number that grows with each change that the backend hears of, after which it may answer differently than before: a
    /// reload, for example. It never goes back. Whatever is remembered of a verdict is worked out anew when it differs.
    ///
    /// `None`, always, says that no change can be told, as of a remote decision point: what is remembered then only has its age
    /// to go by. A policy that never changes says `Some(0)`, and must not leave it at the default, which is `None`.
    ///
    /// A wrapper of several backends adds up what those tell that do. So a number does not promise that nothing else changed:
    /// how long that may go unnoticed is what [`holds_for`](Self::holds_for) says.
    fn generation(&self) -> Option<u64> {
        None
    }

    /// The version of the policy, as whoever wrote it named it, if it can be told without asking.
    fn version(&self) -> Option<Arc<str>> {
        None
    }

    /// What the verdicts depend on, besides the action. [`QueryParts::ALL`] unless the backend says less.
    fn parts(&self) -> QueryParts {
        QueryParts::ALL
    }

    /// How long a verdict holds as long as the [`generation`](Self::generation) stays, so that it may be remembered for a question
    /// that has the same action and [`parts`](Self::parts). `None`, which nobody has to say, is not at all.
    fn holds_for(&self) -> Option<Duration> {
        None
    }

    /// How reloading goes, for readiness checks and metrics. `None` if the policy is never reloaded.
    fn reload_state(&self) -> Option<ReloadState> {
        None
    }

    /// Whether the policy knows an action at all, asked when a stack is built about what its rules ask for: a typo fails at start. A policy
    /// that cannot tell says that it does, which is the default.
    ///
    /// # Errors
    /// If it would deny the action to everybody because it does not know it.
    fn check_action(&self, action: &str) -> Result<(), ConfigError> {
        let _ = action;
        Ok(())
    }

    /// How the decision comes about, step by step, for people: what [`explain`](crate::policy::explain) prints besides
    /// the verdict. Nothing by default.
    fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
        let _ = query;
        Vec::new()
    }
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

            async fn decide_all(&self, queries: &[AccessQuery<'_>]) -> Vec<Verdict> {
                (**self).decide_all(queries).await
            }

            fn generation(&self) -> Option<u64> {
                (**self).generation()
            }

            fn version(&self) -> Option<Arc<str>> {
                (**self).version()
            }

            fn parts(&self) -> QueryParts {
                (**self).parts()
            }

            fn holds_for(&self) -> Option<Duration> {
                (**self).holds_for()
            }

            fn reload_state(&self) -> Option<ReloadState> {
                (**self).reload_state()
            }

            fn check_action(&self, action: &str) -> Result<(), ConfigError> {
                (**self).check_action(action)
            }

            fn steps(&self, query: &AccessQuery<'_>) -> Vec<String> {
                (**self).steps(query)
            }
        }
    )*};
}

forward!(Arc, Box);
