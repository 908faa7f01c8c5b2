//! Components as planes of pixels, and what libjpeg makes of these: rows of one width (`jdsample.c`) in RGB (`jdcolor.c`).

use super::idct::{self, Batch};

/// The places of a block's coefficients in the order of the file.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
    62, 63,
];

/// A component's pixels.
pub(super) struct Plane {
    /// Pixels a side that a block becomes: 8, 4, 2 or 1.
    pub(super) side: usize,
    stride: usize,
    width: usize,
    height: usize,
    /// How many pixels of the image each is wide and high.
    expansion: [usize; 2],
    /// Whether pixels between are interpolated.
    is_smooth: bool,
    pixels: Vec<u8>,
    batch: Batch,
    /// The bits of all blocks' means, without their signs.
    means: u32,
}

/// The first mean of a block that is beyond any image's: those of 8-bit pixels are 1024 at most, and what quantization adds to
/// that is less than as much again. Means are read at every size of the image, so that it is damaged at all of them or at none.
const IMPOSSIBLE: u32 = 4096;

impl Plane {
    /// For an image of that size whose MCUs have `most` blocks of a component at most, each `side` pixels a side. `None` if a
    /// pixel would stand for fractions of others.
    pub(super) fn new(
        size: [usize; 2],
        sampling: [usize; 2],
        most: [usize; 2],
        mcus: [usize; 2],
        side: usize,
    ) -> Option<Plane> {
        // Components that are sampled less are reduced less.
        let mut own = side;
        while own < 8 && (0..2).all(|axis| (most[axis] * side).is_multiple_of(sampling[axis] * own * 2)) {
            own *= 2;
        }
        let [full, part] = [0, 1].map(|axis| [most[axis] * side, sampling[axis] * own]);
        if !full[0].is_multiple_of(full[1]) || !part[0].is_multiple_of(part[1]) {
            return None;
        }
        let [width, height] = [0, 1].map(|axis| (size[axis] * sampling[axis] * own).div_ceil(8 * most[axis]));
        let stride = mcus[0] * sampling[0] * own;
        Some(Plane {
            side: own,
            stride,
            width,
            height,
            expansion: [full[0] / full[1], part[0] / part[1]],
            is_smooth: side > 1,
            pixels: vec![0; stride * mcus[1] * sampling[1] * own],
            batch: Batch::new(),
            means: 0,
        })
    }

    /// Sets the mean of the block that comes next.
    #[inline(always)]
    pub(super) fn set_mean(&mut self, mean: i32) {
        self.means |= mean.unsigned_abs();
        self.batch.set(0, mean);
    }

    /// Sets another coefficient of that block, by its place in zigzag order.
    #[inline(always)]
    pub(super) fn set(&mut self, place: usize, value: i32) {
        self.batch.set(ZIGZAG[place & 63], value);
    }

    /// Ends the block in that row and column of blocks.
    #[inline(always)]
    pub(super) fn end_block(&mut self, [row, column]: [usize; 2]) {
        if self.batch.end_block((row * self.stride + column) * self.side) {
            self.transform();
        }
    }

    /// Whether a block has a mean that no image has: codes were lost on the way.
    pub(super) fn is_impossible(&self) -> bool {
        self.means >= IMPOSSIBLE
    }

    /// Transforms the blocks that wait.
    #[inline(never)]
    pub(super) fn transform(&mut self) {
        self.batch.transform(self.side, &mut self.pixels, self.stride);
    }

    /// Sets a block that is all of one mean.
    #[inline(always)]
    pub(super) fn flat(&mut self, [row, column]: [usize; 2], mean: i32) {
        self.means |= mean.unsigned_abs();
        let out = &mut self.pixels[(row * self.stride + column) * self.side..];
        let pixel = idct::mean(mean);
        match self.side {
            1 => out[0] = pixel,
            side => out.chunks_mut(self.stride).take(side).for_each(|row| row[..side].fill(pixel)),
        }
    }

    /// A row; rows above and below the image are the outermost.
    fn row(&self, row: usize) -> &[u8] {
        &self.pixels[row.min(self.height - 1) * self.stride..][..self.width]
    }

    /// A row of the image, of its width or a little more; in `scratch` if pixels come between.
    pub(super) fn image_row<'a>(&'a self, row: usize, scratch: &'a mut Scratch) -> &'a [u8] {
        let [across, down] = self.expansion;
        let near = self.row(row / down);
        // The row that is next nearest.
        let (far, round) = if row.is_multiple_of(2) {
            (self.row((row / 2).saturating_sub(1)), 1)
        } else {
            (self.row(row / 2 + 1), 2)
        };
        let Scratch { sums, row: wide } = scratch;
        match self.expansion {
            [1, 2] if self.is_smooth => {
                wide.resize(near.len(), 0);
                for (out, (&near, &far)) in wide.iter_mut().zip(near.iter().zip(far)) {
                    *out = ((3 * u16::from(near) + u16::from(far) + round) / 4) as u8;
                }
            }
            [1, _] => return near,
            [2, 1] if self.is_smooth && self.width > 2 => {
                sums.resize(near.len(), 0);
                sums.iter_mut().zip(near).for_each(|(sum, &near)| *sum = near.into());
                widen::<2>(sums, wide, [1, 2]);
            }
            [2, 2] if self.is_smooth && self.width > 2 => {
                sums.resize(near.len(), 0);
                for (sum, (&near, &far)) in sums.iter_mut().zip(near.iter().zip(far)) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                widen::<4>(sums, wide, [8, 7]);
            }
            _ => {
                wide.clear();
                wide.extend(near.iter().flat_map(|&value| std::iter::repeat_n(value, across)));
            }
        }
        wide
    }
}

