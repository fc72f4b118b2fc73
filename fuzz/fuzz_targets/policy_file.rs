//! The input is a policy file, in TOML or JSON. What must hold is checked by the same code that the property tests run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::policy_file;

fuzz_target!(|data: &str| {
    policy_file::check(data);
});
