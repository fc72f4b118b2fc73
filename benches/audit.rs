//! What the audit trail costs: on the path of a request, against a bare axum router, on one thread and on two; and its writer,
//! against a bare loop of `serde_json` and `BufWriter` over the same lines.
//!
//! `cargo bench --bench audit --all-features`

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

#[path = "ratio/orders.rs"]
#[allow(dead_code, reason = "its policy is for other benches")]
mod orders;
mod ratio;

use std::{
    hint::black_box,
    io::{BufWriter, Write},
    sync::Arc,
    time::Duration,
};

use orders::Discard;
use portcullis::{
    Challenge, Principal, PrincipalKind,
    audit::{AuditLayer, AuditRecord, AuditSink, JsonLines, WhenFull},
    authn::{Outcome, authenticate_fn},
    guard::{require, role},
    rate_limit::Quota,
    stack::{Stack, StackBuilder},
    testing::Captured,
    tls::TlsLayer,
};
use ratio::{App, Contender, Timed, base, router, send, time, with};
use tower::{Layer, util::BoxCloneSyncService};

fn stages() -> StackBuilder {
    let alice = Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "test");
    let alice = alice.roles(["clerk"]).credential_id("jti-4711").tenant("acme").build();
    let challenge = Challenge::new("Test", "bench").expect("a challenge");
    Stack::builder()
        .tls(TlsLayer::require())
        .limit_clients(Quota::per_second(1_000_000_000))
        .authenticate(authenticate_fn(challenge, move |_, _| Outcome::verified(alice.clone())))
        .limit_principals(Quota::per_second(1_000_000_000))
        .route("GET /orders", require(role("clerk").expect("a role")))
}

fn nowhere() -> Arc<JsonLines> {
    Arc::new(JsonLines::builder().when_full(WhenFull::Discard).to_writer(std::io::sink()).expect("a writer"))
}

fn with_audit(sink: impl AuditSink) -> Stack {
    stages().audit(AuditLayer::new(sink).without_events()).build().expect("a stack")
}

/// Nanoseconds of a request, on so many threads at once.
fn on_threads(app: &App, threads: usize, requests: usize) -> f64 {
    let one = || {
        let app = app.clone();
        let mut taken = 0.0;
        for _ in 0..requests.div_ceil(64) {
            let batch: Vec<_> = (0..64).map(|_| with("accept", "*/*").map(|()| axum::body::Body::empty())).collect();
            taken += time(|| batch.into_iter().for_each(|request| drop(black_box(send(&app, request)))));
        }
        taken / (requests.div_ceil(64) * 64) as f64
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().map(|thread| thread.join().expect("it does not panic")).sum::<f64>() / threads as f64
    })
}

/// Median of some rounds.
fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut rounds: Vec<f64> = (0..15).map(|_| run()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Records with all that a request of the full stack leaves.
fn records(count: usize) -> Vec<AuditRecord> {
    let captured = Captured::new();
    let app = with_audit(captured.clone()).layer(router());
    let app: App = BoxCloneSyncService::new(app);
    for _ in 0..count {
        drop(send(&app, with("accept", "*/*").map(|()| axum::body::Body::empty())));
    }
    captured.take()
}

fn main() {
    let plain = stages().build().expect("a stack");
    let contenders = [
        Contender::new("bare axum router", router(), &base()),
        Contender::new("bare axum router again (noise)", router(), &base()),
        Contender::new(
            "audit alone, records dropped",
            AuditLayer::new(Discard).without_events().layer(router()),
            &base(),
        ),
        Contender::new("audit alone, a queue and its writer", AuditLayer::new(nowhere()).layer(router()), &base()),
        Contender::new("all stages without audit", plain.layer(router()), &base()),
        Contender::new("all stages, records dropped", with_audit(Discard).layer(router()), &base()),
        Contender::new("all stages, a queue and its writer", with_audit(nowhere()).layer(router()), &base()),
    ];
    contenders.iter().for_each(Contender::warm_up);
    // What is used again must have been used before.
    for _ in 0..40 {
        contenders.iter().for_each(|contender| (0..256).for_each(|_| contender.send_each()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let timed: Vec<Timed<'_>> = contenders.iter().map(Contender::timed).collect();
    let measured = ratio::measure(&timed);
    measured.print("contender", contenders[0].name);
    let (part, allocations) =
        measured.added("all stages, a queue and its writer", "all stages without audit", contenders[0].name);
    println!("the full record and a queue: {part:.3} of the bare router, {allocations} allocations (wanted: 0.15, 0)");

    println!("\ntwo threads against one, nanoseconds added to all stages without audit");
    let mut alone = None;
    let without: App = BoxCloneSyncService::new(plain.layer(router()));
    let queued: App = BoxCloneSyncService::new(with_audit(nowhere()).layer(router()));
    let bare: App = BoxCloneSyncService::new(router());
    // What two threads cost that share nothing: two virtual cores may be one.
    let machine = median(|| on_threads(&bare, 2, 4096) / on_threads(&bare, 1, 4096));
    println!("the bare router: {machine:.2} times one");
    for threads in [1, 2] {
        let added = median(|| on_threads(&queued, threads, 4096) - on_threads(&without, threads, 4096));
        let times = added / *alone.get_or_insert(added);
        println!("{threads} thread(s): {added:.0} ns, {times:.2} times one (wanted: 1.3)");
    }

    const RECORDS: usize = 2000;
    const LINES: usize = 200_000;
    let records = records(RECORDS);
    let directory = tempfile::tempdir().expect("a directory");
    let lines: Vec<serde_json::Value> =
        records.iter().map(|record| serde_json::to_value(record).expect("JSON")).collect();
    let bare = median(|| {
        let file = std::fs::File::create(directory.path().join("bare")).expect("a file");
        let mut writer = BufWriter::new(file);
        time(|| {
            for n in 0..LINES {
                serde_json::to_writer(&mut writer, &lines[n % RECORDS]).expect("it is written");
                writer.write_all(b"\n").expect("it is written");
            }
            writer.flush().expect("it is written");
        })
    });
    let derived = median(|| {
        let file = std::fs::File::create(directory.path().join("same")).expect("a file");
        let mut writer = BufWriter::new(file);
        time(|| {
            for n in 0..LINES {
                serde_json::to_writer(&mut writer, &records[n % RECORDS]).expect("it is written");
                writer.write_all(b"\n").expect("it is written");
            }
            writer.flush().expect("it is written");
        })
    });
    let ours = median(|| {
        let path = directory.path().join("ours");
        let _ = std::fs::remove_file(&path);
        let builder = JsonLines::builder().when_full(WhenFull::Wait(Duration::from_secs(60)));
        let sink = builder.open(path).expect("a file");
        time(|| {
            for n in 0..LINES {
                sink.accept(records[n % RECORDS].clone().into()).expect("there is room");
            }
            drop(sink);
        })
    });
    println!("\nlines a second (wanted: 500 000), {} bytes each", lines[0].to_string().len());
    for (name, nanos) in [
        ("serde_json of a value tree + BufWriter", bare),
        ("serde_json of the record + BufWriter", derived),
        ("JsonLines, handed over by another thread, to its end", ours),
    ] {
        println!("{name:<56} {:>10.0}", LINES as f64 / nanos * 1e9);
    }
}
