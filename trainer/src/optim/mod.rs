//! How parameters move: AdamW over the flat vector, and the learning rate's way over the run.

pub mod adamw;
pub mod schedule;

pub use adamw::AdamW;
pub use schedule::{Decay, Schedule};
