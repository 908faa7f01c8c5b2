//! `smalti`: from unlabelled images to a classifier on a device.
//!
//! [`args`] is what users type, [`plan`] makes complete settings of it, [`commands`] do the work and tell the
//! outcome through [`console`]; [`quickstart`] does all of it at once.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod console;
mod plan;
mod quickstart;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main(std::env::args_os())
}
