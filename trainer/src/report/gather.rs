//! Everything that is known of one run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use smalti_models::image::Limits;
use smalti_trainer::data::Dataset;
use smalti_trainer::stages::finetune::Finetuned;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Result, files};

use super::advice::{self, advice};
use super::answers::{self, Answers, Asked, Explain, Suspect};
use super::data::DataSummary;
use super::device::{self, Card, ModelFile};
use super::history::History;
use super::map::{self, EmbeddingMap};
use super::source::{Kind, RunImages, Source};
use super::{Known, name_of, picture};
use crate::autotrain::report::{Report as Trained, Scored};
use crate::console::out::quoted;
use crate::curve::report::Report as Curve;

/// Reconstructions that are shown of a run.
const RECONSTRUCTIONS: usize = 6;
/// Their largest file, and that of settings, in bytes.
const MAX_BYTES: u64 = 32 << 20;
/// Images that were learned from, of which the model is asked for suspected labels.
const MAX_LEARNED: usize = 1000;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Images of each split that are audited.
    pub(super) audited: usize,
    /// Images of each set that the model is asked about.
    pub(super) asked: usize,
    /// How maps of what the model looks at are made, and the time for them.
    pub(super) explain: Explain,
    pub(super) explaining: Duration,
}

/// What is asked of a run.
pub(super) struct Request<'a> {
    pub(super) data: Option<&'a Path>,
    pub(super) exec: &'a ExecConfig,
    pub(super) effort: &'a Effort,
    pub(super) known: Option<Known>,
    pub(super) curve: Option<&'a Curve>,
}

/// A part of the page, or the reason why it is left out.
#[derive(Clone, Debug)]
pub(super) enum Part<T> {
    Shown(T),
    LeftOut(String),
}

impl<T> Part<T> {
    pub(super) fn shown(&self) -> Option<&T> {
        match self {
            Part::Shown(part) => Some(part),
            Part::LeftOut(_) => None,
        }
    }

    pub(super) fn left_out(&self) -> Option<&String> {
        match self {
            Part::Shown(_) => None,
            Part::LeftOut(why) => Some(why),
        }
    }

    fn of(found: Result<T>) -> Part<T> {
        found.map_or_else(|why| Part::LeftOut(why.to_string()), Part::Shown)
    }
}

impl<T: Serialize> Serialize for Part<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

/// The headline: each number where the run has it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Headline {
    pub(super) accuracy: Option<f64>,
    pub(super) interval: Option<[f64; 2]>,
    pub(super) balanced_accuracy: Option<f64>,
    pub(super) n: usize,
    pub(super) split: Option<String>,
    /// On held-out images among those with labels.
    pub(super) validation: Option<f64>,
    /// Fraction of images whose neighbours are of their class, of a run without labels.
    pub(super) neighbours: Option<f64>,
    /// The loss at the beginning and at the end of the last training.
    pub(super) loss: Option<[f64; 2]>,
    pub(super) steps: u64,
    pub(super) chosen: Option<String>,
    pub(super) start: Option<String>,
    pub(super) labels: Option<usize>,
    pub(super) images: Option<usize>,
    pub(super) classes: Option<usize>,
    pub(super) parameters: Option<usize>,
    pub(super) cpu_seconds: Option<f64>,
    /// Of training, by the clock.
    pub(super) seconds: f64,
    /// Commands to type next, the most useful one first.
    pub(super) next: Vec<String>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunReport {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Its data set, where the folder says it.
    pub(super) root: Option<PathBuf>,
    /// The command that wrote it.
    pub(super) command: &'static str,
    pub(super) running: bool,
    pub(super) headline: Headline,
    pub(super) stages: Vec<History>,
    pub(super) candidates: Vec<Scored>,
    /// Pictures of reconstructions, each with its step.
    #[serde(skip)]
    pub(super) reconstructions: Vec<(u64, String)>,
    pub(super) data: Part<DataSummary>,
    pub(super) answers: Part<Answers>,
    pub(super) suspects: Vec<Suspect>,
    pub(super) map: Part<EmbeddingMap>,
    pub(super) advice: Vec<String>,
    pub(super) files: Vec<ModelFile>,
    pub(super) card: Part<Card>,
    /// Settings files, each with its name.
    #[serde(skip)]
    pub(super) settings: Vec<(String, String)>,
    /// What a quickstart has measured in the device's runtime: milliseconds an image, the share of answers that are the trainer's.
    pub(super) latency_ms: Option<f64>,
    pub(super) runtime_agreement: Option<f64>,
}

