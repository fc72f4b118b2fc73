/// Implements [`ApiKeyAdmin`](crate::api_key::ApiKeyAdmin) for the store of one database, which has a module `work`, and methods `read`
/// and `change` that bring its work to a connection; `change` also tells what has changed.
///
/// No trait does it: a blanket implementation would hide the methods in the docs of either store, and what sqlx asks of a generic
/// connection is longer than what is done there.
macro_rules! admin {
    ($store:ident) => {
        #[async_trait]
        impl ApiKeyAdmin for $store {
            async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
                let told = vec![KeyChange::Key(*record.id())];
                self.change(told, |connection| Box::pin(work::insert(connection, record))).await
            }

            async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
                let told = vec![KeyChange::Key(*rotation.old()), KeyChange::Key(*rotation.record().id())];
                self.change(told, |connection| Box::pin(work::rotate(connection, rotation))).await
            }

            async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
                let (id, revocation) = (*id, revocation.clone());
                self.change(vec![KeyChange::Key(id)], move |connection| {
                    Box::pin(work::revoke(connection, id, revocation))
                })
                .await
            }

            async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
                let (owner, disablement) = (owner.clone(), disablement.clone());
                let told = vec![KeyChange::Owner(owner.clone())];
                self.change(told, |connection| Box::pin(work::disable(connection, owner, disablement))).await
            }

            async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
                let owner = owner.clone();
                let told = vec![KeyChange::Owner(owner.clone())];
                self.change(told, |connection| Box::pin(work::enable(connection, owner))).await
            }

            async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
                let owner = owner.clone();
                self.read(|connection| Box::pin(work::disablement(connection, owner))).await
            }

            async fn get(&self, id: &KeyId) -> Found {
                let id = *id;
                self.read(move |connection| Box::pin(work::find(connection, id))).await
            }

            async fn list(
                &self,
                filter: &KeyFilter,
                after: Option<&KeyId>,
                limit: usize,
            ) -> Result<Vec<Hit>, StoreError> {
                let (filter, after) = (filter.clone(), after.copied());
                self.read(move |connection| Box::pin(work::list(connection, filter, after, limit))).await
            }

            async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
                let before = at.unix_seconds().saturating_sub(kept.as_secs());
                let mut purged = 0_u64;
                loop {
                    let batch =
                        self.change(Vec::new(), move |connection| Box::pin(work::purge(connection, before))).await?;
                    purged = purged.saturating_add(batch);
                    if usize::try_from(batch).is_ok_and(|batch| batch < statements::BATCH) {
                        return Ok(purged);
                    }
                }
            }

            async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
                for batch in statements::latest(uses).chunks(statements::BATCH) {
                    let batch = batch.to_vec();
                    self.change(Vec::new(), |connection| Box::pin(work::record_uses(connection, batch))).await?;
                }
                Ok(())
            }
        }
    };
}
pub(super) use admin;
