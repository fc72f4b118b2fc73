use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use crate::{
    api_key::{KeyId, Owner},
    log,
};

/// What changed in a store, for those who remember its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: a key, an owner, all, and not knowing")]
pub enum KeyChange {
    /// This key was inserted, rotated or revoked. What was remembered of it, that it does not exist included, is void.
    Key(KeyId),
    /// This owner was disabled or enabled: what was remembered of their keys is void, and what comes of them from now on is
    /// new.
    Owner(Owner),
    /// Anything may have changed; from here on the store tells again what does. Everything that was remembered is void.
    Everything,
    /// The store no longer learns what changes. Until [`Everything`](Self::Everything) comes, what is remembered must not be
    /// trusted longer than without a feed.
    Lost,
}

/// Hears what changes. Closures are listeners.
pub trait ChangeListener: Send + Sync + 'static {
    /// Takes a change in. Called in the order of the changes, while the one who changes waits: be quick, and neither
    /// subscribe nor change keys in here. If it panics, the log says so, and the other listeners hear the change all the same.
    fn changed(&self, change: &KeyChange);
}

impl<F: Fn(&KeyChange) + Send + Sync + 'static> ChangeListener for F {
    fn changed(&self, change: &KeyChange) {
        self(change);
    }
}

/// Tells listeners what changes in a store; the store owns it and gives it out as
/// [`ApiKeyStore::changes`](crate::api_key::ApiKeyStore::changes).
///
/// - A store publishes **after** the change can be found and **before** the method that made it returns. So once `revoke`
///   has returned, every listener in this process knows.
/// - A store that others change too, a database, publishes their changes when it hears of them; [`KeyChange::Lost`] as soon
///   as it no longer does; and [`KeyChange::Everything`] once it does again.
/// - A listener that loads a record must take care of the change that comes between its load and its remembering: count the
///   changes, and do not remember what was loaded under another count.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use portcullis::api_key::{ChangeFeed, ChangeListener, KeyChange, KeyId};
///
/// let feed = ChangeFeed::new();
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let log = Arc::clone(&seen);
/// let listener: Arc<dyn ChangeListener> = Arc::new(move |change: &KeyChange| log.lock().unwrap().push(change.clone()));
/// feed.subscribe(Arc::downgrade(&listener)); // held weakly: who drops the listener has unsubscribed
///
/// feed.publish(&KeyChange::Key(KeyId::from_bytes([1; 10])));
/// assert_eq!(*seen.lock().unwrap(), [KeyChange::Everything, KeyChange::Key(KeyId::from_bytes([1; 10]))]);
/// ```
pub struct ChangeFeed {
    listeners: Mutex<Vec<Weak<dyn ChangeListener>>>,
    /// Written under the lock, and read without it: a listener may ask.
    lost: AtomicBool,
}

impl ChangeFeed {
    /// A feed that knows what changes, with no listeners.
    #[must_use]
    pub const fn new() -> Self {
        Self { listeners: Mutex::new(Vec::new()), lost: AtomicBool::new(false) }
    }

    /// A feed that does not know yet: as after [`KeyChange::Lost`].
    #[must_use]
    pub const fn new_lost() -> Self {
        Self { listeners: Mutex::new(Vec::new()), lost: AtomicBool::new(true) }
    }

    /// Adds a listener. Before this returns, it hears how things stand: [`KeyChange::Everything`] or [`KeyChange::Lost`].
    pub fn subscribe(&self, listener: Weak<dyn ChangeListener>) {
        let mut listeners = self.lock();
        if let Some(listener) = listener.upgrade() {
            tell(listener, if self.is_lost() { &KeyChange::Lost } else { &KeyChange::Everything });
        }
        listeners.push(listener);
    }

    /// Tells every listener, and returns when all have heard it.
    pub fn publish(&self, change: &KeyChange) {
        let mut listeners = self.lock();
        match change {
            KeyChange::Lost => self.lost.store(true, SeqCst),
            KeyChange::Everything => self.lost.store(false, SeqCst),
            KeyChange::Key(_) | KeyChange::Owner(_) => {}
        }
        listeners.retain(|listener| listener.upgrade().map(|listener| tell(listener, change)).is_some());
    }

