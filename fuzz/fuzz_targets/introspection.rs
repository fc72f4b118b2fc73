//! The input is what an introspection endpoint answers. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::introspection;

fuzz_target!(|data: &[u8]| {
    introspection::check(data);
});
