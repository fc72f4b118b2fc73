//! The input is the header fields of an answer with a key set, one a line.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::key_set_headers;

fuzz_target!(|data: &[u8]| {
    key_set_headers::check(data);
});