impl RunReport {
    /// What the run's files say, without its images or its model.
    pub(super) fn glance(source: &Source) -> Result<RunReport> {
        let trained = device::trained(source);
        let stages: Vec<History> =
            source.stages().iter().map(|(name, run)| History::read(name, run)).collect::<Result<_>>()?;
        let files = device::files(source, trained.as_ref());
        let candidates = trained.as_ref().map(|report| report.candidates.clone()).unwrap_or_default();
        let quickstart = source.path.parent().and_then(|parent| Source::open(parent).ok());
        let quickstart = quickstart.filter(|parent| {
            parent.kind == Kind::Quickstart && source.path.file_name().is_some_and(|name| name == "train")
        });
        let device = quickstart.and_then(|parent| parent.json("report.json")).unwrap_or_default();
        let waits = "is made once the run has ended";
        Ok(RunReport {
            name: name_of(&source.path),
            path: source.path.clone(),
            root: source.root(),
            command: source.kind.name(),
            running: source.is_running(),
            headline: Headline::new(source, trained.as_ref(), &stages, &files),
            candidates,
            reconstructions: reconstructions(source),
            data: Part::LeftOut(waits.into()),
            answers: Part::LeftOut(waits.into()),
            suspects: Vec::new(),
            map: Part::LeftOut(waits.into()),
            advice: Vec::new(),
            card: card(&files),
            files,
            settings: settings(source),
            stages,
            latency_ms: device["latency_ms"].as_f64(),
            runtime_agreement: device["runtime_agreement"].as_f64(),
        })
    }

    /// All that can be found out about the run. What is at work is only glanced at: its model is not ready.
    pub(super) fn gather(source: &Source, request: Request<'_>) -> Result<RunReport> {
        let mut report = RunReport::glance(source)?;
        let Request { data, exec, effort, known, curve } = request;
        if known.is_none() && report.running {
            return Ok(report);
        }
        report.running = false;
        let (images, model) = match known {
            Some(known) => (Ok(known.images), Ok(known.model)),
            None => (source.images(data), source.model()),
        };
        let images = match images {
            Ok(images) => images,
            Err(why) => {
                report.leave_out(&why.to_string());
                report.advise(None, curve);
                return Ok(report);
            }
        };
        report.leave_out("needs the run's model");
        report.data = Part::of(DataSummary::gather(&images, effort.audited));
        match model {
            Ok(model) => report.ask(&model, &images, exec, effort),
            Err(why) => report.leave_out_answers(&why.to_string()),
        }
        report.advise(device::trained(source).as_ref(), curve);
        Ok(report)
    }

    fn leave_out(&mut self, why: &str) {
        self.data = Part::LeftOut(why.to_owned());
        self.leave_out_answers(why);
    }

    fn leave_out_answers(&mut self, why: &str) {
        self.answers = Part::LeftOut(why.to_owned());
        self.map = Part::LeftOut(why.to_owned());
    }

    /// What the model says of the run's images.
    fn ask(&mut self, model: &Finetuned, images: &RunImages, exec: &ExecConfig, effort: &Effort) {
        self.headline.parameters.get_or_insert(model.params.len());
        let asked = |data: &Dataset, most: usize| Asked::new(model, data, most, exec);
        if model.labels.is_empty() {
            let why = "the run has no classifier: `smalti finetune --init RUN` makes one";
            self.answers = Part::LeftOut(why.into());
            let found = asked(&images.learned, map::POINTS)
                .and_then(|asked| EmbeddingMap::gather(&[(&asked, true)], images.learned.classes()));
            self.map = Part::of(found);
            return;
        }
        let held_out: Option<Result<_>> = images.held_out.as_ref().map(|(data, split)| {
            let data = data.with_classes(&model.labels)?;
            Ok((asked(&data, effort.asked)?, split.as_str(), data.len()))
        });
        let learned = images.learned.with_classes(&model.labels);
        let learned = learned.and_then(|data| asked(&data.labelled(), effort.asked.min(MAX_LEARNED)));
        let (held_out, learned) = match (held_out.transpose(), learned) {
            (Ok(held_out), Ok(learned)) => (held_out, learned),
            (Err(why), _) | (_, Err(why)) => return self.leave_out_answers(&why.to_string()),
        };
        self.answers = match &held_out {
            Some((asked, split, all)) => {
                let explain = (effort.explain, effort.explaining);
                Part::of(Answers::gather(model, asked, (split, *all), exec, explain))
            }
            None => Part::LeftOut("there are no held-out images: keep some in test/".into()),
        };
        let held_out = held_out.as_ref().map(|(asked, ..)| asked);
        self.suspects = answers::suspects(model, held_out, Some(&learned)).unwrap_or_else(|why| {
            log::warn!("no labels are suspected: {why}");
            Vec::new()
        });
        let sets: Vec<(&Asked, bool)> =
            held_out.map(|asked| (asked, false)).into_iter().chain([(&learned, true)]).collect();
        self.map = Part::of(EmbeddingMap::gather(&sets, &model.labels));
        self.headline.measured(self.answers.shown());
    }

