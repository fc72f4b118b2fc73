//! The input is a certificate in DER, or the value of a header that forwards one.
//! What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::client_certificate;

fuzz_target!(|data: &[u8]| {
    client_certificate::check(data);
});
