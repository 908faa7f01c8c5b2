//! The memory that training takes, as a function of its settings: the sum over its buffers, in bytes.
//!
//! Nothing here grows with the pictures of a step, but for the pictures themselves and, up to 64, the lanes of ranks:
//! activations exist once a thread and for one micro-batch. A test holds the sums below against what is allocated.

use serde::Serialize;
use smalti_models::{DecoderKind, MaeConfig, Pool, VitConfig, names};

use crate::step::{Deal, micro_batch};

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
    /// One batch of pictures; a loader holds as many more as it has threads, and one.
    pub pictures: usize,
}

impl Memory {
    /// All together.
    pub fn bytes(&self) -> usize {
        self.parameters + self.lanes + self.activations + self.pictures
    }

    /// Pretraining of one process with this part of the patches visible and all others predicted.
    pub fn of_pretraining(config: &MaeConfig, visible: usize, batch: usize, threads: usize) -> Memory {
        let vit = &config.encoder;
        let micro = micro_batch(vit.tokens());
        let values = names::mae(config).iter().map(|spec| spec.len()).sum();
        let activations = autoencoder(config, visible, micro.min(batch));
        Memory::new(values, activations, vit, Deal::new(batch, micro), batch, threads)
    }

    /// Fine-tuning of one process on all patches.
    pub fn of_finetuning(vit: &VitConfig, classes: usize, batch: usize, threads: usize) -> Memory {
        let micro = micro_batch(vit.tokens());
        let values = names::classifier(vit, classes, Pool::Mean).iter().map(|spec| spec.len()).sum();
        let pictures = micro.min(batch);
        let head = pictures * (4 * vit.dim + 2 + classes) + pictures * vit.tokens() * vit.dim;
        let activations = encoder(vit, vit.patches(), vit.patches(), pictures) + head;
        Memory::new(values, activations, vit, Deal::new(batch, micro), batch, threads)
    }

    fn new(
        values: usize,
        activations: usize,
        vit: &VitConfig,
        deal: Deal,
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
            pictures: batch * vit.channels * vit.img_size * vit.img_size * FLOAT,
        }
    }
}

/// A stack of blocks on `pictures` pictures.
#[derive(Clone, Copy)]
struct Stack {
    pictures: usize,
    /// Rows of the first block's input: as many as tokens, or fewer where tokens share some.
    input: usize,
    /// Tokens of a picture, and those of them that come out.
    tokens: usize,
    asked: usize,
    dim: usize,
    heads: usize,
    depth: usize,
    /// Tokens of a picture that are asked, and their width, where tokens do not ask each other.
    memory: Option<[usize; 2]>,
}

impl Stack {
    /// Values of its activations. Of each block the module `nn::block` keeps what came out of the norm, of the first
    /// layers, of attention, sum, norm, MLP (four times as wide, before and after GELU) and output, the statistics of two
    /// norms and attention's weights; gradients pass through all in buffers that fit the largest.
    fn values(&self) -> usize {
        let Stack { pictures, input, tokens, asked, dim, heads, depth, memory } = *self;
        let (all, asked) = (pictures * tokens, pictures * asked);
        let (keys, first, memory) = match memory {
            None => (tokens, all * 3 * dim, 0),
            Some([keys, width]) => (keys, all * dim + pictures * keys * 2 * dim, pictures * keys * width),
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
fn encoder(vit: &VitConfig, seen: usize, asked: usize, pictures: usize) -> usize {
    let tokens = 1 + seen;
    let stack = Stack {
        pictures,
        input: pictures * tokens,
        tokens,
        asked,
        dim: vit.dim,
        heads: vit.heads,
        depth: vit.depth,
        memory: None,
    };
    pictures * seen * (vit.patch_len() + vit.dim + 1) + stack.values()
}

/// Values of a masked autoencoder's activations.
fn autoencoder(config: &MaeConfig, visible: usize, pictures: usize) -> usize {
    let (vit, dec) = (&config.encoder, &config.decoder);
    let (seen, masked) = (1 + visible, vit.patches() - visible);
    // What was encoded, normed, and both gradients; rows of hidden patches, normed, and their gradient; pixels.
    let between = pictures
        * (seen * (3 * vit.dim + 2) + masked * (2 * dec.dim + 2 + 2 * vit.patch_len()) + vit.tokens());
    let (encoded, memory) = match dec.kind {
        DecoderKind::Full => (seen, None),
        DecoderKind::Cross => (0, Some([seen, vit.dim])),
    };
    let decoder = Stack {
        pictures,
        input: pictures * encoded + vit.patches(),
        tokens: encoded + masked,
        asked: masked,
        dim: dec.dim,
        heads: dec.heads,
        depth: dec.depth,
        memory,
    };
    encoder(vit, visible, seen, pictures) + between + decoder.values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;
    use crate::nn::{Classifier, Mae, classifier, mae};
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
                let (vit, visible, pictures) = (config.encoder.clone(), config.visible(0.75), 8);
                let model = Mae::new(&config).unwrap();
                let (params, mut grads) = (model.layout().init::<f32>(0), vec![0.0; model.layout().len()]);
                let pixels = vec![0.5; pictures * 3 * size * size];
                let mask = Mask::draw(0, 0, &[0, 1, 2, 3, 4, 5, 6, 7], vit.patches(), visible);
                let input = mae::Input::new(&pixels, &mask, pictures);
                let used = allocated(|| {
                    let mut saved = mae::Saved::default();
                    model.gradient(&params, input, true, 1.0, &mut saved, &mut grads, &mut |_, _| {});
                });
                close(autoencoder(&config, visible, pictures) * FLOAT, used);

                let model = Classifier::new(&vit, 10, Pool::Mean).unwrap();
                let (params, mut grads) = (model.layout().init::<f32>(0), vec![0.0; model.layout().len()]);
                let (seen, targets) = (Mask::none(pictures, vit.patches()).visible, vec![0.1; pictures * 10]);
                let input = classifier::Input {
                    pixels: &pixels,
                    seen: &seen,
                    drop: None,
                    targets: &targets,
                    batch: pictures,
                };
                let used = allocated(|| {
                    let mut saved = classifier::Saved::default();
                    model.gradient(&params, input, 1.0, &mut saved, &mut grads, &mut |_, _| {});
                });
                let memory = Memory::of_finetuning(&vit, 10, pictures, 1);
                close(memory.activations, used);
            }
        }
    }

    #[test]
    fn only_pictures_grow_with_the_batch() {
        let config = Preset::Nano.mae(32, 4, 3);
        let of = |batch| Memory::of_pretraining(&config, 16, batch, 2);
        let (small, large) = (of(128), of(4096));
        assert_eq!(Memory { pictures: 0, ..small }, Memory { pictures: 0, ..large });
        assert_eq!(large.pictures, 32 * small.pictures);
    }
}
