//! The input is a table of rules. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::route_rules;

fuzz_target!(|text: &str| {
    route_rules::check(text);
});
