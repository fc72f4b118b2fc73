//! Policies: one decision, and what the engine alone takes for it.

pub mod cached;
pub mod cedar;
pub mod rbac;
pub mod rego;

use std::{hint::black_box, rc::Rc};

use portcullis::{
    Instants, Now, Principal, PrincipalKind,
    policy::{AccessQuery, PolicyBackend},
};

use crate::ratio::{Timed, time};

pub const ISSUER: &str = "https://id.example.com";

fn timed<'a>(name: &'static str, run: impl Fn() + 'a) -> Timed<'a> {
    let run = Rc::new(run);
    let once = Rc::clone(&run);
    Timed {
        name,
        slice: Box::new(move |count| time(|| (0..count).for_each(|_| run())) / count as f64),
        once: Box::new(move || allocation_counter::measure(|| once()).count_total),
    }
}

fn person(role: &str) -> Principal {
    Principal::builder(PrincipalKind::User, ISSUER, "alice", "jwt").roles([role]).build()
}

fn query<'a>(who: &'a Principal, action: &'a str) -> AccessQuery<'a> {
    AccessQuery::new(who, action, Instants::new(1_800_000_000_000_000_000, 0))
}

fn allows(policy: &impl PolicyBackend, query: &AccessQuery<'_>) -> bool {
    match policy.decide_now(black_box(query)) {
        Now::Known(verdict) => black_box(verdict).is_allow(),
        Now::Wait => panic!("it answers from memory"),
    }
}

/// A name of a number that is as long for each.
fn role(number: usize) -> String {
    format!("role{number:04}")
}
