//! What users type: one struct a command, every field optional, nothing decided yet.
//!
//! [`words`] tidies the command line before clap sees it, [`config`] lays flags over a settings file, and
//! [`crate::plan`] makes settings out of what is left.

pub(crate) mod config;
pub(crate) mod curve;
pub(crate) mod distil;
pub(crate) mod label;
pub(crate) mod select;
pub(crate) mod train;
pub(crate) mod training;
pub(crate) mod words;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

pub(crate) use curve::CurveArgs;
pub(crate) use distil::DistilArgs;
pub(crate) use label::LabelArgs;
pub(crate) use select::SelectArgs;
pub(crate) use train::TrainArgs;
pub(crate) use training::{FinetuneArgs, PretrainArgs};

/// From unlabelled images to a classifier on a device: pretrains compact vision transformers as masked
/// autoencoders, fine-tunes them on few labels and exports them, on a CPU. Results go to the standard output,
/// everything else to the standard error.
#[derive(Debug, Parser)]
#[command(name = "smalti", version, max_term_width = 100, args_override_self = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

const AFTER_HELP: &str = "Every flag of a command is also a key of its --config file; a flag comes before the \
    environment (SMALTI_THREADS), the environment before the file. Underscores are taken for dashes.\n\n\
    Exit codes: 0 ok, 1 error, 2 usage, 3 model refused, 5 unusable input data, 6 file system, 70 internal bug \
    caught, 130 and 143 stopped by a signal after saving.";

