use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;
use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, KeyIssuer, KeyLife, MemoryKeyStore, NewApiKey, Owner, RecordFields, Revocation,
        counted,
    },
    secret::Secret,
};

#[test]
fn the_default_realm_makes_challenges() {
    let authenticator = ApiKeyAuthenticator::new(MemoryKeyStore::new());
    assert_eq!(authenticator.challenges()[0].to_string(), r#"ApiKey realm="api""#);
    let refusal = authenticator.refuse("test".into());
    assert_eq!(refusal.challenges().values(), [r#"ApiKey realm="api", error="invalid_key""#]);
}

/// Counts how often it is asked.
#[derive(Debug)]
struct Counting(MemoryKeyStore, AtomicUsize);

#[async_trait]
impl ApiKeyStore for Counting {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.find_now(lookup)
    }

    async fn find(&self, lookup: Lookup) -> Found {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.find(lookup).await
    }
}

const AT: Instants = Instants::new(1_000_000_000_000, 0);

fn pepper(name: &str, byte: u8) -> Peppers {
    Peppers::new(name.parse().unwrap(), Secret::new(vec![byte; 32])).unwrap()
}

/// What a text costs: questions to the store, digests and HMACs. And what came of it.
fn cost(keys: &ApiKeyAuthenticator, asked: &Counting, text: &str) -> ([usize; 3], Outcome) {
    let request = http::Request::get("/").header("x-api-key", text).body(()).unwrap();
    asked.1.store(0, Ordering::SeqCst);
    counted::DIGESTS.set(0);
    counted::HMACS.set(0);
    let Now::Known(outcome) = keys.authenticate_now(&RequestHead::of(&request), AT) else { panic!("waits") };
    ([asked.1.load(Ordering::SeqCst), counted::DIGESTS.get(), counted::HMACS.get()], outcome)
}

#[test]
fn every_bad_key_costs_the_same() {
    let format = |environment| ApiKeyFormat::new("acme").unwrap().environment(environment).unwrap();
    let (live, test) = (KeyIssuer::new().with_format(format("live")), KeyIssuer::new().with_format(format("test")));
    let peppered = |name, byte| live.clone().with_peppers(pepper(name, byte));
    let billing = || NewApiKey::for_subject("billing");
    let tenant = || billing().tenant("acme");
    for peppers in [None, Some(pepper("b", 2).previous("a".parse().unwrap(), Secret::new(vec![1; 32])).unwrap())] {
        let store = Arc::new(Counting(MemoryKeyStore::new(), AtomicUsize::new(0)));
        let issuer = match &peppers {
            None => live.clone(),
            Some(peppers) => live.clone().with_peppers(peppers.clone()),
        };
        let mint = |issuer: &KeyIssuer, key: NewApiKey, change: &dyn Fn(ApiKeyRecord) -> Option<ApiKeyRecord>| {
            let (key, record) = issuer.mint(key, AT).unwrap();
            change(record).into_iter().for_each(|record| store.0.add(record).unwrap());
            key.expose().to_owned()
        };
        let (keep, lose) = (|record| Some(record), |_| None);
        let day = KeyLife::For(Duration::from_secs(86_400));
        let with = |change: fn(&mut RecordFields)| {
            move |record: ApiKeyRecord| {
                let mut fields = record.fields();
                change(&mut fields);
                Some(fields.check().unwrap())
            }
        };
        let good = mint(&issuer, tenant(), &keep);
        let bad = [
            ("unknown id", mint(&issuer, tenant(), &lose)),
            ("wrong secret", mint(&issuer, tenant(), &with(|fields| fields.hash = KeyHash::from_bytes([7; 32])))),
            ("wrong secret", mint(&issuer, tenant(), &with(|fields| fields.hash = NO_SUCH_KEY))),
            ("revoked", mint(&issuer, tenant(), &with(|fields| fields.revoked = Revocation::new(999, "").ok()))),
            ("expired", mint(&issuer, tenant().lives(day), &with(|fields| fields.expires = Some(1_000)))),
            ("not valid yet", mint(&issuer, tenant().not_before(1_001), &keep)),
            ("of another environment", mint(&test, tenant(), &lose)),
            ("of another environment", mint(&issuer, tenant(), &with(|fields| fields.environment = None))),
            ("of another tenant", mint(&issuer, billing().tenant("other"), &keep)),
            ("of another tenant", mint(&issuer, billing(), &keep)),
            ("address not allowed", mint(&issuer, tenant().address("10.0.0.0/8".parse().unwrap()), &keep)),
            ("cannot be verified", mint(&peppered("zzz", 9), tenant(), &keep)),
            ("owner disabled", mint(&issuer, NewApiKey::for_subject("left").tenant("acme"), &keep)),
        ];
        let left = Owner::new("left").unwrap().in_tenant("acme").unwrap();
        assert!(at_once(store.0.disable_owner(&left, &Revocation::new(999, "left").unwrap())));
        let keys = ApiKeyAuthenticator::new(Arc::clone(&store)).with_format(format("live")).for_tenant("acme").unwrap();
        let keys = peppers.clone().into_iter().fold(keys, ApiKeyAuthenticator::with_peppers);

        let (same, outcome) = cost(&keys, &store, &good);
        assert!(matches!(outcome, Outcome::Verified(_)), "{outcome:?}");
        assert_eq!(same, [1, 1, usize::from(peppers.is_some())]);
        for (reason, text) in bad {
            let (paid, outcome) = cost(&keys, &store, &text);
            let Outcome::Refused(rejection) = outcome else { panic!("{reason}: {outcome:?}") };
            let foreign = reason == "of another environment" && rejection.reason().contains("unknown id");
            assert!(rejection.reason().contains(reason) || foreign, "{reason}: {rejection:?}");
            assert_eq!(rejection.kind(), RejectionKind::InvalidCredential, "{reason}");
            assert_eq!(paid, same, "{reason}");
        }

        let mut mistyped = good.clone();
        mistyped.replace_range(40..41, if good.as_bytes()[40] == b'x' { "y" } else { "x" });
        let (paid, _) = cost(&keys, &store, &mistyped);
        assert_eq!(paid, [0, 1, 0], "a wrong checksum costs its one digest");
        for malformed in ["acme_live_v1_x", "noise", &good.to_uppercase(), &format!("{good}0")] {
            assert_eq!(cost(&keys, &store, malformed).0, [0, 0, 0], "{malformed}");
        }
    }
}

#[test]
fn a_record_of_another_pepper_fits_no_secret() {
    let (one, two) = (pepper("a", 1), pepper("b", 2));
    let (key, record) = KeyIssuer::new().with_peppers(one.clone()).mint(NewApiKey::for_subject("x"), AT).unwrap();
    let ask = |peppers: Option<Peppers>, scheme: HashScheme, hash: KeyHash| {
        let store = Arc::new(Counting(MemoryKeyStore::new(), AtomicUsize::new(0)));
        let mut fields = record.fields();
        (fields.scheme, fields.hash) = (scheme, hash);
        store.0.add(fields.check().unwrap()).unwrap();
        let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
        let keys = peppers.into_iter().fold(keys, ApiKeyAuthenticator::with_peppers);
        matches!(cost(&keys, &store, key.expose()).1, Outcome::Verified(_))
    };
    let (keyed, plain) = (*record.hash(), key.hash());
    let both = two.clone().previous("a".parse().unwrap(), Secret::new(vec![1; 32])).unwrap();
    assert!(ask(Some(one.clone()), record.scheme(), keyed));
    assert!(ask(Some(both), record.scheme(), keyed), "rotated, and the old one held");
    assert!(!ask(Some(two.clone()), record.scheme(), keyed), "not held");
    assert!(!ask(Some(two.clone()), two.scheme(), keyed), "held, and another one");
    assert!(!ask(None, record.scheme(), keyed), "no pepper at all");
    assert!(!ask(None, record.scheme(), plain), "a plain hash that says it is keyed");
    assert!(!ask(Some(one.clone()), record.scheme(), plain), "the same with its pepper");
    assert!(!ask(Some(one.clone()), record.scheme(), NO_SUCH_KEY), "a hash of zeros");
    assert!(!ask(Some(one), HashScheme::Sha256, plain), "what a writer without the pepper would write");
    assert!(ask(None, HashScheme::Sha256, plain));
}

fn at_once(future: impl Future<Output = Result<bool, StoreError>>) -> bool {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    matches!(future.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(true)))
}

#[test]
fn settings_are_checked() {
    let new = || ApiKeyAuthenticator::new(MemoryKeyStore::new());
    assert!(new().with_realm("").is_err());
    assert!(new().with_realm("a\"b").is_err());
    let long = "k".repeat(65);
    for name in
        ["", "https://id.example.com", "accounts.google.com", "kubernetes/serviceaccount", "a b", "schlüssel", &long]
    {
        let error = new().with_store_name(name).unwrap_err().to_string();
        assert!(error.starts_with("key store name: \"") && error.contains("letters, digits"), "{error}");
    }
    assert!(new().with_store_name("Partners_2-a").is_ok() && new().with_store_name(&"k".repeat(64)).is_ok());
    assert!(new().for_tenant("").is_err());
    for taken in TAKEN {
        assert!(new().with_header(taken.clone()).is_err(), "{taken}");
    }
    assert_eq!(new().with_realm("orders").unwrap().challenges()[0].to_string(), r#"ApiKey realm="orders""#);
}
