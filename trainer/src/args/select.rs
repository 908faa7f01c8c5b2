//! The flags of `select`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::distil::TeacherArgs;
use super::{MachineArgs, ON};

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  smalti select photos/ --number 60\n  \
    smalti select photos/ --number 60 --labels smalti-select/labels.csv --init smalti-train --out round2")]
pub(crate) struct SelectArgs {
    /// The folder of images. Of one with splits, images of train/ are chosen; those in class folders have labels.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How many images to choose.
    #[arg(long, short, value_name = "N")]
    pub(crate) number: Option<usize>,
    /// The labels that there are: a table with lines `path,label` whose paths begin in DIR, in place of class folders; or
    /// `none`. Labelled images are not chosen again, and the new table holds them too [default: the class folders].
    #[arg(long, value_name = "FILE.csv|none")]
    pub(crate) labels: Option<PathBuf>,
    /// The encoder that says what looks alike: a run, a safetensors file, or `photos-nano` (in the program). With the
    /// classifier of a run, or of what `smalti train` wrote, images that it is not sure about come first
    /// [default: photos-nano].
    #[arg(long, value_name = "RUN|FILE|START", conflicts_with = "teacher")]
    pub(crate) init: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) teacher: TeacherArgs,
    /// Where everything goes: labels.csv, the chosen images as sheet.jpg, embeddings [default: smalti-select].
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Copy the chosen images into a new folder, to be sorted into a folder for each class.
    #[arg(long, value_name = "DIR")]
    pub(crate) copy: Option<PathBuf>,
    /// The seed of the clusters [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Continue in --out after an interruption [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) resume: Option<bool>,
    /// Replace what an earlier `smalti select` left in --out, but for labels that were given since [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}
