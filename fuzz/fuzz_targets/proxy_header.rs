//! The input is what stands at the beginning of a connection.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::proxy_header;

fuzz_target!(|data: &[u8]| {
    proxy_header::check(data);
});