/// Memory for a row that is made of narrower ones.
#[derive(Default)]
pub(super) struct Scratch {
    sums: Vec<u16>,
    row: Vec<u8>,
}

/// Twice as many pixels: each is three parts of the nearest sum and one of the next; at the ends four of the nearest.
fn widen<const BITS: usize>(sums: &[u16], row: &mut Vec<u8>, round: [u16; 2]) {
    row.resize(2 * sums.len(), 0);
    let (Some(&first), Some(&last)) = (sums.first(), sums.last()) else { return };
    let pairs = row[1..2 * sums.len() - 1].as_chunks_mut::<2>().0;
    // Between two sums lie a pixel of the left one and one of the right one.
    for ((pair, &left), &right) in pairs.iter_mut().zip(sums).zip(&sums[1..]) {
        *pair = [(3 * left + right + round[1]) >> BITS, (3 * right + left + round[0]) >> BITS]
            .map(|value| value as u8);
    }
    let end = row.len() - 1;
    row[0] = ((4 * first + round[0]) >> BITS) as u8;
    row[end] = ((4 * last + round[1]) >> BITS) as u8;
}

/// What the components of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    Grey,
    Rgb,
    /// JFIF's: ITU-R BT.601 in full range.
    YCbCr,
    /// Adobe's: inverted inks.
    Cmyk,
    /// CMY as JFIF's YCbCr, and K.
    Ycck,
}

/// Pixels that are converted together.
const TILE: usize = 32;

impl Colours {
    /// The image of planes, grey or RGB.
    pub(super) fn convert(self, planes: &[&Plane], width: usize, height: usize) -> Vec<u8> {
        let channels = if self == Colours::Grey { 1 } else { 3 };
        let mut data = vec![0; channels * width * height];
        let mut scratch: [Scratch; 4] = Default::default();
        for (row, out) in data.chunks_exact_mut(channels * width).enumerate() {
            let mut rows: [&[u8]; 4] = [&[]; 4];
            for ((of_plane, plane), scratch) in rows.iter_mut().zip(planes).zip(&mut scratch) {
                *of_plane = &plane.image_row(row, scratch)[..width];
            }
            if self == Colours::Grey {
                out.copy_from_slice(rows[0]);
                continue;
            }
            for (tile, out) in out.chunks_mut(3 * TILE).enumerate() {
                let values = rows.map(|row| tile_of(row, tile));
                let [red, green, blue] = self.rgb(&values);
                for (x, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                    *pixel = [red[x], green[x], blue[x]];
                }
            }
        }
        data
    }

    #[inline(always)]
    fn rgb(self, [first, second, third, black]: &[[u8; TILE]; 4]) -> [[u8; TILE]; 3] {
        match self {
            Colours::Rgb | Colours::Grey => [*first, *second, *third],
            Colours::YCbCr => from_ycbcr(first, second, third),
            Colours::Cmyk => [first, second, third].map(|ink| over_black(ink, black)),
            // The inks are the inverse of the RGB that these would be.
            Colours::Ycck => {
                from_ycbcr(first, second, third).map(|rgb| over_black(&rgb.map(|value| 255 - value), black))
            }
        }
    }
}

/// A tile of a row, which may end within.
fn tile_of(row: &[u8], tile: usize) -> [u8; TILE] {
    let rest = row.get(TILE * tile..).unwrap_or_default();
    if let Some(values) = rest.first_chunk() {
        return *values;
    }
    let mut values = [0; TILE];
    values[..rest.len()].copy_from_slice(rest);
    values
}

/// libjpeg's fixed point, of which products of 16 bits by 16 remain where whole values are taken out of the factors.
fn from_ycbcr(y: &[u8; TILE], cb: &[u8; TILE], cr: &[u8; TILE]) -> [[u8; TILE]; 3] {
    let mut rgb = [[0; TILE]; 3];
    for i in 0..TILE {
        let (y, cb, cr) = (i32::from(y[i]), i32::from(cb[i]) - 128, i32::from(cr[i]) - 128);
        let half = 1 << 15;
        let red = y + cr + ((26345 * cr + half) >> 16);
        let green = y - cr + ((-22554 * cb + 18734 * cr + half) >> 16);
        let blue = y + 2 * cb + ((-14942 * cb + half) >> 16);
        rgb[0][i] = red.clamp(0, 255) as u8;
        rgb[1][i] = green.clamp(0, 255) as u8;
        rgb[2][i] = blue.clamp(0, 255) as u8;
    }
    rgb
}

/// What is left of white behind an ink and black, both inverted: Pillow's `convert("RGB")`.
fn over_black(ink: &[u8; TILE], black: &[u8; TILE]) -> [u8; TILE] {
    let mut out = [0; TILE];
    for i in 0..TILE {
        let black = u32::from(black[i]);
        let product = u32::from(255 - ink[i]) * black + 128;
        out[i] = (black - ((product + (product >> 8)) >> 8).min(black)) as u8;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_that_no_image_has_is_noticed() {
        let plane = || Plane::new([8, 8], [1, 1], [1, 1], [1, 1], 8).unwrap();
        for (value, is_impossible) in [(0, false), (-2047, false), (4095, false), (4096, true), (-9000, true)]
        {
            let (mut set, mut flat) = (plane(), plane());
            set.set_mean(value);
            set.end_block([0, 0]);
            set.transform();
            flat.flat([0, 0], value);
            assert_eq!([set.is_impossible(), flat.is_impossible()], [is_impossible; 2], "{value}");
        }
    }
}
