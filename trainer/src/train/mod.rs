//! From gradients to moved parameters.
//!
//! A stage is a [`task::Task`]: its data, its loss and gradient, its validation. [`trainer`] runs any of them: it makes
//! batches, sums gradients over threads and [`ranks`] ([`step`]), moves the parameters ([`optim`]), validates, writes
//! metrics and checkpoints, resumes and stops.

pub mod cost;
pub mod exec;
mod guard;
mod loss;
pub mod memory;
pub mod observer;
pub mod optim;
pub mod ranks;
mod resume;
pub mod step;
pub mod task;
mod trainer;

use crate::error::Result;
use crate::run::RunDir;
use trainer::Trainer;

pub use exec::ExecConfig;
pub use observer::{Observer, Progress, Score};
pub use optim::OptimConfig;
pub use task::{Planner, StopCheck, Task, TaskData, Validation};
pub use trainer::Outcome;

/// Trains to the end of the task's schedule, or until the observer stops it. With a run folder, state, checkpoints and
/// metrics go there, and a run that resumes continues where its state is.
///
/// # Errors
/// [`Interrupted`](crate::Error::Interrupted) when the observer stopped the run, which was saved;
/// [`Diverged`](crate::Error::Diverged); errors of the data set, the run folder, the ranks.
pub fn train<T: Task>(
    task: &mut T,
    exec: &ExecConfig,
    run: Option<&RunDir>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let data = task.data();
    let mut trainer = Trainer::new(task, exec, run, &data)?;
    resume::start(&mut trainer, &data)?;
    if let Some(run) = run {
        run.begin(&trainer.task.settings_file()?, &trainer.task.model_files())?;
    }
    trainer.run(observer)?;
    let about = trainer.about;
    Ok(Outcome {
        params: trainer.params,
        steps: about.step,
        seconds: about.seconds,
        loss: about.loss.map_or(f64::NAN, |loss| loss.mean),
        best: about.best,
    })
}
