//! `quantize`: a float model to int8, measured before and after.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as Flags, ValueEnum};
use serde_json::{Value, json};
use smalti_runtime::files::{Staged, same};
use smalti_runtime::images::DataFolder;
use smalti_runtime::{Error, Model, OpenOptions};
use smalti_tools::bench;
use smalti_tools::quantize::report::{self, Page, Speed};
use smalti_tools::quantize::{Budget, Method, Quantized, Settings, Stage, quantize};
use smalti_tools::samples::{self, Sample};

use super::args::{Args, FileArgs, ForeignArgs, seconds, share};
use super::compare::check_bad;
use super::out;
use super::progress::Stages;

const EXAMPLE: &str = "Examples:\n  smalti-run quantize model.onnx --calib photos/ -o model-int8.onnx\n  \
    smalti-run quantize model.onnx --calib photos/train --data photos/test --budget 1% -o model-int8.onnx --report int8.html";

#[derive(Debug, Flags)]
#[command(after_help = EXAMPLE)]
pub(crate) struct QuantizeArgs {
    /// The float model file (.onnx).
    pub(crate) model: PathBuf,
    /// A folder of images like those that the model will see; of one with splits the train split.
    #[arg(long, value_name = "DIR")]
    pub(crate) calib: PathBuf,
    /// Where the int8 model goes.
    #[arg(long, short, value_name = "MODEL.onnx")]
    pub(crate) output: PathBuf,
    /// A folder of images to measure on, of one with splits the test or val split; class folders give accuracy [default:
    /// the calibration folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How the range of an activation is found.
    #[arg(long, value_enum, default_value_t = MethodArg::DEFAULT)]
    pub(crate) method: MethodArg,
    /// What may be lost: points of accuracy where images have labels (default 0.5%), else the share of answers
    /// that change (default 1%).
    #[arg(long, value_parser = share)]
    pub(crate) budget: Option<f64>,
    /// The most calibration images, spread evenly over the folder.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) samples: u32,
    /// How often to try, each time with more of the layers with most noise kept float.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) tries: u8,
    /// Write a page with tables and plots (.html).
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Images at a time while measuring, each on a thread of its own.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// The share of unusable images that is put up with, e.g. 5%.
    #[arg(long, default_value = "5%", value_parser = share)]
    pub(crate) max_bad: f64,
    /// Seconds to measure the latency of each model.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MethodArg {
    /// From the smallest to the largest value.
    Minmax,
    /// 99.99 % of the values.
    Percentile,
    /// The range with the least squared error.
    Mse,
}

impl MethodArg {
    /// The library's default.
    const DEFAULT: MethodArg = MethodArg::Percentile;
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Method {
        match method {
            MethodArg::Minmax => Method::Minmax,
            MethodArg::Percentile => Method::Percentile,
            MethodArg::Mse => Method::Mse,
        }
    }
}

pub(super) fn run(command: &QuantizeArgs, args: &Args) -> anyhow::Result<u8> {
    let QuantizeArgs { model: input, output, .. } = command;
    check_places(command)?;
    let float = super::open::open(input, &command.file, &command.foreign)?;
    if float.preprocess().is_none() {
        let problem = "the model file does not say how to prepare images: give --mean and --std";
        return Err(Error::Usage(problem.into()).into());
    }
    let options = super::open::options(&command.file)?;
    let bytes = options.read(input)?;
    let (calibration, measuring) = images(command, &float)?;
    let stages = Stages::new(args.quiet);
    let settings = Settings {
        method: command.method.into(),
        budget: command.budget.map_or_else(Budget::default, Budget::of),
        tries: command.tries.into(),
        threads: command.threads.into(),
        progress: &|stage, done, total| stages.step(&describe(stage), done, total),
    };
    let quantized = quantize(&bytes, &float, &calibration, &measuring, &settings)?;
    let float_bytes = bytes.len() as u64;
    drop(bytes);
    check_bad(&quantized.comparison, command.max_bad, command.data.as_ref().unwrap_or(&command.calib))?;

    let staged = Staged::write(output, &quantized.bytes)?;
    let before = measure(input, float_bytes, &options, command.seconds)?;
    let int8_bytes = quantized.bytes.len() as u64;
    let after = measure(staged.path(), int8_bytes, &OpenOptions::default(), command.seconds)?;
    let page = Page {
        name: &input.display().to_string(),
        command: &command_line(),
        method: settings.method,
        budget: settings.budget,
        quantized: &quantized,
        before,
        after,
    };
    if let Some(place) = &command.report {
        Staged::write(place, report::html(&page).as_bytes())?.commit()?;
    }
    staged.commit()?;
    match args.json {
        true => out::json(as_json(output, &quantized, command, before, after))?,
        false => out::line(as_text(output, &quantized, before, after).trim_end())?,
    }
    out::next(args, &format!("smalti-run run {} IMAGES", out::quoted(output)));
    Ok(0)
}