    fn advise(&mut self, trained: Option<&Trained>, curve: Option<&Curve>) {
        let (answers, data) = (self.answers.shown(), self.data.shown());
        self.advice = advice(advice::Known { answers, data, suspects: &self.suspects, trained, curve });
    }
}

impl Headline {
    fn new(source: &Source, trained: Option<&Trained>, stages: &[History], files: &[ModelFile]) -> Headline {
        let last = stages.last();
        let place = quoted(&source.path);
        let mut headline = Headline {
            loss: last.and_then(History::loss_ends),
            steps: last.map_or(0, |history| history.steps),
            seconds: stages.iter().map(|history| history.seconds).sum(),
            validation: last.and_then(best_validation),
            neighbours: last.and_then(|history| Some(history.neighbours.last()?[1])),
            next: files
                .iter()
                .rev()
                .map(|file| format!("smalti-run run {} IMAGES", quoted(&file.path)))
                .collect(),
            ..Headline::default()
        };
        if let [ModelFile { path, is_int8: false, .. }] = files {
            let int8 = path.with_file_name("model-int8.onnx");
            headline
                .next
                .insert(0, format!("smalti-run quantize {} --calib DIR -o {}", quoted(path), quoted(&int8)));
        }
        match source.kind {
            Kind::Train if headline.next.is_empty() => {
                headline.next.push(format!("smalti train DIR --resume --out {place}"));
            }
            Kind::Finetune if files.is_empty() => {
                headline.next.push(format!("smalti export {place} -o model.onnx"));
            }
            Kind::Pretrain | Kind::Distil => {
                headline.next.push(format!("smalti finetune --data DIR --init {place} --out RUN"));
            }
            Kind::Import => headline.next.push(format!("smalti eval {place} --data DIR --probe linear")),
            Kind::Finetune | Kind::Train | Kind::Quickstart | Kind::Curve => {}
        }
        if let Some(report) = trained {
            headline = Headline {
                accuracy: report.accuracy,
                interval: report.interval,
                balanced_accuracy: report.balanced_accuracy,
                n: report.n,
                split: report.split.clone(),
                validation: report.validation,
                chosen: Some(report.chosen.clone()),
                start: Some(report.start.clone()),
                labels: Some(report.labels),
                images: Some(report.images),
                classes: Some(report.classes),
                parameters: Some(report.parameters),
                cpu_seconds: Some(report.cpu_seconds),
                ..headline
            };
        }
        headline
    }

    /// Fills in what was measured for the page, where the run itself has not measured it.
    fn measured(&mut self, answers: Option<&Answers>) {
        let Some(answers) = answers.filter(|_| self.accuracy.is_none()) else { return };
        let found = &answers.evaluation;
        self.accuracy = Some(found.accuracy);
        self.interval = Some(found.interval);
        self.balanced_accuracy = Some(found.balanced_accuracy);
        self.n = found.n;
        self.split = Some(answers.split.clone());
    }
}

fn best_validation(history: &History) -> Option<f64> {
    history.validation.iter().map(|point| point[1]).reduce(f64::max)
}

fn card(files: &[ModelFile]) -> Part<Card> {
    let Some(file) = files.first() else {
        return Part::LeftOut(
            "there is no model file yet: `smalti export RUN -o RUN/model.onnx` writes one".into(),
        );
    };
    Card::read(&file.path).map_or_else(Part::LeftOut, Part::Shown)
}

/// The settings files of a run and its stages.
fn settings(source: &Source) -> Vec<(String, String)> {
    let mut folders = vec![source.path.clone()];
    folders.extend(source.stages().into_iter().map(|(_, run)| run).filter(|run| *run != source.path));
    let read = |folder: PathBuf| {
        let path = folder.join("config.toml");
        let text = String::from_utf8_lossy(&files::read(&path, MAX_BYTES).ok()?).into_owned();
        Some((path.display().to_string(), text))
    };
    folders.into_iter().filter_map(read).collect()
}

/// Reconstructions over time, evenly spread, the last one among them.
fn reconstructions(source: &Source) -> Vec<(u64, String)> {
    let entries = std::fs::read_dir(source.path.join("recon")).into_iter().flatten().flatten();
    let step = |path: &Path| path.file_stem()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let mut found: Vec<(u64, PathBuf)> =
        entries.map(|entry| entry.path()).filter_map(|path| Some((step(&path)?, path))).collect();
    found.sort();
    let count = found.len().min(RECONSTRUCTIONS);
    let chosen = (1..=count).map(|i| &found[i * found.len() / count - 1]);
    let picture = |(step, path): &(u64, PathBuf)| {
        let image = smalti_models::image::open(path, &Limits::default()).ok()?;
        Some((*step, picture::uri(&image).ok()?))
    };
    chosen.filter_map(picture).collect()
}
