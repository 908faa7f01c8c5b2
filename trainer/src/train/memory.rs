//! The memory that training takes, in bytes: the sum of its buffers, computed from the settings.
//!
//! Only the images themselves grow with the batch, and up to 64 the lanes of ranks. Activations exist once a thread, for one
//! micro-batch. A test compares these sums with what is allocated.

use serde::Serialize;
use smalti_kernels::winograd::PLACES;
use smalti_models::stem::{Stage, Stem};
use smalti_models::{DecoderKind, MaeConfig, Pooling, Variant, VitConfig, names};

use crate::model::ops::winograd;
use crate::train::step::BatchPlan;

/// Bytes of one value.
const FLOAT: usize = size_of::<f32>();

/// The memory of training by purpose, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Parameters, both moments, and the sum of the gradients.
    pub parameters: usize,
    /// The gradients of lanes before they are added.
    pub lanes: usize,
    /// The activations of one micro-batch on each thread, and their gradients.
    pub activations: usize,
    /// One batch of images. A loader holds one more, and one for each of its threads.
    pub images: usize,
}

impl Memory {
    /// The sum.
    pub fn bytes(&self) -> usize {
        self.parameters + self.lanes + self.activations + self.images
    }

    /// Pretraining in one process, with `visible` patches of each image visible and all others predicted.
    pub fn of_pretraining(config: &MaeConfig, visible: usize, batch: usize, threads: usize) -> Memory {
        let vit = &config.encoder;
        let plan = BatchPlan::of(vit, vit.patches(), batch);
        let values = names::mae(config).iter().map(|spec| spec.len()).sum();
        let activations = autoencoder(config, visible, plan.micro());
        Memory::new(values, activations, vit, plan, batch, threads)
    }

    /// Fine-tuning in one process, with all patches visible.
    pub fn of_finetuning(vit: &VitConfig, classes: usize, batch: usize, threads: usize) -> Memory {
        let plan = BatchPlan::of(vit, vit.patches(), batch);
        let values = names::classifier(vit, classes, Pooling::Mean).iter().map(|spec| spec.len()).sum();
        let images = plan.micro();
        let head = images * (4 * vit.dim + 2 + 2 * classes) + images * vit.tokens() * vit.dim;
        let activations = encoder(vit, vit.patches(), vit.patches(), images) + head;
        Memory::new(values, activations, vit, plan, batch, threads)
    }

    fn new(
        values: usize,
        activations: usize,
        vit: &VitConfig,
        plan: BatchPlan,
        batch: usize,
        threads: usize,
    ) -> Memory {
        let threads = threads.min(plan.lanes());
        // Each thread computes one lane; lanes that are complete before their turn wait.
        let lanes = plan.lanes().min((2 * threads).saturating_sub(1));
        Memory {
            parameters: 4 * values * FLOAT,
            lanes: lanes * values * FLOAT,
            activations: threads * activations * FLOAT,
            images: batch * vit.channels * vit.img_size * vit.img_size * FLOAT,
        }
    }
}

/// A stack of blocks on `images` images.
#[derive(Clone, Copy)]
struct Stack {
    images: usize,
    /// Rows of the first block's input: one for each token, or fewer where tokens share rows.
    input: usize,
    /// Tokens of an image.
    tokens: usize,
    /// Tokens of an image that leave the last block.
    queries: usize,
    dim: usize,
    heads: usize,
    depth: usize,
    variant: Variant,
    /// With cross-attention: keys of an image, and the width of the memory.
    memory: Option<[usize; 2]>,
}

