//! A JPEG at a half, a quarter or an eighth of its size, at the cost of reading its codes: what a pixel of the smaller
//! picture stands for is transformed at once. As libjpeg-turbo does with `scale_denom`, to the last bit.
//!
//! Files that are neither baseline nor extended with 8 bits and Huffman codes, or irregular anywhere, are left to the
//! decoder of whole pictures.

use std::array::from_fn;

use super::Image;
use super::jpeg::{self, Segment};
use crate::error::Result;

mod huffman;
mod idct;

use huffman::{Bits, Table};

/// The places of a block's coefficients in the order of the file.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
    62, 63,
];

/// What precedes the scan.
#[derive(Default)]
struct Header {
    width: usize,
    height: usize,
    components: Vec<Component>,
    quantisation: [Option<[i32; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// MCUs between restarts; 0 for none.
    interval: usize,
}

/// A component of a frame.
#[derive(Clone, Copy)]
struct Component {
    id: u8,
    horizontal: usize,
    vertical: usize,
    quantisation: usize,
}

/// The picture at 1 / `reduction` (2, 4 or 8) of its size, rounded up; `None` where it must be decoded whole.
pub(super) fn decode(bytes: &[u8], reduction: usize) -> Option<Result<Image>> {
    let mut header = Header::default();
    for Segment { marker, body, end } in jpeg::segments(bytes) {
        if marker == 0xd8 && end == 2 {
            continue;
        }
        let length = bytes.get(end.checked_sub(body.len() + 2)?..)?.first_chunk()?;
        if usize::from(u16::from_be_bytes(*length)) != body.len() + 2 {
            return None;
        }
        match marker {
            0xc0 | 0xc1 if header.components.is_empty() => header.frame(body)?,
            0xc4 => header.huffman(body)?,
            0xdb => header.quantisation(body)?,
            0xdd => header.interval = usize::from(u16::from_be_bytes(body.try_into().ok()?)),
            // Adobe's: components that are no YCbCr.
            0xee if body.starts_with(b"Adobe") && body.get(11) != Some(&1) => return None,
            0xe0..=0xef | 0xfe => {}
            0xda => return header.scan(body, bytes.get(end..)?, reduction),
            _ => return None,
        }
    }
    None
}

impl Header {
    fn frame(&mut self, body: &[u8]) -> Option<()> {
        let (size, components) = body.split_at_checked(6)?;
        let [8, height, low_height, width, low_width, count] = *size else { return None };
        self.height = usize::from(u16::from_be_bytes([height, low_height]));
        self.width = usize::from(u16::from_be_bytes([width, low_width]));
        let (components, rest) = components.as_chunks::<3>();
        if components.len() != usize::from(count) || !rest.is_empty() || self.width * self.height == 0 {
            return None;
        }
        let component = |&[id, sampling, quantisation]: &[u8; 3]| {
            let (horizontal, vertical) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            Component { id, horizontal, vertical, quantisation: quantisation.into() }
        };
        self.components = components.iter().map(component).collect();
        let is_known = |side: &usize| (1..=2).contains(side);
        if !self.components.iter().all(|c| is_known(&c.horizontal) && is_known(&c.vertical)) {
            return None;
        }
        match &mut self.components[..] {
            // A component alone is not interleaved, whatever its sampling.
            [grey] => (grey.horizontal, grey.vertical) = (1, 1),
            [y, cb, cr] => {
                let is_plain = [&cb, &cr].iter().all(|c| c.horizontal == 1 && c.vertical == 1);
                if !is_plain || [y.id, cb.id, cr.id] == *b"RGB" {
                    return None;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn huffman(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let count = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(count)?;
            let tables = match kind >> 4 {
                0 if symbols.iter().all(|symbol| *symbol <= 11) => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some(Table::new(counts, symbols)?);
            body = rest;
        }
        Some(())
    }

    fn quantisation(&mut self, body: &[u8]) -> Option<()> {
        let (tables, rest) = body.as_chunks::<65>();
        for [kind, values @ ..] in tables {
            // Of 8 bits: the upper half is 0.
            *self.quantisation.get_mut(usize::from(*kind))? = Some(from_fn(|i| i32::from(values[i])));
        }
        rest.is_empty().then_some(())
    }

    /// The picture of the scan that has all components.
    fn scan(&self, body: &[u8], data: &[u8], reduction: usize) -> Option<Result<Image>> {
        let count = self.components.len();
        let (&[scanned], rest) = body.split_first_chunk()?;
        let (selectors, [0, 63, 0]) = rest.split_at_checked(2 * count)? else { return None };
        if count == 0 || usize::from(scanned) != count {
            return None;
        }
        // The first is sampled most.
        let [columns, lines] = [self.components[0].horizontal, self.components[0].vertical];
        let side = 8 / reduction;
        let mcus = [self.width.div_ceil(8 * columns), self.height.div_ceil(8 * lines)];
        let mut planes = Vec::with_capacity(count);
        for (component, &[id, tables]) in self.components.iter().zip(selectors.as_chunks::<2>().0) {
            if id != component.id {
                return None;
            }
            // Components that are sampled less in both directions are reduced less.
            let is_less = columns == 2 * component.horizontal && lines == 2 * component.vertical;
            let side = if is_less { 2 * side } else { side };
            let size = |full: usize, own: usize, most: usize| (full * own * side).div_ceil(8 * most);
            let stride = mcus[0] * component.horizontal * side;
            planes.push(Plane {
                component: *component,
                quantisation: self.quantisation.get(component.quantisation)?.as_ref()?,
                dc: self.dc.get(usize::from(tables >> 4))?.as_ref()?,
                ac: self.ac.get(usize::from(tables & 15))?.as_ref()?,
                side,
                stride,
                width: size(self.width, component.horizontal, columns),
                height: size(self.height, component.vertical, lines),
                mean: 0,
                pixels: vec![0; stride * mcus[1] * component.vertical * side],
            });
        }
        self.blocks(&mut planes, mcus, data)?;
        let (width, height) = (self.width.div_ceil(reduction), self.height.div_ceil(reduction));
        Some(match &planes[..] {
            [y, cb, cr] => Image::new(width, height, 3, rgb([y, cb, cr], width, height)),
            planes => {
                let rows = planes.iter().flat_map(|grey| (0..height).flat_map(|row| grey.row(row)));
                Image::new(width, height, 1, rows.copied().collect())
            }
        })
    }

    /// Reads all blocks; `None` unless they are all there and nothing else is.
    fn blocks(&self, planes: &mut [Plane<'_>], mcus: [usize; 2], data: &[u8]) -> Option<()> {
        let mut bits = Bits::new(data);
        let (mut until_restart, mut restarts) = (self.interval, 0u8);
        for row in 0..mcus[1] {
            for column in 0..mcus[0] {
                if self.interval > 0 && until_restart == 0 {
                    if bits.marker()? != 0xd0 + restarts % 8 {
                        return None;
                    }
                    restarts = restarts.wrapping_add(1);
                    until_restart = self.interval;
                    planes.iter_mut().for_each(|plane| plane.mean = 0);
                }
                until_restart = until_restart.wrapping_sub(1);
                for plane in planes.iter_mut() {
                    let Component { horizontal, vertical, .. } = plane.component;
                    for block in 0..horizontal * vertical {
                        let at =
                            [row * vertical + block / horizontal, column * horizontal + block % horizontal];
                        plane.block(&mut bits, at)?;
                    }
                }
            }
            if !bits.is_sound() {
                return None;
            }
        }
        (bits.marker()? == 0xd9).then_some(())
    }
}

/// A component's pixels, and what they are decoded with.
struct Plane<'a> {
    component: Component,
    quantisation: &'a [i32; 64],
    dc: &'a Table,
    ac: &'a Table,
    /// Pixels a side that a block becomes.
    side: usize,
    stride: usize,
    width: usize,
    height: usize,
    /// Of the block before, quantised.
    mean: i32,
    pixels: Vec<u8>,
}

impl Plane<'_> {
    /// Reads the block in that row and column of blocks.
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, [row, column]: [usize; 2]) -> Option<()> {
        self.mean += bits.difference(self.dc)?;
        if self.mean.abs() > 1 << 15 {
            return None;
        }
        let mean = self.mean * self.quantisation[0];
        let at = row * self.side * self.stride + column * self.side;
        if self.side == 1 {
            bits.skip(self.ac)?;
            *self.pixels.get_mut(at)? = idct::mean(mean);
            return Some(());
        }
        let mut coefficients = [0; 64];
        coefficients[0] = mean;
        let (quantisation, mut is_flat) = (self.quantisation, true);
        bits.coefficients(self.ac, |place, value| {
            coefficients[usize::from(ZIGZAG[place & 63])] = value * quantisation[place & 63];
            is_flat = false;
        })?;
        let out = &mut self.pixels[at..];
        match self.side {
            side if is_flat => write(out, self.stride, &[[idct::mean(mean); 8]; 8], side),
            2 => write(out, self.stride, &idct::block(&coefficients, idct::line2), 2),
            4 => write(out, self.stride, &idct::block(&coefficients, idct::line4), 4),
            _ => write(out, self.stride, &idct::block(&coefficients, idct::line8), 8),
        }
        Some(())
    }

    /// A row; rows above and below the picture are the outermost.
    fn row(&self, row: usize) -> &[u8] {
        &self.pixels[row.min(self.height - 1) * self.stride..][..self.width]
    }

    /// A row of the whole picture's width, in `scratch` if it is sampled less.
    fn wide_row<'a>(&'a self, row: usize, of: &Plane<'_>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let smooth = of.side > 1;
        let is_narrow = self.component.horizontal * self.side < of.component.horizontal * of.side;
        let is_low = self.component.vertical * self.side < of.component.vertical * of.side;
        scratch.clear();
        if is_low {
            let near = self.row(row / 2);
            if !smooth {
                return near;
            }
            let (far, round) =
                if row.is_multiple_of(2) { ((row / 2).saturating_sub(1), 1) } else { (row / 2 + 1, 2) };
            let pairs = near.iter().zip(self.row(far));
            scratch.extend(pairs.map(|(&near, &far)| three_to_one(near, far, round)));
            return scratch;
        }
        let values = self.row(row);
        if !is_narrow {
            return values;
        }
        let smooth = smooth && values.len() > 2;
        for (i, &value) in values.iter().enumerate() {
            let [left, right] = [i.saturating_sub(1), i + 1].map(|i| values.get(i).copied().unwrap_or(value));
            // At the ends the value itself: 3 + 1 parts of it.
            scratch.extend(if smooth {
                [three_to_one(value, left, 1), three_to_one(value, right, 2)]
            } else {
                [value; 2]
            });
        }
        scratch
    }
}

/// Three quarters of one value and one of the other.
fn three_to_one(near: u8, far: u8, round: u16) -> u8 {
    ((3 * u16::from(near) + u16::from(far) + round) / 4) as u8
}

/// Writes a block's rows.
#[inline(always)]
fn write<const N: usize>(out: &mut [u8], stride: usize, block: &[[u8; N]; N], side: usize) {
    for (out, row) in out.chunks_mut(stride).zip(block).take(side) {
        out[..side].copy_from_slice(&row[..side]);
    }
}

/// JFIF's YCbCr (ITU-R BT.601 in full range) in RGB, in libjpeg's fixed point.
fn rgb([y, cb, cr]: [&Plane<'_>; 3], width: usize, height: usize) -> Vec<u8> {
    let mut data = vec![0; 3 * width * height];
    let mut scratch = [Vec::new(), Vec::new()];
    for (row, out) in data.chunks_exact_mut(3 * width).enumerate() {
        let [of_cb, of_cr] = &mut scratch;
        let chroma = cb.wide_row(row, y, of_cb).iter().zip(cr.wide_row(row, y, of_cr));
        for ((out, &y), (&cb, &cr)) in out.as_chunks_mut::<3>().0.iter_mut().zip(y.row(row)).zip(chroma) {
            let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
            let half = 1 << 15;
            let rgb = [
                y + ((91881 * cr + half) >> 16),
                y + ((-22554 * cb - 46802 * cr + half) >> 16),
                y + ((116130 * cb + half) >> 16),
            ];
            *out = rgb.map(|value| value.clamp(0, 255) as u8);
        }
    }
    data
}
