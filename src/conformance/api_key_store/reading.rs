use std::net::{IpAddr, Ipv4Addr};

use super::{plain, works};
use crate::{
    api_key::{ApiKeyStore, Hit, KeyId, Lookup, RecordFields},
    clock::Instants,
    now::Now,
};

/// How many keys are asked for that nobody has.
const STRANGERS: usize = 100;
/// In nanoseconds.
const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// Checks an [`ApiKeyStore`] that is read alone: what it `holds` is found whole, whether it is revoked, expired or of an owner who
/// is disabled, in both ways alike, whoever asks and when; and a key that it does not hold is none.
///
/// `holds` is some of what the store holds, one key at least; name one that is revoked and one that is expired, if it can hold such.
/// What is known of a key's last use is not compared. [`api_key_store`](super::api_key_store) includes this.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::{collections::HashMap, sync::Arc};
///
/// use portcullis::{
///     Clock, SystemClock,
///     api_key::{ApiKeyRecord, ApiKeyStore, Found, Hit, KeyId, Lookup, NewApiKey},
///     conformance,
/// };
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
///
/// let at = SystemClock::new().now();
/// let (_, record) = NewApiKey::for_subject("billing").mint(at).unwrap();
/// let record = Arc::new(record);
/// let store = FromConfig(HashMap::from([(*record.id(), Arc::clone(&record))]));
/// conformance::read_only_api_key_store(&store, &[Hit::new(record)], at).await;
/// # });
/// ```
///
/// # Panics
/// If the store breaks the contract of its trait, or fails.
pub async fn read_only_api_key_store(store: &dyn ApiKeyStore, holds: &[Hit], at: Instants) {
    assert!(!holds.is_empty(), "the suite needs a key that the store holds");
    let later = Instants::new(at.unix_nanos().saturating_add(YEAR), at.monotonic_nanos().saturating_add(YEAR));
    for held in holds {
        for asked in [at, later, at] {
            for client in [None, Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)))] {
                let found = look(store, held.record().id(), client, asked).await;
                assert!(
                    found.as_ref().map(without_use) == Some(without_use(held)),
                    "what a store holds is found whole, whoever asks and when: {held:?}, not {found:?}"
                );
            }
        }
    }
    for _ in 0..STRANGERS {
        let stranger = *plain(at).id();
        assert!(look(store, &stranger, None, at).await.is_none(), "a key that the store does not hold is None");
    }
    for held in holds {
        let found = look(store, held.record().id(), None, at).await;
        assert!(found.is_some(), "a key is still found after others that nobody has were asked for");
    }
}

/// Asks both twins.
async fn look(store: &dyn ApiKeyStore, id: &KeyId, client: Option<IpAddr>, at: Instants) -> Option<Hit> {
    let lookup = Lookup::new(*id, at).from_client(client);
    let before = store.find_now(lookup);
    let waited = works(store.find(lookup).await);
    for at_once in [before, store.find_now(lookup)] {
        if let Now::Known(at_once) = at_once {
            assert!(works(at_once) == waited, "find_now and find agree");
        }
    }
    waited
}

fn without_use(hit: &Hit) -> (RecordFields, bool) {
    let mut fields = hit.record().fields();
    fields.last_used = None;
    (fields, hit.owner_disabled())
}
