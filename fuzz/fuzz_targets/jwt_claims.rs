//! The input is claims, which are signed here under a good header. None pass unless an independent reader of their JSON
//! finds the issuer, audience, subject and times that are asked for; the principal has what it reads and nothing else.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::jwt::{CLAIMS, HEADER, sign_and_verify};

fuzz_target!(|claims: &[u8]| {
    static GOOD: Once = Once::new();
    GOOD.call_once(|| assert!(sign_and_verify(HEADER.as_bytes(), CLAIMS.as_bytes())));
    sign_and_verify(HEADER.as_bytes(), claims);
});
