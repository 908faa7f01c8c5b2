//! LayerScale (arXiv 2103.17239): the end of a residual branch, `y = residual + f · gamma · x` with one `gamma` a channel.
//!
//! `f` is 1, or each image's factor of stochastic depth.

use super::Float;
use crate::error::Result;
use crate::model::params::{Layout, Slot};

/// The slot of one LayerScale.
#[derive(Clone, Copy, Debug)]
pub struct LayerScale {
    gamma: Slot,
}

/// The rows of each image, with its factor.
fn images<'a, R: Float>(x: &'a [R], factors: Option<&'a [R]>) -> impl Iterator<Item = (&'a [R], R)> {
    let count = factors.map_or(1, |factors| factors.len().max(1));
    let factor = move |i: usize| factors.map_or(R::ONE, |factors| factors[i]);
    x.chunks_exact((x.len() / count).max(1)).enumerate().map(move |(i, image)| (image, factor(i)))
}

impl LayerScale {
    /// Finds `name.gamma`.
    pub fn find(layout: &Layout, name: &str) -> Result<LayerScale> {
        Ok(LayerScale { gamma: layout.slot(&format!("{name}.gamma"))? })
    }

    /// `y = residual + f · gamma · x` for `x` `[n, dim]` and one factor for each of the images that share the rows evenly.
    pub fn forward<R: Float>(
        &self,
        params: &[R],
        x: &[R],
        residual: &[R],
        factors: Option<&[R]>,
        y: &mut [R],
    ) {
        let gamma = self.gamma.of(params);
        let mut rows = y.chunks_exact_mut(gamma.len()).zip(residual.chunks_exact(gamma.len()));
        for (image, factor) in images(x, factors) {
            for (x, (y, residual)) in image.chunks_exact(gamma.len()).zip(&mut rows) {
                for (((y, &residual), &x), &gamma) in y.iter_mut().zip(residual).zip(x).zip(gamma) {
                    *y = residual + factor * gamma * x;
                }
            }
        }
    }

    /// `dx = f · gamma · dy`, and adds `Σ f · dy · x` to the gradient of `gamma`.
    pub fn backward<R: Float>(
        &self,
        params: &[R],
        x: &[R],
        dy: &[R],
        factors: Option<&[R]>,
        dx: &mut [R],
        grads: &mut [R],
    ) {
        let (gamma, dgamma) = (self.gamma.of(params), self.gamma.of_mut(grads));
        let mut rows = dx.chunks_exact_mut(gamma.len()).zip(dy.chunks_exact(gamma.len()));
        for (image, factor) in images(x, factors) {
            for (x, (dx, dy)) in image.chunks_exact(gamma.len()).zip(&mut rows) {
                for ((((dx, &dy), &x), &gamma), dgamma) in
                    dx.iter_mut().zip(dy).zip(x).zip(gamma).zip(&mut *dgamma)
                {
                    *dx = factor * gamma * dy;
                    *dgamma = *dgamma + factor * dy * x;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, dot, layout, values};

    #[test]
    fn gradients_match_finite_differences() {
        let layout = layout(&[("x", &[6, 5]), ("ls.gamma", &[5])]);
        let (scale, x) = (LayerScale::find(&layout, "ls").unwrap(), layout.slot("x").unwrap());
        let (pull, residual) = (values(30, 9), values(30, 8));
        for factors in [None, Some(&[2.0, 0.0, 0.5][..])] {
            Check::new(&layout).run(
                |p| {
                    let mut y = vec![0.0; 30];
                    scale.forward(p, x.of(p), &residual, factors, &mut y);
                    dot(&y, &pull)
                },
                |p, grads| {
                    let mut dx = vec![9.0; 30];
                    scale.backward(p, x.of(p), &pull, factors, &mut dx, grads);
                    x.of_mut(grads).copy_from_slice(&dx);
                },
            );
        }
    }

    #[test]
    fn a_factor_belongs_to_the_rows_of_its_image() {
        let layout = layout(&[("ls.gamma", &[2])]);
        let scale = LayerScale::find(&layout, "ls").unwrap();
        let mut y = [0.0; 8];
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        scale.forward(&[10.0, 100.0], &x, &[1.0; 8], Some(&[0.0, 1.0]), &mut y);
        assert_eq!(y, [1.0, 1.0, 1.0, 1.0, 51.0, 601.0, 71.0, 801.0]);
    }
}
