//! What a shared limit costs: with leases the share of decisions that are made in process, and by how much two processes
//! overshoot; without, the decisions a second of 64 tasks next to one call of a script for each decision.
//!
//! It starts a `redis-server` of its own unless `PORTCULLIS_BENCH_REDIS` holds the address of one, whose keys beginning with
//! `bench-` it writes. Without either, the rows are left out.

#[path = "../../tests/support/redis.rs"]
mod server;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use portcullis::{
    Clock, Now, RedisServer, SystemClock,
    rate_limit::{Charge, Draw, KeyPart, Leases, LimitScope, Quota, RateLimitStore, RedisLimits, WhenAway},
};
use redis::aio::MultiplexedConnection;
use tokio::{
    runtime::Builder,
    sync::Mutex,
    time::{Instant, interval},
};

const TASKS: usize = 64;
const TIME: Duration = Duration::from_secs(3);

pub(crate) fn rows() {
    let (server, address) = match std::env::var("PORTCULLIS_BENCH_REDIS") {
        Ok(address) => (None, address),
        Err(_) if std::process::Command::new("redis-server").arg("--version").output().is_err() => {
            println!("redis: left out, since there is no redis-server and no PORTCULLIS_BENCH_REDIS\n");
            return;
        }
        Err(_) => {
            let server = server::Server::start();
            let address = server.address();
            (Some(server), address)
        }
    };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        throughput(&address).await;
        println!(
            "{:<42} {:>12} {:>12} {:>12} {:>12}",
            "two stores with leases", "decisions", "in process", "passed", "overshoot"
        );
        with_leases("10000 a minute, asked for 15000", &address, Quota::per_minute(10_000), 15_000).await;
        with_leases("10000 a second, asked for 27000", &address, Quota::per_second(10_000), 27_000).await;
        with_leases("10000 a second, asked for 60000", &address, Quota::per_second(10_000), 60_000).await;
        println!();
    });
    drop(server);
}

fn store(address: &str, run: &str) -> portcullis::rate_limit::RedisLimitsBuilder {
    // What a run wrote is not there for the next one.
    let once = SystemClock::new().now().unix_nanos();
    let builder = RedisLimits::builder(RedisServer::at(address).prefix(format!("bench-{run}-{once}:")));
    builder.timeout(Duration::from_secs(5)).when_away(WhenAway::Fail)
}

async fn take(store: &RedisLimits, name: &str, quota: &Quota) -> bool {
    let parts = [KeyPart::Custom(name)];
    let charges = [Charge::new(LimitScope::new("bench").key(&parts), quota)];
    let (draw, at) = (Draw::new(&charges), SystemClock::new().now());
    let taken = match store.take_now(&draw, at) {
        Now::Known(answer) => answer,
        Now::Wait => store.take(&draw, at).await,
    };
    taken.expect("Redis answers").is_granted()
}

#[derive(Clone, Copy)]
struct Rate {
    /// Decisions a second.
    made: f64,
    /// Which part of the time Redis spent in scripts; what it read and wrote comes on top.
    in_script: f64,
    /// Decisions.
    per_call: f64,
}

