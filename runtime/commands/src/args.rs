//! What users type.

use std::path::PathBuf;

use clap::{Args as Flags, CommandFactory, Parser, Subcommand, ValueEnum};
use smalti_runtime::models::image::PixelFormat;
use smalti_runtime::trust::Version;

/// Runs, checks and measures the image classifiers that Smalti trains, and vision transformers that PyTorch
/// exports to ONNX. Results go to the standard output, everything else to the standard error.
#[derive(Debug, Parser)]
#[command(name = "smalti-run", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print more: causes of errors, messages of tract (-vv).
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 error, 2 usage, 3 model refused, 4 check failed (selftest, inspect, quantize, compare), \
    5 unusable input data, 6 file system, 70 internal bug caught, 130 and 143 a stream or server stopped by a signal.";

#[cfg(feature = "shell")]
const COMPLETIONS: &str = "Examples:\n  smalti-run completions bash > ~/.local/share/bash-completion/completions/smalti-run\n  \
    smalti-run completions zsh > ~/.zfunc/_smalti-run\n  \
    smalti-run completions fish > ~/.config/fish/completions/smalti-run.fish";

/// All of the program, for what looks at commands that were not called.
pub(crate) fn program() -> clap::Command {
    let mut program = Args::command();
    program.build();
    program
}

