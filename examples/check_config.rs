//! Checks configuration files before they are rolled out, or prints the schema of them.
//!
//! ```sh
//! cargo run --features full --example check_config -- examples/config/app.toml
//! cargo run --features full --example check_config -- --schema > docs/configuration.schema.json
//! ```
//!
//! It ends with 0 if all is well, 1 if there are problems, which it lists, and 2 if it was called wrongly. What is accepted and may not
//! be what was meant is listed too, each line with `warning: ` before it.

use std::process::ExitCode;

use portcullis::config::Config;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    match files.as_slice() {
        [] => {
            eprintln!("usage: check_config FILE.. | --schema");
            ExitCode::from(2)
        }
        [only] if only == "--schema" => {
            println!("{:#}", Config::schema());
            ExitCode::SUCCESS
        }
        files => {
            let mut good = true;
            for file in files {
                match Config::read(file).and_then(|config| config.check()) {
                    Ok(warnings) => warnings.iter().for_each(|warning| println!("warning: {warning}")),
                    Err(problems) => {
                        println!("{problems}");
                        good = false;
                    }
                }
            }
            if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
    }
}