/// As many decisions as 64 tasks make, each of a key of its own.
async fn many<F: Future<Output = ()> + Send>(
    stats: &mut MultiplexedConnection,
    decide: impl Fn(usize) -> F + Send + Sync + Clone + 'static,
) -> Rate {
    let made = Arc::new(AtomicU64::new(0));
    let (start, before) = (Instant::now(), in_scripts(stats).await);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (made, decide) = (Arc::clone(&made), decide.clone());
            tokio::spawn(async move {
                while start.elapsed() < TIME {
                    decide(task).await;
                    made.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("it does not panic");
    }
    let (time, spent) = (start.elapsed().as_secs_f64(), in_scripts(stats).await - before);
    Rate { made: made.load(Relaxed) as f64 / time, in_script: spent / time, per_call: 1.0 }
}

/// How many seconds Redis has spent in scripts.
async fn in_scripts(connection: &mut MultiplexedConnection) -> f64 {
    let told: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.expect("Redis answers");
    let micros = told.lines().filter_map(|line| line.strip_prefix("cmdstat_evalsha:")?.split("usec=").nth(1));
    micros.filter_map(|rest| rest.split(',').next()?.parse::<f64>().ok()).sum::<f64>() / 1_000_000.0
}

const SCRIPT: &str = include_str!("../../src/rate_limit/redis/take.lua");

/// The script of this crate, called for one decision.
async fn call(connection: &mut MultiplexedConnection, script: &redis::Script, task: usize) {
    let mut script = script.key(format!("bench-call-{task}"));
    script.arg("0").arg(&[1_u8, 0, 1][..]);
    for argument in ["take", "", "1", "1", "1", "1000", "4294967295", "4294967295000"] {
        script.arg(argument);
    }
    let answer: Vec<u8> = script.invoke_async(connection).await.expect("Redis answers");
    assert_eq!(answer[..5], [0, 0, 0, 0, 1]);
}

async fn throughput(address: &str) {
    let quota = Quota::per_second(1_000).burst(u32::MAX);
    let client = redis::Client::open(address).expect("an address");
    let connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let script = redis::Script::new(SCRIPT);
    let mut stats = connection.clone();
    // Uploads it.
    call(&mut connection.clone(), &script, 0).await;
    let names: Arc<Vec<String>> = Arc::new((0..TASKS).map(|task| format!("task-{task}")).collect());

    let alone = {
        let (connection, script) = (Arc::new(Mutex::new(connection.clone())), script.clone());
        many(&mut stats, move |task| {
            let (connection, script) = (Arc::clone(&connection), script.clone());
            async move { call(&mut *connection.lock().await, &script, task).await }
        })
        .await
    };
    let pipelined = many(&mut stats, move |task| {
        let (mut connection, script) = (connection.clone(), script.clone());
        async move { call(&mut connection, &script, task).await }
    })
    .await;
    let mut ours = async |in_cluster: bool| {
        let builder = store(address, if in_cluster { "slots" } else { "all" });
        let store = if in_cluster { builder.in_cluster() } else { builder }.build().expect("a store");
        let (asked, names, quota) = (store.clone(), Arc::clone(&names), quota.clone());
        let made = many(&mut stats, move |task| {
            let (store, names, quota) = (asked.clone(), Arc::clone(&names), quota.clone());
            async move { assert!(take(&store, &names[task], &quota).await) }
        })
        .await;
        let counts = store.counts();
        Rate { per_call: counts.asked as f64 / counts.calls as f64, ..made }
    };
    let rows = [
        ("one call for each, one after the other", alone),
        ("one call for each, pipelined by the client", pipelined),
        ("ours, in a cluster (a call for each key)", ours(true).await),
        ("ours", ours(false).await),
    ];
    println!(
        "{:<42} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "without leases, 64 tasks", "decisions/s", "x", "x pipelined", "per call", "in the script"
    );
    for (name, Rate { made, in_script, per_call }) in rows {
        let (x, x_pipelined) = (made / alone.made, made / pipelined.made);
        println!("{name:<42} {made:>12.0} {x:>12.2} {x_pipelined:>12.2} {per_call:>12.1} {:>11.0}%", in_script * 100.0);
    }
    println!();
}

/// Two stores with connections of their own ask for `demand` in all, evenly over the time.
async fn with_leases(name: &str, address: &str, quota: Quota, demand: u64) {
    let once = format!("bench-leases-{}:", SystemClock::new().now().unix_nanos());
    let store = || {
        let builder = RedisLimits::builder(RedisServer::at(address).prefix(once.clone())).leases(Leases::new());
        builder.timeout(Duration::from_secs(5)).when_away(WhenAway::Fail).build().expect("a store")
    };
    let ticks = u64::try_from(TIME.as_millis()).expect("it is short");
    let start = Instant::now();
    let processes: Vec<_> = [store(), store()]
        .into_iter()
        .map(|store| {
            let quota = quota.clone();
            tokio::spawn(async move {
                let mut tick = interval(Duration::from_millis(1));
                let (mut asked, mut passed) = (0, 0);
                for number in 1..=ticks {
                    tick.tick().await;
                    while asked < number * demand / 2 / ticks {
                        passed += u64::from(take(&store, "key", &quota).await);
                        asked += 1;
                    }
                }
                (asked, passed, store.counts().in_process)
            })
        })
        .collect();
    let (mut asked, mut passed, mut in_process) = (0, 0, 0);
    for process in processes {
        let (one, two, three) = process.await.expect("it does not panic");
        (asked, passed, in_process) = (asked + one, passed + two, in_process + three);
    }
    let rate = f64::from(quota.count()) / quota.period().as_secs_f64();
    let most = f64::from(quota.burst_size()) + rate * start.elapsed().as_secs_f64();
    let over = (passed as f64 / most - 1.0).max(0.0) * 100.0;
    let share = in_process as f64 / asked as f64 * 100.0;
    // Of what the quota grants at the most; less than that was asked for where nothing is refused.
    println!("{name:<42} {asked:>12} {share:>11.1}% {passed:>12} {over:>11.2}%");
}
