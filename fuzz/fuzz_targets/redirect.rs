//! The input is a request target, and one `Host` field in each further line.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::redirect;

fuzz_target!(|data: &[u8]| {
    redirect::check(data);
});
