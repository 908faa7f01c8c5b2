//! Convolution with a 3x3 kernel and stride 1 on images of an even side, by Winograd's minimal filtering
//! F(2 x 2, 3 x 3) (arXiv 1509.09308, section 4.1).
//!
//! Four outputs of a channel take 16 products where the formula has 36. A tile of 4 x 4 inputs `d` and a kernel `g` make 2 x 2
//! outputs `Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` ([`smalti_kernels::winograd`] has the matrices). Summed over channels, each of the 16
//! places of ⊙ is a product of matrices, `[tiles, in]` by `[in, out]`. The gradient of the inputs is such a convolution of the
//! gradient of the outputs, with the kernel turned; that of the kernel sums `(Bᵀ d B)ᵀ (G dy Gᵀ)` over tiles.

use smalti_kernels::matmul::Shape;
use smalti_kernels::winograd::{PLACES, Tiles, kernel_places};

use super::conv::panels;
use super::{Float, resize_buffer};

/// Transformed values that are worked on at a time, about: they fit the second cache.
pub const BLOCK: usize = 1 << 17;

/// Images `[side, side, channels]`.
#[derive(Clone, Copy, Debug)]
struct Map {
    side: usize,
    channels: usize,
    /// Width of their border of zeros.
    border: usize,
}

impl Map {
    /// Values of a row of positions.
    fn line(self) -> usize {
        (self.side + 2 * self.border) * self.channels
    }

    /// Where a row of tiles of an image begins, two rows of positions for each.
    fn start(self, image: usize, row: usize, inset: usize) -> usize {
        let lines = image * (self.side + 2 * self.border) + 2 * row + inset;
        lines * self.line() + inset * self.channels
    }
}

/// A convolution of `inputs` to `outputs` channels on images of this even side.
#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    /// Side of inputs and outputs in positions.
    pub side: usize,
    /// Channels of an input.
    pub inputs: usize,
    /// Channels of an output.
    pub outputs: usize,
}

/// Transformed values of a block of tiles.
#[derive(Clone, Debug, Default)]
pub struct Buffers<R> {
    /// `[16, tiles, in]`.
    inputs: Vec<R>,
    /// `[16, tiles, out]`.
    outputs: Vec<R>,
}

impl Winograd {
    /// The same with inputs and outputs exchanged, as the gradient of the inputs is computed.
    pub fn turned(self) -> Winograd {
        Winograd { inputs: self.outputs, outputs: self.inputs, ..self }
    }

    /// Calls `each` for blocks of rows of tiles of all images: the rows, and the tiles of a block.
    fn blocks(self, images: usize, mut each: impl FnMut(std::ops::Range<usize>, usize)) {
        let (per_row, rows) = (self.side / 2, images * self.side / 2);
        let size = (BLOCK / (PLACES * per_row * (self.inputs + self.outputs))).max(1);
        for first in (0..rows).step_by(size) {
            let block = first..(first + size).min(rows);
            let tiles = block.len() * per_row;
            each(block, tiles);
        }
    }

    /// A row of tiles within a block, and where its values begin in a plane.
    fn tiles(self, map: Map, place: usize, tiles: usize) -> (Tiles, usize) {
        let count = self.side / 2;
        let row = Tiles { count, channels: map.channels, line: map.line(), plane: tiles * map.channels };
        (row, place * count * map.channels)
    }

    /// Computes `y` `[images, side, side, out]` from `x` within its borders and the transformed kernel
    /// `[16][panel][in][≤ 16]`.
    pub fn convolve<R: Float>(self, kernel: &[R], x: &[R], y: &mut [R], buffers: &mut Buffers<R>) {
        let (per_image, size) = (self.side / 2, self.inputs * self.outputs);
        let from = Map { side: self.side, channels: self.inputs, border: 1 };
        let to = Map { side: self.side, channels: self.outputs, border: 0 };
        let images = y.len() / (self.side * self.side * self.outputs).max(1);
        self.blocks(images, |rows, tiles| {
            resize_buffer(&mut buffers.inputs, PLACES * tiles * self.inputs);
            resize_buffer(&mut buffers.outputs, PLACES * tiles * self.outputs);
            for (place, row) in rows.clone().enumerate() {
                let (t, at) = self.tiles(from, place, tiles);
                let x = &x[from.start(row / per_image, row % per_image, 0)..];
                R::winograd_inputs(t, x, &mut buffers.inputs[at..]);
            }
            let planes = buffers.inputs.chunks_exact(tiles * self.inputs);
            let planes = planes.zip(buffers.outputs.chunks_exact_mut(tiles * self.outputs));
            for ((x, y), kernel) in planes.zip(kernel.chunks_exact(size)) {
                for (first, width) in panels(self.outputs) {
                    let shape = Shape {
                        m: tiles,
                        k: self.inputs,
                        n: width,
                        a_row: self.inputs,
                        a_col: 1,
                        b_row: width,
                        c_row: self.outputs,
                        accumulate: false,
                    };
                    R::product(shape, R::ONE, x, &kernel[first * self.inputs..], &mut y[first..]);
                }
            }
            for (place, row) in rows.enumerate() {
                let (t, at) = self.tiles(to, place, tiles);
                let y = &mut y[to.start(row / per_image, row % per_image, 0)..];
                R::winograd_outputs(t, &buffers.outputs[at..], y);
            }
        });
    }

