//! The job of several ranks that `pretrain` or `finetune` is part of, if any (docs/many-machines.md).
//!
//! Rank 0 does what a single process does. It tells the others its complete arguments, and they only compute.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smalti_trainer::train::ranks::{self, Ranks};
use smalti_trainer::{Error, Result};

use crate::args::Global;
use crate::args::config::to_toml;
use crate::console::log;
use crate::console::signals::Stop;

/// This process's place among the ranks.
pub(crate) struct Job {
    ranks: Option<Arc<Ranks>>,
    /// The flags of every command, on other ranks than the first without any results or progress.
    pub(super) global: Global,
    /// The signal to stop, which several ranks heed at any time.
    stop: Option<Stop>,
}

impl Job {
    /// Joins the job that this process was started in.
    pub(super) fn join(global: &Global) -> Result<Job> {
        let ranks = ranks::join()?.map(Arc::new);
        let mut job = Job { ranks, global: global.clone(), stop: None };
        if let Some(ranks) = &job.ranks {
            let stop = Stop::listen();
            job.stop = Some(stop.clone());
            ranks.on_stop(move || stop.code());
            log::of_rank(ranks.rank());
            job.global.quiet |= ranks.rank() > 0;
        }
        Ok(job)
    }

    /// The signal to stop, from now on.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone().unwrap_or_else(Stop::listen)
    }

    /// Refuses to run several times what is no job for several ranks.
    pub(crate) fn alone(command: &str) -> Result<()> {
        match ranks::started() {
            1 => Ok(()),
            size => Err(Error::Usage(format!(
                "{command} runs in one process, but was started as one of {size}: only pretrain and finetune share work"
            ))),
        }
    }

    /// The ranks, if there are several.
    pub(super) fn ranks(&self) -> Option<Arc<Ranks>> {
        self.ranks.clone()
    }

    /// Whether this process plans, writes and shows.
    pub(super) fn is_first(&self) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)
    }

    /// The arguments that rank 0 tells; none on rank 0 itself.
    pub(super) fn told<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(ranks) = self.ranks.as_ref().filter(|_| !self.is_first()) else { return Ok(None) };
        let text = String::from_utf8_lossy(&ranks.broadcast(Vec::new())?).into_owned();
        let wrong = |e| Error::Usage(format!("what rank 0 said cannot be understood: {e}"));
        toml::from_str(&text).map(Some).map_err(wrong)
    }

    /// Tells the others the complete arguments.
    pub(super) fn tell(&self, args: &impl Serialize) -> Result<()> {
        match self.ranks.as_ref().filter(|_| self.is_first()) {
            Some(ranks) => ranks.broadcast(to_toml(args)?.into_bytes()).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Ends the job well, together with the other ranks.
    pub(super) fn leave(&self) {
        self.ranks.iter().for_each(|ranks| ranks.leave());
    }
}
