//! What a decision of a role policy costs: at 64 and at 1 024 roles, and while ten thousand rules are replaced.
//!
//! `cargo bench --bench policy` prints the tables (see `ratio/mod.rs`). `cargo bench --bench policy -- count ROLES N` only
//! takes N decisions, for a tool that counts instructions: the difference between two N, divided, is what one takes.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::{
    fmt::Write as _,
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use portcullis::{
    Instants, Now, Principal, PrincipalKind,
    policy::{AccessQuery, PolicyBackend, Rbac},
};
use ratio::{Timed, measure, time};

/// So many roles, each of which inherits the one before it in groups of eight and grants ten of 512 permissions.
fn policy(roles: usize) -> String {
    let mut text = "version = \"1\"\npermissions = [".to_owned();
    (0..512).for_each(|n| write!(text, "\"things{}:do{}\", ", n / 8, n % 8).expect("a text"));
    text.push_str("]\n");
    for role in 0..roles {
        let grants: Vec<String> =
            (0..10).map(|n| (role * 7 + n) % 512).map(|n| format!("\"things{}:do{}\"", n / 8, n % 8)).collect();
        let inherits = if role % 8 == 0 { String::new() } else { format!("\"role{:04}\"", role - 1) };
        writeln!(text, "[roles.role{role:04}]\ninherits = [{inherits}]\ngrants = [{}]", grants.join(", "))
            .expect("a text");
    }
    text
}

struct Case {
    policy: Rbac,
    principal: Principal,
    held: portcullis::policy::Permission,
    other: portcullis::policy::Permission,
}

fn case(roles: usize, of_principal: usize) -> Case {
    let policy = Rbac::from_toml(&policy(roles)).expect("a policy");
    // Roles of the middle; the first of them grants things of its own.
    let middle = roles / 2;
    let names = (0..of_principal).map(|n| format!("role{:04}", middle - n));
    let principal =
        Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").roles(names).build();
    let number = (middle * 7 + 5) % 512;
    let held = policy.permission(&format!("things{}:do{}", number / 8, number % 8)).expect("a permission");
    let number = (number + 256) % 512;
    let other = policy.permission(&format!("things{}:do{}", number / 8, number % 8)).expect("a permission");
    assert!(held.is_held_by(&principal) && !other.is_held_by(&principal));
    Case { policy, principal, held, other }
}

fn timed<'a>(name: &'static str, run: impl Fn() + 'a) -> Timed<'a> {
    let run = std::rc::Rc::new(run);
    let once = std::rc::Rc::clone(&run);
    Timed {
        name,
        slice: Box::new(move |count| time(|| (0..count).for_each(|_| run())) / count as f64),
        once: Box::new(move || allocation_counter::measure(|| once()).count_total),
    }
}

fn decide(case: &Case, action: &str) -> bool {
    let query = AccessQuery::new(&case.principal, action, Instants::new(0, 0));
    match case.policy.decide_now(black_box(&query)) {
        Now::Known(verdict) => black_box(verdict).is_allow(),
        Now::Wait => panic!("rbac never waits"),
    }
}

fn decisions() {
    let (small, large) = (case(64, 1), case(1_024, 1));
    let many = case(1_024, 8);
    let aged = case(1_024, 1);
    for _ in 0..10 {
        aged.policy.replace_with_toml(&policy(1_024)).expect("the same policy");
        assert!(aged.held.is_held_by(&aged.principal));
    }
    let name = |case: &Case| case.held.name().to_owned();
    let (small_name, large_name) = (name(&small), name(&large));
    measure(&[
        timed("allow, 64 roles", || assert!(black_box(&small.held).is_held_by(black_box(&small.principal)))),
        timed("allow, 1 024 roles", || assert!(black_box(&large.held).is_held_by(black_box(&large.principal)))),
        timed("deny, 64 roles", || assert!(!black_box(&small.other).is_held_by(black_box(&small.principal)))),
        timed("deny, 1 024 roles", || assert!(!black_box(&large.other).is_held_by(black_box(&large.principal)))),
        timed("deny, a principal of 8 roles", || {
            assert!(!black_box(&many.other).is_held_by(black_box(&many.principal)))
        }),
        timed("allow, a principal that saw ten reloads", || {
            assert!(black_box(&aged.held).is_held_by(black_box(&aged.principal)));
        }),
        timed("verdict by name, 64 roles", || assert!(decide(&small, &small_name))),
        timed("verdict by name, 1 024 roles", || assert!(decide(&large, &large_name))),
    ])
    .print("role policy, one decision", "allow, 64 roles");
}

/// Decisions while another thread replaces 10 000 rules all the time, against decisions while the same thread replaces those of
/// a policy that nobody asks: nanoseconds of one, and of the slowest thousand in a row.
fn while_reloading() {
    let text = policy(1_000);
    let (asked, other) = (case(1_000, 1), case(1_000, 1));
    println!("{:<42} {:>9} {:>12} {:>9}", "role policy, one decision meanwhile", "ns", "worst of 1000", "reloads");
    for (name, replaced) in [("another policy is replaced", &other), ("the policy is replaced", &asked)] {
        let (stop, reloads) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut taken: Vec<f64> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    replaced.policy.replace_with_toml(&text).expect("the same policy");
                    reloads.fetch_add(1, Ordering::Relaxed);
                }
            });
            let thousand = || time(|| (0..1_000).for_each(|_| assert!(asked.held.is_held_by(&asked.principal)))) / 1e3;
            let taken = (0..60_000).map(|_| thousand()).collect();
            stop.store(true, Ordering::Relaxed);
            taken
        });
        taken.sort_by(f64::total_cmp);
        let (median, worst) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        println!("{name:<42} {median:>9.0} {worst:>12.0} {:>9}", reloads.into_inner());
    }
    let taken = time(|| asked.policy.replace_with_toml(&text).expect("the same policy"));
    println!("one reload of 10 000 rules takes {:.1} ms", taken / 1e6);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [word, roles, count] = &arguments[..]
        && word == "count"
    {
        let case = case(roles.parse().expect("a number of roles"), 1);
        for _ in 0..count.parse::<u64>().expect("a number of decisions") {
            assert!(black_box(&case.held).is_held_by(black_box(&case.principal)));
        }
        return;
    }
    decisions();
    while_reloading();
}
