//! `smalti`: from unlabelled pictures to a classifier on a device.
//!
//! [`args`] is what users type, [`plan`] makes complete settings of it, [`commands`] do the work and tell the
//! outcome through [`console`].
#![forbid(unsafe_code)]

mod args;
mod commands;
mod console;
mod plan;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main(std::env::args_os())
}
