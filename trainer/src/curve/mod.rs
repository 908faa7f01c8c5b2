//! `smalti curve`: what more labels bring, from each start, at equal CPU time.
//!
//! A point is `smalti train` over some draws of labels. Every training is a folder below the outcome's, so that an interrupted
//! command continues with the one that it was at.

pub(crate) mod plot;
pub(crate) mod report;

use std::path::{Path, PathBuf};

use smalti_trainer::data::{Split, Splits};
use smalti_trainer::run::owner::{Claim, Owner};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result};

use crate::args::training::RunArgs;
use crate::args::{CurveArgs, Global, TrainArgs, config};
use crate::autotrain;
use crate::commands::{self, runs};
use crate::console::log::{next, tell};
use crate::console::out;
use crate::console::signals::Stop;
use crate::plan::{fill, required};
use report::{Point, Report};

const LABELS: [&str; 5] = ["1", "5", "10", "50", "all"];
const STARTS: [&str; 2] = ["auto", "scratch"];
const SEEDS: u64 = 3;
const BUDGET: &str = "10m";
const SETTINGS: &str = "config.toml";
const REPORT: &str = "report.json";
const PLOT: &str = "curve.svg";
/// What the command writes into its folder, next to the trainings'.
const FILES: [&str; 3] = [SETTINGS, REPORT, PLOT];

/// A `smalti curve` at work.
struct Curve<'a> {
    global: &'a Global,
    data: PathBuf,
    out: PathBuf,
    budget: String,
    seeds: u64,
    exec: ExecConfig,
    stop: Stop,
    resumes: bool,
    overwrite: bool,
}

pub(crate) fn run(args: CurveArgs, global: &Global) -> anyhow::Result<()> {
    let out = args.out.clone().unwrap_or_else(|| "smalti-curve".into());
    let (resumes, overwrite) = (args.resume == Some(true), args.overwrite == Some(true));
    let file = config::file(global, resumes.then_some(out.as_path()));
    let mut args: CurveArgs = config::merge(args, file.as_deref())?;
    let data = required(&args.data, "DIR", "a folder of labelled images")?;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let labels = fill(&mut args.labels, names(&LABELS));
    let starts = fill(&mut args.starts, STARTS.map(PathBuf::from).to_vec());
    let seeds = fill(&mut args.seeds, SEEDS);
    if !(1..=1000).contains(&seeds) {
        return Err(Error::Usage(format!("seeds is {seeds}: expected 1 to 1000")).into());
    }
    let counts = counts(&labels, &data)?;
    let names = starts.iter().map(|start| name(start)).collect::<Vec<_>>();
    if let Some(twice) =
        names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name))
    {
        return Err(Error::Usage(format!("two starts are called `{twice}`: expected different names")).into());
    }
    let owner = if resumes {
        Owner::resume(&out, "curve", &[])?
    } else {
        let inputs = [("DIR", data.clone())];
        let claim = Claim {
            written_by: "curve",
            names: &FILES,
            overwrite,
            inputs: &inputs,
            legacy: &[],
            resumable: true,
        };
        Owner::claim(&out, &claim)?
    };
    let job = Curve {
        global,
        data,
        budget: fill(&mut args.budget, BUDGET.into()),
        seeds,
        exec: runs::exec(&RunArgs::default(), commands::machine(&args.machine)?)?,
        stop: Stop::listen(),
        out,
        resumes,
        overwrite,
    };
    let saved = CurveArgs { data: None, resume: None, overwrite: None, ..args };
    owner.write(SETTINGS, config::to_toml(&saved)?.as_bytes())?;
    let mut report = Report::new(job.budget.clone());
    for (start, name) in starts.iter().zip(&names) {
        for (count, of_each) in &counts {
            report.points.push(job.point(start, name, *count, *of_each)?);
            // What is known so far is looked at while the rest is learned.
            owner.write(PLOT, plot::chart(&report).file().as_bytes())?;
            owner.write_json(REPORT, &report)?;
        }
    }
    if global.json {
        return out::json(serde_json::to_value(&report)?);
    }
    out::text(&report.table())?;
    tell(global, &format!("drawn in {}", job.out.join(PLOT).display()));
    next(global, &format!("smalti report {}", out::quoted(&job.out)));
    Ok(())
}

