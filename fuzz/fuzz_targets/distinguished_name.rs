//! The input is a distinguished name in DER, which the target puts into a certificate.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::distinguished_name;

fuzz_target!(|data: &[u8]| {
    distinguished_name::check(data);
});
