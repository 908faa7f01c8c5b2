//! The memory that training takes, as a function of its settings: the sum over its buffers, in bytes.
//!
//! Nothing here grows with the images of a step, but for the images themselves and, up to 64, the lanes of ranks:
//! activations exist once a thread and for one micro-batch. A test holds the sums below against what is allocated.

use serde::Serialize;
use smalti_models::{DecoderKind, MaeConfig, Pool, VitConfig, names};

use crate::train::step::{BatchPlan, micro_batch};

/// Bytes of one value.
const FLOAT: usize = size_of::<f32>();

/// What takes memory in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Parameters, both moments, and the sum of the gradients.
    pub parameters: usize,
    /// Gradients of lanes before they are added.
    pub lanes: usize,
    /// Activations of one micro-batch a thread, and their gradients.
    pub activations: usize,
    /// One batch of images; a loader holds as many more as it has threads, and one.
    pub images: usize,
}

impl Memory {
    /// All together.
    pub fn bytes(&self) -> usize {
        self.parameters + self.lanes + self.activations + self.images
    }

    /// Pretraining of one process with this part of the patches visible and all others predicted.
    pub fn of_pretraining(config: &MaeConfig, visible: usize, batch: usize, threads: usize) -> Memory {
        let vit = &config.encoder;
        let micro = micro_batch(vit.tokens());
        let values = names::mae(config).iter().map(|spec| spec.len()).sum();
        let activations = autoencoder(config, visible, micro.min(batch));
        Memory::new(values, activations, vit, BatchPlan::new(batch, micro), batch, threads)
    }

    /// Fine-tuning of one process on all patches.
    pub fn of_finetuning(vit: &VitConfig, classes: usize, batch: usize, threads: usize) -> Memory {
        let micro = micro_batch(vit.tokens());
        let values = names::classifier(vit, classes, Pool::Mean).iter().map(|spec| spec.len()).sum();
        let images = micro.min(batch);
        let head = images * (4 * vit.dim + 2 + classes) + images * vit.tokens() * vit.dim;
        let activations = encoder(vit, vit.patches(), vit.patches(), images) + head;
        Memory::new(values, activations, vit, BatchPlan::new(batch, micro), batch, threads)
    }