    /// Adds the gradient of the transformed kernel to `dkernel` `[16, in, out]`, from inputs `x` and gradients `dy` of outputs,
    /// both within borders.
    pub fn backward_params<R: Float>(self, x: &[R], dy: &[R], dkernel: &mut [R], buffers: &mut Buffers<R>) {
        let per_image = self.side / 2;
        let from = Map { side: self.side, channels: self.inputs, border: 1 };
        let to = Map { channels: self.outputs, ..from };
        let images = x.len() / (from.line() * (self.side + 2)).max(1);
        self.blocks(images, |rows, tiles| {
            resize_buffer(&mut buffers.inputs, PLACES * tiles * self.inputs);
            resize_buffer(&mut buffers.outputs, PLACES * tiles * self.outputs);
            for (place, row) in rows.enumerate() {
                let (image, row) = (row / per_image, row % per_image);
                let (t, at) = self.tiles(from, place, tiles);
                R::winograd_inputs(t, &x[from.start(image, row, 0)..], &mut buffers.inputs[at..]);
                let (t, at) = self.tiles(to, place, tiles);
                R::winograd_gradients(t, &dy[to.start(image, row, 1)..], &mut buffers.outputs[at..]);
            }
            let shape = Shape {
                m: self.inputs,
                k: tiles,
                n: self.outputs,
                a_row: 1,
                a_col: self.inputs,
                b_row: self.outputs,
                c_row: self.outputs,
                accumulate: true,
            };
            let planes = buffers.inputs.chunks_exact(tiles * self.inputs);
            let planes = planes.zip(buffers.outputs.chunks_exact(tiles * self.outputs));
            for ((x, dy), dkernel) in planes.zip(dkernel.chunks_exact_mut(self.inputs * self.outputs)) {
                R::product(shape, R::ONE, x, dy, dkernel);
            }
        });
    }
}

/// `G g Gᵀ` of kernels whose nine taps lie `size` values apart, to 16 places likewise.
pub fn transform_kernels<R: Float>(taps: &[R], size: usize, places: &mut [R]) {
    for i in 0..size {
        let taps = std::array::from_fn(|r| std::array::from_fn(|t| taps[(3 * r + t) * size + i]));
        for (place, value) in kernel_places(taps).as_flattened().iter().enumerate() {
            places[place * size + i] = *value;
        }
    }
}

/// The gradient of nine taps from that of the 16 places of a transformed kernel, `size` values apart both; `Aᵀ dU A` of
/// F(3 x 3, 2 x 2).
pub fn kernel_gradients<R: Float>(dplaces: &[R], size: usize, dtaps: &mut [R]) {
    let column = |a: R, b: R, c: R, d: R| [a + b + c, b - c, b + c - d];
    for i in 0..size {
        let place = |r: usize, t: usize| dplaces[(4 * r + t) * size + i];
        let columns: [[R; 3]; 4] =
            std::array::from_fn(|t| column(place(0, t), place(1, t), place(2, t), place(3, t)));
        for r in 0..3 {
            let row = column(columns[0][r], columns[1][r], columns[2][r], columns[3][r]);
            (0..3).for_each(|t| dtaps[(3 * r + t) * size + i] = row[t]);
        }
    }
}

/// The place of a turned kernel's transform that is this place of the kernel's: turning exchanges the first and the last tap.
pub fn turned(place: usize) -> usize {
    let other = [3, 1, 2, 0];
    4 * other[place / 4] + other[place % 4]
}
