//! The flags of `curve`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{MachineArgs, ON};

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Example:\n  \
        smalti curve photos/ --labels 1,5,10,all --starts auto,scratch --budget 5m -o runs/curve")]
pub(crate) struct CurveArgs {
    /// The photos, as `smalti train` takes them, with labels.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Labels of each class, in mean; or all [default: 1,5,10,50,all].
    #[arg(long, value_delimiter = ',', value_name = "N,N,...")]
    pub(crate) labels: Option<Vec<String>>,
    /// What trainings start from, each as `smalti train --start` takes it [default: auto,scratch].
    #[arg(long, value_delimiter = ',', value_name = "auto|START|RUN|FILE|scratch,...")]
    pub(crate) starts: Option<Vec<PathBuf>>,
    /// Draws of labels [default: 3].
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// CPU time of each training: 90s, 10m, 2h [default: 10m].
    #[arg(long, value_name = "TIME")]
    pub(crate) budget: Option<String>,
    /// Where everything goes: a folder for each training, report.json, curve.svg [default: smalti-curve].
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Continue in --out after an interruption: what is there already is not trained again [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) resume: Option<bool>,
    /// Replace what an earlier `smalti curve` left in --out. Only files that smalti wrote are removed [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}
