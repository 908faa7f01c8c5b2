//! The flags of `train`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::distil::TeacherArgs;
use super::training::SizeArgs;
use super::{MachineArgs, ON};

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti train photos/\n  \
        smalti train photos/ --labels smalti-select/labels.csv --budget 20m -o runs/photos\n  \
        smalti train photos/ --teacher lite0.onnx -o runs/photos")]
pub(crate) struct TrainArgs {
    /// The photos: one folder for each class, in splits (train/ val/ test/) or without, with images that nobody has labelled in
    /// unlabelled/; or a folder of images whose labels --labels names.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// More images without labels.
    #[arg(long, value_name = "DIR")]
    pub(crate) unlabelled: Option<PathBuf>,
    /// Images to learn from: of more, all labelled ones and others from everywhere [default: as many as the teacher sees in a
    /// quarter of the budget; all without a teacher].
    #[arg(long, value_name = "N")]
    pub(crate) most_images: Option<usize>,
    /// Labels to learn from: all, a fraction (10%), a number (60), a file of image numbers, or a table with lines
    /// `path,label` whose paths begin in DIR; all other images count as unlabelled [default: all].
    #[arg(long, value_name = "SPEC|FILE.csv")]
    pub(crate) labels: Option<String>,
    /// The seed of the draw of labels [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) label_seed: Option<u64>,
    /// CPU time of all threads that everything may take: 90s, 10m, 2h [default: 10m].
    #[arg(long, value_name = "TIME")]
    pub(crate) budget: Option<String>,
    /// What the encoder starts from, before it learns from a teacher or from labels: a run, a safetensors file, `photos-nano`
    /// (in the program), `scratch`, or `auto` [default: auto: photos-nano, or scratch for a model of another size and for
    /// images below 64 pixels].
    #[arg(long, value_name = "auto|START|RUN|FILE|scratch")]
    pub(crate) start: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) teacher: TeacherArgs,
    /// Where everything goes: runs, model.onnx, report.json [default: smalti-train].
    #[arg(long, short, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// One line about the model, kept in its files [default: Made by smalti train].
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The licence of the weights, kept in the model's files [default: unspecified].
    #[arg(long, value_name = "TEXT")]
    pub(crate) license: Option<String>,
    /// Continue in --out after an interruption [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) resume: Option<bool>,
    /// Replace what an earlier `smalti train` left in --out. Only files that smalti wrote are removed [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) size: SizeArgs,
    /// Mirror half of the images: not where left and right tell classes apart [default: on, unless held-out images of a start say
    /// that they do; --no-flip].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) flip: Option<bool>,
    /// The seed of everything random [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}
