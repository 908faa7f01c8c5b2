//! Layer norm (arXiv 1607.06450) over rows: `y = (x - mean) / sqrt(var + ε) · scale + shift`, biased variance; and RMS norm
//! (arXiv 1910.07467), which takes the mean for 0.

use crate::isa::dispatch;
use crate::math::madd;
use crate::quantize::{LANES, Out};

/// The sum of a row in a fixed order: 16 lanes, then the lanes, then the rest.
#[inline(always)]
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] += of(chunk[l]);
        }
    }
    rest.iter().fold(lanes.iter().sum(), |sum: f32, &x| sum + of(x))
}

/// Rows whose moments are found together.
const GROUP: usize = 8;

/// Mean, or 0, and reciprocal deviation from it of each row of `n` values, [`GROUP`] of them at most.
///
/// All rows go through each stage together, for the stages of one row wait for each other.
#[inline(always)]
fn moments<const CENTRED: bool>(rows: &[f32], n: usize, eps: f32) -> [[f32; 2]; GROUP] {
    let mut moments = [[0.0; 2]; GROUP];
    if CENTRED {
        for (row, [mean, _]) in rows.chunks_exact(n).zip(&mut moments) {
            *mean = sum(row, |x| x) / n as f32;
        }
    }
    for (row, [mean, rstd]) in rows.chunks_exact(n).zip(&mut moments) {
        let var = sum(row, |x| (x - *mean) * (x - *mean)) / n as f32;
        *rstd = 1.0 / (var + eps).sqrt();
    }
    moments
}

#[inline(always)]
fn forward_body<const FMA: bool, const WIDE: bool>(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
    y: &mut [f32],
    stats: &mut [[f32; 2]],
) {
    let n = scale.len();
    let groups = x.chunks(GROUP * n).zip(y.chunks_mut(GROUP * n)).zip(stats.chunks_mut(GROUP));
    for ((x, y), stats) in groups {
        let moments = moments::<true>(x, n, eps);
        for ((x, y), &[mean, rstd]) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(&moments) {
            for i in 0..n.min(shift.len()) {
                y[i] = madd::<FMA>((x[i] - mean) * rstd, scale[i], shift[i]);
            }
        }
        stats.copy_from_slice(&moments[..stats.len()]);
    }
}

dispatch! {
    /// `y = layer_norm(x)` for each row of `scale.len()` values; `stats` gets each row's mean and 1/deviation.
    pub fn forward(
        x: &[f32], scale: &[f32], shift: &[f32], eps: f32, y: &mut [f32], stats: &mut [[f32; 2]],
    ) = forward_body
}

#[inline(always)]
fn normed<const FMA: bool, const CENTRED: bool>(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
    out: &mut Out<'_>,
) {
    let n = scale.len();
    let stride = out.row_stride(n);
    let ((scales, last_scale), (shifts, last_shift)) =
        (scale.as_chunks::<LANES>(), shift.as_chunks::<LANES>());
    for (group, x) in x.chunks(GROUP * n).enumerate() {
        let moments = moments::<CENTRED>(x, n, eps);
        for (row, (x, [mean, rstd])) in x.chunks_exact(n).zip(moments).enumerate() {
            let at = (group * GROUP + row) * stride;
            let (xs, last_x) = x.as_chunks::<LANES>();
            let mut values = [0f32; LANES];
            for (i, ((x, scale), shift)) in xs.iter().zip(scales).zip(shifts).enumerate() {
                for l in 0..LANES {
                    values[l] = madd::<FMA>((x[l] - mean) * rstd, scale[l], shift[l]);
                }
                out.tile(at + i * LANES, stride, &[values]);
            }
            for (value, ((x, scale), shift)) in
                values.iter_mut().zip(last_x.iter().zip(last_scale).zip(last_shift))
            {
                *value = madd::<FMA>((x - mean) * rstd, *scale, *shift);
            }
            out.row_at(at + n - last_x.len(), &values[..last_x.len()]);
        }
    }
}

#[inline(always)]
fn rows_body<const FMA: bool, const WIDE: bool>(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
    out: &mut Out<'_>,
) {
    normed::<FMA, true>(x, scale, shift, eps, out);
}

