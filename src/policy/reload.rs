use std::sync::Arc;

/// How the reloading of a policy goes: what a readiness check or a metric shows.
///
/// A reload that fails leaves the policy that runs as it is; [`failing`](Self::failing) says so until one succeeds, or the files
/// say again what was accepted. A policy that is put in place by hand mends no file that is bad.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadState {
    reloads: u64,
    failures: u64,
    failing: Option<Arc<str>>,
}

impl ReloadState {
    /// Nothing was reloaded yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { reloads: 0, failures: 0, failing: None }
    }

    /// One more reload that went well.
    #[must_use]
    pub fn succeeded(mut self) -> Self {
        self.reloads = self.reloads.saturating_add(1);
        self.failing = None;
        self
    }

    /// One more reload that failed, and why: file, line and reason. The operator reads it, no client does.
    #[must_use]
    pub fn failed(mut self, why: impl Into<Arc<str>>) -> Self {
        self.failures = self.failures.saturating_add(1);
        self.failing = Some(why.into());
        self
    }

    /// What failed is as it was before, and nothing was replaced.
    #[cfg(feature = "policy-files")]
    #[must_use]
    pub(crate) fn recovered(mut self) -> Self {
        self.failing = None;
        self
    }

    /// What failed does so still: it was told and counted before.
    #[cfg(feature = "policy-files")]
    #[must_use]
    pub(crate) fn failing_still(mut self, why: Arc<str>) -> Self {
        self.failing = Some(why);
        self
    }

    /// That of several policies together: counts are added up, and one that fails is told.
    #[must_use]
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.reloads = self.reloads.saturating_add(other.reloads);
        self.failures = self.failures.saturating_add(other.failures);
        self.failing = self.failing.or(other.failing);
        self
    }

    /// How often the policy was replaced by a newer one.
    #[must_use]
    pub const fn reloads(&self) -> u64 {
        self.reloads
    }

    /// How often a newer policy was refused. A file that stays bad counts once, not at each look.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// Why the newest policy does not run, while that is so; or why nobody would know, where the files were looked at and are no
    /// more.
    #[must_use]
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_until_a_reload_goes_well() {
        let state = ReloadState::new().succeeded().failed("policy.toml: line 3").failed("policy.toml: line 4");
        assert_eq!((state.reloads(), state.failures(), state.failing()), (1, 2, Some("policy.toml: line 4")));
        assert_eq!(state.clone().succeeded().failing(), None);
        assert_eq!(state.succeeded().failures(), 2);
    }
}
