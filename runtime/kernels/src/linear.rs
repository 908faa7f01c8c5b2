//! Linear layers for inference, `y = act(x Wᵀ + b) (+ residual)`, with the weight packed once.
//!
//! The weight is packed in panels of 16 columns of the result, each with its inputs in order, so that the product
//! reads it once from front to back. What follows the product (bias, activation, residual, quantization) happens
//! while a tile of the result is in registers. Each value of the result is one chain of fused multiply-adds in the
//! order of the inputs, so it has the same bits on every instruction set and however the rows are shared out.

use crate::dot::COLS;
use crate::epilogue::Epilogue;
use crate::isa::dispatch;
use crate::math::{madd, madd_is_long};
use crate::quantize::Out;

/// Shares `rows` out to tiles of almost equal height, at most `most`: each tile's first row and height.
///
/// An iterator, because a closure as large as a kernel would be compiled without the caller's instruction set.
#[inline(always)]
pub(crate) fn row_blocks(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most).max(1);
    let (height, higher) = (rows / count, rows % count);
    (0..rows.div_ceil(most)).map(move |i| (i * height + i.min(higher), height + usize::from(i < higher)))
}

/// Rows whose sums, 16 columns of each, stay in registers, beside what is multiplied.
pub(crate) const ROWS: usize = if cfg!(target_arch = "aarch64") { 5 } else { 6 };

/// As [`ROWS`], without fused multiply-adds in the machine.
pub(crate) const ROWS_UNFUSED: usize = if madd_is_long::<false>() { 1 } else { 2 };

/// The most rows that go through all panels together: with what they become they stay in the second cache.
const BLOCK: usize = 96;
/// The most steps of a panel that a block's tiles take together: they stay in the nearest cache.
const CHUNK: usize = 256;

/// A layer with a weight of floats.
#[derive(Clone, Debug)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    /// Panels `[inputs, 16]`; columns beyond the last are 0.
    weight: Vec<[f32; COLS]>,
    bias: Vec<[f32; COLS]>,
}

impl Linear {
    /// Packs a weight, read by `at(output, input)`, and a bias. None unless both sizes are positive and the bias
    /// has one value for each output.
    pub fn new(
        [outputs, inputs]: [usize; 2],
        at: impl Fn(usize, usize) -> f32,
        bias: &[f32],
    ) -> Option<Linear> {
        let [layer] = Linear::several([outputs, inputs], |j, i| [at(j, i)], [bias])?;
        Some(layer)
    }

    /// Layers of the same sizes, whose weights are read together.
    pub(crate) fn several<const N: usize>(
        [outputs, inputs]: [usize; 2],
        at: impl Fn(usize, usize) -> [f32; N],
        biases: [&[f32]; N],
    ) -> Option<[Linear; N]> {
        if outputs == 0 || inputs == 0 || biases.iter().any(|bias| bias.len() != outputs) {
            return None;
        }
        let mut layers = biases.map(|bias| {
            let weight = vec![[0.0; COLS]; outputs.div_ceil(COLS) * inputs];
            Linear { inputs, outputs, weight, bias: padded(bias) }
        });
        for j in 0..outputs {
            for i in 0..inputs {
                for (layer, value) in layers.iter_mut().zip(at(j, i)) {
                    layer.weight[j / COLS * inputs + i][j % COLS] = value;
                }
            }
        }
        Some(layers)
    }

    /// Bytes of a packed weight and bias of these sizes.
    pub fn packed_bytes([outputs, inputs]: [usize; 2]) -> usize {
        let column = inputs.saturating_add(1).saturating_mul(size_of::<f32>());
        outputs.div_ceil(COLS).saturating_mul(COLS).saturating_mul(column)
    }

    /// Values of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of the packed weight and bias.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weight[..]) + size_of_val(&self.bias[..])
    }
}

