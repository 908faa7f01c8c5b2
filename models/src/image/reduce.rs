//! How much smaller than it is a JPEG may be decoded.

/// The largest of 8, 4, 2 and 1 that leaves the short side twice `side`, as Pillow's
/// `thumbnail(..., reducing_gap=2.0)` does: a resize with antialiasing loses nothing that can be seen then.
pub(super) fn reduction(width: usize, height: usize, side: usize) -> usize {
    let leaves_enough = |by: &usize| width.min(height) / by >= side.max(1).saturating_mul(2);
    [8, 4, 2].into_iter().find(leaves_enough).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_reduction_leaves_twice_the_side() {
        let found = |width, height, side| reduction(width, height, side);
        assert_eq!(found(4000, 3000, 96), 8);
        assert_eq!(found(3000, 4000, 224), 4);
        assert_eq!([found(1536, 2000, 96), found(1535, 2000, 96)], [8, 4]);
        assert_eq!([found(384, 384, 96), found(9000, 383, 96)], [2, 1]);
        assert_eq!([found(96, 96, 96), found(32, 32, 224), found(1, 1, 1)], [1, 1, 1]);
        assert_eq!([found(16, 16, 0), found(65535, 65535, usize::MAX)], [8, 1]);
    }
}
