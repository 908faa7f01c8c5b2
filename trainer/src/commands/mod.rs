//! Each command's work.

pub(crate) mod bench;
pub(crate) mod data;
pub(crate) mod distil;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod finetune;
pub(crate) mod import;
pub(crate) mod job;
pub(crate) mod pretrain;
pub(crate) mod reconstruct;
pub(crate) mod report;
pub(crate) mod runs;
pub(crate) mod shell;

use smalti_trainer::train::ExecConfig;

use crate::args::MachineArgs;
use crate::plan;

/// The execution settings of this machine; rayon's pool gets the same number of threads.
pub(crate) fn machine(args: &MachineArgs) -> anyhow::Result<ExecConfig> {
    let exec = plan::exec(args)?;
    rayon::ThreadPoolBuilder::new().num_threads(exec.threads).build_global()?;
    Ok(exec)
}
