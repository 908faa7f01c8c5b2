//! Operations that move pixels: mirroring, shearing, shifting, turning. All but the mirror are Pillow's to the last
//! bit.

use smalti_models::image::Image;

use crate::error::Result;

/// How a pixel of the result is read between pixels of the source, as Pillow's `Image.transform` does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// The nearest pixel.
    Nearest,
    /// The mean of four pixels, weighted by their distance.
    Bilinear,
}

/// How operations that move pixels fill the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// How the source is read.
    pub sampling: Sampling,
    /// The colour of places outside the source; grey is the first of the three.
    pub fill: [u8; 3],
}

/// The mirror image, left for right.
pub fn mirrored(image: Image) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let mut pixels = image.into_data();
    for row in pixels.chunks_exact_mut(width * channels) {
        match channels {
            1 => row.reverse(),
            _ => row.as_chunks_mut::<3>().0.reverse(),
        }
    }
    Ok(Image::new(width, height, channels, pixels)?)
}

/// Shifts row y by `factor` times y, y counted from the upper edge.
pub(super) fn shear_x(image: &Image, factor: f64, canvas: Canvas) -> Result<Image> {
    affine(image, [1.0, factor, 0.0, 0.0, 1.0, 0.0], canvas)
}

/// Shifts column x by `factor` times x, x counted from the left edge.
pub(super) fn shear_y(image: &Image, factor: f64, canvas: Canvas) -> Result<Image> {
    affine(image, [1.0, 0.0, 0.0, factor, 1.0, 0.0], canvas)
}

/// Moves the image right by `x` and down by `y` pixels, both rounded towards zero as in torchvision.
pub(super) fn translate(image: &Image, x: f64, y: f64, canvas: Canvas) -> Result<Image> {
    // Whole pixels: there is nothing to interpolate.
    let canvas = Canvas { sampling: Sampling::Nearest, ..canvas };
    affine(image, [1.0, 0.0, -x.trunc(), 0.0, 1.0, -y.trunc()], canvas)
}

/// Turns the image counterclockwise around its centre: Pillow's `Image.rotate`.
pub(super) fn rotate(image: Image, degrees: f64, canvas: Canvas) -> Result<Image> {
    let degrees = degrees.rem_euclid(360.0);
    let (width, height) = (image.width(), image.height());
    if degrees == 0.0 {
        return Ok(image);
    }
    if degrees == 180.0 {
        return rearrange(&image, |x, y| (width - 1 - x, height - 1 - y));
    }
    if degrees == 90.0 && width == height {
        return rearrange(&image, |x, y| (width - 1 - y, x));
    }
    if degrees == 270.0 && width == height {
        return rearrange(&image, |x, y| (y, height - 1 - x));
    }
    let angle = -degrees.to_radians();
    let (cos, sin) = (round_15(libm::cos(angle)), round_15(libm::sin(angle)));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    let left = cos * -x + sin * -y + x;
    let top = -sin * -x + cos * -y + y;
    affine(&image, [cos, sin, left, -sin, cos, top], canvas)
}

/// Rounds to 15 decimals, as Python's `round` does.
fn round_15(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

/// The image of the same size whose pixel (x, y) is the pixel `from(x, y)` of the source.
fn rearrange(image: &Image, from: impl Fn(usize, usize) -> (usize, usize)) -> Result<Image> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    let mut pixels = Vec::with_capacity(image.data().len());
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let (x, y) = from(x, y);
        let start = (y * width + x) * channels;
        pixels.extend_from_slice(&image.data()[start..start + channels]);
    }
    Ok(Image::new(width, height, channels, pixels)?)
}

/// The image of the same size whose point (x, y) is the point (a x + b y + c, d x + e y + f) of the source: Pillow's
/// `Image.transform` with `AFFINE`. Pixels are unit squares; their centres lie at halves.
fn affine(image: &Image, matrix: [f64; 6], canvas: Canvas) -> Result<Image> {
    let pixels = match (image.channels(), canvas.sampling) {
        (1, Sampling::Nearest) => nearest::<1>(image, matrix, [canvas.fill[0]]),
        (1, Sampling::Bilinear) => bilinear::<1>(image, matrix, [canvas.fill[0]]),
        (_, Sampling::Nearest) => nearest::<3>(image, matrix, canvas.fill),
        (_, Sampling::Bilinear) => bilinear::<3>(image, matrix, canvas.fill),
    };
    Ok(Image::new(image.width(), image.height(), image.channels(), pixels)?)
}

