//! What a handler decides and notes after the head of its answer, when the record of its request is written: the loop of a
//! WebSocket, the body of a stream, a task that outlives its request.
#![expect(clippy::unwrap_used, reason = "test code, helpers included")]

mod support;

use std::{
    convert::Infallible,
    future::{pending, ready},
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    Now, SecurityContext,
    audit::{AuditEntry, AuditLater, AuditLayer, AuditOutcome, Personal, Privacy, Sample},
    guard::{Authorizer, authenticated, policy, require},
    policy::{AccessQuery, Decision, PolicyBackend, Verdict},
    stack::{Stack, StackBuilder},
    testing::{Captured, TestClock},
    tls::TlsLayer,
};
use serde_json::{Value, json};
use support::{NOW, get, test_scheme, with};
use tower::{Layer, ServiceExt, service_fn};

/// Allows what ends with `read`, and under an obligation what ends with `mask`.
#[derive(Debug)]
struct Ledger;

#[async_trait]
impl PolicyBackend for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn decide_now(&self, query: &AccessQuery<'_>) -> Now<Verdict> {
        Now::Known(match query.action() {
            action if action.ends_with("read") => Verdict::allow().by("r1"),
            action if action.ends_with("mask") => Verdict::allow().obliging("mask"),
            action if action.ends_with("away") => Verdict::cannot_decide("away"),
            _ => Verdict::deny("alice is not in the ledger").by("r2").of_version("7"),
        })
    }

    async fn decide(&self, query: &AccessQuery<'_>) -> Verdict {
        match self.decide_now(query) {
            Now::Known(verdict) => verdict,
            Now::Wait => Verdict::cannot_decide("it never waits"),
        }
    }
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// What a handler keeps.
type Held = Option<(SecurityContext, Authorizer)>;

struct World {
    clock: TestClock,
    captured: Captured,
    stack: Stack,
    held: Arc<Mutex<Held>>,
}

impl World {
    fn new(edit: impl FnOnce(AuditLayer) -> AuditLayer) -> Self {
        let captured = Captured::new();
        let audit = edit(AuditLayer::new(captured.clone()).without_events());
        Self::of(captured, audit)
    }

    fn of(captured: Captured, audit: AuditLayer) -> Self {
        let clock = TestClock::at_unix(NOW);
        let masked = require(policy("orders:mask").unwrap()).fulfilling(["mask"]);
        let stack: StackBuilder = Stack::builder()
            .clock(clock.clone())
            .audit(audit)
            .tls(TlsLayer::require())
            .authenticate(test_scheme())
            .policy(Ledger)
            .route("GET /socket", require(authenticated()))
            .route("GET /masked", masked);
        Self { clock, captured, stack: stack.build().unwrap(), held: Arc::default() }
    }

    fn request(path: &str) -> Request<()> {
        with(get(path), "authorization", "Test alice")
    }

    /// Sends a request whose handler keeps its authorizer, and drops the record.
    async fn open(&self, path: &str) -> (SecurityContext, Authorizer) {
        let held = Arc::clone(&self.held);
        let handler = service_fn(move |request: Request<()>| {
            let context = SecurityContext::of(request.extensions()).unwrap().clone();
            context.note("in", "time");
            *held.lock().unwrap() = Some((context, Authorizer::of(request.extensions()).unwrap()));
            ready(Answer::Ok(Response::new(Full::from("hello"))))
        });
        let response = self.stack.layer(handler).oneshot(Self::request(path)).await.unwrap();
        assert_eq!(response.status(), 200);
        let entries = self.captured.entries();
        assert!(matches!(&entries[..], [AuditEntry::Decided(_)]), "{entries:?}");
        self.held.lock().unwrap().take().unwrap()
    }

    /// Takes what came after the record.
    fn later(&self) -> Vec<AuditLater> {
        let entries = self.captured.entries();
        let _ = self.captured.take();
        entries
            .into_iter()
            .filter_map(|entry| if let AuditEntry::Later(later) = entry { Some(later) } else { None })
            .collect()
    }
}

