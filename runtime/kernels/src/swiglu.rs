//! SwiGLU (arXiv 2002.05202): `y = silu(g) · u` with `silu(g) = g / (1 + exp(-g))`. A row of the input holds `g`, then `u`.

use crate::isa::dispatch;
use crate::math::{exp, madd};

/// `1 / (1 + exp(-x))`.
#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

#[inline(always)]
fn forward_body<const FMA: bool, const WIDE: bool>(x: &[f32], width: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
        let (g, u) = x.split_at(width);
        for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
            *y = g * sigmoid::<FMA>(g) * u;
        }
    }
}

dispatch! {
    /// `y` `[n, width]` from `x` `[n, 2 · width]`; `width` is at least 1.
    pub fn forward(x: &[f32], width: usize, y: &mut [f32]) = forward_body
}

#[inline(always)]
fn backward_body<const FMA: bool, const WIDE: bool>(x: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
    let rows = x.chunks_exact(2 * width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(2 * width));
    for ((x, dy), dx) in rows {
        let ((g, u), (dg, du)) = (x.split_at(width), dx.split_at_mut(width));
        for ((((dg, du), &g), &u), &dy) in dg.iter_mut().zip(du).zip(g).zip(u).zip(dy) {
            let s = sigmoid::<FMA>(g);
            *dg = dy * u * s * madd::<FMA>(g, 1.0 - s, 1.0);
            *du = dy * g * s;
        }
    }
}

dispatch! {
    /// `dx` `[n, 2 · width]` from `dy` `[n, width]`.
    pub fn backward(x: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) = backward_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for (rows, width) in [(0, 3), (1, 1), (3, 13), (4, 64)] {
            let x: Vec<f32> = values(rows * 2 * width, 1).iter().map(|x| 8.0 * x).collect();
            let dy = values(rows * width, 2);
            let (mut want_y, mut want_dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            plain::swiglu(&widen(&x), width, &mut want_y);
            plain::swiglu_backward(&widen(&x), width, &widen(&dy), &mut want_dx);
            each_isa(|isa| {
                let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
                forward(isa, &x, width, &mut y);
                backward(isa, &x, width, &dy, &mut dx);
                close(&y, &want_y, 2e-6);
                close(&dx, &want_dx, 2e-6);
            });
        }
    }

    #[test]
    fn far_from_zero_there_is_no_nan() {
        let x = [1e30, -1e30, 200.0, -200.0, 1.0, 1.0, 1.0, 1.0];
        each_isa(|isa| {
            let (mut y, mut dx) = ([9.0; 4], [9.0; 8]);
            forward(isa, &x, 4, &mut y);
            backward(isa, &x, 4, &[1.0; 4], &mut dx);
            assert_eq!((y[0], y[2]), (1e30, 200.0));
            assert!(
                y[1].abs() < 1e-5 && y[3].abs() < 1e-5 && dx.iter().all(|x| x.is_finite()),
                "{y:?} {dx:?}"
            );
        });
    }
}
