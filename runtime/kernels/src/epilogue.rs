//! What follows a product while a tile of the result is in registers: activation, residual, quantization.

use crate::dot::COLS;
use crate::gelu::{gelu, gelu_tanh};
use crate::isa::dispatch;
use crate::math::{exp, madd};
use crate::quantize::Out;

/// A function of each value of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `min(max(x, low), high)`: [`Activation::RELU`], [`Activation::RELU6`] and others.
    Clip {
        /// The least value that comes out.
        low: f32,
        /// The largest one.
        high: f32,
    },
    /// `x Φ(x)`.
    Gelu,
    /// GELU's approximation by a hyperbolic tangent (arXiv 1606.08415, section 2).
    GeluTanh,
    /// `min(max(slope · x + shift, 0), 1)`.
    HardSigmoid {
        /// What `x` is multiplied by.
        slope: f32,
        /// The result for 0.
        shift: f32,
    },
    /// `x · min(max(x + 3, 0), 6) / 6` (arXiv 1905.02244, section 5.2).
    HardSwish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + exp(-beta · x))` (arXiv 1710.05941): [`Activation::SILU`], [`Activation::QUICK_GELU`] and others.
    Swish {
        /// What `x` is multiplied by in the exponential.
        beta: f32,
    },
}

impl Activation {
    /// `max(x, 0)`.
    pub const RELU: Activation = Activation::Clip { low: 0.0, high: f32::INFINITY };
    /// `min(max(x, 0), 6)`.
    pub const RELU6: Activation = Activation::Clip { low: 0.0, high: 6.0 };
    /// `x / (1 + exp(-x))` (arXiv 1606.08415).
    pub const SILU: Activation = Activation::Swish { beta: 1.0 };
    /// CLIP's approximation of GELU (arXiv 1606.08415, section 2).
    pub const QUICK_GELU: Activation = Activation::Swish { beta: 1.702 };

    /// Replaces each value; `coarse` where the results become bytes.
    #[inline(always)]
    fn apply<const FMA: bool, const WIDE: bool>(self, tile: &mut [[f32; COLS]], coarse: bool) {
        match self {
            Activation::None => {}
            Activation::Clip { low, high } => clip_of::<FMA>(tile, low, high),
            // A step between bytes is a hundred times the error.
            Activation::Gelu if coarse => {
                #[cfg(target_arch = "aarch64")]
                crate::neon::gelu_coarse(tile);
                #[cfg(not(target_arch = "aarch64"))]
                each(tile, crate::gelu::gelu_coarse::<FMA>);
            }
            Activation::Gelu
            | Activation::GeluTanh
            | Activation::HardSigmoid { .. }
            | Activation::HardSwish
            | Activation::Sigmoid
            | Activation::Swish { .. } => self.apply_long::<FMA, WIDE>(tile),
        }
    }

    /// As [`Activation::apply`] for those that are long, compiled once for each instruction set: most of the kernels' many
    /// copies never run them.
    #[inline(always)]
    fn apply_long<const FMA: bool, const WIDE: bool>(self, tile: &mut [[f32; COLS]]) {
        #[inline(always)]
        fn body<const FMA: bool>(activation: Activation, tile: &mut [[f32; COLS]]) {
            match activation {
                Activation::Gelu => each(tile, gelu::<FMA>),
                Activation::GeluTanh => each(tile, gelu_tanh::<FMA>),
                Activation::HardSigmoid { slope, shift } => {
                    each(tile, |x| clip(madd::<FMA>(slope, x, shift), 0.0, 1.0));
                }
                Activation::HardSwish => each(tile, hard_swish),
                Activation::Sigmoid => each(tile, sigmoid::<FMA>),
                Activation::Swish { beta } => each(tile, |x| swish::<FMA>(x, beta)),
                Activation::None | Activation::Clip { .. } => {}
            }
        }
        // rustc 1.95 drops `inline(never)` beside `target_feature`; these stay calls because they are long.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        fn avx2(activation: Activation, tile: &mut [[f32; COLS]]) {
            body::<true>(activation, tile);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        #[inline(never)]
        fn avx512(activation: Activation, tile: &mut [[f32; COLS]]) {
            body::<true>(activation, tile);
        }
        #[cfg(target_arch = "x86_64")]
        if FMA {
            // SAFETY: on x86-64 kernels are compiled so only for processors with AVX2 and FMA, or AVX-512.
            return unsafe { if WIDE { avx512(self, tile) } else { avx2(self, tile) } };
        }
        body::<FMA>(self, tile);
    }
}

/// `min(max(x, low), high)`; a NaN stays one.
#[inline(always)]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// [`clip`] of each value: left to itself the compiler may go value by value where what stands around it does.
#[inline(always)]
fn clip_of<const FMA: bool>(tile: &mut [[f32; COLS]], low: f32, high: f32) {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // No closure: it would be compiled without the caller's instruction set.
        for values in tile {
            // SAFETY: on x86-64 kernels are compiled so only for processors with AVX2 and FMA.
            unsafe { crate::avx2::clip(values, low, high) };
        }
        return;
    }
    each(tile, |x| clip(x, low, high));
}

#[inline(always)]
fn hard_swish(x: f32) -> f32 {
    x * (clip(x + 3.0, 0.0, 6.0) * (1.0 / 6.0))
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

#[inline(always)]
fn swish<const FMA: bool>(x: f32, beta: f32) -> f32 {
    x / (1.0 + exp::<FMA>(-beta * x))
}

/// A function of each value of a tile: a loop over all of them becomes vector code, one row unrolled does not. A call on
/// aarch64, where constants would be loaded for each tile, wanted or not.
#[cfg_attr(target_arch = "aarch64", inline(never))]
#[cfg_attr(not(target_arch = "aarch64"), inline(always))]
fn each(tile: &mut [[f32; COLS]], f: impl Fn(f32) -> f32) {
    for x in tile.as_flattened_mut() {
        *x = f(*x);
    }
}

/// `values += from`.
#[inline(always)]
pub(crate) fn add<const FMA: bool>(values: &mut [f32; COLS], from: &[f32; COLS]) {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: on x86-64 kernels are compiled so only for processors with AVX2 and FMA.
        return unsafe { crate::avx2::add(values, from) };
    }
    #[cfg(target_arch = "aarch64")]
    crate::neon::add(values, from);
    #[cfg(not(target_arch = "aarch64"))]
    for c in 0..COLS {
        values[c] += from[c];
    }
}

/// What happens to a product, its bias included, before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Applied to the product, or to its sum with the residual.
    pub activation: Activation,
    /// What is added: rows as those of the result.
    pub residual: Option<&'a [f32]>,
    /// Whether the activation takes the sum with the residual, as in residual networks (arXiv 1512.03385), instead of
    /// the product alone, as in transformers.
    pub activate_sum: bool,
}

impl Epilogue<'_> {
    /// Finishes the first `count` columns of a tile, which starts at `column` of `row`, and stores them; rows of the
    /// result have `n` values.
    ///
    /// A call in WebAssembly: browsers compile what is hot while it runs, and small functions soon.
    #[cfg_attr(target_family = "wasm", inline(never))]
    #[cfg_attr(not(target_family = "wasm"), inline(always))]
    pub(crate) fn finish<const FMA: bool, const WIDE: bool>(
        &self,
        tile: &mut [[f32; COLS]],
        [row, column]: [usize; 2],
        [n, count]: [usize; 2],
        out: &mut Out<'_>,
    ) {
        let coarse = matches!(out, Out::U8(..));
        if self.activate_sum {
            self.add::<FMA>(tile, row * n + column, n, count);
            self.activation.apply::<FMA, WIDE>(tile, coarse);
        } else {
            self.activation.apply::<FMA, WIDE>(tile, coarse);
            self.add::<FMA>(tile, row * n + column, n, count);
        }
        // Two ways, so that whole panels know their width.
        if count == COLS {
            out.tile(row * out.row_stride(n) + column, out.row_stride(n), tile);
        } else if let (HALF, Out::F32(values)) = (count, &mut *out) {
            for (r, from) in tile.iter().enumerate() {
                let to = values[(row + r) * n + column..].first_chunk_mut::<HALF>();
                if let (Some(to), Some(from)) = (to, from.first_chunk()) {
                    *to = *from;
                }
            }
        } else {
            store_edge(tile, row * out.row_stride(n) + column, out.row_stride(n), count, out);
        }
    }

    /// Adds the residual, whose values for the tile begin at `at` and have rows of `n`.
    #[inline(always)]
    fn add<const FMA: bool>(&self, tile: &mut [[f32; COLS]], at: usize, n: usize, count: usize) {
        let Some(residual) = self.residual else { return };
        if count == COLS {
            for (r, values) in tile.iter_mut().enumerate() {
                let Some(from) = residual[at + r * n..].first_chunk::<COLS>() else { return };
                add::<FMA>(values, from);
            }
        } else if count == HALF {
            for (r, values) in tile.iter_mut().enumerate() {
                let Some(from) = residual[at + r * n..].first_chunk::<HALF>() else { return };
                for c in 0..HALF {
                    values[c] += from[c];
                }
            }
        } else {
            add_edge(tile, &residual[at..], n, count);
        }
    }
}

/// Half of the columns of a panel: the last panel of many layers of convolutional networks.
const HALF: usize = COLS / 2;

/// Adds fewer columns than a panel has.
#[cold]
#[inline(never)]
fn add_edge(tile: &mut [[f32; COLS]], residual: &[f32], n: usize, count: usize) {
    for (r, values) in tile.iter_mut().enumerate() {
        values.iter_mut().zip(&residual[r * n..][..count]).for_each(|(x, from)| *x += from);
    }
}

/// Stores fewer columns than a panel has.
#[cold]
#[inline(never)]
fn store_edge(tile: &[[f32; COLS]], at: usize, row: usize, count: usize, out: &mut Out<'_>) {
    for (r, values) in tile.iter().enumerate() {
        out.row_at(at + r * row, &values[..count]);
    }
}

#[inline(always)]
fn rows_body<const FMA: bool, const WIDE: bool>(
    x: &[f32],
    cols: usize,
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    for (row, x) in x.chunks_exact(cols).enumerate() {
        for (p, x) in x.chunks(COLS).enumerate() {
            let mut tile = [[0.0; COLS]];
            tile[0][..x.len()].copy_from_slice(x);
            epilogue.finish::<FMA, WIDE>(&mut tile, [row, p * COLS], [cols, x.len()], out);
        }
    }
}

dispatch! {
    /// The epilogue alone, on rows of `cols` values, at least one.
    pub fn rows(x: &[f32], cols: usize, epilogue: &Epilogue<'_>, out: &mut Out<'_>) = rows_body
}

#[inline(always)]
fn activate_body<const FMA: bool, const WIDE: bool>(activation: Activation, x: &[f32], y: &mut [f32]) {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<COLS>(), y.as_chunks_mut::<COLS>());
    for (y, x) in y.iter_mut().zip(x) {
        let mut tile = [*x];
        activation.apply::<FMA, WIDE>(&mut tile, false);
        *y = tile[0];
    }
    let mut tile = [[0.0; COLS]];
    let count = x_rest.len().min(y_rest.len());
    tile[0][..count].copy_from_slice(&x_rest[..count]);
    activation.apply::<FMA, WIDE>(&mut tile, false);
    y_rest[..count].copy_from_slice(&tile[0][..count]);
}

dispatch! {
    /// `y = activation(x)`, element by element; `y` is overwritten.
    pub fn activate(activation: Activation, x: &[f32], y: &mut [f32]) = activate_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::QuantParams;
    use crate::test_support::{close, each_isa, values};

    const ALL: [Activation; 11] = [
        Activation::None,
        Activation::RELU,
        Activation::RELU6,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::HardSigmoid { slope: 1.0 / 6.0, shift: 0.5 },
        Activation::HardSigmoid { slope: -0.3, shift: 0.1 },
        Activation::HardSwish,
        Activation::Sigmoid,
        Activation::SILU,
        Activation::QUICK_GELU,
    ];

    fn formula(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::None => x,
            Activation::Clip { low, high } => x.clamp(f64::from(low), f64::from(high)),
            Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Activation::HardSigmoid { slope, shift } => {
                (f64::from(slope) * x + f64::from(shift)).clamp(0.0, 1.0)
            }
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Activation::Swish { beta } => x / (1.0 + (-f64::from(beta) * x).exp()),
        }
    }

    #[test]
    fn every_activation_is_its_formula_on_every_isa() {
        let x: Vec<f32> =
            values(333, 5).iter().map(|x| x * 9.0).chain([0.0, -3.0, 3.0, 6.0, -90.0, 90.0]).collect();
        for activation in ALL {
            let want: Vec<f64> = x.iter().map(|&x| formula(activation, f64::from(x))).collect();
            let mut first: Option<Vec<u32>> = None;
            each_isa(|isa| {
                let mut y = vec![9.0; x.len()];
                activate(isa, activation, &x, &mut y);
                close(&y, &want, 2e-6);
                let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{activation:?} {}", isa.name());
            });
        }
    }

    #[test]
    fn the_activation_takes_the_product_or_the_sum() {
        let quantize = QuantParams::new(0.02, 100).unwrap();
        for cols in [1, 16, 21, 48] {
            let (x, more) = (values(3 * cols, 1), values(3 * cols, 2));
            for activate_sum in [false, true] {
                let epilogue = Epilogue { activation: Activation::RELU, residual: Some(&more), activate_sum };
                let want: Vec<f32> = x
                    .iter()
                    .zip(&more)
                    .map(|(x, more)| if activate_sum { (x + more).max(0.0) } else { x.max(0.0) + more })
                    .collect();
                each_isa(|isa| {
                    let mut y = vec![9.0; 3 * cols];
                    rows(isa, &x, cols, &epilogue, &mut Out::F32(&mut y));
                    assert_eq!(y, want, "{}", isa.name());
                    let row = crate::quant_linear::row_stride(cols);
                    let mut bytes = vec![0; 3 * row];
                    rows(isa, &x, cols, &epilogue, &mut Out::U8(&mut bytes, quantize));
                    for (bytes, want) in bytes.chunks(row).zip(want.chunks(cols)) {
                        assert!(bytes.iter().zip(want).all(|(&byte, &want)| byte == quantize.byte(want)));
                    }
                });
            }
        }
    }
}
