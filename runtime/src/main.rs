//! `smalti-run`: runs, checks and measures models.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
