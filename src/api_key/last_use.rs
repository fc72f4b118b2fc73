use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::api_key::{KeyId, MAX_TIME};

/// When a key was last used, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastUse {
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
}

impl LastUse {
    /// At `at`, in seconds since the Unix epoch, from this address if it is known. A time after [`MAX_TIME`] counts as that: no store
    /// could keep it.
    #[must_use]
    pub const fn new(at: u64, address: Option<IpAddr>) -> Self {
        Self { at: if at > MAX_TIME { MAX_TIME } else { at }, address }
    }

    /// When, in seconds since the Unix epoch.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// From where.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

/// That a key was used: what [`ApiKeyAdmin::record_uses`](crate::api_key::ApiKeyAdmin::record_uses) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    id: KeyId,
    last: LastUse,
}

impl KeyUse {
    /// This key, this time.
    #[must_use]
    pub const fn new(id: KeyId, last: LastUse) -> Self {
        Self { id, last }
    }

    /// Which key.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// When and from where.
    #[must_use]
    pub const fn last(&self) -> LastUse {
        self.last
    }
}
