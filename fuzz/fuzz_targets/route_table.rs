//! The input is the lines of a table of routes, and a method and a request target.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::route_table;

fuzz_target!(|text: &str| {
    route_table::check(text);
});