    /// Whether the store no longer learns what changes. A listener may ask this too.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn ChangeListener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change is told once: one listener that panics, or whose drop does, must not keep it from the others, nor end the task of a
/// store that tells it.
fn tell(listener: Arc<dyn ChangeListener>, change: &KeyChange) {
    if catch_unwind(AssertUnwindSafe(move || listener.changed(change))).is_err() {
        log::error("API keys: a listener of changes panicked, and may not have taken in what changed");
    }
}

impl Default for ChangeFeed {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ChangeFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners = match self.listeners.try_lock() {
            Ok(listeners) => Some(listeners.len()),
            Err(TryLockError::Poisoned(listeners)) => Some(listeners.into_inner().len()),
            Err(TryLockError::WouldBlock) => None, // a listener may ask
        };
        let mut text = f.debug_struct("ChangeFeed");
        if let Some(listeners) = listeners {
            text.field("listeners", &listeners);
        }
        text.field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn listener() -> (Arc<dyn ChangeListener>, Arc<Mutex<Vec<KeyChange>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        (Arc::new(move |change: &KeyChange| log.lock().unwrap().push(change.clone())), seen)
    }

    #[test]
    fn a_new_listener_hears_how_things_stand() {
        let feed = ChangeFeed::new_lost();
        let ((early, seen_early), (late, seen_late)) = (listener(), listener());
        feed.subscribe(Arc::downgrade(&early));
        feed.publish(&KeyChange::Everything);
        feed.subscribe(Arc::downgrade(&late));
        feed.publish(&KeyChange::Lost);
        assert_eq!(*seen_early.lock().unwrap(), [KeyChange::Lost, KeyChange::Everything, KeyChange::Lost]);
        assert_eq!(*seen_late.lock().unwrap(), [KeyChange::Everything, KeyChange::Lost]);
        assert!(feed.is_lost());
    }

    #[test]
    fn a_dropped_listener_is_forgotten() {
        let feed = ChangeFeed::new();
        let (listener, seen) = listener();
        feed.subscribe(Arc::downgrade(&listener));
        drop(listener);
        feed.publish(&KeyChange::Everything);
        assert_eq!(*seen.lock().unwrap(), [KeyChange::Everything], "only what it heard while it was there");
        assert!(format!("{feed:?}").contains("listeners: 0"));
    }

    #[test]
    fn a_listener_that_panics_silences_nobody() {
        let feed = Arc::new(ChangeFeed::new());
        let (listener, seen) = listener();
        let bad: Arc<dyn ChangeListener> = Arc::new(|change: &KeyChange| assert_ne!(*change, KeyChange::Lost));
        feed.subscribe(Arc::downgrade(&bad));
        feed.subscribe(Arc::downgrade(&listener));
        feed.publish(&KeyChange::Lost);
        assert_eq!(seen.lock().unwrap().last(), Some(&KeyChange::Lost), "the change itself, not only those after it");
        feed.publish(&KeyChange::Everything);
        assert_eq!(seen.lock().unwrap().last(), Some(&KeyChange::Everything));
    }

    #[test]
    fn a_listener_may_ask_how_things_stand() {
        let feed = Arc::new(ChangeFeed::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (asked, log) = (Arc::downgrade(&feed), Arc::clone(&seen));
        let gauge: Arc<dyn ChangeListener> = Arc::new(move |_: &KeyChange| {
            let feed = asked.upgrade().unwrap();
            log.lock().unwrap().push((feed.is_lost(), format!("{feed:?}").contains("listeners")));
        });
        feed.subscribe(Arc::downgrade(&gauge));
        feed.publish(&KeyChange::Lost);
        feed.publish(&KeyChange::Everything);
        assert_eq!(*seen.lock().unwrap(), [(false, false), (true, false), (false, false)]);
    }
}
