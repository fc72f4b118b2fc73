//! The input is a configuration document. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::config;

fuzz_target!(|text: &str| {
    config::check(text);
});