const COMPLETIONS: &str = "Examples:\n  smalti completions bash > ~/.local/share/bash-completion/completions/smalti\n  \
    smalti completions zsh > ~/.zfunc/_smalti\n  \
    smalti completions fish > ~/.config/fish/completions/smalti.fish";

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print more: notes, the causes of an error; -vv for messages that help to find bugs.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Settings from a TOML file: a flag's name without the dashes, `=`, its value.
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole job on photos that are in the program, next to the same from scratch; at most three minutes.
    Quickstart(QuickstartArgs),
    /// From a folder of photos to a model file in one command: learn, choose, check, export.
    Train(Box<TrainArgs>),
    /// What more labels bring: `smalti train` over numbers of labels, draws and starts, at equal CPU time.
    Curve(Box<CurveArgs>),
    /// One page about what a run did: accuracy, mistakes as images, curves, what would help; several runs side by side.
    Report(ReportArgs),
    /// Look a data set over before any training.
    Data(DataArgs),
    /// Which images to label first: typical ones, then those that a classifier is not sure about.
    Select(Box<SelectArgs>),
    /// A page on this machine to label images by key press.
    Label(LabelArgs),
    /// Pretrain on images without labels, as a masked autoencoder.
    Pretrain(Box<PretrainArgs>),
    /// Learn a frozen teacher's embeddings on images without labels.
    Distil(Box<DistilArgs>),
    /// Train a classifier on labelled images, from a pretrained run or from scratch.
    Finetune(Box<FinetuneArgs>),
    /// Accuracy on held-out images, per class and as a confusion matrix; or of a probe on frozen embeddings.
    Eval(EvalArgs),
    /// One embedding an image, as safetensors.
    Embed(EmbedArgs),
    /// An image of what a pretrained run makes of hidden patches: original, masked, reconstructed.
    Reconstruct(ReconstructArgs),
    /// Make a run of weights of timm or Hugging Face: ViT, DeiT, DINOv2.
    Import(ImportArgs),
    /// Write a run as an ONNX file that is complete: weights, preprocessing, labels, test vectors; or its weights alone.
    Export(ExportArgs),
    /// Training throughput of this machine.
    Bench(BenchArgs),
    /// Look this machine over: instruction set, threads, memory, training speed of each model.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder, or the main page to the standard output.
    #[command(after_help = "Example:\n  smalti man ~/.local/share/man/man1")]
    Man {
        /// The folder.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// What a switch that is on looks like in a settings file, and what `--flag` alone means.
pub(crate) const ON: &str = "true";

/// Threads, and what may be wrong with the data.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Threads that compute; their number changes no result [default: all of this machine, or SMALTI_THREADS].
    #[arg(long, short, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Additional threads that read and prepare images [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) loader_threads: Option<usize>,
    /// Memory for prepared images, which are then decoded only once: 0, 512MiB, 2GiB [default: 2GiB, or a quarter of
    /// the machine's memory if that is less].
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache: Option<String>,
    /// Maximum fraction of unreadable images [default: 5%].
    #[arg(long, value_name = "SHARE")]
    pub(crate) max_bad: Option<String>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  smalti quickstart\n  smalti quickstart --data photos/ --minutes 2")]
pub(crate) struct QuickstartArgs {
    /// Your own images, one folder for each class [default: photos of fruit and vegetables].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where everything goes [default: smalti-quickstart].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an earlier quickstart in --out.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    /// The time that it may take [default: 2.5].
    #[arg(long, value_name = "MINUTES")]
    pub(crate) minutes: Option<f64>,
    /// A short form with few photos, to see that everything works; its accuracies say nothing.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) quick: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  smalti data photos/\n  smalti data labels.csv --no-timing --json")]
pub(crate) struct DataArgs {
    /// The data set: a folder with a folder for each class, in splits (train/ val/ test/ under any usual name, also inside
    /// the class folders) or without; a flat folder (unlabelled); a CSV table (`path,label`, any usual header, one-hot
    /// columns); IDX files; CIFAR-10's binary files; tar shards.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Measure how long an epoch of pretraining takes with each model here [default: on; --no-timing].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) timing: Option<bool>,
    /// Look at no more than this many images of each split [default: 100000].
    #[arg(long, value_name = "N")]
    pub(crate) most: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti eval runs/fine --data photos/\n  \
        smalti eval runs/pre --data photos/ --probe knn")]
pub(crate) struct EvalArgs {
    /// The run: what `smalti finetune` wrote; for a probe also what `smalti pretrain` or `smalti import` wrote, a safetensors
    /// file, or `photos-nano`.
    #[arg(required = true, value_name = "RUN|FILE|START")]
    pub(crate) run: Option<PathBuf>,
    /// The data set.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The split to measure on [default: the first of test and val that has labels, else all].
    #[arg(long, value_parser = ["train", "val", "test", "all"])]
    pub(crate) split: Option<String>,
    /// Measure frozen embeddings instead of the head: the 20 nearest neighbours among the training images, or
    /// logistic regression fitted on them.
    #[arg(long, value_parser = ["knn", "linear"])]
    pub(crate) probe: Option<String>,
    /// Labels that a probe learns from: all, a fraction (10%), a number, or a file of image numbers [default: all].
    #[arg(long, value_name = "SPEC")]
    pub(crate) labels: Option<String>,
    /// The seed of the draw of labels [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) label_seed: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Example:\n  smalti embed runs/pre --data photos/ -o embeddings.safetensors")]
pub(crate) struct EmbedArgs {
    /// The run: what `smalti pretrain`, `smalti finetune` or `smalti import` wrote; or a safetensors file, or `photos-nano`.
    #[arg(required = true, value_name = "RUN|FILE|START")]
    pub(crate) run: Option<PathBuf>,
    /// The data set.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The split [default: all].
    #[arg(long, value_parser = ["train", "val", "test", "all"])]
    pub(crate) split: Option<String>,
    /// Where the embeddings go.
    #[arg(long, short, value_name = "FILE.safetensors")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Example:\n  smalti reconstruct runs/pre --data photos/ -o hidden.png")]
pub(crate) struct ReconstructArgs {
    /// The run: what `smalti pretrain` wrote.
    #[arg(required = true)]
    pub(crate) run: Option<PathBuf>,
    /// The data set.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The split [default: test if there is one, else all].
    #[arg(long, value_parser = ["train", "val", "test", "all"])]
    pub(crate) split: Option<String>,
    /// Where the image goes.
    #[arg(long, short, value_name = "FILE.png")]
    pub(crate) output: Option<PathBuf>,
    /// How many images, one a row [default: 8].
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<usize>,
    /// Fraction of the patches that is hidden [default: 0.75].
    #[arg(long, value_name = "SHARE")]
    pub(crate) mask_ratio: Option<f64>,
    /// The seed of the masks [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti import dinov2-small/ -o runs/dino\n  \
        smalti import vit_small_patch14_dinov2.safetensors -o runs/dino --img-size 224")]
pub(crate) struct ImportArgs {
    /// A safetensors file of timm or Hugging Face, or a folder with `model.safetensors`. What `config.json` and
    /// `preprocessor_config.json` beside it say of heads, epsilon, classes and preprocessing is heeded.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) source: Option<PathBuf>,
    /// The run's folder.
    #[arg(long, short, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the run in --out. Only files that smalti wrote are removed [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    /// Side of the model's input in pixels, a multiple of the patch; positions are resampled to it as the program does
    /// that the weights come from [default: that of the preprocessing beside the weights, else the positions' own].
    #[arg(long, value_name = "PIXELS")]
    pub(crate) img_size: Option<usize>,
    /// Attention heads of a block, where nothing beside the weights says it [default: a head for each 64 of the width].
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// Mean of each channel on the scale 0 to 1 [default: that beside the weights, else ImageNet's].
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub(crate) mean: Option<Vec<f64>>,
    /// Standard deviation of each channel on the scale 0 to 1 [default: that beside the weights, else ImageNet's].
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub(crate) std: Option<Vec<f64>>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti export runs/fine -o model.onnx\n  \
        smalti export runs/fine -o start.safetensors")]
pub(crate) struct ExportArgs {
    /// The run: what `smalti finetune` or `smalti import` wrote. Without a head for classes the model gives embeddings.
    #[arg(required = true)]
    pub(crate) run: Option<PathBuf>,
    /// Where the model goes; a name that ends in .safetensors gets the encoder's weights alone, in f16, for --init and
    /// --start [default: model.onnx in the run].
    #[arg(long, short, value_name = "MODEL.onnx|FILE.safetensors")]
    pub(crate) output: Option<PathBuf>,
    /// What the model takes: bytes 1,H,W,C with normalisation folded into the weights, or normalised floats
    /// 1,C,H,W [default: u8-nhwc].
    #[arg(long, value_parser = ["u8-nhwc", "f32-nchw"])]
    pub(crate) input: Option<String>,
    /// One line about the model, kept in the file.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The licence of the weights, kept in the file [default: unspecified].
    #[arg(long, value_name = "TEXT")]
    pub(crate) license: Option<String>,
    /// The version of the model, kept in the file [default: 1].
    #[arg(long, value_name = "TEXT")]
    pub(crate) model_version: Option<String>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  smalti bench\n  smalti bench --model tiny --img-size 96 -t 4 --json")]
pub(crate) struct BenchArgs {
    /// What is measured: pretraining with 75 % of the patches hidden, or fine-tuning [default: pretrain].
    #[arg(long, value_parser = ["pretrain", "finetune"])]
    pub(crate) task: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) size: training::SizeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) decoder: training::DecoderArgs,
    /// What layers multiply in [default: auto].
    #[arg(long, value_parser = ["auto", "f32", "bf16"])]
    pub(crate) precision: Option<String>,
    /// Optimizer of the matrices of the blocks [default: muon, as in training].
    #[arg(long, value_parser = ["adamw", "muon"])]
    pub(crate) optimizer: Option<String>,
    /// Images a step [default: 128 for pretraining, 64 for fine-tuning, as in training].
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// Seconds to measure, after a warm-up [default: 5].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<f64>,
    /// Threads that compute [default: all of this machine, or SMALTI_THREADS].
    #[arg(long, short, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Example:\n  smalti doctor")]
pub(crate) struct DoctorArgs {
    /// Measure how fast each model trains here [default: on; --no-timing].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) timing: Option<bool>,
    /// Side of the images that are measured with, in pixels [default: 96].
    #[arg(long, value_name = "PIXELS")]
    pub(crate) img_size: Option<usize>,
    /// Threads that compute [default: all of this machine, or SMALTI_THREADS].
    #[arg(long, short, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti report runs/photos\n  \
        smalti report runs/a runs/b -o both.html\n  \
        smalti report runs/pre --text")]
pub(crate) struct ReportArgs {
    /// The runs: what `smalti train`, `quickstart`, `curve`, `finetune`, `pretrain`, `distil` or `import` wrote. One is shown whole,
    /// several side by side.
    #[arg(required = true, value_name = "RUN")]
    #[serde(default)]
    pub(crate) runs: Vec<PathBuf>,
    /// Where the page goes [default: report.html in the run; of several runs report.html here].
    #[arg(long, short, value_name = "FILE.html")]
    pub(crate) output: Option<PathBuf>,
    /// The run's images, where they are not where they were.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How the page shows what the model looks at in its mistakes: by covering parts of the image, or by following attention, which
    /// plain vision transformers have [default: occlusion].
    #[arg(long, value_parser = ["occlusion", "attention"])]
    pub(crate) explain: Option<String>,
    /// Write the page anew while the run goes on, until it ends; the browser reads it again by itself.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) follow: Option<bool>,
    /// Print the headline and curves in characters, and write a page only if --output says where.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) text: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use smalti_tools::usage;

    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        usage::check_examples(&Cli::command(), words::tidy);
    }

    #[test]
    fn the_other_program_knows_the_commands() {
        usage::check_commands(&Cli::command());
    }
}
