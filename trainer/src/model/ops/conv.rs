//! Convolution with a 3x3 kernel, without a bias, on square images with channels last.
//!
//! `y[i, j, o] = Σ_{r, t, c} x[s i + r, s j + t, c] · W[o, c, r, t]` with `x` `[side + 2, side + 2, in]` within its border of
//! zeros, `W` `[out, in, 3, 3]`, `y` `[side / s, side / s, out]` and stride `s` 1 or 2.
//!
//! Channels last, the three positions under a row of the kernel are contiguous. So the windows of a row of outputs are a
//! matrix whose rows overlap in memory, and a convolution is a sum of three products on the image itself: no window is
//! copied (im2col would write each value nine times). Both backward passes are such products too. With stride 2 the
//! gradient of `x` splits into four, one for each parity of row and column.
//!
//! With stride 1 and an even side [`Winograd`]'s filtering takes the place of these products.

use smalti_kernels::matmul::Shape;
use smalti_kernels::winograd::PLACES;

use super::winograd::{self, Buffers, Winograd, kernel_gradients, transform_kernels};
use super::{Float, resize_buffer};
use crate::clock::{self, Op};
use crate::error::Result;
use crate::model::params::{Layout, Slot};

/// Columns of a panel of packed weights: those that the product's kernel computes at a time.
const PANEL: usize = 16;
/// Positions that a product for the weight's gradient sums up before it touches the gradient again, about.
const SUMMED: usize = 128;

/// The slot and the sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    weight: Slot,
    inputs: usize,
    outputs: usize,
    side: usize,
    stride: usize,
}

/// The weight in the order of the products: `forward` by panels of outputs `[panel][row][column, in][≤ 16]`, `backward` by
/// panels of inputs `[panel][row][column, out][≤ 16]` with rows and columns in the order of [`Conv::taps`]; for [`Winograd`]
/// the transformed weight `[16][panel][in][≤ 16]`, `backward` turned and with inputs and outputs exchanged.
#[derive(Clone, Debug, Default)]
pub struct Packed<R> {
    forward: Vec<R>,
    backward: Vec<R>,
}

impl Conv {
    /// Finds `name.conv.weight` `[out, in, 3, 3]`, for inputs of `side` x `side` positions; stride 2 needs an even `side`.
    pub fn find(layout: &Layout, name: &str, inputs: usize, side: usize, stride: usize) -> Result<Conv> {
        let weight = layout.slot(&format!("{name}.conv.weight"))?;
        Ok(Conv { weight, inputs, outputs: weight.len() / (9 * inputs).max(1), side, stride })
    }

    /// Channels of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Values of the gradient that [`Conv::backward_params`] adds to.
    pub fn dweight_len(&self) -> usize {
        if self.winograd().is_some() { PLACES * self.inputs * self.outputs } else { self.weight.len() }
    }

    /// The faster way where there is one.
    fn winograd(&self) -> Option<Winograd> {
        let Conv { side, inputs, outputs, .. } = *self;
        (self.stride == 1 && side % 2 == 0).then_some(Winograd { side, inputs, outputs })
    }

    /// Side of the input in positions.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Side of the output in positions.
    pub fn out_side(&self) -> usize {
        self.side / self.stride
    }

    /// Values of an input within its border: `[side + 2, side + 2, in]`.
    pub fn bordered_input(&self) -> usize {
        (self.side + 2) * (self.side + 2) * self.inputs
    }

    /// Values of an input.
    pub fn input(&self) -> usize {
        self.side * self.side * self.inputs
    }

    /// Values of an output within a border, as its gradient has.
    pub fn bordered_output(&self) -> usize {
        (self.out_side() + 2) * (self.out_side() + 2) * self.outputs
    }

    /// Values of an output: `[side / s, side / s, out]`.
    pub fn output(&self) -> usize {
        self.out_side() * self.out_side() * self.outputs
    }

    /// Rows and columns of the kernel in the order in which the gradient of an input meets them along the output: with
    /// stride 2 that of an even position, then those of an odd one.
    fn taps(&self) -> [usize; 3] {
        if self.stride == 1 { [2, 1, 0] } else { [1, 2, 0] }
    }

