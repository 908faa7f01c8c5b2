//! `smalti-run`: runs, checks and measures models.

use std::process::ExitCode;

fn main() -> ExitCode {
    smalti_commands::main()
}
