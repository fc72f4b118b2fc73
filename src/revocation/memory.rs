use async_trait::async_trait;

use super::{Revocation, RevocationLimits, RevocationState, RevocationStore};
use crate::{clock::Instants, error::StoreError, log};

/// Revocations of this process alone: not known to others, and gone when it ends. For tests, and for a service of one process whose
/// tokens live for minutes: **after a restart what was revoked is good again until it expires**. The log says so at start. On one
/// machine `SqliteRevocations` (feature `revocation-sqlite`) keeps them in a file.
///
/// When it is full, [`revoke`](RevocationStore::revoke) fails and nothing is forgotten; see [`RevocationLimits`].
#[derive(Clone, Debug)]
pub struct MemoryRevocations {
    state: RevocationState,
}

impl MemoryRevocations {
    /// None yet, with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(RevocationLimits::new())
    }

    /// None yet.
    #[must_use]
    pub fn with_limits(limits: RevocationLimits) -> Self {
        log::warn(
            "revocations are kept in memory: after a restart, and in other processes, tokens that were revoked are good until they \
             expire; SqliteRevocations keeps them in a file, RedisRevocations and PostgresRevocations for several machines",
        );
        Self { state: RevocationState::own(limits) }
    }
}

impl Default for MemoryRevocations {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl RevocationStore for MemoryRevocations {
    fn state(&self) -> &RevocationState {
        &self.state
    }

    async fn revoke(&self, revocation: &Revocation, at: Instants) -> Result<(), StoreError> {
        self.state.check_end(revocation, at, "revocations")?;
        self.state.add([revocation], at)
    }
}
