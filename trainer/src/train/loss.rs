//! Notices a run whose loss rises instead of falling.

use crate::error::{Error, Result};
use crate::run::LossTrack;

/// Weight of the newest step in the running mean.
const NEWEST: f64 = 0.05;
/// A single step counts for at most so many times the loss at the start: one bad batch is no divergence.
const MAX_STEP: f64 = 20.0;
/// A running mean so many times the loss at the start ends the run at once...
const DIVERGED: f64 = 4.0;
/// ...and at the end of the run so many times.
const DIVERGED_AT_END: f64 = 1.5;

/// Follows the loss of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watchdog {
    track: Option<LossTrack>,
    /// Where the loss at the start is not known: a run of a version that did not keep it.
    is_blind: bool,
}

impl Watchdog {
    /// Continues the track in the state of a run at step `step`.
    pub(super) fn new(track: Option<LossTrack>, step: u64) -> Watchdog {
        Watchdog { track, is_blind: track.is_none() && step > 0 }
    }

    /// Takes in one step's loss.
    pub(super) fn note(&mut self, loss: f64) {
        let track = self.track.get_or_insert(LossTrack { first: loss, mean: loss });
        track.mean += NEWEST * (loss.min(MAX_STEP * track.first) - track.mean);
    }

    /// For the run's state.
    pub(super) fn track(&self) -> Option<LossTrack> {
        self.track
    }

    /// An error if the loss is far above where it started. Losses are means of squares or of cross-entropies: they
    /// start where the model knows nothing.
    pub(super) fn check(&self, step: u64, is_last: bool, lr: f64) -> Result<()> {
        let Some(LossTrack { first, mean }) = self.track else { return Ok(()) };
        let limit = if is_last { DIVERGED_AT_END } else { DIVERGED };
        if self.is_blind || first <= 0.0 || mean <= limit * first {
            return Ok(());
        }
        Err(Error::Diverged(format!(
            "training diverged: the loss rose from {first:.3} to {mean:.3} by step {step} (learning rate {lr:.2e}): start \
             again with a lower --lr, --blr or --muon-lr"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(losses: impl IntoIterator<Item = f64>) -> Watchdog {
        let mut watchdog = Watchdog::default();
        losses.into_iter().for_each(|loss| watchdog.note(loss));
        watchdog
    }

    #[test]
    fn a_loss_that_rises_for_long_is_an_error_and_a_spike_is_none() {
        let fine = after((0..200).map(|i| 2.3 - 0.01 * f64::from(i % 100)));
        assert!(fine.check(200, true, 0.1).is_ok());
        let mut spike = after(vec![2.3; 50]);
        spike.note(1e9);
        assert!(spike.check(51, false, 0.1).is_ok());
        let risen = after((0..300).map(|i| if i < 20 { 2.3 } else { 100.0 }));
        let error = risen.check(300, false, 10.0).unwrap_err();
        assert!(error.exit_code() == 1 && error.to_string().contains("--lr"), "{error}");
        let somewhat = after((0..300).map(|i| if i < 20 { 2.3 } else { 5.0 }));
        assert!(somewhat.check(299, false, 1.0).is_ok() && somewhat.check(300, true, 1.0).is_err());
    }

    #[test]
    fn a_resumed_run_goes_on_with_its_track() {
        let losses: Vec<f64> = (0..100).map(|i| f64::from(1 + i % 7)).collect();
        let mut resumed = Watchdog::new(after(losses[..60].iter().copied()).track(), 60);
        losses[60..].iter().for_each(|loss| resumed.note(*loss));
        assert_eq!(resumed.track(), after(losses).track());
    }
}
