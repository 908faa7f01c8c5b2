//! The reference of every kernel: the formula, in plain loops, for f32 and f64.

use crate::adamw::Step;
use crate::bf16::{self, Matrix};
use crate::matmul::Shape;
use crate::real::Real;
use crate::windows::Windows;
use crate::winograd::Tiles;

/// `y = x Φ(x)`.
pub fn gelu<R: Real>(x: &[R], y: &mut [R]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = R::gelu_scalar(x);
    }
}

/// `dy` becomes `dy (Φ(x) + x φ(x))`.
pub fn gelu_backward<R: Real>(x: &[R], dy: &mut [R]) {
    let half = R::of(0.5);
    for (dy, &x) in dy.iter_mut().zip(x) {
        let cdf = half + half * (x * R::of(std::f64::consts::FRAC_1_SQRT_2)).erf();
        let pdf = (-half * x * x).exp() / R::of(std::f64::consts::TAU).sqrt();
        *dy = *dy * (cdf + x * pdf);
    }
}

/// `y = silu(g) · u` for each row `[g, u]` of `x`, each `width` values.
pub fn swiglu<R: Real>(x: &[R], width: usize, y: &mut [R]) {
    for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
        for i in 0..width {
            y[i] = x[i] / (R::ONE + (-x[i]).exp()) * x[width + i];
        }
    }
}

/// `dx` from `dy`: with `s = 1 / (1 + exp(-g))`, `dg = dy u s (1 + g (1 - s))` and `du = dy g s`.
pub fn swiglu_backward<R: Real>(x: &[R], width: usize, dy: &[R], dx: &mut [R]) {
    let rows = x.chunks_exact(2 * width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(2 * width));
    for ((x, dy), dx) in rows {
        for i in 0..width {
            let (g, u) = (x[i], x[width + i]);
            let s = R::ONE / (R::ONE + (-g).exp());
            dx[i] = dy[i] * u * s * (R::ONE + g * (R::ONE - s));
            dx[width + i] = dy[i] * g * s;
        }
    }
}

/// Softmax over the first `cols` of each row of `stride`; the rest becomes 0.
pub fn softmax<R: Real>(x: &mut [R], cols: usize, stride: usize) {
    for row in x.chunks_exact_mut(stride) {
        let (row, pad) = row.split_at_mut(cols);
        let top = row.iter().fold(R::of(f64::NEG_INFINITY), |m, &x| if x > m { x } else { m });
        row.iter_mut().for_each(|x| *x = (*x - top).exp());
        let total = row.iter().fold(R::ZERO, |sum, &x| sum + x);
        row.iter_mut().for_each(|x| *x = *x / total);
        pad.fill(R::ZERO);
    }
}

/// `dp` becomes `p (dp - Σ p dp)`, row by row.
pub fn softmax_backward<R: Real>(p: &[R], dp: &mut [R], stride: usize) {
    for (p, dp) in p.chunks_exact(stride).zip(dp.chunks_exact_mut(stride)) {
        let mean = p.iter().zip(&*dp).fold(R::ZERO, |sum, (&p, &dp)| sum + p * dp);
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - mean);
        }
    }
}

/// Layer norm of each row of `scale.len()` values; `stats` gets mean and 1/deviation.
pub fn layer_norm<R: Real>(x: &[R], scale: &[R], shift: &[R], eps: R, y: &mut [R], stats: &mut [[R; 2]]) {
    let n = scale.len();
    let count = R::of(n as f64);
    for ((x, y), stats) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(stats) {
        let mean = x.iter().fold(R::ZERO, |sum, &x| sum + x) / count;
        let var = x.iter().fold(R::ZERO, |sum, &x| sum + (x - mean) * (x - mean)) / count;
        let rstd = R::ONE / (var + eps).sqrt();
        for i in 0..n {
            y[i] = (x[i] - mean) * rstd * scale[i] + shift[i];
        }
        *stats = [mean, rstd];
    }
}

