//! The input is the header and the claims of a logout token, one a line, which are signed here, and the form that it is sent in.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::logout_token;

fuzz_target!(|data: &[u8]| {
    logout_token::check(data);
});
