//! The input is a header, which is signed here with good claims. None passes unless an independent reader of its JSON finds
//! the algorithm and type that are asked for, and nothing that asks for more than a signature.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::jwt::{CLAIMS, HEADER, sign_and_verify};

fuzz_target!(|header: &[u8]| {
    static GOOD: Once = Once::new();
    GOOD.call_once(|| assert!(sign_and_verify(HEADER.as_bytes(), CLAIMS.as_bytes())));
    sign_and_verify(header, CLAIMS.as_bytes());
});