/// Gradients of [`layer_norm`]: `dx`, `dscale`, `dshift` accumulate.
pub fn layer_norm_backward<R: Real>(
    x: &[R],
    scale: &[R],
    stats: &[[R; 2]],
    dy: &[R],
    dx: &mut [R],
    dscale: &mut [R],
    dshift: &mut [R],
) {
    let n = scale.len();
    let count = R::of(n as f64);
    let rows = x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)).zip(stats);
    for (((x, dy), dx), &[mean, rstd]) in rows {
        let norm = |i: usize| (x[i] - mean) * rstd;
        let mean_g = (0..n).fold(R::ZERO, |sum, i| sum + dy[i] * scale[i]) / count;
        let mean_gx = (0..n).fold(R::ZERO, |sum, i| sum + dy[i] * scale[i] * norm(i)) / count;
        for i in 0..n {
            dscale[i] = dscale[i] + dy[i] * norm(i);
            dshift[i] = dshift[i] + dy[i];
            dx[i] = dx[i] + rstd * (dy[i] * scale[i] - mean_g - norm(i) * mean_gx);
        }
    }
}

/// `y += a x`.
pub fn axpy<R: Real>(a: R, x: &[R], y: &mut [R]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = *y + a * x;
    }
}

/// `sums[j] += Σ_i x[i][j]`.
pub fn column_sums<R: Real>(x: &[R], sums: &mut [R]) {
    for row in x.chunks_exact(sums.len().max(1)) {
        axpy(R::ONE, row, sums);
    }
}

/// `y[i] = x[i] + row`, for each row.
pub fn add_rows<R: Real>(x: &[R], row: &[R], y: &mut [R]) {
    let n = row.len().max(1);
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        for i in 0..row.len() {
            y[i] = x[i] + row[i];
        }
    }
}

/// One AdamW step.
pub fn adamw<R: Real>(s: Step<R>, gradient: &[R], weight: &mut [R], m: &mut [R], v: &mut [R]) {
    for (((w, m), v), &g) in weight.iter_mut().zip(m).zip(v).zip(gradient) {
        let g = g * s.scale;
        *m = s.beta1 * *m + (R::ONE - s.beta1) * g;
        *v = s.beta2 * *v + (R::ONE - s.beta2) * g * g;
        let (m, v) = (*m / s.correction1, *v / s.correction2);
        *w = *w - s.lr * s.decay * *w - s.lr * m / (v.sqrt() + s.eps);
    }
}

/// `c (+)= α a b`.
pub fn product<R: Real>(s: Shape, alpha: R, a: &[R], b: &[R], c: &mut [R]) {
    for i in 0..s.m {
        for j in 0..s.n {
            let sum =
                (0..s.k).fold(R::ZERO, |sum, p| sum + a[i * s.a_row + p * s.a_col] * b[p * s.b_row + j]);
            let out = &mut c[i * s.c_row + j];
            *out = alpha * sum + if s.accumulate { *out } else { R::ZERO };
        }
    }
}

/// `c (+)= a b` with the values of `a` and `b` rounded to bf16.
pub fn rounded_product<R: Real>(a: Matrix<'_, R>, b: Matrix<'_, R>, accumulate: bool, c: &mut [R]) {
    let ([m, k], n) = (a.size, b.size[1]);
    let at = |x: &Matrix<'_, R>, r: usize, c: usize| {
        R::of(f64::from(bf16::round(x.data[r * x.row + c * x.col].wide() as f32)))
    };
    for (i, out) in c[..m * n].iter_mut().enumerate() {
        let sum = (0..k).fold(R::ZERO, |sum, p| sum + at(&a, i / n, p) * at(&b, p, i % n));
        *out = sum + if accumulate { *out } else { R::ZERO };
    }
}

/// `y[j][i] = x[i][j]`, rows of `y` filled up with 0.
pub fn transpose<R: Real>(x: &[R], x_row: usize, rows: usize, cols: usize, y: &mut [R], y_row: usize) {
    for (j, out) in y.chunks_mut(y_row).take(cols).enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = if i < rows { x[i * x_row + j] } else { R::ZERO };
        }
    }
}