// The arguments of commands that are not called would take memory on a device.
#[derive(Debug, Subcommand)]
#[cfg_attr(not(feature = "shell"), command(defer = true))]
pub(crate) enum Command {
    /// Classify images: files, folders (all images below, sorted), `-` for one image on standard input, or a
    /// stream: `mjpeg:FILE` or `raw:WIDTHxHEIGHT:PIXELS:FILE`, where FILE may be `-`.
    #[command(after_help = run_help())]
    Run(RunArgs),
    /// Accuracy over a folder of class folders, per class and as a confusion matrix.
    Eval(EvalArgs),
    /// What did the model look at? A heat map over an image: covers one place after another and shows where the probability
    /// of the class falls.
    #[cfg(feature = "explain")]
    #[command(after_help = super::explain::EXAMPLE)]
    Explain(super::explain::ExplainArgs),
    /// Answer over HTTP: a page to try the model in a browser, and to teach it (--bank); POST /classify, /embed, /explain,
    /// /learn and /anomaly for programs.
    #[cfg(feature = "serve")]
    #[command(after_help = super::serve::EXAMPLE)]
    Serve(super::serve::ServeArgs),
    /// Write a page that classifies photos and the camera's pictures by itself: one file with the model in it, for any browser.
    #[cfg(feature = "page")]
    #[command(after_help = super::page::EXAMPLE)]
    Page(super::page::PageArgs),
    /// Turn a float model into int8 with the help of some images: standard ONNX, smaller, and held to a budget.
    #[cfg(feature = "quantize")]
    Quantize(super::quantize::QuantizeArgs),
    /// Do two models say the same? Agreement, flips, cosine; fails (4) below --min-agreement.
    Compare(CompareArgs),
    /// What is in a model file; whether its weights are intact.
    #[command(after_help = "Example:\n  smalti-run inspect model.onnx")]
    Inspect(ModelArgs),
    /// Run the test vectors stored in the model: does it compute here what it computed where it was made?
    #[command(after_help = "Example:\n  smalti-run selftest model.onnx")]
    Selftest(ModelArgs),
    /// Is the model signed by this key? The signature is minisign's, in MODEL.minisig.
    Verify(VerifyArgs),
    /// The embedding of each image, the vector in front of the classifier.
    Embed(super::embed::EmbedArgs),
    /// Learn classes from a few images each, without training.
    #[command(subcommand)]
    Learn(super::learn::LearnCommand),
    /// Find what looks unlike good images.
    #[command(subcommand)]
    Anomaly(super::anomaly::AnomalyCommand),
    /// Latency, load time and peak memory on this machine.
    Bench(BenchArgs),
    /// Look this machine over: instruction set, threads, memory, what gets in the way.
    #[command(after_help = "Example:\n  smalti-run doctor")]
    Doctor,
    /// Print a completion script for a shell.
    #[cfg(feature = "shell")]
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder, or the main page to standard output.
    #[cfg(feature = "shell")]
    #[command(after_help = "Example:\n  smalti-run man ~/.local/share/man/man1")]
    Man {
        /// The folder.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Flags)]
pub(crate) struct ModelArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

#[derive(Debug, Flags)]
#[command(after_help = "Example:\n  smalti-run verify model.onnx --pubkey smalti.pub")]
pub(crate) struct VerifyArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// The key: a file, or the line of letters that `minisign -G` prints.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) pubkey: String,
    /// The lowest version of the model.
    #[arg(long)]
    pub(crate) min_version: Option<Version>,
}

#[derive(Debug, Flags)]
pub(crate) struct RunArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// Images: files, folders, `-`; or one stream.
    #[arg(required = true)]
    pub(crate) inputs: Vec<PathBuf>,
    /// The output of the model that answers, where it has several [default: `logits`, else the first of a score a class].
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,
    /// Learned classes besides the model's: a class bank of `smalti-run learn`.
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(crate) bank: Option<PathBuf>,
    /// How many labels to name an image.
    #[arg(long, short = 'k', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top_k: u32,
    /// The share of unusable images that is put up with; beyond it the exit code is 5. None of files, 5% of a stream
    /// if not given. All images are answered either way.
    #[arg(long, value_parser = share)]
    pub(crate) max_bad: Option<f64>,
    #[command(flatten)]
    pub(crate) stream: StreamArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

/// For streams.
#[derive(Debug, Flags)]
#[command(next_help_heading = "Streams")]
pub(crate) struct StreamArgs {
    /// Answer every frame, however late. Else, but for regular files, frames are dropped while the model is busy.
    #[arg(long)]
    pub(crate) every_frame: bool,
    /// The most bytes of a frame; larger ones count as bad.
    #[arg(long, default_value_t = 32 << 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_frame_bytes: u32,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

/// For what goes on for long.
#[derive(Debug, Flags)]
pub(crate) struct WatchArgs {
    /// When the model file is replaced, go on with the new one, if it is as good: signed (--pubkey), no older, of the
    /// same shapes, passing its self-test.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Seconds between looks at the model file.
    #[arg(long, default_value_t = 1.0, value_parser = interval, requires = "watch")]
    pub(crate) watch_interval: f64,
}

/// What model files must show, and what they may leave open.
#[derive(Debug, Default, Flags)]
#[command(next_help_heading = "Model files")]
pub(crate) struct FileArgs {
    /// Open only what this key signed (MODEL.minisig): a file, or the line of letters that `minisign -G` prints.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) pubkey: Option<String>,
    /// Open no model of a lower version.
    #[arg(long)]
    pub(crate) min_version: Option<Version>,
    /// Read weights from other files of the model's folder, where PyTorch's exporter puts them.
    #[arg(long)]
    pub(crate) external_data: bool,
    /// The image's side, or WIDTHxHEIGHT, for a model file that leaves it open.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) img_size: Option<[usize; 2]>,
}

#[derive(Debug, Flags)]
#[command(after_help = "Example:\n  smalti-run eval model.onnx photos/")]
pub(crate) struct EvalArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// A folder of class folders; of one with splits (`train/` and `test/` or `val/`) the test split, else val.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The output of the model that answers, where it has several [default: `logits`, else the first of a score a class].
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,
    /// Images at a time, each on a thread of its own.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// The share of unusable images that is put up with, e.g. 5%.
    #[arg(long, default_value = "5%", value_parser = share)]
    pub(crate) max_bad: f64,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

#[derive(Debug, Flags)]
#[command(after_help = "Example:\n  smalti-run compare model.onnx model-int8.onnx --data photos/")]
pub(crate) struct CompareArgs {
    /// The first model file (.onnx), e.g. the float one.
    #[arg(value_name = "A.onnx")]
    pub(crate) a: PathBuf,
    /// The second model file (.onnx), e.g. the int8 one.
    #[arg(value_name = "B.onnx")]
    pub(crate) b: PathBuf,
    /// A folder of images, of one with splits the test or val split; class folders give accuracy.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The least share of images with the same answer.
    #[arg(long, default_value = "99%", value_parser = share)]
    pub(crate) min_agreement: f64,
    /// The most points of accuracy that B may lose against A, e.g. 0.5%.
    #[arg(long, value_parser = share)]
    pub(crate) budget: Option<f64>,
    /// Images at a time, each on a thread of its own.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// The share of unusable images that is put up with, e.g. 5%.
    #[arg(long, default_value = "5%", value_parser = share)]
    pub(crate) max_bad: f64,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

#[derive(Debug, Flags)]
#[command(after_help = "Example:\n  smalti-run bench model.onnx -t 1,2,4")]
pub(crate) struct BenchArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// Threads that one image's run is shared out to; several numbers are measured one after another.
    #[arg(long, short, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Vec<u16>,
    /// Seconds to measure.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Load the model and run it so many times, and nothing else: for tools that count instructions.
    #[arg(long, hide = true)]
    pub(crate) only_runs: Option<u32>,
    /// With --only-runs: tract runs the model, even where our own kernels could.
    #[arg(long, hide = true, requires = "only_runs")]
    pub(crate) engine: bool,
}

/// For models whose file does not say how images are prepared.
#[derive(Debug, Default, Flags)]
#[command(next_help_heading = "Preprocessing (for models without a record of it, or to override it)")]
pub(crate) struct ForeignArgs {
    /// Mean of each channel on the scale 0 to 1, e.g. 0.485,0.456,0.406.
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub(crate) mean: Option<Vec<f32>>,
    /// Standard deviation of each channel on the scale 0 to 1.
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub(crate) std: Option<Vec<f32>>,
    /// How an image gets to the model's size: short side and centre crop, or both sides squashed.
    #[arg(long, value_enum)]
    pub(crate) resize: Option<FitArg>,
    /// The filter.
    #[arg(long, value_enum)]
    pub(crate) interpolation: Option<InterpolationArg>,
    /// A file with one label a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FitArg {
    Crop,
    Squash,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum InterpolationArg {
    Bilinear,
    Bicubic,
}

/// What `run --help` ends with.
fn run_help() -> String {
    format!(
        "PIXELS is one of {}.\n\nExamples:\n  smalti-run run model.onnx photo.jpg photos/ --top-k 3\n  \
         rpicam-vid --codec mjpeg --timeout 0 --nopreview --output - | smalti-run run model.onnx mjpeg:-\n  \
         smalti-run run model.onnx raw:640x480:yuyv:/dev/video0",
        PixelFormat::names()
    )
}

/// `5%` or `0.05`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.parse::<f64>().ok().map(|number| number / scale);
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "expected 0% to 100%".into())
}

/// A side in pixels, or width and height.
fn size(text: &str) -> Result<[usize; 2], String> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse().ok().filter(|side| (1..=4096).contains(side));
    let size = side(width).zip(side(height)).map(|(width, height)| [width, height]);
    size.ok_or_else(|| "expected a side from 1 to 4096, or WIDTHxHEIGHT".into())
}

/// A positive time.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "expected 0.01 to 3600".into())
}

/// A time between looks.
fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=86400.0).contains(seconds));
    seconds.ok_or_else(|| "expected 0.001 to 86400".into())
}

#[cfg(test)]
mod tests {
    use smalti_tools::usage;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        usage::check_examples(&program(), |words| words);
    }

    #[cfg(all(feature = "explain", feature = "quantize", feature = "serve", feature = "shell"))]
    #[test]
    fn the_other_program_knows_the_commands() {
        usage::check_commands(&Args::command());
    }
}