    /// Packs the weight, by way of `buffer`.
    pub fn pack<R: Float>(&self, params: &[R], packed: &mut Packed<R>, buffer: &mut Vec<R>) {
        let (inputs, outputs, taps, size) =
            (self.inputs, self.outputs, self.taps(), self.inputs * self.outputs);
        let places = if self.winograd().is_some() { PLACES } else { 9 };
        resize_buffer(buffer, (9 + PLACES) * size);
        resize_buffer(&mut packed.forward, places * size);
        resize_buffer(&mut packed.backward, places * size);
        let (buffer, places) = buffer.split_at_mut(9 * size);
        for (i, kernel) in self.weight.of(params).chunks_exact(9).enumerate() {
            kernel.iter().enumerate().for_each(|(tap, value)| buffer[tap * size + i] = *value);
        }
        if self.winograd().is_some() {
            transform_kernels(buffer, size, places);
            self.pack_places(places, packed);
            return;
        }
        for (first, width) in panels(outputs) {
            let panel = packed.forward[first * 9 * inputs..].chunks_exact_mut(inputs * width);
            for (panel, weight) in panel.zip(buffer.chunks_exact(size)) {
                R::transpose(&weight[first * inputs..], inputs, width, inputs, panel, width);
            }
        }
        for (first, width) in panels(inputs) {
            let panel = packed.backward[first * 9 * outputs..].chunks_exact_mut(outputs * width);
            for (i, panel) in panel.take(9).enumerate() {
                let weight = &buffer[(taps[i / 3] * 3 + taps[i % 3]) * size..][..size];
                for (to, from) in panel.chunks_exact_mut(width).zip(weight.chunks_exact(inputs)) {
                    to.copy_from_slice(&from[first..first + width]);
                }
            }
        }
    }

    /// Packs the transformed weight `[16, out, in]`.
    fn pack_places<R: Float>(&self, places: &[R], packed: &mut Packed<R>) {
        let (inputs, outputs, size) = (self.inputs, self.outputs, self.inputs * self.outputs);
        for (place, panel) in packed.forward.chunks_exact_mut(size).enumerate() {
            let weight = &places[place * size..][..size];
            for (first, width) in panels(outputs) {
                let panel = &mut panel[first * inputs..][..inputs * width];
                R::transpose(&weight[first * inputs..], inputs, width, inputs, panel, width);
            }
        }
        for (place, panel) in packed.backward.chunks_exact_mut(size).enumerate() {
            let weight = &places[winograd::turned(place) * size..][..size];
            for (first, width) in panels(inputs) {
                let panel = panel[first * outputs..][..outputs * width].chunks_exact_mut(width);
                for (to, from) in panel.zip(weight.chunks_exact(inputs)) {
                    to.copy_from_slice(&from[first..first + width]);
                }
            }
        }
    }

    /// Computes `y` of images with their borders, `x` `[images, side + 2, side + 2, in]`.
    pub fn forward<R: Float>(&self, packed: &Packed<R>, x: &[R], y: &mut [R], buffers: &mut Buffers<R>) {
        let _timer = clock::time(Op::Products);
        if let Some(winograd) = self.winograd() {
            return winograd.convolve(&packed.forward, x, y, buffers);
        }
        let (inputs, side, line) = (self.inputs, self.out_side(), (self.side + 2) * self.inputs);
        for (first, width) in panels(self.outputs) {
            let shape = Shape {
                m: side,
                k: 3 * inputs,
                n: width,
                a_row: self.stride * inputs,
                a_col: 1,
                b_row: width,
                c_row: self.outputs,
                accumulate: false,
            };
            let panel = packed.forward[first * 9 * inputs..].chunks_exact(3 * inputs * width);
            for (row, weight) in panel.take(3).enumerate() {
                let shape = Shape { accumulate: row > 0, ..shape };
                let images = x.chunks_exact(self.bordered_input()).zip(y.chunks_exact_mut(self.output()));
                for (x, y) in images {
                    for (i, y) in y.chunks_exact_mut(side * self.outputs).enumerate() {
                        R::product(
                            shape,
                            R::ONE,
                            &x[(i * self.stride + row) * line..],
                            weight,
                            &mut y[first..],
                        );
                    }
                }
            }
        }
    }