dispatch! {
    /// As [`forward`] without the statistics; the rows go to `out`, see [`Out`].
    pub fn rows(x: &[f32], scale: &[f32], shift: &[f32], eps: f32, out: &mut Out<'_>) = rows_body
}

#[inline(always)]
fn rms_rows_body<const FMA: bool, const WIDE: bool>(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
    out: &mut Out<'_>,
) {
    normed::<FMA, false>(x, scale, shift, eps, out);
}

dispatch! {
    /// As [`rows`], without taking the mean off: `y = x / sqrt(mean of x² + ε) · scale + shift`.
    pub fn rms_rows(x: &[f32], scale: &[f32], shift: &[f32], eps: f32, out: &mut Out<'_>) = rms_rows_body
}

#[inline(always)]
fn backward_body<const FMA: bool, const WIDE: bool>(
    x: &[f32],
    scale: &[f32],
    stats: &[[f32; 2]],
    dy: &[f32],
    dx: &mut [f32],
    dscale: &mut [f32],
    dshift: &mut [f32],
) {
    let n = scale.len();
    let (scales, last_scale) = scale.as_chunks::<LANES>();
    let (dscale, dshift) = (&mut dscale[..n], &mut dshift[..n]);
    let rows = x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)).zip(stats);
    for (((x, dy), dx), &[mean, rstd]) in rows {
        let (mut sum_g, mut sum_gx) = ([0f32; LANES], [0f32; LANES]);
        let ((xs, last_x), (dys, last_dy)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
        for ((x, dy), scale) in xs.iter().zip(dys).zip(scales) {
            for l in 0..LANES {
                let norm = (x[l] - mean) * rstd;
                let g = dy[l] * scale[l];
                sum_g[l] += g;
                sum_gx[l] = madd::<FMA>(g, norm, sum_gx[l]);
            }
        }
        let (mut mean_g, mut mean_gx) = (sum_g.iter().sum::<f32>(), sum_gx.iter().sum::<f32>());
        for ((x, dy), scale) in last_x.iter().zip(last_dy).zip(last_scale) {
            let g = dy * scale;
            mean_g += g;
            mean_gx += g * (x - mean) * rstd;
        }
        (mean_g, mean_gx) = (mean_g / n as f32, mean_gx / n as f32);
        for i in 0..n {
            let norm = (x[i] - mean) * rstd;
            dscale[i] = madd::<FMA>(dy[i], norm, dscale[i]);
            dshift[i] += dy[i];
            dx[i] = madd::<FMA>(rstd, dy[i] * scale[i] - mean_g - norm * mean_gx, dx[i]);
        }
    }
}

dispatch! {
    /// Gradients of [`forward`]; `dx` (the residual stream), `dscale` and `dshift` accumulate.
    pub fn backward(
        x: &[f32], scale: &[f32], stats: &[[f32; 2]], dy: &[f32],
        dx: &mut [f32], dscale: &mut [f32], dshift: &mut [f32],
    ) = backward_body
}

#[cfg(test)]
mod tests {
    use crate::plain;
    use crate::quantize::Out;
    use crate::test_support::{close, each_isa, values, widen};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for (rows, n) in [(1, 1), (3, 12), (5, 16), (4, 100), (2, 192)] {
            let (x, dy) = (values(rows * n, 1), values(rows * n, 2));
            let (scale, shift, start) = (values(n, 3), values(n, 4), values(rows * n, 5));
            let mut want = vec![0f64; rows * n];
            let mut want_stats = vec![[0f64; 2]; rows];
            plain::layer_norm(&widen(&x), &widen(&scale), &widen(&shift), 1e-6, &mut want, &mut want_stats);
            let (mut want_dx, mut want_ds, mut want_db) = (widen(&start), vec![0f64; n], vec![0f64; n]);
            plain::layer_norm_backward(
                &widen(&x),
                &widen(&scale),
                &want_stats,
                &widen(&dy),
                &mut want_dx,
                &mut want_ds,
                &mut want_db,
            );
            each_isa(|isa| {
                let (mut y, mut stats) = (vec![0.0; rows * n], vec![[0.0; 2]; rows]);
                super::forward(isa, &x, &scale, &shift, 1e-6, &mut y, &mut stats);
                close(&y, &want, 1e-5);
                let mut again = vec![0.0; rows * n];
                super::rows(isa, &x, &scale, &shift, 1e-6, &mut Out::F32(&mut again));
                assert_eq!(again, y);
                super::rms_rows(isa, &x, &scale, &shift, 1e-6, &mut Out::F32(&mut again));
                for (row, want) in widen(&x).chunks(n).zip(again.chunks(n)) {
                    let square = row.iter().map(|x| x * x).sum::<f64>() / n as f64;
                    let columns = row.iter().zip(scale.iter().zip(&shift));
                    let y = columns.map(|(x, (&scale, &shift))| {
                        x / (square + 1e-6).sqrt() * f64::from(scale) + f64::from(shift)
                    });
                    close(want, &y.collect::<Vec<f64>>(), 1e-5);
                }
                let (mut dx, mut ds, mut db) = (start.clone(), vec![0.0; n], vec![0.0; n]);
                super::backward(isa, &x, &scale, &stats, &dy, &mut dx, &mut ds, &mut db);
                if n > 1 {
                    close(&dx, &want_dx, 1e-4);
                }
                close(&ds, &want_ds, 1e-4);
                close(&db, &want_db, 1e-5);
            });
        }
    }
}
