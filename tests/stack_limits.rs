//! Several limits on one side of authentication: each is asked once, in order, whether it answers at once or has to be waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "support/lines.rs"]
mod lines;
mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::{Request, StatusCode};
use portcullis::{
    Connection, Instants, Now, StoreError, TlsVersion,
    authn::AuthnLayer,
    guard::{authenticated, public, require},
    rate_limit::{
        Draw, LimitBy, Limits, MemoryLimits, Plans, Quota, RateLimitLayer, RateLimitStore, Taken, XRateLimitReset,
    },
    stack::Stack,
};
use support::{Probe, Still, send, test_scheme, with};
use tower::Layer;

/// Counts in memory, writes down who is asked, and may have to be waited for.
#[derive(Clone, Debug)]
struct Watched {
    waits: bool,
    inner: Arc<MemoryLimits>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    fn note(&self, draw: &Draw<'_>) {
        self.asked.lock().unwrap().push(draw.charges()[0].key().scope().to_owned());
    }
}

#[async_trait]
impl RateLimitStore for Watched {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        if self.waits {
            return Now::Wait;
        }
        self.note(draw);
        self.inner.take_now(draw, at)
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        tokio::task::yield_now().await;
        self.note(draw);
        self.inner.take(draw, at).await
    }
}

fn from(address: &str) -> Request<()> {
    let mut request = Request::get("/orders").body(()).unwrap();
    let peer = format!("{address}:52100").parse().unwrap();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

fn is(subject: &str) -> Request<()> {
    with(from("198.51.100.7"), "authorization", &format!("Test {subject}"))
}

#[tokio::test]
async fn each_is_asked_once_and_in_order_whichever_of_them_waits() {
    for waits in 0..16_u8 {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let inner = Arc::new(MemoryLimits::new());
        let limit = |number: u8, scope: &str, limit: Result<RateLimitLayer, _>| {
            let store =
                Watched { waits: waits >> number & 1 == 1, inner: Arc::clone(&inner), asked: Arc::clone(&asked) };
            limit.unwrap().with_scope(scope.to_owned()).unwrap().with_store(store)
        };
        let hourly = |count, name: &'static str| Quota::per_hour(count).named(name);
        let app = Stack::builder()
            .clock(Still)
            .dangerous_plain_http()
            .limit(limit(0, "source", RateLimitLayer::per_client(hourly(9, "source"))))
            .limit(limit(1, "route", RateLimitLayer::per(LimitBy::route(), hourly(8, "route"))))
            .authenticate(test_scheme())
            .limit(limit(2, "principal", RateLimitLayer::per_principal(hourly(4, "principal"))))
            .limit(limit(3, "credential", RateLimitLayer::per(LimitBy::credential(), hourly(3, "credential"))))
            .fallback(require(authenticated()))
            .build()
            .unwrap()
            .protect(Probe::default());
        for left in (0..3).rev() {
            let response = send(&app, is("alice")).await;
            assert_eq!(response.status(), StatusCode::OK, "{waits:04b}");
            let lines = response.headers().get_all("ratelimit").iter();
            let fields: Vec<&str> = lines.flat_map(|value| value.to_str().unwrap().split(", ")).collect();
            let names: Vec<&str> = fields.iter().map(|field| field.split(';').next().unwrap()).collect();
            assert_eq!(names, [r#""credential""#, r#""principal""#, r#""route""#, r#""source""#], "{waits:04b}");
            assert!(fields[0].contains(&format!("r={left}")), "{fields:?}");
            let asked = std::mem::take(&mut *asked.lock().unwrap());
            assert_eq!(asked, ["source", "route", "principal", "credential"], "{waits:04b}");
        }
        let refused = send(&app, is("alice")).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{waits:04b}");
        let told: Vec<_> = refused.headers().get_all("ratelimit").iter().collect();
        assert!(told.iter().any(|field| field.to_str().unwrap().starts_with(r#""credential";r=0"#)), "{told:?}");
        // The limit before has taken, and refuses now before the last one is asked.
        asked.lock().unwrap().clear();
        assert_eq!(send(&app, is("alice")).await.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(*asked.lock().unwrap(), ["source", "route", "principal"], "{waits:04b}");
        // Others are not touched, but for what all share.
        assert_eq!(send(&app, is("bob")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_limit_that_does_not_apply_leaves_the_next_one_in_force() {
    let tenants = RateLimitLayer::per(LimitBy::tenant(), Quota::per_hour(1)).unwrap();
    let tenants = tenants.on_missing_key(portcullis::rate_limit::OnMissingKey::Pass).with_scope("tenant").unwrap();
    let app = Stack::builder()
        .clock(Still)
        .dangerous_plain_http()
        .authenticate(test_scheme())
        .limit(tenants)
        .limit_principals(Quota::per_hour(2))
        .route("GET /orders", public())
        .build()
        .unwrap()
        .protect(Probe::default());
    for status in [200, 200, 429] {
        assert_eq!(send(&app, is("alice")).await.status(), status);
    }
    for _ in 0..5 {
        assert_eq!(send(&app, from("198.51.100.7")).await.status(), 200, "anonymous requests pass uncounted here");
    }
}

#[tokio::test]
async fn every_limit_tells_of_itself_however_many_and_long_they_are() {
    for limits in 1..=5_u32 {
        for (length, older) in [(1, false), (1, true), (64, false), (64, true)] {
            let name = |number: u32| format!("{number}").repeat(length);
            let limit = |number: u32| {
                let quota = Quota::per_hour(number.saturating_add(10)).named(name(number));
                let layer = RateLimitLayer::per_client(quota).unwrap().with_scope(number.to_string()).unwrap();
                if older { layer.with_x_ratelimit_headers(XRateLimitReset::Seconds) } else { layer }
            };
            let builder = Stack::builder().clock(Still).dangerous_plain_http().fallback(public());
            let stack = (0..limits).fold(builder, |builder, number| builder.limit(limit(number))).build().unwrap();
            let response = send(&stack.protect(Probe::default()), from("198.51.100.7")).await;
            let told = |field: &str| -> Vec<String> {
                let lines = response.headers().get_all(field).iter();
                lines.flat_map(|line| line.to_str().unwrap().split(", ")).map(str::to_owned).collect()
            };
            let of = |what: &dyn Fn(u32) -> String| (0..limits).rev().map(what).collect::<Vec<_>>();
            let period = ";w=3600";
            assert_eq!(told("ratelimit-policy"), of(&|n| format!("\"{}\";q={}{period}", name(n), n + 10)));
            let limits: Vec<String> =
                told("ratelimit").iter().map(|t| t.split(";t=").next().unwrap().to_owned()).collect();
            assert_eq!(limits, of(&|n| format!("\"{}\";r={}", name(n), n + 9)));
            let remaining = if older { of(&|n| (n + 9).to_string()) } else { Vec::new() };
            assert_eq!(told("x-ratelimit-remaining"), remaining);
        }
    }
}

#[test]
fn two_of_one_scope_are_a_mistake() {
    let plans = Plans::new([Quota::per_hour(1)]).unwrap();
    let builder = || Stack::builder().dangerous_plain_http().authenticate(test_scheme()).fallback(public());
    for (stack, begins) in [
        (
            builder().limit_clients(Quota::per_hour(1)).limit_clients(Quota::per_day(9)).build(),
            "limit_clients: \"client\" is the scope of two limits",
        ),
        (
            builder().limit_principals(&plans).limit_principals(&plans).build(),
            "limit_principals: \"principal\" is the scope of two limits",
        ),
        (
            builder()
                .limit(RateLimitLayer::per(LimitBy::tenant(), Quota::per_hour(1)).unwrap())
                .limit(RateLimitLayer::per(LimitBy::credential(), Quota::per_hour(1)).unwrap())
                .build(),
            "limit_principals: \"custom\" is the scope of two limits",
        ),
        (
            builder()
                .limit(RateLimitLayer::per(LimitBy::request(|_| None), Quota::per_hour(1)).unwrap())
                .limit(RateLimitLayer::per(LimitBy::identity(|_| None), Quota::per_hour(1)).unwrap())
                .build(),
            "limit_principals: \"custom\" is the scope of two limits",
        ),
    ] {
        let error = stack.unwrap_err().to_string();
        assert!(error.starts_with(begins), "{error}");
    }
    assert!(builder().limit_clients(Quota::per_hour(1)).limit_principals(&plans).build().is_ok());
}

/// What anybody may send is never counted as what was proved, whatever a function makes of it.
#[tokio::test]
async fn a_text_of_a_request_and_one_of_an_identity_are_two_keys() {
    let store = Arc::new(MemoryLimits::new());
    let sent = LimitBy::request(|request| Some(request.head().headers().get("x-tenant")?.to_str().ok()?.to_owned()));
    let proved = LimitBy::identity(|principal| Some(principal.subject().to_owned()));
    let limit = |by| {
        let limit = RateLimitLayer::per(by, Quota::per_hour(3)).unwrap().with_store(Arc::clone(&store));
        limit.with_clock(Still)
    };
    let authn = AuthnLayer::new(test_scheme()).dangerous_plain_http();
    let service = limit(sent).layer(authn.layer(limit(proved).layer(Probe::default())));
    for _ in 0..9 {
        let status = send(&service, with(from("203.0.113.1"), "x-tenant", "alice")).await.status();
        assert!(status == StatusCode::UNAUTHORIZED || status == StatusCode::TOO_MANY_REQUESTS, "{status}");
    }
    for number in 0..4 {
        let request = with(is("alice"), "x-tenant", &format!("other-{number}"));
        let expected = if number < 3 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(send(&service, request).await.status(), expected, "{number}");
    }
}

/// Clients tell quotas apart by their names alone.
#[test]
fn limits_that_clients_cannot_tell_apart_are_told() {
    use tracing_subscriber::layer::SubscriberExt;

    let second = || Quota::per_second(9);
    let tenant = |limits: Limits| RateLimitLayer::per(LimitBy::tenant(), limits).unwrap().with_scope("tenant").unwrap();
    let plans = || Plans::new([second().named("small")]).unwrap().with("gold", [second()]).unwrap();
    let lines = lines::Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::with_default(subscriber, || {
        for (name, limit, told) in [
            ("both without a name", tenant(second().into()), true),
            ("a plan's", tenant((&plans()).into()), true),
            ("a name of its own", tenant(second().named("tenant").into()), false),
            ("of the ceiling", tenant(second().named("client").into()), true),
            ("sent nowhere", tenant(second().into()).without_headers(), false),
        ] {
            let stack = Stack::builder().authenticate(test_scheme()).dangerous_plain_http();
            let stack = stack.limit_clients(second()).limit_principals(second()).limit(limit);
            let _ = stack.route("GET /orders", require(authenticated())).build().unwrap();
            let said: Vec<_> = lines.take().into_iter().filter(|line| line.contains("cannot tell apart")).collect();
            assert_eq!(said.len(), usize::from(told), "{name}: {said:?}");
            assert!(
                said.iter().all(|line| line.starts_with("WARN the limits ") && line.contains(" and tenant ")),
                "{name}"
            );
        }
    });
}
