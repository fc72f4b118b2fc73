use std::sync::{Arc, Mutex, PoisonError};

use super::{fresh_tenant, insert, minted, named, revocation, valid, works};
use crate::{
    api_key::{ApiKeyAdmin, ChangeListener, KeyChange, Owner, Rotation},
    clock::Instants,
};

/// What was heard since the last question.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<KeyChange>>);

impl ChangeListener for Heard {
    fn changed(&self, change: &KeyChange) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(change.clone());
    }
}

impl Heard {
    /// A change may be told twice, or as one of everything.
    fn expect(&self, expected: &[KeyChange], after: &str) {
        let heard = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for change in expected {
            let told = heard.contains(change) || heard.contains(&KeyChange::Everything);
            assert!(told, "{after} is told before it returns: {change:?}, not {heard:?}");
        }
    }
}

/// A store that tells no changes has none to tell.
pub(super) async fn changes_are_told(store: &dyn ApiKeyAdmin, at: Instants) {
    let Some(feed) = store.changes() else { return };
    let heard = Arc::new(Heard::default());
    let listener: Arc<dyn ChangeListener> = Arc::<Heard>::clone(&heard);
    feed.subscribe(Arc::downgrade(&listener));

    let tenant = fresh_tenant(at);
    let owner = valid(Owner::new("conformance").and_then(|owner| owner.in_tenant(&tenant)));
    let theirs = || minted(named("told").tenant(&*tenant), at);
    let (old, new) = (theirs(), theirs());
    let (old_id, new_id) = (*old.id(), *new.id());

    let first = heard.0.lock().unwrap_or_else(PoisonError::into_inner).first().cloned();
    let stands = matches!(first, Some(KeyChange::Everything | KeyChange::Lost));
    assert!(stands, "a new listener hears how things stand");
    heard.expect(&[], "subscribing");
    insert(store, &old).await;
    heard.expect(&[KeyChange::Key(old_id)], "an insert");
    works(store.rotate(valid(Rotation::new(old_id, new, at.unix_seconds()))).await);
    heard.expect(&[KeyChange::Key(old_id), KeyChange::Key(new_id)], "a rotation");
    works(store.disable_owner(&owner, &revocation(at, "left")).await);
    heard.expect(&[KeyChange::Owner(owner.clone())], "disabling an owner");
    works(store.enable_owner(&owner).await);
    heard.expect(&[KeyChange::Owner(owner)], "enabling an owner");
    works(store.revoke(&new_id, &revocation(at, "leaked")).await);
    heard.expect(&[KeyChange::Key(new_id)], "a revocation");
}
