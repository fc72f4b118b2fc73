//! The input is a file of API keys. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::key_file;

fuzz_target!(|text: &str| {
    key_file::check(text);
});
