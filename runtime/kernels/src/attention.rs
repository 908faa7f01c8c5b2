//! Attention for inference (arXiv 1706.03762, section 3.2.1): `softmax(scale · q kᵀ) v` for each head, over few
//! tokens. Queries go through in groups of rows, so that scores stay in the nearest cache and are never stored
//! for all.

use std::ops::Range;

use crate::dot::COLS;
use crate::exponentials::{LANES, exponentials};
use crate::isa::dispatch;
use crate::levels::LevelMap;
use crate::linear::{ROWS as GROUP, ROWS_UNFUSED, row_blocks};
use crate::math::madd;
use crate::quantize::Out;
use crate::transpose::{SIDE, transpose};

/// A matrix `[tokens, width]` for each head, inside a larger one; the values of a row are neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The values, from the first head's first row on.
    pub data: &'a [f32],
    /// Distance of two heads.
    pub head: usize,
    /// Distance of two rows.
    pub row: usize,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Number of heads.
    pub heads: usize,
    /// Rows of keys and values.
    pub tokens: usize,
    /// Width of a query and a key of one head.
    pub key: usize,
    /// Width of a value of one head.
    pub value: usize,
    /// Factor on the scores, usually `1 / √key`.
    pub scale: f32,
}

/// What happens between the products of attention.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScoreMaps<'a> {
    /// Applied to `q kᵀ`; what comes out is multiplied by the scale.
    pub scores: Option<&'a LevelMap>,
    /// Added then, before the scale: for each head a matrix `[queries, tokens]`, as a bias by relative positions is
    /// (arXiv 2103.14030, section 3.2).
    pub bias: Option<Heads<'a>>,
    /// Applied to the softmax.
    pub probabilities: Option<&'a LevelMap>,
}

impl Shape {
    /// Keys, and room for more up to whole registers.
    fn padded(&self) -> usize {
        self.tokens.next_multiple_of(LANES)
    }

    /// Lengths of the keys and values of one head, packed, and of the scores of one group.
    fn parts(&self) -> [usize; 3] {
        let padded = self.padded();
        [self.key * padded, self.value.next_multiple_of(COLS) * self.tokens, GROUP * padded]
    }

    /// Values of scratch that [`attention`] needs.
    pub fn scratch(&self) -> usize {
        self.parts().iter().sum()
    }
}

/// `sums[r][c] = Σ_p a[r][p] b[p][c]` with rows of `a` at their distance.
#[inline(always)]
fn block<const FMA: bool, const ROWS: usize, const WIDTH: usize>(
    (a, a_row): (&[f32], usize),
    b: &[[f32; WIDTH]],
) -> [[f32; WIDTH]; ROWS] {
    let mut sums = [[0f32; WIDTH]; ROWS];
    let mut rows = [&a[..0]; ROWS];
    for r in 0..ROWS {
        rows[r] = &a[r * a_row..][..b.len()];
    }
    #[cfg(target_arch = "aarch64")]
    if FMA {
        // SAFETY: every row of `a` has as many values as `b` has rows.
        return unsafe { crate::neon::block(&rows, b, &sums) };
    }
    for (p, b) in b.iter().enumerate() {
        for r in 0..ROWS {
            // SAFETY: every row of `a` has as many values as `b` has rows.
            let a = unsafe { *rows[r].get_unchecked(p) };
            for c in 0..WIDTH {
                sums[r][c] = madd::<FMA>(a, b[c], sums[r][c]);
            }
        }
    }
    sums
}

/// Panels `[key, 16]`, the last of which may be `[key, 8]`: `keys[j][t] = k[t][j]`, and 0 beyond the last token.
///
/// Packed, because rows of a model's keys and values lie kilobytes apart, where few of them share a cache.
#[inline(always)]
fn pack_keys(k: &Heads<'_>, shape: &Shape, keys: &mut [f32]) {
    let row = |t: usize| &k.data[t * k.row..][..shape.key];
    for (p, panel) in keys.chunks_mut(shape.key * COLS).enumerate() {
        let first = p * COLS;
        if panel.len() == shape.key * COLS {
            pack_panel::<COLS>(row, first..shape.tokens, panel.as_chunks_mut().0);
        } else {
            pack_panel::<LANES>(row, first..shape.tokens, panel.as_chunks_mut().0);
        }
    }
}

