//! What goes out besides records: metrics with labels of few values, and spans by the OpenTelemetry conventions.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

#[path = "audit_signals/shadow.rs"]
mod shadow;
mod support;

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use portcullis::{
    Clock, ConfigError, Now, Principal, PrincipalKind, StoreError,
    audit::{AuditEntry, AuditLayer, AuditSink, Lost, MetricsSink, Personal, Privacy, Sample},
    guard::{authenticated, public, require},
    policy::{AccessQuery, Cedar, PolicyBackend, Rbac, Rego, Reloaded, Resource},
    rate_limit::Quota,
    stack::{Stack, StackBuilder},
    testing::Captured,
    tls::TlsLayer,
};
use support::{Probe, Still, get, test_scheme, with};
use tower::{Layer, ServiceExt};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// Keeps what is counted, by name and labels.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, u64>>>);

#[derive(Debug)]
struct Handle(Kept, String);

impl Handle {
    fn add(&self, value: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Handle {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value as u64);
    }
}

impl HistogramFn for Handle {
    fn record(&self, _: f64) {
        self.add(1);
    }
}

impl Kept {
    fn handle(&self, key: &Key) -> Arc<Handle> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Handle(self.clone(), format!("{} {}", key.name(), labels.join(" ")).trim().to_owned()))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

fn stack(audit: AuditLayer) -> StackBuilder {
    Stack::builder()
        .audit(audit.without_events())
        .tls(TlsLayer::require())
        .limit_clients(Quota::per_minute(4))
        .authenticate(test_scheme())
        .route("GET /public/{how}", public())
        .route("GET /orders", require(authenticated()))
}

#[tokio::test]
async fn requests_are_counted_by_labels_of_few_values() {
    let kept = Kept::default();
    let _installed = metrics::set_default_local_recorder(&kept);
    let app = stack(AuditLayer::new(MetricsSink::new()).with_completions()).build().unwrap().layer(Probe::default());
    for path in ["/public/a", "/public/b", "/orders", "/else", "/public/c"] {
        app.clone().oneshot(get(path)).await.unwrap();
    }
    let kept = kept.0.lock().unwrap().clone();
    let count = |name: &str| kept.get(name).copied();
    let requests = |labels: &str| count(&format!("portcullis_requests_total {labels}"));
    assert_eq!(requests("outcome=allowed layer=none reason=none"), Some(2), "{kept:?}");
    assert_eq!(requests("outcome=unauthenticated layer=guard reason=unauthenticated"), Some(2), "{kept:?}");
    assert_eq!(requests("outcome=limited layer=client_limit reason=rate_limited"), Some(1), "{kept:?}");
    assert_eq!(count("portcullis_request_duration_seconds outcome=allowed"), Some(2));
    assert_eq!(count("portcullis_response_body_bytes end=complete"), Some(2), "a refusal is complete at its head");
    assert_eq!(count("portcullis_decisions_total backend=public decision=allow enforced=true"), Some(2));
}

/// A policy from a file, and how it is reloaded.
struct Loaded {
    policy: Box<dyn PolicyBackend>,
    reload: Box<dyn Fn() -> Result<Reloaded, ConfigError>>,
}

impl Loaded {
    fn of<P: PolicyBackend + Clone>(policy: P, reload: impl Fn(&P) -> Result<Reloaded, ConfigError> + 'static) -> Self {
        Self { policy: Box::new(policy.clone()), reload: Box::new(move || reload(&policy)) }
    }
}

