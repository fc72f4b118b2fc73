//! The input is a text that might be a key, and the id and secret of one.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::api_key;

fuzz_target!(|data: &[u8]| {
    api_key::check(data);
});
