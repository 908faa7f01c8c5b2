//! `anomaly`: what looks unlike good images, in a file beside the model.

use std::path::{Path, PathBuf};

use clap::{Args as Flags, Subcommand, ValueEnum};
use serde_json::{Value, json};
use smalti_runtime::anomaly::{AnomalyDetector, Finding, Measure, Settings, fit, overlay};
use smalti_runtime::files::Staged;
use smalti_runtime::tokens::TokenSource;
use smalti_runtime::{Error, Model, OpenOptions, images};
use smalti_tools::samples::spread;

use super::args::{Args, FileArgs, ForeignArgs, share};
use super::{inputs, learn, open, out};

/// The most good images that are learned from.
const MAX_IMAGES: usize = 1000;

const FIT: &str =
    "Example:\n  smalti-run anomaly fit model.onnx good.anomaly photos-of-good-parts/ --false-alarms 1%";
const SCORE: &str = "Example:\n  smalti-run anomaly score model.onnx good.anomaly part.jpg -o where.png";

#[derive(Debug, Subcommand)]
pub(crate) enum AnomalyCommand {
    /// Learn what good images look like.
    #[command(after_help = FIT)]
    Fit(FitArgs),
    /// Score images: above 1 is unusual.
    #[command(after_help = SCORE)]
    Score(ScoreArgs),
}

#[derive(Debug, Flags)]
pub(crate) struct FitArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// The detector to write.
    pub(crate) detector: PathBuf,
    /// Good images: files, folders.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// The share of good images that may be taken for unusual ones.
    #[arg(long, default_value = "1%", value_parser = share)]
    pub(crate) false_alarms: f64,
    /// By what images are measured: `tokens` finds small faults, `embedding` other things.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) by: MeasureArg,
    /// Tokens to remember; memory and time of a score grow with it.
    #[arg(long, value_name = "N", default_value_t = Settings::default().remember)]
    pub(crate) remember: usize,
    /// The value of the graph that gives the tokens [default: see docs/on-device-learning.md].
    #[arg(long, value_name = "NAME")]
    pub(crate) tokens: Option<String>,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MeasureArg {
    Both,
    Tokens,
    Embedding,
}

#[derive(Debug, Flags)]
pub(crate) struct ScoreArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// The detector that `smalti-run anomaly fit` wrote.
    pub(crate) detector: PathBuf,
    /// Images: files, folders, `-` for one image on standard input.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// A picture of where the image is unusual, for a single image: rose at the threshold, pale yellow far above it.
    #[arg(long, short, value_name = "FILE.png")]
    pub(crate) output: Option<PathBuf>,
    /// The share of unusable images that is put up with; beyond it the exit code is 5.
    #[arg(long, default_value = "0%", value_parser = share)]
    pub(crate) max_bad: f64,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

pub(super) fn run(command: &AnomalyCommand, args: &Args) -> anyhow::Result<u8> {
    match command {
        AnomalyCommand::Fit(command) => learn_good(command, args),
        AnomalyCommand::Score(command) => score(command, args),
    }
}

/// Opens a model that shows tokens.
fn open_model(
    path: &Path,
    tokens: TokenSource,
    output: Option<&String>,
    file: &FileArgs,
    foreign: &ForeignArgs,
) -> Result<Model, Error> {
    let options = OpenOptions { tokens: Some(tokens), output: output.cloned(), ..open::options(file)? };
    open::open_with(path, &options, foreign)
}

/// A detector and its model, which shows the tokens that the detector looks at.
pub(super) fn open_both(
    model: &Path,
    detector: &Path,
    output: Option<&String>,
    file: &FileArgs,
    foreign: &ForeignArgs,
) -> Result<(Model, AnomalyDetector), Error> {
    // The file says which tokens it wants.
    let plain = open::open_output(model, output, file, foreign)?;
    let trust = open::trust(file)?;
    let detector =
        AnomalyDetector::open(detector, &plain, &trust).map_err(|error| error.in_file(detector))?;
    drop(plain);
    let tokens = TokenSource::Value(detector.token_source().into());
    Ok((open_model(model, tokens, output, file, foreign)?, detector))
}

