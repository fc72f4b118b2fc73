use std::borrow::Cow;

/// What one limiter answered.
#[derive(Clone, Debug)]
pub(crate) struct LimitFact {
    pub(crate) scope: Cow<'static, str>,
    pub(crate) state: LimitState,
    pub(crate) degraded: bool,
    pub(crate) remaining: Option<u32>,
    pub(crate) retry_after_nanos: Option<u64>,
}

/// How a limiter decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitState {
    Granted,
    Refused,
    WouldRefuse,
    FailedOpen,
}

impl LimitState {
    #[cfg(feature = "audit")]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::WouldRefuse => "would_refuse",
            Self::FailedOpen => "failed_open",
        }
    }
}

/// What the limiters answered, in order. Two of them, the usual number, cost no allocation.
#[derive(Debug, Default)]
pub(crate) struct LimitFacts {
    first: [Option<LimitFact>; 2],
    more: Vec<LimitFact>,
}

impl LimitFacts {
    pub(super) fn push(&mut self, fact: LimitFact) {
        match &mut self.first {
            [place @ None, _] | [_, place @ None] => *place = Some(fact),
            // As many as an application puts layers: bounded by its code.
            [Some(_), Some(_)] => self.more.push(fact),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LimitFact> {
        self.first.iter().flatten().chain(&self.more)
    }

    pub(super) fn into_facts(self) -> impl Iterator<Item = LimitFact> {
        self.first.into_iter().flatten().chain(self.more)
    }

    #[cfg(feature = "audit")]
    pub(super) fn clear(&mut self) {
        let Self { first: [first, second], more } = self;
        (*first, *second) = (None, None);
        more.clear();
    }
}
