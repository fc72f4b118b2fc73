//! The input is a request to the router that administers API keys.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::key_admin;

fuzz_target!(|data: &[u8]| {
    key_admin::check(data);
});