    fn new(
        values: usize,
        activations: usize,
        vit: &VitConfig,
        deal: BatchPlan,
        batch: usize,
        threads: usize,
    ) -> Memory {
        let threads = threads.min(deal.lanes());
        // Each thread fills one lane; those that end before their turn wait.
        let lanes = deal.lanes().min((2 * threads).saturating_sub(1));
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
    /// Rows of the first block's input: as many as tokens, or fewer where tokens share some.
    input: usize,
    /// Tokens of an image, and those of them that come out.
    tokens: usize,
    asked: usize,
    dim: usize,
    heads: usize,
    depth: usize,
    /// Tokens of an image that are asked, and their width, where tokens do not ask each other.
    memory: Option<[usize; 2]>,
}

impl Stack {
    /// Values of its activations. Of each block the module `nn::block` keeps what came out of the norm, of the first
    /// layers, of attention, sum, norm, MLP (four times as wide, before and after GELU) and output, the statistics of two
    /// norms and attention's weights; gradients pass through all in buffers that fit the largest.
    fn values(&self) -> usize {
        let Stack { images, input, tokens, asked, dim, heads, depth, memory } = *self;
        let (all, asked) = (images * tokens, images * asked);
        let (keys, first, memory) = match memory {
            None => (tokens, all * 3 * dim, 0),
            Some([keys, width]) => (keys, all * dim + images * keys * 2 * dim, images * keys * width),
        };
        let stride = keys.next_multiple_of(8);
        let block =
            |rows: usize, out: usize| rows * (dim + 2) + first + out * (12 * dim + 2 + heads * stride);
        let blocks = match depth {
            1 => block(input, asked),
            _ => block(input, all) + (depth - 2) * block(all, all) + block(all, asked),
        };
        let most = if depth == 1 { asked } else { all };
        let shared = if input == all { 0 } else { input * first / all.max(1) };
        let narrow = most.max(input);
        let passing = (4 * most * dim).max(shared) + 2 * narrow * dim + first + memory;
        input * dim + blocks + passing + (dim / heads + tokens.max(keys)) * stride
    }
}

/// Values of an encoder's activations.
fn encoder(vit: &VitConfig, seen: usize, asked: usize, images: usize) -> usize {
    let tokens = 1 + seen;
    let stack = Stack {
        images,
        input: images * tokens,
        tokens,
        asked,
        dim: vit.dim,
        heads: vit.heads,
        depth: vit.depth,
        memory: None,
    };
    images * seen * (vit.patch_len() + vit.dim + 1) + stack.values()
}

/// Values of a masked autoencoder's activations.
fn autoencoder(config: &MaeConfig, visible: usize, images: usize) -> usize {
    let (vit, dec) = (&config.encoder, &config.decoder);
    let (seen, masked) = (1 + visible, vit.patches() - visible);
    // What was encoded, normed, and both gradients; rows of hidden patches, normed, and their gradient; pixels.
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
        asked: masked,
        dim: dec.dim,
        heads: dec.heads,
        depth: dec.depth,
        memory,
    };
    encoder(vit, visible, seen, images) + between + decoder.values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Classifier, Mae, classifier, mae};
    use crate::objective::mask::Mask;
    use smalti_models::presets::Preset;

    /// Bytes that `work` has allocated at most.
    fn allocated(work: impl FnOnce()) -> usize {
        allocation_counter::measure(work).bytes_max as usize
    }

    /// Within a twentieth: the vectors of a matrix product, of blocks and of threads are not counted above.
    fn close(computed: usize, allocated: usize) {
        let ratio = computed as f64 / allocated as f64;

        assert!((0.95..1.05).contains(&ratio), "{computed} bytes computed, {allocated} allocated");
    }

    #[test]
    fn activations_are_what_is_allocated() {
        for (preset, size, patch) in [(Preset::Nano, 32, 4), (Preset::Tiny, 64, 8)] {
            for kind in [DecoderKind::Full, DecoderKind::Cross] {
                let mut config = preset.mae(size, patch, 3);
                config.decoder.kind = kind;
                let (vit, visible, images) = (config.encoder.clone(), config.visible(0.75), 8);
                let model = Mae::new(&config).unwrap();
                let (params, mut grads) = (model.layout().init::<f32>(0), vec![0.0; model.layout().len()]);
                let pixels = vec![0.5; images * 3 * size * size];
                let mask = Mask::draw(0, 0, &[0, 1, 2, 3, 4, 5, 6, 7], vit.patches(), visible);
                let input = mae::Input::new(&pixels, &mask, images);
                let used = allocated(|| {
                    let mut saved = mae::Saved::default();
                    model.gradient(&params, input, true, 1.0, &mut saved, &mut grads, &mut |_, _| {});
                });
                close(autoencoder(&config, visible, images) * FLOAT, used);

                let model = Classifier::new(&vit, 10, Pool::Mean).unwrap();
                let (params, mut grads) = (model.layout().init::<f32>(0), vec![0.0; model.layout().len()]);
                let (seen, targets) = (Mask::none(images, vit.patches()).visible, vec![0.1; images * 10]);
                let input = classifier::Input {
                    pixels: &pixels,
                    seen: &seen,
                    drop: None,
                    targets: &targets,
                    batch: images,
                };
                let used = allocated(|| {
                    let mut saved = classifier::Saved::default();
                    model.gradient(&params, input, 1.0, &mut saved, &mut grads, &mut |_, _| {});
                });
                let memory = Memory::of_finetuning(&vit, 10, images, 1);
                close(memory.activations, used);
            }
        }
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
