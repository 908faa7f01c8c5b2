//! The flags of `pretrain` and `finetune`, under the names that users of MAE's code and of timm know.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{MachineArgs, ON};

/// Where a run goes.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RunArgs {
    /// The run's folder: settings, metrics, checkpoints and messages go there.
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Continue the run in --out after an interruption, with the settings and on the images that it was started with
    /// [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) resume: Option<bool>,
    /// Replace the run in --out. Only files that smalti wrote are removed [default: off].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    /// Minutes between checkpoints [default: 5].
    #[arg(long, value_name = "MINUTES")]
    pub(crate) checkpoint_minutes: Option<f64>,
}

/// The model's size.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Model")]
pub(crate) struct SizeArgs {
    /// nano: width 128, depth 6, 4 heads; micro: 160, 8, 5; tiny: 192, 12, 3 (ViT-Tiny); hybrid-nano: convolutions, then
    /// 128, 2, 4 [default: nano].
    #[arg(long, value_parser = ["nano", "micro", "tiny", "hybrid-nano"])]
    pub(crate) model: Option<String>,
    /// What makes tokens of an image: a linear layer on each patch, or four stages of convolutions, to a token for each 16
    /// pixels squared [default: the model's].
    #[arg(long, value_parser = ["patches", "convolutions"])]
    pub(crate) stem: Option<String>,
    /// Side of the model's input in pixels [default: the images' own if they share one of at most 128, else 96; with
    /// convolutions a multiple of 16].
    #[arg(long, value_name = "PIXELS")]
    pub(crate) img_size: Option<usize>,
    /// Side of a patch in pixels [default: the divisor of the image size that gives about 64 patches; with convolutions 16].
    #[arg(long, value_name = "PIXELS")]
    pub(crate) patch_size: Option<usize>,
    /// 1 (grey) or 3 (RGB) [default: the images' own].
    #[arg(long, value_name = "N")]
    pub(crate) channels: Option<usize>,
    /// Width of a token [default: the model's].
    #[arg(long, value_name = "N")]
    pub(crate) dim: Option<usize>,
    /// Number of blocks [default: the model's].
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// Attention heads of a block [default: the model's].
    #[arg(long, value_name = "N")]
    pub(crate) heads: Option<usize>,
    /// What the model has besides a plain vision transformer, as networks that were imported have: registers=N,
    /// no-embed-class, layer-scale, qk-norm, swiglu, hidden=N, norm-eps=X; several with commas between them [default: that
    /// of --init, else nothing].
    #[arg(long, value_name = "PART,...")]
    pub(crate) variant: Option<String>,
}

/// The decoder's size.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Model")]
pub(crate) struct DecoderArgs {
    /// full: every patch is a token and sees all others; cross: only hidden patches are, and they see only what was
    /// encoded (CrossMAE) [default: full].
    #[arg(long, value_parser = ["full", "cross"])]
    pub(crate) decoder: Option<String>,
    /// Width of a decoder token [default: 64].
    #[arg(long, value_name = "N")]
    pub(crate) dec_dim: Option<usize>,
    /// Number of decoder blocks [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) dec_depth: Option<usize>,
    /// Attention heads of a decoder block [default: 2].
    #[arg(long, value_name = "N")]
    pub(crate) dec_heads: Option<usize>,
}

