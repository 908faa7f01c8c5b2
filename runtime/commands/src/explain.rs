//! `explain`: a heat map over an image.

use std::path::PathBuf;

use clap::Args as Flags;
use serde_json::json;
use smalti_runtime::bank::ClassBank;
use smalti_runtime::explain::{self, Settings};
use smalti_runtime::files::Staged;
use smalti_runtime::{Error, printable};

use super::args::{Args, FileArgs, ForeignArgs};
use super::progress::Progress;
use super::{inputs, learn, open, out};

#[derive(Debug, Flags)]
pub(crate) struct ExplainArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// The image, or `-` for standard input.
    pub(crate) image: PathBuf,
    /// Where the image with the map goes (.png).
    #[arg(long, short, value_name = "FILE.png")]
    pub(crate) output: PathBuf,
    /// The label whose probability is looked at [default: the most probable one].
    #[arg(long, value_name = "NAME")]
    pub(crate) class: Option<String>,
    /// Learned classes besides the model's: a class bank of `smalti-run learn`.
    #[arg(long, value_name = "FILE")]
    pub(crate) bank: Option<PathBuf>,
    /// Places a side: the model runs once for each place, and once more.
    #[arg(long, default_value_t = Settings::default().grid as u16, value_parser = clap::value_parser!(u16).range(1..=Settings::MAX_GRID as i64))]
    pub(crate) grid: u16,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

/// What `explain --help` ends with.
pub(super) const EXAMPLE: &str = "The map is pale yellow where the answer depends on the image most, dark blue where it does not; what the model \
    did not see is darkened.\n\nExample:\n  smalti-run explain model.onnx photo.jpg --class glass -o heatmap.png";

pub(super) fn run(command: &ExplainArgs, args: &Args) -> anyhow::Result<u8> {
    if !command.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        let problem = format!("--output is {}: expected a name ending in .png", command.output.display());
        return Err(Error::Usage(problem).into());
    }
    Staged::probe(&command.output)?;
    let model = open::open(&command.model, &command.file, &command.foreign)?;
    let trust = open::trust(&command.file)?;
    let bank = command.bank.as_ref().map(|bank| learn::open_bank(bank, &model, &trust)).transpose()?;
    let bank = bank.as_ref();
    let class = |label: &str| {
        let (class, labels) = match bank {
            Some(bank) => (bank.class(label), bank.labels()),
            None => (model.class(label), model.labels()),
        };
        class.map_err(|error| open::did_you_mean(error, label, labels))
    };
    let class = command.class.as_deref().map(class).transpose()?;
    let image = inputs::read(&command.image, &model)?;
    let progress = Progress::new(args.quiet);
    let settings = Settings { class, bank, grid: command.grid.into() };
    let mut step = |done, total| {
        progress.step(done, total);
        Ok(())
    };
    let map = explain::occlusion(&mut model.session()?, image.view(), &settings, &mut step)?;
    progress.step(map.runs, map.runs);
    let png = map.over(&image)?.to_png().map_err(Error::from)?;
    Staged::write(&command.output, &png)?.commit()?;

    let labels = bank.map_or(model.labels(), ClassBank::labels);
    let (label, peak) = (labels.get(map.class).map_or("", String::as_str), map.peak());
    let (input, output) = (command.image.display(), command.output.display());
    if args.json {
        let peak = json!({ "x": peak.x, "y": peak.y, "fall": peak.fall });
        out::json(json!({
            "input": input.to_string(),
            "label": label,
            "index": map.class,
            "probability": map.probability,
            "peak": peak,
            "runs": map.runs,
            "output": output.to_string(),
        }))?;
    } else {
        let (percent, label) = (100.0 * map.probability, printable(label));
        let (x, y, fall) = (100.0 * peak.x, 100.0 * peak.y, 100.0 * peak.fall);
        out::line(&format!("{input}: {label} {percent:.1} %"))?;
        out::line(&format!(
            "most depends on the place {x:.0} % from the left, {y:.0} % from the top: {fall:.1} points less without it"
        ))?;
        out::line(&format!("the heat map is in {output}"))?;
    }
    out::next(args, &format!("open {}", out::quoted(&command.output)));
    Ok(0)
}
