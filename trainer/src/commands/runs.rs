//! What `pretrain` and `finetune` share: where a run goes, and how it is gone on with.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smalti_trainer::run::RunDir;
use smalti_trainer::stages::pretrain::ExecConfig;
use smalti_trainer::{Error, Result, files};

use crate::args::Global;
use crate::args::config::{self, to_toml};
use crate::args::training::RunArgs;
use crate::console::{log, out};
use crate::plan::required;

/// What may differ when a run is gone on with.
const FREE: [&str; 6] = ["data", "out", "threads", "loader-threads", "cache", "max-bad"];

/// The settings file of a run.
fn settings(run: &Path) -> PathBuf {
    run.join("config.toml")
}

/// The arguments over the settings file that was named; for a run that is gone on with, over the run's own.
pub(super) fn merge<T: Args + Serialize + DeserializeOwned>(
    args: T,
    run: &RunArgs,
    global: &Global,
) -> Result<T> {
    let own = run.out.as_deref().filter(|_| run.resume == Some(true)).map(settings);
    let file = global.config.clone().or(own.filter(|path| path.is_file()));
    config::merge(args, file.as_deref())
}

/// Whether there is a checkpoint to go on from; a run that was stopped before its first begins anew.
pub(super) fn resumes(run: &RunArgs, dir: &RunDir, global: &Global) -> bool {
    let asked = run.resume == Some(true);
    if asked && !dir.state().is_file() {
        log::tell(global, "the run has no checkpoint yet: it begins anew");
    }
    asked && dir.state().is_file()
}

/// Number of processes that share the work.
pub(super) fn size(exec: &ExecConfig) -> usize {
    exec.ranks.as_ref().map_or(1, |ranks| ranks.size())
}

/// Who works, for messages.
pub(super) fn workers(exec: &ExecConfig) -> String {
    match size(exec) {
        1 => format!("{} threads", exec.threads),
        size => format!("{size} ranks, {} threads on the first", exec.threads),
    }
}

/// Tells which share of the time went by waiting for images, where that is more than a little; and, if notes are
/// wanted, which the first rank waited for the sum of all gradients.
pub(super) fn tell_waiting(global: &Global, loading: f64, waiting: Option<f64>) {
    if loading > 0.05 {
        let share = out::percent(loading);
        log::tell(
            global,
            &format!("{share} of the time went by waiting for images: more --loader-threads may help"),
        );
    }
    if let Some(share) = waiting {
        ::log::info!("the first rank waited {} of the time for the sums over all ranks", out::percent(share));
    }
}

/// The run's folder with the settings in it, new or to be gone on with; messages are kept there from now on.
pub(crate) fn open(run: &RunArgs, args: &impl Serialize) -> Result<RunDir> {
    let path = required(&run.out, "--out", "a folder for the run")?;
    let text = to_toml(args)?;
    if run.resume == Some(true) {
        let dir = RunDir::open(&path)?;
        same_settings(&settings(&path), &text)?;
        log::keep(&path.join("train.log"))?;
        return Ok(dir);
    }
    let dir = RunDir::create(&path, run.overwrite == Some(true))?;
    files::write(&settings(&path), text.as_bytes())?;
    log::keep(&path.join("train.log"))?;
    Ok(dir)
}

/// Refuses to go on with a run under other settings.
fn same_settings(path: &Path, text: &str) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let saved = String::from_utf8_lossy(&files::read(path, 1 << 20)?).into_owned();
    let table = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let (saved, now) = (table(&saved), table(text));
    let shown = |value: Option<&toml::Value>| value.map_or("not set".into(), toml::Value::to_string);
    for key in saved.keys().chain(now.keys()).filter(|key| !FREE.contains(&key.as_str())) {
        let (before, now) = (saved.get(key), now.get(key));
        if before != now {
            return Err(Error::Usage(format!(
                "{key} was {}, is {}: a run is continued with the settings it was started with; leave the flag out",
                shown(before),
                shown(now)
            )));
        }
    }
    Ok(())
}
