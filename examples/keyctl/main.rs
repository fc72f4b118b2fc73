//! Administers API keys from the command line, over the same traits as the router.
//!
//! ```text
//! cargo build --example keyctl --features api-key-sqlite,api-key-file,api-key-postgres
//! alias keyctl=target/debug/examples/keyctl
//! keyctl --store keys.db --new create --subject billing --tenant acme --scope orders:read --expires 90d
//! keyctl --store keys.db list --tenant acme --active
//! keyctl --store keys.db rotate 0123456789abcdef --overlap 24h
//! keyctl --store keys.db revoke 0123456789abcdef --reason "found in a log"
//! ```
//!
//! A new key is printed once, alone on standard output; everything else that is said goes to standard error. `--json` prints
//! objects, one a line. The exit code is 0 if it is done, 1 if it is refused or there is no such key, 2 for a wrong command
//! line or input, 3 if the store fails.

mod args;
mod commands;
mod import;
mod show;
mod store;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

/// Why it is not done; the text is for the person at the terminal.
enum Failure {
    Refused(String),
    Usage(String),
    Store(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A wrong command line ends here, with 2.
    let failure = match commands::run(Args::parse()).await {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    let (code, text) = match failure {
        Failure::Refused(text) => (1, text),
        Failure::Usage(text) => (2, text),
        Failure::Store(text) => (3, text),
    };
    eprintln!("keyctl: {text}");
    ExitCode::from(code)
}
