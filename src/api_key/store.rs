use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{
    api_key::{ApiKeyRecord, KeyId},
    clock::Instants,
    error::StoreError,
    now::Now,
};

/// The most records that one page of [`ApiKeyAdmin::list`] has.
pub const MAX_PAGE: usize = 1_000;

/// What a store answers: a record, word that there is none, or a failure.
pub type Found = Result<Option<Arc<ApiKeyRecord>>, StoreError>;

/// Finds the record of a key.
///
/// # Contract
/// - None means that the store looked and there is no such key. What the store cannot find out is a [`StoreError`], which
///   the client sees as `503`.
/// - Revoked and expired keys are found like any other: the authenticator decides, and its answer does not depend on
///   the store's time.
/// - [`find_now`](Self::find_now) and [`find`](Self::find) agree. The conformance suite (feature `conformance`) checks it.
/// - A store sees ids and hashes, never a secret. Ids that come from clients are unbounded in number: remember no misses
///   without a bound.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use portcullis::api_key::{ApiKeyRecord, ApiKeyStore, Found, KeyId};
///
/// #[derive(Debug)]
/// struct FromConfig(HashMap<KeyId, Arc<ApiKeyRecord>>);
///
/// #[async_trait::async_trait]
/// impl ApiKeyStore for FromConfig {
///     async fn find(&self, id: &KeyId) -> Found {
///         Ok(self.0.get(id).cloned())
///     }
/// }
/// ```
#[async_trait]
pub trait ApiKeyStore: Debug + Send + Sync + 'static {
    /// Answers without waiting, if it can.
    fn find_now(&self, id: &KeyId) -> Now<Found> {
        let _ = id;
        Now::Wait
    }

    /// Answers.
    ///
    /// # Errors
    /// If the backend does not answer, or answers nonsense.
    async fn find(&self, id: &KeyId) -> Found;
}

/// Changes what a store holds. Each method takes effect for every later [`find`](ApiKeyStore::find) on the same store.
#[async_trait]
pub trait ApiKeyAdmin: ApiKeyStore {
    /// Adds a record; all of it or nothing.
    ///
    /// # Errors
    /// [`Conflict`](crate::StoreErrorKind::Conflict) if the id exists: the record that is there stays as it is. Other
    /// kinds if the backend fails.
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError>;

    /// Revokes a key. `true` if there is such a key: it is revoked when this returns, by this call or by an earlier one,
    /// whose time and reason stay. `false` if there is none.
    ///
    /// # Errors
    /// If the backend fails; whether the key is revoked is then unknown, and asking again is safe.
    async fn revoke(&self, id: &KeyId, at: Instants, reason: &str) -> Result<bool, StoreError>;

    /// One page of records, by ascending id: those after `after`, or the first ones. At most `limit`, and at most
    /// [`MAX_PAGE`]. An empty page is the end.
    ///
    /// # Errors
    /// If the backend fails.
    async fn list(&self, after: Option<&KeyId>, limit: usize) -> Result<Vec<Arc<ApiKeyRecord>>, StoreError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: ApiKeyStore + ?Sized> ApiKeyStore for $pointer<T> {
            fn find_now(&self, id: &KeyId) -> Now<Found> {
                (**self).find_now(id)
            }

            async fn find(&self, id: &KeyId) -> Found {
                (**self).find(id).await
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: ApiKeyAdmin + ?Sized> ApiKeyAdmin for $pointer<T> {
            async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
                (**self).insert(record).await
            }

            async fn revoke(&self, id: &KeyId, at: Instants, reason: &str) -> Result<bool, StoreError> {
                (**self).revoke(id, at, reason).await
            }

            async fn list(&self, after: Option<&KeyId>, limit: usize) -> Result<Vec<Arc<ApiKeyRecord>>, StoreError> {
                (**self).list(after, limit).await
            }
        }
    )*};
}

forward!(Arc, Box);