/// A start's name in tables and folders: the last part of a path.
fn name(start: &Path) -> String {
    start.file_name().unwrap_or(start.as_os_str()).to_string_lossy().into_owned()
}

/// Numbers of labels with those of each class, rising, none more than there are.
///
/// # Errors
/// What is no number; images without labels or a split to measure on.
fn counts(labels: &[String], data: &Path) -> Result<Vec<(usize, Option<usize>)>> {
    let splits = Splits::open(data)?;
    if ![Split::Test, Split::Val].into_iter().any(|split| splits.has(split)) {
        let problem =
            "there is no test/ or val/ to measure on: expected splits, as train/CLASS/* and test/CLASS/*";
        return Err(Error::data(data.display().to_string(), problem.to_owned()));
    }
    let train = splits.dataset(Split::Train)?;
    let of_classes = train.class_counts();
    let (all, classes) = (of_classes.iter().sum::<usize>(), of_classes.iter().filter(|n| **n > 0).count());
    if classes == 0 {
        // The error that says what a labelled data set looks like.
        train.labels()?;
    }
    let mut counts = Vec::new();
    for text in labels {
        let of_each = match text.trim() {
            "all" => None,
            number => match number.parse::<usize>() {
                Ok(number) if number > 0 => Some(number),
                _ => {
                    return Err(Error::Usage(format!(
                        "labels has `{text}`: expected numbers from 1 on, or all"
                    )));
                }
            },
        };
        let count = of_each.map_or(all, |number| number.saturating_mul(classes));
        counts.push(if count < all { (count, of_each) } else { (all, None) });
    }
    counts.sort_unstable_by_key(|(count, _)| *count);
    counts.dedup_by_key(|(count, _)| *count);
    Ok(counts)
}

impl Curve<'_> {
    /// Trains on every draw of so many labels.
    fn point(
        &self,
        start: &Path,
        name: &str,
        labels: usize,
        of_each: Option<usize>,
    ) -> anyhow::Result<Point> {
        let mut point = Point::new(name, labels, of_each);
        // There is one way to draw all.
        let seeds = if of_each.is_some() { self.seeds } else { 1 };
        for seed in 0..seeds {
            self.stop.check()?;
            let count = of_each.map_or_else(|| "all".into(), |n| n.to_string());
            let labels_of_each =
                of_each.map_or_else(|| "all labels".into(), |n| format!("{n} labels a class"));
            let out = self.out.join(format!("{name}-{count}-{seed}"));
            tell(self.global, &format!("{name}, {labels_of_each}, draw {} of {seeds}", seed + 1));
            point.add(&self.train(start, labels, seed, &out)?);
        }
        Ok(point)
    }

    /// The report of one training, which may be there already.
    fn train(&self, start: &Path, labels: usize, seed: u64, out: &Path) -> anyhow::Result<serde_json::Value> {
        let (report, settings) = (out.join("report.json"), out.join("config.toml"));
        let resumes = self.resumes && settings.is_file();
        if resumes && let Ok(bytes) = std::fs::read(&report) {
            return Ok(serde_json::from_slice(&bytes)?);
        }
        let args = TrainArgs {
            data: Some(self.data.clone()),
            labels: Some(labels.to_string()),
            label_seed: Some(seed),
            start: Some(start.to_owned()),
            budget: Some(self.budget.clone()),
            out: Some(out.to_owned()),
            resume: Some(resumes),
            overwrite: Some(self.overwrite),
            ..TrainArgs::default()
        };
        let args = config::merge(args, resumes.then_some(settings.as_path()))?;
        let trained = autotrain::execute(args, self.exec.clone(), self.stop.clone(), self.global)?;
        Ok(serde_json::to_value(&trained.report)?)
    }
}

#[cfg(test)]
mod tests {
    use super::name;
    use std::path::Path;

    #[test]
    fn starts_are_called_by_the_last_part_of_their_path() {
        for (path, called) in
            [("auto", "auto"), ("runs/0/distil", "distil"), ("a/start.safetensors", "start.safetensors")]
        {
            assert_eq!(name(Path::new(path)), called);
        }
    }
}
