//! The input is a chained audit file. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::audit_line;

fuzz_target!(|data: &[u8]| {
    audit_line::check(data);
});
