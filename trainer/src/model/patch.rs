//! Images to patches.
//!
//! The encoder reads a patch in the order of a convolution's weight, `(channel, row, column)`; the decoder's
//! target is in the order of the masked autoencoder's reference code, `(row, column, channel)`.

use smalti_kernels::Real;
use smalti_models::VitConfig;

use crate::clock::{self, Op};

/// Variance floor of normalised targets (the reference code's).
const TARGET_EPS: f64 = 1e-6;

/// Copies the patches `ids` of images `[count, C, H, W]` into rows of `patch_len` values, `ids.len() / count` a
/// image.
pub fn gather<R: Real>(vit: &VitConfig, pixels: &[R], ids: &[u32], count: usize, rows: &mut [R]) {
    let _timer = clock::time(Op::Patches);
    let (side, grid, size) = (vit.patch_size, vit.grid(), vit.img_size);
    let each = ids.len() / count.max(1);
    let lines = rows.chunks_exact_mut(side);
    let places = ids.iter().enumerate().flat_map(|(i, &id)| {
        let (top, left) = (id as usize / grid * side, id as usize % grid * side);
        let plane = i / each.max(1) * vit.channels;
        (0..vit.channels * side)
            .map(move |line| ((plane + line / side) * size + top + line % side) * size + left)
    });
    for (line, start) in lines.zip(places) {
        line.copy_from_slice(&pixels[start..start + side]);
    }
}

/// The pixels to predict for the patches `ids`, rows of `patch_len` values, normalised patch by patch if asked
/// (unbiased variance).
pub fn targets<R: Real>(
    vit: &VitConfig,
    pixels: &[R],
    ids: &[u32],
    count: usize,
    normalise: bool,
    rows: &mut [R],
) {
    let _timer = clock::time(Op::Patches);
    let (side, grid, size, channels) = (vit.patch_size, vit.grid(), vit.img_size, vit.channels);
    let each = (ids.len() / count.max(1)).max(1);
    for (i, (row, &id)) in rows.chunks_exact_mut(vit.patch_len()).zip(ids).enumerate() {
        let (top, left) = (id as usize / grid * side, id as usize % grid * side);
        for (j, value) in row.iter_mut().enumerate() {
            let (y, x, channel) = (j / channels / side, j / channels % side, j % channels);
            let plane = i / each * channels + channel;
            *value = pixels[(plane * size + top + y) * size + left + x];
        }
        if normalise {
            let (mean, deviation) = statistics(row);
            row.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
        }
    }
}

/// Mean and deviation of one patch, as normalised targets use them.
pub fn statistics<R: Real>(patch: &[R]) -> (R, R) {
    let n = patch.len() as f64;
    let mean = patch.iter().map(|x| x.wide()).sum::<f64>() / n;
    let squares = patch.iter().map(|x| (x.wide() - mean) * (x.wide() - mean)).sum::<f64>();
    let variance = squares / (n - 1.0).max(1.0);
    (R::of(mean), R::of((variance + TARGET_EPS).sqrt()))
}

/// Puts predicted patches back: the inverse of [`targets`] without normalisation, for one image `[C, H, W]`.
pub fn scatter<R: Real>(vit: &VitConfig, rows: &[R], ids: &[u32], pixels: &mut [R]) {
    let (side, grid, size, channels) = (vit.patch_size, vit.grid(), vit.img_size, vit.channels);
    for (row, &id) in rows.chunks_exact(vit.patch_len()).zip(ids) {
        let (top, left) = (id as usize / grid * side, id as usize % grid * side);
        for (j, &value) in row.iter().enumerate() {
            let (y, x, channel) = (j / channels / side, j / channels % side, j % channels);
            pixels[(channel * size + top + y) * size + left + x] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vit() -> VitConfig {
        VitConfig { img_size: 6, patch_size: 3, channels: 2, dim: 4, depth: 1, heads: 1 }
    }

    #[test]
    fn both_orders_hold_the_same_pixels() {
        let vit = vit();
        let pixels: Vec<f64> = (0..2 * 72).map(f64::from).collect();
        let ids = [3, 1, 0, 2];
        let (mut conv, mut target) = (vec![0.0; 4 * 18], vec![0.0; 4 * 18]);
        gather(&vit, &pixels, &ids, 2, &mut conv);
        targets(&vit, &pixels, &ids, 2, false, &mut target);
        for i in 0..4 {
            for (channel, y, x) in (0..2).flat_map(|c| (0..9).map(move |p| (c, p / 3, p % 3))) {
                let (top, left) = (ids[i] as usize / 2 * 3, ids[i] as usize % 2 * 3);
                let want = pixels[((i / 2 * 2 + channel) * 6 + top + y) * 6 + left + x];
                assert_eq!(conv[i * 18 + (channel * 3 + y) * 3 + x], want);
                assert_eq!(target[i * 18 + (y * 3 + x) * 2 + channel], want);
            }
        }
    }

    #[test]
    fn scatter_undoes_targets() {
        let vit = vit();
        let pixels: Vec<f64> = (0..72).map(f64::from).collect();
        let ids = [0, 1, 2, 3];
        let mut rows = vec![0.0; 72];
        targets(&vit, &pixels, &ids, 1, false, &mut rows);
        let mut back = vec![0.0; 72];
        scatter(&vit, &rows, &ids, &mut back);
        assert_eq!(back, pixels);
    }

    #[test]
    fn normalised_targets_have_unit_unbiased_variance() {
        let vit = vit();
        let pixels: Vec<f64> = (0..72).map(|i| f64::from(i * i % 17)).collect();
        let mut rows = vec![0.0; 18];
        targets(&vit, &pixels, &[2], 1, true, &mut rows);
        let mean = rows.iter().sum::<f64>() / 18.0;
        let variance = rows.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 17.0;
        assert!(mean.abs() < 1e-12 && (variance - 1.0).abs() < 1e-5);
    }
}
