//! The transforms of Winograd's minimal filtering for convolutions with a 3x3 kernel and stride 1 (arXiv 1509.09308,
//! section 4), of a row of tiles, channels last.
//!
//! ```text
//! inputs     4 x 4 positions   d  -> Bᵀ d B       B = 1  0  0  0    A = 1  0    G = 1  0
//! outputs    2 x 2 positions   m  -> Aᵀ m A           0  1 -1  1        1  1        ½  ½
//! gradients  2 x 2 positions   dy -> G dy Gᵀ         -1  1  1  0        1 -1        ½ -½
//!                                                     0  0  0 -1        0 -1        0  1
//! ```
//! Tiles of inputs overlap: each begins two positions after the one before. With the gradients of outputs in place of a kernel
//! (F(3 x 3, 2 x 2), section 4.1) products sum up to the gradient of the kernel. What is transformed lies in 16 planes
//! `[tiles, channels]`, one for each place of a 4 x 4 matrix.

use crate::isa::dispatch;
use crate::real::Real;

/// Places of a transformed tile.
pub const PLACES: usize = 16;

/// A row of tiles.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    /// How many.
    pub count: usize,
    /// Values of a position.
    pub channels: usize,
    /// Values from a row of positions to the next.
    pub line: usize,
    /// Values from a plane to the next.
    pub plane: usize,
}

/// Channels of one step: one AVX2 register.
const WIDTH: usize = 8;

type Values<const W: usize> = [f32; W];

// Loops, not `map` and `from_fn`: those of arrays of arrays are not inlined, and so not compiled for the instruction set.

#[inline(always)]
fn load<const W: usize>(x: &[f32], at: usize) -> Values<W> {
    let mut values = [0.0; W];
    values.copy_from_slice(&x[at..at + W]);
    values
}

#[inline(always)]
fn add<const W: usize>(mut a: Values<W>, b: Values<W>) -> Values<W> {
    for l in 0..W {
        a[l] += b[l];
    }
    a
}

#[inline(always)]
fn sub<const W: usize>(mut a: Values<W>, b: Values<W>) -> Values<W> {
    for l in 0..W {
        a[l] -= b[l];
    }
    a
}

#[inline(always)]
fn half<const W: usize>(mut a: Values<W>) -> Values<W> {
    for l in 0..W {
        a[l] *= 0.5;
    }
    a
}

/// `Bᵀ d` of a column.
#[inline(always)]
fn of_inputs<const W: usize>([a, b, c, d]: [Values<W>; 4]) -> [Values<W>; 4] {
    [sub(a, c), add(b, c), sub(c, b), sub(b, d)]
}

/// `Aᵀ m` of a column.
#[inline(always)]
fn of_outputs<const W: usize>([a, b, c, d]: [Values<W>; 4]) -> [Values<W>; 2] {
    [add(add(a, b), c), sub(sub(b, c), d)]
}

/// `G dy` of a column.
#[inline(always)]
fn of_gradients<const W: usize>([a, b]: [Values<W>; 2]) -> [Values<W>; 4] {
    [a, half(add(a, b)), half(sub(a, b)), b]
}

/// Both transforms of a tile, rows and columns: `FROM` x `FROM` values become `TO` x `TO`.
#[inline(always)]
fn transform<const W: usize, const FROM: usize, const TO: usize>(
    x: [[Values<W>; FROM]; FROM],
    column: impl Fn([Values<W>; FROM]) -> [Values<W>; TO],
) -> [[Values<W>; TO]; TO] {
    let mut half = [[[0.0; W]; FROM]; TO];
    for j in 0..FROM {
        let mut values = [[0.0; W]; FROM];
        for i in 0..FROM {
            values[i] = x[i][j];
        }
        let values = column(values);
        for i in 0..TO {
            half[i][j] = values[i];
        }
    }
    let mut y = [[[0.0; W]; TO]; TO];
    for i in 0..TO {
        y[i] = column(half[i]);
    }
    y
}

/// Positions of an image to planes: `FROM` rows and columns from every other position on.
#[inline(always)]
fn to_planes<const W: usize, const FROM: usize>(
    t: &Tiles,
    x: &[f32],
    planes: &mut [f32],
    channel: usize,
    column: impl Fn([Values<W>; FROM]) -> [Values<W>; 4],
) {
    for tile in 0..t.count {
        let mut values = [[[0.0; W]; FROM]; FROM];
        for i in 0..FROM {
            for j in 0..FROM {
                values[i][j] = load(x, i * t.line + (2 * tile + j) * t.channels + channel);
            }
        }
        let values = transform(values, &column);
        for i in 0..4 {
            for j in 0..4 {
                let at = (4 * i + j) * t.plane + tile * t.channels + channel;
                planes[at..at + W].copy_from_slice(&values[i][j]);
            }
        }
    }
}

