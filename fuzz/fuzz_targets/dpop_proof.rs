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
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            // What a line cannot know: the key, and the hash of the token.
            let (header, claims) = (dpop_proof::filled(&data[..end]), dpop_proof::filled(&data[end + 1..]));
            dpop_proof::check(&header, &claims);
        }
        None => assert!(!dpop_proof::passes(data), "nobody signed it"),
    }
});