impl Stack {
    /// Values of its activations. For each block, `model::block` keeps the outputs of both norms with their statistics, of
    /// the projections, attention weights and heads, of both branches, and of the MLP's hidden layer before and after GELU;
    /// with LayerScale what both branches give before it, with norms of queries and keys what these were. All blocks share
    /// the buffers of gradients, which fit the largest.
    fn values(&self) -> usize {
        let Stack { images, input, tokens, queries, dim, heads, depth, variant, memory } = *self;
        let (hidden, fused) = (variant.hidden(dim), variant.fused(dim));
        let scaled = if variant.layer_scale { 2 * dim } else { 0 };
        let normed = if variant.qk_norm { images * tokens * (2 * dim + 4 * heads) } else { 0 };
        let (all, queries) = (images * tokens, images * queries);
        let (keys, first, memory) = match memory {
            None => (tokens, all * 3 * dim, 0),
            Some([keys, width]) => (keys, all * dim + images * keys * 2 * dim, images * keys * width),
        };
        let stride = keys.next_multiple_of(8);
        let block = |rows: usize, out: usize| {
            let each = 4 * dim + fused + hidden + scaled + 2 + heads * stride;
            rows * (dim + 2) + first + normed + out * each
        };
        let blocks = match depth {
            1 => block(input, queries),
            _ => block(input, all) + (depth - 2) * block(all, all) + block(all, queries),
        };
        let largest = if depth == 1 { queries } else { all };
        let shared = if input == all { 0 } else { input * first / all.max(1) };
        let narrow = largest.max(input);
        let gated = if fused > hidden { largest * fused } else { 0 };
        let between = if variant.qk_norm { 2 * all * dim } else { 0 };
        let wide = (hidden * largest).max(shared) + gated.max(between);
        let scratch = wide + 2 * narrow * dim + first + memory;
        input * dim + blocks + scratch + (dim / heads + tokens.max(keys)) * stride
    }
}

/// Values of an encoder's activations.
fn encoder(vit: &VitConfig, visible: usize, queries: usize, images: usize) -> usize {
    let tokens = vit.prefix_tokens() + visible;
    let stack = Stack {
        images,
        input: images * tokens,
        tokens,
        queries,
        dim: vit.dim,
        heads: vit.heads,
        depth: vit.depth,
        variant: vit.variant,
        memory: None,
    };
    let stem = match vit.stem {
        Stem::Patches => images * visible * vit.patch_len(),
        Stem::Convolutions => convolutions(vit, images),
    };
    stem + images * visible * vit.dim + stack.values()
}

/// Values of a convolutional stem's activations: the outputs of all convolutions, the gradients of the two largest stages and
/// of the largest residual branch, weights packed twice, the buffers by way of which the largest is packed and its gradient
/// turned, and Winograd's.
fn convolutions(vit: &VitConfig, images: usize) -> usize {
    let stages = vit.stages();
    let size = |stage: &Stage| stage.side * stage.side * stage.width;
    let layers = |stage: &Stage| if stage.residual { 3 } else { 1 };
    let outputs: usize = stages.iter().map(|stage| layers(stage) * size(stage)).sum();
    let gradients: usize = stages[..2].iter().map(size).sum();
    let weight =
        |stage: &Stage| stage.width * (9 * stage.inputs + PLACES * (layers(stage) - 1) * stage.width);
    let weights: usize = stages.iter().map(weight).sum();
    let largest = stages.last().map_or(0, |stage| stage.width * stage.width);
    let scratch = (9 + 9 + 9 + 2 * PLACES) * largest + winograd::BLOCK;
    images * (outputs + gradients + size(&stages[1])) + 2 * weights + scratch
}

