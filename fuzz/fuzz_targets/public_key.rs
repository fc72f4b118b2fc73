//! The input is a key in DER or PEM, and the numbers of one that the target writes.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::public_key;

fuzz_target!(|data: &[u8]| {
    public_key::check(data);
});
