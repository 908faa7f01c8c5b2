//! Where a stage begins: at its own start, or where a run's state is; with several ranks, where the first one is.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::ranks::{Ranks, from_bytes, to_bytes};
use super::task::{Task, TaskData};
use super::trainer::Trainer;
use crate::data::Fingerprint;
use crate::error::{Error, Result};
use crate::run::config::load_labels;
use crate::run::{About, RunDir, State};

/// Restores the state of a run that resumes. Nothing is written before its settings and its data are known to be the
/// same.
pub(super) fn start<T: Task>(trainer: &mut Trainer<'_, T>, data: &TaskData) -> Result<()> {
    if let Some(run) = trainer.run.filter(|run| run.resumes()) {
        let (path, State { about, vectors }) = run.load_state()?;
        accept(run, &path, &about, &trainer.about)?;
        restore(trainer, vectors, &path)?;
        run.accept_state(&path)?;
        take_over(trainer, about);
    }
    match trainer.exec.ranks.clone() {
        Some(ranks) => join(trainer, &ranks, data),
        None => Ok(()),
    }
}

/// Refuses a state of another stage, other settings or other data.
fn accept(run: &RunDir, path: &Path, saved: &About, now: &About) -> Result<()> {
    let unusable = |problem: String| Error::Checkpoint { path: path.into(), problem };
    if !saved.stage.is_empty() && saved.stage != now.stage {
        return Err(unusable(format!("belongs to `smalti {}`, not to `smalti {}`", saved.stage, now.stage)));
    }
    if let Some((key, before, after)) = first_difference("", &saved.settings, &now.settings) {
        return Err(unusable(format!(
            "was trained with {key} = {before}, now {after}: a run is resumed with the settings that it was started with"
        )));
    }
    let place = run.path().display();
    for (name, then) in &saved.data {
        let difference = match now.data.get(name) {
            Some(now) => then.difference(now),
            None => Some("it is not there any more".into()),
        };
        if let Some(difference) = difference {
            return Err(Error::data(
                format!("{place}: the {name} set has changed"),
                format!(
                    "{difference}; a run is resumed on the same images: put them back, or start another run with \
                     --init {place}"
                ),
            ));
        }
    }
    if saved.data.is_empty() {
        accept_unknown(run, now)?;
    }
    Ok(())
}

/// A run of the first format does not know its images: its class names are compared all the same.
fn accept_unknown(run: &RunDir, now: &About) -> Result<()> {
    let labels = load_labels(&run.checkpoints().join("labels.txt"))?;
    let classes = now.data.get("train").map_or(&[][..], |train| &train.classes);
    if !labels.is_empty() && labels != classes {
        let then = Fingerprint { classes: labels, ..now.data["train"].clone() };
        let difference = then.difference(&now.data["train"]).unwrap_or_default();
        return Err(Error::data(format!("{}: the train set has changed", run.path().display()), difference));
    }
    log::warn!(
        "{} was written by an earlier version of smalti, which did not note its images: make sure that they are the \
         same",
        run.path().display()
    );
    Ok(())
}

/// The path and the values of the first difference of two settings.
fn first_difference(at: &str, a: &Value, b: &Value) -> Option<(String, Value, Value)> {
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        let null = Value::Null;
        return a.keys().chain(b.keys()).find_map(|key| {
            let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
            first_difference(key, a, b)
        });
    }
    (a != b).then(|| (at.to_owned(), a.clone(), b.clone()))
}

/// Every vector of the trainer by its name.
fn vectors_mut<'t, T: Task>(trainer: &'t mut Trainer<'_, T>) -> Vec<(&'static str, &'t mut Vec<f32>)> {
    let mut all = vec![("params", &mut trainer.params)];
    all.extend(trainer.optimizer.vectors_mut());
    all.extend(trainer.task.vectors_mut());
    all
}

fn restore<T: Task>(
    trainer: &mut Trainer<'_, T>,
    mut vectors: BTreeMap<String, Vec<f32>>,
    path: &Path,
) -> Result<()> {
    let unusable = |problem: String| Error::Checkpoint { path: path.into(), problem };
    for (name, values) in vectors_mut(trainer) {
        let saved = vectors.remove(name).ok_or_else(|| unusable(format!("lacks the vector `{name}`")))?;
        if saved.len() != values.len() {
            return Err(unusable(format!(
                "the vector `{name}` has {} values, expected {}",
                saved.len(),
                values.len()
            )));
        }
        *values = saved;
    }
    match vectors.keys().next() {
        Some(name) => Err(unusable(format!("holds the vector `{name}`, which this version does not know"))),
        None => Ok(()),
    }
}

/// Goes on where the saved state is.
fn take_over<T: Task>(trainer: &mut Trainer<'_, T>, saved: About) {
    trainer.optimizer.set_step(saved.step);
    // The first format's states were written after the validation of the epoch that they end.
    let epochs = if saved.stage.is_empty() { saved.step / trainer.per_epoch } else { saved.epochs };
    let now = &trainer.about;
    trainer.about = About {
        stage: now.stage.clone(),
        settings: now.settings.clone(),
        data: now.data.clone(),
        epochs,
        ..saved
    };
}

/// Makes sure that all ranks compute the same, and takes over rank 0's state.
fn join<T: Task>(trainer: &mut Trainer<'_, T>, ranks: &Ranks, data: &TaskData) -> Result<()> {
    let train = data.train.fingerprint();
    let same = [
        ("version", env!("CARGO_PKG_VERSION").into(), "install the same smalti everywhere"),
        ("settings", trainer.about.settings.to_string(), "install the same smalti everywhere"),
        (
            "instruction set",
            smalti_kernels::Isa::best().name().into(),
            "their sums differ in the last bits; set SMALTI_FORCE_ISA to one that all have",
        ),
        (
            "images",
            format!("{} ({})", train.images, &train.digest[..train.digest.len().min(12)]),
            "every rank needs the same data set under the path of --data",
        ),
    ];
    same.iter().try_for_each(|(what, mine, advice)| ranks.assert_same(what, mine, advice))?;
    let wrong = |e: serde_json::Error| Error::Usage(format!("rank 0's state cannot be understood: {e}"));
    let text = serde_json::to_vec(&trainer.about).map_err(wrong)?;
    let about: About = serde_json::from_slice(&ranks.broadcast(text)?).map_err(wrong)?;
    take_over(trainer, about);
    for (_, values) in vectors_mut(trainer) {
        from_bytes(&ranks.broadcast(to_bytes(values))?, values);
    }
    Ok(())
}
