//! What `pretrain` and `finetune` share: where a run goes, and how it is resumed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smalti_trainer::run::{Create, RunDir, owner};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result, files};

use crate::args::Global;
use crate::args::config::{self, to_toml};
use crate::args::training::RunArgs;
use crate::console::{log, out};
use crate::plan::defaults::CHECKPOINT_MINUTES;
use crate::plan::required;

/// Flags that may differ when a run is resumed: they change no result.
const FREE: [&str; 7] =
    ["data", "out", "threads", "loader-threads", "cache", "max-bad", "checkpoint-minutes"];

/// The arguments over the settings file that was named; for a run that is resumed, over the run's own.
pub(crate) fn merge<T: Args + Serialize + DeserializeOwned>(
    args: T,
    stage: &str,
    run: &RunArgs,
    global: &Global,
) -> Result<T> {
    let resumed = run.out.as_deref().filter(|_| run.resume == Some(true));
    resumed.map_or(Ok(()), |run| refuse_other_stage(run, stage))?;
    config::merge(args, config::file(global, resumed).as_deref())
}

/// Refuses to resume what another command wrote, before its settings seem to be unknown flags.
fn refuse_other_stage(run: &Path, stage: &str) -> Result<()> {
    match owner::written_by(run).filter(|writer| writer != stage) {
        Some(writer) => {
            let place = run.display();
            Err(Error::Usage(format!(
                "{place} was written by `smalti {writer}`, not by `smalti {stage}`: name another folder with --out"
            )))
        }
        None => Ok(()),
    }
}

/// How the run is executed.
pub(crate) fn exec(run: &RunArgs, exec: ExecConfig) -> Result<ExecConfig> {
    let minutes = run.checkpoint_minutes.unwrap_or(CHECKPOINT_MINUTES);
    if !(0.0..=1e6).contains(&minutes) {
        return Err(Error::Usage(format!("checkpoint-minutes is {minutes}: expected 0 to 1000000")));
    }
    Ok(ExecConfig { checkpoint_every: Duration::from_secs_f64(minutes * 60.0), ..exec })
}

/// The run of the classifier in what `smalti train` left in a folder; of any other folder itself.
pub(crate) fn of_train(folder: &Path) -> PathBuf {
    let report = std::fs::read(folder.join("report.json")).unwrap_or_default();
    let report = serde_json::from_slice::<serde_json::Value>(&report).unwrap_or_default();
    // The folder may have been moved since.
    let name = report["run"].as_str().and_then(|run| Path::new(run).file_name());
    name.map(|name| folder.join(name)).filter(|run| run.is_dir()).unwrap_or_else(|| folder.into())
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

/// Tells which fraction of the time went by waiting for images, where that is more than a little; and, if notes are
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

/// The run's folder, new or to be resumed; messages are kept there from now on. `inputs` are the paths that the run
/// reads, each with its flag: they are never removed.
pub(crate) fn open(
    run: &RunArgs,
    stage: &'static str,
    args: &impl Serialize,
    inputs: &[(&str, Option<&PathBuf>)],
) -> Result<RunDir> {
    open_with(run, stage, &to_toml(args)?, inputs)
}

/// As [`open`], with the text of the settings file.
pub(crate) fn open_with(
    run: &RunArgs,
    stage: &'static str,
    text: &str,
    inputs: &[(&str, Option<&PathBuf>)],
) -> Result<RunDir> {
    let path = required(&run.out, "--out", "a folder for the run")?;
    let dir = if run.resume == Some(true) {
        same_settings(&path.join("config.toml"), text)?;
        RunDir::resume(&path, stage)?
    } else {
        let inputs: Vec<(&str, PathBuf)> =
            inputs.iter().filter_map(|(flag, path)| Some((*flag, path.cloned()?))).collect();
        refuse_own_data(&path, &inputs)?;
        RunDir::create(&path, stage, &Create { overwrite: run.overwrite == Some(true), inputs: &inputs })?
    };
    log::keep(&dir.own("train.log")?)?;
    Ok(dir.with_settings(text.to_owned()))
}

/// Refuses to write a run into the data set's own folder, where its images would become a class.
fn refuse_own_data(out: &Path, inputs: &[(&str, PathBuf)]) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let is_out = |path: &PathBuf| real(path).is_some_and(|path| real(out) == Some(path));
    match inputs.iter().find(|(flag, path)| *flag == "--data" && is_out(path)) {
        Some((flag, path)) => Err(Error::Usage(format!(
            "--out is the folder of {flag} {}: name another folder for the run",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses to resume a run under other settings. A flag that the saved file does not have came with a later version: what
/// it changes, the state knows.
fn same_settings(path: &Path, text: &str) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let saved = String::from_utf8_lossy(&files::read(path, 1 << 20)?).into_owned();
    let table = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let (saved, now) = (table(&saved), table(text));
    for (key, before) in saved.iter().filter(|(key, _)| !FREE.contains(&key.as_str())) {
        let now = now.get(key);
        if now != Some(before) {
            return Err(Error::Usage(format!(
                "{key} was {before}, is {}: a run is resumed with the settings that it was started with; leave the flag out",
                now.map_or("not set".into(), toml::Value::to_string),
            )));
        }
    }
    Ok(())
}
