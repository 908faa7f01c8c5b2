//! Operations that change colours in place: Pillow's `ImageOps` and `ImageEnhance` to the last bit.

use smalti_models::image::Image;

use crate::error::Result;

/// What becomes of each value of a channel.
type Table = [u8; 256];

fn table(of: impl Fn(u8) -> u8) -> Table {
    std::array::from_fn(|value| of(value as u8))
}

/// `ImageOps.invert`.
pub(super) fn invert(image: Image) -> Result<Image> {
    look_up(image, &[table(|value| 255 - value)])
}

/// `ImageOps.posterize`: keeps this many of the upper bits.
pub(super) fn posterize(image: Image, bits: u32) -> Result<Image> {
    let mask = 0xffu8.checked_shl(8u32.saturating_sub(bits)).unwrap_or(0);
    look_up(image, &[table(|value| value & mask)])
}

/// `ImageOps.solarize`: inverts values from the threshold on.
pub(super) fn solarize(image: Image, threshold: f64) -> Result<Image> {
    look_up(image, &[table(|value| if f64::from(value) < threshold { value } else { 255 - value })])
}

/// `ImageOps.autocontrast`: stretches each channel to the whole range.
pub(super) fn auto_contrast(image: Image) -> Result<Image> {
    let tables: Vec<Table> = histograms(&image).iter().map(stretch).collect();
    look_up(image, &tables)
}

/// The darkest value becomes 0, the lightest 255.
fn stretch(histogram: &[u32; 256]) -> Table {
    let used = |&value: &u8| histogram[usize::from(value)] > 0;
    let (low, high) = ((0..=255).find(used).unwrap_or(0), (0..=255).rev().find(used).unwrap_or(0));
    if high <= low {
        return table(|value| value);
    }
    let scale = 255.0 / f64::from(high - low);
    let offset = -f64::from(low) * scale;
    // The cast cuts off towards zero and keeps within 0 to 255, as Pillow does.
    table(|value| (f64::from(value) * scale + offset) as u8)
}

/// `ImageOps.equalize`: evens out each channel's histogram.
pub(super) fn equalize(image: Image) -> Result<Image> {
    let tables: Vec<Table> = histograms(&image).iter().map(even_out).collect();
    look_up(image, &tables)
}

fn even_out(histogram: &[u32; 256]) -> Table {
    let total: u32 = histogram.iter().sum();
    let last = histogram.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
    // Also 0 where there is only one value.
    let step = (total - last) / 255;
    if step == 0 {
        return table(|value| value);
    }
    let mut below = step / 2;
    let mut table = [0; 256];
    for (out, count) in table.iter_mut().zip(histogram) {
        *out = (below / step).min(255) as u8;
        below += count;
    }
    table
}

/// `ImageEnhance.Brightness`: away from black.
pub(super) fn brightness(image: Image, factor: f64) -> Result<Image> {
    look_up(image, &[table(|value| blend(0, value, factor as f32))])
}

/// `ImageEnhance.Contrast`: away from the image's mean grey.
pub(super) fn contrast(image: Image, factor: f64) -> Result<Image> {
    let grey = image.clone().into_channels(1)?;
    let sum: u64 = grey.data().iter().map(|&value| u64::from(value)).sum();
    let mean = (sum as f64 / grey.data().len() as f64 + 0.5) as u8;
    look_up(image, &[table(|value| blend(mean, value, factor as f32))])
}

/// `ImageEnhance.Color`: away from grey. Grey images stay.
pub(super) fn saturation(image: Image, factor: f64) -> Result<Image> {
    if image.channels() == 1 {
        return Ok(image);
    }
    let grey = image.clone().into_channels(1)?;
    edit(image, |pixels, channels| {
        for (pixel, &grey) in pixels.chunks_exact_mut(channels).zip(grey.data()) {
            pixel.iter_mut().for_each(|value| *value = blend(grey, *value, factor as f32));
        }
    })
}

/// `ImageEnhance.Sharpness`: away from the image smoothed by `ImageFilter.SMOOTH`. Edges stay.
pub(super) fn sharpness(image: Image, factor: f64) -> Result<Image> {
    let smooth = smooth(&image);
    edit(image, |pixels, _| {
        for (value, &smooth) in pixels.iter_mut().zip(&smooth) {
            *value = blend(smooth, *value, factor as f32);
        }
    })
}

/// The mean of 3 x 3 pixels, the middle one weighted by 5, summed up in f32 in Pillow's order; pixels at the edge
/// stay.
fn smooth(image: &Image) -> Vec<u8> {
    const SIDE: f32 = 1.0 / 13.0;
    const MIDDLE: f32 = 5.0 / 13.0;
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let stride = width * channels;
    let source = image.data();
    let mut out = source.to_vec();
    for y in 1..height.saturating_sub(1) {
        for i in y * stride + channels..((y + 1) * stride).saturating_sub(channels) {
            let line = |middle: usize, weight: f32| {
                let [before, here, after] =
                    [middle - channels, middle, middle + channels].map(|i| f32::from(source[i]));
                before * SIDE + here * weight + after * SIDE
            };
            let sum = 0.5 + line(i + stride, SIDE) + line(i, MIDDLE) + line(i - stride, SIDE);
            out[i] = sum as u8;
        }
    }
    out
}

/// `Image.blend(from, to, factor)`, which may go beyond both. The cast cuts off towards zero and keeps within 0 to 255.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

/// How often each value occurs in each channel.
fn histograms(image: &Image) -> Vec<[u32; 256]> {
    let mut counts = vec![[0; 256]; image.channels()];
    for pixel in image.data().chunks_exact(image.channels()) {
        for (counts, &value) in counts.iter_mut().zip(pixel) {
            counts[usize::from(value)] += 1;
        }
    }
    counts
}

/// Replaces each value by its channel's table; one table serves all channels.
fn look_up(image: Image, tables: &[Table]) -> Result<Image> {
    edit(image, |pixels, _| match tables {
        [table] => pixels.iter_mut().for_each(|value| *value = table[usize::from(*value)]),
        _ => {
            for pixel in pixels.chunks_exact_mut(tables.len().max(1)) {
                for (value, table) in pixel.iter_mut().zip(tables) {
                    *value = table[usize::from(*value)];
                }
            }
        }
    })
}

/// Changes the pixels where they are, given the number of channels.
fn edit(image: Image, change: impl FnOnce(&mut [u8], usize)) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let mut pixels = image.into_data();
    change(&mut pixels, channels);
    Ok(Image::new(width, height, channels, pixels)?)
}
