//! What the tests of key stores in databases share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use portcullis::{
    Instants, RejectionKind, RequestHead, StoreErrorKind,
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyRecord, ApiKeyStore, ChangeListener, KeyChange, KeyFilter,
        KeyHash, KeyId, KeyLife, KeyUse, LastUse, Lookup, NewApiKey, Owner, RecordFields, Revocation, Rotation,
    },
    authn::{Authenticator, Outcome},
};
use tokio::time::{sleep, timeout};

/// 2027-01-15 08:00:00 UTC.
pub const NOW: u64 = 1_800_000_000;
pub const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);

pub type Store = Arc<dyn ApiKeyAdmin>;

pub fn minted(subject: &str) -> (ApiKey, ApiKeyRecord) {
    NewApiKey::for_subject(subject).lives(KeyLife::Never).mint(AT).unwrap()
}

pub fn record(number: u32) -> ApiKeyRecord {
    let [a, b, c, d] = number.to_be_bytes();
    let id = KeyId::from_bytes([a, b, c, d, 0, 0, 0, 0, 0, 1]);
    RecordFields::new(id, KeyHash::from_bytes([7; 32]), "many", 100, Some(200)).check().unwrap()
}

pub fn revocation(reason: &str) -> Revocation {
    Revocation::new(NOW, reason).unwrap()
}

pub async fn find<S: ApiKeyStore + ?Sized>(store: &S, id: &KeyId) -> Result<Option<ApiKeyRecord>, StoreErrorKind> {
    let found = store.find(Lookup::new(*id, AT)).await;
    found.map(|hit| hit.map(|hit| (**hit.record()).clone())).map_err(|error| error.kind())
}

/// What a request with this key gets: None is let in.
pub async fn refusal(store: &Store, key: &ApiKey) -> Option<RejectionKind> {
    let authenticator = ApiKeyAuthenticator::new(Arc::clone(store));
    let request = Request::get("/").header("x-api-key", key.expose()).body(()).unwrap();
    match authenticator.authenticate(&RequestHead::of(&request), AT).await {
        Outcome::Verified(_) => None,
        Outcome::Refused(rejection) => Some(rejection.kind()),
        other => panic!("neither verified nor refused: {other:?}"),
    }
}

/// Polls until it is so. A database needs its time; a minute is not that.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let polls = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), polls).await.unwrap_or_else(|_| panic!("not within a minute: {what}"));
}

/// A listener that remembers.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Vec<KeyChange>>);

impl ChangeListener for Heard {
    fn changed(&self, change: &KeyChange) {
        self.0.lock().unwrap().push(change.clone());
    }
}

impl Heard {
    /// What it hears first, how things stand, is not remembered.
    pub fn of<S: ApiKeyStore + ?Sized>(store: &S) -> Arc<Self> {
        let heard = Arc::new(Self::default());
        let listener: Arc<dyn ChangeListener> = Arc::<Self>::clone(&heard);
        store.changes().expect("a feed").subscribe(Arc::downgrade(&listener));
        heard.take();
        heard
    }

    pub fn take(&self) -> Vec<KeyChange> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub fn all(&self) -> Vec<KeyChange> {
        self.0.lock().unwrap().clone()
    }

    pub fn has(&self, change: &KeyChange) -> bool {
        self.0.lock().unwrap().contains(change)
    }

    pub async fn wait_for(&self, change: &KeyChange) {
        until(&format!("{change:?} is heard"), async || self.has(change)).await;
    }
}

/// Two stores rotate the same key, again and again: one of them wins each time.
pub async fn one_rotation_wins(one: &Store, other: &Store, rounds: usize) {
    for _ in 0..rounds {
        let old = minted("rotated").1;
        one.insert(old.clone()).await.unwrap();
        let attempt = |store: &Store| {
            let (store, new) = (Arc::clone(store), minted("rotated").1);
            let rotation = Rotation::new(*old.id(), new.clone(), NOW + 60).unwrap();
            tokio::spawn(async move { (new, store.rotate(rotation).await) })
        };
        let attempts = [attempt(one), attempt(other), attempt(one), attempt(other)];
        let mut winners = Vec::new();
        for attempt in attempts {
            let (new, answer) = attempt.await.unwrap();
            match answer {
                Ok(exists) => {
                    assert!(exists);
                    winners.push(*new.id());
                    assert!(find(&**other, new.id()).await.unwrap().is_some());
                }
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        StoreErrorKind::Conflict,
                        "{error}: {:?}",
                        std::error::Error::source(&error)
                    );
                    assert_eq!(find(&**one, new.id()).await, Ok(None));
                }
            }
        }
        let [winner] = winners[..] else { panic!("{} rotations won", winners.len()) };
        let old = find(&**other, old.id()).await.unwrap().unwrap();
        assert_eq!((old.rotated_to(), old.expires()), (Some(&winner), Some(NOW + 60)));
    }
}

