//! The life of a key over the public API: issue, use, rotate, disable, end; and where else it is refused.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderName, Request, Response, header};
use portcullis::{
    ClientInfo, Connection, Instants, Now, RejectionKind, RequestHead, Secret, Slot, StoreError, StoreErrorKind,
    api_key::{
        ApiKey, ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyFormat, ApiKeyRecord, ApiKeyStore, DEFAULT_OVERLAP, Found, Hit,
        IssueError, KeyFilter, KeyHash, KeyId, KeyIssuer, KeyLife, KeyUse, LastUse, LegacyFormat, Lookup, MAX_TIME,
        MemoryKeyStore, NewApiKey, Owner, Peppers, RecordFields, Revocation, Rotation, UseLog,
    },
    authn::{Authenticator, AuthnLayer, Outcome, both, one_of},
};
use proptest::prelude::*;
use support::{NOW, get, send, test_scheme, text, with};
use tower::{Layer, service_fn};

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);
const DAY: u64 = 86_400;

fn at(seconds: u64) -> Instants {
    Instants::new(seconds.saturating_mul(1_000_000_000), 0)
}

fn billing() -> NewApiKey {
    NewApiKey::for_subject("billing")
}

fn format(environment: &str) -> ApiKeyFormat {
    ApiKeyFormat::new("acme").unwrap().environment(environment).unwrap()
}

fn because(reason: &str) -> Revocation {
    Revocation::new(NOW, reason).unwrap()
}

fn peppers(name: &str, byte: u8) -> Peppers {
    Peppers::new(name.parse().unwrap(), Secret::new(vec![byte; 32])).unwrap()
}

fn ask(keys: &ApiKeyAuthenticator, request: &Request<()>, at: Instants) -> Outcome {
    match keys.authenticate_now(&RequestHead::of(request), at) {
        Now::Known(outcome) => outcome,
        Now::Wait => panic!("waits"),
    }
}

