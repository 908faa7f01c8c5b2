//! Linear layers on bytes: unsigned activations with one scale and zero point, signed weights with a scale for each
//! output, 32-bit sums (arXiv 1712.05877, section 2.2): `y = s_x s_w[j] Σ_i (x[i] - z) w[j][i] + b[j]`.
//!
//! The sums are exact on every instruction set, and what follows them is as in [`mod@crate::linear`], so the result has
//! the same bits everywhere.

#[cfg(any(test, target_arch = "x86_64"))]
use std::marker::PhantomData;

#[cfg(any(test, target_arch = "x86_64"))]
use crate::amx::{Bytes, Sink, Sums, Tiles, multiply};
use crate::dot::{COLS, DEPTH, Dot, MAX_SUM, Plain};
use crate::epilogue::Epilogue;
use crate::isa::{Int8Dot, Isa};
use crate::linear::{ROWS_UNFUSED, padded, prefetch, row_blocks, shares};
use crate::math::FUSED;
use crate::quantize::{Out, QuantParams};

/// A layer with a weight of signed bytes.
#[derive(Clone, Debug)]
pub struct QuantLinear {
    /// What it is packed for.
    isa: Isa,
    inputs: usize,
    outputs: usize,
    zero: i32,
    /// Steps of a panel, as many as a row has, or a few more.
    steps: usize,
    /// Panels `[steps, 16, 4]`, or the same in the order of the instruction set; rows and columns beyond the last are 0.
    weight: Vec<[i8; COLS * DEPTH]>,
    /// Σ_i w[j][i].
    weight_sums: Vec<[i32; COLS]>,
    scale: Vec<[f32; COLS]>,
    bias: Vec<[f32; COLS]>,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    accumulate: Accumulate16,
    /// Whether the products of four inputs fit into 16 bits, with 128 taken off the bytes: for NEON.
    #[cfg(target_arch = "aarch64")]
    four_fit: bool,
}

/// How many products with bytes may be added in 16 bits, whatever the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Accumulate16 {
    /// Not even two neighbours.
    One,
    /// The two of a pair: inputs `2i` and `2i + 1`.
    Two,
    /// The four of a group, [`QuantLinear::group`].
    Four,
}

impl QuantLinear {
    /// The most inputs: their products stay within 32 bits.
    pub const MAX_INPUTS: usize = 65_536;

    /// The most that the positive weights of a [`QuantLinear::group`] may come to, and the negative ones, for the
    /// fastest kernel on AVX2. Weights within ±[`QuantLinear::MAX_SUM`] / 2 still take the second fastest.
    pub const MAX_SUM: i32 = MAX_SUM;

    /// The four inputs, one of them this, whose products are added in 16 bits where they accumulate: of eight in a row 0, 1, 4, 5,
    /// and 2, 3, 6, 7. Some may lie beyond the last.
    pub const fn group(input: usize) -> [usize; 4] {
        let first = input / (2 * DEPTH) * (2 * DEPTH) + input % DEPTH / 2 * 2;
        [first, first + 1, first + DEPTH, first + DEPTH + 1]
    }

