//! Squares of floats, transposed: what other than vector code takes an instruction or two for each value.

/// Rows and columns of a square.
pub(crate) const SIDE: usize = 4;

/// A square with rows and columns exchanged.
#[inline(always)]
pub(crate) fn transpose(rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    #[cfg(target_arch = "x86_64")]
    return x86(rows);
    #[cfg(target_arch = "aarch64")]
    return neon(rows);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::array::from_fn(|c| rows.map(|row| row[c]))
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn x86(rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    use std::arch::x86_64::*;
    let mut columns = [[0.0; SIDE]; SIDE];
    // SAFETY: every x86-64 has SSE; a row is one register, loads and stores need no alignment.
    unsafe {
        let [a, b, c, d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(columns[0].as_mut_ptr(), _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(columns[1].as_mut_ptr(), _mm_movehl_ps(cd, ab));
        _mm_storeu_ps(columns[2].as_mut_ptr(), _mm_movelh_ps(ab_high, cd_high));
        _mm_storeu_ps(columns[3].as_mut_ptr(), _mm_movehl_ps(cd_high, ab_high));
    }
    columns
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn neon(rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    use std::arch::aarch64::*;
    let mut columns = [[0.0; SIDE]; SIDE];
    // SAFETY: every aarch64 has NEON; a row is one register.
    unsafe {
        let [a, b, c, d] = rows.map(|row| vld1q_f32(row.as_ptr()));
        let pairs = |a, b| (vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b)));
        let ((ab, ab_odd), (cd, cd_odd)) = (pairs(a, b), pairs(c, d));
        for (column, values) in columns.iter_mut().zip([
            vtrn1q_f64(ab, cd),
            vtrn1q_f64(ab_odd, cd_odd),
            vtrn2q_f64(ab, cd),
            vtrn2q_f64(ab_odd, cd_odd),
        ]) {
            vst1q_f32(column.as_mut_ptr(), vreinterpretq_f32_f64(values));
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let rows: [[f32; SIDE]; SIDE] =
            std::array::from_fn(|r| std::array::from_fn(|c| (r * SIDE + c) as f32));
        let want: [[f32; SIDE]; SIDE] =
            std::array::from_fn(|c| std::array::from_fn(|r| (r * SIDE + c) as f32));
        assert_eq!(transpose(rows), want);
    }
}
