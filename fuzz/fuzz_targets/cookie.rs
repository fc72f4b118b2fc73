//! The input is a method, and header fields, one a line.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::cookie;

fuzz_target!(|text: &str| {
    cookie::check(text);
});
