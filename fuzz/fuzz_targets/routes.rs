//! The input is a method, a space and a request target. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::routes;

fuzz_target!(|data: &[u8]| {
    routes::check(data);
});
