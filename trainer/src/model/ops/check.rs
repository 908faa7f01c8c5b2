//! Gradients against finite differences, in f64, tensor by tensor (tests only).

use smalti_models::names::{Role, TensorSpec};

use crate::model::params::Layout;
use crate::model::precision::Precision;
use crate::rng::Rng;

/// Reproducible values, standard normal.
pub fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed, 100, []);
    (0..n).map(|_| rng.normal()).collect()
}

/// `Σ a · b`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A layout of tensors that only a test has.
pub fn layout(tensors: &[(&str, &[usize])]) -> Layout {
    let spec = |&(name, shape): &(&str, &[usize])| TensorSpec {
        name: name.into(),
        shape: shape.to_vec(),
        role: Role::Weight,
        layer: 0,
    };
    Layout::new(tensors.iter().map(spec).collect(), Precision::F32)
}

/// Compares gradients with central differences along random directions within each tensor.
pub struct Check<'a> {
    layout: &'a Layout,
    params: Vec<f64>,
    skip: Vec<&'a str>,
    step: f64,
}

/// The largest relative error of correct code. The smallest planted errors show 1e-3.
pub const TOLERANCE: f64 = 1e-6;
const STEP: f64 = 1e-4;
const KINK_STEP: f64 = 1e-6;

impl<'a> Check<'a> {
    /// A check at a random point.
    pub fn new(layout: &'a Layout) -> Check<'a> {
        Check::at(layout, values(layout.len(), 1))
    }

    /// A check at this point.
    pub fn at(layout: &'a Layout, params: Vec<f64>) -> Check<'a> {
        Check { layout, params, skip: Vec::new(), step: STEP }
    }

    /// Skips tensors that are not trained.
    pub fn skip(mut self, names: &[&'a str]) -> Check<'a> {
        self.skip.extend(names);
        self
    }

    /// Takes a step so small that hardly a ReLU changes its side within it.
    pub fn with_kinks(mut self) -> Check<'a> {
        self.step = KINK_STEP;
        self
    }

    /// The largest relative error, and the tensor that has it.
    pub fn worst(
        &self,
        loss: impl Fn(&[f64]) -> f64,
        backward: impl FnOnce(&[f64], &mut [f64]),
    ) -> (f64, String) {
        let mut grads = vec![0.0; self.layout.len()];
        backward(&self.params, &mut grads);
        let mut worst = (0.0, String::new());
        for (spec, slot) in self.layout.iter().filter(|(spec, _)| !self.skip.contains(&spec.name.as_str())) {
            for seed in 0..3 {
                let direction = values(slot.len(), 50 + seed);
                let moved = |by: f64| {
                    let mut params = self.params.clone();
                    slot.of_mut(&mut params).iter_mut().zip(&direction).for_each(|(p, d)| *p += by * d);
                    loss(&params)
                };
                // Five points: the error falls with the fourth power of the step.
                let far = moved(2.0 * self.step) - moved(-2.0 * self.step);
                let near = moved(self.step) - moved(-self.step);
                let want = (8.0 * near - far) / (12.0 * self.step);
                let got: f64 = slot.of(&grads).iter().zip(&direction).map(|(g, d)| g * d).sum();
                let size = slot.of(&grads).iter().map(|g| g * g).sum::<f64>().sqrt();
                let error = (got - want).abs() / want.abs().max(size).max(1e-3);
                if error > worst.0 || error.is_nan() {
                    worst = (error, spec.name.clone());
                }
            }
        }
        worst
    }

    /// Fails above [`TOLERANCE`], naming the tensor.
    pub fn run(&self, loss: impl Fn(&[f64]) -> f64, backward: impl FnOnce(&[f64], &mut [f64])) {
        let (error, name) = self.worst(loss, backward);
        assert!(error <= TOLERANCE, "gradient of {name} is off by {error:e}");
    }
}
