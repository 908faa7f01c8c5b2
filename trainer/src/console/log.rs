//! Messages on the standard error, above a progress bar if there is one, and in the run's `train.log`.

use std::fs::File;
use std::io::{Write, stderr};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use env_logger::{Builder, Env, Target};
use indicatif::{MultiProgress, ProgressDrawTarget};
use smalti_trainer::{Error, Result};

use crate::args::Global;

/// Messages that wait for a run, at most.
const WAITING: usize = 1 << 20;

/// This process's number among several that work together.
static RANK: OnceLock<usize> = OnceLock::new();

/// Where messages go besides the standard error.
static KEPT: Mutex<Kept> = Mutex::new(Kept::Waiting(Vec::new()));

/// What becomes of messages besides being shown.
enum Kept {
    /// There is no run yet.
    Waiting(Vec<u8>),
    /// The run's file.
    File(File),
}

/// The bars that messages must not tear.
pub(crate) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
}

/// From now on messages say that they come from this rank, unless it is the first.
pub(crate) fn of_rank(rank: usize) {
    // A process is one rank for all its life.
    let _ = RANK.set(rank);
}

/// This process's number among several that work together; 0 alone.
pub(crate) fn rank() -> usize {
    RANK.get().copied().unwrap_or_default()
}

/// Starts messages, as many as asked for.
pub(crate) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let mut builder = Builder::from_env(Env::default().default_filter_or(level));
    builder.target(Target::Pipe(Box::new(Messages)));
    builder.format(|out, record| {
        let word = record.level().as_str().to_lowercase().replace("warn", "warning");
        match rank() {
            0 => writeln!(out, "smalti: {word}: {}", record.args()),
            rank => writeln!(out, "smalti: {word}: rank {rank}: {}", record.args()),
        }
    });
    builder.init();
}

/// Keeps messages in this file too, after those that are there; first those that there were so far.
pub(crate) fn keep(path: &Path) -> Result<()> {
    let mut file =
        File::options().create(true).append(true).open(path).map_err(Error::file("write", path))?;
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Kept::Waiting(messages) = &*kept {
        file.write_all(messages).map_err(Error::file("write", path))?;
    }
    *kept = Kept::File(file);
    Ok(())
}

/// Tells the user where things are; not a result.
pub(crate) fn tell(global: &Global, text: &str) {
    if !global.quiet {
        write_all(format!("{text}\n").as_bytes());
    }
}

/// Ends a command with what to type after it. Not with `--json`: programs know what comes next.
pub(crate) fn next(global: &Global, command: &str) {
    if !global.json {
        tell(global, &format!("next: {command}"));
    }
}

/// Where the logger writes.
struct Messages;

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A message that cannot be written has nobody left to tell.
fn write_all(bytes: &[u8]) {
    bars().suspend(|| _ = stderr().lock().write_all(bytes));
    match &mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner) {
        Kept::File(file) => _ = file.write_all(bytes),
        Kept::Waiting(messages) if messages.len() < WAITING => messages.extend_from_slice(bytes),
        Kept::Waiting(_) => {}
    }
}