/// From an image to the model's input.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Images")]
pub(crate) struct ImageArgs {
    /// Short side to the image size and centre crop, or both sides squashed [default: crop].
    #[arg(long, value_parser = ["crop", "squash"])]
    pub(crate) fit: Option<String>,
    /// Share of the resized side that is left after the crop, as in timm: 0.875 resizes to 256 before 224 are cut out
    /// [default: that of --init, else 1].
    #[arg(long, value_name = "SHARE")]
    pub(crate) crop_pct: Option<f64>,
    /// The filter of the resize [default: bicubic].
    #[arg(long, value_parser = ["bilinear", "bicubic"])]
    pub(crate) interpolation: Option<String>,
    /// Mean of each channel on the scale 0 to 1, e.g. 0.485,0.456,0.406 [default: that of the images].
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub(crate) mean: Option<Vec<f64>>,
    /// Standard deviation of each channel on the scale 0 to 1 [default: that of the images].
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub(crate) std: Option<Vec<f64>>,
    /// Which part of each image is seen in training: none (always the same), padded or padded:PIXELS (a border, then a
    /// random place), resized or resized:LEAST (a random part of at least this fraction, resized) [default: padded by an eighth
    /// up to 64 pixels; above, resized].
    #[arg(long, value_name = "KIND")]
    pub(crate) crop: Option<String>,
    /// Mirror half of the images [default: on; --no-flip].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) flip: Option<bool>,
    /// Operations drawn at random for each image: none, trivial (TrivialAugment Wide: one operation of random strength),
    /// or rand:N,M (RandAugment: N operations of magnitude M, 0 to 30; rand alone is rand:2,9) [default: none].
    #[arg(long, value_name = "KIND")]
    pub(crate) augment: Option<String>,
    /// Operations that --augment never draws, because they would change what an image means: all geometric or
    /// photometric ones, or any of shear-x, shear-y, translate-x, translate-y, rotate, brightness, color, contrast, sharpness,
    /// posterize, solarize, auto-contrast, equalize.
    #[arg(long, value_delimiter = ',', value_name = "OP,...")]
    pub(crate) augment_skip: Option<Vec<String>>,
    /// Change brightness, contrast and saturation by up to this fraction [default: 0.2 in fine-tuning without --augment,
    /// else 0].
    #[arg(long, value_name = "SHARE")]
    pub(crate) jitter: Option<f64>,
    /// Probability that a rectangle is filled with noise [default: 0].
    #[arg(long, value_name = "P")]
    pub(crate) erasing: Option<f64>,
}

/// How parameters are moved over a run.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Optimization")]
pub(crate) struct OptimArgs {
    /// CPU time of all threads that the run may take: 90s, 10m, 2h. The number of steps follows from a few steps that are
    /// timed first [default: none].
    #[arg(long, value_name = "TIME", conflicts_with_all = ["steps", "epochs"])]
    pub(crate) budget: Option<String>,
    /// Number of steps [default: what --epochs says, but at least 1500 for pretraining and distillation, 500 for
    /// fine-tuning].
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub(crate) steps: Option<u64>,
    /// Number of epochs, however few steps they are [default: 20 for pretraining and distillation, 30 for fine-tuning].
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// Images per step, before --accum-iter [default: 128 for pretraining, 64 for fine-tuning].
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// Steps average over batch-size times this. Memory does not grow with either: images go through the model a
    /// few at a time [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) accum_iter: Option<usize>,
    /// Base learning rate: the learning rate is this times the images per step / 256 [default: 2e-3 for pretraining, 4e-3
    /// for fine-tuning].
    #[arg(long, value_name = "RATE")]
    pub(crate) blr: Option<f64>,
    /// Peak learning rate [default: from --blr].
    #[arg(long, value_name = "RATE")]
    pub(crate) lr: Option<f64>,
    /// Learning rate of the blocks over that of the rest [default: 0.2 for fine-tuning from scratch, where
    /// the blocks stand behind convolutions and AdamW moves them; else 1].
    #[arg(long, value_name = "FACTOR")]
    pub(crate) block_lr: Option<f64>,
    /// Optimizer of the matrices of the blocks; AdamW updates all other tensors [default: muon].
    #[arg(long, value_parser = ["adamw", "muon"])]
    pub(crate) optimizer: Option<String>,
    /// Muon's peak learning rate [default: 0.02].
    #[arg(long, value_name = "RATE")]
    pub(crate) muon_lr: Option<f64>,
    /// AdamW's beta1 and beta2 [default: 0.9,0.95 for pretraining, 0.9,0.999 for fine-tuning].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_name = "B1,B2")]
    pub(crate) betas: Option<Vec<f64>>,
    /// Weight decay of the matrices; biases, norms, tokens and positions have none [default: 0.05].
    #[arg(long, value_name = "DECAY")]
    pub(crate) weight_decay: Option<f64>,
    /// Epochs of the linear warm-up; may be a fraction [default: 5 % of the epochs for pretraining, 10 % for fine-tuning].
    #[arg(long, value_name = "N")]
    pub(crate) warmup_epochs: Option<f64>,
    /// Decay of the learning rate to zero, after the warm-up [default: linear].
    #[arg(long, value_parser = ["cosine", "linear"])]
    pub(crate) schedule: Option<String>,
    /// Maximum gradient norm; 0 for no clipping [default: 3].
    #[arg(long, value_name = "LENGTH")]
    pub(crate) clip_grad: Option<f64>,
    /// The seed of everything random: the same seed gives the same bits [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Precision of matrix products. `auto` takes bf16 where the processor multiplies it, else f32 [default: auto].
    #[arg(long, value_parser = ["auto", "f32", "bf16"])]
    pub(crate) precision: Option<String>,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti pretrain --data photos/ --out runs/pre --budget 30m\n  \
        smalti pretrain --out runs/pre --resume")]
pub(crate) struct PretrainArgs {
    /// The data set, of any kind that `smalti data` reads (`smalti data --help`); labels are not looked at.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The split to learn from [default: train].
    #[arg(long, value_parser = ["train", "all"])]
    pub(crate) split: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) size: SizeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Fraction of the patches that is hidden [default: 0.75].
    #[arg(long, value_name = "SHARE")]
    pub(crate) mask_ratio: Option<f64>,
    /// Fraction of the hidden patches that is predicted; below 1 only with --decoder cross [default: 1].
    #[arg(long, value_name = "SHARE")]
    pub(crate) predict_ratio: Option<f64>,
    /// Predict each patch normalised by its own mean and standard deviation [default: on; --no-norm-pix-loss].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ON, value_name = "BOOL")]
    pub(crate) norm_pix_loss: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) optim: OptimArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(after_help = "Examples:\n  \
        smalti finetune --data photos/ --init runs/pre --out runs/fine\n  \
        smalti finetune --data photos/ --init photos-nano --labels 10% --head probe --out runs/fine")]
