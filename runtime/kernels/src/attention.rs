//! Attention for inference (arXiv 1706.03762, section 3.2.1): `softmax(scale · q kᵀ) v` for each head, over few
//! tokens. Queries go through in groups of rows, so that scores stay in the nearest cache and are never stored
//! for all.

use crate::dot::COLS;
use crate::isa::dispatch;
use crate::linear::tiles;
use crate::math::{exp2_of_negative, madd};
use crate::quantize::Out;

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

/// Queries that go through together.
const GROUP: usize = 6;
/// Columns of half a block.
const HALF: usize = COLS / 2;

impl Shape {
    /// Keys, and room for more up to whole registers.
    fn padded(&self) -> usize {
        self.tokens.next_multiple_of(HALF)
    }

    /// Values of scratch that [`attention`] needs: the keys of one head transposed, the scores of one group.
    pub fn scratch(&self) -> usize {
        (self.key + GROUP) * self.padded()
    }
}

/// `sums[r][c] += Σ_p a[r][p] b[p][c]` with rows of `a` and `b` at their distances.
#[inline(always)]
fn block<const FMA: bool, const ROWS: usize, const WIDTH: usize>(
    depth: usize,
    (a, a_row): (&[f32], usize),
    (b, b_row): (&[f32], usize),
) -> [[f32; WIDTH]; ROWS] {
    let mut sums = [[0f32; WIDTH]; ROWS];
    let mut rows = [&a[..0]; ROWS];
    for r in 0..ROWS {
        rows[r] = &a[r * a_row..][..depth];
    }
    assert!(depth == 0 || b.len() >= (depth - 1) * b_row + WIDTH, "rows of b are missing");
    for p in 0..depth {
        // SAFETY: the assertion above says that there are so many rows of `b`.
        let b: &[f32; WIDTH] = unsafe { &*b.as_ptr().add(p * b_row).cast() };
        for r in 0..ROWS {
            // SAFETY: every row of `a` has `depth` values.
            let a = unsafe { *rows[r].get_unchecked(p) };
            for c in 0..WIDTH {
                sums[r][c] = madd::<FMA>(a, b[c], sums[r][c]);
            }
        }
    }
    sums
}

/// `keys[j][t] = k[t][j]`; what is left of a row of `padded` values becomes 0.
#[inline(always)]
fn transpose(k: &Heads<'_>, shape: &Shape, padded: usize, keys: &mut [f32]) {
    for t in 0..shape.tokens {
        let row = &k.data[t * k.row..][..shape.key];
        for (column, &value) in keys.chunks_exact_mut(padded).zip(row) {
            column[t] = value;
        }
    }
    for column in keys.chunks_exact_mut(padded) {
        column[shape.tokens..].fill(0.0);
    }
}

/// Turns a row of products into exponentials; gives the reciprocal of their sum.
#[inline(always)]
fn exponentials<const FMA: bool>(row: &mut [f32], tokens: usize, scale: f32) -> f32 {
    row[tokens..].fill(f32::NEG_INFINITY);
    let mut top = [f32::NEG_INFINITY; HALF];
    for chunk in row.as_chunks::<HALF>().0 {
        for l in 0..HALF {
            top[l] = if chunk[l] > top[l] { chunk[l] } else { top[l] };
        }
    }
    let most = fold(top, |a, b| if a > b { a } else { b });
    let scale = scale * std::f32::consts::LOG2_E;
    let top = -(most * scale);
    // Two loops: the first becomes vector code as it stands, with the sums in it it would not.
    for x in row.iter_mut() {
        *x = exp2_of_negative::<FMA>(madd::<FMA>(*x, scale, top));
    }
    let mut sums = [0f32; HALF];
    for chunk in row.as_chunks::<HALF>().0 {
        for l in 0..HALF {
            sums[l] += chunk[l];
        }
    }
    // Padding has added less than 1e-36.
    1.0 / fold(sums, |a, b| a + b)
}

/// Eight values to one, by halves: the fewest steps that wait for each other.
#[inline(always)]
fn fold(values: [f32; HALF], f: impl Fn(f32, f32) -> f32) -> f32 {
    let [a, b, c, d, e, g, h, i] = values;
    let [a, b, c, d] = [f(a, e), f(b, g), f(c, h), f(d, i)];
    f(f(a, c), f(b, d))
}

