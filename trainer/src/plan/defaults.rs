//! Every default of training in one table.

use smalti_trainer::data::CropKind;
use smalti_trainer::train::optim::LrDecay;

/// Maximum fraction of unreadable images.
pub(crate) const MAX_BAD: f64 = 0.05;
/// What moves the matrices of the blocks.
pub(crate) const OPTIMIZER: &str = "muon";
/// Muon's highest learning rate.
pub(crate) const MUON_LR: f64 = 0.02;
/// Minutes between checkpoints.
pub(crate) const CHECKPOINT_MINUTES: f64 = 5.0;
/// Share of the patches that pretraining hides.
pub(crate) const MASK_RATIO: f64 = 0.75;
/// Images up to this side are cropped from a border, larger ones by resizing a part.
pub(crate) const SMALL: usize = 64;

/// What one kind of training does where nothing is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) epochs: u64,
    /// Steps that learning takes at least, however few images there are.
    pub(crate) min_steps: u64,
    pub(crate) batch_size: usize,
    /// Base learning rate, for 256 images a step.
    pub(crate) blr: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) weight_decay: f64,
    /// Share of the epochs in which the learning rate rises.
    pub(crate) warmup: f64,
    pub(crate) schedule: LrDecay,
    pub(crate) clip_grad: f64,
    pub(crate) layer_decay: f64,
    /// Learning rate of blocks behind convolutions that AdamW moves, over that of the rest: they begin as the identity, and at
    /// the rate of the convolutions they fit few labels before those do.
    pub(crate) block_lr: f64,
    /// Least share of an image that a resized crop takes.
    pub(crate) least: f64,
    pub(crate) flip: bool,
    pub(crate) jitter: f64,
    pub(crate) erasing: f64,
    pub(crate) smoothing: f64,
    pub(crate) drop_path: f64,
    pub(crate) token_drop: f64,
    pub(crate) mixup: f64,
    pub(crate) cutmix: f64,
}

/// Pretraining.
pub(crate) const PRETRAIN: Defaults = Defaults {
    epochs: 20,
    min_steps: 1500,
    batch_size: 128,
    blr: 2e-3,
    betas: [0.9, 0.95],
    weight_decay: 0.05,
    warmup: 0.05,
    schedule: LrDecay::Linear,
    clip_grad: 3.0,
    layer_decay: 1.0,
    block_lr: 1.0,
    least: 0.2,
    flip: true,
    jitter: 0.0,
    erasing: 0.0,
    smoothing: 0.0,
    drop_path: 0.0,
    token_drop: 0.0,
    mixup: 0.0,
    cutmix: 0.0,
};

/// Distillation.
pub(crate) const DISTIL: Defaults =
    Defaults { batch_size: 64, blr: 1.2e-2, warmup: 0.15, least: 0.35, jitter: 0.2, ..PRETRAIN };

/// Random crops of each image that a teacher sees.
pub(crate) const CROPS: u64 = 8;

/// Fine-tuning of a pretrained encoder.
pub(crate) const FINETUNE: Defaults = Defaults {
    epochs: 30,
    min_steps: 500,
    batch_size: 64,
    blr: 4e-3,
    betas: [0.9, 0.999],
    weight_decay: 0.05,
    warmup: 0.1,
    schedule: LrDecay::Linear,
    clip_grad: 3.0,
    layer_decay: 0.75,
    block_lr: 1.0,
    least: 0.4,
    flip: true,
    jitter: 0.2,
    erasing: 0.0,
    smoothing: 0.1,
    drop_path: 0.0,
    token_drop: 0.0,
    mixup: 0.0,
    cutmix: 0.0,
};

/// Training from scratch: as fine-tuning, but all layers learn alike.
pub(crate) const SCRATCH: Defaults = Defaults { layer_decay: 1.0, block_lr: 0.2, ..FINETUNE };

impl Defaults {
    /// The crop for images of this size.
    pub(crate) fn crop(&self, img_size: usize) -> CropKind {
        if img_size <= SMALL { CropKind::Padded(img_size / 8) } else { CropKind::random_resized(self.least) }
    }
}
