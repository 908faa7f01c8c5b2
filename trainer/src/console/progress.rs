//! Progress of a training run: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use smalti_trainer::train::{Observer, Progress, Score};

use super::log;
use super::out;
use super::signals::Stop;
use crate::args::Global;

/// Time between lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);
/// Weight of the newest step in the running means.
const NEWEST: f64 = 0.05;

/// Shows a run's progress, remembers its last step, and hands a signal on to it.
pub(crate) struct Watch<'a> {
    global: &'a Global,
    what: String,
    stop: Stop,
    bar: Option<ProgressBar>,
    told: Instant,
    last_step: Instant,
    /// Running means: seconds a step, images a second, loss.
    means: Option<[f64; 3]>,
    last: Option<Progress>,
    /// Seconds of all steps.
    spent: f64,
    /// Those of them that this rank waited for others, and for images.
    waited: [f64; 2],
}

impl<'a> Watch<'a> {
    /// A watch on what is called so.
    pub(crate) fn new(global: &'a Global, what: impl Into<String>, stop: Stop) -> Watch<'a> {
        let now = Instant::now();
        let what = what.into();
        Watch {
            global,
            what,
            stop,
            bar: None,
            told: now,
            last_step: now,
            means: None,
            last: None,
            spent: 0.0,
            waited: [0.0; 2],
        }
    }

    /// Images a second, over the last steps.
    pub(crate) fn images_per_s(&self) -> f64 {
        self.means.map_or(0.0, |means| means[1])
    }

    /// Of several ranks: the share of the time that this one waited for the sums over all.
    pub(crate) fn waiting(&self) -> Option<f64> {
        self.last?.waited.map(|_| self.waited[0] / self.spent.max(1e-9))
    }

    /// The share of the time that went by waiting for images to be decoded.
    pub(crate) fn loading(&self) -> f64 {
        self.waited[1] / self.spent.max(1e-9)
    }

    fn note(&mut self, progress: &Progress) {
        let now = [self.last_step.elapsed().as_secs_f64(), progress.images_per_s, progress.loss];
        self.last_step = Instant::now();
        self.spent += now[0];
        self.waited[0] += progress.waited.unwrap_or_default();
        self.waited[1] += progress.loading;
        self.last = Some(*progress);
        let means = self.means.get_or_insert(now);
        means.iter_mut().zip(now).for_each(|(mean, now)| *mean += NEWEST * (now - *mean));
    }

    fn line(&self, progress: &Progress) -> String {
        let [step, rate, loss] = self.means.unwrap_or_default();
        let left = out::seconds(step * progress.steps.saturating_sub(progress.step) as f64);
        format!(
            "epoch {:.1}, loss {loss:.4}, lr {:.1e}, {rate:.0} images/s, {left} left",
            progress.epoch, progress.lr
        )
    }

    fn show(&mut self, progress: &Progress) {
        if self.global.quiet {
            return;
        }
        if stderr().is_terminal() {
            let line = self.line(progress);
            let bar = self.bar.get_or_insert_with(|| new_bar(progress.steps, &self.what));
            bar.set_position(progress.step);
            bar.set_message(line);
        }
        let due = self.told.elapsed() >= EVERY;
        if due && self.bar.is_none() {
            let line = self.line(progress);
            log::tell(
                self.global,
                &format!("{}: step {}/{}, {line}", self.what, progress.step, progress.steps),
            );
        }
        if due {
            self.told = Instant::now();
        }
    }
}

/// Shows how far a count has come.
pub(crate) struct Count<'a> {
    global: &'a Global,
    what: &'static str,
    unit: &'static str,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl<'a> Count<'a> {
    /// A count of `unit` for what is called so.
    pub(crate) fn new(global: &'a Global, what: &'static str, unit: &'static str) -> Count<'a> {
        Count { global, what, unit, bar: None, told: Instant::now() }
    }

    /// `done` of `all`.
    pub(crate) fn show(&mut self, done: usize, all: usize) {
        if self.global.quiet {
            return;
        }
        if stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| new_bar(all as u64, self.what));
            bar.set_position(done as u64);
            bar.set_message(format!("{done} of {all} {}", self.unit));
        } else if self.told.elapsed() >= EVERY {
            log::tell(self.global, &format!("{}: {done} of {all} {}", self.what, self.unit));
            self.told = Instant::now();
        }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(steps: u64, what: &str) -> ProgressBar {
    let bar = log::bars().add(ProgressBar::new(steps));
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {percent}% {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar
}

impl Observer for Watch<'_> {
    fn step(&mut self, progress: &Progress) {
        self.note(progress);
        self.show(progress);
    }

    fn score(&mut self, score: &Score) {
        let found = match (score.val_accuracy, score.knn_accuracy) {
            (Some(accuracy), _) => format!("val accuracy {}", out::percent(accuracy)),
            (None, Some(accuracy)) => format!("{} by nearest neighbours", out::percent(accuracy)),
            (None, None) => return,
        };
        let line = format!("{}: epoch {}, {found}", self.what, score.epoch);
        match self.bar.is_some() {
            true => ::log::info!("{line}"),
            false => log::tell(self.global, &line),
        }
        self.last_step = Instant::now();
    }

    fn stop(&self) -> Option<u8> {
        self.stop.code()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_left() {
        let global = Global { quiet: true, ..Global::default() };
        let mut watch = Watch::new(&global, "pretrain", Stop::default());
        let mut progress = Progress {
            step: 50,
            steps: 100,
            epoch: 2.5,
            loss: 0.5,
            lr: 1e-3,
            grad_norm: 1.0,
            images: 64,
            images_per_s: 640.0,
            seconds: 5.0,
            loading: 0.0,
            waited: None,
        };
        watch.step(&progress);
        progress.loss = 0.3;
        watch.step(&progress);
        watch.means = watch.means.map(|[_, _, loss]| [0.1, 640.0, loss]);
        assert_eq!(watch.line(&progress), "epoch 2.5, loss 0.4900, lr 1.0e-3, 640 images/s, 5.0 s left");
        assert_eq!(watch.last.map(|last| last.step), Some(50));
    }
}