    /// Packs a weight, read by `at(output, input)`, with its scales and a bias, for activations of `x` and the
    /// instruction set that will run it.
    ///
    /// None where the arithmetic would not be exact or finite: no or too many inputs, other than one scale and one
    /// bias for each output, a weight of -128.
    pub fn new(
        isa: Isa,
        [outputs, inputs]: [usize; 2],
        at: impl Fn(usize, usize) -> i8,
        scales: &[f32],
        bias: &[f32],
        x: QuantParams,
    ) -> Option<QuantLinear> {
        let sizes = (1..=QuantLinear::MAX_INPUTS).contains(&inputs) && outputs > 0;
        if !sizes || scales.len() != outputs || bias.len() != outputs {
            return None;
        }
        let (row, panels) = (inputs.div_ceil(DEPTH), outputs.div_ceil(COLS));
        let steps = panel_steps(isa, inputs);
        let mut weight = vec![[0; COLS * DEPTH]; panels * steps];
        let mut weight_sums = vec![[0; COLS]; panels];
        for (p, (panel, sums)) in weight.chunks_exact_mut(steps).zip(&mut weight_sums).enumerate() {
            let columns = COLS.min(outputs - p * COLS);
            for (q, step) in panel.iter_mut().enumerate().take(row) {
                // In the order of the inputs: weights of ONNX's MatMul lie that way.
                let mut rows = [[0; COLS]; DEPTH];
                for (i, row) in rows.iter_mut().enumerate().take(inputs - q * DEPTH) {
                    for (c, value) in row.iter_mut().enumerate().take(columns) {
                        *value = at(p * COLS + c, q * DEPTH + i);
                    }
                }
                for (c, (to, sum)) in
                    step.as_chunks_mut::<DEPTH>().0.iter_mut().zip(sums.iter_mut()).enumerate()
                {
                    *to = [rows[0][c], rows[1][c], rows[2][c], rows[3][c]];
                    *sum += to.iter().map(|&w| i32::from(w)).sum::<i32>();
                }
            }
        }
        if weight.as_flattened().contains(&i8::MIN) {
            return None;
        }
        #[cfg(target_arch = "aarch64")]
        match isa.integers() {
            Int8Dot::Neon => weight.chunks_exact_mut(steps).for_each(crate::dot::pack_blocks),
            Int8Dot::I8mm => weight.chunks_exact_mut(steps).for_each(crate::dot::pack_pairs),
            _ => {}
        }
        #[cfg(target_feature = "simd128")]
        if isa.integers() == Int8Dot::Simd128 {
            weight.iter_mut().for_each(crate::dot::pack_halves);
        }
        let scales: Vec<f32> = scales.iter().map(|scale| scale * x.scale()).collect();
        let fit = if cfg!(target_arch = "x86_64") { weight.chunks_exact(steps).map(fit).min() } else { None };
        Some(QuantLinear {
            isa,
            inputs,
            outputs,
            zero: i32::from(x.zero()),
            #[cfg(target_arch = "aarch64")]
            four_fit: isa.integers() == Int8Dot::Neon && weight.chunks_exact(steps).all(crate::dot::four_fit),
            steps,
            weight,
            weight_sums,
            scale: padded(&scales),
            bias: padded(bias),
            accumulate: fit.unwrap_or(Accumulate16::One),
        })
    }

    /// Values of a row that goes in. The rows lie [`row_stride`] bytes apart.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of everything packed.
    pub fn bytes(&self) -> usize {
        let others =
            size_of_val(&self.weight_sums[..]) + size_of_val(&self.scale[..]) + size_of_val(&self.bias[..]);
        size_of_val(&self.weight[..]) + others
    }

    /// Bytes of everything packed, of these sizes.
    pub fn packed_bytes(isa: Isa, [outputs, inputs]: [usize; 2]) -> usize {
        let step = size_of::<[i8; COLS * DEPTH]>();
        let panel =
            panel_steps(isa, inputs).saturating_mul(step).saturating_add(3 * size_of::<[f32; COLS]>());
        outputs.div_ceil(COLS).saturating_mul(panel)
    }
}

/// Steps of a panel.
fn panel_steps(isa: Isa, inputs: usize) -> usize {
    let row = inputs.div_ceil(DEPTH);
    match isa.integers() {
        #[cfg(target_arch = "aarch64")]
        Int8Dot::Neon => row.next_multiple_of(crate::dot::BLOCK_STEPS),
        _ => row,
    }
}

/// How many products of a panel fit into 16 bits.
fn fit(panel: &[[i8; COLS * DEPTH]]) -> Accumulate16 {
    const PAIRS: usize = COLS * DEPTH / 2;
    // Of each pair the sum of either sign. All of them, for loops without a way out become vector code.
    let sums = |step: &[i8; COLS * DEPTH]| {
        let mut sums = [[0i16; PAIRS]; 2];
        for i in 0..PAIRS {
            let [a, b] = [i16::from(step[2 * i]), i16::from(step[2 * i + 1])];
            sums[0][i] = a.max(0) + b.max(0);
            sums[1][i] = a.min(0) + b.min(0);
        }
        sums
    };
    let (mut two, mut four) = (0, 0);
    for steps in panel.chunks(2) {
        let first = sums(&steps[0]);
        let second = steps.get(1).map_or([[0; PAIRS]; 2], sums);
        for sign in 0..2 {
            for i in 0..PAIRS {
                let (a, b) = (first[sign][i].abs(), second[sign][i].abs());
                two = two.max(a).max(b);
                four = four.max(a + b);
            }
        }
    }
    let fits = |most: i16| i32::from(most) <= MAX_SUM;
    match (fits(four), fits(two)) {
        (true, _) => Accumulate16::Four,
        (_, true) => Accumulate16::Two,
        _ => Accumulate16::One,
    }
}

