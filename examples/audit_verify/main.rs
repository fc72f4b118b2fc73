//! Verifies the files of an audit chain, and names the first record that is not as it was written.
//!
//! `cargo run --example audit_verify --features audit-chain -- --key PUBLIC_KEY audit.jsonl.2* audit.jsonl`
//!
//! The exit status is 0 if the files are sound, 1 if they are not, and 2 if they could not be read.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use portcullis::audit::chain::{Checkpoint, PublicKey, verify};

#[derive(Parser)]
struct Options {
    /// A key that signs checkpoints, in hexadecimal. May be given more than once, for a key that was replaced.
    #[arg(long = "key", required = true)]
    keys: Vec<PublicKey>,
    /// A file with checkpoints that were kept elsewhere, one a line.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    /// The files, from the oldest to the newest.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let elsewhere: Vec<Checkpoint> = match &options.checkpoints {
        None => Vec::new(),
        Some(file) => std::fs::read_to_string(file)?.lines().map(str::parse).collect::<Result<_, _>>()?,
    };
    let report = verify(&options.files, &options.keys, &elsewhere)?;
    print!("{report}");
    Ok(report.is_sound())
}
