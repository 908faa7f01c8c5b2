//! Images to patches, in the order that the patch embedding reads them: (channel, row, column), as a convolution's weight.

use smalti_kernels::Real;
use smalti_models::VitConfig;

use crate::clock::{self, Op};

/// Copies the patches `ids` `[count, each]` of images `[count, C, H, W]` to `rows` `[count · each, patch_len]`.
pub fn gather<R: Real>(vit: &VitConfig, pixels: &[R], ids: &[u32], count: usize, rows: &mut [R]) {
    let _timer = clock::time(Op::Patches);
    let (side, grid, size) = (vit.patch_size, vit.grid(), vit.img_size);
    let each = ids.len() / count.max(1);
    let lines = rows.chunks_exact_mut(side);
    let places = ids.iter().enumerate().flat_map(|(i, &id)| {
        let (top, left) = (id as usize / grid * side, id as usize % grid * side);
        let plane = i / each.max(1) * vit.channels;
        (0..vit.channels * side)
            .map(move |line| ((plane + line / side) * size + top + line % side) * size + left)
    });
    for (line, start) in lines.zip(places) {
        line.copy_from_slice(&pixels[start..start + side]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_cut_in_the_order_of_a_convolution() {
        let vit = VitConfig {
            img_size: 6,
            patch_size: 3,
            channels: 2,
            dim: 4,
            depth: 1,
            heads: 1,
            stem: Default::default(),
            variant: Default::default(),
        };
        let pixels: Vec<f64> = (0..2 * 72).map(f64::from).collect();
        let ids = [3, 1, 0, 2];
        let mut rows = vec![0.0; 4 * 18];
        gather(&vit, &pixels, &ids, 2, &mut rows);
        for (i, &id) in ids.iter().enumerate() {
            for (channel, y, x) in (0..2).flat_map(|c| (0..9).map(move |p| (c, p / 3, p % 3))) {
                let (top, left) = (id as usize / 2 * 3, id as usize % 2 * 3);
                let want = pixels[((i / 2 * 2 + channel) * 6 + top + y) * 6 + left + x];
                assert_eq!(rows[i * 18 + (channel * 3 + y) * 3 + x], want);
            }
        }
    }
}