#[test]
fn a_policy_that_is_refused_is_told_by_a_record_and_a_metric_and_the_one_before_runs_on() {
    const RBAC: &str = "version = '1'\npermissions = ['orders:read']\n[roles.clerk]\ngrants = ['orders:read']";
    const CEDAR: &str = r#"permit (principal, action == Action::"orders:read", resource);"#;
    const REGO: &str = "package t\nallow if input.action == \"orders:read\"\n";
    let rbac = |file: &Path| Loaded::of(Rbac::from_toml_file(file).unwrap(), Rbac::reload);
    let cedar = |file: &Path| {
        let schema =
            "entity User; entity Order; action \"orders:read\" appliesTo { principal: User, resource: Order };";
        // Whatever file is named first, what is told is of the policies.
        let schema_file = file.with_extension("cedarschema");
        fs::write(&schema_file, schema).unwrap();
        let policy = Cedar::builder().issuer("i").schema_file(schema_file).policies_file(file).build();
        Loaded::of(policy.unwrap(), Cedar::reload)
    };
    let rego = |file: &Path| Loaded::of(Rego::builder("data.t.allow").policy_file(file).build().unwrap(), Rego::reload);
    type Load<'a> = &'a dyn Fn(&Path) -> Loaded;
    let table: [(&str, &str, Load<'_>); 3] = [("rbac", RBAC, &rbac), ("cedar", CEDAR, &cedar), ("rego", REGO, &rego)];
    let alice = Principal::builder(PrincipalKind::User, "i", "alice", "jwt").roles(["clerk"]).build();
    let order = Resource::new("Order", 1);
    let query = AccessQuery::new(&alice, "orders:read", Still.now()).on(&order);
    for (name, good, load) in table {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy");
        fs::write(&file, good).unwrap();
        let Loaded { policy, reload } = load(&file);
        let captured = Captured::new();
        let (_records, _metrics) = (AuditLayer::new(captured.clone()), AuditLayer::new(MetricsSink::new()));
        let kept = Kept::default();
        let _installed = metrics::set_default_local_recorder(&kept);
        let is_allowed = || matches!(policy.decide_now(&query), Now::Known(verdict) if verdict.is_allow());
        assert!(is_allowed(), "{name}");

        for bad in ["nonsense {", "", "\u{0}"] {
            // What says nothing is good to some.
            fs::write(&file, format!("{bad}\n}}")).unwrap();
            assert!(reload().is_err() && reload().is_err(), "{name}: {bad:?}");
            assert!(is_allowed(), "{name}: the one before runs on");
        }
        fs::remove_file(&file).unwrap();
        assert!(reload().is_err() && reload().is_err(), "{name}: no file");
        assert!(is_allowed() && policy.reload_state().unwrap().failing().is_some(), "{name}");
        assert_eq!(policy.generation(), Some(0), "{name}: nothing changed");
        fs::write(&file, format!("{good}\n")).unwrap();
        assert_eq!(reload().unwrap(), Reloaded::Replaced);
        assert!(is_allowed() && policy.reload_state().unwrap().failing().is_none(), "{name}");

        let mine = |entry: &AuditEntry| match entry {
            AuditEntry::Event(event) if event.about() == file.display().to_string() => {
                Some((event.kind().as_str(), serde_json::to_value(entry).unwrap()))
            }
            _ => None,
        };
        let told: Vec<_> = captured.entries().iter().filter_map(mine).collect();
        let kinds: Vec<_> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [["policy_refused"; 4].as_slice(), &["policy_reloaded"]].concat(), "{name}: each once");
        for (_, refused) in &told[..4] {
            assert_eq!(refused["details"][0]["name"], "reason", "{name}");
            assert!(!refused["details"][0]["value"].as_str().unwrap().is_empty(), "{name}: why");
        }
        let counted =
            |event: &str| kept.0.lock().unwrap().get(&format!("portcullis_events_total event={event}")).copied();
        // Layers of other tests hear of it on this thread as well, and each counts once.
        assert!(counted("policy_refused") >= Some(4) && counted("policy_reloaded") >= Some(1), "{name}: {kept:?}");
    }
}

/// Puts the policy back that it knows, whenever it hears of another one or of a refusal.
#[derive(Debug)]
struct PutsBack(Rbac, AtomicBool);

#[async_trait]
impl AuditSink for PutsBack {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        let AuditEntry::Event(event) = entry else { return Ok(()) };
        if event.about() == "policy" && !self.1.swap(true, Ordering::SeqCst) {
            self.0.replace_with_toml("version = 'back'\npermissions = ['a']\n[roles.clerk]").unwrap();
        }
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn a_sink_that_reaches_for_the_policy_it_hears_of_does_not_wait_for_itself() {
    for next in ["version = '2'\npermissions = ['a']\n[roles.clerk]", "nonsense"] {
        let (done, waits) = mpsc::channel();
        std::thread::spawn(move || {
            let policy = Rbac::from_toml("version = '1'\npermissions = ['a']\n[roles.clerk]").unwrap();
            let _layer = AuditLayer::new(PutsBack(policy.clone(), AtomicBool::new(false)));
            let replaced = policy.replace_with_toml(next);
            done.send((replaced.is_ok(), policy.version().to_string())).unwrap();
        });
        let told = waits.recv_timeout(Duration::from_secs(20)).expect("it waits for itself");
        assert_eq!(told, (next != "nonsense", "back".to_owned()), "{next}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_span_has_the_fields_of_the_conventions() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).with_span_events(FmtSpan::CLOSE);
    let _default = tracing::subscriber::set_default(subscriber.finish());
    let privacy = Privacy::new().omit(Personal::Path);
    let audit = AuditLayer::new(Captured::new()).with_spans();
    let handler = tower::service_fn(async |_: http::Request<()>| {
        tracing::info!("inside");
        Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let app = stack(audit.clone()).build().unwrap().layer(handler);
    app.clone().oneshot(with(get("/public/x"), "authorization", "Test alice")).await.unwrap();
    app.oneshot(get("/orders")).await.unwrap();
    stack(audit.with_privacy(privacy)).build().unwrap().layer(handler).oneshot(get("/public/s3cr3t")).await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [inside, allowed, refused, .., hidden] = &lines[..] else { panic!("{text}") };
    assert!(
        inside.contains("HTTP request{") && inside.contains("inside") && inside.contains("http.request.method=\"GET\"")
    );
    for field in [
        "otel.name=GET /public/{how}",
        "otel.kind=\"server\"",
        "http.route=\"/public/{how}\"",
        "http.response.status_code=200",
        "url.path=\"/public/x\"",
        "url.scheme=\"https\"",
        "network.protocol.version=\"1.1\"",
        "client.address=198.51.100.7",
        "user.id=\"alice\"",
        "portcullis.outcome=\"allowed\"",
    ] {
        assert!(allowed.contains(field), "{field} in {allowed}");
    }
    assert!(!allowed.contains("error.type") && !allowed.contains("otel.status_code"));
    assert!(refused.contains("error.type=\"unauthenticated\"") && refused.contains("status_code=401"), "{refused}");
    assert!(!refused.contains("otel.status_code"), "a refusal is no error of the server");
    assert!(!text.contains("s3cr3t") && hidden.contains("[omitted]"), "{hidden}");
}

#[tokio::test]
async fn successes_are_sampled_and_refusals_never() {
    let captured = Captured::new();
    let sampled = Arc::new(Sample::one_in(10, captured.clone()).unwrap());
    let audit = AuditLayer::new(Arc::clone(&sampled)).without_events();
    let stack = Stack::builder().audit(audit).tls(TlsLayer::require()).authenticate(test_scheme());
    let stack = stack.route("GET /public", public()).route("GET /orders", require(authenticated())).build().unwrap();
    for _ in 0..100 {
        stack.layer(Probe::default()).oneshot(get("/public")).await.unwrap();
        stack.layer(Probe::default()).oneshot(get("/orders")).await.unwrap();
    }
    let allowed = captured.records().iter().filter(|record| record.rejection().is_none()).count();
    assert_eq!((allowed, captured.records().len(), sampled.successes()), (10, 110, 100));
    assert!(Sample::one_in(0, captured).is_err());
}
