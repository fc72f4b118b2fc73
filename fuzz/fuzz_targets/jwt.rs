//! The input is a token. None passes unless it has three parts and the issuer's signature over what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::jwt::verify;

fuzz_target!(|token: &str| {
    verify(token);
});
