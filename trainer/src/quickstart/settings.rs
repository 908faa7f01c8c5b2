//! The recipe as the flags of `pretrain` and `finetune`, so that a quickstart plans what those commands would.

use smalti_trainer::Result;
use smalti_trainer::stages::pretrain::PretrainSettings;

use super::Quickstart;
use super::images::Images;
use crate::args::training::{DecoderArgs, OptimArgs, RegularArgs, RunArgs, SizeArgs};
use crate::args::{FinetuneArgs, PretrainArgs};
use crate::plan;

impl Quickstart<'_> {
    /// The pretraining, epochs left open, with the size and channels of the images found.
    pub(super) fn plan_pretraining(&self, images: &Images) -> Result<(PretrainArgs, PretrainSettings)> {
        let recipe = &self.recipe;
        let mut args = PretrainArgs {
            data: Some(images.path.clone()),
            run: self.run_args("pretrain"),
            size: SizeArgs {
                dim: Some(recipe.dim),
                depth: Some(recipe.depth),
                heads: Some(recipe.heads),
                ..SizeArgs::default()
            },
            decoder: DecoderArgs {
                dec_dim: Some(recipe.dec_dim),
                dec_depth: Some(recipe.dec_depth),
                dec_heads: Some(recipe.dec_heads),
                ..DecoderArgs::default()
            },
            optim: OptimArgs {
                batch_size: Some(recipe.pretrain_batch.min(images.train.len())),
                lr: Some(recipe.pretrain_lr),
                // Muon's own work, the same at any batch, is dear at a small one; the plan's speeds are AdamW's.
                optimizer: Some("adamw".into()),
                ..OptimArgs::default()
            },
            ..PretrainArgs::default()
        };
        let settings = plan::pretrain::plan(&mut args.clone(), &images.train)?;
        // Found once, so that neither sizes nor statistics are looked for again.
        args.size.img_size = Some(settings.preprocess.img_size);
        args.size.channels = Some(settings.preprocess.channels);
        Ok((args, settings))
    }

    fn run_args(&self, name: &str) -> RunArgs {
        let (out, overwrite) = (Some(self.out.join(name)), Some(self.overwrite));
        RunArgs { out, overwrite, ..RunArgs::default() }
    }

    /// A fine-tuning on that many labels of the draw `seed`.
    pub(super) fn finetune_args(
        &self,
        images: &Images,
        labels: usize,
        seed: u64,
        epochs: u64,
    ) -> FinetuneArgs {
        FinetuneArgs {
            data: Some(images.path.clone()),
            init: Some(self.out.join("pretrain")),
            labels: Some(labels.to_string()),
            label_seed: Some(seed),
            val: Some("none".into()),
            run: self.run_args("finetune"),
            optim: OptimArgs {
                epochs: Some(epochs),
                batch_size: Some(self.recipe.finetune_batch),
                lr: Some(self.recipe.finetune_lr),
                seed: Some(seed),
                optimizer: Some("adamw".into()), // As above.
                ..OptimArgs::default()
            },
            regular: RegularArgs {
                layer_decay: Some(self.recipe.layer_decay),
                token_drop: Some(self.recipe.token_drop),
                ..RegularArgs::default()
            },
            ..FinetuneArgs::default()
        }
    }
}
