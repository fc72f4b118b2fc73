//! Verifies the files of an audit chain, and names the first record that is not as it was written.
//!
//! `cargo run --example audit_verify --features audit-chain -- --key PUBLIC_KEY audit.jsonl.2* audit.jsonl`
//!
//! The exit status is 0 if the files are sound and a checkpoint vouches for them, 1 if not, and 2 if they could not be read. Hashes alone
//! prove nothing: whoever can write the files can make a chain anew, without checkpoints.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use portcullis::audit::chain::{Checkpoint, ProblemKind, PublicKey, Report, verify, verify_retained};

#[derive(Parser)]
struct Options {
    /// A key that signs checkpoints, in hexadecimal. May be given more than once, for a key that was replaced.
    #[arg(long = "key", required = true)]
    keys: Vec<PublicKey>,
    /// A file with checkpoints that were kept elsewhere, one a line.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    /// How many lines at the end may have no checkpoint yet: as many as the service writes between two of them.
    #[arg(long, default_value_t = 1_000)]
    unsigned: u64,
    /// The number of the first record that must be there, where older files were removed. Take it from what was removed, not from what is
    /// left.
    #[arg(long)]
    from: Option<u64>,
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
        Some(file) => read(file)?.lines().map(str::parse).collect::<Result<_, _>>()?,
    };
    if let Some(stranger) = elsewhere.iter().find(|kept| !kept.is_signed_by(&options.keys)) {
        return Err(format!("the checkpoint of line {} is signed by none of the keys", stranger.upto()).into());
    }
    let report = match options.from {
        Some(from) => verify_retained(&options.files, &options.keys, &elsewhere, from)?,
        None => verify(&options.files, &options.keys, &elsewhere)?,
    };
    print!("{report}");
    let is_later =
        report.problem.as_ref().is_some_and(|problem| matches!(problem.kind, ProblemKind::BeginsLater { .. }));
    if is_later && options.from.is_none() {
        println!("If files were removed because they were old, say with --from which record should be the first.");
    }
    let doubt = doubt(&report, &elsewhere, options.unsigned);
    doubt.iter().for_each(|doubt| println!("NOT PROVEN: {doubt}"));
    Ok(report.is_sound() && doubt.is_none())
}

fn read(file: &std::path::Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Why files that hang together may be somebody else's.
fn doubt(report: &Report, elsewhere: &[Checkpoint], unsigned: u64) -> Option<String> {
    if report.checkpoint.is_none() {
        return Some("no checkpoint vouches for these lines".to_owned());
    }
    let newest = elsewhere.iter().map(Checkpoint::upto).max();
    if newest.zip(report.first).is_some_and(|(upto, first)| upto < first) {
        return Some("what was kept elsewhere is of before the first line".to_owned());
    }
    let left = report.uncovered();
    (left > unsigned).then(|| format!("{left} lines at the end have no checkpoint, and {unsigned} may"))
}