/// Decision, action and count of each.
fn counts(later: &[AuditLater]) -> Vec<(&'static str, String, Option<u64>)> {
    let of = |later: &AuditLater| {
        let fact = later.decisions().next().unwrap();
        (fact.decision().as_str(), fact.action().unwrap().into_owned(), later.count())
    };
    later.iter().map(of).collect()
}

fn json(later: &AuditLater) -> Value {
    serde_json::to_value(AuditEntry::Later(later.clone())).unwrap()
}

#[tokio::test]
async fn what_is_decided_and_noted_after_the_head_has_entries() {
    let world = World::new(|audit| audit);
    let (context, authorizer) = world.open("/socket").await;
    world.clock.advance(Duration::from_secs(5));
    let refused = authorizer.check("orders:burn", None).await.unwrap_err();
    assert_eq!(refused.status(), 403);
    authorizer.check("orders:read", None).await.unwrap();
    assert_eq!(authorizer.allows("orders:away", None).await, Decision::CannotDecide);
    context.note("room", "lobby");

    let (entries, record) = (world.captured.entries(), world.captured.records().remove(0));
    assert_eq!(entries.len(), 5, "{entries:?}");
    assert_eq!(record.decisions().filter(|fact| fact.backend() == "ledger").count(), 0, "it was written before");
    let later = world.later();
    let id = record.request_id().to_string();
    let subject = json!({"issuer": "https://id.test", "subject": "alice", "kind": "user", "credential": "test"});
    assert_eq!(
        json(&later[0]),
        json!({
            "schema": 1, "entry": "later", "time": "2027-01-15T08:00:05.000000000Z", "request_id": id, "subject": subject,
            "decisions": [{
                "backend": "ledger", "decision": "deny", "enforced": true, "action": "orders:burn", "rule": "r2",
                "policy_version": "7", "reasons": ["alice is not in the ledger"],
            }],
        })
    );
    assert_eq!(counts(&later[1..3])[0], ("allow", "orders:read".to_owned(), None));
    assert!(!later[2].decisions().next().unwrap().is_enforced());
    assert_eq!(json(&later[3])["notes"], json!([{"name": "room", "value": "lobby"}]));
    drop((context, authorizer));
    assert!(world.captured.entries().is_empty(), "nothing was only counted");
}

#[tokio::test]
async fn who_keeps_nothing_has_a_record_and_no_more() {
    let world = World::new(|audit| audit);
    drop(world.open("/socket").await);
    assert_eq!(world.captured.entries().len(), 1);
}

#[tokio::test]
async fn a_loop_is_counted_and_its_refusals_are_told() {
    let world = World::new(|audit| audit);
    let (context, authorizer) = world.open("/socket").await;
    let _ = world.captured.take();
    for _ in 0..1_000 {
        authorizer.check("orders:read", None).await.unwrap();
        assert!(authorizer.check("orders:burn", None).await.is_err());
        let _ = authorizer.allows("orders:burn", None).await;
        context.note("turn", "x");
    }
    let all = world.later();
    let (decided, notes): (Vec<_>, Vec<_>) = all.into_iter().partition(|later| later.decisions().len() > 0);
    assert_eq!((decided.len(), notes.len()), (1 + 32 + 1, 16));
    assert_eq!(counts(&decided).iter().filter(|(decision, ..)| *decision == "deny").count(), 33);
    world.clock.advance(Duration::from_secs(59));
    authorizer.check("orders:read", None).await.unwrap();
    assert!(world.later().is_empty(), "the minute is not over");

    // The first of another minute tells of the one before.
    world.clock.advance(Duration::from_secs(1));
    assert!(authorizer.check("orders:burn", None).await.is_err());
    let told = world.later();
    let (decided, lost): (Vec<_>, Vec<_>) = told.into_iter().partition(|later| later.decisions().len() > 0);
    let of = |decision: &'static str, action: &str, count| (decision, action.to_owned(), count);
    assert_eq!(
        counts(&decided),
        [
            of("allow", "orders:read", Some(1_000)),
            of("deny", "orders:burn", Some(968)),
            of("deny", "orders:burn", Some(999)),
            of("deny", "orders:burn", None),
        ]
    );
    assert_eq!(json(&decided[1])["count"], 968);
    assert_eq!((lost.len(), lost[0].notes_lost(), lost[0].decisions_lost()), (1, 984, 0));

    // And the last minute is told when nobody can decide any more.
    for _ in 0..10 {
        authorizer.check("orders:read", None).await.unwrap();
    }
    assert_eq!(counts(&world.later()), [of("allow", "orders:read", None)]);
    drop(authorizer);
    assert!(world.later().is_empty(), "the context is held");
    drop(context);
    assert_eq!(counts(&world.later()), [of("allow", "orders:read", Some(9))]);
}