pub(crate) struct FinetuneArgs {
    /// The data set, with labels: of any kind that `smalti data` reads (`smalti data --help`).
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where to start: a run, a safetensors file of timm or Hugging Face (ViT, DeiT, DINOv2, MAE), `photos-nano` (in the
    /// program), or `scratch`. Sizes come from
    /// there; --img-size may differ, and positions are then resampled.
    #[arg(long, value_name = "RUN|FILE|START|scratch")]
    pub(crate) init: Option<PathBuf>,
    /// Labels to learn from: all, a fraction (10%), a number (500), or a file with one image number (from 0) a line
    /// [default: all].
    #[arg(long, value_name = "SPEC|FILE")]
    pub(crate) labels: Option<String>,
    /// The seed of the draw of labels [default: 0].
    #[arg(long, value_name = "N")]
    pub(crate) label_seed: Option<u64>,
    /// Labelled images that choose the best epoch: another data set (a folder, a CSV table), a fraction of the labels (20%), a
    /// file of image numbers, or none [default: the data set's val split, if any].
    #[arg(long, value_name = "SPEC|DIR|FILE")]
    pub(crate) val: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) size: SizeArgs,
    /// How tokens become one vector: the class token, or the mean over patch tokens [default: mean; from an imported run
    /// its own].
    #[arg(long, value_parser = ["token", "mean"])]
    pub(crate) pool: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) optim: OptimArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) regular: RegularArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) machine: MachineArgs,
}

/// What keeps a classifier from learning its images by heart.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Regularisation")]
pub(crate) struct RegularArgs {
    /// Learning rate of a layer over that of the layer above it [default: 0.75; 1 from scratch].
    #[arg(long, value_name = "FACTOR")]
    pub(crate) layer_decay: Option<f64>,
    /// Drop-path rate of the last block; it falls linearly towards the first [default: 0].
    #[arg(long, value_name = "P")]
    pub(crate) drop_path: Option<f64>,
    /// Alpha of mixup; 0 for none [default: 0].
    #[arg(long, value_name = "ALPHA")]
    pub(crate) mixup: Option<f64>,
    /// Alpha of CutMix; 0 for none [default: 0].
    #[arg(long, value_name = "ALPHA")]
    pub(crate) cutmix: Option<f64>,
    /// Label smoothing: fraction of each target that is spread over all classes [default: 0.1].
    #[arg(long, value_name = "SHARE")]
    pub(crate) smoothing: Option<f64>,
    /// What the head starts as: weights near zero, or logistic regression on frozen embeddings [default: fresh].
    #[arg(long, value_parser = ["fresh", "probe"])]
    pub(crate) head: Option<String>,
    /// Decay of a moving average of the weights, which takes their place in the end; 0 for none [default: 0].
    #[arg(long, value_name = "DECAY")]
    pub(crate) ema: Option<f64>,
    /// Share of the starting weights in the final ones (WiSE-FT); 0 for none [default: 0].
    #[arg(long, value_name = "SHARE")]
    pub(crate) interpolate: Option<f64>,
    /// Fraction of the patches that training drops at random. The last fifth of the epochs, and at least the last one, sees
    /// all [default: 0].
    #[arg(long, value_name = "SHARE")]
    pub(crate) token_drop: Option<f64>,
}
