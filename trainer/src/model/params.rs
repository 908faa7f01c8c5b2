//! All parameters of a model in one flat vector, with a named slot for each tensor.
//!
//! Gradients and optimizer moments have the same layout, as in llm.c. So the optimizer, clipping, the sum over threads and
//! checkpoints are each a loop over a slice.

use smalti_kernels::Real;
use smalti_models::names::{Role, TensorSpec};

use crate::error::{Error, Result};
use crate::model::posembed;
use crate::model::precision::Precision;
use crate::rng::{Rng, stream};

/// Where one tensor lies in the flat vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    start: usize,
    len: usize,
}

impl Slot {
    /// The tensor's values.
    pub fn of<'a, R>(&self, flat: &'a [R]) -> &'a [R] {
        &flat[self.start..self.start + self.len]
    }

    /// The tensor's values, mutable.
    pub fn of_mut<'a, R>(&self, flat: &'a mut [R]) -> &'a mut [R] {
        &mut flat[self.start..self.start + self.len]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the tensor has no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The range of the flat vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.len
    }
}

/// The tensors of a model, in the order of `smalti_models::names`, and their slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    specs: Vec<TensorSpec>,
    slots: Vec<Slot>,
    total: usize,
    precision: Precision,
}

fn is_of_head(spec: &TensorSpec) -> bool {
    spec.name.starts_with("head.")
}

impl Layout {
    /// Lays the tensors out one after the other, for layers that multiply in `precision`.
    pub fn new(specs: Vec<TensorSpec>, precision: Precision) -> Layout {
        let mut total = 0;
        let slot = |spec: &TensorSpec| {
            let slot = Slot { start: total, len: spec.len() };
            total += slot.len;
            slot
        };
        let slots = specs.iter().map(slot).collect();
        Layout { specs, slots, total, precision }
    }

    /// Number of values of all tensors.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The precision of the layers' matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The slot of a tensor.
    pub fn slot(&self, name: &str) -> Result<Slot> {
        let index = self.specs.iter().position(|spec| spec.name == name);
        index.map(|i| self.slots[i]).ok_or_else(|| Error::Usage(format!("this model has no tensor `{name}`")))
    }

    /// Every tensor with its slot, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TensorSpec, Slot)> {
        self.specs.iter().zip(self.slots.iter().copied())
    }

    /// The head's tensors.
    pub fn head(&self) -> impl Iterator<Item = (&TensorSpec, Slot)> {
        self.iter().filter(|(spec, _)| is_of_head(spec))
    }

    /// Every tensor but the head's: the encoder, for files that other runs start from.
    pub fn without_head(&self) -> impl Iterator<Item = (&TensorSpec, Slot)> {
        self.iter().filter(|(spec, _)| !is_of_head(spec))
    }

    /// Fresh parameters. Each tensor starts as its [`Role`] says; its random values follow from the seed and its name.
    pub fn init<R: Real>(&self, seed: u64) -> Vec<R> {
        let mut flat = vec![R::ZERO; self.total];
        for (spec, slot) in self.iter() {
            let mut rng = Rng::new(seed, stream::INIT, [name_key(&spec.name)]);
            let values = slot.of_mut(&mut flat);
            let mut fill = |draw: &mut dyn FnMut() -> f64| values.iter_mut().for_each(|x| *x = R::of(draw()));
            match spec.role {
                Role::Weight => {
                    let rows = spec.shape[0];
                    let bound = (6.0 / (rows + spec.len() / rows.max(1)) as f64).sqrt();
                    fill(&mut || rng.range(-bound, bound));
                }
                Role::Bias | Role::ZeroWeight | Role::ZeroScale | Role::ZeroPositions | Role::RunningMean => {
                }
                Role::Scale | Role::RunningVar => fill(&mut || 1.0),
                Role::Token => fill(&mut || 0.02 * rng.normal()),
                Role::HeadWeight => fill(&mut || 2e-5 * rng.normal()),
                Role::BranchScale => fill(&mut || 1e-5),
                Role::Positions => {
                    let table = posembed::sine_cosine(spec.shape[1], spec.shape[2]);
                    values.iter_mut().zip(table).for_each(|(x, value)| *x = R::of(value));
                }
            }
        }
        flat
    }
}

/// A number for a name (FNV-1a), so that a tensor's start does not depend on the model's other tensors.
fn name_key(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::names;
    use smalti_models::presets::Preset;

    #[test]
    fn slots_tile_the_vector() {
        let layout = Layout::new(names::mae(&Preset::Nano.mae(32, 4, 3)), Precision::F32);
        let mut next = 0;
        for (spec, slot) in layout.iter() {
            assert_eq!(slot.range().start, next, "{}", spec.name);
            next = slot.range().end;
        }
        assert_eq!(next, layout.len());
        assert!(layout.slot("no.such").is_err());
    }

    #[test]
    fn the_start_follows_from_seed_and_name() {
        let mae = Layout::new(names::mae(&Preset::Nano.mae(32, 4, 3)), Precision::F32);
        let vit = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, smalti_models::Pooling::Mean),
            Precision::F32,
        );
        let (a, b) = (mae.init::<f32>(1), vit.init::<f32>(1));
        let name = "blocks.3.attn.qkv.weight";
        assert_eq!(mae.slot(name).unwrap().of(&a), vit.slot(name).unwrap().of(&b));
        assert_ne!(a, mae.init::<f32>(2));
        let weight = mae.slot(name).unwrap().of(&a);
        let bound = (6.0f32 / (128.0 + 3.0 * 128.0)).sqrt();
        assert!(weight.iter().all(|x| x.abs() <= bound) && weight.iter().any(|x| x.abs() > 0.9 * bound));
    }
}
