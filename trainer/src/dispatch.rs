//! From the command line to a command, and from its error to one line and an exit code.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::{CommandFactory, Parser};

use smalti_models::foreign::{Wanted, recognize};
use smalti_tools::{suggest, usage};
use smalti_trainer::Error as TrainerError;

use crate::args::{Cli, Command, Global, config, words};
use crate::commands::{
    bench, data, distil, doctor, embed, eval, export, finetune, import, job, pretrain, reconstruct, report,
    shell,
};
use crate::console::log;
use crate::{autotrain, curve, label, quickstart, select};

/// The exit code for a failure without a kind of its own.
const FAILED: u8 = 1;
/// The exit code for arguments that make no sense.
const USAGE: u8 = 2;
/// The exit code for the file system.
const FILE_SYSTEM: u8 = 6;
/// The exit code for a bug of ours.
const BUG: u8 = 70;

/// The last panic's words.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Parses the arguments, runs the command, reports its error.
pub(crate) fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words = words::tidy(words);
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&error, &words)),
    };
    log::start(&cli.global);
    if let Err(unknown) = smalti_kernels::Isa::forced() {
        eprintln!("smalti: error: {unknown}");
        return ExitCode::from(USAGE);
    }
    let global = cli.global;
    std::panic::set_hook(Box::new(note_panic));
    let code = match catch_unwind(AssertUnwindSafe(|| dispatch(cli.command, &global))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => report(&error, global.verbose > 0),
        Err(_) => {
            let words = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("smalti: error: this is a bug of smalti: {words}; please report it with the command");
            BUG
        }
    };
    ExitCode::from(code)
}

/// Keeps a panic's words for one line of our own.
fn note_panic(panic: &PanicHookInfo<'_>) {
    let words = panic.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    ::log::debug!("{words}");
    *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = words;
}

/// Help and version as they are, errors on one line.
fn refuse(error: &clap::Error, words: &[OsString]) -> u8 {
    if error.exit_code() == 0
        || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        // Nobody to tell if it cannot be printed.
        let _ = error.print();
        return if error.exit_code() == 0 { 0 } else { USAGE };
    }
    eprintln!("smalti: error: {}", usage::refusal(error, &Cli::command(), words));
    USAGE
}

fn dispatch(command: Command, global: &Global) -> anyhow::Result<()> {
    let file = global.config.as_deref();
    if !matches!(command, Command::Pretrain(_) | Command::Finetune(_)) {
        job::Job::alone("this command")?;
    }
    match command {
        Command::Quickstart(args) => quickstart::run(&config::merge(args, file)?, global),
        Command::Train(args) => autotrain::run(*args, global),
        Command::Curve(args) => curve::run(*args, global),
        Command::Report(args) => report::run(&config::merge(args, file)?, global),
        Command::Data(args) => data::run(&config::merge(args, file)?, global),
        Command::Select(args) => select::run(*args, global),
        Command::Label(args) => label::run(&config::merge(args, file)?, global),
        Command::Pretrain(args) => pretrain::run(*args, global),
        Command::Distil(args) => distil::run(*args, global),
        Command::Finetune(args) => finetune::run(*args, global),
        Command::Eval(args) => eval::run(&config::merge(args, file)?, global),
        Command::Embed(args) => embed::run(&config::merge(args, file)?, global),
        Command::Reconstruct(args) => reconstruct::run(&config::merge(args, file)?, global),
        Command::Import(args) => import::run(&config::merge(args, file)?, global),
        Command::Export(args) => export::run(&config::merge(args, file)?, global),
        Command::Bench(args) => bench::run(&config::merge(args, file)?, global),
        Command::Doctor(args) => doctor::run(&config::merge(args, file)?, global),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { folder } => shell::man(folder.as_deref()),
    }
}

/// Prints an error on one line, its causes too if asked; gives the exit code.
fn report(error: &anyhow::Error, causes: bool) -> u8 {
    let io = error.downcast_ref::<std::io::Error>();
    if io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
        return 0; // Whoever read the results has seen enough.
    }
    let code = exit_code(error);
    let rank = log::rank();
    // Every rank meets these, and the first tells of them.
    let common = matches!(
        error.downcast_ref::<TrainerError>(),
        Some(TrainerError::Interrupted { .. } | TrainerError::JobEnded { .. } | TrainerError::Diverged(_))
    );
    if rank > 0 && common {
        return code;
    }
    let rank = if rank > 0 { format!("rank {rank}: ") } else { String::new() };
    let hint = advice(error).map_or(String::new(), |advice| format!("; {advice}"));
    eprintln!("smalti: error: {rank}{error}{hint}");
    if causes {
        error.chain().skip(1).for_each(|cause| eprintln!("  caused by: {cause}"));
    }
    code
}

/// What to do about a file system that says no, which the error itself does not know.
fn advice(error: &anyhow::Error) -> Option<String> {
    let missing = |path: &Path| (!path.exists()).then(|| suggest::missing(path));
    let (path, cause) = match error.downcast_ref::<TrainerError>() {
        Some(TrainerError::File { path, cause, .. }) => (path, cause),
        Some(TrainerError::Checkpoint { path, .. }) if path.is_file() => return instead_of_run(error, path),
        Some(TrainerError::Checkpoint { path, .. }) => return missing(path),
        Some(TrainerError::Teacher { place, code: FILE_SYSTEM, .. }) => return missing(Path::new(place)),
        _ => match error.downcast_ref::<smalti_runtime::Error>()? {
            smalti_runtime::Error::Io { path, source, .. } => (path, source),
            _ => return None,
        },
    };
    suggest::advice(path, cause)
}

/// What a file is that was named in place of a run, and what to do with it.
fn instead_of_run(error: &anyhow::Error, path: &Path) -> Option<String> {
    if !error.to_string().contains("is not a run") {
        return None;
    }
    let mut start = Vec::new();
    File::open(path).ok()?.take(1024).read_to_end(&mut start).ok()?;
    let (what, remedy) = recognize(&start, Wanted::Weights)?;
    Some(format!("it is {what}: {remedy}"))
}

/// The exit code that goes with an error.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<TrainerError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<smalti_runtime::Error>() {
        return error.exit_code();
    }
    if error.is::<std::io::Error>() { FILE_SYSTEM } else { FAILED }
}
