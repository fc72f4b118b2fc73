//! Parts of each kind, one of which is broken, in a stack that asks all of them.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use http::Request;
use portcullis::{
    Challenge, Clock, Instants, Now, RequestHead, StoreError,
    api_key::{ApiKeyAuthenticator, ApiKeyStore, Found, Lookup, MemoryKeyStore, NewApiKey},
    authn::{Authenticator, Outcome},
    guard::{all, check, policy, require},
    policy::{AccessQuery, PolicyBackend, Verdict},
    rate_limit::{ConcurrencyLayer, Draw, LimitBy, OnStoreError, Quota, RateLimitLayer, RateLimitStore, Taken},
    stack::{Stack, StackBuilder},
    tls::TlsLayer,
};

use crate::support::{Still, get, test_scheme, with};

/// A part that a user plugs in.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// The stage that asks it.
    pub(crate) stage: &'static str,
    /// Whether it may be waited for; others are plain functions.
    pub(crate) waits: bool,
}

const fn part(name: &'static str, stage: &'static str, waits: bool) -> Part {
    Part { name, stage, waits }
}

pub(crate) const PARTS: [Part; 10] = [
    part("key of a limit", "client_limit", false),
    part("cost", "client_limit", false),
    part("key of a place", "client_limit", false),
    part("store of clients", "client_limit", true),
    part("authenticator", "authentication", true),
    part("key store", "authentication", true),
    part("key of a principal", "principal_limit", false),
    part("store of principals", "principal_limit", true),
    part("check", "guard", false),
    part("policy", "guard", true),
];

/// What a broken part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    PanicsAtOnce,
    PanicsLater,
    Hangs,
}

/// All parts, of which this one is broken while it is switched on.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    broken: &'static str,
    fault: Fault,
    on: Arc<AtomicBool>,
    keys: Arc<MemoryKeyStore>,
    key: String,
}

impl Parts {
    pub(crate) fn new(broken: &'static str, fault: Fault) -> Self {
        let keys = MemoryKeyStore::new();
        let (key, record) = NewApiKey::for_subject("alice").mint(Still.now()).unwrap();
        keys.add(record).unwrap();
        Self { broken, fault, on: Arc::new(true.into()), keys: Arc::new(keys), key: key.expose().to_owned() }
    }

    pub(crate) fn mend(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    fn is_broken(&self, part: &str) -> bool {
        self.broken == part && self.on.load(Ordering::Relaxed)
    }

    /// Panics, or says whether the part has to be waited for.
    fn now(&self, part: &str) -> bool {
        let broken = self.is_broken(part);
        assert!(!broken || self.fault != Fault::PanicsAtOnce, "a bug in the {part}");
        broken
    }

    async fn later(&self, part: &str) {
        if self.is_broken(part) {
            tokio::task::yield_now().await;
            assert!(self.fault == Fault::Hangs, "a bug in the {part}");
            pending().await
        }
    }

    /// A request that all parts are asked about.
    pub(crate) fn request(&self) -> Request<()> {
        let credential = if self.broken == "key store" { format!("Bearer {}", self.key) } else { "Test alice".into() };
        with(get("/orders"), "authorization", &credential)
    }

    pub(crate) fn check(&self) -> portcullis::guard::GuardLayer {
        let parts = self.clone();
        require(check("check", move |_, _| !parts.now("check")))
    }

    pub(crate) fn authenticator(&self) -> Box<dyn Authenticator> {
        match self.broken {
            "key store" => Box::new(ApiKeyAuthenticator::new(self.clone())),
            _ => Box::new(self.clone()),
        }
    }

    fn by(&self, part: &'static str) -> LimitBy {
        let parts = self.clone();
        LimitBy::request(move |_| (!parts.now(part)).then(|| "all".to_owned()))
    }

    pub(crate) fn places(&self) -> ConcurrencyLayer {
        ConcurrencyLayer::per(self.by("key of a place"), 1).unwrap()
    }

    pub(crate) fn stack(&self) -> StackBuilder {
        let parts = self.clone();
        let clients = RateLimitLayer::per(self.by("key of a limit"), Quota::per_second(1)).unwrap();
        let clients = clients
            .with_cost_by(move |_| if parts.now("cost") { 0 } else { 1 })
            .with_store(Counted(self.clone(), "store of clients"))
            // Which is about a store that says that it cannot answer.
            .on_store_error(OnStoreError::Admit);
        let parts = self.clone();
        let of_principal = LimitBy::identity(move |_| (!parts.now("key of a principal")).then(|| "all".to_owned()));
        let principals = RateLimitLayer::per(of_principal, Quota::per_second(1)).unwrap();
        let principals = principals.with_store(Counted(self.clone(), "store of principals"));
        let parts = self.clone();
        let own = check("check", move |_, _| !parts.now("check"));
        Stack::builder()
            .clock(Still)
            .tls(TlsLayer::require())
            .limit_concurrency(self.places())
            .limit(clients.with_scope("clients").unwrap())
            .authenticate(self.authenticator())
            .limit(principals.with_scope("principals").unwrap())
            .policy(self.clone())
            .route("GET /orders", require(all((policy("orders:read").unwrap(), own))))
    }
}

#[async_trait]
impl Authenticator for Parts {
    fn challenges(&self) -> Vec<Challenge> {
        test_scheme().challenges()
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, at: Instants) -> Now<Outcome> {
        if self.now("authenticator") { Now::Wait } else { test_scheme().authenticate_now(head, at) }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, at: Instants) -> Outcome {
        self.later("authenticator").await;
        test_scheme().authenticate(head, at).await
    }
}

#[async_trait]
impl ApiKeyStore for Parts {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        if self.now("key store") { Now::Wait } else { self.keys.find_now(lookup) }
    }

    async fn find(&self, lookup: Lookup) -> Found {
        self.later("key store").await;
        self.keys.find(lookup).await
    }
}

#[async_trait]
impl PolicyBackend for Parts {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn decide_now(&self, _: &AccessQuery<'_>) -> Now<Verdict> {
        if self.now("policy") { Now::Wait } else { Now::Known(Verdict::allow()) }
    }

    async fn decide(&self, _: &AccessQuery<'_>) -> Verdict {
        self.later("policy").await;
        Verdict::allow()
    }
}

/// Grants all, unless it is broken.
#[derive(Debug)]
struct Counted(Parts, &'static str);

#[async_trait]
impl RateLimitStore for Counted {
    fn take_now(&self, _: &Draw<'_>, _: Instants) -> Now<Result<Taken, StoreError>> {
        if self.0.now(self.1) { Now::Wait } else { Now::Known(Ok(Taken::granted(0, 1, 0))) }
    }

    async fn take(&self, _: &Draw<'_>, _: Instants) -> Result<Taken, StoreError> {
        self.0.later(self.1).await;
        Ok(Taken::granted(0, 1, 0))
    }
}
