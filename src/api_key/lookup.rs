use std::{net::IpAddr, sync::Arc};

use crate::{
    api_key::{ApiKeyRecord, KeyId},
    clock::Instants,
    error::StoreError,
};

/// The question that a request puts to a store: which key, for whom, and when. A store that has the answer needs the id
/// alone; a cache measures ages by the time, and charges misses to the address.
///
/// ```
/// use portcullis::{Instants, api_key::{KeyId, Lookup}};
///
/// let lookup = Lookup::new(KeyId::from_bytes([1; 10]), Instants::new(0, 0)).from_client(Some([198, 51, 100, 7].into()));
/// assert_eq!(lookup.id(), &KeyId::from_bytes([1; 10]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    id: KeyId,
    client: Option<IpAddr>,
    at: Instants,
}

impl Lookup {
    /// Asks for this key, now, for nobody in particular.
    #[must_use]
    pub const fn new(id: KeyId, at: Instants) -> Self {
        Self { id, client: None, at }
    }

    /// Says whose request it is.
    #[must_use]
    pub const fn from_client(mut self, client: Option<IpAddr>) -> Self {
        self.client = client;
        self
    }

    /// The public id of the presented key. Clients choose it freely.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The client's address, IPv4-mapped IPv6 as IPv4. None over a Unix socket or memory, and where nobody asks on behalf of
    /// a client.
    #[must_use]
    pub const fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// When the request came.
    #[must_use]
    pub const fn at(&self) -> Instants {
        self.at
    }
}

/// A record that was found, and whether its owner is disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    record: Arc<ApiKeyRecord>,
    owner_disabled: bool,
}

impl Hit {
    /// The record of an owner who is not disabled.
    #[must_use]
    pub const fn new(record: Arc<ApiKeyRecord>) -> Self {
        Self { record, owner_disabled: false }
    }

    /// Says whether the owner is disabled: none of their keys is accepted then.
    #[must_use]
    pub const fn with_owner_disabled(mut self, disabled: bool) -> Self {
        self.owner_disabled = disabled;
        self
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &Arc<ApiKeyRecord> {
        &self.record
    }

    /// Whether the owner is disabled.
    #[must_use]
    pub const fn owner_disabled(&self) -> bool {
        self.owner_disabled
    }

    /// Whether the key is accepted at this time, address and environment aside: its owner is not disabled, and the record is
    /// [active](ApiKeyRecord::is_active).
    #[must_use]
    pub fn is_active(&self, unix_seconds: u64) -> bool {
        !self.owner_disabled && self.record.is_active(unix_seconds)
    }
}

/// What a store answers: a record, word that there is none, or a failure.
pub type Found = Result<Option<Hit>, StoreError>;
