//! The flags of `label`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::MachineArgs;

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Example:\n  smalti label photos/ --labels smalti-select/labels.csv\n\n\
    Every label is in the file before the next image is shown. Ctrl-C ends the command; the same command goes on where \
    it was. Only this machine reaches the page.")]
pub(crate) struct LabelArgs {
    /// The folder of images.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The table that labels are written to, lines `path,label` whose paths begin in DIR: the images that `smalti select`
    /// chose. Where it does not exist, it is made of all images of DIR [default: labels.csv].
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) labels: Option<PathBuf>,
    /// A run with a classifier, which proposes classes; images that it is least certain of come first.
    #[arg(long, value_name = "RUN")]
    pub(crate) init: Option<PathBuf>,
    /// Classes to offer from the beginning, in the order of their keys; others can be typed on the page.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) classes: Option<Vec<String>>,
    /// The port of the page [default: one that is free].
    #[arg(long, value_name = "N")]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}
