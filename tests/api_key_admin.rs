//! Administration of API keys over HTTP, behind a stack: what it does, and what nobody gets out of it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code, helpers included")]

mod support;

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use portcullis::{
    Challenge, Connection, Instants, Now, Principal, PrincipalKind, Secret, StoreError, StoreErrorKind, TlsVersion,
    api_key::{
        ApiKeyAdmin, ApiKeyAuthenticator, ApiKeyFormat, ApiKeyRecord, ApiKeyStore, Found, Hit, KeyFilter, KeyHash,
        KeyId, KeyIssuer, KeyLife, KeyUse, Lookup, MemoryKeyStore, NewApiKey, Owner, Peppers, RecordFields, Revocation,
        Rotation,
    },
    audit::{AuditEntry, AuditLayer, AuditRecord, Personal, Privacy},
    authn::{Authenticator, AuthnLayer, Outcome, authenticate_fn, both, one_of},
    guard::{authenticated, require},
    key_admin::{self, KeyAdmin, MAX_BODY},
    policy::Rbac,
    problem::ProblemLayer,
    stack::Stack,
    testing::Captured,
    tls::TlsLayer,
};
use serde_json::{Value, json};
use support::{NOW, Still};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt};

const AT: Instants = Instants::new(NOW * 1_000_000_000, 0);
const DAY: u64 = 86_400;
const YEAR: u64 = 365 * DAY;
/// No answer to somebody of the tenant `acme` has this in it.
const CANARY: &str = "canary";
const NO_SUCH: &str = "0123456789abcdef";

const POLICY: &str = r#"
version = "1"
permissions = [
    "keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:disable-owner", "keys:any-owner", "keys:grant-any",
]
[roles.clerk]
grants = []
[roles.developer]
grants = ["keys:create", "keys:read", "keys:rotate", "keys:revoke"]
[roles.tenant-admin]
inherits = ["developer"]
grants = ["keys:any-owner", "keys:disable-owner"]
[roles.operator]
inherits = ["tenant-admin"]
grants = ["keys:grant-any"]
[roles.trainee]
denies = ["keys:revoke"]
[roles.junior]
inherits = ["trainee"]
[[assignments]]
issuer = "api-keys"
subject = "tim"
tenant = "acme"
roles = ["trainee"]
[[assignments]]
issuer = "https://id.test"
subject = "tim"
tenant = "acme"
roles = ["trainee"]
"#;

/// Takes `Test <name>`.
fn people() -> impl Authenticator {
    authenticate_fn(Challenge::new("Test", "tests").unwrap(), |head, _| match head.authorization() {
        Ok(Some(credential)) if credential.is_scheme("Test") => Outcome::verified(person(credential.token())),
        Ok(_) => Outcome::Absent,
        Err(rejection) => rejection.into(),
    })
}

fn person(name: &str) -> Principal {
    let (issuer, name) =
        name.strip_prefix("foreign-").map_or(("https://id.test", name), |name| ("https://x.test", name));
    let person = Principal::builder(PrincipalKind::User, issuer, name, "test");
    match name {
        "root" => person.roles(["operator"]),
        "anna" => {
            person.tenant("acme").roles(["tenant-admin", "clerk"]).scopes(["orders:read", "orders:write"]).plan("gold")
        }
        "odo" => person.tenant("other").roles(["tenant-admin"]).scopes(["orders:read"]),
        "lone" => person.roles(["tenant-admin"]),
        "alice" => person.tenant("acme").roles(["developer"]).scopes(["orders:read"]),
        "tina" => person.tenant("acme").roles(["developer", "trainee"]).scopes(["orders:read"]),
        "june" => person.tenant("acme").roles(["tenant-admin", "junior"]),
        "tim" => person.tenant("acme").roles(["developer"]),
        _ => person.tenant("acme").roles(["clerk"]),
    }
    .build()
}

/// Fails, or waits until it is told to go on, in one of its methods.
#[derive(Debug, Default)]
struct Flaky {
    inner: MemoryKeyStore,
    fails: Mutex<Option<(&'static str, StoreErrorKind)>>,
    waits: Mutex<Option<&'static str>>,
    goes_on: Notify,
}

impl Flaky {
    fn fail(&self, method: Option<(&'static str, StoreErrorKind)>) {
        *self.fails.lock().unwrap() = method;
    }

    async fn enter(&self, method: &str) -> Result<(), StoreError> {
        if self.waits.lock().unwrap().is_some_and(|waiting| waiting == method) {
            self.goes_on.notified().await;
        }
        match *self.fails.lock().unwrap() {
            Some((failing, kind)) if failing == method => {
                Err(StoreError::new(kind, "flaky").about("inner secret").with_retry_after(Duration::from_millis(6_001)))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl ApiKeyStore for Flaky {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        self.inner.find_now(lookup)
    }

    async fn find(&self, lookup: Lookup) -> Found {
        self.inner.find(lookup).await
    }
}

#[async_trait]
impl ApiKeyAdmin for Flaky {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        self.enter("insert").await?;
        self.inner.insert(record).await
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        self.enter("rotate").await?;
        self.inner.rotate(rotation).await
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        self.enter("revoke").await?;
        self.inner.revoke(id, revocation).await
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        self.enter("disable_owner").await?;
        self.inner.disable_owner(owner, disablement).await
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        self.enter("enable_owner").await?;
        self.inner.enable_owner(owner).await
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        self.enter("disablement").await?;
        self.inner.disablement(owner).await
    }

    async fn get(&self, id: &KeyId) -> Found {
        self.enter("get").await?;
        self.inner.get(id).await
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        self.enter("list").await?;
        self.inner.list(filter, after, limit).await
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        self.inner.purge(at, kept).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        self.inner.record_uses(uses).await
    }
}

struct World {
    store: Arc<Flaky>,
    audit: Captured,
    service: tower::util::BoxCloneSyncService<Request<Body>, http::Response<Body>, std::convert::Infallible>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("-")
    }

    fn field(&self) -> &str {
        self.body["field"].as_str().unwrap_or("-")
    }

    /// The ids of a list.
    fn ids(&self) -> Vec<&str> {
        self.body["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect()
    }

    /// The body without what differs from request to request.
    fn same(mut self) -> (u16, Value, Option<String>) {
        self.body["request_id"].take();
        let length = self.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
        (self.status, self.body, length)
    }
}

fn admin(store: &Arc<Flaky>) -> KeyAdmin {
    KeyAdmin::new(Arc::clone(store))
        .with_issuer(KeyIssuer::new().with_known_scopes(["orders:read", "orders:write", "orders:delete"]))
        .with_owner_issuers(["api-keys", "https://id.test"])
        .with_known_roles(["clerk", "developer", "tenant-admin", "operator", "trainee", "junior"])
        .with_binding_roles(Rbac::from_toml(POLICY).unwrap().roles_that_deny())
        .with_known_plans(["gold", "free"])
}

/// Whether the name of a member, however deep, has this in it.
fn has_member(value: &Value, part: &str) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| name.contains(part) || has_member(value, part)),
        Value::Array(values) => values.iter().any(|value| has_member(value, part)),
        _ => false,
    }
}

impl World {
    fn new() -> Self {
        Self::with_audit(|audit| audit)
    }

    fn with_audit(edit: impl FnOnce(AuditLayer) -> AuditLayer) -> Self {
        let (store, audit) = (Arc::new(Flaky::default()), Captured::new());
        let stack = Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .audit(edit(AuditLayer::new(audit.clone())))
            .authenticate(one_of((people(), ApiKeyAuthenticator::new(Arc::clone(&store)))))
            .policy(Rbac::from_toml(POLICY).unwrap());
        let rules = key_admin::rules("/admin");
        let stack = rules.into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
        let app: Router = Router::new().nest("/admin", admin(&store).router());
        let service = tower::util::BoxCloneSyncService::new(stack.build().unwrap().protect(app));
        Self { store, audit, service }
    }

    /// Puts a key into the store, past the router.
    fn key(&self, key: NewApiKey) -> (String, String) {
        let (key, record) = key.mint(AT).unwrap();
        let id = record.id().to_string();
        self.store.inner.add(record).unwrap();
        (key.expose().to_owned(), id)
    }

    fn id(&self, key: NewApiKey) -> String {
        self.key(key).1
    }

