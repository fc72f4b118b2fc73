//! What other crates take for the same question, in turns with this one.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml` prints all tables; names behind `--` print those alone:
//! `rbac`, `cedar`, `rego`, `cached`, `jwt`, `limit`, `stack`. A table is a file: one more is one more file and one more line in
//! `TABLES`. Whoever is timed has answered before as it should: admitted, refused with `401`, or with `429`.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod jwt;
mod limit;
mod policy;
#[path = "../../ratio/mod.rs"]
#[allow(unused_imports, reason = "the tables use a part of it")]
mod ratio;
mod stack;

type Table = (&'static str, fn());

const TABLES: [Table; 7] = [
    ("rbac", policy::rbac::table),
    ("cedar", policy::cedar::table),
    ("rego", policy::rego::table),
    ("cached", policy::cached::table),
    ("jwt", jwt::tables),
    ("limit", limit::tables),
    ("stack", stack::table),
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
