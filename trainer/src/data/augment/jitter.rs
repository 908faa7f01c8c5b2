//! Colour jitter: brightness, contrast and saturation by random factors (torchvision's `ColorJitter` without hue).
//!
//! Computes in f32 and rounds once, where [`super::Op`] has Pillow's rounding after every operation.

use smalti_models::image::Image;

use crate::error::Result;
use crate::rng::Rng;

/// Changes brightness, contrast and saturation, in random order.
pub(super) fn jitter(image: Image, strength: f32, rng: &mut Rng) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let mut order = [0, 1, 2];
    rng.shuffle(&mut order);
    let mut pixels: Vec<f32> = image.data().iter().map(|&v| f32::from(v)).collect();
    for change in order {
        let factor = rng.range(f64::from(1.0 - strength), f64::from(1.0 + strength)) as f32;
        match change {
            0 => blend(&mut pixels, factor, |_| 0.0, channels),
            1 => {
                let total: f64 = pixels.chunks_exact(channels).map(|p| f64::from(grey(p))).sum();
                let mean = (total / (width * height) as f64) as f32;
                blend(&mut pixels, factor, |_| mean, channels);
            }
            _ if channels == 3 => blend(&mut pixels, factor, grey, channels),
            _ => {}
        }
    }
    let pixels = pixels.into_iter().map(|v| v.round() as u8).collect();
    Ok(Image::new(width, height, channels, pixels)?)
}

/// The brightness of a pixel, by the weights of ITU-R BT.601.
fn grey(pixel: &[f32]) -> f32 {
    match pixel {
        [r, g, b] => 0.299 * r + 0.587 * g + 0.114 * b,
        _ => pixel.first().copied().unwrap_or(0.0),
    }
}

/// Moves each pixel away from `other` (factor above 1) or towards it (below 1).
fn blend(pixels: &mut [f32], factor: f32, other: impl Fn(&[f32]) -> f32, channels: usize) {
    for pixel in pixels.chunks_exact_mut(channels) {
        let base = (1.0 - factor) * other(pixel);
        pixel.iter_mut().for_each(|v| *v = (factor * *v + base).clamp(0.0, 255.0));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::draw;
    use super::*;

    #[test]
    fn jitter_moves_within_its_bounds() {
        let flat = Image::new(4, 4, 3, [100, 150, 50].repeat(16)).unwrap();
        let mut seen = (255, 0);
        for i in 0..300 {
            let out = jitter(flat.clone(), 0.4, &mut draw(i).shared()).unwrap();
            seen = (seen.0.min(out.data()[1]), seen.1.max(out.data()[1]));
            // A flat image stays flat.
            assert!(out.data().chunks_exact(3).all(|p| p == &out.data()[..3]));
        }
        assert!(seen.0 < 110 && seen.1 > 190, "{seen:?}");
        let same = jitter(flat.clone(), 0.0, &mut draw(0).shared()).unwrap();
        assert_eq!(same, flat);
    }
}