/// Refuses places that nothing can be written to, or where something would be lost.
fn check_places(command: &QuantizeArgs) -> Result<(), Error> {
    let outputs = [Some(&command.output), command.report.as_ref()];
    for place in outputs.into_iter().flatten() {
        if same(place, &command.model) {
            let problem = format!("{} is the model itself: write to another file", place.display());
            return Err(Error::Usage(problem));
        }
        Staged::probe(place)?;
    }
    if command.report.as_ref() == Some(&command.output) {
        return Err(Error::Usage("--output and --report name the same file".into()));
    }
    Ok(())
}

/// The images for calibration and those to measure on. Of a data set with splits, each has a split of its own.
fn images(command: &QuantizeArgs, model: &Model) -> Result<(Vec<Sample>, Vec<Sample>), Error> {
    let calib = DataFolder::read(&command.calib, model.labels())?;
    let data = command.data.as_ref().map(|data| DataFolder::read(data, model.labels())).transpose()?;
    let measuring = samples::measuring(data.as_ref().unwrap_or(&calib), model.labels());
    Ok((samples::spread(&samples::calibration(&calib), command.samples as usize), measuring))
}

/// What a stage is called.
fn describe(stage: Stage) -> String {
    match stage {
        Stage::Calibrate => "calibrating".into(),
        Stage::MeasureFloat => "measuring float".into(),
        Stage::MeasureInt8(0) => "measuring int8".into(),
        Stage::MeasureInt8(kept) => format!("measuring int8, {kept} layers float"),
    }
}

/// Size and speed of a model file.
fn measure(path: &Path, size_bytes: u64, options: &OpenOptions, seconds: f64) -> Result<Speed, Error> {
    let measure = Duration::from_secs_f64(seconds);
    let settings = bench::Settings { warm_up: measure / 5, measure, threads: 1 };
    let p50_ms = bench::run_opened(|| Model::open_with(path, options), &settings)?.p50_ms;
    Ok(Speed { p50_ms, size_bytes })
}

/// The command as it was typed.
fn command_line() -> String {
    let name = std::iter::once("smalti-run".to_owned());
    let rest = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    name.chain(rest).collect::<Vec<_>>().join(" ")
}

fn as_json(
    output: &Path,
    quantized: &Quantized,
    command: &QuantizeArgs,
    before: Speed,
    after: Speed,
) -> Value {
    let found = &quantized.comparison;
    let kept: Vec<_> = quantized.layers.iter().filter(|row| row.kept_float).map(|row| &row.name).collect();
    json!({
        "model": output.display().to_string(),
        "method": Method::from(command.method),
        "samples": quantized.samples,
        "n": found.n,
        "float_accuracy": found.accuracy_a,
        "int8_accuracy": found.accuracy_b,
        "agreement": found.agreement,
        "cosine": found.cosine,
        "cosine_of": found.cosine_of,
        "largest_difference": found.largest_difference,
        "size_bytes": { "before": before.size_bytes, "after": after.size_bytes },
        "p50_ms": { "before": before.p50_ms, "after": after.p50_ms },
        "kept_float": kept,
        "layers": quantized.layers,
        "bad": found.bad.iter().map(|(path, error)| json!({ "path": path, "error": error })).collect::<Vec<_>>(),
    })
}

fn as_text(output: &Path, quantized: &Quantized, before: Speed, after: Speed) -> String {
    let found = &quantized.comparison;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mut text = String::new();
    if let (Some(float), Some(int8)) = (found.accuracy_a, found.accuracy_b) {
        let points = 100.0 * (int8 - float);
        text += &format!(
            "accuracy   {} -> {} ({points:+.2} points, {} images)\n",
            percent(float),
            percent(int8),
            found.n
        );
    }
    text += &format!("agreement  {} of {} answers are the same\n", percent(found.agreement), found.n);
    text += &format!("cosine     {:.5} ({}, mean)\n", found.cosine, found.cosine_of);
    let share = after.size_bytes as f64 / before.size_bytes.max(1) as f64;
    let sizes = [before.size_bytes, after.size_bytes].map(out::bytes);
    text += &format!("size       {} -> {} ({})\n", sizes[0], sizes[1], percent(share));
    text += &format!("latency    {:.3} ms -> {:.3} ms (p50, this machine)\n", before.p50_ms, after.p50_ms);
    let (kept, all) = (quantized.layers.iter().filter(|row| row.kept_float), quantized.layers.len());
    let kept: Vec<_> = kept.map(|row| row.name.as_str()).collect();
    let names = if kept.is_empty() { String::new() } else { format!(": {}", kept.join(", ")) };
    text += &format!("layers     {} of {all} in int8, {} kept float{names}\n", all - kept.len(), kept.len());
    text += "noise      layers with the most, signal to noise of the output:\n";
    let mut worst: Vec<_> = quantized.layers.iter().collect();
    worst.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    for row in worst.iter().take(5) {
        text += &format!(
            "           {:5.1} dB  {}{}\n",
            row.sqnr_db,
            row.name,
            if row.kept_float { " (float)" } else { "" }
        );
    }
    text + &format!("written    {}", output.display())
}
