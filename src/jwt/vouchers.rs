//! Whether the key that verified a token is still its issuer's: what an exchange asks that outlasts its request.

use std::{
    fmt, ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;

use crate::{
    clock::Instants,
    jwt::{Algorithm, Key, key::Print, key_set::MAX_TRIES, keys::KeySource},
    now::Now,
    principal::Principal,
    revocation::RevocationState,
    voucher::{Ended, Voucher},
};

/// How many are remembered at a time. Another one that falls into its place drives one out.
const PLACES: usize = 16;

/// The vouchers of one authenticator: one for all tokens of a key and its id, so that a token costs no memory for it.
pub(super) struct Vouchers {
    places: [ArcSwapOption<KeyVoucher>; PLACES],
    revocations: Option<RevocationState>,
}

impl Vouchers {
    pub(super) fn new(revocations: Option<RevocationState>) -> Self {
        Self { places: Default::default(), revocations }
    }

    /// The one of a token that names this key id, and whose signature is good by this key of this generation.
    pub(super) fn of(
        &self,
        source: &Arc<dyn KeySource>,
        generation: u64,
        key: &Key,
        key_id: Option<&str>,
    ) -> Arc<dyn Voucher> {
        let [number, ..] = *key.print();
        let [first, ..] = &self.places;
        let place = self.places.get(usize::from(number) % PLACES).unwrap_or(first);
        if let Some(known) = place.load().as_ref().filter(|known| known.is_of(source, key, key_id)) {
            return Arc::clone(known) as _;
        }
        let voucher = Arc::new(KeyVoucher {
            source: Arc::clone(source),
            algorithm: key.algorithm(),
            key_id: key_id.map(Box::from),
            issuer: key.issuer().map(Box::from),
            print: *key.print(),
            found_in: AtomicU64::new(generation),
            revocations: self.revocations.clone(),
        });
        place.store(Some(Arc::clone(&voucher)));
        voucher
    }
}

/// Knows whether the tokens of a key still count: whether a request that came now would be verified by it, and what was revoked.
/// A key that comes back vouches again, as it verifies again.
struct KeyVoucher {
    source: Arc<dyn KeySource>,
    algorithm: Algorithm,
    /// What the tokens call it.
    key_id: Option<Box<str>>,
    /// Whose tokens the key signs, where it says so.
    issuer: Option<Box<str>>,
    print: Print,
    /// A generation that has it.
    found_in: AtomicU64,
    revocations: Option<RevocationState>,
}

impl KeyVoucher {
    fn is_of(&self, source: &Arc<dyn KeySource>, key: &Key, key_id: Option<&str>) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.source), Arc::as_ptr(source))
            && self.print == *key.print()
            && self.issuer.as_deref() == key.issuer()
            && self.key_id.as_deref() == key_id
    }

    /// What is revoked is told sooner than what nobody knows.
    fn vouch(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
        let key = self.vouch_for_key(at);
        if key == Err(Ended::Revoked) {
            return key;
        }
        self.revocations.as_ref().map_or(Ok(()), |state| state.vouch(principal, at)).and(key)
    }

    /// A set that did not change is not searched again.
    fn vouch_for_key(&self, at: Instants) -> Result<(), Ended> {
        let generation = self.source.generation(at).ok_or(Ended::Unknown)?;
        if generation == self.found_in.load(Relaxed) {
            return Ok(());
        }
        let snapshot = self.source.snapshot(at).map_err(|_| Ended::Unknown)?;
        let candidates = snapshot.keys().candidates(self.algorithm, self.key_id.as_deref());
        let mut tried = candidates.filter(|key| key.issuer() == self.issuer.as_deref()).take(MAX_TRIES);
        if !tried.any(|key| *key.print() == self.print) {
            return Err(Ended::Revoked);
        }
        self.found_in.store(snapshot.generation(), Relaxed);
        Ok(())
    }
}

/// Answers from memory, always.
#[async_trait]
impl Voucher for KeyVoucher {
    fn vouches_now(&self, principal: &Principal, at: Instants) -> Now<Result<(), Ended>> {
        Now::Known(self.vouch(principal, at))
    }

    async fn vouches(&self, principal: &Principal, at: Instants) -> Result<(), Ended> {
        self.vouch(principal, at)
    }
}