fn learn_good(command: &FitArgs, args: &Args) -> anyhow::Result<u8> {
    Staged::probe(&command.detector)?;
    let tokens = command.tokens.clone().map_or(TokenSource::Default, TokenSource::Value);
    let model = open_model(&command.model, tokens, None, &command.file, &command.foreign)?;
    let mut files = Vec::new();
    for input in &command.images {
        files.extend(images::list(input)?);
    }
    let kept = spread(&files, MAX_IMAGES);
    let (answers, tally) = learn::answers(&mut model.session()?, &kept)?;
    let measure = match command.by {
        MeasureArg::Both => Measure::Both,
        MeasureArg::Tokens => Measure::Tokens,
        MeasureArg::Embedding => Measure::Embedding,
    };
    let settings =
        Settings { false_alarms: command.false_alarms as f32, remember: command.remember, measure };
    let detector = fit(&model, &answers, &settings)?;
    detector.save(&command.detector)?;
    if !args.quiet {
        if kept.len() < files.len() {
            out::note(format!("learned from {} of {} images, spread evenly", kept.len(), files.len()));
        }
        if (detector.images() as f64) * command.false_alarms < 1.0 {
            let (images, most) = (detector.images(), 100.0 / detector.images() as f64);
            out::note(format!(
                "{images} images cannot show less than {most:.1} % of false alarms: give more"
            ));
        }
    }
    let ([rows, columns], remembered) = (detector.grid(), detector.remembered());
    match args.json {
        true => out::json(json!({
            "file": command.detector.display().to_string(),
            "images": detector.images(),
            "failed": tally.failed,
            "tokens": detector.token_source(),
            "grid": [rows, columns],
            "remembered": remembered,
            "false_alarms": detector.false_alarms(),
            "memory_bytes": detector.memory_bound(),
        }))?,
        false => out::line(&format!(
            "{}: {} good images, {remembered} tokens of `{}` ({rows} x {columns} places), {}",
            command.detector.display(),
            detector.images(),
            detector.token_source(),
            out::bytes(detector.memory_bound() as u64),
        ))?,
    }
    let (model, place) = (out::quoted(&command.model), out::quoted(&command.detector));
    out::next(args, &format!("smalti-run anomaly score {model} {place} IMAGES"));
    Ok(if tally.failed > 0 { inputs::BAD_INPUT } else { 0 })
}

fn score(command: &ScoreArgs, args: &Args) -> anyhow::Result<u8> {
    let (model, detector) =
        open_both(&command.model, &command.detector, None, &command.file, &command.foreign)?;
    let (mut session, mut output, mut finding) = (model.session()?, model.output(), detector.finding());
    let mut drawn = 0;
    let tally = inputs::each(&command.inputs, &model, |file, image| {
        session.run_image_into(image.view(), &mut output)?;
        detector.score_into(&model, &output, &mut finding)?;
        if let Some(place) = &command.output {
            drawn += 1;
            if drawn > 1 {
                return Err(Error::Usage("-o is for a single image".into()).into());
            }
            let drawing = overlay(&model, image, &finding.map, detector.grid())?.to_png();
            Staged::write(place, &drawing.map_err(Error::from)?)?.commit()?;
        }
        if args.json {
            return Ok(as_json(&finding));
        }
        let word = if finding.is_unusual() { "unusual" } else { "good" };
        out::line(&format!("{}: {word} {:.2}", file.display(), finding.score))?;
        Ok(Value::Null)
    })?;
    if args.json {
        out::json(json!({
            "false_alarms": detector.false_alarms(), "results": tally.results, "failed": tally.failed,
        }))?;
    }
    if command.output.is_none() && out::is_watched() {
        let (model, place) = (out::quoted(&command.model), out::quoted(&command.detector));
        out::next(
            args,
            &format!("smalti-run anomaly score {model} {place} IMAGE -o where.png, for the place"),
        );
    }
    Ok(tally.judge(command.max_bad))
}

/// What `--json` says of an image.
pub(super) fn as_json(finding: &Finding) -> Value {
    json!({
        "score": finding.score,
        "unusual": finding.is_unusual(),
        "tokens": finding.tokens,
        "embedding": finding.embedding,
    })
}
