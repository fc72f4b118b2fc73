use std::{
    fmt,
    sync::{Mutex, PoisonError, Weak},
};

use crate::api_key::{KeyId, Owner};

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
    /// subscribe nor change keys in here.
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
    state: Mutex<State>,
}

struct State {
    listeners: Vec<Weak<dyn ChangeListener>>,
    lost: bool,
}

impl ChangeFeed {
    /// A feed that knows what changes, with no listeners.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { listeners: Vec::new(), lost: false }) }
    }

    /// A feed that does not know yet: as after [`KeyChange::Lost`].
    #[must_use]
    pub const fn new_lost() -> Self {
        Self { state: Mutex::new(State { listeners: Vec::new(), lost: true }) }
    }

    /// Adds a listener. Before this returns, it hears how things stand: [`KeyChange::Everything`] or [`KeyChange::Lost`].
    pub fn subscribe(&self, listener: Weak<dyn ChangeListener>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listener.upgrade() {
            listener.changed(if state.lost { &KeyChange::Lost } else { &KeyChange::Everything });
        }
        state.listeners.push(listener);
    }

    /// Tells every listener, and returns when all have heard it.
    pub fn publish(&self, change: &KeyChange) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            KeyChange::Lost => state.lost = true,
            KeyChange::Everything => state.lost = false,
            KeyChange::Key(_) | KeyChange::Owner(_) => {}
        }
        state.listeners.retain(|listener| {
            let listener = listener.upgrade();
            listener.inspect(|listener| listener.changed(change)).is_some()
        });
    }

    /// Whether the store no longer learns what changes.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lost
    }
}

impl Default for ChangeFeed {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ChangeFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("ChangeFeed").field("listeners", &state.listeners.len()).field("lost", &state.lost).finish()
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
        let other = Arc::clone(&feed);
        assert!(std::thread::spawn(move || other.publish(&KeyChange::Lost)).join().is_err());
        feed.publish(&KeyChange::Everything);
        assert_eq!(seen.lock().unwrap().last(), Some(&KeyChange::Everything));
    }
}