/// Values of a masked autoencoder's activations.
fn autoencoder(config: &MaeConfig, visible: usize, images: usize) -> usize {
    let (vit, dec) = (&config.encoder, &config.decoder);
    let (seen, masked) = (vit.class_tokens() + visible, vit.patches() - visible);
    // Latents and their statistics, their gradient and the encoder output's; the decoder's normed output and the gradient
    // of its output; predictions and targets; the row of each token.
    let between =
        images * (seen * (3 * vit.dim + 2) + masked * (2 * dec.dim + 2 + 2 * vit.patch_len()) + vit.tokens());
    let (encoded, memory) = match dec.kind {
        DecoderKind::Full => (seen, None),
        DecoderKind::Cross => (0, Some([seen, vit.dim])),
    };
    let decoder = Stack {
        images,
        input: images * encoded + vit.patches(),
        tokens: encoded + masked,
        queries: masked,
        dim: dec.dim,
        heads: dec.heads,
        depth: dec.depth,
        variant: Variant::PLAIN,
        memory,
    };
    encoder(vit, visible, seen, images) + between + decoder.values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Classifier, Grads, Mae, classifier, mae};
    use crate::objective::{CrossEntropy, Mask, PixelLoss};
    use smalti_models::presets::Preset;

    const IMAGES: usize = 8;

    /// The peak of the bytes that `work` allocates.
    fn allocated(work: impl FnOnce()) -> usize {
        allocation_counter::measure(work).bytes_max as usize
    }

    /// Within 5 %: the sums above leave out the buffers of matrix products and the lists of blocks.
    fn close(computed: usize, allocated: usize) {
        let ratio = computed as f64 / allocated as f64;
        assert!((0.95..1.05).contains(&ratio), "{computed} bytes computed, {allocated} allocated");
    }

    #[test]
    fn activations_are_what_is_allocated() {
        for (preset, size, patch) in [(Preset::Nano, 32, 4), (Preset::Tiny, 64, 8)] {
            let pixels = vec![0.5; IMAGES * 3 * size * size];
            for kind in [DecoderKind::Full, DecoderKind::Cross] {
                let mut config = preset.mae(size, patch, 3);
                config.decoder.kind = kind;
                check_pretraining(&config, &pixels);
            }
            check_finetuning(&preset.encoder(size, patch, 3), &pixels);
        }
    }

    #[test]
    fn those_of_variants_are_too() {
        let pixels = vec![0.5; IMAGES * 3 * 32 * 32];
        for variant in ["registers=4,no-embed-class,layer-scale", "qk-norm", "swiglu,hidden=300", "hidden=64"]
        {
            let vit = VitConfig { variant: variant.parse().unwrap(), ..Preset::Nano.encoder(32, 4, 3) };
            check_finetuning(&vit, &pixels);
        }
    }

    #[test]
    fn those_of_convolutions_are_too() {
        let preset = Preset::HybridNano;
        let pixels = vec![0.5; IMAGES * 3 * 96 * 96];
        check_pretraining(&preset.mae(96, 16, 3), &pixels);
        check_finetuning(&preset.encoder(96, 16, 3), &pixels);
    }

    fn check_pretraining(config: &MaeConfig, pixels: &[f32]) {
        let (vit, visible, model) = (&config.encoder, config.visible(0.75), Mae::new(config).unwrap());
        let (params, mut grads) = (model.layout().init::<f32>(0), vec![0.0; model.layout().len()]);
        let mask = Mask::draw(0, 0, &[0, 1, 2, 3, 4, 5, 6, 7], vit.patches(), visible);
        let input = mae::Input { batch_weight: Some(1.0), ..mask.input(pixels, IMAGES) };
        let objective = PixelLoss { normalise: true, weight: 1.0 };
        let used = allocated(|| {
            let mut acts = mae::Activations::default();
            objective.gradient(&model, &params, input, &mut acts, &mut Grads::new(&mut grads));
        });
        close(autoencoder(config, visible, IMAGES) * FLOAT, used);
    }

    fn check_finetuning(vit: &VitConfig, pixels: &[f32]) {
        let model = Classifier::new(vit, 10, Pooling::Mean).unwrap();
        let (params, mut grads) = (model.layout().init::<f32>(0), vec![0.0; model.layout().len()]);
        let (mask, targets) = (Mask::none(IMAGES, vit.patches()), vec![0.1; IMAGES * 10]);
        let input = classifier::Input {
            pixels,
            visible: &mask.visible,
            drop: None,
            batch: IMAGES,
            batch_weight: Some(1.0),
        };
        let objective = CrossEntropy { targets: &targets, weight: 1.0 };
        let used = allocated(|| {
            let mut acts = classifier::Activations::default();
            objective.gradient(&model, &params, input, &mut acts, &mut Grads::new(&mut grads));
        });
        close(Memory::of_finetuning(vit, 10, IMAGES, 1).activations, used);
    }

    #[test]
    fn only_images_grow_with_the_batch() {
        let config = Preset::Nano.mae(32, 4, 3);
        let of = |batch| Memory::of_pretraining(&config, 16, batch, 2);
        let (small, large) = (of(128), of(4096));
        assert_eq!(Memory { images: 0, ..small }, Memory { images: 0, ..large });
        assert_eq!(large.images, 32 * small.images);
    }
}