    /// Adds the weight's gradient to `dweight` `[3, 3, in, out]`, [`Winograd`]'s `[16, in, out]`, from inputs `x` and gradients
    /// `dy` of outputs `[images, side / s + 2, side / s + 2, out]`, both with borders of zeros.
    pub fn backward_params<R: Float>(&self, x: &[R], dy: &[R], dweight: &mut [R], buffers: &mut Buffers<R>) {
        let _timer = clock::time(Op::Products);
        if let Some(winograd) = self.winograd() {
            return winograd.backward_params(x, dy, dweight, buffers);
        }
        let (inputs, outputs) = (self.inputs, self.outputs);
        let (line, out_line) = (self.side + 2, self.out_side() + 2);
        // With stride 1 a row of `dy` and its border stand over those of `x`, so rows are summed up in one go: what `x` has
        // there is multiplied by zeros.
        let rows = if self.stride == 1 { (SUMMED / out_line).max(1) } else { 1 };
        for (row, dweight) in dweight.chunks_exact_mut(3 * inputs * outputs).enumerate() {
            let images = x.chunks_exact(self.bordered_input()).zip(dy.chunks_exact(self.bordered_output()));
            for (x, dy) in images {
                for i in (0..self.out_side()).step_by(rows) {
                    let shape = Shape {
                        m: 3 * inputs,
                        k: rows.min(self.out_side() - i) * out_line - 2,
                        n: outputs,
                        a_row: 1,
                        a_col: self.stride * inputs,
                        b_row: outputs,
                        c_row: outputs,
                        accumulate: true,
                    };
                    let windows = &x[(i * self.stride + row) * line * inputs..];
                    let dy = &dy[((i + 1) * out_line + 1) * outputs..];
                    R::product(shape, R::ONE, windows, dy, dweight);
                }
            }
        }
    }

    /// Adds what [`Conv::backward_params`] summed up to the gradient of the weight, by way of `buffer`.
    pub fn add_gradient<R: Float>(&self, dweight: &[R], grads: &mut [R], buffer: &mut Vec<R>) {
        let (inputs, outputs, size) = (self.inputs, self.outputs, self.inputs * self.outputs);
        resize_buffer(buffer, 18 * size);
        let (buffer, dtaps) = buffer.split_at_mut(9 * size);
        let dweight = if self.winograd().is_some() {
            kernel_gradients(dweight, size, dtaps);
            dtaps
        } else {
            dweight
        };
        for (turned, dweight) in buffer.chunks_exact_mut(size).zip(dweight.chunks_exact(size)) {
            R::transpose(dweight, outputs, inputs, outputs, turned, inputs);
        }
        for (i, kernel) in self.weight.of_mut(grads).chunks_exact_mut(9).enumerate() {
            for (tap, value) in kernel.iter_mut().enumerate() {
                *value = *value + buffer[tap * size + i];
            }
        }
    }

    /// Computes `dx` `[images, side, side, in]` from `dy` with its border, as in [`Conv::backward_params`].
    pub fn backward_input<R: Float>(
        &self,
        packed: &Packed<R>,
        dy: &[R],
        dx: &mut [R],
        buffers: &mut Buffers<R>,
    ) {
        let _timer = clock::time(Op::Products);
        if let Some(winograd) = self.winograd() {
            return winograd.turned().convolve(&packed.backward, dy, dx, buffers);
        }
        for (first, width) in panels(self.inputs) {
            let panel = &packed.backward[first * 9 * self.outputs..][..9 * self.outputs * width];
            if self.stride == 1 {
                self.input_products([0..3, 0..3], [0, 0], panel, first, dy, dx);
                continue;
            }
            // An even position lies under the kernel's middle alone, an odd one under its ends.
            for (rows, row) in [(0..1, 0), (1..3, 1)] {
                for (columns, column) in [(0..1, 0), (1..3, 1)] {
                    self.input_products([rows.clone(), columns], [row, column], panel, first, dy, dx);
                }
            }
        }
    }

    /// The part of [`Conv::backward_input`] at every `stride`-th position from `start` on, for one panel: the sum over
    /// `taps`, rows and columns of the packed kernel.
    fn input_products<R: Float>(
        &self,
        taps: [std::ops::Range<usize>; 2],
        start: [usize; 2],
        panel: &[R],
        first: usize,
        dy: &[R],
        dx: &mut [R],
    ) {
        let (inputs, outputs, side) = (self.inputs, self.outputs, self.out_side());
        let (width, line, skip) = (panel.len() / (9 * outputs), (side + 2) * outputs, self.stride - 1);
        let [rows, columns] = taps;
        for (step, row) in rows.enumerate() {
            let shape = Shape {
                m: side,
                k: columns.len() * outputs,
                n: width,
                a_row: outputs,
                a_col: 1,
                b_row: width,
                c_row: self.stride * inputs,
                accumulate: step > 0,
            };
            let weight = &panel[(row * 3 + columns.start) * outputs * width..];
            let images = dy.chunks_exact(self.bordered_output()).zip(dx.chunks_exact_mut(self.input()));
            for (dy, dx) in images {
                let lines = dx.chunks_exact_mut(self.stride * self.side * inputs);
                for (i, dx) in lines.enumerate() {
                    let dy = &dy[(i + skip + step) * line + skip * outputs..];
                    let dx = &mut dx[(start[0] * self.side + start[1]) * inputs + first..];
                    R::product(shape, R::ONE, dy, weight, dx);
                }
            }
        }
    }
}

