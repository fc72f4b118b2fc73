//! The input is one `Authorization` field in each line. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::authorization;

fuzz_target!(|data: &[u8]| {
    authorization::check(data);
});
