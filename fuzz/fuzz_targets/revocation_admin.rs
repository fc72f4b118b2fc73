//! The input is a request to the router that revokes tokens.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::revocation_admin;

fuzz_target!(|data: &[u8]| {
    revocation_admin::check(data);
});