/// The panels of `n` columns: the first column and the number of them.
pub(super) fn panels(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(PANEL).map(move |first| (first, PANEL.min(n - first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::check::{Check, dot, layout, values};

    const IMAGES: usize = 2;

    /// Copies images `[images, side, side, channels]` into borders of zeros.
    fn bordered(x: &[f64], side: usize, channels: usize) -> Vec<f64> {
        let line = (side + 2) * channels;
        let mut wide = vec![0.0; x.len() / (side * side * channels) * (side + 2) * line];
        for (i, row) in x.chunks_exact(side * channels).enumerate() {
            let at = (i / side * (side + 2) + i % side + 1) * line + channels;
            wide[at..at + row.len()].copy_from_slice(row);
        }
        wide
    }

    /// The formula in the module's documentation.
    fn plain(conv: &Conv, weight: &[f64], x: &[f64]) -> Vec<f64> {
        let (inputs, side, line) = (conv.inputs, conv.out_side(), conv.side + 2);
        let value = |at: usize| {
            let (image, output) = (at / conv.output(), at % conv.outputs);
            let (i, j) = (at / conv.outputs / side % side, at / conv.outputs % side);
            let terms = (0..9 * inputs).map(|term| {
                let (c, r, t) = (term / 9, term / 3 % 3, term % 3);
                let place = (conv.stride * i + r) * line + conv.stride * j + t;
                x[image * conv.bordered_input() + place * inputs + c] * weight[output * 9 * inputs + term]
            });
            terms.sum::<f64>()
        };
        (0..IMAGES * conv.output()).map(value).collect()
    }

    /// Sides, strides and widths with whole, half and broken panels.
    const CASES: [(usize, usize, usize, usize); 6] =
        [(4, 1, 3, 5), (6, 2, 3, 24), (5, 1, 16, 8), (4, 2, 17, 33), (2, 2, 4, 2), (6, 1, 17, 33)];

    #[test]
    fn outputs_are_those_of_the_formula() {
        for (side, stride, inputs, outputs) in CASES {
            let layout = layout(&[("c.conv.weight", &[outputs, inputs, 3, 3])]);
            let conv = Conv::find(&layout, "c", inputs, side, stride).unwrap();
            let (weight, x) = (values(layout.len(), 1), values(IMAGES * conv.input(), 2));
            let x = bordered(&x, side, inputs);
            let want = plain(&conv, &weight, &x);
            let (mut packed, mut y) = (Packed::default(), vec![9.0; want.len()]);
            conv.pack(&weight, &mut packed, &mut Vec::new());
            conv.forward(&packed, &x, &mut y, &mut Buffers::default());
            assert!(want.iter().zip(&y).all(|(want, y)| (want - y).abs() < 1e-10), "{conv:?}");

            let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let (mut packed, mut y) = (Packed::default(), vec![9f32; want.len()]);
            conv.pack(&narrow(&weight), &mut packed, &mut Vec::new());
            conv.forward(&packed, &narrow(&x), &mut y, &mut Buffers::default());
            assert!(want.iter().zip(&y).all(|(want, y)| (want - f64::from(*y)).abs() < 1e-3), "{conv:?}");
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (side, stride, inputs, outputs) in CASES {
            let input = [IMAGES, side, side, inputs];
            let layout = layout(&[("x", &input), ("c.conv.weight", &[outputs, inputs, 3, 3])]);
            let conv = Conv::find(&layout, "c", inputs, side, stride).unwrap();
            let x = layout.slot("x").unwrap();
            let pull = values(IMAGES * conv.output(), 9);
            let packed = |p: &[f64]| {
                let mut packed = Packed::default();
                conv.pack(p, &mut packed, &mut Vec::new());
                packed
            };
            Check::new(&layout).run(
                |p| {
                    let mut y = vec![0.0; pull.len()];
                    conv.forward(
                        &packed(p),
                        &bordered(x.of(p), side, inputs),
                        &mut y,
                        &mut Buffers::default(),
                    );
                    dot(&y, &pull)
                },
                |p, grads| {
                    let dy = bordered(&pull, conv.out_side(), outputs);
                    let (mut dweight, mut buffers) = (vec![0.0; conv.dweight_len()], Buffers::default());
                    conv.backward_params(&bordered(x.of(p), side, inputs), &dy, &mut dweight, &mut buffers);
                    conv.add_gradient(&dweight, grads, &mut Vec::new());
                    conv.backward_input(&packed(p), &dy, x.of_mut(grads), &mut buffers);
                },
            );
        }
    }
}