impl fmt::Debug for KeyVoucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVoucher")
            .field("source", &self.source)
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize};

    use super::*;
    use crate::{
        PrincipalKind,
        jwt::{
            KeySet,
            keys::{KeyHealth, KeySnapshot, KeysUnavailable, Refresh},
        },
        secret::Secret,
    };

    const AT: Instants = Instants::new(0, 0);

    #[derive(Debug, Default)]
    struct Moving {
        now: Mutex<Option<KeySnapshot>>,
        searched: AtomicUsize,
    }

    impl Moving {
        fn set(&self, generation: u64, keys: impl IntoIterator<Item = Key>) {
            *self.now.lock().unwrap() = Some(KeySnapshot::new(KeySet::new(keys).unwrap(), generation));
        }
    }

    #[async_trait]
    impl KeySource for Moving {
        fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
            self.searched.fetch_add(1, Relaxed);
            self.now.lock().unwrap().clone().ok_or_else(|| KeysUnavailable::new("away", std::time::Duration::ZERO))
        }

        fn generation(&self, _: Instants) -> Option<u64> {
            self.now.lock().unwrap().as_ref().map(KeySnapshot::generation)
        }

        async fn refresh_for(&self, _: Option<&str>, _: u64, _: Instants) -> Refresh {
            Refresh::NothingNew
        }

        fn health(&self, _: Instants) -> KeyHealth {
            KeyHealth::ready(1)
        }
    }

    fn key(byte: u8, id: Option<&str>) -> Key {
        let key = Key::hmac(Algorithm::HS256, Secret::new(vec![byte; 32])).unwrap();
        id.map_or_else(|| key.clone(), |id| key.clone().with_id(id))
    }

    fn of_issuer(byte: u8) -> Key {
        key(byte, Some("a")).with_issuer(Some("j".into()))
    }

    fn alice() -> Principal {
        Principal::builder(PrincipalKind::User, "i", "alice", "jwt").build()
    }

    /// A token that came with the request is verified by the same sets, or not.
    #[test]
    fn it_vouches_while_a_request_would_be_verified() {
        type Row<'a> = (&'a str, Option<&'a str>, Vec<Key>, Result<(), Ended>);

        let others = |count: u8| (10..10 + count).map(|byte| key(byte, None));
        let rows: [Row<'_>; 11] = [
            ("the same", Some("a"), vec![key(1, Some("a"))], Ok(())),
            ("among others", Some("a"), vec![key(2, Some("b")), key(1, Some("a"))], Ok(())),
            ("without an id", Some("a"), vec![key(1, None)], Ok(())),
            ("gone", Some("a"), vec![key(2, Some("b"))], Err(Ended::Revoked)),
            ("another key of its id", Some("a"), vec![key(2, Some("a"))], Err(Ended::Revoked)),
            ("another issuer's now", Some("a"), vec![of_issuer(1)], Err(Ended::Revoked)),
            ("behind another issuer's", Some("a"), vec![of_issuer(2), key(1, Some("a"))], Ok(())),
            ("under another id", Some("a"), vec![key(1, Some("b"))], Err(Ended::Revoked)),
            ("under another id, by a token without", None, vec![key(1, Some("b"))], Ok(())),
            ("the fourth", None, others(3).chain([key(1, None)]).collect(), Ok(())),
            ("beyond those that are tried", None, others(4).chain([key(1, None)]).collect(), Err(Ended::Revoked)),
        ];
        for (name, key_id, keys, expected) in rows {
            let moving = Arc::new(Moving::default());
            let source: Arc<dyn KeySource> = Arc::clone(&moving) as _;
            moving.set(1, [key(1, Some("a"))]);
            let voucher = Vouchers::new(None).of(&source, 1, &key(1, Some("a")), key_id);
            assert_eq!(voucher.vouches_now(&alice(), AT), Now::Known(Ok(())), "{name}, before");
            moving.set(2, keys);
            for _ in 0..2 {
                assert_eq!(voucher.vouches_now(&alice(), AT), Now::Known(expected), "{name}");
            }
            *moving.now.lock().unwrap() = None;
            assert_eq!(voucher.vouches_now(&alice(), AT), Now::Known(Err(Ended::Unknown)), "{name}, no keys");
        }
    }

    #[test]
    fn a_set_is_searched_once() {
        let moving = Arc::new(Moving::default());
        let source: Arc<dyn KeySource> = Arc::clone(&moving) as _;
        moving.set(1, [key(1, None)]);
        let voucher = Vouchers::new(None).of(&source, 1, &key(1, None), None);
        for (generation, searched) in [(1, 0), (2, 1), (3, 2)] {
            moving.set(generation, [key(1, None)]);
            for _ in 0..3 {
                assert_eq!(voucher.vouches_now(&alice(), AT), Now::Known(Ok(())));
            }
            assert_eq!(moving.searched.load(Relaxed), searched, "generation {generation}");
        }
    }

    #[test]
    fn tokens_of_one_key_share_it() {
        let source = || -> Arc<dyn KeySource> { Arc::new(Moving::default()) };
        let (source, another, vouchers) = (source(), source(), Vouchers::new(None));
        let address = |voucher: Arc<dyn Voucher>| Arc::as_ptr(&voucher).addr();
        let kept = vouchers.of(&source, 1, &key(1, None), Some("a"));
        assert_eq!(address(Arc::clone(&kept)), address(vouchers.of(&source, 2, &key(1, None), Some("a"))));
        for (name, other) in [
            ("key", vouchers.of(&source, 1, &key(2, None), Some("a"))),
            ("id", vouchers.of(&source, 1, &key(1, None), Some("b"))),
            ("issuer", vouchers.of(&source, 1, &of_issuer(1), Some("a"))),
            ("source", vouchers.of(&another, 1, &key(1, None), Some("a"))),
        ] {
            assert_ne!(address(Arc::clone(&kept)), address(other), "another {name}");
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let moving = Arc::new(Moving::default());
        let source: Arc<dyn KeySource> = Arc::clone(&moving) as _;
        moving.set(1, [key(1, None)]);
        let state = RevocationState::own(crate::revocation::RevocationLimits::new());
        let voucher = Vouchers::new(Some(state.clone())).of(&source, 1, &key(1, None), None);
        let revocation = crate::revocation::Revocation::subject("i", "mallory", 1).unwrap();
        state.add([&revocation], AT).unwrap();
        let mallory = Principal::builder(PrincipalKind::User, "i", "mallory", "jwt").build();
        for (principal, expected) in [(alice(), Ok(())), (mallory.clone(), Err(Ended::Revoked))] {
            assert_eq!(voucher.vouches_now(&principal, AT), Now::Known(expected));
            assert_eq!(voucher.vouches(&principal, AT).await, expected);
        }
        // What is known outweighs what is not, either way.
        *moving.now.lock().unwrap() = None;
        assert_eq!(voucher.vouches(&mallory, AT).await, Err(Ended::Revoked));
        assert_eq!(voucher.vouches(&alice(), AT).await, Err(Ended::Unknown));
    }
}