/// `Wᵀ x W` of `from` x `from` values for each of the places of a `to` x `to` matrix; `w` `[from, to]`.
fn both_ways<R: Real, const FROM: usize, const TO: usize>(
    w: [[f64; TO]; FROM],
    x: impl Fn(usize, usize) -> R,
    mut put: impl FnMut(usize, usize, R),
) {
    for (i, j) in (0..TO * TO).map(|place| (place / TO, place % TO)) {
        let mut sum = R::ZERO;
        for (a, b) in (0..FROM * FROM).map(|place| (place / FROM, place % FROM)) {
            sum = sum + R::of(w[a][i] * w[b][j]) * x(a, b);
        }
        put(i, j, sum);
    }
}

/// Each value of each tile.
fn of_tiles(t: Tiles) -> impl Iterator<Item = (usize, usize)> {
    (0..t.count * t.channels).map(move |i| (i / t.channels, i % t.channels))
}

/// `Bᵀ d B`: see [`crate::winograd`].
pub fn winograd_inputs<R: Real>(t: Tiles, x: &[R], planes: &mut [R]) {
    let b = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, -1.0, 1.0], [-1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, -1.0]];
    for (tile, channel) in of_tiles(t) {
        let value = |i: usize, j: usize| x[i * t.line + (2 * tile + j) * t.channels + channel];
        both_ways(b, value, |i, j, v| planes[(4 * i + j) * t.plane + tile * t.channels + channel] = v);
    }
}

/// `G dy Gᵀ`.
pub fn winograd_gradients<R: Real>(t: Tiles, dy: &[R], planes: &mut [R]) {
    let g = [[1.0, 0.5, 0.5, 0.0], [0.0, 0.5, -0.5, 1.0]];
    for (tile, channel) in of_tiles(t) {
        let value = |i: usize, j: usize| dy[i * t.line + (2 * tile + j) * t.channels + channel];
        both_ways(g, value, |i, j, v| planes[(4 * i + j) * t.plane + tile * t.channels + channel] = v);
    }
}

/// `Aᵀ m A`.
pub fn winograd_outputs<R: Real>(t: Tiles, planes: &[R], y: &mut [R]) {
    let a = [[1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, -1.0]];
    for (tile, channel) in of_tiles(t) {
        let value = |i: usize, j: usize| planes[(4 * i + j) * t.plane + tile * t.channels + channel];
        both_ways(a, value, |i, j, v| y[i * t.line + (2 * tile + j) * t.channels + channel] = v);
    }
}

/// For each window the pixels of the map that it covers, with the taps that they meet.
fn covered(windows: &Windows, window: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let (y, x) = (window / windows.output[1], window % windows.output[1]);
    (0..windows.taps()).filter_map(move |tap| {
        let (ky, kx) = (tap / windows.kernel[1], tap % windows.kernel[1]);
        let down = (y * windows.stride[0] + ky * windows.dilation[0]).checked_sub(windows.padding[0])?;
        let across = (x * windows.stride[1] + kx * windows.dilation[1]).checked_sub(windows.padding[1])?;
        (down < windows.input[0] && across < windows.input[1])
            .then_some((down * windows.input[1] + across, tap))
    })
}

/// A convolution of `x` `[height, width, groups · channels]` with `w` `[outputs, channels, kernel]` and a bias: `y` is
/// `[height, width, outputs]`.
pub fn conv<R: Real>(
    windows: &Windows,
    [groups, channels, outputs]: [usize; 3],
    x: &[R],
    w: &[R],
    bias: &[R],
    y: &mut [R],
) {
    for (i, y) in y.iter_mut().enumerate().take(windows.count() * outputs) {
        let (window, output) = (i / outputs, i % outputs);
        let group = output / (outputs / groups);
        *y = bias[output];
        for (pixel, tap) in covered(windows, window) {
            for c in 0..channels {
                let x = x[(pixel * groups + group) * channels + c];
                *y = *y + x * w[(output * channels + c) * windows.taps() + tap];
            }
        }
    }
}

/// The largest value in each window of a map `[height, width, channels]`, channel by channel; the lowest number where
/// a window has none.
pub fn max_pool<R: Real>(windows: &Windows, channels: usize, x: &[R], y: &mut [R]) {
    for (i, y) in y.iter_mut().enumerate().take(windows.count() * channels) {
        let values = covered(windows, i / channels).map(|(pixel, _)| x[pixel * channels + i % channels]);
        *y = values.fold(R::of(f32::MIN.into()), |most, x| if x > most { x } else { most });
    }
}
