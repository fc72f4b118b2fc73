//! The input is header fields, one a line. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::traceparent;

fuzz_target!(|data: &[u8]| {
    traceparent::check(data);
});
