//! What a quickstart does, in one table, and how much of it fits into the time.

use std::time::Duration;

use smalti_trainer::Result;
use smalti_trainer::bench::{self, Settings, Stage};
use smalti_trainer::data::{Dataset, LabelSpec, pick_labels};
use smalti_trainer::stages::finetune::{FULL_TOKENS, FinetuneSettings};
use smalti_trainer::stages::pretrain::PretrainSettings;
use smalti_trainer::train::ExecConfig;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    /// Images that are drawn to learn from, and to measure on.
    pub(super) train: usize,
    pub(super) test: usize,
    /// Their side in pixels.
    pub(super) img_size: usize,
    /// The encoder.
    pub(super) dim: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
    /// The decoder.
    pub(super) dec_dim: usize,
    pub(super) dec_depth: usize,
    pub(super) dec_heads: usize,
    /// Pretraining.
    pub(super) pretrain_batch: usize,
    pub(super) pretrain_lr: f64,
    pub(super) pretrain_epochs: [u64; 2],
    /// Fine-tuning, the same from pretrained weights and from scratch.
    pub(super) finetune_batch: usize,
    pub(super) finetune_lr: f64,
    pub(super) finetune_epochs: [u64; 2],
    /// Share of the tokens that fine-tuning leaves out: twice the epochs in about the same time.
    pub(super) token_drop: f64,
    /// Layer decay of the pretrained encoder; from scratch all layers learn alike.
    pub(super) layer_decay: f64,
    pub(super) labels_per_class: usize,
    /// Draws of labels.
    pub(super) draws: u64,
}

/// The usual one.
pub(super) const FULL: Recipe = Recipe {
    train: 6000,
    test: 1000,
    img_size: 32,
    dim: 96,
    depth: 4,
    heads: 4,
    dec_dim: 64,
    dec_depth: 1,
    dec_heads: 2,
    pretrain_batch: 32,
    pretrain_lr: 1.5e-3,
    pretrain_epochs: [8, 60],
    finetune_batch: 32,
    finetune_lr: 2e-3,
    finetune_epochs: [30, 40],
    token_drop: 0.5,
    layer_decay: 0.75,
    labels_per_class: 10,
    draws: 3,
};

/// A short one, to see that everything works; its accuracies say nothing.
pub(super) const QUICK: Recipe = Recipe {
    train: 500,
    test: 200,
    dim: 48,
    depth: 2,
    heads: 2,
    dec_dim: 32,
    pretrain_epochs: [1, 2],
    finetune_epochs: [3, 5],
    draws: 1,
    ..FULL
};

/// Seconds that export and the runtime take, about.
const AFTERWARDS: f64 = 4.0;
/// Seconds that the runtime takes for an image of a model of one million multiply-adds, about.
const RUN: f64 = 1.2e-4;
/// What is left out of a measured speed: others may want the machine too.
const CAUTION: f64 = 0.85;

/// How fast this machine trains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// Images a second.
    pub(super) pretrain: f64,
    pub(super) finetune: f64,
    /// Multiply-adds of a forward pass in millions.
    mega: f64,
}

impl Speed {
    /// Trains for a second each, as the quickstart will; without labels, fine-tuning is left out.
    pub(super) fn measure(
        pretrain: &PretrainSettings,
        finetune: Option<&FinetuneSettings>,
        data: &Dataset,
        exec: &ExecConfig,
    ) -> Result<Speed> {
        fn run(stage: Stage, data: &Dataset, exec: &ExecConfig) -> Result<f64> {
            let settings = Settings::new(stage, data, exec.clone(), Duration::from_secs(1));
            Ok(bench::run(&settings)?.images_per_s)
        }
        let finetune = match finetune {
            Some(settings) => {
                // All tokens, as in the last epochs: what is left out is reckoned apart.
                let settings = FinetuneSettings { token_drop: 0.0, ..settings.clone() };
                let labelled = data.select(&pick_labels(data, &LabelSpec::All, 0)?);
                run(Stage::Finetune(settings), &labelled, exec)?
            }
            None => f64::INFINITY,
        };
        let vit = &pretrain.model.encoder;
        Ok(Speed {
            pretrain: run(Stage::Pretrain(pretrain.clone()), data, exec)?,
            finetune,
            mega: vit.multiply_adds(vit.patches()) as f64 / 1e6,
        })
    }

    /// Seconds of all fine-tunings of this many epochs on `labels` images, measured on `test`.
    fn finetunings(&self, recipe: &Recipe, epochs: u64, labels: usize, test: usize) -> f64 {
        // Tokens are left out in all but the last epochs.
        let share = 1.0 - recipe.token_drop * (1.0 - FULL_TOKENS);
        let images = share * epochs as f64 * labels as f64 + test as f64 / 3.0;
        2.0 * recipe.draws as f64 * images / (self.finetune * CAUTION)
    }

    /// Seconds of everything after the last fine-tuning.
    fn afterwards(&self, test: usize) -> f64 {
        AFTERWARDS + test as f64 * self.mega * RUN
    }

    /// Epochs of pretraining on `train` images that fit into `seconds` when as much fine-tuning as possible is to
    /// follow.
    pub(super) fn pretrain_epochs(
        &self,
        recipe: &Recipe,
        seconds: f64,
        train: usize,
        [labels, test]: [usize; 2],
    ) -> u64 {
        let [least, most] = recipe.pretrain_epochs;
        let rest = self.finetunings(recipe, recipe.finetune_epochs[1], labels, test) + self.afterwards(test);
        // At least a third of the time is for pretraining: it is what this is about.
        let left = (seconds - rest).max(seconds / 3.0);
        within(left * self.pretrain * CAUTION / train.max(1) as f64, least, most)
    }

    /// Epochs of each fine-tuning that fit into `seconds`.
    pub(super) fn finetune_epochs(&self, recipe: &Recipe, seconds: f64, [labels, test]: [usize; 2]) -> u64 {
        let [least, most] = recipe.finetune_epochs;
        let fixed = self.finetunings(recipe, 0, labels, test) + self.afterwards(test);
        let each = self.finetunings(recipe, 1, labels, 0);
        within((seconds - fixed) / each.max(1e-9), least, most)
    }
}

/// The whole part of a number, between two bounds.
fn within(number: f64, least: u64, most: u64) -> u64 {
    (number.max(0.0) as u64).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_fits_the_time() {
        for rate in [200.0, 400.0, 1000.0, 5000.0] {
            let speed = Speed { pretrain: 3.0 * rate, finetune: rate, mega: 30.0 };
            let sizes = [100, 1000];
            let pretrain = speed.pretrain_epochs(&FULL, 140.0, FULL.train, sizes);
            let spent = pretrain as f64 * FULL.train as f64 / speed.pretrain;
            let finetune = speed.finetune_epochs(&FULL, 140.0 - spent, sizes);
            let rest = speed.finetunings(&FULL, finetune, 100, 1000) + speed.afterwards(1000);
            let within = spent + rest;
            let least = finetune == FULL.finetune_epochs[0];
            assert!(within < 140.0 || least, "{rate}: {pretrain} and {finetune} epochs, {within} s");
        }
    }

    #[test]
    fn a_slow_machine_does_the_least() {
        let speed = Speed { pretrain: 1.0, finetune: 1.0, mega: 30.0 };
        assert_eq!(speed.pretrain_epochs(&FULL, 100.0, 6000, [100, 1000]), FULL.pretrain_epochs[0]);
        assert_eq!(speed.finetune_epochs(&FULL, -5.0, [100, 1000]), FULL.finetune_epochs[0]);
    }
}