/// However many actions a handler makes up.
#[tokio::test]
async fn kinds_are_bounded_and_refusals_are_told_beyond_them() {
    let world = World::new(|audit| audit);
    let (context, authorizer) = world.open("/socket").await;
    let _ = world.captured.take();
    for n in 0..100 {
        authorizer.check(&format!("{n}:read"), None).await.unwrap();
    }
    for n in 0..100 {
        assert!(authorizer.check(&format!("{n}:burn"), None).await.is_err());
    }
    assert_eq!(counts(&world.later()).len(), 16 + 32);
    drop((context, authorizer));
    let rest = world.later();
    assert_eq!((rest.len(), rest[0].decisions_lost()), (1, 84 + 68));
    assert_eq!(json(&rest[0])["decisions_lost"], 152);
}

#[tokio::test]
async fn a_task_that_outlives_its_request_is_heard() {
    let world = World::new(|audit| audit);
    let held = Arc::clone(&world.held);
    let handler = service_fn(move |request: Request<()>| {
        let context = SecurityContext::of(request.extensions()).unwrap().clone();
        *held.lock().unwrap() = Some((context, Authorizer::of(request.extensions()).unwrap()));
        pending::<Answer>()
    });
    let mut request = Box::pin(world.stack.layer(handler).oneshot(World::request("/socket")));
    assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(request);
    assert_eq!(world.captured.records()[0].outcome(), AuditOutcome::Aborted);
    let (_context, authorizer) = world.held.lock().unwrap().take().unwrap();
    assert!(authorizer.check("orders:burn", None).await.is_err());
    assert_eq!(counts(&world.later()), [("deny", "orders:burn".to_owned(), None)]);
}

#[tokio::test]
async fn privacy_and_sampling_hold_for_what_comes_later() {
    let privacy = Privacy::new().omit(Personal::Reasons).omit(Personal::Notes).omit(Personal::Subject);
    let world = World::new(|audit| audit.with_privacy(privacy));
    let (context, authorizer) = world.open("/socket").await;
    assert!(authorizer.check("orders:burn", None).await.is_err());
    context.note("who", "alice");
    for later in world.later() {
        let text = json(&later).to_string();
        assert!(!text.contains("alice") && !format!("{later:?}").contains("alice"), "{text}");
    }

    let captured = Captured::new();
    let sampled = AuditLayer::new(Sample::one_in(1_000, captured.clone()).unwrap()).without_events();
    let world = World::of(captured, sampled);
    let (_context, authorizer) = world.open("/socket").await;
    for _ in 0..5 {
        assert!(authorizer.check("orders:burn", None).await.is_err());
    }
    assert_eq!(world.later().len(), 5, "refusals are never left out");
}

/// Who asks after the head still hears what the guard's allow obliged to.
#[tokio::test]
async fn obligations_outlast_the_record() {
    let world = World::new(|audit| audit);
    let (context, _authorizer) = world.open("/masked").await;
    let names: Vec<String> = context.obligations().iter().map(|obligation| obligation.name().to_owned()).collect();
    assert_eq!(names, ["mask"]);
}
