//! The input is a method and a request target, then a subject and a note.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::audit;

fuzz_target!(|text: &str| {
    audit::check(text);
});
