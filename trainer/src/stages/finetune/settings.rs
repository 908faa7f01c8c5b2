//! The settings of a fine-tuning, and their flags.

use serde::{Deserialize, Serialize};
use smalti_models::{Pooling, Preprocess, VitConfig};
use toml::Table;

use crate::data::{Augment, Mix};
use crate::error::{Error, Result};
use crate::stages::flags;
use crate::train::OptimConfig;
use crate::train::step::BatchPlan;

/// Fraction of the epochs, the last ones, that see every token, whatever [`FinetuneSettings::token_drop`] says. The last
/// epoch always does.
pub const FULL_TOKENS: f64 = 0.2;

/// What the head starts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadInit {
    /// Weights near zero.
    #[default]
    Fresh,
    /// Logistic regression on frozen embeddings ([`crate::stages::head`]).
    Probe,
}

impl HeadInit {
    fn is_fresh(&self) -> bool {
        *self == HeadInit::Fresh
    }
}

fn is_off(share: &f64) -> bool {
    *share == 0.0
}

/// Everything that decides what a fine-tuning run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FinetuneSettings {
    /// The encoder.
    pub encoder: VitConfig,
    /// How tokens become one vector.
    pub pool: Pooling,
    /// The model's input.
    pub preprocess: Preprocess,
    /// How parameters move.
    pub optim: OptimConfig,
    /// Changes to each image.
    pub augment: Augment,
    /// Mixtures of images.
    pub mix: Mix,
    /// Share of each target that is spread over all classes.
    pub smoothing: f64,
    /// Probability that a residual branch of the last block is left out; lower blocks proportionally less.
    pub drop_path: f64,
    /// Share of the patches that training leaves out at random, until the last fifth of the epochs.
    pub token_drop: f64,
    /// What the head starts as.
    #[serde(default, skip_serializing_if = "HeadInit::is_fresh")]
    pub head: HeadInit,
    /// Decay of the moving average of the weights that is validated and saved in place of them; 0 for none.
    #[serde(default, skip_serializing_if = "is_off")]
    pub ema: f64,
    /// Share of the starting weights in what is validated and saved (WiSE-FT, arXiv 2109.01903); 0 for none.
    #[serde(default, skip_serializing_if = "is_off")]
    pub interpolate: f64,
}

impl FinetuneSettings {
    /// Refuses what cannot be carried out.
    pub fn check(&self) -> Result<()> {
        self.encoder.check()?;
        self.preprocess.check()?;
        self.optim.check()?;
        if (self.encoder.img_size, self.encoder.channels)
            != (self.preprocess.img_size, self.preprocess.channels)
        {
            return Err(Error::Usage(
                "the model's image size or channels differ from the preprocessing's".into(),
            ));
        }
        for (name, value) in [
            ("smoothing", self.smoothing),
            ("drop-path", self.drop_path),
            ("token-drop", self.token_drop),
            ("ema", self.ema),
            ("interpolate", self.interpolate),
        ] {
            let is_whole = name == "interpolate" && value == 1.0;
            if !(0.0..1.0).contains(&value) && !is_whole {
                return Err(Error::Usage(format!("{name} is {value}: expected 0 to below 1")));
            }
        }
        self.mix.check()
    }

    /// Patches of each image that the encoder sees in this epoch.
    pub(super) fn seen(&self, epoch: u64) -> usize {
        let patches = self.encoder.patches();
        let epochs = self.optim.epochs;
        let is_full = epoch as f64 >= epochs as f64 * (1.0 - FULL_TOKENS) || epoch + 1 == epochs;
        if is_full {
            return patches;
        }
        ((patches as f64 * (1.0 - self.token_drop)).round() as usize).clamp(1, patches)
    }

    /// How a batch of this epoch is cut up.
    pub(super) fn plan(&self, epoch: u64, images: usize) -> BatchPlan {
        BatchPlan::of(&self.encoder, self.seen(epoch), images)
    }

    /// The flags of `smalti finetune`.
    pub(super) fn flags(&self) -> Result<Table> {
        let mut table = Table::new();
        flags::encoder(&mut table, &self.encoder)?;
        flags::put(&mut table, "pool", self.pool)?;
        flags::preprocess(&mut table, &self.preprocess)?;
        flags::augment(&mut table, &self.augment)?;
        flags::optim(&mut table, &self.optim)?;
        flags::put(&mut table, "layer-decay", self.optim.layer_decay)?;
        flags::put(&mut table, "mixup", self.mix.mixup)?;
        flags::put(&mut table, "cutmix", self.mix.cutmix)?;
        flags::put(&mut table, "smoothing", self.smoothing)?;
        flags::put(&mut table, "drop-path", self.drop_path)?;
        flags::put(&mut table, "token-drop", self.token_drop)?;
        flags::put(&mut table, "head", self.head)?;
        flags::put(&mut table, "ema", self.ema)?;
        flags::put(&mut table, "interpolate", self.interpolate)?;
        Ok(table)
    }
}
