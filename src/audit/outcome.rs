use crate::rejection::RejectionKind;

/// What became of a request by the time its answer was known: at the head of the response. How the body went is told by a
/// `completed` entry alone ([`AuditLayer::with_completions`](crate::audit::AuditLayer::with_completions)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditOutcome {
    /// No layer refused, and the service answered, with whatever status.
    Allowed,
    /// Refused: the request may not do this (`403`, `404` where that is hidden, `401` where a stronger authentication is needed,
    /// and `308`, `421` or `425` for the wrong transport, host or moment).
    Denied,
    /// Refused: no credential, a bad one, or a malformed one (`400`, `401`).
    Unauthenticated,
    /// Refused: too many requests (`429`).
    Limited,
    /// The layers could not decide (`500`, `503`), or the service returned an error.
    Failed,
    /// The request was given up before there was a response: the client hung up, or a timeout struck.
    Aborted,
    /// What decides panicked, and the request was refused (`503`); or the handler did, or a layer further inside, and there was no
    /// response.
    Panicked,
}

impl AuditOutcome {
    /// The word that records show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Limited => "limited",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Panicked => "panicked",
        }
    }

    pub(crate) const fn of_rejection(kind: RejectionKind) -> Self {
        match kind {
            RejectionKind::InvalidRequest | RejectionKind::Unauthenticated | RejectionKind::InvalidCredential => {
                Self::Unauthenticated
            }
            RejectionKind::InsufficientAuthentication
            | RejectionKind::InvalidPath
            | RejectionKind::Forbidden
            | RejectionKind::CrossSite
            | RejectionKind::NotFound
            | RejectionKind::InsufficientScope
            | RejectionKind::PlainHttp
            | RejectionKind::Redirect
            | RejectionKind::Misdirected
            | RejectionKind::TooEarly => Self::Denied,
            RejectionKind::RateLimited => Self::Limited,
            RejectionKind::Misconfigured | RejectionKind::Unavailable => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rejection_has_a_class() {
        use RejectionKind as Kind;
        for (kind, outcome) in [
            (Kind::InvalidRequest, "unauthenticated"),
            (Kind::Unauthenticated, "unauthenticated"),
            (Kind::InvalidCredential, "unauthenticated"),
            (Kind::InsufficientAuthentication, "denied"),
            (Kind::Forbidden, "denied"),
            (Kind::CrossSite, "denied"),
            (Kind::NotFound, "denied"),
            (Kind::InsufficientScope, "denied"),
            (Kind::PlainHttp, "denied"),
            (Kind::Redirect, "denied"),
            (Kind::Misdirected, "denied"),
            (Kind::InvalidPath, "denied"),
            (Kind::TooEarly, "denied"),
            (Kind::RateLimited, "limited"),
            (Kind::Misconfigured, "failed"),
            (Kind::Unavailable, "failed"),
        ] {
            assert_eq!(AuditOutcome::of_rejection(kind).as_str(), outcome, "{kind:?}");
        }
    }
}
