//! The input is a proof of possession; or its header and its claims, one a line, which are signed here. What must hold is checked
//! by the same code that the property tests run.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::dpop_proof;

fuzz_target!(|data: &[u8]| {
    static GOOD: Once = Once::new();
    GOOD.call_once(|| {
        let (header, claims) = dpop_proof::good();
        assert!(dpop_proof::check(header.as_bytes(), claims.as_bytes()));
    });
    dpop_proof::check_input(data);
});