/// Planes to 2 x 2 positions of an image.
#[inline(always)]
fn from_planes<const W: usize>(t: &Tiles, planes: &[f32], y: &mut [f32], channel: usize) {
    for tile in 0..t.count {
        let mut values = [[[0.0; W]; 4]; 4];
        for i in 0..4 {
            for j in 0..4 {
                values[i][j] = load(planes, (4 * i + j) * t.plane + tile * t.channels + channel);
            }
        }
        let values = transform(values, of_outputs);
        for i in 0..2 {
            for j in 0..2 {
                let at = i * t.line + (2 * tile + j) * t.channels + channel;
                y[at..at + W].copy_from_slice(&values[i][j]);
            }
        }
    }
}

/// Calls `$body` for each step of channels: `WIDTH` of them, then one.
macro_rules! each_step {
    ($channels:expr, $channel:ident, $width:ident => $body:expr) => {{
        let whole = $channels - $channels % WIDTH;
        for $channel in (0..whole).step_by(WIDTH) {
            const $width: usize = WIDTH;
            $body;
        }
        for $channel in whole..$channels {
            const $width: usize = 1;
            $body;
        }
    }};
}

#[inline(always)]
fn inputs_body<const FMA: bool, const WIDE: bool>(t: Tiles, x: &[f32], planes: &mut [f32]) {
    each_step!(t.channels, channel, W => to_planes::<W, 4>(&t, x, planes, channel, of_inputs));
}

#[inline(always)]
fn gradients_body<const FMA: bool, const WIDE: bool>(t: Tiles, dy: &[f32], planes: &mut [f32]) {
    each_step!(t.channels, channel, W => to_planes::<W, 2>(&t, dy, planes, channel, of_gradients));
}

#[inline(always)]
fn outputs_body<const FMA: bool, const WIDE: bool>(t: Tiles, planes: &[f32], y: &mut [f32]) {
    each_step!(t.channels, channel, W => from_planes::<W>(&t, planes, y, channel));
}

dispatch! {
    /// `Bᵀ d B` of each tile of `x`, four rows of `2 count + 2` positions.
    pub fn inputs(t: Tiles, x: &[f32], planes: &mut [f32]) = inputs_body
}

dispatch! {
    /// `G dy Gᵀ` of each tile of `dy`, two rows of `2 count` positions.
    pub fn gradients(t: Tiles, dy: &[f32], planes: &mut [f32]) = gradients_body
}

dispatch! {
    /// `Aᵀ m A` of each tile, into `y`, two rows of `2 count` positions.
    pub fn outputs(t: Tiles, planes: &[f32], y: &mut [f32]) = outputs_body
}

/// `G g Gᵀ` of a kernel.
pub fn kernel_places<R: Real>(taps: [[R; 3]; 3]) -> [[R; 4]; 4] {
    let half = R::of(0.5);
    let of_three = |a: R, b: R, c: R| [a, half * (a + c + b), half * (a + c - b), c];
    let columns: [[R; 4]; 3] = std::array::from_fn(|j| of_three(taps[0][j], taps[1][j], taps[2][j]));
    std::array::from_fn(|i| of_three(columns[0][i], columns[1][i], columns[2][i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::plain;
    use crate::test_support::{close, each_isa, values, widen};

    #[test]
    fn every_isa_agrees_with_the_reference() {
        for (count, channels) in [(1, 8), (3, 5), (4, 24), (2, 17)] {
            let line = (2 * count + 3) * channels;
            let t = Tiles { count, channels, line, plane: count * channels + 3 };
            let (image, planes) = (values(4 * line, 1), values(16 * t.plane, 2));
            type Reference = fn(Tiles, &[f64], &mut [f64]);
            type Fast = fn(Isa, Tiles, &[f32], &mut [f32]);
            let cases: [(Reference, Fast, &[f32], usize); 3] = [
                (plain::winograd_inputs, inputs, &image, 16 * t.plane),
                (plain::winograd_gradients, gradients, &image, 16 * t.plane),
                (plain::winograd_outputs, outputs, &planes, 2 * line),
            ];
            for (reference, fast, x, len) in cases {
                let mut want = vec![9.0; len];
                reference(t, &widen(x), &mut want);
                each_isa(|isa| {
                    let mut got = vec![9.0; len];
                    fast(isa, t, x, &mut got);
                    close(&got, &want, 1e-6);
                });
            }
        }
    }
}