/// Values in groups of 16, the last one filled up with zeros.
pub(crate) fn padded<T: Copy + Default>(values: &[T]) -> Vec<[T; COLS]> {
    values
        .chunks(COLS)
        .map(|chunk| std::array::from_fn(|i| chunk.get(i).copied().unwrap_or_default()))
        .collect()
}

/// Asks for a line of memory that is needed soon.
///
/// The weights of a model do not fit into the near caches: each tile of a panel fetches its share of the next one.
#[inline(always)]
pub(crate) fn prefetch<T>(line: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The parts of a panel that so many tiles fetch, one each.
#[inline(always)]
pub(crate) fn shares<T>(panel: &[T], tiles: usize) -> impl Iterator<Item = &[T]> {
    panel.chunks(panel.len().div_ceil(tiles.max(1)).max(1))
}

/// `HEIGHT` rows of the product with steps of a panel, added to `start`, and then the bias; rows of `x` are `inputs` apart.
#[inline(always)]
fn tile<const FMA: bool, const WIDE: bool, const HEIGHT: usize>(
    x: &[f32],
    inputs: usize,
    panel: &[[f32; COLS]],
    start: &[[f32; COLS]; HEIGHT],
    bias: Option<&[f32; COLS]>,
) -> [[f32; COLS]; HEIGHT] {
    let mut rows = [&x[..0]; HEIGHT];
    for r in 0..HEIGHT {
        rows[r] = &x[r * inputs..][..panel.len()];
    }
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: compiled so for AVX-512, or for AVX2 with FMA, alone; every row has as many values as the panel has
        // steps.
        return unsafe {
            if WIDE {
                crate::avx512::tile(&rows, panel, start, bias)
            } else {
                crate::avx2::tile(&rows, panel, start, bias)
            }
        };
    }
    let mut sums = products::<FMA, HEIGHT>(&rows, panel, start);
    if let Some(bias) = bias {
        for values in &mut sums {
            for c in 0..COLS {
                values[c] += bias[c];
            }
        }
    }
    sums
}

/// `start[r] + Σ_i x[r][i] panel[i]`; every row has as many values as the panel has steps.
#[inline(always)]
fn products<const FMA: bool, const HEIGHT: usize>(
    rows: &[&[f32]; HEIGHT],
    panel: &[[f32; COLS]],
    start: &[[f32; COLS]; HEIGHT],
) -> [[f32; COLS]; HEIGHT] {
    #[cfg(target_arch = "aarch64")]
    if FMA {
        // SAFETY: the slices above are of that length.
        return unsafe { crate::neon::block(rows, panel, start) };
    }
    let mut sums = *start;
    for (i, w) in panel.iter().enumerate() {
        for r in 0..HEIGHT {
            // SAFETY: every row has as many values as the panel has steps.
            let x = unsafe { *rows[r].get_unchecked(i) };
            for c in 0..COLS {
                sums[r][c] = madd::<FMA>(x, w[c], sums[r][c]);
            }
        }
    }
    sums
}

