use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use super::{fresh_tenant, insert, minted, named, plain, revocation, valid, works};
use crate::{
    api_key::{ApiKeyAdmin, ChangeListener, Hit, KeyChange, KeyId, KeyUse, LastUse, Lookup, Owner, Rotation},
    clock::Instants,
    error::StoreError,
};

/// What was heard since the last question.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<KeyChange>>);

impl ChangeListener for Heard {
    fn changed(&self, change: &KeyChange) {
        self.lock().push(change.clone());
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Vec<KeyChange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<KeyChange> {
        std::mem::take(&mut *self.lock())
    }
}

/// Who asks for two keys while they are changed.
struct Observer<'a> {
    store: &'a dyn ApiKeyAdmin,
    heard: &'a Heard,
    keys: [KeyId; 2],
    at: Instants,
}

impl Observer<'_> {
    /// Makes a change step by step. It may be told twice, or as one of everything; what is told before the change can be found is
    /// told in vain, since a cache that asks then remembers what was before.
    async fn expect<T>(
        &self,
        told: &[KeyChange],
        after: &str,
        change: impl Future<Output = Result<T, StoreError>> + Send,
        is_made: impl Fn(Option<Hit>, Option<Hit>) -> bool + Send,
    ) {
        let (mut change, mut untold) = (pin!(change), told.to_vec());
        self.heard.take();
        loop {
            let is_done = poll_fn(|cx| match change.as_mut().poll(cx) {
                Poll::Ready(made) => Poll::Ready(works(made.map(|_| true))),
                Poll::Pending if self.heard.lock().is_empty() => Poll::Pending,
                Poll::Pending => Poll::Ready(false),
            });
            let is_done = is_done.await;
            let heard = self.heard.take();
            if !heard.is_empty() {
                // The change gets no further meanwhile.
                let [one, other] = self.keys.map(|id| self.store.find(Lookup::new(id, self.at)));
                if is_made(works(one.await), works(other.await)) {
                    untold.retain(|change| !heard.contains(change) && !heard.contains(&KeyChange::Everything));
                }
            }
            if is_done {
                break;
            }
        }
        assert!(untold.is_empty(), "{after} is told before it returns, once it can be found: {untold:?} is not");
    }
}

/// A store that tells no changes has none to tell.
pub(super) async fn changes_are_told(store: &dyn ApiKeyAdmin, at: Instants) {
    let Some(feed) = store.changes() else { return };
    let heard = Arc::new(Heard::default());
    let listener: Arc<dyn ChangeListener> = Arc::<Heard>::clone(&heard);
    feed.subscribe(Arc::downgrade(&listener));
    let stands = matches!(heard.lock().first(), Some(KeyChange::Everything | KeyChange::Lost));
    assert!(stands, "a new listener hears how things stand");

    let tenant = fresh_tenant(at);
    let owner = valid(Owner::new("conformance").and_then(|owner| owner.in_tenant(&tenant)));
    let theirs = || minted(named("told").tenant(&*tenant), at);
    let (old, new) = (theirs(), theirs());
    let keys = [*old.id(), *new.id()];
    let [old_told, new_told] = keys.map(KeyChange::Key);
    let observer = Observer { store, heard: &heard, keys, at };

    let insert = store.insert(old);
    observer.expect(std::slice::from_ref(&old_told), "an insert", insert, |old, _| old.is_some()).await;

    let [old_id, new_id] = keys;
    let rotate = store.rotate(valid(Rotation::new(old_id, new, at.unix_seconds())));
    let is_rotated = |old: Option<Hit>, new: Option<Hit>| {
        old.is_some_and(|old| old.record().rotated_to() == Some(&new_id)) && new.is_some()
    };
    observer.expect(&[old_told, new_told.clone()], "a rotation", rotate, is_rotated).await;

    let is_disabled = |new: Option<Hit>| new.is_some_and(|new| new.owner_disabled());
    let (told, left) = ([KeyChange::Owner(owner.clone())], revocation(at, "left"));
    let disable = store.disable_owner(&owner, &left);
    observer.expect(&told, "disabling an owner", disable, |_, new| is_disabled(new)).await;
    let enable = store.enable_owner(&owner);
    observer.expect(&told, "enabling an owner", enable, |_, new| !is_disabled(new)).await;

    let leaked = revocation(at, "leaked");
    let revoke = store.revoke(&new_id, &leaked);
    let is_revoked = |_, new: Option<Hit>| new.is_some_and(|new| new.record().revocation() == Some(&leaked));
    observer.expect(&[new_told], "a revocation", revoke, is_revoked).await;
    uses_are_no_changes(store, &heard, at).await;
}

/// A store that told each use would empty every cache before it.
async fn uses_are_no_changes(store: &dyn ApiKeyAdmin, heard: &Heard, at: Instants) {
    /// More than an insert that is told late and twice makes.
    const USES: usize = 20;
    let used = plain(at);
    insert(store, &used).await;
    heard.take();
    for second in (0..).take(USES) {
        let last = LastUse::new(at.unix_seconds().saturating_add(second), None);
        works(store.record_uses(&[KeyUse::new(*used.id(), last)]).await);
    }
    let told = heard.take();
    let voids = |change: &&KeyChange| {
        matches!(change, KeyChange::Key(id) if id == used.id()) || **change == KeyChange::Everything
    };
    assert!(told.iter().filter(voids).count() < USES, "a use is no change, and is not told");
}
