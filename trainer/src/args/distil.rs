//! The flags of `distil`, and those of a teacher.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::training::{ImageArgs, OptimArgs, RunArgs, SizeArgs};
use super::{MachineArgs, ON};

/// The teacher of a distillation.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Teacher")]
pub(crate) struct TeacherArgs {
    /// The frozen network whose embeddings are learned: an ONNX file, a safetensors file of timm or Hugging Face (or its
    /// folder), or a run.
    #[arg(long, value_name = "FILE|DIR|RUN|START")]
    pub(crate) teacher: Option<PathBuf>,
    /// The output of an ONNX file that is the embedding; of tokens or maps their mean [default: `embedding`, else the only
    /// one of shape 1,K, else the only one].
    #[arg(long, value_name = "NAME")]
    pub(crate) teacher_output: Option<String>,
    /// Side of the input of a safetensors file's network, in pixels, a multiple of its patch [default: what stands beside the
    /// weights, else the positions' own].
    #[arg(long, value_name = "PIXELS")]
    pub(crate) teacher_img_size: Option<usize>,
    /// Mean that the teacher's input is normalised by, on the scale 0 to 1 [default: what its file says, else 0 where the
    /// network itself begins by normalising 0 to 255, else ImageNet's].
    #[arg(long, value_delimiter = ',', value_name = "R,G,B", requires = "teacher_std")]
    pub(crate) teacher_mean: Option<Vec<f64>>,
    /// Standard deviation, as --teacher-mean.
    #[arg(long, value_delimiter = ',', value_name = "R,G,B", requires = "teacher_mean")]
    pub(crate) teacher_std: Option<Vec<f64>>,
    /// Random crops of each image that the teacher sees, once each [default: 8].
    #[arg(long, value_name = "N")]
    pub(crate) crops: Option<u64>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Example:\n  \
        smalti distil --teacher lite0.onnx --data photos/ --model hybrid-nano --budget 20m --out runs/student")]
pub(crate) struct DistilArgs {
    /// The data set, of any kind that `smalti data` reads (`smalti data --help`); labels are not looked at.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The split to learn from [default: train].
    #[arg(long, value_parser = ["train", "all"])]
    pub(crate) split: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) teacher: TeacherArgs,
    /// Where the student starts: a run, a safetensors file, or `scratch` [default: scratch].
    #[arg(long, value_name = "RUN|FILE|START|scratch")]
    pub(crate) init: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) optim: OptimArgs,
    /// Alpha of mixup, of images and targets alike; 0 for none [default: 0].
    #[arg(long, value_name = "ALPHA")]
    pub(crate) mixup: Option<f64>,
    /// Alpha of CutMix; 0 for none [default: 0].
    #[arg(long, value_name = "ALPHA")]
    pub(crate) cutmix: Option<f64>,
    /// Learn the teacher's vector for each place of the image besides their mean [default: on, where a teacher in an ONNX file
    /// averages places, up to 50000 images, without CutMix].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) token_targets: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}