/// Pillow steps along rows in fixed point with 16 fraction bits.
fn nearest<const C: usize>(image: &Image, matrix: [f64; 6], fill: [u8; C]) -> Vec<u8> {
    let (width, height) = (image.width(), image.height());
    let (source, _) = image.data().as_chunks::<C>();
    let fixed = |value: f64| libm::floor(value * 65536.0 + 0.5) as i64;
    let [a, b, c, d, e, f] = matrix;
    let (right, down) = ([fixed(a), fixed(d)], [fixed(b), fixed(e)]);
    let mut start = [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)];
    let mut out = vec![fill; width * height];
    for row in out.chunks_exact_mut(width) {
        let [mut x, mut y] = start;
        for pixel in row {
            let place = (usize::try_from(x >> 16), usize::try_from(y >> 16));
            if let (Ok(column), Ok(line)) = place
                && column < width
                && line < height
            {
                *pixel = source[line * width + column];
            }
            (x, y) = (x + right[0], y + right[1]);
        }
        start = [start[0] + down[0], start[1] + down[1]];
    }
    out.into_flattened()
}

/// Pillow computes every place from the pixel's centre, in f64, and cuts the value off. Beyond the outermost centres
/// the edge's pixels are repeated.
fn bilinear<const C: usize>(image: &Image, matrix: [f64; 6], fill: [u8; C]) -> Vec<u8> {
    let (width, height) = (image.width(), image.height());
    let (source, _) = image.data().as_chunks::<C>();
    let [a, b, c, d, e, f] = matrix;
    let mut out = vec![fill; width * height];
    for (row, line) in out.chunks_exact_mut(width).enumerate() {
        let y = row as f64 + 0.5;
        for (column, pixel) in line.iter_mut().enumerate() {
            let x = column as f64 + 0.5;
            let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
            let inside = (0.0..width as f64).contains(&from_x) && (0.0..height as f64).contains(&from_y);
            if !inside {
                continue;
            }
            let ([left, right], across) = neighbours(from_x, width);
            let ([above, below], down) = neighbours(from_y, height);
            let four = [(above, left), (above, right), (below, left), (below, right)];
            let four = four.map(|(y, x)| source[y * width + x]);
            for (channel, value) in pixel.iter_mut().enumerate() {
                let [p, q, r, s] = four.map(|pixel| f64::from(pixel[channel]));
                let (upper, lower) = (p + (q - p) * across, r + (s - r) * across);
                *value = (upper + (lower - upper) * down) as u8;
            }
        }
    }
    out.into_flattened()
}

/// The two pixels of a line whose centres are around a place on it, kept within the line, and how far the place is
/// from the first to the second.
fn neighbours(place: f64, count: usize) -> ([usize; 2], f64) {
    let place = place - 0.5;
    if place < 0.0 {
        return ([0, 0], place + 1.0);
    }
    let first = place as usize;
    ([first, (first + 1).min(count - 1)], place - first as f64)
}

#[cfg(test)]
mod tests {
    use super::super::Augment;
    use super::super::tests::{applied, draw, places};
    use super::*;

    #[test]
    fn a_flip_mirrors_half_of_them() {
        let augment = Augment { flip: true, ..Augment::default() };
        let turned = (0..100).filter(|&i| {
            let out = applied(augment, &places(8), draw(i));
            assert!((out[128] - 1.0).abs() < 1e-3, "rows stay");
            let expected: Vec<f32> = (1..=8).map(|v| v as f32).collect();
            let row: Vec<f32> = out[..8].iter().map(|v| v.round()).collect();
            assert!(row == expected || row.iter().rev().eq(&expected), "{row:?}");
            row != expected
        });
        assert!((35..65).contains(&turned.count()));
        let grey = Image::new(3, 1, 1, vec![1, 2, 3]).unwrap();
        assert_eq!(mirrored(grey).unwrap().data(), [3, 2, 1]);
    }

    #[test]
    fn directions_are_torchvisions() {
        let canvas = Canvas { sampling: Sampling::Nearest, fill: [0; 3] };
        let image = Image::new(2, 2, 1, vec![1, 2, 3, 4]).unwrap();
        let turned = rotate(image.clone(), 90.0, canvas).unwrap();
        assert_eq!(turned.data(), [2, 4, 1, 3], "counterclockwise");
        assert_eq!(translate(&image, 1.9, 0.0, canvas).unwrap().data(), [0, 1, 0, 3], "to the right");
        assert_eq!(translate(&image, 0.0, -1.0, canvas).unwrap().data(), [3, 4, 0, 0], "upwards");
        assert_eq!(shear_x(&image, 1.0, canvas).unwrap().data(), [2, 0, 0, 0]);
    }
}
