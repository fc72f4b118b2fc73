//! The input is a JWK Set. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::jwks;

fuzz_target!(|text: &str| {
    jwks::check(text);
});
