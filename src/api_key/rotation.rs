use crate::{
    api_key::{ApiKeyRecord, KeyId, bounds},
    error::ConfigError,
};

/// A key that takes the place of another: what [`ApiKeyAdmin::rotate`](crate::api_key::ApiKeyAdmin::rotate) takes.
///
/// Both work until `old_ends`, or until the old key's own end if that comes first.
#[derive(Clone, Debug)]
pub struct Rotation {
    old: KeyId,
    record: ApiKeyRecord,
    old_ends: u64,
}

impl Rotation {
    /// Replaces `old` by `replacement`; the old key ends at `old_ends`, in seconds since the Unix epoch, at the latest.
    ///
    /// # Errors
    /// If the replacement has the same id, or the time is after the year 9999.
    pub fn new(old: KeyId, replacement: ApiKeyRecord, old_ends: u64) -> Result<Self, ConfigError> {
        bounds::time("API key overlap", old_ends)?;
        if *replacement.id() == old {
            return Err(ConfigError::new("API key rotation", old.to_string(), "cannot replace itself"));
        }
        Ok(Self { old, record: replacement.replacing(old), old_ends })
    }

    /// The key that is replaced.
    #[must_use]
    pub const fn old(&self) -> &KeyId {
        &self.old
    }

    /// The record to insert; its [`rotated_from`](ApiKeyRecord::rotated_from) is the old key.
    #[must_use]
    pub const fn record(&self) -> &ApiKeyRecord {
        &self.record
    }

    /// When the old key ends, if it does not end before.
    #[must_use]
    pub const fn old_ends(&self) -> u64 {
        self.old_ends
    }

    /// What becomes of the old record: its end moved forward, and [`rotated_to`](ApiKeyRecord::rotated_to) set. None if it
    /// cannot be rotated, because it was rotated before or is revoked: a conflict.
    #[must_use]
    pub fn shorten(&self, old: &ApiKeyRecord) -> Option<ApiKeyRecord> {
        let open = old.rotated_to().is_none() && old.revocation().is_none() && *old.id() == self.old;
        open.then(|| old.replaced_by(*self.record.id(), self.old_ends))
    }
}