/// One group of `ROWS` queries, the first of which is `first`, of one head.
#[inline(always)]
fn group<const FMA: bool, const ROWS: usize>(
    shape: &Shape,
    (q, q_row): (&[f32], usize),
    (keys, scores): (&[f32], &mut [f32]),
    (v, v_row): (&[f32], usize),
    [head, first]: [usize; 2],
    out: &mut Out<'_>,
) {
    let padded = shape.padded();
    let mut t = 0;
    while t + COLS <= padded {
        let sums = block::<FMA, ROWS, COLS>(shape.key, (q, q_row), (&keys[t..], padded));
        for r in 0..ROWS {
            scores[r * padded + t..][..COLS].copy_from_slice(&sums[r]);
        }
        t += COLS;
    }
    if t < padded {
        let sums = block::<FMA, ROWS, HALF>(shape.key, (q, q_row), (&keys[t..], padded));
        for r in 0..ROWS {
            scores[r * padded + t..][..HALF].copy_from_slice(&sums[r]);
        }
    }
    let mut parts = [0f32; ROWS];
    for (row, part) in scores.chunks_exact_mut(padded).zip(&mut parts) {
        *part = exponentials::<FMA>(row, shape.tokens, shape.scale);
    }
    let (width, stride) = (shape.value, out.row(shape.heads * shape.value));
    let mut c = 0;
    while c < width {
        let count = COLS.min(width - c);
        let mut sums = if count == COLS {
            block::<FMA, ROWS, COLS>(shape.tokens, (scores, padded), (&v[c..], v_row))
        } else {
            edge::<FMA, ROWS>(shape.tokens, (scores, padded), (&v[c..], v_row), count)
        };
        for (values, part) in sums.iter_mut().zip(&parts) {
            for value in values {
                *value *= part;
            }
        }
        let at = first * stride + head * width + c;
        if count == COLS {
            out.tile(at, stride, &sums);
        } else {
            for (r, values) in sums.iter().enumerate() {
                out.row_at(at + r * stride, &values[..count]);
            }
        }
        c += COLS;
    }
}

/// As [`block`] for fewer than 16 columns.
#[inline(always)]
fn edge<const FMA: bool, const ROWS: usize>(
    depth: usize,
    (a, a_row): (&[f32], usize),
    (b, b_row): (&[f32], usize),
    count: usize,
) -> [[f32; COLS]; ROWS] {
    let mut sums = [[0f32; COLS]; ROWS];
    for p in 0..depth {
        for r in 0..ROWS {
            for c in 0..count {
                sums[r][c] = madd::<FMA>(a[r * a_row + p], b[p * b_row + c], sums[r][c]);
            }
        }
    }
    sums
}

#[inline(always)]
fn body<const FMA: bool, const WIDE: bool>(
    shape: &Shape,
    [q, k, v]: [Heads<'_>; 3],
    rows: usize,
    scratch: &mut [f32],
    out: &mut Out<'_>,
) {
    let padded = shape.padded();
    let (keys, scores) = scratch.split_at_mut(shape.key * padded);
    for head in 0..shape.heads {
        transpose(&Heads { data: &k.data[head * k.head..], ..k }, shape, padded, keys);
        let (queries, values) = (&q.data[head * q.head..], (&v.data[head * v.head..], v.row));
        // As in `linear`.
        let most = if FMA { GROUP } else { 2 };
        for (first, height) in tiles(rows, most) {
            macro_rules! group {
                ($height:literal) => {{
                    let (queries, scores) = (&queries[first * q.row..], &mut scores[..$height * padded]);
                    group::<FMA, $height>(shape, (queries, q.row), (keys, scores), values, [head, first], out)
                }};
            }
            match height {
                1 => group!(1),
                2 => group!(2),
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
        shape: &Shape, qkv: [Heads<'_>; 3], rows: usize, scratch: &mut [f32], out: &mut Out<'_>,
    ) = body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{close, each_isa, values};

    /// The formula, for one query.
    fn plain(shape: &Shape, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
        let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
        let scores: Vec<f64> = k.chunks(shape.key).map(|k| (dot(k) * f64::from(shape.scale)).exp()).collect();
        let total: f64 = scores.iter().sum();
        let value = |c: usize| -> f64 {
            v.chunks(shape.value).zip(&scores).map(|(v, score)| f64::from(v[c]) * score / total).sum()
        };
        (0..shape.value).map(value).collect()
    }

    proptest! {
        #[test]
        fn every_isa_is_the_formula(
            heads in 1usize..4, tokens in 1usize..40, key in 1usize..24, value in 1usize..40, queries in 1usize..20,
            seed: u64
        ) {
            let shape = Shape { heads, tokens, key, value, scale: 0.7 };
            let (q, k) = (values(heads * queries * key, seed), values(heads * tokens * key, seed ^ 1));
            let v = values(heads * tokens * value, seed ^ 2);
            let mut want = Vec::new();
            for t in 0..queries {
                for h in 0..heads {
                    let q = &q[(h * queries + t) * key..][..key];
                    let (k, v) = (&k[h * tokens * key..], &v[h * tokens * value..]);
                    want.extend(plain(&shape, q, &k[..tokens * key], &v[..tokens * value]));
                }
            }
            let mut first: Option<Vec<f32>> = None;
            each_isa(|isa| {
                let (mut y, mut scratch) = (vec![0.0; want.len()], vec![0.0; shape.scratch()]);
                let q = Heads { data: &q, head: queries * key, row: key };
                let k = Heads { data: &k, head: tokens * key, row: key };
                let v = Heads { data: &v, head: tokens * value, row: value };
                attention(isa, &shape, [q, k, v], queries, &mut scratch, &mut Out::F32(&mut y));
                close(&y, &want, 1e-5);
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{}", isa.name());
            });
        }
    }
}
