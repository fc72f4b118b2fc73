//! The input is the value of `X-Forwarded-Client-Cert`, and the names of an element that the target writes.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::xfcc;

fuzz_target!(|data: &[u8]| {
    xfcc::check(data);
});