/// As many of the tokens as a panel has columns, and 0 where there are not enough.
#[inline(always)]
fn pack_panel<'a, const WIDTH: usize>(
    row: impl Fn(usize) -> &'a [f32],
    tokens: Range<usize>,
    panel: &mut [[f32; WIDTH]],
) {
    if tokens.len() < WIDTH {
        panel.fill([0.0; WIDTH]);
    }
    for lane in (0..WIDTH.min(tokens.len())).step_by(SIDE) {
        let first = tokens.start + lane;
        if first + SIDE > tokens.end {
            for (lane, t) in (lane..).zip(first..tokens.end) {
                panel.iter_mut().zip(row(t)).for_each(|(place, &value)| place[lane] = value);
            }
            return;
        }
        let rows = [0, 1, 2, 3].map(|i| row(first + i).as_chunks::<SIDE>());
        let (squares, rest) = panel.as_chunks_mut::<SIDE>();
        for (j, places) in squares.iter_mut().enumerate() {
            let square = transpose([rows[0].0[j], rows[1].0[j], rows[2].0[j], rows[3].0[j]]);
            for i in 0..SIDE {
                places[i][lane..lane + SIDE].copy_from_slice(&square[i]);
            }
        }
        for (j, place) in rest.iter_mut().enumerate() {
            for i in 0..SIDE {
                place[lane + i] = rows[i].1[j];
            }
        }
    }
}

/// Panels `[tokens, 16]`; columns beyond the last are 0.
#[inline(always)]
fn pack_values(v: &Heads<'_>, shape: &Shape, values: &mut [f32]) {
    for (p, panel) in values.chunks_exact_mut(shape.tokens * COLS).enumerate() {
        let (column, count) = (p * COLS, COLS.min(shape.value - p * COLS));
        for (t, place) in panel.as_chunks_mut::<COLS>().0.iter_mut().enumerate() {
            let row = &v.data[t * v.row + column..][..count];
            if let Some(whole) = row.first_chunk() {
                *place = *whole;
            } else {
                *place = [0.0; COLS];
                place[..count].copy_from_slice(row);
            }
        }
    }
}

/// One group of `ROWS` queries, the first of which is `first`, of one head.
#[inline(always)]
fn group<const FMA: bool, const ROWS: usize>(
    shape: &Shape,
    q: (&[f32], usize),
    (keys, values): (&[f32], &[f32]),
    scores: &mut [f32],
    maps: ScoreMaps<'_>,
    [head, first]: [usize; 2],
    out: &mut Out<'_>,
) {
    let padded = shape.padded();
    let mut t = 0;
    for panel in keys.chunks(shape.key * COLS) {
        if panel.len() == shape.key * COLS {
            let sums = block::<FMA, ROWS, COLS>(q, panel.as_chunks().0);
            for r in 0..ROWS {
                scores[r * padded + t..][..COLS].copy_from_slice(&sums[r]);
            }
        } else {
            let sums = block::<FMA, ROWS, LANES>(q, panel.as_chunks().0);
            for r in 0..ROWS {
                scores[r * padded + t..][..LANES].copy_from_slice(&sums[r]);
            }
        }
        t += COLS;
    }
    if let Some(map) = maps.scores {
        scores.chunks_exact_mut(padded).for_each(|row| map.apply(&mut row[..shape.tokens]));
    }
    if let Some(bias) = maps.bias {
        let rows = bias.data[head * bias.head + first * bias.row..].chunks(bias.row);
        for (scores, bias) in scores.chunks_exact_mut(padded).zip(rows) {
            scores.iter_mut().zip(&bias[..shape.tokens]).for_each(|(score, bias)| *score += bias);
        }
    }
    // SAFETY: compiled with fused multiply-adds only where the processor has AVX2 too.
    let mut parts = unsafe { exponentials::<FMA, ROWS>(scores, shape.tokens, shape.scale) };
    if let Some(map) = maps.probabilities {
        for (row, part) in scores.chunks_exact_mut(padded).zip(&mut parts) {
            let row = &mut row[..shape.tokens];
            row.iter_mut().for_each(|value| *value *= *part);
            map.apply(row);
            *part = 1.0;
        }
    }
    let (width, stride) = (shape.value, out.row_stride(shape.heads * shape.value));
    for (p, panel) in values.chunks_exact(shape.tokens * COLS).enumerate() {
        let (column, count) = (p * COLS, COLS.min(width - p * COLS));
        let mut sums = block::<FMA, ROWS, COLS>((scores, padded), panel.as_chunks().0);
        for (values, part) in sums.iter_mut().zip(&parts) {
            for value in values {
                *value *= part;
            }
        }
        let at = first * stride + head * width + column;
        if count == COLS {
            out.tile(at, stride, &sums);
        } else {
            for (r, values) in sums.iter().enumerate() {
                out.row_at(at + r * stride, &values[..count]);
            }
        }
    }
}