/// The distance of rows of bytes with so many values.
pub fn row_stride(values: usize) -> usize {
    values.next_multiple_of(DEPTH)
}

/// `HEIGHT` rows of a panel's product; `x` has `steps` steps a row.
///
/// # Safety
/// As [`Dot`].
#[inline(always)]
unsafe fn tile<D: Dot, const FMA: bool, const HEIGHT: usize>(
    (x, steps): (&[[u8; DEPTH]], usize),
    panel: &[[i8; COLS * DEPTH]],
    start: &[i32; COLS],
    (scale, bias): (&[f32; COLS], &[f32; COLS]),
) -> [[f32; COLS]; HEIGHT] {
    let mut rows = [&x[..0]; HEIGHT];
    for r in 0..HEIGHT {
        rows[r] = &x[r * steps..][..steps];
    }
    // SAFETY: the caller's promise.
    unsafe {
        let sums = D::products(start, &rows, panel);
        let mut out = [[0.0; COLS]; HEIGHT];
        for r in 0..HEIGHT {
            out[r] = D::finish::<FMA>(sums[r], scale, bias);
        }
        out
    }
}

/// The layer on rows of `x`, with tiles of at most `MAX` rows.
///
/// # Safety
/// As [`Dot`].
#[inline(always)]
unsafe fn body<D: Dot, const FMA: bool, const MAX: usize>(
    layer: &QuantLinear,
    x: &[u8],
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let (n, steps) = (layer.outputs, layer.inputs.div_ceil(DEPTH));
    let x = x.as_chunks::<DEPTH>().0;
    let rows = x.len() / steps;
    let columns = layer.weight_sums.iter().zip(&layer.scale).zip(&layer.bias);
    for (p, (panel, ((sums, scale), bias))) in layer.weight.chunks_exact(layer.steps).zip(columns).enumerate()
    {
        let (column, count) = (p * COLS, COLS.min(n - p * COLS));
        let start = sums.map(|sum| (D::SHIFT - layer.zero) * sum);
        let next = layer.weight[(p + 1) * layer.steps..].get(..layer.steps).unwrap_or_default();
        let mut shares = shares(next, rows.div_ceil(MAX));
        for (row, height) in row_blocks(rows, MAX) {
            shares.next().unwrap_or_default().iter().for_each(prefetch);
            macro_rules! tile {
                ($height:literal) => {{
                    let mut tile =
                        // SAFETY: the caller's promise.
                        unsafe { tile::<D, FMA, $height>((&x[row * steps..], steps), panel, &start, (scale, bias)) };
                    epilogue.finish::<FMA, false>(&mut tile, [row, column], [n, count], out);
                }};
            }
            match height {
                1 => tile!(1),
                2 if MAX > 1 => tile!(2),
                3 if MAX > 2 => tile!(3),
                4 if MAX > 2 => tile!(4),
                5 if MAX > 4 => tile!(5),
                6 if MAX > 5 => tile!(6),
                7 if MAX > 5 => tile!(7),
                _ if MAX > 5 => tile!(8),
                _ => {}
            }
        }
    }
}

/// As [`body`] for at least two rows, with the sums computed tile by tile; `D` finishes them.
///
/// # Safety
/// As [`Dot`] and [`Tiles`].
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
unsafe fn tiled<T: Tiles<Bytes>, D: Dot, const FMA: bool>(
    layer: &QuantLinear,
    x: &[u8],
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let steps = layer.inputs.div_ceil(DEPTH);
    // SAFETY: the caller's promise; `D` may be used by the one who ends the sums too.
    unsafe {
        let weights = std::slice::from_raw_parts(layer.weight.as_ptr().cast(), layer.weight.len());
        let mut ending = Ending::<D, FMA> { layer, epilogue, out, dot: PhantomData };
        multiply::<Bytes, T>(x, weights, steps, &mut ending);
    }
}

