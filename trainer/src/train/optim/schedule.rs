//! The learning rate of each step: a linear warm-up, then a decay to zero along half a cosine or a line.

use serde::{Deserialize, Serialize};

/// The decay after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrDecay {
    /// Half a cosine (arXiv 1608.03983), as in the masked autoencoder's reference code.
    #[default]
    Cosine,
    /// A straight line to zero (arXiv 2502.15938): better with few epochs.
    Linear,
}

/// The learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The peak rate.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// The decay after the warm-up.
    pub decay: LrDecay,
}

impl Schedule {
    /// The rate of step `step`, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(self.warmup).max(1);
        let part = ((step - self.warmup) as f64 / left as f64).min(1.0);
        let share = match self.decay {
            LrDecay::Cosine => 0.5 + 0.5 * libm::cos(std::f64::consts::PI * part),
            LrDecay::Linear => 1.0 - part,
        };
        self.peak * share
    }
}

/// The peak rate by the linear scaling rule: `base · batch / 256` (arXiv 1706.02677).
pub fn scaled_rate(base: f64, batch: usize) -> f64 {
    base * batch as f64 / 256.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        for decay in [LrDecay::Cosine, LrDecay::Linear] {
            let schedule = Schedule { peak: 2.0, warmup: 10, total: 110, decay };
            assert_eq!(schedule.rate(0), 0.2);
            assert_eq!(schedule.rate(9), 2.0);
            assert_eq!(schedule.rate(10), 2.0);
            assert!((schedule.rate(60) - 1.0).abs() < 1e-12);
            assert!(schedule.rate(109) < 0.021 && schedule.rate(109) > 0.0);
            assert!(schedule.rate(110) < 1e-12 && schedule.rate(10_000) < 1e-12);
        }
        assert_eq!(scaled_rate(1e-3, 512), 2e-3);
    }

    #[test]
    fn a_run_without_warmup_starts_at_the_peak() {
        let schedule = Schedule { peak: 1.0, warmup: 0, total: 0, decay: LrDecay::Linear };
        assert_eq!(schedule.rate(0), 1.0);
    }
}
