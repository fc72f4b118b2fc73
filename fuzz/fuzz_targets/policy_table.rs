//! The input is a table of questions to a policy, in TOML.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::policy_table;

fuzz_target!(|text: &str| {
    policy_table::check(text);
});
