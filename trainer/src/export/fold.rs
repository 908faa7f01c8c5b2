//! Normalisation folded into the patch embedding: `(x / 255 - mean) / std` is linear, and so is what follows. LayerScale
//! folded into the layer before it.

use smalti_models::Preprocess;

use crate::error::{Error, Result};

/// Weight `[dim, channels, side, side]` and bias that give for bytes what the given ones give for normalised
/// pixels. Computed in f64.
pub(super) fn fold(weight: &[f32], bias: &[f32], preprocess: &Preprocess) -> Result<(Vec<f32>, Vec<f32>)> {
    let row_len = weight.len() / bias.len().max(1);
    let area = row_len / preprocess.channels.max(1);
    let moments: Vec<(f64, f64)> =
        preprocess.mean.iter().zip(&preprocess.std).map(|(&mean, &std)| (mean.into(), std.into())).collect();
    let (mut folded, mut offsets) = (Vec::with_capacity(weight.len()), Vec::with_capacity(bias.len()));
    for (row, &bias) in weight.chunks_exact(row_len.max(1)).zip(bias) {
        let mut offset = f64::from(bias);
        for (plane, &(mean, std)) in row.chunks_exact(area.max(1)).zip(&moments) {
            for &weight in plane {
                folded.push((f64::from(weight) / (255.0 * std)) as f32);
                offset -= f64::from(weight) * mean / std;
            }
        }
        offsets.push(offset as f32);
    }
    if folded.iter().chain(&offsets).all(|value| value.is_finite()) {
        return Ok((folded, offsets));
    }
    let std = &preprocess.std;
    Err(Error::Usage(format!(
        "std {std:?} is too small to be folded into the patch embedding; export with --input f32-nchw"
    )))
}

/// A matrix, or a column, with a factor on each row. Computed in f64.
pub(super) fn scale_rows(values: &[f32], factors: &[f32]) -> Vec<f32> {
    let row_len = (values.len() / factors.len().max(1)).max(1);
    let rows = values.chunks_exact(row_len).zip(factors);
    rows.flat_map(|(row, &factor)| row.iter().map(move |&x| (f64::from(x) * f64::from(factor)) as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::preprocess::FitMode;
    use smalti_models::resize::Interpolation;

    fn preprocess(std: f32) -> Preprocess {
        Preprocess {
            img_size: 2,
            channels: 3,
            fit: FitMode::Crop,
            resize: None,
            interpolation: Interpolation::Bicubic,
            mean: vec![0.5, 0.25, 0.4],
            std: vec![std, 0.2, 0.3],
        }
    }

    #[test]
    fn bytes_give_what_normalised_pixels_give() {
        let preprocess = preprocess(0.1);
        let weight: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
        let (folded, offsets) = fold(&weight, &[0.3, -2.0], &preprocess).unwrap();
        let pixels: Vec<u8> = (0..12).map(|i| i * 21).collect();
        let mut normalised = vec![0.0; 12];
        preprocess.normalise(&pixels, &mut normalised).unwrap();
        for (row, bias) in [0.3, -2.0].into_iter().enumerate() {
            // Planes of the weight against interleaved bytes.
            let byte = |j: usize| f32::from(pixels[j % 4 * 3 + j / 4]);
            let found = offsets[row] + (0..12).map(|j| folded[row * 12 + j] * byte(j)).sum::<f32>();
            let want: f32 = bias + (0..12).map(|j| weight[row * 12 + j] * normalised[j]).sum::<f32>();
            assert!((found - want).abs() < 1e-5, "{found} instead of {want}");
        }
    }

    #[test]
    fn each_row_has_its_factor() {
        assert_eq!(scale_rows(&[1.0, 2.0, 3.0, 4.0], &[10.0, 0.5]), [10.0, 20.0, 1.5, 2.0]);
        assert_eq!(scale_rows(&[1.0, 2.0], &[10.0, 0.5]), [10.0, 1.0]);
    }

    #[test]
    fn a_std_beyond_f32_is_refused() {
        let error = fold(&[1e30; 24], &[0.0, 0.0], &preprocess(1e-12)).unwrap_err();
        assert!(error.to_string().contains("f32-nchw"), "{error}");
    }
}