/// Ends the sums of blocks.
#[cfg(any(test, target_arch = "x86_64"))]
struct Ending<'a, 'b, D, const FMA: bool> {
    layer: &'a QuantLinear,
    epilogue: &'a Epilogue<'a>,
    out: &'a mut Out<'b>,
    /// Whose instructions may be used here: said where the value is made.
    dot: PhantomData<D>,
}

#[cfg(any(test, target_arch = "x86_64"))]
impl<D: Dot, const FMA: bool> Sink<i32> for Ending<'_, '_, D, FMA> {
    #[inline(always)]
    fn take(&mut self, sums: &Sums<i32>, panel: usize, row: usize, height: usize) {
        /// Rows that stay in registers.
        const AT_ONCE: usize = 8;
        let layer = self.layer;
        for (p, sums) in (panel..layer.weight_sums.len()).zip(sums) {
            let (column, count) = (p * COLS, COLS.min(layer.outputs - p * COLS));
            let mut start = layer.weight_sums[p];
            for start in &mut start {
                *start *= -layer.zero;
            }
            for first in (0..height).step_by(AT_ONCE) {
                let mut tile = [[0.0; COLS]; AT_ONCE];
                let rows = AT_ONCE.min(height - first);
                for (to, from) in tile.iter_mut().zip(&sums[first..first + rows]) {
                    let mut sums = start;
                    for c in 0..COLS {
                        sums[c] += from[c];
                    }
                    // SAFETY: the one who made this value has the instructions.
                    *to = unsafe { D::finish::<FMA>(D::sums(&sums), &layer.scale[p], &layer.bias[p]) };
                }
                self.epilogue.finish::<FMA, false>(
                    &mut tile[..rows],
                    [row + first, column],
                    [layer.outputs, count],
                    self.out,
                );
            }
        }
    }
}

/// The most rows that go through all panels together: with what they become they stay in the second cache.
const BLOCK: usize = 256;

/// The layer on rows of `x`, [`row_stride`] bytes apart, by the instruction set that it was packed for; as many rows go to
/// `out`, see [`Out`].
pub fn quant_linear(layer: &QuantLinear, x: &[u8], epilogue: &Epilogue<'_>, out: &mut Out<'_>) {
    let (stride, n) = (row_stride(layer.inputs), layer.outputs);
    for (first, count) in row_blocks(x.len() / stride, BLOCK) {
        let residual = epilogue.residual.map(|residual| &residual[first * n..]);
        let epilogue = Epilogue { residual, ..*epilogue };
        block(layer, &x[first * stride..][..count * stride], &epilogue, &mut out.starting_at(first, n));
    }
}

/// Rows of a tile without special instructions.
const PLAIN_ROWS: usize = if FUSED { 2 } else { ROWS_UNFUSED };

