//! The input is a refusal, a method, and one `Accept` field in each further line.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::problem;

fuzz_target!(|data: &[u8]| {
    problem::check(data);
});