/// `verified`, or the operator's reason without the key's id.
fn answer(keys: &ApiKeyAuthenticator, key: &str, at: Instants) -> String {
    match ask(keys, &with(get("/"), "x-api-key", key), at) {
        Outcome::Verified(_) => "verified".to_owned(),
        Outcome::Refused(rejection) => {
            assert_eq!(rejection.status(), 401, "{rejection:?}");
            rejection.reason().rsplit_once(": ").unwrap().1.to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_works_in_its_own_environment_alone() {
    let store = Arc::new(MemoryKeyStore::new());
    let keys = |format| ApiKeyAuthenticator::new(Arc::clone(&store)).with_format(format);
    let formats = [format("live"), format("test"), ApiKeyFormat::new("acme").unwrap()];
    for made in &formats {
        let (key, record) = KeyIssuer::new().with_format(made.clone()).mint(billing(), AT).unwrap();
        assert_eq!(record.environment(), made.in_environment());
        store.add(record).unwrap();
        for read in &formats {
            let expected = if read == made { "verified" } else { "of another environment" };
            assert_eq!(answer(&keys(read.clone()), key.expose(), AT), expected, "{made:?} read as {read:?}");
            // The text is not what decides: the record knows where it belongs.
            let head = |format: &ApiKeyFormat| {
                [Some(format.prefix()), format.in_environment()].into_iter().flatten().collect::<Vec<_>>().join("_")
            };
            let renamed = key.expose().replacen(&head(made), &head(read), 1);
            assert!(read.parse(&renamed).is_some(), "a well-formed key: {renamed}");
            assert_eq!(answer(&keys(read.clone()), &renamed, AT), expected, "{made:?} written as {read:?}");
        }
    }
}

#[test]
fn a_key_works_in_its_own_tenant_alone() {
    let store = Arc::new(MemoryKeyStore::new());
    let add = |key: NewApiKey| {
        let (key, record) = key.mint(AT).unwrap();
        store.add(record).unwrap();
        key
    };
    let (acme, other, none) = (add(billing().tenant("acme")), add(billing().tenant("other")), add(billing()));
    let all = ApiKeyAuthenticator::new(Arc::clone(&store));
    let bound = all.clone().for_tenant("acme").unwrap();
    for (key, expected) in [(&acme, "verified"), (&other, "of another tenant"), (&none, "of another tenant")] {
        assert_eq!(answer(&all, key.expose(), AT), "verified");
        assert_eq!(answer(&bound, key.expose(), AT), expected);
    }
}

#[test]
fn an_address_that_is_not_vouched_for_is_in_no_network() {
    let store = MemoryKeyStore::new();
    let wanted = ["198.51.100.0/24", "2001:db8::/32"].map(|network| network.parse().unwrap());
    let (key, record) = wanted.into_iter().fold(billing(), NewApiKey::address).mint(AT).unwrap();
    store.add(record).unwrap();
    let keys = ApiKeyAuthenticator::new(store);
    let request = |connection: Option<Connection>| {
        let mut request = with(get("/"), "x-api-key", key.expose());
        request.extensions_mut().remove::<Connection>();
        connection.map(|connection| request.extensions_mut().insert(connection));
        request
    };
    let peer = |peer: &str| Connection::plain(peer.parse().unwrap());
    for (name, connection, allowed) in [
        ("inside", Some(peer("198.51.100.255:1")), true),
        ("inside, mapped", Some(peer("[::ffff:198.51.100.7]:1")), true),
        ("inside, IPv6", Some(peer("[2001:db8::1]:1")), true),
        ("outside", Some(peer("198.51.101.0:1")), false),
        ("outside, mapped", Some(peer("[::ffff:198.51.101.7]:1")), false),
        ("no address", Some(Connection::unaddressed()), false),
        ("no connection", None, false),
    ] {
        let outcome = ask(&keys, &request(connection), AT);
        assert_eq!(matches!(outcome, Outcome::Verified(_)), allowed, "{name}: {outcome:?}");
    }
    // What a layer outside concluded counts for more than the connection.
    let (outside, inside) = (request(Some(peer("203.0.113.9:1"))), ClientInfo::from_connection(peer("198.51.100.7:1")));
    let head = RequestHead::of(&outside).with_client(Some(&inside));
    assert!(matches!(keys.authenticate_now(&head, AT), Now::Known(Outcome::Verified(_))));
}

#[tokio::test]
async fn a_disabled_owner_has_no_key_that_works() {
    let store = Arc::new(MemoryKeyStore::new());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let owner = Owner::new("billing").unwrap().in_tenant("acme").unwrap();
    let (before, record) = billing().tenant("acme").issue(&*store, AT).await.unwrap();
    let (namesake, _) = billing().tenant("other").issue(&*store, AT).await.unwrap();
    store.disable_owner(&owner, &because("left")).await.unwrap();
    let (later, _) = billing().tenant("acme").issue(&*store, AT).await.unwrap();
    let (rotated, _) = KeyIssuer::new().rotate(&*store, record.id(), DEFAULT_OVERLAP, AT).await.unwrap();
    for key in [&before, &later, &rotated] {
        assert_eq!(answer(&keys, key.expose(), AT), "owner disabled");
    }
    assert_eq!(answer(&keys, namesake.expose(), AT), "verified");
    store.enable_owner(&owner).await.unwrap();
    for key in [&before, &later, &rotated] {
        assert_eq!(answer(&keys, key.expose(), AT), "verified");
    }
}

#[tokio::test]
async fn rotation_overlaps_and_the_old_key_never_outlives_its_end() {
    let store = Arc::new(MemoryKeyStore::new());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let issuer = KeyIssuer::new();
    let life = |seconds| KeyLife::For(Duration::from_secs(seconds));
    for (name, life, overlap, old_ends, new_ends) in [
        ("a day", life(30 * DAY), DEFAULT_OVERLAP, NOW + DAY, Some(NOW + 30 * DAY)),
        ("longer than the old one has", life(60), DEFAULT_OVERLAP, NOW + 60, Some(NOW + 60)),
        ("none", life(30 * DAY), Duration::ZERO, NOW, Some(NOW + 30 * DAY)),
        ("of a key that never ends", KeyLife::Never, DEFAULT_OVERLAP, NOW + DAY, None),
        ("for ever", KeyLife::Never, Duration::MAX, MAX_TIME, None),
    ] {
        let wanted = billing().name("export").tenant("acme").plan("gold").scope("a:read").role("clerk").lives(life);
        let wanted = wanted.address("203.0.113.0/24".parse().unwrap()).address("198.51.100.0/24".parse().unwrap());
        let wanted = wanted.address("192.0.2.0/24".parse().unwrap()).metadata("team", "blue");
        let (old, old_record) = wanted.issue(&*store, AT).await.unwrap();
        let (new, record) = issuer.rotate(&*store, old_record.id(), overlap, AT).await.unwrap();
        let found = store.get(&new.id()).await.unwrap().unwrap();
        assert_eq!(**found.record(), record, "{name}: what is returned is what is kept");

        let (mut expected, made) = (old_record.fields(), record.fields());
        (expected.id, expected.hash, expected.expires) = (made.id, made.hash, new_ends);
        expected.rotated_from = Some(old.id());
        assert_eq!(made, expected, "{name}: everything else is inherited");

        assert_eq!(answer(&keys, new.expose(), AT), "verified", "{name}");
        if old_ends > NOW {
            assert_eq!(answer(&keys, old.expose(), at(old_ends - 1)), "verified", "{name}");
        }
        if old_ends < MAX_TIME {
            assert_eq!(answer(&keys, old.expose(), at(old_ends)), "expired", "{name}");
        }
        let again = issuer.rotate(&*store, &old.id(), overlap, at(NOW - 1)).await;
        let conflict = |error: &StoreError| error.kind() == StoreErrorKind::Conflict;
        assert!(matches!(&again, Err(IssueError::Store(error)) if conflict(error)), "{name}: {again:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_rotated_is_said_by_kind() {
    let store = MemoryKeyStore::new();
    let issuer = KeyIssuer::new();
    let (revoked, _) = billing().issue(&store, AT).await.unwrap();
    store.revoke(&revoked.id(), &because("leaked")).await.unwrap();
    let (expired, _) = billing().lives(KeyLife::For(Duration::from_secs(60))).issue(&store, AT).await.unwrap();
    let (elsewhere, _) = KeyIssuer::new().with_format(format("live")).issue(&store, billing(), AT).await.unwrap();
    let (unknown, _) = billing().mint(AT).unwrap();
    let len = store.len();
    for (name, id, expected) in [
        ("revoked", revoked.id(), format!("key {} is revoked or expired", revoked.id())),
        ("expired", expired.id(), format!("key {} is revoked or expired", expired.id())),
        ("unknown", unknown.id(), format!("no key {}", unknown.id())),
        ("elsewhere", elsewhere.id(), "API key environment: \"live\" is not the one of this issuer".to_owned()),
    ] {
        let refused = issuer.rotate(&store, &id, DEFAULT_OVERLAP, at(NOW + 60)).await.unwrap_err();
        assert_eq!(refused.to_string(), expected, "{name}");
        assert_eq!(store.len(), len, "{name}: nothing half-written");
    }
}

#[tokio::test]
async fn nothing_half_written_where_an_issue_fails() {
    let store = MemoryKeyStore::new();
    let issuer = KeyIssuer::new().with_known_scopes(["orders:read"]);
    for wrong in [billing().name("x".repeat(257)), billing().scope("orders:raed"), NewApiKey::for_subject("")] {
        assert!(matches!(issuer.issue(&store, wrong, AT).await, Err(IssueError::Config(_))));
        assert!(store.is_empty());
    }
    let (_, record) = billing().issue(&store, AT).await.unwrap();
    let taken = store.insert(record).await.unwrap_err();
    assert_eq!(taken.kind(), StoreErrorKind::Conflict);
    assert_eq!(store.len(), 1);
}

#[test]
fn peppers_rotate() {
    let store = Arc::new(MemoryKeyStore::new());
    let issue = |peppers: Option<Peppers>| {
        let issuer = peppers.into_iter().fold(KeyIssuer::new(), KeyIssuer::with_peppers);
        let (key, record) = issuer.mint(billing(), AT).unwrap();
        store.add(record).unwrap();
        key
    };
    let (plain, old, new) = (issue(None), issue(Some(peppers("old", 1))), issue(Some(peppers("new", 2))));
    let keys = |peppers: Peppers| ApiKeyAuthenticator::new(Arc::clone(&store)).with_peppers(peppers);
    let rotated = peppers("new", 2).previous("old".parse().unwrap(), Secret::new(vec![1; 32])).unwrap();
    let table = |keys: &ApiKeyAuthenticator| [&plain, &old, &new].map(|key| answer(keys, key.expose(), AT));

    let (verified, missing) = ("verified", "its pepper is not held");
    let unpeppered = "was hashed without a pepper";
    assert_eq!(table(&keys(peppers("old", 1))), [unpeppered, verified, missing]);
    assert_eq!(table(&keys(rotated.clone())), [unpeppered, verified, verified]);
    assert_eq!(table(&keys(rotated.clone()).accept_unpeppered()), [verified; 3]);
    assert_eq!(table(&keys(peppers("new", 2))), [unpeppered, missing, verified]);
    assert_eq!(table(&keys(peppers("new", 3))), [unpeppered, missing, "wrong secret"], "the name of another pepper");
    assert_eq!(table(&ApiKeyAuthenticator::new(Arc::clone(&store))), [verified, missing, missing]);
}

/// The new key would be refused wherever there are peppers, and the old one ends.
#[tokio::test]
async fn a_key_with_a_pepper_is_not_rotated_without_one() {
    let store = MemoryKeyStore::new();
    let issuer = KeyIssuer::new().with_peppers(peppers("now", 1));
    let (_, record) = issuer.issue(&store, billing(), AT).await.unwrap();
    let refused = KeyIssuer::new().rotate(&store, record.id(), Duration::ZERO, AT).await.unwrap_err();
    assert!(matches!(&refused, IssueError::Config(error) if error.value() == "hmac-sha256:now"), "{refused}");
    let kept = store.get(record.id()).await.unwrap().unwrap();
    assert!(kept.record().rotated_to().is_none() && kept.record().is_active(NOW));
    issuer.rotate(&store, record.id(), Duration::ZERO, AT).await.unwrap();
    // Another pepper, or the first one, is as good.
    let (_, plain) = billing().issue(&store, AT).await.unwrap();
    KeyIssuer::new().with_peppers(peppers("next", 2)).rotate(&store, plain.id(), Duration::ZERO, AT).await.unwrap();
}

const LEGACY: &str = "sk_live_0123456789abcdefghijklmnopqrstuv";

/// Record of a key that another system kept the SHA-256 of.
fn legacy(text: &str) -> RecordFields {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    RecordFields::legacy(KeyHash::from_bytes(digest.as_ref().try_into().unwrap()), "billing", NOW, Some(NOW + DAY))
}

#[test]
fn a_legacy_key_counts_where_it_is_accepted() {
    let store = Arc::new(MemoryKeyStore::new());
    store.add(legacy(LEGACY).check().unwrap()).unwrap();
    let plain = ApiKeyAuthenticator::new(Arc::clone(&store));
    let keys = plain.clone().accept_legacy(LegacyFormat::new("sk_live_", 40..=40).unwrap());
    assert_eq!(answer(&plain, LEGACY, AT), "malformed, or of another format");
    assert_eq!(answer(&keys, LEGACY, AT), "verified");
    assert_eq!(answer(&keys, LEGACY, at(NOW + DAY)), "expired");
    assert_eq!(answer(&keys.clone().with_peppers(peppers("a", 1)), LEGACY, AT), "verified");
    assert_eq!(answer(&keys, &LEGACY.replace("uv", "uw"), AT), "unknown id");
    assert_eq!(answer(&keys, &LEGACY.replace("uv", "u"), AT), "malformed, or of another format");

    let bearer = |text: &str| ask(&keys, &with(get("/"), "authorization", &format!("Bearer {text}")), AT);
    assert!(matches!(bearer(LEGACY), Outcome::Verified(_)));
    assert!(matches!(bearer("sk_live_short"), Outcome::Refused(_)), "meant to be one");
    assert!(matches!(bearer("eyJhbGciOiJub25lIn0.e30.0123456789abcdefghij"), Outcome::Absent), "of somebody else");
}

#[test]
fn a_legacy_hash_and_a_key_of_our_own_cannot_be_taken_for_one_another() {
    let store = Arc::new(MemoryKeyStore::new());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let keys = keys.accept_legacy(LegacyFormat::new("", 30..=128).unwrap());
    // Somebody puts the hash of one kind under the scheme of the other.
    let mut as_own = legacy(LEGACY);
    as_own.scheme = portcullis::api_key::HashScheme::Sha256;
    store.add(as_own.check().unwrap()).unwrap();
    assert_eq!(answer(&keys, LEGACY, AT), "wrong secret");

    let (key, record) = billing().mint(AT).unwrap();
    let mut as_legacy = record.fields();
    as_legacy.scheme = portcullis::api_key::HashScheme::LegacySha256;
    assert!(as_legacy.clone().check().is_err(), "its id is not the hash's");
    let mut bent = RecordFields::legacy(key.hash(), "billing", NOW, None);
    bent.name = "a legacy record with the hash of a key of ours".to_owned();
    store.add(bent.check().unwrap()).unwrap();
    assert_eq!(answer(&keys, key.expose(), AT), "unknown id");
    // A mistyped key of our own does not reach the store as a legacy one.
    assert_eq!(answer(&keys, &format!("{}0", key.expose()), AT), "malformed, or of another format");
}

/// Answers with the names of the request's header fields.
fn echo() -> impl tower::Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone {
    service_fn(async |request: Request<()>| {
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        Ok::<_, Infallible>(Response::new(names.join(" ")))
    })
}

async fn passed_on(authenticator: impl Authenticator, request: Request<()>) -> String {
    let service = AuthnLayer::new(authenticator).dangerous_plain_http().layer(echo());
    let response = send(&service, request).await;
    assert_eq!(response.status(), 200);
    text(response.map(http_body_util::Full::<bytes::Bytes>::from)).await
}

#[tokio::test]
async fn a_credential_can_end_here() {
    let store = Arc::new(MemoryKeyStore::new());
    let (key, record) = billing().lives(KeyLife::Never).mint(AT).unwrap();
    store.add(record).unwrap();
    let keys = || ApiKeyAuthenticator::new(Arc::clone(&store));
    let own = || with(with(get("/"), "x-api-key", key.expose()), "x-trace", "1");
    let bearer = || with(with(get("/"), "authorization", &format!("Bearer {}", key.expose())), "x-trace", "1");
    assert_eq!(passed_on(keys(), own()).await, "x-api-key x-trace");
    assert_eq!(passed_on(keys().strip_credential(), own()).await, "x-trace");
    assert_eq!(passed_on(keys().strip_credential(), bearer()).await, "x-trace");
    assert_eq!(passed_on(one_of((keys().strip_credential(), test_scheme())), own()).await, "x-trace");

    let pair = || with(own(), "authorization", "Test alice");
    assert_eq!(passed_on(both(keys(), test_scheme()), pair()).await, "x-api-key x-trace authorization");
    assert_eq!(passed_on(both(keys().strip_credential(), test_scheme()), pair()).await, "authorization x-trace");
    let elsewhere = keys().with_header(HeaderName::from_static("x-acme-key")).unwrap().strip_credential();
    let renamed = with(with(get("/"), "x-acme-key", key.expose()), "x-trace", "1");
    assert_eq!(passed_on(elsewhere, renamed).await, "x-trace");
}

#[tokio::test]
async fn another_header_field_can_be_named() {
    let store = MemoryKeyStore::new();
    let (key, record) = billing().mint(AT).unwrap();
    store.add(record).unwrap();
    let keys = ApiKeyAuthenticator::new(store).with_header(HeaderName::from_static("x-acme-key")).unwrap();
    assert_eq!(keys.credential_headers(), [header::AUTHORIZATION, HeaderName::from_static("x-acme-key")]);
    assert!(matches!(ask(&keys, &with(get("/"), "x-acme-key", key.expose()), AT), Outcome::Verified(_)));
    assert!(matches!(ask(&keys, &with(get("/"), "x-api-key", key.expose()), AT), Outcome::Absent));
    let twice = with(with(get("/"), "x-acme-key", key.expose()), "authorization", &format!("ApiKey {}", key.expose()));
    assert!(matches!(ask(&keys, &twice, AT), Outcome::Refused(rejection) if rejection.status() == 400));
}

/// A store that only takes uses when it is told to.
#[derive(Debug, Default)]
struct Moody {
    store: MemoryKeyStore,
    sulks: AtomicBool,
    hangs: AtomicBool,
}

#[async_trait]
impl ApiKeyStore for Moody {
    async fn find(&self, lookup: Lookup) -> Found {
        self.store.find(lookup).await
    }
}

#[async_trait]
impl ApiKeyAdmin for Moody {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        self.store.insert(record).await
    }
    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        self.store.rotate(rotation).await
    }
    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        self.store.revoke(id, revocation).await
    }
    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        self.store.disable_owner(owner, disablement).await
    }
    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        self.store.enable_owner(owner).await
    }
    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        self.store.disablement(owner).await
    }
    async fn get(&self, id: &KeyId) -> Found {
        self.store.get(id).await
    }
    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        self.store.list(filter, after, limit).await
    }
    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        self.store.purge(at, kept).await
    }
    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.sulks.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "moody"));
        }
        self.store.record_uses(uses).await
    }
}

