//! What other crates take for the same question, in turns with this one.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml` prints all tables; names behind `--` print those alone:
//! `rbac`, `cedar`, `rego`, `cached`. A table is a file: one more is one more file and one more line in `TABLES`.

#![allow(clippy::expect_used, clippy::panic, reason = "a bench stops where it cannot go on")]

mod policy;
#[path = "../../ratio/rounds.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tables use a part of it")]
mod rounds;

type Table = (&'static str, fn());

const TABLES: [Table; 4] = [
    ("rbac", policy::rbac::table),
    ("cedar", policy::cedar::table),
    ("rego", policy::rego::table),
    ("cached", policy::cached::table),
];

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = named.iter().find(|name| !TABLES.iter().any(|(table, _)| table == name)) {
        panic!("no table {unknown}");
    }
    for (name, table) in TABLES {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            table();
        }
    }
}
