//! The input is a quota's name, its count and its burst, one a line. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::structured_fields;

fuzz_target!(|data: &str| {
    structured_fields::check(data);
});