    /// A request of a person, or of the holder of a key.
    fn request(who: &str, line: &str, body: impl Into<Body>) -> Request<Body> {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(format!("/admin{path}"));
        let request = match who {
            "" => request,
            key if key.starts_with("pc_") => request.header("x-api-key", key),
            name => request.header("authorization", format!("Test {name}")),
        };
        let request = if method == "POST" { request.header("content-type", "application/json") } else { request };
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(Connection::tls("198.51.100.7:52100".parse().unwrap(), TlsVersion::Tls13));
        request
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // A value may have the word by chance: ids and secrets are random.
        assert!(!has_member(&body, "hash") && !text.contains("inner secret"), "{text}");
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn call(&self, who: &str, line: &str, body: Value) -> Answer {
        let answer =
            self.send(Self::request(who, line, if body.is_null() { String::new() } else { body.to_string() })).await;
        assert!(
            ["root", "odo"].contains(&who) || !answer.body.to_string().contains(CANARY),
            "{who} sees {}",
            answer.body
        );
        answer
    }

    async fn get(&self, who: &str, path: &str) -> Answer {
        self.call(who, &format!("GET {path}"), Value::Null).await
    }

    /// The notes of the last request.
    fn notes(&self) -> Vec<(String, String)> {
        let records = self.audit.take();
        let last = records.last().unwrap();
        last.notes().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    /// The events of one request.
    fn events(&self, record: &AuditRecord) -> Vec<&'static str> {
        let entries = self.audit.entries().into_iter();
        let events = entries.filter_map(|entry| match entry {
            AuditEntry::Event(event) => {
                (event.request_id() == Some(record.request_id())).then(|| event.kind().as_str())
            }
            _ => None,
        });
        events.collect()
    }

    async fn record(&self, id: &str) -> Arc<ApiKeyRecord> {
        Arc::clone(self.store.inner.get(&id.parse().unwrap()).await.unwrap().unwrap().record())
    }
}

/// A key of somebody else of the tenant `acme`, with scopes and plan that `anna` has.
fn billing() -> NewApiKey {
    NewApiKey::for_subject("billing").tenant("acme").scope("orders:read").plan("gold")
}

fn foreign() -> NewApiKey {
    NewApiKey::for_subject("canary-owner").tenant("other").name("canary-name").scope("orders:read")
}

#[tokio::test]
async fn a_key_is_made_shown_once_and_works() {
    let world = World::new();
    let body = json!({
        "subject": "billing", "name": "nightly export", "scopes": ["orders:read"], "roles": ["clerk"],
        "addresses": ["198.51.100.0/24"], "not_before": NOW, "lifetime": 90 * DAY, "metadata": {"ticket": "OPS-1"},
    });
    let made = world.call("anna", "POST /keys", body).await;
    assert_eq!((made.status, &made.headers["cache-control"]), (201, &"no-store".parse().unwrap()));
    assert_eq!(made.headers["content-type"], "application/json");
    let (key, id) = (made.body["key"].as_str().unwrap(), made.body["record"]["id"].as_str().unwrap());
    let expected = json!({
        "id": id, "status": "active", "name": "nightly export", "subject": "billing", "tenant": "acme", "plan": "gold",
        "scopes": ["orders:read"], "roles": ["clerk"], "addresses": ["198.51.100.0/24"], "created": NOW,
        "not_before": NOW, "expires": NOW + 90 * DAY, "owner_disabled": false, "scheme": "sha256",
        "metadata": {"ticket": "OPS-1"},
    });
    assert_eq!(made.body["record"], expected);
    assert_eq!(
        world.notes(),
        [
            ("key.change", format!("create {id}").as_str()),
            ("key.created", id),
            ("owner", r#""billing" in "acme""#),
            ("by", r#""anna" of "https://id.test""#)
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    let used = world.get(key, "/keys").await;
    assert_eq!(used.status, 403, "authenticated, but without the permission");
    let shown = world.get("anna", &format!("/keys/{id}")).await;
    assert_eq!((shown.status, &shown.body), (200, &expected), "the key is not in it");
    assert_eq!(shown.headers["cache-control"], "no-store");
    assert_eq!(world.get("anna", "/keys").await.body, json!({"keys": [expected], "next": id}));
    assert_eq!(world.get("anna", &format!("/keys?after={id}")).await.body, json!({"keys": []}));
    assert!(world.notes().is_empty(), "looking changes nothing");
}

#[tokio::test]
async fn what_is_left_out_is_the_makers_own() {
    let world = World::new();
    let made = world.call("anna", "POST /keys", json!({"subject": "billing"})).await;
    let record = &made.body["record"];
    assert_eq!((&record["tenant"], &record["plan"]), (&json!("acme"), &json!("gold")));
    assert_eq!((&record["scopes"], &record["roles"], &record["expires"]), (&json!([]), &json!([]), &json!(NOW + YEAR)));

    let networks = ["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let own =
        NewApiKey::for_subject("ci").tenant("acme").role("developer").lives(KeyLife::For(Duration::from_secs(DAY)));
    let (key, _) = world.key(networks.into_iter().fold(own, NewApiKey::address));
    let made = world.call(&key, "POST /keys", json!({"subject": "ci"})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let record = &made.body["record"];
    assert_eq!(record["expires"], NOW + DAY, "not past the end of the key that made it");
    assert_eq!(record["addresses"], json!(["198.51.100.0/24", "2001:db8::/32"]));
}

#[tokio::test]
async fn nobody_hands_out_what_they_do_not_hold() {
    let world = World::new();
    let ci = || NewApiKey::for_subject("ci").tenant("acme").scope("orders:read").role("developer");
    let day = KeyLife::For(Duration::from_secs(DAY));
    let (brief, _) = world.key(ci().lives(day));
    let (endless, _) = world.key(ci().lives(KeyLife::Never));
    let (bound, _) = world.key(ci().address("198.51.100.0/24".parse().unwrap()));
    let (brief, endless, bound) = (brief.as_str(), endless.as_str(), bound.as_str());

    let rows = [
        ("wider scope", "anna", json!({"subject": "x", "scopes": ["orders:read", "orders:delete"]}), "scopes"),
        ("wider role", "anna", json!({"subject": "x", "roles": ["operator"]}), "roles"),
        ("role that the policy lets inherit", "anna", json!({"subject": "x", "roles": ["developer"]}), "roles"),
        ("foreign tenant", "anna", json!({"subject": "x", "tenant": "other"}), "tenant"),
        ("no tenant", "anna", json!({"subject": "x", "tenant": null}), "tenant"),
        ("a tenant, by one without", "lone", json!({"subject": "x", "tenant": "acme"}), "tenant"),
        ("another plan", "anna", json!({"subject": "x", "plan": "free"}), "plan"),
        ("no plan", "anna", json!({"subject": "x", "plan": null}), "plan"),
        ("a plan, by one without", "alice", json!({"subject": "alice", "plan": "gold"}), "plan"),
        ("another owner", "alice", json!({"subject": "billing"}), "subject"),
        ("an owner of the same name at another issuer", "foreign-alice", json!({"subject": "alice"}), "subject"),
        ("longer life than own", brief, json!({"subject": "ci", "lifetime": DAY + 1}), "lifetime"),
        ("endless life", brief, json!({"subject": "ci", "lifetime": "never"}), "lifetime"),
        (
            "longer life by a later start",
            brief,
            json!({"subject": "ci", "not_before": NOW + 1, "lifetime": DAY}),
            "lifetime",
        ),
        ("another owner, by key", brief, json!({"subject": "billing"}), "subject"),
        ("anywhere", bound, json!({"subject": "ci", "addresses": []}), "addresses"),
        ("another network", bound, json!({"subject": "ci", "addresses": ["203.0.113.0/24"]}), "addresses"),
        ("a wider network", bound, json!({"subject": "ci", "addresses": ["198.51.0.0/16"]}), "addresses"),
        (
            "one network more",
            bound,
            json!({"subject": "ci", "addresses": ["198.51.100.7/32", "2001:db8::/32"]}),
            "addresses",
        ),
    ];
    let before = world.store.inner.len();
    for (name, who, body, field) in rows {
        let refused = world.call(who, "POST /keys", body.clone()).await;
        assert_eq!(
            (refused.status, refused.code(), refused.field()),
            (403, "not_held", field),
            "{name}: {}",
            refused.body
        );
        let record = world.audit.take().pop().unwrap();
        assert_eq!(record.rejection(), Some(portcullis::RejectionKind::Forbidden), "{name}");
        assert!(record.notes().any(|(name, _)| name == "key.refused"), "{name}");
        // All of it is lifted by one permission, and by nothing less.
        let body = match &body["tenant"] {
            Value::Null if body.get("tenant").is_none() => {
                let mut body = body;
                body["tenant"] = json!("acme");
                body
            }
            _ => body,
        };
        assert_eq!(world.call("root", "POST /keys", body).await.status, 201, "{name}, by root");
        drop(world.audit.take());
    }
    assert_eq!(world.store.inner.len(), before + 19, "what was refused left nothing");

    let rows = [
        ("own scopes and roles", "anna", json!({"subject": "x", "scopes": ["orders:write"], "roles": ["clerk"]})),
        ("own tenant and plan, said", "anna", json!({"subject": "x", "tenant": "acme", "plan": "gold"})),
        ("nothing", "lone", json!({"subject": "x", "lifetime": "never"})),
        ("oneself", "alice", json!({"subject": "alice", "scopes": ["orders:read"]})),
        ("as long as own", brief, json!({"subject": "ci", "lifetime": DAY})),
        ("endless, by an endless key", endless, json!({"subject": "ci", "lifetime": "never"})),
        ("a part of own network", bound, json!({"subject": "ci", "addresses": ["198.51.100.128/25"]})),
    ];
    for (name, who, body) in rows {
        let made = world.call(who, "POST /keys", body).await;
        assert_eq!(made.status, 201, "{name}: {}", made.body);
    }
}

/// A role that denies something stays with the keys of whoever has it: else a key would do what its maker may not.
#[tokio::test]
async fn a_role_that_takes_away_binds() {
    assert_eq!(Rbac::from_toml(POLICY).unwrap().roles_that_deny(), ["junior", "trainee"]);
    let world = World::new();
    let of = |subject: &str| NewApiKey::for_subject(subject).tenant("acme");
    let (by_key, _) = world.key(of("tina").role("developer").role("trainee"));
    let (plain, _) = world.key(of("billing").role("developer"));
    let (by_key, plain) = (by_key.as_str(), plain.as_str());
    let revoke = |id: &str| format!("POST /keys/{id}/revoke");
    assert_eq!(world.call("tina", &revoke(NO_SUCH), json!({})).await.status, 403, "what the role takes away");

    for (name, who, body) in [
        ("without it", "tina", json!({"subject": "tina", "roles": ["developer"]})),
        ("without any role", "tina", json!({"subject": "tina"})),
        ("with a scope alone", "tina", json!({"subject": "tina", "scopes": ["orders:read"]})),
        ("by a key", by_key, json!({"subject": "tina", "roles": ["developer"]})),
        ("inherited", "june", json!({"subject": "june", "roles": ["tenant-admin"]})),
        ("for another owner", "june", json!({"subject": "billing", "roles": ["tenant-admin"]})),
    ] {
        let refused = world.call(who, "POST /keys", body.clone()).await;
        assert_eq!((refused.status, refused.code(), refused.field()), (403, "not_held", "roles"), "{name}");
        assert!(world.notes().iter().any(|(name, value)| name == "key.refused" && value.contains("binds")), "{name}");
        let mut body = body;
        body["tenant"] = json!("acme");
        assert_eq!(world.call("root", "POST /keys", body).await.status, 201, "{name}, by root");
    }
    for (name, who, id) in [
        ("an old one of theirs", "tina", world.id(of("tina").role("developer"))),
        ("one of another", "june", world.id(of("billing").role("tenant-admin"))),
    ] {
        let refused = world.call(who, &format!("POST /keys/{id}/rotate"), json!({})).await;
        assert_eq!((refused.status, refused.field()), (403, "roles"), "{name}: {}", refused.body);
    }

    let both = json!({"subject": "tina", "roles": ["developer", "trainee"]});
    let made = world.call("tina", "POST /keys", both.clone()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.body["key"].as_str().unwrap().to_owned();
    let id = made.body["record"]["id"].as_str().unwrap();
    assert_eq!(world.call(&key, &revoke(id), json!({})).await.status, 403, "as its maker");
    assert_eq!(world.call(&key, "POST /keys", both).await.status, 201, "and makes one like itself");
    let alone = json!({"subject": "tina", "roles": ["trainee"]});
    assert_eq!(world.call("tina", "POST /keys", alone).await.status, 201, "less than one's own");
    assert_eq!(world.call(plain, "POST /keys", json!({"subject": "billing", "roles": []})).await.status, 201);

    // By name, it binds where the policy says it of the key store's issuer as well.
    assert_eq!(world.call("tim", &revoke(NO_SUCH), json!({})).await.status, 403);
    let made = world.call("tim", "POST /keys", json!({"subject": "tim", "roles": ["developer"]})).await;
    let key = made.body["key"].as_str().unwrap();
    assert_eq!(world.call(key, &revoke(made.body["record"]["id"].as_str().unwrap()), json!({})).await.status, 403);
}

/// Its record tells from where it may be used, and another store's record is not at hand.
#[tokio::test]
async fn a_key_of_another_store_hands_out_nothing() {
    let (store, partners) = (Arc::new(Flaky::default()), Arc::new(MemoryKeyStore::new()));
    let admin = admin(&store).with_owner_issuers(["api-keys", "partners"]);
    let of_partners = ApiKeyAuthenticator::new(Arc::clone(&partners))
        .with_store_name("partners")
        .unwrap()
        .with_format(ApiKeyFormat::new("pt").unwrap())
        .with_header("x-partner-key".parse().unwrap())
        .unwrap();
    let own = ApiKeyAuthenticator::new(Arc::clone(&store));
    let keys = one_of((own.clone().beside(&of_partners).unwrap(), of_partners.beside(&own).unwrap()));
    let stack = Stack::builder()
        .clock(Still)
        .tls(TlsLayer::require())
        .authenticate(keys)
        .policy(Rbac::from_toml(POLICY).unwrap());
    let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
    let app = stack.build().unwrap().protect::<Router>(Router::new().nest("/admin", admin.router()));

    let issuer = KeyIssuer::new().with_format(ApiKeyFormat::new("pt").unwrap());
    let ci = |tenant: &str, role: &str| NewApiKey::for_subject("ci").tenant(tenant).role(role).lives(KeyLife::Never);
    let bound = ci("acme", "developer").address("198.51.100.0/24".parse().unwrap());
    let (bound, record) = issuer.mint(bound, AT).unwrap();
    partners.add(record).unwrap();
    // The same id here is another key: of another tenant, of another owner.
    let mut strangers = Vec::new();
    for stranger in [ci("other", "clerk"), NewApiKey::for_subject("x").tenant("acme")] {
        let (key, record) = issuer.mint(ci("acme", "developer"), AT).unwrap();
        let mut here = stranger.mint(AT).unwrap().1.fields();
        here.id = *record.id();
        partners.add(record).unwrap();
        store.inner.add(here.check().unwrap()).unwrap();
        strangers.push(key);
    }
    let (root, record) = issuer.mint(ci("acme", "operator"), AT).unwrap();
    partners.add(record).unwrap();
    let own = store.inner.len();

    for (name, key, status) in [
        ("no record here", &bound, 403),
        ("another tenant's", &strangers[0], 403),
        ("another owner's", &strangers[1], 403),
        ("may hand out anything", &root, 201),
    ] {
        for (line, body) in [
            ("POST /keys", json!({"subject": "ci"})),
            ("POST /keys", json!({"subject": "ci", "addresses": ["198.51.100.0/24"]})),
        ] {
            let mut request = World::request("", line, body.to_string());
            request.headers_mut().insert("x-partner-key", key.expose().parse().unwrap());
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{name}: {body}");
        }
    }
    assert_eq!(store.inner.len(), own + 2, "made by root alone");
}

/// Of two environments in one store, a key of the one makes none of the other.
#[tokio::test]
async fn a_key_makes_none_of_another_environment() {
    let store = Arc::new(Flaky::default());
    let format = |environment: &str| ApiKeyFormat::new("pc").unwrap().environment(environment).unwrap();
    // Keys of one prefix are taken by one authenticator of a stack: each environment has its own, before the same administration.
    let app = |environment: &str| {
        let stack = Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .authenticate(ApiKeyAuthenticator::new(Arc::clone(&store)).with_format(format(environment)))
            .policy(Rbac::from_toml(POLICY).unwrap());
        let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
        let admin = KeyAdmin::new(Arc::clone(&store)).with_issuer(KeyIssuer::new().with_format(format("live")));
        stack.build().unwrap().protect::<Router>(Router::new().nest("/admin", admin.router()))
    };
    for (environment, role, expected) in
        [("live", "developer", 201), ("test", "developer", 403), ("test", "operator", 201)]
    {
        let key = NewApiKey::for_subject("ci").tenant("acme").role(role);
        let (key, record) = KeyIssuer::new().with_format(format(environment)).mint(key, AT).unwrap();
        store.inner.add(record).unwrap();
        let mut request = World::request("", "POST /keys", json!({"subject": "ci"}).to_string());
        request.headers_mut().insert("x-api-key", key.expose().parse().unwrap());
        let response = app(environment).oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{environment} {role}");
    }
}

#[tokio::test]
async fn a_body_is_refused_for_what_is_wrong_with_it() {
    let world = World::new();
    let long = "x".repeat(257);
    let (scopes, metadata) = (vec!["orders:read"; 129], (0..33).map(|n| (n.to_string(), json!(""))).collect::<Value>());
    for (name, body, status, code, field) in [
        ("empty", String::new(), 400, "invalid_body", "-"),
        ("no JSON", "{".to_owned(), 400, "invalid_body", "-"),
        ("a list", "[]".to_owned(), 400, "invalid_body", "-"),
        ("no subject", "{}".to_owned(), 400, "invalid_body", "subject"),
        ("unknown member", json!({"subject": "x", "scope": ["a"]}).to_string(), 400, "invalid_body", "scope"),
        ("a hash", json!({"subject": "x", "secret": "aa"}).to_string(), 400, "invalid_body", "secret"),
        ("member twice", r#"{"subject": "x", "subject": "y"}"#.to_owned(), 400, "invalid_body", "subject"),
        ("wrong type of subject", json!({"subject": 1}).to_string(), 400, "invalid_body", "subject"),
        ("wrong type of scopes", json!({"subject": "x", "scopes": "a b"}).to_string(), 400, "invalid_body", "scopes"),
        ("wrong type in scopes", json!({"subject": "x", "scopes": [1]}).to_string(), 400, "invalid_body", "scopes"),
        (
            "wrong type of lifetime",
            json!({"subject": "x", "lifetime": "90d"}).to_string(),
            400,
            "invalid_body",
            "lifetime",
        ),
        ("lifetime null", json!({"subject": "x", "lifetime": null}).to_string(), 400, "invalid_body", "lifetime"),
        ("negative", json!({"subject": "x", "not_before": -1}).to_string(), 400, "invalid_body", "not_before"),
        ("no network", json!({"subject": "x", "addresses": ["home"]}).to_string(), 400, "invalid_body", "addresses"),
        (
            "metadata no texts",
            json!({"subject": "x", "metadata": {"a": 1}}).to_string(),
            400,
            "invalid_body",
            "metadata",
        ),
        (
            "metadata twice",
            r#"{"subject": "x", "metadata": {"a": "", "a": ""}}"#.to_owned(),
            400,
            "invalid_body",
            "metadata",
        ),
        ("name with a line break", json!({"subject": "x", "name": "a\nb"}).to_string(), 422, "invalid_value", "name"),
        ("name too long", json!({"subject": "x", "name": long}).to_string(), 422, "invalid_value", "name"),
        ("empty subject", json!({"subject": ""}).to_string(), 422, "invalid_value", "subject"),
        ("empty tenant", json!({"subject": "x", "tenant": ""}).to_string(), 422, "invalid_value", "tenant"),
        ("two scopes in one", json!({"subject": "x", "scopes": ["a b"]}).to_string(), 422, "invalid_value", "scopes"),
        (
            "unknown scope",
            json!({"subject": "x", "scopes": ["order:read"]}).to_string(),
            422,
            "invalid_value",
            "scopes",
        ),
        ("unknown role", json!({"subject": "x", "roles": ["boss"]}).to_string(), 422, "invalid_value", "roles"),
        ("unknown plan", json!({"subject": "x", "plan": "silver"}).to_string(), 422, "invalid_value", "plan"),
        ("too many scopes", json!({"subject": "x", "scopes": scopes}).to_string(), 422, "invalid_value", "scopes"),
        (
            "too much metadata",
            json!({"subject": "x", "metadata": metadata}).to_string(),
            422,
            "invalid_value",
            "metadata",
        ),
        (
            "host bits",
            json!({"subject": "x", "addresses": ["10.0.0.1/8"]}).to_string(),
            422,
            "invalid_value",
            "addresses",
        ),
        ("no life", json!({"subject": "x", "lifetime": 0}).to_string(), 422, "invalid_value", "lifetime"),
        (
            "endless by number",
            json!({"subject": "x", "lifetime": u64::MAX}).to_string(),
            422,
            "invalid_value",
            "lifetime",
        ),
        (
            "start too late",
            json!({"subject": "x", "not_before": u64::MAX, "lifetime": "never"}).to_string(),
            422,
            "invalid_value",
            "not_before",
        ),
        ("huge", format!(r#"{{"subject": "{}"}}"#, "x".repeat(MAX_BODY)), 413, "too_large", "-"),
    ] {
        let refused = world.send(World::request("anna", "POST /keys", body)).await;
        assert_eq!(
            (refused.status, refused.code(), refused.field()),
            (status, code, field),
            "{name}: {}",
            refused.body
        );
        assert_eq!(refused.headers["content-type"], "application/problem+json", "{name}");
        assert_eq!(refused.headers["cache-control"], "no-store", "{name}");
        let (text, title) = (refused.body["detail"].as_str().unwrap(), refused.body["title"].as_str().unwrap());
        for rust in ["::", "struct", "u64", "String", "serde", "line 1", "Duration"] {
            assert!(!text.contains(rust), "{name}: {text}");
        }
        assert!(!text.is_empty() && !title.is_empty(), "{name}");
    }
    assert!(world.store.inner.is_empty());

    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = World::request("anna", "POST /keys", r#"{"subject": "x"}"#);
        request.headers_mut().remove("content-type");
        content_type.map(|value| request.headers_mut().insert("content-type", value.parse().unwrap()));
        let refused = world.send(request).await;
        assert_eq!((refused.status, refused.code()), (415, "not_json"), "{content_type:?}");
    }
}

#[tokio::test]
async fn a_permission_is_needed_everywhere() {
    let world = World::new();
    let id = world.id(billing());
    let rows = [
        ("POST /keys", json!({"subject": "x"}), "keys:create"),
        ("GET /keys", Value::Null, "keys:read"),
        ("GET /keys/{id}", Value::Null, "keys:read"),
        ("POST /keys/{id}/rotate", json!({}), "keys:rotate"),
        ("POST /keys/{id}/revoke", json!({}), "keys:revoke"),
        ("POST /owners/disable", json!({"subject": "billing"}), "keys:disable-owner"),
        ("POST /owners/enable", json!({"subject": "billing"}), "keys:disable-owner"),
    ];
    // Once behind the rules of the stack, once with the router alone to refuse.
    let alone: Router = Router::new().nest("/admin", admin(&world.store).router());
    let policy = || Rbac::from_toml(POLICY).unwrap();
    let layers = AuthnLayer::new(people()).allow_anonymous().dangerous_plain_http();
    let alone = ProblemLayer::new().layer(layers.layer(require(authenticated()).with_policy(policy()).layer(alone)));
    for (line, body, permission) in rows {
        let line = line.replace("{id}", &id);
        for (who, status) in [("", 401), ("clerk", 403)] {
            let refused = world.call(who, &line, body.clone()).await;
            assert_eq!(refused.status, status, "{line} by {who:?}");
            let response = alone.clone().oneshot(World::request(who, &line, body.to_string())).await.unwrap();
            assert_eq!(response.status(), status, "{line} by {who:?}, without rules");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
        let decisions: Vec<String> = world
            .audit
            .take()
            .iter()
            .flat_map(|record| {
                record
                    .decisions()
                    .map(|decision| decision.action().unwrap_or_default().into_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(decisions, [permission], "{line}");
        // Refused before the body is read.
        let mut wrong = World::request("clerk", &line, "{");
        wrong.headers_mut().remove("content-type");
        assert_eq!(world.send(wrong).await.status, 403, "{line}");
        drop(world.audit.take());
        let response = alone.clone().oneshot(World::request("root", &line, body.to_string())).await.unwrap();
        assert!(response.status().is_success(), "{line} by root, without rules: {}", response.status());
    }
}

#[tokio::test]
async fn without_authentication_outside_nothing_works() {
    let store = Arc::new(Flaky::default());
    let router: Router = admin(&store).router();
    let request = |line: &str| {
        let mut request = World::request("root", line, r#"{"subject": "x"}"#);
        *request.uri_mut() = request.uri().path().strip_prefix("/admin").unwrap().parse().unwrap();
        request
    };
    for line in ["POST /keys", "GET /keys", "POST /owners/disable"] {
        assert_eq!(router.clone().oneshot(request(line)).await.unwrap().status(), 500, "{line}");
    }
    // Authentication without a policy is no better.
    let app = AuthnLayer::new(people()).dangerous_plain_http().layer(router);
    assert_eq!(app.clone().oneshot(request("POST /keys")).await.unwrap().status(), 500);
    assert!(store.inner.is_empty());
    let stack = Stack::builder().tls(TlsLayer::require()).authenticate(people());
    let stack = key_admin::rules("").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
    assert!(stack.build().unwrap_err().to_string().contains("policy"));
}

#[tokio::test]
async fn a_key_is_rotated_once() {
    let world = World::new();
    let (key, id) = world.key(billing().lives(KeyLife::For(Duration::from_secs(30 * DAY))));
    let made = world.call("anna", &format!("POST /keys/{id}/rotate"), json!({"overlap": 3600})).await;
    assert_eq!((made.status, &made.headers["cache-control"]), (200, &"no-store".parse().unwrap()), "{}", made.body);
    let (new, new_id) = (made.body["key"].as_str().unwrap(), made.body["record"]["id"].as_str().unwrap());
    assert_eq!(
        (&made.body["record"]["rotated_from"], &made.body["record"]["expires"]),
        (&json!(id), &json!(NOW + 30 * DAY))
    );
    let notes = world.notes();
    let note = |wanted: &str| &notes.iter().find(|(name, _)| name == wanted).unwrap().1;
    assert_eq!(
        (note("key.change"), note("key.rotated"), note("key.rotated_to")),
        (&format!("rotate {id}"), &id, &new_id.to_owned())
    );
    for key in [&key, new] {
        assert_eq!(world.get(key, "/keys").await.status, 403, "both work");
    }
    assert_eq!(world.record(&id).await.expires(), Some(NOW + 3600));

    let again = world.call("anna", &format!("POST /keys/{id}/rotate"), json!({})).await;
    assert_eq!((again.status, again.code()), (409, "conflict"));
    // Without an overlap, the old one ends at once; without a word, in a day.
    let made = world.call("anna", &format!("POST /keys/{new_id}/rotate"), json!({"overlap": 0})).await;
    assert_eq!(world.get(new, "/keys").await.status, 401);
    let third = made.body["record"]["id"].as_str().unwrap();
    world.call("anna", &format!("POST /keys/{third}/rotate"), json!({})).await;
    assert_eq!(world.record(third).await.expires(), Some(NOW + DAY));
    let ended = world.call("anna", &format!("POST /keys/{new_id}/rotate"), json!({})).await;
    assert_eq!((ended.status, ended.code()), (409, "conflict"), "ended");
}

#[tokio::test]
async fn a_rotation_takes_nothing_over() {
    let world = World::new();
    let (ci, ci_id) = world.key(NewApiKey::for_subject("ci").tenant("acme").role("developer").role("clerk"));
    let tenant_admin = || NewApiKey::for_subject("ops").tenant("acme").role("tenant-admin").scope("orders:read");
    let (brief, _) = world.key(tenant_admin().lives(KeyLife::For(Duration::from_secs(DAY))));
    let (bound, _) = world.key(tenant_admin().address("198.51.100.0/24".parse().unwrap()));
    let (free, _) = world.key(tenant_admin().lives(KeyLife::Never));
    let own = || NewApiKey::for_subject("ops").tenant("acme").role("tenant-admin");
    for (name, who, key, status, code, field) in [
        ("wider scope", "anna", billing().scope("orders:delete"), 403, "not_held", "scopes"),
        ("wider role", "anna", billing().role("operator"), 403, "not_held", "roles"),
        ("another's, without the right", "alice", billing(), 404, "no_such_key", "-"),
        (
            "of the same name at another issuer",
            "foreign-alice",
            NewApiKey::for_subject("alice").tenant("acme"),
            404,
            "no_such_key",
            "-",
        ),
        ("of another tenant", "anna", foreign(), 404, "no_such_key", "-"),
        ("of no tenant", "anna", NewApiKey::for_subject("anna"), 404, "no_such_key", "-"),
        ("of a tenant, by one without", "lone", billing(), 404, "no_such_key", "-"),
        ("longer life than own", &brief, billing(), 403, "not_held", "lifetime"),
        ("from anywhere, by a bound key", &bound, billing(), 403, "not_held", "addresses"),
        ("another plan", "anna", billing().plan("free"), 403, "not_held", "plan"),
        ("no plan", "anna", NewApiKey::for_subject("billing").tenant("acme"), 403, "not_held", "plan"),
        ("a plan, by a key without", &free, billing(), 403, "not_held", "plan"),
        ("a plan of one's own, by a key without", &free, own().plan("gold"), 403, "not_held", "plan"),
    ] {
        let id = world.id(key);
        let before = (world.record(&id).await, world.store.inner.len());
        let refused = world.call(who, &format!("POST /keys/{id}/rotate"), json!({})).await;
        assert_eq!((refused.status, refused.code(), refused.field()), (status, code, field), "{name}");
        assert!(world.notes().iter().any(|(name, _)| name == "key.refused"), "{name}");
        assert_eq!((world.record(&id).await, world.store.inner.len()), before, "{name}: nothing changed");
        assert_eq!(
            world.call("root", &format!("POST /keys/{id}/rotate"), json!({})).await.status,
            200,
            "{name}, by root"
        );
        drop(world.audit.take());
    }
    // A key that replaces itself lives as long as it does, and no longer.
    let own = world.call(&ci, &format!("POST /keys/{ci_id}/rotate"), json!({})).await;
    assert_eq!(own.status, 200, "made in this second: {}", own.body);
    let yesterday = Instants::new((NOW - DAY) * 1_000_000_000, 0);
    let (old, record) = NewApiKey::for_subject("ci").tenant("acme").role("developer").mint(yesterday).unwrap();
    let line = format!("POST /keys/{}/rotate", record.id());
    world.store.inner.add(record).unwrap();
    let longer = world.call(old.expose(), &line, json!({})).await;
    assert_eq!((longer.status, longer.field()), (403, "lifetime"), "a day longer");
    // A person whose token names no plan keeps that of their own key.
    let gold = world.id(NewApiKey::for_subject("alice").tenant("acme").plan("gold"));
    let made = world.call("alice", &format!("POST /keys/{gold}/rotate"), json!({})).await;
    assert_eq!((made.status, &made.body["record"]["plan"]), (200, &json!("gold")));
    // One that has not begun is not begun by replacing it.
    let id = world.id(billing().not_before(NOW + DAY));
    let made = world.call("anna", &format!("POST /keys/{id}/rotate"), json!({})).await;
    assert_eq!(
        (&made.body["record"]["status"], &made.body["record"]["not_before"]),
        (&json!("pending"), &json!(NOW + DAY))
    );
}

#[tokio::test]
async fn a_key_out_of_reach_does_not_exist() {
    let world = World::new();
    let hidden = [
        ("foreign", "anna", world.id(foreign())),
        ("of no tenant", "anna", world.id(NewApiKey::for_subject("lone"))),
        ("of a tenant, by one without", "lone", world.id(billing())),
        ("of another owner", "alice", world.id(billing())),
    ];
    for (name, who, id) in &hidden {
        for (line, body) in [
            ("GET /keys/{id}", Value::Null),
            ("POST /keys/{id}/revoke", json!({})),
            ("POST /keys/{id}/rotate", json!({})),
        ] {
            let real = world.call(who, &line.replace("{id}", id), body.clone()).await;
            let decided = |world: &World| {
                let records = world.audit.take();
                records[0].decisions().map(|fact| fact.action().unwrap().into_owned()).collect::<Vec<_>>()
            };
            let asked = decided(&world);
            let none = world.call(who, &line.replace("{id}", NO_SUCH), body.clone()).await;
            assert_eq!(asked, decided(&world), "{name}: the same questions");
            assert_eq!(real.status, 404, "{name}: {line}");
            assert_eq!(real.same(), none.same(), "{name}: {line}");
        }
        assert!(world.record(id).await.is_active(NOW), "{name}");
        assert_eq!(world.get("root", &format!("/keys/{id}")).await.status, 200, "{name}, by root");
        drop(world.audit.take());
    }
    for bad in ["x", "0123456789ABCDEF", "0123456789abcdef0", "%30123456789abcde%ff", "..%2f..%2fkeys", "pc_v1_x"] {
        let answer = world.get("anna", &format!("/keys/{bad}")).await;
        assert!(matches!(answer.status, 404 | 400), "{bad}: {}", answer.status);
    }
    assert_eq!(world.get("anna", "/keys/x").await.same(), world.get("anna", &format!("/keys/{NO_SUCH}")).await.same());
}

#[tokio::test]
async fn a_key_is_revoked_for_good() {
    let world = World::new();
    let (key, id) = world.key(billing());
    let line = format!("POST /keys/{id}/revoke");
    let revoked = world.call("anna", &line, json!({"reason": "leaked"})).await;
    assert_eq!((revoked.status, &revoked.body["status"]), (200, &json!("revoked")));
    assert_eq!(revoked.body["revoked"], json!({"at": NOW, "reason": "leaked"}));
    let notes = world.notes();
    for (name, value) in
        [("key.change", format!("revoke {id}")), ("key.revoked", id.clone()), ("reason", "leaked".into())]
    {
        assert!(notes.contains(&(name.to_owned(), value)), "{name}: {notes:?}");
    }
    assert_eq!(world.get(&key, "/keys").await.status, 401, "at once");
    let again = world.call("anna", &line, json!({"reason": "another"})).await;
    assert_eq!((again.status, &again.body["revoked"]["reason"]), (200, &json!("leaked")), "the first reason stays");
    let rotated = world.call("anna", &format!("POST /keys/{id}/rotate"), json!({})).await;
    assert_eq!((rotated.status, rotated.code()), (409, "conflict"));
    let bad = world.call("anna", &line, json!({"reason": "a\u{0}b"})).await;
    assert_eq!((bad.status, bad.field()), (422, "reason"));
    // An admin of the tenant may take away more than they hold.
    let id = world.id(billing().scope("orders:delete").role("operator"));
    assert_eq!(world.call("anna", &format!("POST /keys/{id}/revoke"), json!({})).await.status, 200);
    let own = world.id(NewApiKey::for_subject("alice").tenant("acme"));
    assert_eq!(world.call("alice", &format!("POST /keys/{own}/revoke"), json!({})).await.status, 200, "one's own");
}

#[tokio::test]
async fn a_list_shows_what_the_caller_reaches() {
    let world = World::new();
    let mut ids = std::collections::BTreeMap::new();
    for (name, key) in [
        ("billing", billing().name("nightly export")),
        ("alice", NewApiKey::for_subject("alice").tenant("acme")),
        ("pending", billing().not_before(NOW + 1)),
        ("foreign", foreign()),
        ("same name, foreign", NewApiKey::for_subject("billing").tenant("other").name("canary-too")),
        ("none", NewApiKey::for_subject("alice")),
    ] {
        ids.insert(world.id(key), name);
    }
    let all = "billing alice pending foreign same_name,_foreign none";
    for (name, who, query, expected) in [
        ("own tenant", "anna", "", "billing alice pending"),
        ("own tenant, said", "anna", "?tenant=acme", "billing alice pending"),
        ("a subject", "anna", "?subject=billing", "billing pending"),
        ("a subject of others", "anna", "?subject=canary-owner", ""),
        ("active", "anna", "?active=true", "billing alice"),
        ("a name", "anna", "?name=night", "billing"),
        ("an environment", "anna", "?environment=live", ""),
        ("no environment", "anna", "?environment=", "billing alice pending"),
        ("cursor from elsewhere", "anna", "?after=0000000000000000", "billing alice pending"),
        ("own keys", "alice", "", "alice"),
        ("own keys, said", "alice", "?subject=alice", "alice"),
        ("without a tenant", "lone", "", "none"),
        ("without a tenant, said", "lone", "?tenant=", "none"),
        ("root's own", "root", "", "none"),
        ("all", "root", "?all_tenants=true", all),
        ("one", "root", "?tenant=other", "foreign same_name,_foreign"),
    ] {
        let answer = world.get(who, &format!("/keys{query}")).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        let mut shown: Vec<String> = answer.ids().iter().map(|id| ids[*id].replace(' ', "_")).collect();
        let mut expected: Vec<&str> = expected.split(' ').filter(|name| !name.is_empty()).collect();
        shown.sort();
        expected.sort_unstable();
        assert_eq!(shown, expected, "{name}");
    }
    for (name, who, query, field) in [
        ("foreign tenant", "anna", "?tenant=other", "tenant"),
        ("a tenant that does not exist", "anna", "?tenant=nowhere", "tenant"),
        ("no tenant", "anna", "?tenant=", "tenant"),
        ("all tenants", "anna", "?all_tenants=true", "tenant"),
        ("a tenant, by one without", "lone", "?tenant=acme", "tenant"),
        ("another owner", "alice", "?subject=billing", "subject"),
        ("keys of the same name at another issuer", "foreign-alice", "", "subject"),
    ] {
        let refused = world.get(who, &format!("/keys{query}")).await;
        assert_eq!((refused.status, refused.code(), refused.field()), (403, "not_held", field), "{name}");
    }
    for (name, query, field) in [
        ("unknown filter", "?tenants=acme", "tenants"),
        ("filter twice", "?tenant=acme&tenant=other", "tenant"),
        ("no id", "?after=x", "after"),
        ("no limit", "?limit=0", "limit"),
    ] {
        let refused = world.get("anna", &format!("/keys{query}")).await;
        assert_eq!((refused.status, refused.code(), refused.field()), (400, "invalid_query", field), "{name}");
    }

    // Page by page, a cursor of another tenant's key included: it tells an order, and nothing else.
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = world.get("anna", &format!("/keys?limit=1{after}")).await;
        let Some(next) = page.body["next"].as_str() else { break };
        after = format!("&after={next}");
        pages.extend(page.ids().iter().map(|id| (*id).to_owned()));
    }
    assert_eq!(pages, world.get("anna", "/keys").await.ids());
    for id in ids.keys() {
        let answer = world.get("anna", &format!("/keys?after={id}")).await;
        let later: Vec<&String> = pages.iter().filter(|page| *page > id).collect();
        assert!(answer.ids().iter().eq(later.iter()), "after {id}");
    }
}

#[tokio::test]
async fn an_owner_is_disabled_with_all_keys() {
    let world = World::new();
    let (key, id) = world.key(billing());
    let disabled = world.call("anna", "POST /owners/disable", json!({"subject": "billing", "reason": "left"})).await;
    let expected =
        json!({"subject": "billing", "tenant": "acme", "disabled": {"at": NOW, "reason": "left"}, "changed": true});
    assert_eq!((disabled.status, &disabled.body), (200, &expected));
    let notes = world.notes();
    for (name, value) in [("owner.disabled", "billing"), ("owner", r#""billing" in "acme""#), ("reason", "left")] {
        assert!(notes.contains(&(name.to_owned(), value.to_owned())), "{name}: {notes:?}");
    }
    assert_eq!(world.get(&key, "/keys").await.status, 401);
    assert_eq!(world.get("anna", &format!("/keys/{id}")).await.body["status"], "disabled");
    let made = world.call("anna", "POST /keys", json!({"subject": "billing"})).await;
    assert_eq!((made.status, &made.body["record"]["status"]), (201, &json!("disabled")), "a later key too");
    let again = world.call("anna", "POST /owners/disable", json!({"subject": "billing", "reason": "again"})).await;
    assert_eq!((&again.body["changed"], &again.body["disabled"]["reason"]), (&json!(false), &json!("left")));

    let enabled = world.call("anna", "POST /owners/enable", json!({"subject": "billing"})).await;
    assert_eq!(enabled.body, json!({"subject": "billing", "tenant": "acme", "changed": true}));
    assert!(world.notes().contains(&("owner.enabled".to_owned(), "billing".to_owned())));
    assert_eq!(world.get(&key, "/keys").await.status, 403, "works again");

    for (name, who, body, status, field) in [
        ("foreign tenant", "anna", json!({"subject": "billing", "tenant": "other"}), 403, "tenant"),
        ("no tenant", "anna", json!({"subject": "billing", "tenant": null}), 403, "tenant"),
        ("no permission", "alice", json!({"subject": "alice"}), 403, "-"),
        ("no subject", "anna", json!({}), 400, "subject"),
        ("empty subject", "anna", json!({"subject": ""}), 422, "subject"),
        ("unknown member", "anna", json!({"subject": "x", "id": "y"}), 400, "id"),
        ("control character", "anna", json!({"subject": "a\tb"}), 422, "subject"),
    ] {
        for line in ["POST /owners/disable", "POST /owners/enable"] {
            let refused = world.call(who, line, body.clone()).await;
            assert_eq!((refused.status, refused.field()), (status, field), "{name}: {line}");
        }
    }
    let other = Owner::new("billing").unwrap().in_tenant("other").unwrap();
    assert_eq!(world.store.inner.disablement(&other).await.unwrap(), None);
    let by_root = world.call("root", "POST /owners/disable", json!({"subject": "billing", "tenant": "other"})).await;
    assert_eq!(by_root.status, 200);
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_tells_nothing() {
    let world = World::new();
    let id = world.id(billing());
    let (own, _) = world.key(NewApiKey::for_subject("ci").tenant("acme").role("developer"));
    let [show, rotate, revoke] =
        ["GET /keys/{id}", "POST /keys/{id}/rotate", "POST /keys/{id}/revoke"].map(|line| line.replace("{id}", &id));
    let owner = || json!({"subject": "billing"});
    for (method, who, line, body) in [
        ("disablement", "anna", "POST /keys", owner()),
        ("insert", "anna", "POST /keys", owner()),
        ("get", &own, "POST /keys", json!({"subject": "ci"})),
        ("list", "anna", "GET /keys", Value::Null),
        ("get", "anna", &show, Value::Null),
        ("get", "anna", &rotate, json!({})),
        ("rotate", "anna", &rotate, json!({})),
        ("get", "anna", &revoke, json!({})),
        ("revoke", "anna", &revoke, json!({})),
        ("disable_owner", "anna", "POST /owners/disable", owner()),
        ("enable_owner", "anna", "POST /owners/enable", owner()),
    ] {
        for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Corrupt] {
            world.store.fail(Some((method, kind)));
            let failed = world.call(who, line, body.clone()).await;
            assert_eq!((failed.status, failed.code()), (503, "unavailable"), "{method} in {line}");
            assert_eq!(failed.headers["retry-after"], "7", "{method} in {line}: 6.001 s, rounded up");
            let record = world.audit.take().pop().unwrap();
            let reason = record.rejection_reason().unwrap();
            assert!(reason.contains("inner secret"), "{method} in {line}: the operator learns: {reason}");
            assert!(!record.notes().any(|(name, _)| ["key.created", "key.rotated", "key.revoked"].contains(&&*name)));
        }
    }
    world.store.fail(Some(("insert", StoreErrorKind::Conflict)));
    assert_eq!(world.call("anna", "POST /keys", owner()).await.status, 409);
    world.store.fail(None);
    assert_eq!(world.call("anna", &show, Value::Null).await.body["status"], "active", "nothing was done");
}

/// A store finishes what it began. Who hangs up meanwhile must not hide what they did.
#[tokio::test]
async fn a_request_that_is_given_up_is_done_and_told() {
    let world = World::new();
    let (rotated, revoked) = (world.id(billing()), world.id(billing()));
    let owner = || json!({"subject": "billing"});
    for (method, line, body, expected, event) in [
        ("insert", "POST /keys".to_owned(), owner(), "create ", "key_created"),
        ("rotate", format!("POST /keys/{rotated}/rotate"), json!({}), "rotate ", "key_rotated"),
        ("revoke", format!("POST /keys/{revoked}/revoke"), json!({"reason": "leaked"}), "revoke ", "key_revoked"),
        ("disable_owner", "POST /owners/disable".to_owned(), owner(), "disable ", "owner_disabled"),
        ("enable_owner", "POST /owners/enable".to_owned(), owner(), "enable ", "owner_enabled"),
    ] {
        *world.store.waits.lock().unwrap() = Some(method);
        let mut request = Box::pin(world.service.clone().oneshot(World::request("anna", &line, body.to_string())));
        let polled = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending), "{method} waits");
        drop(request);
        let record = world.audit.records().pop().unwrap();
        let begun = record.notes().any(|(name, value)| name == "key.change" && value.starts_with(expected));
        assert!(begun, "{method}: {record:?}");

        world.store.goes_on.notify_one();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let events = world.events(&record);
        assert_eq!(events, [event], "{method}");
        let note = event.replacen('_', ".", 1);
        let noted = world.audit.entries().into_iter().any(|entry| match entry {
            AuditEntry::Later(later) => {
                later.request_id() == record.request_id() && later.notes().any(|(name, _)| *name == *note)
            }
            _ => false,
        });
        assert!(noted, "{method}");
    }
    assert_eq!(world.get("anna", "/keys").await.ids().len(), 4, "two, a new one and a replacement");
    assert!(!world.record(&revoked).await.is_active(NOW));
    assert!(world.record(&rotated).await.rotated_to().is_some());
}

/// A change whose body is still on its way, and what sends it.
fn pending(who: &str, line: &str) -> (Request<Body>, tokio::sync::oneshot::Sender<String>) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<String>();
    let body = tokio_stream::StreamExt::then(tokio_stream::once(receiver), |receiver| receiver);
    (World::request(who, line, Body::from_stream(body)), sender)
}

/// Whoever holds a stolen key begins a change and waits: it is too late once the key was revoked.
#[tokio::test]
async fn what_was_revoked_while_the_body_was_on_its_way_changes_nothing() {
    let at = || Revocation::new(NOW, "stolen").unwrap();
    let owner = || Owner::new("ci").unwrap().in_tenant("acme").unwrap();
    for (name, line, ends) in [
        ("a key is made", "POST /keys", "revoked"),
        ("a key is made, owner disabled", "POST /keys", "disabled"),
        ("a key is made, purged", "POST /keys", "gone"),
        ("it rotates itself", "POST /keys/{id}/rotate", "revoked"),
        ("another one is revoked", "POST /keys/{other}/revoke", "revoked"),
        ("its owner is disabled, and enables itself", "POST /owners/enable", "disabled"),
        ("it disables another one", "POST /owners/disable", "revoked"),
    ] {
        let world = World::new();
        let (key, id) = world.key(NewApiKey::for_subject("ci").tenant("acme").role("tenant-admin"));
        let other = world.id(NewApiKey::for_subject("billing").tenant("acme"));
        let line = line.replace("{id}", &id).replace("{other}", &other);
        let (request, body) = pending(&key, &line);
        let mut answer = Box::pin(world.send(request));
        let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending), "{name}: it waits for the body");
        let store = &world.store.inner;
        match ends {
            "revoked" => assert!(store.revoke(&id.parse().unwrap(), &at()).await.unwrap()),
            "disabled" => assert!(store.disable_owner(&owner(), &at()).await.unwrap()),
            _ => {
                store.revoke(&id.parse().unwrap(), &Revocation::new(1, "").unwrap()).await.unwrap();
                assert_eq!(store.purge(AT, Duration::ZERO).await.unwrap(), 1);
            }
        }
        let subject = if line.ends_with("/disable") { "billing" } else { "ci" };
        let members =
            if line.contains("owners") || line.ends_with("/keys") { json!({"subject": subject}) } else { json!({}) };
        body.send(members.to_string()).unwrap();
        assert_eq!(answer.await.status, 401, "{name}");
        let left = if ends == "gone" { 1 } else { 2 };
        assert_eq!(store.list(&KeyFilter::all(), None, 10).await.unwrap().len(), left, "{name}");
        assert_eq!(store.disablement(&owner()).await.unwrap().is_some(), ends == "disabled", "{name}");
        assert!(world.record(&other).await.is_active(NOW), "{name}");
        assert!(store.disablement(&Owner::new("billing").unwrap().in_tenant("acme").unwrap()).await.unwrap().is_none());
    }
}

/// Whoever is about to lose a permission begins changes and waits: it is too late once the policy is without the grant.
#[tokio::test]
async fn a_permission_that_was_taken_away_while_the_body_was_on_its_way_changes_nothing() {
    for line in ["POST /keys", "POST /keys/{id}/rotate", "POST /keys/{id}/revoke", "POST /owners/disable"] {
        let policy = Rbac::from_toml(POLICY).unwrap();
        let store = Arc::new(Flaky::default());
        let stack =
            Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(people()).policy(policy.clone());
        let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
        let app: Router = Router::new().nest("/admin", admin(&store).router());
        let service = stack.build().unwrap().protect(app);
        let (_, record) = NewApiKey::for_subject("anna").tenant("acme").plan("gold").mint(AT).unwrap();
        let id = *record.id();
        store.inner.add(record).unwrap();
        let (request, body) = pending("anna", &line.replace("{id}", &id.to_string()));
        let mut answer = Box::pin(service.oneshot(request));
        assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "{line}");
        let without = POLICY
            .replace("inherits = [\"developer\"]\ngrants", "# grants")
            .replace("version = \"1\"", "version = \"2\"");
        policy.replace_with_toml(&without).unwrap();
        body.send(if line.contains("{id}") { "{}".to_owned() } else { json!({"subject": "anna"}).to_string() })
            .unwrap();
        assert_eq!(answer.await.unwrap().status(), 403, "{line}");
        assert_eq!(store.inner.list(&KeyFilter::all(), None, 10).await.unwrap().len(), 1, "{line}");
        let hit = store.inner.get(&id).await.unwrap().unwrap();
        assert!(hit.is_active(NOW) && hit.record().rotated_to().is_none(), "{line}");
    }
}

/// A key by default ends with its maker's, also where a second begins while it is made.
#[tokio::test]
async fn a_second_that_begins_meanwhile_refuses_no_key() {
    #[derive(Clone, Debug)]
    struct Edge(Arc<std::sync::atomic::AtomicU64>);
    impl portcullis::Clock for Edge {
        fn now(&self) -> Instants {
            Instants::new(self.0.load(std::sync::atomic::Ordering::SeqCst), 0)
        }
    }
    let nanos = Arc::new(std::sync::atomic::AtomicU64::new(AT.unix_seconds() * 1_000_000_000));
    let store = Arc::new(Flaky::default());
    let stack = Stack::builder()
        .clock(Edge(Arc::clone(&nanos)))
        .tls(TlsLayer::require())
        .authenticate(ApiKeyAuthenticator::new(Arc::clone(&store)))
        .policy(Rbac::from_toml(POLICY).unwrap());
    let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
    let app: Router = Router::new().nest("/admin", admin(&store).router());
    let service = stack.build().unwrap().protect(app);
    let key = NewApiKey::for_subject("ci").tenant("acme").role("developer");
    let (key, record) = key.lives(KeyLife::For(Duration::from_secs(3_600))).mint(AT).unwrap();
    store.inner.add(record).unwrap();
    // The last moments of a second: the time that a request takes by itself is added to them.
    for step in 0..3_000_u64 {
        nanos.store((NOW + 2) * 1_000_000_000 - step * 200, std::sync::atomic::Ordering::SeqCst);
        let request = World::request(key.expose(), "POST /keys", json!({"subject": "ci"}).to_string());
        assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 201, "{step}");
    }
}

/// Only keys are disabled: a token still works, and must not lift what somebody else decided.
#[tokio::test]
async fn nobody_enables_themselves() {
    let world = World::new();
    let owner = Owner::new("anna").unwrap().in_tenant("acme").unwrap();
    let anna = || json!({"subject": "anna", "tenant": "acme"});
    let disabled = world.call("root", "POST /owners/disable", anna()).await;
    assert_eq!((disabled.status, &disabled.body["changed"]), (200, &json!(true)));
    let refused = world.call("anna", "POST /owners/enable", anna()).await;
    assert_eq!((refused.status, refused.code(), refused.field()), (403, "not_held", "subject"));
    assert!(world.notes().iter().any(|(name, _)| name == "key.refused"));
    assert!(world.store.inner.disablement(&owner).await.unwrap().is_some());
    assert_eq!(world.call("root", "POST /owners/enable", anna()).await.status, 200);
    assert!(world.store.inner.disablement(&owner).await.unwrap().is_none());
    assert_eq!(world.call("anna", "POST /owners/disable", anna()).await.status, 200, "oneself one may");
}

#[tokio::test]
async fn a_revocation_without_a_body_needs_the_type_alone() {
    let world = World::new();
    let line = format!("POST /keys/{}/revoke", world.id(billing()));
    let mut form = World::request("anna", &line, "");
    form.headers_mut().remove("content-type");
    assert_eq!(world.send(form).await.status, 415);
    let revoked = world.call("anna", &line, Value::Null).await;
    assert_eq!((revoked.status, &revoked.body["status"]), (200, &json!("revoked")));
}

#[tokio::test]
async fn no_answer_of_the_router_is_stored() {
    let world = World::new();
    let alone: Router = Router::new().nest("/admin", admin(&world.store).router());
    let policy = Rbac::from_toml(POLICY).unwrap();
    let alone = AuthnLayer::new(people())
        .allow_anonymous()
        .dangerous_plain_http()
        .layer(require(authenticated()).with_policy(policy).layer(alone));
    for (who, status) in [("alice", 200), ("clerk", 403)] {
        let response = alone.clone().oneshot(World::request(who, "GET /keys", "")).await.unwrap();
        assert_eq!(response.status(), status, "{who}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{who}");
    }
}

/// A router that was set up apart from the authenticator makes no key in vain; with its issuer, nobody is locked out.
#[tokio::test]
async fn keys_are_made_that_are_taken() {
    let store = Arc::new(Flaky::default());
    let peppers = Peppers::new("2026".parse().unwrap(), Secret::new(vec![1; 32])).unwrap();
    let format = ApiKeyFormat::new("pc").unwrap().environment("live").unwrap();
    let plain = ApiKeyAuthenticator::new(Arc::clone(&store)).with_peppers(peppers);
    for (name, keys, known) in [
        ("another set-up", plain.clone(), false),
        ("peppers", plain.clone(), true),
        ("a format", plain.with_format(format), true),
    ] {
        let stack = Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .authenticate(keys.clone())
            .policy(Rbac::from_toml(POLICY).unwrap());
        let stack = key_admin::rules("/admin").into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule));
        let router = KeyAdmin::new(Arc::clone(&store));
        let router = if known { router.with_issuer(keys.issuer()) } else { router };
        let app = stack.build().unwrap().protect::<Router>(Router::new().nest("/admin", router.router()));
        let own = NewApiKey::for_subject("ci").tenant("acme").role("developer");
        let (key, record) = keys.issuer().mint(own, AT).unwrap();
        let id = record.id().to_string();
        store.inner.add(record).unwrap();
        let create = World::request(key.expose(), "POST /keys", json!({"subject": "ci"}).to_string());
        let created = app.clone().oneshot(create).await.unwrap();
        assert_eq!(created.status(), if known { 201 } else { 422 }, "{name}");
        let rotate =
            World::request(key.expose(), &format!("POST /keys/{id}/rotate"), json!({"overlap": 0}).to_string());
        let rotated = app.clone().oneshot(rotate).await.unwrap();
        assert_eq!(rotated.status(), if known { 200 } else { 422 }, "{name}");
        let body: Value = serde_json::from_slice(&rotated.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let works = body["key"].as_str().unwrap_or(key.expose());
        let listed = app.clone().oneshot(World::request(works, "GET /keys", "")).await.unwrap();
        assert_eq!(listed.status(), 200, "{name}");

        // A key of another system has no pepper to be missed, and ends all the same.
        let mut legacy = RecordFields::legacy(
            KeyHash::from_bytes([u8::try_from(name.len()).unwrap(); 32]),
            "ci",
            NOW,
            Some(NOW + 3_600),
        );
        (legacy.tenant, legacy.environment) =
            (Some("acme".to_owned()), works.starts_with("pc_live").then(|| "live".to_owned()));
        let legacy = legacy.check().unwrap();
        let line = format!("POST /keys/{}/rotate", legacy.id());
        store.inner.add(legacy).unwrap();
        let rotated = app.oneshot(World::request(works, &line, json!({"overlap": 0}).to_string())).await.unwrap();
        assert_eq!(rotated.status(), if known { 200 } else { 422 }, "{name}");
    }
}

/// A key that was rotated ends with the overlap, and so does what it makes meanwhile.
#[tokio::test]
async fn a_key_that_was_rotated_makes_none_that_outlives_it() {
    let world = World::new();
    let (key, id) = world.key(NewApiKey::for_subject("ci").tenant("acme").role("developer"));
    let (request, body) = pending(&key, "POST /keys");
    let mut answer = Box::pin(world.send(request));
    assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let overlap = Duration::from_secs(3_600);
    KeyIssuer::new().rotate(&world.store.inner, &id.parse().unwrap(), overlap, AT).await.unwrap();
    body.send(json!({"subject": "ci"}).to_string()).unwrap();
    let made = answer.await;
    assert_eq!((made.status, &made.body["record"]["expires"]), (201, &json!(NOW + 3_600)), "{}", made.body);
}

/// What a store did not do is not told as done, whoever waits.
#[tokio::test]
async fn a_request_that_is_given_up_and_fails_tells_no_change() {
    let world = World::new();
    let id = world.id(billing());
    world.store.fail(Some(("revoke", StoreErrorKind::Unavailable)));
    *world.store.waits.lock().unwrap() = Some("revoke");
    let line = format!("POST /keys/{id}/revoke");
    let mut request = Box::pin(world.service.clone().oneshot(World::request("anna", &line, "{}")));
    assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(request);
    world.store.goes_on.notify_one();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let record = world.audit.records().pop().unwrap();
    assert!(world.events(&record).is_empty());
    assert!(world.record(&id).await.is_active(NOW));
}

#[tokio::test]
async fn what_changes_nothing_is_no_change_that_is_told() {
    let world = World::new();
    let id = world.id(billing());
    let owner = || json!({"subject": "billing"});
    for (name, line, body, told) in [
        ("an owner who is enabled", "POST /owners/enable".to_owned(), owner(), &[][..]),
        ("disabled", "POST /owners/disable".to_owned(), owner(), &["owner_disabled"]),
        ("again", "POST /owners/disable".to_owned(), owner(), &[]),
        ("enabled", "POST /owners/enable".to_owned(), owner(), &["owner_enabled"]),
        ("again", "POST /owners/enable".to_owned(), owner(), &[]),
        ("revoked", format!("POST /keys/{id}/revoke"), json!({"reason": "leaked"}), &["key_revoked"]),
        ("again", format!("POST /keys/{id}/revoke"), json!({"reason": "really"}), &[]),
    ] {
        assert_eq!(world.call("anna", &line, body).await.status, 200, "{name}: {line}");
        let record = world.audit.records().pop().unwrap();
        assert_eq!(world.events(&record), told, "{name}: {line}");
        let notes =
            record.notes().filter(|(name, _)| ["key.revoked", "owner.disabled", "owner.enabled"].contains(&&**name));
        assert_eq!(notes.count(), told.len(), "{name}: {line}");
        assert!(record.notes().any(|(name, _)| name == "key.change"), "{name}: {line}: it was asked for");
    }
}

/// What a record hides of people it hides in what the router notes and tells, by the same pseudonyms.
#[tokio::test]
async fn who_is_hidden_in_records_is_hidden_in_notes_and_events() {
    let people = [Personal::Subject, Personal::Tenant, Personal::CredentialId];
    let hashed = Privacy::new().pseudonymise(&Secret::new(vec![7; 32]), people).unwrap();
    let omitted = people.into_iter().fold(Privacy::new(), Privacy::omit);
    for (name, privacy) in [("hashed", hashed), ("omitted", omitted)] {
        let world = World::with_audit(|audit| audit.with_privacy(privacy));
        let (key, id) = world.key(billing());
        assert_eq!(world.get(&key, "/keys").await.status, 403);
        let made = world.call("anna", "POST /keys", json!({"subject": "billing"})).await;
        let rotated = world.call("anna", &format!("POST /keys/{id}/rotate"), json!({})).await;
        let ids = [&id, made.body["record"]["id"].as_str().unwrap(), rotated.body["record"]["id"].as_str().unwrap()];
        for (who, line, body, status) in [
            ("anna", format!("POST /keys/{id}/revoke"), json!({"reason": "leaked"}), 200),
            ("anna", "POST /owners/disable".into(), json!({"subject": "billing"}), 200),
            ("anna", "POST /owners/enable".into(), json!({"subject": "billing"}), 200),
            ("alice", format!("GET /keys/{id}"), Value::Null, 404),
            ("alice", "POST /keys".into(), json!({"subject": "billing"}), 403),
        ] {
            assert_eq!(world.call(who, &line, body).await.status, status, "{name}: {line}");
        }

        // Events of other tests are heard, too.
        let records = world.audit.records();
        let own = |entry: &AuditEntry| match entry {
            AuditEntry::Event(event) => {
                event.request_id().is_some_and(|id| records.iter().any(|record| record.request_id() == id))
            }
            _ => true,
        };
        let entries: Vec<AuditEntry> = world.audit.entries().into_iter().filter(own).collect();
        assert_eq!(entries.len(), 13, "{name}: eight requests, five changes");
        for entry in &entries {
            let mut line = Vec::new();
            entry.write_json(&mut line);
            let line = String::from_utf8(line).unwrap();
            for whom in ["anna", "alice", "billing", "acme"].into_iter().chain(ids) {
                assert!(!line.contains(whom), "{name}: {line}");
            }
        }
        let note = |index: usize, wanted: &str| {
            let found = records[index].notes().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
            found.unwrap()
        };
        let (key, anna) = (records[0].subject().unwrap(), records[1].subject().unwrap());
        assert_eq!(note(1, "by"), format!(r#""{}" of "https://id.test""#, anna.subject()), "{name}");
        let owner = format!(r#""{}" in "{}""#, key.subject(), key.tenant().unwrap());
        assert_eq!(note(1, "owner"), owner, "{name}");
        assert_eq!(note(2, "key.change"), format!("rotate {}", key.credential_id().unwrap()), "{name}");
        let abouts: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                AuditEntry::Event(event) => Some((event.kind().as_str(), event.about().into_owned())),
                _ => None,
            })
            .collect();
        assert_eq!(abouts[1], ("key_rotated", key.credential_id().unwrap().into_owned()), "{name}");
        assert_eq!(abouts[3], ("owner_disabled", key.subject().into_owned()), "{name}");
    }
}

/// What somebody typed as a reason may name people, and is a reason wherever it is told.
#[tokio::test]
async fn a_reason_is_left_out_with_the_reasons() {
    for (name, privacy, shown) in [
        ("all", Privacy::new(), 4),
        ("reasons left out", Privacy::new().omit(Personal::Reasons), 0),
        ("notes left out", Privacy::new().omit(Personal::Notes), 0),
    ] {
        let world = World::with_audit(|audit| audit.with_privacy(privacy));
        let (_, id) = world.key(billing());
        for (line, body) in [
            (format!("POST /keys/{id}/revoke"), json!({"reason": "said boss@acme.example"})),
            ("POST /owners/disable".into(), json!({"subject": "billing", "reason": "said boss@acme.example"})),
        ] {
            assert_eq!(world.call("anna", &line, body).await.status, 200, "{name}: {line}");
        }
        let own: Vec<String> = world.audit.records().iter().map(|record| record.request_id().to_string()).collect();
        let lines: Vec<String> = world
            .audit
            .entries()
            .iter()
            .map(|entry| {
                let mut line = Vec::new();
                entry.write_json(&mut line);
                String::from_utf8(line).unwrap()
            })
            .filter(|line| own.iter().any(|id| line.contains(id)))
            .collect();
        assert_eq!(lines.len(), 4, "{name}: two requests, two events: {lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("boss@")).count(), shown, "{name}: {lines:?}");
        let omitted = lines.iter().filter(|line| line.contains("[omitted]")).count();
        assert_eq!(omitted, if name == "reasons left out" { 4 } else { 0 }, "{name}: {lines:?}");
    }
}

#[tokio::test]
async fn a_router_under_a_path_with_parameters_finds_its_own() {
    let world = World::new();
    let id = world.id(billing());
    let app: Router = Router::new().nest("/shops/{shop}", admin(&world.store).router());
    let stack = Stack::builder().clock(Still).tls(TlsLayer::require()).authenticate(people());
    let stack = stack.policy(Rbac::from_toml(POLICY).unwrap());
    let rules = key_admin::rules("/shops/{shop}");
    let app =
        rules.into_iter().fold(stack, |stack, (line, rule)| stack.route(line, rule)).build().unwrap().protect(app);
    let request = || {
        let mut request = World::request("anna", "GET /keys", "");
        *request.uri_mut() = format!("/shops/7/keys/{id}").parse().unwrap();
        request
    };
    assert_eq!(app.oneshot(request()).await.unwrap().status(), 200);
    // And as a service, for a router with a state.
    let stateful: Router<u8> = Router::new().nest_service("/shops/{shop}", admin(&world.store).router());
    let layers = AuthnLayer::new(people()).dangerous_plain_http();
    let guard = require(authenticated()).with_policy(Rbac::from_toml(POLICY).unwrap());
    let app = layers.layer(guard.layer(stateful.with_state::<()>(7)));
    assert_eq!(app.oneshot(request()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn other_methods_are_refused() {
    let world = World::new();
    let id = world.id(billing());
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        for path in ["/admin/keys".to_owned(), format!("/admin/keys/{id}")] {
            let mut request = World::request("root", "GET /keys", "");
            (*request.method_mut(), *request.uri_mut()) = (method.clone(), path.parse().unwrap());
            assert_eq!(world.send(request).await.status, 403, "{method} {path}");
        }
    }
    assert!(world.record(&id).await.is_active(NOW));
}

/// With `both`, what acts for somebody must be of their tenant, or of none.
#[tokio::test]
async fn an_application_of_one_tenant_reaches_no_keys_of_another() {
    let is = |who: Principal, name: &str| {
        authenticate_fn(Challenge::new(name, "test").unwrap(), move |_, _| Outcome::verified(who.clone()))
    };
    let cases = [
        (Some("acme"), "anna", [201, 201, 200, 200]),
        (None, "anna", [201, 201, 200, 200]),
        (Some("other"), "anna", [403, 403, 403, 404]),
        (Some("acme"), "lone", [403, 403, 403, 404]),
        (Some("other"), "root", [201, 201, 200, 200]),
    ];
    for (tenant, who, expected) in cases {
        let client = Principal::builder(PrincipalKind::Service, "apps", "gateway", "session");
        let client = tenant.into_iter().fold(client, |client, tenant| client.tenant(tenant)).build();
        let subject = person(who);
        let store = Arc::new(Flaky::default());
        let mut owned = NewApiKey::for_subject("bob");
        if let Some(tenant) = subject.tenant() {
            owned = owned.tenant(tenant);
        }
        let record = owned.mint(AT).unwrap().1;
        let id = record.id().to_string();
        store.inner.add(record).unwrap();
        let guard = require(authenticated()).with_policy(Rbac::from_toml(POLICY).unwrap());
        let authenticators = both(is(client, "Client"), is(subject, "Subject"));
        let service = AuthnLayer::new(authenticators).dangerous_plain_http().layer(guard.layer(admin(&store).router()));
        let own = format!(r#"{{"subject": "{who}"}}"#);
        let mut statuses = Vec::new();
        for (line, body) in [
            ("POST /keys", r#"{"subject": "bob"}"#),
            ("POST /keys", &*own),
            ("GET /keys", ""),
            (&*format!("GET /keys/{id}"), ""),
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
            let response = service.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
            statuses.push(response.status().as_u16());
        }
        assert_eq!(statuses, expected, "{tenant:?} for {who}");
    }
}
