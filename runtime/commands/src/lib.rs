//! The commands of `smalti-run`, which runs, checks and measures models: arguments, answers, exit codes.
//!
//! A crate of its own so that the device program is small: Cargo sets optimization by crate, and loops become vector code
//! only where the crate that is linked last, the program, asks for speed.

mod anomaly;
mod args;
mod bench;
mod compare;
mod doctor;
mod embed;
mod eval;
#[cfg(feature = "explain")]
mod explain;
mod inputs;
mod inspect;
mod learn;
mod open;
mod out;
#[cfg(feature = "page")]
mod page;
mod progress;
#[cfg(feature = "quantize")]
mod quantize;
mod run;
mod selftest;
#[cfg(feature = "serve")]
mod serve;
mod service;
#[cfg(feature = "shell")]
mod shell;
mod signals;
mod stream;
#[cfg(any(feature = "page", feature = "serve"))]
mod template;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use smalti_runtime::{Error, cpu, printable};
use smalti_tools::{suggest, usage};

use args::{Args, Command};

/// The exit code for a failure without a kind of its own.
const FAILED: u8 = 1;
/// The exit code for arguments that make no sense.
const USAGE: u8 = 2;

/// Parses the arguments of the process, runs the command, reports its error.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = dashes(std::env::args_os()).collect();
    let args = match Args::try_parse_from(&words) {
        Ok(args) => args,
        Err(error) => return ExitCode::from(refuse(&error, &words)),
    };
    start_log(&args);
    // Panics are reported as errors; their own words come with -v.
    std::panic::set_hook(Box::new(|panic| log::debug!("{panic}")));
    let result = catch_unwind(AssertUnwindSafe(|| dispatch(&args)));
    let result = result.unwrap_or_else(|_| {
        Err(Error::Internal { step: "run the command", problem: "a panic (see -vv)".into() }.into())
    });
    ExitCode::from(match result {
        Ok(code) => code,
        Err(error) => report(&error, args.verbose > 0),
    })
}

/// Help and version as they are, errors on one line.
fn refuse(error: &clap::Error, words: &[OsString]) -> u8 {
    let is_help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    match error.exit_code() {
        code if code == 0 || is_help => {
            // Nobody to tell if it cannot be printed.
            let _ = error.print();
            if code == 0 { 0 } else { USAGE }
        }
        _ => {
            out::error(usage::refusal(error, &args::program(), words));
            USAGE
        }
    }
}

/// `--top_k` is `--top-k`, as in the trainer. After `--` there are no flags.
fn dashes(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut flags = true;
    args.map(move |arg| {
        flags &= arg != "--";
        let Some(text) = arg.to_str().filter(|text| flags && text.starts_with("--")) else { return arg };
        let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
        format!("{}{value}", name.replace('_', "-")).into()
    })
}

/// Messages go to the standard error, as many as asked for.
fn start_log(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => "error",
        (_, 0) => "warn,tract=error,tract_onnx=error,tract_core=error",
        (_, 1) => "info,tract=warn",
        _ => "debug",
    };
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    // Messages name what stands in files.
    builder.format(|out, record| {
        let (time, message) = (out.timestamp(), record.args().to_string());
        writeln!(out, "[{time} {} {}] {}", record.level(), record.target(), printable(&message))
    });
    builder.init();
}

/// Runs a command; gives the exit code.
fn dispatch(args: &Args) -> anyhow::Result<u8> {
    cpu::check_forced_isa()?;
    match &args.command {
        Command::Run(command) => run::run(command, args),
        Command::Eval(command) => eval::run(command, args),
        #[cfg(feature = "explain")]
        Command::Explain(command) => explain::run(command, args),
        #[cfg(feature = "serve")]
        Command::Serve(command) => serve::run(command, args),
        #[cfg(feature = "page")]
        Command::Page(command) => page::run(command, args),
        #[cfg(feature = "quantize")]
        Command::Quantize(command) => quantize::run(command, args),
        Command::Compare(command) => compare::run(command, args),
        Command::Inspect(command) => inspect::run(command, args),
        Command::Selftest(command) => selftest::run(command, args),
        Command::Verify(command) => verify::run(command, args),
        Command::Embed(command) => embed::run(command, args),
        Command::Learn(command) => learn::run(command, args),
        Command::Anomaly(command) => anomaly::run(command, args),
        Command::Bench(command) => bench::run(command, args),
        Command::Doctor => doctor::run(args),
        #[cfg(feature = "shell")]
        Command::Completions { shell } => shell::completions(*shell),
        #[cfg(feature = "shell")]
        Command::Man { folder } => shell::man(folder.as_deref()),
    }
}

/// Prints an error on one line, its causes too if asked; gives the exit code.
fn report(error: &anyhow::Error, causes: bool) -> u8 {
    let io = error.downcast_ref::<std::io::Error>();
    if io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
        return 0; // Whoever read the results has seen enough.
    }
    let hint = match error.downcast_ref::<Error>() {
        Some(Error::Io { path, source, .. }) => suggest::advice(path, source),
        _ => None,
    };
    out::error(format!("{error}{}", hint.map_or(String::new(), |hint| format!("; {hint}"))));
    if causes {
        error.chain().skip(1).for_each(|cause| out::note(format!("  caused by: {cause}")));
    }
    match error.downcast_ref::<Error>() {
        Some(error) => error.exit_code(),
        None if io.is_some() => 6,
        None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_in_flags_are_dashes_and_names_of_files_stay() {
        let args =
            ["run", "--top_k=a_b", "--my_flag", "a_b", "--", "--my_pic.png", "--top_k"].map(OsString::from);
        let found: Vec<_> = dashes(args.into_iter()).collect();
        assert_eq!(found, ["run", "--top-k=a_b", "--my-flag", "a_b", "--", "--my_pic.png", "--top_k"]);
    }
}