/// Texts that would be statements, patterns or broken encodings if anybody read them as such.
pub async fn texts_stay_texts(store: &Store) {
    for text in [
        "'; DROP TABLE portcullis_api_keys; --",
        "\"; DELETE FROM portcullis_disabled_owners; --",
        "' OR '1'='1",
        "$1",
        "?1 ?2 :a @a",
        "%_%",
        "\\'; SELECT pg_sleep(100); --",
        "{\"a\": [1, \"b\"]}",
        "日本語 ☃ \u{1f511} e\u{301}",
        " leading and trailing ",
        "E'\\x00'",
        "]}'",
    ] {
        let (_, made) = minted(text);
        let mut fields = made.fields();
        (fields.name, fields.tenant, fields.plan) = (text.into(), Some(text.into()), Some(text.into()));
        (fields.roles, fields.metadata) = (vec![text.into(), "x".into()], [(text.into(), text.into())].into());
        if text.is_ascii() && !text.contains(['"', '\\', ' ']) {
            fields.scopes = vec![text.into()];
        }
        let record = fields.check().unwrap();
        store.insert(record.clone()).await.unwrap();
        store.revoke(record.id(), &revocation(text)).await.unwrap();
        assert_eq!(find(&**store, record.id()).await, Ok(Some(record.revoked(&revocation(text)))), "{text}");

        let owner = Owner::new(text).unwrap().in_tenant(text).unwrap();
        assert!(store.disable_owner(&owner, &revocation(text)).await.unwrap(), "{text}");
        assert_eq!(store.disablement(&owner).await.unwrap(), Some(revocation(text)), "{text}");
        assert!(store.get(record.id()).await.unwrap().unwrap().owner_disabled(), "{text}");

        for filter in [
            KeyFilter::all().subject(text),
            KeyFilter::all().tenant(text),
            KeyFilter::all().tenant(text).name_contains(text),
        ] {
            let page = store.list(&filter, None, 10).await.unwrap();
            let ids: Vec<&KeyId> = page.iter().map(|hit| hit.record().id()).collect();
            assert_eq!(ids, [record.id()], "{filter:?}");
        }
        assert!(store.list(&KeyFilter::all().environment(text), None, 10).await.unwrap().is_empty(), "{text}");
        assert!(store.enable_owner(&owner).await.unwrap(), "{text}");
    }
    let bystander = minted("bystander").1;
    store.insert(bystander.clone()).await.unwrap();
    for filter in [KeyFilter::all().tenant(""), KeyFilter::all().subject("a\0b"), KeyFilter::all().name_contains("\0")]
    {
        assert!(store.list(&filter, None, 10).await.unwrap().is_empty(), "{filter:?}");
    }
    assert_eq!(find(&**store, bystander.id()).await, Ok(Some(bystander)));
}

/// More than one statement takes.
pub async fn many_are_noted_and_purged(store: &Store) {
    const MANY: u32 = 1_203;
    for number in 0..MANY {
        store.insert(record(number)).await.unwrap();
    }
    let used = |number, at| KeyUse::new(*record(number).id(), LastUse::new(at, Some([198, 51, 100, 7].into())));
    // Each key twice, the later use first.
    let uses: Vec<KeyUse> = (0..MANY).map(|number| used(number, 170)).chain((0..MANY).map(|n| used(n, 150))).collect();
    store.record_uses(&uses).await.unwrap();
    store.record_uses(&[used(0, 160)]).await.unwrap();
    for number in [0, 1, 499, 500, 501, MANY - 1] {
        let found = find(&**store, record(number).id()).await.unwrap().unwrap();
        assert_eq!(found, record(number).used(used(number, 170).last()), "{number}");
    }
    let stays = minted("stays").1;
    store.insert(stays.clone()).await.unwrap();
    assert_eq!(store.purge(Instants::new(201_000_000_000, 0), Duration::from_secs(0)).await.unwrap(), u64::from(MANY));
    assert_eq!(find(&**store, record(500).id()).await, Ok(None));
    assert_eq!(find(&**store, stays.id()).await, Ok(Some(stays)));
}
