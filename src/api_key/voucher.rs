//! Whether a key that let somebody in still counts.

use std::{fmt, sync::Weak};

use async_trait::async_trait;

use crate::{
    api_key::{ApiKeyStore, Found, KeyId, Lookup},
    clock::Instants,
    now::Now,
    principal::Principal,
    voucher::{Ended, Voucher},
};

/// Asks the store, which holds the records that hold the principals: it must not hold the store.
pub(super) struct KeyVoucher {
    store: Weak<dyn ApiKeyStore>,
}

impl KeyVoucher {
    pub(super) const fn new(store: Weak<dyn ApiKeyStore>) -> Self {
        Self { store }
    }
}

fn lookup(principal: &Principal, at: Instants) -> Option<Lookup> {
    let id: KeyId = principal.credential_id()?.parse().ok()?;
    Some(Lookup::new(id, at))
}

fn conclude(found: Found, at: Instants) -> Result<(), Ended> {
    match found {
        Ok(Some(hit)) if hit.owner_disabled() => Err(Ended::Revoked),
        Ok(Some(hit)) => match hit.record().refusal(at.unix_seconds()) {
            None => Ok(()),
            // A rotation may have brought the end forward.
            Some(_) if hit.record().expires().is_some_and(|end| end <= at.unix_seconds()) => Err(Ended::Expired),
            Some(_) => Err(Ended::Revoked),
        },
        Ok(None) => Err(Ended::Revoked),
        Err(_) => Err(Ended::Unknown),
    }
}

#[async_trait]
impl Voucher for KeyVoucher {
    fn vouches_now(&self, principal: &Principal, at: Instants) -> Now<Result<(), Ended>> {
        match (self.store.upgrade(), lookup(principal, at)) {
            (Some(store), Some(lookup)) => store.find_now(lookup).map(|found| conclude(found, at)),
            (None, _) | (_, None) => Now::Known(Err(Ended::Unknown)),
        }
    }

    async fn vouches(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
        match (self.store.upgrade(), lookup(principal, at)) {
            (Some(store), Some(lookup)) => conclude(store.find(lookup).await, at),
            (None, _) | (_, None) => Err(Ended::Unknown),
        }
    }
}

impl fmt::Debug for KeyVoucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVoucher").finish_non_exhaustive()
    }
}
