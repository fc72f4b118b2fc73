//! The input is what a decision point answers. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::decision_point;

fuzz_target!(|data: &[u8]| {
    decision_point::check(data);
});
