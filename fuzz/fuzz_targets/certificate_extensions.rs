//! The input is the extensions of a certificate, which the target makes.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::certificate_extensions;

fuzz_target!(|data: &[u8]| {
    certificate_extensions::check(data);
});
