//! AdamW (arXiv 1711.05101) over the flat parameter vector, with a learning rate and a weight decay for each tensor.

use rayon::prelude::*;
use smalti_kernels::adamw::Step;
use smalti_models::names::{Role, TensorSpec};

use super::Rates;
use crate::model::params::Layout;

/// Values of one task. Sums over these chunks, in order, do not depend on the number of threads.
const CHUNK: usize = 1 << 14;
const EPS: f64 = 1e-8;

/// Consecutive tensors with the same settings.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Group {
    end: usize,
    /// Their learning rate over the peak: [`Rates::of`].
    rate: f32,
    decays: bool,
    /// Whether another optimizer updates them.
    skip: bool,
}

/// The optimizer's settings and state.
#[derive(Clone, Debug)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    decay: f64,
    groups: Vec<Group>,
    /// Steps done.
    pub step: u64,
    /// First moments, in the layout of the parameters.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
}

impl AdamW {
    /// An optimizer at step 0. Fixed position tables do not change: they have neither a gradient nor weight decay.
    pub fn new(layout: &Layout, betas: [f64; 2], decay: f64, rates: Rates) -> AdamW {
        AdamW::skipping(layout, betas, decay, rates, &|_| false)
    }

    /// As [`AdamW::new`], but tensors for which `skip` holds, and their moments, stay as they are.
    pub fn skipping(
        layout: &Layout,
        betas: [f64; 2],
        decay: f64,
        rates: Rates,
        skip: &dyn Fn(&TensorSpec) -> bool,
    ) -> AdamW {
        let rate_of = rates.of(layout);
        let mut groups: Vec<Group> = Vec::new();
        for (spec, slot) in layout.iter() {
            let rate = rate_of(spec);
            let decays = spec.decays() && spec.role != Role::Positions;
            let new = Group { end: slot.range().end, rate, decays, skip: skip(spec) };
            match groups.last_mut() {
                Some(group) if (Group { end: new.end, ..*group }) == new => group.end = new.end,
                _ => groups.push(new),
            }
        }
        let zeros = vec![0.0; layout.len()];
        AdamW { beta1: betas[0], beta2: betas[1], decay, groups, step: 0, m: zeros.clone(), v: zeros }
    }

    /// Updates the parameters by one step at learning rate `lr`, from gradients times `scale` (clipping). Runs on the current
    /// rayon pool.
    pub fn update(&mut self, lr: f64, scale: f64, grads: &[f32], params: &mut [f32]) {
        self.step += 1;
        let t = self.step as f64;
        // The kernel has the betas in f32, where 1 - 0.999 is 1.3e-5 off: the bias corrections must have them too.
        let [beta1, beta2] = [self.beta1 as f32, self.beta2 as f32];
        let correction = |beta: f32| (1.0 - f64::from(beta).powf(t)) as f32;
        let step = Step {
            lr: lr as f32,
            beta1,
            beta2,
            correction1: correction(beta1),
            correction2: correction(beta2),
            eps: EPS as f32,
            decay: 0.0,
            scale: scale as f32,
        };
        let (groups, decay) = (&self.groups, self.decay as f32);
        params
            .par_chunks_mut(CHUNK)
            .zip(grads.par_chunks(CHUNK))
            .zip(self.m.par_chunks_mut(CHUNK).zip(self.v.par_chunks_mut(CHUNK)))
            .enumerate()
            .for_each(|(i, ((params, grads), (m, v)))| {
                let (mut at, start) = (0, i * CHUNK);
                let first = groups.partition_point(|group| group.end <= start);
                for group in &groups[first..] {
                    let end = (group.end - start).min(params.len());
                    if !group.skip {
                        let decay = if group.decays { decay } else { 0.0 };
                        let step = Step { lr: step.lr * group.rate, decay, ..step };
                        smalti_kernels::adamw::step(
                            smalti_kernels::Isa::best(),
                            step,
                            &grads[at..end],
                            &mut params[at..end],
                            &mut m[at..end],
                            &mut v[at..end],
                        );
                    }
                    at = end;
                    if at == params.len() {
                        break;
                    }
                }
            });
    }
}

/// The gradient norm: the Euclidean norm of all gradients. Runs on the current rayon pool.
pub fn norm(grads: &[f32]) -> f64 {
    let isa = smalti_kernels::Isa::best();
    let squares: Vec<f64> =
        grads.par_chunks(CHUNK).map(|chunk| smalti_kernels::elementwise::sum_squares(isa, chunk)).collect();
    squares.iter().sum::<f64>().sqrt()
}

/// The factor that scales gradients of this norm down to a norm of at most `clip`.
pub fn clip_factor(norm: f64, clip: Option<f64>) -> f64 {
    clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::precision::Precision;
    use smalti_models::presets::Preset;
    use smalti_models::{Pooling, names};

    #[test]
    fn groups_follow_depth_and_decay() {
        let layout = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pooling::Mean),
            Precision::F32,
        );
        let mut adamw =
            AdamW::new(&layout, [0.9, 0.999], 0.1, Rates { layer_decay: 0.5, ..Rates::default() });
        let start = vec![1.0f32; layout.len()];
        let (mut params, grads) = (start.clone(), vec![0.0f32; layout.len()]);
        adamw.update(1.0, 1.0, &grads, &mut params);
        for (spec, slot) in layout.iter() {
            let rate = 0.5f32.powi(7 - spec.layer as i32);
            let want = if spec.decays() { 1.0 - 0.1 * rate } else { 1.0 };
            assert!(slot.of(&params).iter().all(|&p| (p - want).abs() < 1e-6), "{}", spec.name);
        }
    }

    #[test]
    fn the_first_step_is_the_rate() {
        let layout = Layout::new(
            names::classifier(&Preset::Nano.encoder(32, 4, 3), 10, Pooling::Mean),
            Precision::F32,
        );
        let mut adamw = AdamW::new(&layout, [0.9, 0.999], 0.0, Rates::default());
        let grads: Vec<f32> = (0..layout.len()).map(|i| if i % 2 == 0 { 3.0 } else { -0.1 }).collect();
        let mut params = vec![0.0f32; layout.len()];
        adamw.update(1e-3, 1.0, &grads, &mut params);
        for (p, g) in params.iter().zip(&grads) {
            assert!((p + 1e-3 * g.signum()).abs() < 1e-8);
        }
        assert!((norm(&[3.0, 4.0]) - 5.0).abs() < 1e-12);
        assert!((clip_factor(5.0, Some(1.0)) - 0.2).abs() < 1e-6);
        assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
        assert_eq!(clip_factor(5.0, None), 1.0);
    }
}