/// The layer on a block of rows.
fn block(layer: &QuantLinear, x: &[u8], epilogue: &Epilogue<'_>, out: &mut Out<'_>) {
    #[cfg(target_arch = "x86_64")]
    use crate::amx::Amx;
    #[cfg(target_arch = "x86_64")]
    use crate::dot::{Avx2, Avx2Two, Avx2Wide, Avx512Vnni, AvxVnni, Halves};
    #[cfg(target_arch = "aarch64")]
    use crate::dot::{Dotprod, I8mm, Neon};
    macro_rules! compiled {
        ($arch:literal, $name:ident, $features:literal, $dot:ty, $most:literal) => {
            compiled!($arch, $name, $features, body::<$dot, true, $most>);
        };
        ($arch:literal, $name:ident, $features:literal, $body:expr) => {
            #[cfg(target_arch = $arch)]
            #[target_feature(enable = $features)]
            fn $name(layer: &QuantLinear, x: &[u8], epilogue: &Epilogue<'_>, out: &mut Out<'_>) {
                // SAFETY: this function is only compiled and called with the features that the primitive needs.
                unsafe { $body(layer, x, epilogue, out) }
            }
        };
    }
    compiled!("x86_64", avx2, "avx2,fma", Halves<Avx2>, 5);
    compiled!("x86_64", avx2_two, "avx2,fma", Halves<Avx2Two>, 4);
    compiled!("x86_64", avx2_wide, "avx2,fma", Halves<Avx2Wide>, 4);
    compiled!("x86_64", avx_vnni, "avx2,fma,avxvnni", Halves<AvxVnni>, 5);
    compiled!("x86_64", avx512_vnni, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", Avx512Vnni, 8);
    compiled!(
        "x86_64",
        amx,
        "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
        tiled::<Amx<Bytes>, Avx512Vnni, true>
    );
    compiled!("aarch64", neon_four, "neon", Neon<4>, 4);
    compiled!("aarch64", neon_two, "neon", Neon<2>, 4);
    compiled!("aarch64", dotprod, "neon,dotprod", Dotprod, 5);
    compiled!("aarch64", i8mm, "neon,i8mm", I8mm, 4);
    match layer.isa.integers() {
        // SAFETY: the plain primitive needs no special instructions.
        Int8Dot::Scalar => unsafe { body::<Plain, FUSED, PLAIN_ROWS>(layer, x, epilogue, out) },
        // SAFETY: every aarch64 has NEON.
        #[cfg(target_arch = "aarch64")]
        Int8Dot::Neon if layer.four_fit => unsafe { neon_four(layer, x, epilogue, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Int8Dot::Neon => unsafe { neon_two(layer, x, epilogue, out) },
        // SAFETY: an `Isa` of this kind is only made where the features were detected.
        #[cfg(target_arch = "aarch64")]
        Int8Dot::Dotprod => unsafe { dotprod(layer, x, epilogue, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Int8Dot::I8mm => unsafe { i8mm(layer, x, epilogue, out) },
        // An `Isa` of this kind is only made where the features were detected.
        #[cfg(target_arch = "x86_64")]
        Int8Dot::Avx2 => match layer.accumulate {
            // SAFETY: so AVX2 is there.
            Accumulate16::Four => unsafe { avx2_two(layer, x, epilogue, out) },
            // SAFETY: as above.
            Accumulate16::Two => unsafe { avx2(layer, x, epilogue, out) },
            // SAFETY: as above.
            Accumulate16::One => unsafe { avx2_wide(layer, x, epilogue, out) },
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Int8Dot::AvxVnni => unsafe { avx_vnni(layer, x, epilogue, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Int8Dot::Avx512Vnni => unsafe { avx512_vnni(layer, x, epilogue, out) },
        // SAFETY: as above; who has the extensions has AVX-512.
        #[cfg(target_arch = "x86_64")]
        Int8Dot::Amx if x.len() / row_stride(layer.inputs) < 2 => unsafe {
            avx512_vnni(layer, x, epilogue, out)
        },
        // SAFETY: as above, and the system has permitted the tile registers, of which each call is the only user.
        #[cfg(target_arch = "x86_64")]
        Int8Dot::Amx => unsafe { amx(layer, x, epilogue, out) },
        // SAFETY: all of the module is compiled with it.
        #[cfg(target_feature = "simd128")]
        Int8Dot::Simd128 => unsafe { body::<crate::dot::Simd128, FUSED, 2>(layer, x, epilogue, out) },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::each_isa;

    /// Extreme and ordinary bytes.
    fn bytes(n: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..n).map(|_| [0, 255, next(), next(), next()][usize::from(next()) % 5]).collect()
    }

    /// With scales of 1 and no bias, of a weight whose rows follow each other.
    fn layer(isa: Isa, [n, k]: [usize; 2], w: &[i8], zero: u8) -> QuantLinear {
        let (scales, bias) = (vec![1.0; n], vec![0.0; n]);
        let x = QuantParams::new(1.0, zero).unwrap();
        QuantLinear::new(isa, [n, k], |j, i| w[j * k + i], &scales, &bias, x).unwrap()
    }

    #[test]
    fn what_would_not_be_exact_is_refused() {
        let x = QuantParams::new(1.0, 0).unwrap();
        let new = |sizes, w: i8, scales: &[f32]| {
            QuantLinear::new(Isa::best(), sizes, |_, _| w, scales, &[0.0], x).is_some()
        };
        assert!(new([1, 1], -127, &[1.0]));
        assert!(!new([1, 1], -128, &[1.0]) && !new([1, 0], 1, &[1.0]) && !new([1, 1], 1, &[]));
        assert!(!new([1, QuantLinear::MAX_INPUTS + 1], 1, &[1.0]));
    }

    #[test]
    #[cfg(target_arch = "aarch64")]
    fn sums_of_four_inputs_fit_up_to_the_last_unit() {
        for (last, fits) in [(1, true), (2, false)] {
            // Inputs 1, 9, 17, 25 are added first.
            let mut w = [0i8; 32];
            (w[1], w[9], w[17], w[25]) = (-127, -127, 0, -last);
            for byte in [0u8, 255] {
                let want = -f32::from(byte) * (254.0 + f32::from(last));
                each_isa(|isa| {
                    let layer = layer(isa, [1, 32], &w, 0);
                    assert!(isa.integers() != Int8Dot::Neon || layer.four_fit == fits);
                    let mut y = [9.0];
                    quant_linear(&layer, &[byte; 32], &Epilogue::default(), &mut Out::F32(&mut y));
                    assert_eq!(y, [want], "{}", isa.name());
                });
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn weights_fit_up_to_the_last_unit() {
        let fit = |row: &[i8]| layer(Isa::best(), [1, row.len()], row, 0).accumulate;
        assert_eq!(fit(&[64, 63, 0, 0, 1, -127, 0, 0]), Accumulate16::Four);
        assert_eq!(fit(&[64, 64, 0, 0, 1]), Accumulate16::Two, "an odd last step has a group too");
        assert_eq!(fit(&[64, 64, 0, 0, 0, 0, 127, 127]), Accumulate16::One);
        assert_eq!(fit(&[64, 64, 64, 64, 0, 0, 0, 0]), Accumulate16::Four, "two groups");
        assert_eq!(fit(&[-64, -64, 0, 0, -1, 0, 0, 0]), Accumulate16::Two);
        assert_eq!(fit(&[64, 64]), Accumulate16::Four);
        assert_eq!([0, 1, 4, 5].map(QuantLinear::group), [[0, 1, 4, 5]; 4]);
        assert_eq!([2, 3, 6, 7].map(QuantLinear::group), [[2, 3, 6, 7]; 4]);
        assert_eq!(QuantLinear::group(11), [10, 11, 14, 15]);
    }

    proptest! {
        #[test]
        fn sums_are_exact_on_every_isa(
            rows in 0usize..40, n in 1usize..50, k in 1usize..150, seed: u64, zero: u8, most in 0usize..3
        ) {
            let limit = [32i8, 63, 127][most];
            let w: Vec<i8> = bytes(n * k, seed).iter().map(|&b| (b as i8).clamp(-limit, limit)).collect();
            let stride = row_stride(k);
            let x = bytes(rows * stride, seed ^ 7);
            let sum = |(r, j): (usize, usize)| -> i32 {
                let x = |i: usize| i32::from(x[r * stride + i]) - i32::from(zero);
                (0..k).map(|i| x(i) * i32::from(w[j * k + i])).sum()
            };
            let want: Vec<i32> = (0..rows).flat_map(|r| (0..n).map(move |j| (r, j))).map(sum).collect();
            each_isa(|isa| {
                let layer = layer(isa, [n, k], &w, zero);
                assert!(!cfg!(target_arch = "x86_64") || layer.accumulate >= [Accumulate16::Four, Accumulate16::Two, Accumulate16::One][most]);
                let mut y = vec![0.0; rows * n];
                quant_linear(&layer, &x, &Epilogue::default(), &mut Out::F32(&mut y));
                // Sums below 2^24 are exact in f32.
                let got: Vec<i32> = y.iter().map(|&y| y as i32).collect();
                assert_eq!(got, want, "{}", isa.name());
            });
            // Tile by tile, with the instruction's twin.
            let layer = layer(Isa::SCALAR, [n, k], &w, zero);
            if rows > 1 {
                let mut y = vec![0.0; rows * n];
                let (epilogue, out) = (Epilogue::default(), &mut Out::F32(&mut y));
                // SAFETY: no special instructions.
                unsafe { tiled::<crate::amx::Plain<Bytes>, Plain, FUSED>(&layer, &x, &epilogue, out) };
                prop_assert_eq!(y.iter().map(|&y| y as i32).collect::<Vec<_>>(), want);
            }
        }
    }
}
