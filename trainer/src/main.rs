//! `smalti`: from unlabelled images to a classifier on a device.
//!
//! [`args`] is what users type, [`dispatch`] calls the command and reports its error, [`plan`] makes complete settings,
//! [`commands`] do the work and tell the outcome through [`console`]; [`quickstart`] does all of it at once.
#![forbid(unsafe_code)]

mod args;
mod autotrain;
mod commands;
mod console;
mod curve;
mod dispatch;
mod label;
mod plan;
mod quickstart;
mod report;
mod select;

use std::process::ExitCode;

fn main() -> ExitCode {
    dispatch::main(std::env::args_os())
}
