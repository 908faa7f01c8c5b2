//! How a stage is executed: nothing here changes a result.

use std::sync::Arc;
use std::time::Duration;

use super::ranks::Ranks;
use crate::data::CacheBudget;

/// Threads, loaders, ranks, checkpoints.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// Threads that compute.
    pub threads: usize,
    /// Threads that prepare batches.
    pub loader_threads: usize,
    /// Memory for prepared images, shared by all loaders of the process.
    pub cache: CacheBudget,
    /// Maximum fraction of unreadable images.
    pub max_bad: f64,
    /// Time between two checkpoints.
    pub checkpoint_every: Duration,
    /// The job of several ranks that this process is part of, if any. Rank 0 alone has a run folder.
    pub ranks: Option<Arc<Ranks>>,
}

impl ExecConfig {
    /// The defaults with so many threads: one more thread prepares batches, a checkpoint every five minutes.
    pub fn new(threads: usize) -> ExecConfig {
        ExecConfig {
            threads,
            loader_threads: 1,
            cache: CacheBudget::default(),
            max_bad: 0.05,
            checkpoint_every: Duration::from_secs(300),
            ranks: None,
        }
    }

    /// Whether this process is the first rank, or the only process.
    pub fn is_first_rank(&self) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)
    }
}
