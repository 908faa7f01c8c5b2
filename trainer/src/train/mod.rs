//! From gradients to moved parameters.
//!
//! A stage is a [`task::Task`]: its data, its loss and gradient, its validation. [`trainer`] runs any of them: it makes
//! batches, sums gradients over threads and [`ranks`] ([`step`]), moves the parameters ([`optim`]), validates, writes
//! metrics and checkpoints, resumes and stops.

pub mod exec;
mod loss;
pub mod memory;
pub mod observer;
pub mod optim;
pub mod ranks;
mod resume;
pub mod step;
pub mod task;
pub mod trainer;

pub use exec::ExecConfig;
pub use observer::{Observer, Progress, Score};
pub use optim::OptimConfig;
pub use task::{Planner, StopCheck, Task, TaskData};
pub use trainer::{Outcome, train};