#[inline(always)]
fn body<const FMA: bool, const WIDE: bool>(
    shape: &Shape,
    [q, k, v]: [Heads<'_>; 3],
    maps: ScoreMaps<'_>,
    rows: usize,
    scratch: &mut [f32],
    out: &mut Out<'_>,
) {
    let padded = shape.padded();
    let [keys, values, _] = shape.parts();
    let (keys, scratch) = scratch.split_at_mut(keys);
    let (values, scores) = scratch.split_at_mut(values);
    for head in 0..shape.heads {
        pack_keys(&Heads { data: &k.data[head * k.head..], ..k }, shape, keys);
        pack_values(&Heads { data: &v.data[head * v.head..], ..v }, shape, values);
        let queries = &q.data[head * q.head..];
        let most = if FMA { GROUP } else { ROWS_UNFUSED };
        for (first, height) in row_blocks(rows, most) {
            macro_rules! group {
                ($height:literal) => {{
                    let queries = (&queries[first * q.row..], q.row);
                    let scores = &mut scores[..$height * padded];
                    group::<FMA, $height>(shape, queries, (keys, values), scores, maps, [head, first], out)
                }};
            }
            match height {
                1 => group!(1),
                2 if most > 1 => group!(2),
                3 if most > 2 => group!(3),
                4 if most > 2 => group!(4),
                5 if most > 2 => group!(5),
                _ if most > 2 => group!(6),
                _ => {}
            }
        }
    }
}

dispatch! {
    /// The attention of `rows` queries over all keys and values. The result has a row for each query, with the
    /// heads side by side; it goes to `out`, see [`Out`]. `scratch` has at least [`Shape::scratch`] values.
    pub fn attention(
        shape: &Shape, qkv: [Heads<'_>; 3], maps: ScoreMaps<'_>, rows: usize, scratch: &mut [f32], out: &mut Out<'_>,
    ) = body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quantize::QuantParams;
    use crate::test_support::{close, each_isa, values};

    /// The formula, for one query and its biases.
    fn plain(shape: &Shape, q: &[f32], k: &[f32], v: &[f32], bias: &[f32]) -> Vec<f64> {
        let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
        let keys = k.chunks(shape.key).zip(bias);
        let score = |(k, &bias): (&[f32], &f32)| ((dot(k) + f64::from(bias)) * f64::from(shape.scale)).exp();
        let scores: Vec<f64> = keys.map(score).collect();
        let total: f64 = scores.iter().sum();
        let value = |c: usize| -> f64 {
            v.chunks(shape.value).zip(&scores).map(|(v, score)| f64::from(v[c]) * score / total).sum()
        };
        (0..shape.value).map(value).collect()
    }

    #[test]
    fn maps_stand_between_the_products() {
        let shape = Shape { heads: 1, tokens: 37, key: 8, value: 5, scale: 1.0 };
        let (q, k, v) = (values(9 * 8, 1), values(37 * 8, 2), values(37 * 5, 3));
        let scores_at = QuantParams::new(0.11, 120).unwrap();
        let probabilities_at = QuantParams::new(0.0007, 0).unwrap();
        let scores = LevelMap::new(scores_at, &std::array::from_fn(|i| 0.3 * scores_at.value(i as u8)));
        let probabilities =
            LevelMap::new(probabilities_at, &std::array::from_fn(|i| probabilities_at.value(i as u8)));
        let mut want = Vec::new();
        for q in q.chunks(8) {
            let dot = |k: &[f32]| q.iter().zip(k).fold(0.0f32, |sum, (&q, &k)| q.mul_add(k, sum));
            let exps: Vec<f64> =
                k.chunks(8).map(|k| f64::from(0.3 * scores_at.value(scores_at.byte(dot(k)))).exp()).collect();
            let total: f64 = exps.iter().sum();
            let rounded =
                |exp: &f64| f64::from(probabilities_at.value(probabilities_at.byte((exp / total) as f32)));
            let value =
                |c: usize| v.chunks(5).zip(&exps).map(|(v, exp)| f64::from(v[c]) * rounded(exp)).sum();
            want.extend((0..5).map(value).collect::<Vec<f64>>());
        }
        let maps = ScoreMaps { scores: Some(&scores), bias: None, probabilities: Some(&probabilities) };
        each_isa(|isa| {
            let (mut y, mut scratch) = (vec![0.0; want.len()], vec![0.0; shape.scratch()]);
            let heads = |data, row| Heads { data, head: 0, row };
            let qkv = [heads(&q[..], 8), heads(&k[..], 8), heads(&v[..], 5)];
            attention(isa, &shape, qkv, maps, 9, &mut scratch, &mut Out::F32(&mut y));
            // A probability next to the middle of two levels may go either way.
            let step = f64::from(probabilities_at.scale());
            assert!(
                y.iter().zip(&want).all(|(&y, want)| (f64::from(y) - want).abs() < 2.0 * step),
                "{}",
                isa.name()
            );
            let far = y.iter().zip(&want).filter(|&(&y, want)| (f64::from(y) - want).abs() > 1e-5).count();
            assert!(far < 5, "{far} of {} on {}", want.len(), isa.name());
        });
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(
            heads in 1usize..4, tokens in 1usize..40, key in 1usize..24, value in 1usize..40, queries in 1usize..20,
            is_biased: bool, seed: u64
        ) {
            let shape = Shape { heads, tokens, key, value, scale: 0.7 };
            let (q, k) = (values(heads * queries * key, seed), values(heads * tokens * key, seed ^ 1));
            let v = values(heads * tokens * value, seed ^ 2);
            // A row more than there are queries, and more columns than tokens.
            let stride = tokens + 3;
            let mut biases = values(heads * (queries + 1) * stride, seed ^ 3);
            if !is_biased {
                biases.fill(0.0);
            }
            let mut want = Vec::new();
            for t in 0..queries {
                for h in 0..heads {
                    let q = &q[(h * queries + t) * key..][..key];
                    let (k, v) = (&k[h * tokens * key..], &v[h * tokens * value..]);
                    let bias = &biases[(h * (queries + 1) + t) * stride..][..tokens];
                    want.extend(plain(&shape, q, &k[..tokens * key], &v[..tokens * value], bias));
                }
            }
            let mut first: Option<Vec<f32>> = None;
            each_isa(|isa| {
                let (mut y, mut scratch) = (vec![0.0; want.len()], vec![0.0; shape.scratch()]);
                let q = Heads { data: &q, head: queries * key, row: key };
                let k = Heads { data: &k, head: tokens * key, row: key };
                let v = Heads { data: &v, head: tokens * value, row: value };
                let bias = Heads { data: &biases, head: (queries + 1) * stride, row: stride };
                let maps = ScoreMaps { bias: is_biased.then_some(bias), ..ScoreMaps::default() };
                attention(isa, &shape, [q, k, v], maps, queries, &mut scratch, &mut Out::F32(&mut y));
                close(&y, &want, 1e-5);
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{}", isa.name());
            });
        }
    }
}