async fn last_use(store: &Moody, key: &ApiKey) -> Option<LastUse> {
    store.get(&key.id()).await.unwrap().unwrap().record().last_used()
}

#[tokio::test]
async fn uses_are_noted_once_a_minute_and_written_when_the_store_takes_them() {
    let store = Arc::new(Moody::default());
    let (key, _) = billing().issue(&*store, AT).await.unwrap();
    let (unused, _) = billing().issue(&*store, AT).await.unwrap();
    let log = UseLog::new(Arc::clone(&store));
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store)).record_uses(log.clone());
    let used = async |key: &str, seconds: u64| {
        let request = with(get("/"), "x-api-key", key);
        let outcome = keys.authenticate(&RequestHead::of(&request), at(seconds)).await;
        matches!(outcome, Outcome::Verified(_))
    };
    let address: IpAddr = get("/").extensions().get::<Connection>().unwrap().peer().unwrap().ip();

    assert!(used(key.expose(), NOW).await);
    assert!(used(key.expose(), NOW + 30).await);
    assert!(!used(&format!("{}0", unused.expose()), NOW).await, "a bad key is not used");
    assert_eq!((log.waiting(), last_use(&store, &key).await), (1, None), "nothing is written meanwhile");

    store.sulks.store(true, Ordering::SeqCst);
    assert!(log.flush().await.is_err());
    assert!(used(key.expose(), NOW + 31).await, "a failing store fails no request");
    assert_eq!(log.waiting(), 1, "what was not taken waits on");

    store.hangs.store(true, Ordering::SeqCst);
    let mut flush = Box::pin(log.flush());
    let hangs = std::future::poll_fn(|cx| std::task::Poll::Ready(flush.as_mut().poll(cx).is_pending())).await;
    assert!(hangs);
    assert!(used(key.expose(), NOW + 120).await, "a hanging store holds up no request");
    drop(flush);
    assert_eq!(log.waiting(), 1, "a flush that is given up loses nothing");

    store.hangs.store(false, Ordering::SeqCst);
    store.sulks.store(false, Ordering::SeqCst);
    log.flush().await.unwrap();
    assert_eq!(last_use(&store, &key).await, Some(LastUse::new(NOW + 120, Some(address))));
    assert_eq!((last_use(&store, &unused).await, log.waiting(), log.dropped()), (None, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_writes_uses_at_its_own_pace() {
    let store = Arc::new(Moody::default());
    let (key, _) = billing().issue(&*store, AT).await.unwrap();
    let log = UseLog::new(Arc::clone(&store));
    let writer = log.clone();
    let task = tokio::spawn(async move { writer.run(|| tokio::time::sleep(Duration::from_secs(10))).await });
    store.sulks.store(true, Ordering::SeqCst);
    log.note(KeyUse::new(key.id(), LastUse::new(NOW, None)));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(log.waiting(), 1, "a failure ends nothing");
    store.sulks.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(last_use(&store, &key).await, Some(LastUse::new(NOW, None)));
    assert!(!task.is_finished());
    task.abort();
}

/// A store whose caller has asked too often for keys that do not exist.
#[derive(Debug)]
struct Spent;

#[async_trait]
impl ApiKeyStore for Spent {
    async fn find(&self, lookup: Lookup) -> Found {
        assert!(lookup.client().is_some(), "who asks is told");
        Err(StoreError::new(StoreErrorKind::Throttled, "cache").with_retry_after(Duration::from_millis(6_001)))
    }
}

#[tokio::test]
async fn a_caller_without_a_budget_is_told_to_wait() {
    let (key, _) = billing().mint(AT).unwrap();
    let service = AuthnLayer::new(ApiKeyAuthenticator::new(Spent)).dangerous_plain_http().layer(echo());
    let response = send(&service, with(get("/"), "x-api-key", key.expose())).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
        (429, &"7".parse().unwrap()),
        "rounded up"
    );
    assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
}

#[test]
fn a_principal_knows_the_end_that_a_rotation_moved() {
    let store = Arc::new(MemoryKeyStore::new());
    let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
    let (key, record) = billing().mint(AT).unwrap();
    let id = *record.id();
    store.add(record).unwrap();
    let request = with(get("/"), "x-api-key", key.expose());
    let end = || match ask(&keys, &request, AT) {
        Outcome::Verified(identity) => identity.in_slot(Slot::Subject).unwrap().expires_at(),
        other => panic!("{other:?}"),
    };
    assert_eq!(end(), Some(NOW + 365 * DAY));
    let (_, new) = billing().mint(AT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(store.rotate(Rotation::new(id, new, NOW + 60).unwrap())).unwrap());
    assert_eq!(end(), Some(NOW + 60));
}

proptest! {
    /// Whatever its times: accepted from its start until before its end, and not once it is revoked.
    #[test]
    fn a_key_is_accepted_in_its_time_alone(
        start in proptest::option::of(0..2_000_u64),
        end in proptest::option::of(0..2_000_u64),
        revoked in any::<bool>(),
        now in 0..2_000_u64,
    ) {
        let store = MemoryKeyStore::new();
        let (key, record) = billing().mint(at(1_000)).unwrap();
        let mut fields = record.fields();
        (fields.not_before, fields.expires) = (start, end);
        fields.revoked = revoked.then(|| because("leaked"));
        store.add(fields.check().unwrap()).unwrap();
        let expected = !revoked && start.is_none_or(|start| start <= now) && end.is_none_or(|end| now < end);
        let verified = answer(&ApiKeyAuthenticator::new(store), key.expose(), at(now)) == "verified";
        prop_assert_eq!(verified, expected);
    }

    /// Any record comes back from its plain data, and from JSON.
    #[test]
    fn records_survive_their_encoding(
        name in "\\PC{0,60}",
        subject in "\\PC{1,60}",
        tenant in proptest::option::of("\\PC{1,60}"),
        scopes in proptest::collection::vec("[!#-\\[\\]-~]{1,40}", 0..5),
        roles in proptest::collection::vec("\\PC{1,30}", 0..5),
        metadata in proptest::collection::btree_map("\\PC{1,15}", "\\PC{0,60}", 0..5),
        times in any::<(u32, Option<u32>, Option<u32>)>(),
        addresses in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..4),
        bytes in any::<([u8; 10], [u8; 32])>(),
    ) {
        let (id, hash) = (KeyId::from_bytes(bytes.0), KeyHash::from_bytes(bytes.1));
        let mut fields = RecordFields::new(id, hash, subject, times.0.into(), times.1.map(Into::into));
        (fields.name, fields.tenant, fields.scopes, fields.roles, fields.metadata) = (name, tenant, scopes, roles, metadata);
        fields.not_before = times.2.map(Into::into);
        fields.addresses = addresses
            .into_iter()
            .map(|(bits, prefix)| ipnet::Ipv4Net::new(bits.into(), prefix).unwrap().trunc().into())
            .collect();
        let record = fields.clone().check().unwrap();
        prop_assert_eq!(record.fields(), fields.clone());
        let json = serde_json::to_string(&fields).unwrap();
        prop_assert_eq!(serde_json::from_str::<RecordFields>(&json).unwrap(), fields);
    }

    /// A legacy text never panics, and makes nobody of an empty store.
    #[test]
    fn no_legacy_text_makes_a_principal(text in "[ -~]{1,200}") {
        let keys = ApiKeyAuthenticator::new(MemoryKeyStore::new());
        let keys = keys.accept_legacy(LegacyFormat::new("", 20..=128).unwrap());
        let outcome = ask(&keys, &with(get("/"), "x-api-key", &text), AT);
        let refused = matches!(&outcome, Outcome::Refused(rejection) if rejection.kind() == RejectionKind::InvalidCredential);
        prop_assert!(refused, "{outcome:?}");
    }
}
