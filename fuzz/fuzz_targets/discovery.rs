//! The input is the metadata of an issuer. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::discovery;

fuzz_target!(|data: &[u8]| {
    discovery::check(data);
});
