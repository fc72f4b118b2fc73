use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    api_key::{ApiKeyRecord, ChangeFeed, Found, Hit, KeyFilter, KeyId, KeyUse, Lookup, Owner, Revocation, Rotation},
    clock::Instants,
    error::StoreError,
    now::Now,
};

/// The most records that one page of [`ApiKeyAdmin::list`] has.
pub const MAX_PAGE: usize = 1_000;

/// Finds the record of a key.
///
/// # Contract
/// - None means that the store looked and there is no such key. What the store cannot find out is a [`StoreError`], which
///   the client sees as `503`; a caller whose budget for misses is used up gets
///   [`Throttled`](crate::StoreErrorKind::Throttled), which is `429`. A broken row is
///   [`Corrupt`](crate::StoreErrorKind::Corrupt) and names the key: [`RecordFields::decode`](crate::api_key::RecordFields::decode).
/// - The record and its owner's disablement are of one look-up: [`Hit`].
/// - Revoked and expired keys are found like any other: the authenticator decides, and its answer does not depend on
///   the store's time. Neither client nor time of the [`Lookup`] changes what is found; they are there for caches.
/// - [`find_now`](Self::find_now) and [`find`](Self::find) agree. The conformance suite (feature `conformance`) checks it.
/// - A store sees ids and hashes, never a secret. Ids that come from clients are unbounded in number: remember no misses
///   without a bound.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use portcullis::api_key::{ApiKeyRecord, ApiKeyStore, Found, Hit, KeyId, Lookup};
///
/// #[derive(Debug)]
/// struct FromConfig(HashMap<KeyId, Arc<ApiKeyRecord>>);
///
/// #[async_trait::async_trait]
/// impl ApiKeyStore for FromConfig {
///     async fn find(&self, lookup: Lookup) -> Found {
///         Ok(self.0.get(lookup.id()).cloned().map(Hit::new))
///     }
/// }
/// ```
#[async_trait]
pub trait ApiKeyStore: Debug + Send + Sync + 'static {
    /// Answers without waiting, if it can.
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        let _ = lookup;
        Now::Wait
    }

    /// Answers.
    ///
    /// # Errors
    /// If the backend does not answer, or answers nonsense.
    async fn find(&self, lookup: Lookup) -> Found;

    /// Tells what changes from now on, for whoever remembers answers. None, the default, is a store that cannot tell: what is
    /// remembered of it goes by age alone.
    fn changes(&self) -> Option<&ChangeFeed> {
        None
    }

    /// Whether it remembers that there is such a key, although it has to ask again before it answers. Then a
    /// [failure budget](crate::authn::AuthnLayer) that others behind the same address have used up does not shut the key out.
    /// False, the default, is a store that remembers nothing or answers at once.
    fn remembers(&self, id: &KeyId) -> bool {
        let _ = id;
        false
    }
}

/// Changes what a store holds.
///
/// # Contract
/// - Each method takes effect for every later call on the same store, [`find`](ApiKeyStore::find) included, and is published
///   in [`changes`](ApiKeyStore::changes) before it returns. It is atomic: all of it or nothing, for readers and after a
///   crash, but for [`rotate`](Self::rotate), whose two records readers may see one after the other.
/// - An error other than [`Conflict`](crate::StoreErrorKind::Conflict) leaves open whether it took effect; asking again is
///   safe.
/// - Time is an argument; a store reads no clock.
#[async_trait]
pub trait ApiKeyAdmin: ApiKeyStore {
    /// Adds a record. It may belong to an owner who is disabled: it is disabled with the rest then.
    ///
    /// # Errors
    /// [`Conflict`](crate::StoreErrorKind::Conflict) if the id exists: the record that is there stays as it is. Other
    /// kinds if the backend fails.
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError>;

    /// Adds a record in the place of another one, whose end it moves to [`Rotation::old_ends`] if it was later, and whose
    /// [`rotated_to`](ApiKeyRecord::rotated_to) it sets: [`Rotation::shorten`]. `false`, and nothing is changed, if there is
    /// no such key.
    ///
    /// # Errors
    /// [`Conflict`](crate::StoreErrorKind::Conflict), and nothing is changed, if the old key was rotated before or is revoked,
    /// or the new id exists: of two that rotate one key at the same time, one wins. Other kinds if the backend fails.
    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError>;

    /// Revokes a key. `true` if there is such a key: it is revoked when this returns, by this call or by an earlier one,
    /// whose time and reason stay. `false` if there is none.
    ///
    /// # Errors
    /// If the backend fails.
    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError>;

    /// Disables an owner: none of their keys is accepted, those of later included, until they are enabled. The records stay
    /// as they are; [`Hit::owner_disabled`] tells. `true` if the owner was enabled before; else the earlier time and reason
    /// stay. An owner needs no key to be disabled.
    ///
    /// # Errors
    /// If the backend fails.
    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError>;

    /// Enables an owner again: their keys are accepted as their records say. `true` if the owner was disabled before.
    ///
    /// # Errors
    /// If the backend fails.
    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError>;

    /// When and why an owner was disabled; None if they are not.
    ///
    /// # Errors
    /// If the backend fails.
    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError>;

    /// One record, as it stands: nothing remembered, no budget, last use included.
    ///
    /// # Errors
    /// If the backend fails.
    async fn get(&self, id: &KeyId) -> Found;

    /// One page of the records that fit the filter, by ascending id: those after `after`, or the first ones. At most `limit`,
    /// and at most [`MAX_PAGE`]. Fewer are not the end; an empty page is.
    ///
    /// # Errors
    /// If the backend fails.
    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError>;

    /// Removes the records of keys that [ended](ApiKeyRecord::ended) more than `kept` before `at`, and says how many. No key
    /// that could still be accepted goes, so that nothing needs to be published.
    ///
    /// # Errors
    /// If the backend fails; some may be gone then.
    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError>;

    /// Notes when keys were last used; [`get`](Self::get) and [`list`](Self::list) tell it, and `find` may lag behind. A later
    /// use that is known stays; a key that is gone is skipped. Nothing is published.
    ///
    /// # Errors
    /// If the backend fails; some may be noted then.
    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: ApiKeyStore + ?Sized> ApiKeyStore for $pointer<T> {
            fn find_now(&self, lookup: Lookup) -> Now<Found> {
                (**self).find_now(lookup)
            }

            async fn find(&self, lookup: Lookup) -> Found {
                (**self).find(lookup).await
            }

            fn changes(&self) -> Option<&ChangeFeed> {
                (**self).changes()
            }

            fn remembers(&self, id: &KeyId) -> bool {
                (**self).remembers(id)
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: ApiKeyAdmin + ?Sized> ApiKeyAdmin for $pointer<T> {
            async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
                (**self).insert(record).await
            }

            async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
                (**self).rotate(rotation).await
            }

            async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
                (**self).revoke(id, revocation).await
            }

            async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
                (**self).disable_owner(owner, disablement).await
            }

            async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
                (**self).enable_owner(owner).await
            }

            async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
                (**self).disablement(owner).await
            }

            async fn get(&self, id: &KeyId) -> Found {
                (**self).get(id).await
            }

            async fn list(
                &self,
                filter: &KeyFilter,
                after: Option<&KeyId>,
                limit: usize,
            ) -> Result<Vec<Hit>, StoreError> {
                (**self).list(filter, after, limit).await
            }

            async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
                (**self).purge(at, kept).await
            }

            async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
                (**self).record_uses(uses).await
            }
        }
    )*};
}

forward!(Arc, Box);
