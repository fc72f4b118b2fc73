//! How soon a revocation by one store is known to another with connections of its own, over Redis and over PostgreSQL.
//!
//! `cargo bench --bench revocation_push --all-features` starts servers of its own. The time that the server takes to keep the
//! revocation, as whoever revokes sees it, is the baseline of the same run.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench reads the real clock, and stops where it cannot go on"
)]

#[path = "../tests/support/revocations.rs"]
mod revocations;

use std::time::{Duration, Instant};

use portcullis::{
    Clock, SystemClock,
    revocation::{Revocation, Standing, TokenMarks},
};
use revocations::{BOTH, Server, mint::ISSUER, open, patient};

const REVOCATIONS: usize = 500;

/// In microseconds: the median, and what one of a hundred exceeds.
fn shown(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    format!("{:>9.0} {:>9.0}", at(50), at(99))
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("{:<42} {:>9} {:>9}", "microseconds", "median", "p99");
    for kind in BOTH {
        let server = Server::start(kind);
        runtime.block_on(async {
            let (here, there) = (open(&server.address(), patient()).await, open(&server.address(), patient()).await);
            let (mut kept, mut known) = (Vec::new(), Vec::new());
            for number in 0..REVOCATIONS {
                let token = format!("t-{number}");
                let marks = TokenMarks::new(ISSUER).token(&token);
                let revocation = Revocation::token(ISSUER, &token).expect("a revocation");
                let now = || SystemClock::new().now();
                assert_eq!(there.state().check_marks(&marks, now()), Standing::Good);
                let start = Instant::now();
                let watch = async {
                    while there.state().check_marks(&marks, now()) == Standing::Good {
                        tokio::task::yield_now().await;
                    }
                    start.elapsed()
                };
                let revoke = async {
                    here.revoke(&revocation, now()).await.expect("the server keeps it");
                    start.elapsed()
                };
                let (kept_after, known_after) = tokio::join!(revoke, watch);
                kept.push(kept_after);
                known.push(known_after);
            }
            println!("{:<42} {}", format!("{kind:?}: kept by the server"), shown(&mut kept));
            println!("{:<42} {}", format!("{kind:?}: refused by another store's state"), shown(&mut known));
        });
        drop(server);
    }
}
