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

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        PrincipalKind,
        api_key::{ApiKeyAdmin, MemoryKeyStore, NewApiKey, Revocation},
        conformance,
    };

    /// Answers after waiting, alone.
    #[derive(Debug)]
    struct Slow(Arc<MemoryKeyStore>);

    #[async_trait]
    impl ApiKeyStore for Slow {
        async fn find(&self, lookup: Lookup) -> Found {
            self.0.find(lookup).await
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_vouchers() {
        let at = Instants::new(1_800_000_000_000_000_000, 0);
        let store = Arc::new(MemoryKeyStore::new());
        let mut holders = Vec::new();
        for name in ["good", "revoked", "of a disabled owner"] {
            let (_, record) = NewApiKey::for_subject(name).mint(at).unwrap();
            let holder = Principal::builder(PrincipalKind::Key, "api-keys", name, "api_key");
            holders.push(holder.credential_id(record.id().to_string()).build());
            store.insert(record).await.unwrap();
        }
        let stranger = Principal::builder(PrincipalKind::Key, "api-keys", "stranger", "api_key");
        let (_, unknown) = NewApiKey::for_subject("stranger").mint(at).unwrap();
        let stranger = stranger.credential_id(unknown.id().to_string()).build();
        let [good, revoked, disabled] = &holders[..] else { panic!("{holders:?}") };
        let ended = Revocation::new(at.unix_seconds(), "left").unwrap();
        assert!(store.revoke(&revoked.credential_id().unwrap().parse().unwrap(), &ended).await.unwrap());
        let owner = crate::api_key::Owner::new("of a disabled owner").unwrap();
        assert!(store.disable_owner(&owner, &ended).await.unwrap());

        let stores: [Arc<dyn ApiKeyStore>; 2] = [Arc::<MemoryKeyStore>::clone(&store), Arc::new(Slow(store))];
        for store in &stores {
            let voucher = KeyVoucher::new(Arc::downgrade(store));
            for ended in [revoked, disabled, &stranger] {
                conformance::voucher(&voucher, good, ended, at).await;
            }
        }
    }
}