#[inline(always)]
fn body<const FMA: bool, const WIDE: bool>(
    layer: &Linear,
    x: &[f32],
    epilogue: &Epilogue<'_>,
    out: &mut Out<'_>,
) {
    let (k, n) = (layer.inputs, layer.outputs);
    let rows = x.len() / k;
    let most = match (WIDE, FMA) {
        (true, _) => 8,
        (_, true) => ROWS,
        _ => ROWS_UNFUSED,
    };
    // Sums of a panel whose steps are multiplied chunk by chunk; what is read was written before.
    let mut sums = [[0f32; COLS]; BLOCK];
    for (first, count) in row_blocks(rows, BLOCK) {
        let x = &x[first * k..][..count * k];
        for (p, (panel, bias)) in layer.weight.chunks_exact(k).zip(&layer.bias).enumerate() {
            let (column, width) = (p * COLS, COLS.min(n - p * COLS));
            for (c, chunk) in panel.chunks(CHUNK).enumerate() {
                let (at, is_last) = (c * CHUNK, c * CHUNK + chunk.len() == k);
                let next = &layer.weight[p * k + at + chunk.len()..];
                let mut shares = shares(&next[..next.len().min(CHUNK)], count.div_ceil(most));
                for (row, height) in row_blocks(count, most) {
                    shares.next().unwrap_or_default().iter().for_each(prefetch);
                    macro_rules! tile {
                        ($height:literal) => {{
                            let stored = sums[row..].first_chunk().filter(|_| c > 0);
                            let start = stored.unwrap_or(&[[0.0; COLS]; $height]);
                            let bias = Some(bias).filter(|_| is_last);
                            let mut tile =
                                tile::<FMA, WIDE, $height>(&x[row * k + at..], k, chunk, start, bias);
                            if is_last {
                                epilogue.finish::<FMA, WIDE>(
                                    &mut tile,
                                    [first + row, column],
                                    [n, width],
                                    out,
                                );
                            } else {
                                sums[row..row + $height].copy_from_slice(&tile);
                            }
                        }};
                    }
                    match height {
                        1 => tile!(1),
                        2 if most > 1 => tile!(2),
                        3 if most > 2 => tile!(3),
                        4 if most > 2 => tile!(4),
                        5 if most > 2 => tile!(5),
                        6 if most > 2 => tile!(6),
                        7 if most > 6 => tile!(7),
                        _ if most > 6 => tile!(8),
                        _ => {}
                    }
                }
            }
        }
    }
}

dispatch! {
    /// The layer on rows of `x`; as many rows go to `out`, see [`Out`].
    pub fn linear(layer: &Linear, x: &[f32], epilogue: &Epilogue<'_>, out: &mut Out<'_>) = body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{close, each_isa, values};

    #[test]
    fn tiles_cover_all_rows() {
        for (rows, most) in [(0, 6), (1, 6), (6, 6), (7, 6), (65, 6), (197, 5)] {
            let mut next = 0;
            for (row, height) in row_blocks(rows, most) {
                assert!(row == next && (1..=most).contains(&height));
                next += height;
            }
            assert_eq!(next, rows);
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Linear::new([0, 3], |_, _| 1.0, &[]).is_none());
        assert!(Linear::new([3, 0], |_, _| 1.0, &[0.0; 3]).is_none());
        assert!(Linear::new([3, 2], |_, _| 1.0, &[0.0; 2]).is_none());
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(rows in 0usize..20, n in 1usize..40, k in 1usize..40, deep in 0usize..3, high in 0usize..2, residual: bool, seed: u64) {
            // Several chunks, and several blocks.
            let (rows, k) = (rows + high * BLOCK, k + deep * (CHUNK - 20));
            let (x, w, b) = (values(rows * k, seed), values(n * k, seed ^ 1), values(n, seed ^ 2));
            let more = values(rows * n, seed ^ 3);
            let layer = Linear::new([n, k], |j, i| w[j * k + i], &b).unwrap();
            let epilogue = Epilogue { residual: residual.then_some(&more[..]), ..Epilogue::default() };
            let value = |(r, j): (usize, usize)| {
                let sum: f64 = (0..k).map(|i| f64::from(x[r * k + i]) * f64::from(w[j * k + i])).sum();
                sum + f64::from(b[j]) + if residual { f64::from(more[r * n + j]) } else { 0.0 }
            };
            let want: Vec<f64> = (0..rows).flat_map(|r| (0..n).map(move |j| (r, j))).map(value).collect();
            let mut first: Option<Vec<f32>> = None;
            each_isa(|isa| {
                let mut y = vec![0.0; rows * n];
                linear(isa, &layer, &x, &epilogue, &mut Out::F32(&mut y));
                close(&y, &want, 1e-4);
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{}", isa.name());
            });
        }
    }
}
