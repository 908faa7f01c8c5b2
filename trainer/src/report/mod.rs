//! `smalti report`: one page about what a run did, for people, as HTML that is complete in one file.
//!
//! [`gather`] reads what a run has left ([`source`], [`history`], [`device`]) and asks its model about its images ([`data`],
//! [`answers`], [`map`], [`advice`]); [`page`] writes HTML of that, [`text`] lines for a terminal. What is not there is left out,
//! with the reason.

mod advice;
mod answers;
pub(crate) mod chart;
mod data;
mod device;
mod gather;
mod history;
mod map;
mod page;
mod picture;
mod source;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use smalti_trainer::data::Dataset;
use smalti_trainer::run::owner;
use smalti_trainer::stages::finetune::Finetuned;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result, files};

pub(crate) use answers::Explain;
use gather::{Effort, RunReport};
use source::{Kind, RunImages, Source};

use crate::curve::report::Report as Curve;

/// The page's name in a run.
pub(crate) const PAGE: &str = "report.html";
/// Images that are looked at for the page at the end of `smalti train` and `quickstart`, which is to take seconds.
const AT_THE_END: Effort =
    Effort { audited: 300, asked: 500, explain: Explain::Occlusion, explaining: Duration::from_secs(4) };
/// Those of `smalti report`.
const ON_ITS_OWN: Effort =
    Effort { audited: 2000, asked: 5000, explain: Explain::Occlusion, explaining: Duration::from_secs(30) };

/// What a report is about.
pub(crate) struct Reports {
    title: String,
    /// The run that is shown whole, if it is one.
    whole: Option<RunReport>,
    /// Runs that are compared: all of them where there are several.
    compared: Vec<RunReport>,
    /// Learning curves, each with its folder.
    curves: Vec<(PathBuf, Curve)>,
    /// Whether one of the runs is at work.
    pub(crate) is_running: bool,
}

/// What the caller of a report knows already.
pub(crate) struct Known {
    images: RunImages,
    model: Finetuned,
}

impl Known {
    /// A run's model and images: all that it learned from, below `root`, and those that it is measured on.
    pub(crate) fn new(
        root: PathBuf,
        model: &Finetuned,
        learned: Dataset,
        held_out: Option<(Dataset, String)>,
    ) -> Known {
        Known { images: RunImages { root, learned, held_out }, model: model.clone() }
    }
}

impl Reports {
    /// Looks at the runs in these folders; `data` takes the place of the images that they name.
    ///
    /// # Errors
    /// A folder that is nothing of Smalti's.
    pub(crate) fn gather(
        folders: &[PathBuf],
        data: Option<&Path>,
        explain: Explain,
        exec: &ExecConfig,
    ) -> Result<Reports> {
        Reports::gather_with(folders, data, exec, &Effort { explain, ..ON_ITS_OWN }, None)
    }

    fn gather_with(
        folders: &[PathBuf],
        data: Option<&Path>,
        exec: &ExecConfig,
        effort: &Effort,
        known: Option<Known>,
    ) -> Result<Reports> {
        let sources: Vec<Source> = folders.iter().map(|path| Source::open(path)).collect::<Result<_>>()?;
        let is_running = sources.iter().any(Source::is_running);
        let (curves, runs): (Vec<Source>, Vec<Source>) =
            sources.into_iter().partition(|source| source.kind == Kind::Curve);
        let is_one = runs.len() == 1;
        let trainings: Vec<Source> = runs.iter().flat_map(Source::trainings).collect();
        let curves: Vec<(PathBuf, Curve)> =
            curves.iter().map(|curve| Ok((curve.path.clone(), read_curve(curve)?))).collect::<Result<_>>()?;
        let beside = trainings.first().and_then(curve_around);
        let curve = curves.first().map(|(_, curve)| curve).or(beside.as_ref());
        let mut whole = None;
        if let Some(source) = trainings.first().filter(|_| is_one) {
            let asked = gather::Request { data, exec, effort, known, curve };
            whole = Some(RunReport::gather(source, asked)?);
        }
        let compared = if trainings.len() > 1 {
            trainings.iter().map(RunReport::glance).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        let names: Vec<String> = folders.iter().map(|path| name_of(path)).collect();
        Ok(Reports { title: names.join(", "), whole, compared, curves, is_running })
    }

    /// The page. One of a run at work is read again by the browser.
    pub(crate) fn html(&self, reload: Option<u32>) -> String {
        page::html(self, reload)
    }

    /// The headline in lines of text.
    pub(crate) fn text(&self) -> String {
        text::text(self)
    }

    /// What to type after looking at it.
    pub(crate) fn next(&self) -> Option<&str> {
        self.whole.as_ref()?.headline.next.first().map(String::as_str)
    }

    /// All numbers of the page.
    pub(crate) fn json(&self) -> Result<Value> {
        let numbers = Numbers {
            runs: self.whole.iter().chain(&self.compared).collect(),
            curves: &self.curves,
            running: self.is_running,
        };
        serde_json::to_value(numbers)
            .map_err(|why| Error::Usage(format!("a report cannot be written as JSON: {why}")))
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Numbers<'a> {
    runs: Vec<&'a RunReport>,
    /// Each folder of `smalti curve` with its points.
    curves: &'a [(PathBuf, Curve)],
    running: bool,
}

/// Whether one of these runs is at work.
pub(crate) fn is_running(folders: &[PathBuf]) -> bool {
    folders.iter().any(|folder| owner::is_locked(folder))
}

/// Writes the page of a `smalti train` or `quickstart` that has ended into its folder. Gives its path.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write_at_the_end(folder: &Path, known: Known, exec: &ExecConfig) -> Result<PathBuf> {
    let mut reports = Reports::gather_with(&[folder.to_owned()], None, exec, &AT_THE_END, Some(known))?;
    // A quickstart still holds its lock.
    reports.is_running = false;
    write(folder, reports.html(None).as_bytes())
}

/// Writes the page into a run's folder, as a file of Smalti's. Gives its path.
///
/// # Errors
/// Another's file of that name.
pub(crate) fn write(folder: &Path, html: &[u8]) -> Result<PathBuf> {
    let (path, name) = (folder.join(PAGE), Path::new(PAGE));
    let is_ours = owner::listed(folder)?.iter().any(|ours| ours == name);
    if path.exists() && owner::is_owned(folder) && !is_ours {
        let problem = "is there and was not written by smalti: name another file with -o";
        return Err(Error::Usage(format!("{} {problem}", path.display())));
    }
    owner::append(folder, [name])?;
    files::write(&path, html)?;
    Ok(path)
}

/// The points in the folder of `smalti curve`.
fn read_curve(source: &Source) -> Result<Curve> {
    let problem = "holds no points yet: wait for the first training of `smalti curve`";
    let unusable = || Error::Checkpoint { path: source.path.clone(), problem: problem.into() };
    serde_json::from_value(source.json("report.json").ok_or_else(unusable)?).map_err(|_| unusable())
}

/// The curve that a training is a point of.
fn curve_around(source: &Source) -> Option<Curve> {
    let parent = Source::open(source.path.parent()?).ok().filter(|parent| parent.kind == Kind::Curve)?;
    read_curve(&parent).ok()
}

/// What a folder is called: the last part of its path.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
