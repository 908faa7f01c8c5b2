//! Which parts of an image are covered, one after another, and what that says of each cell (Zeiler and Fergus 2014, arXiv
//! 1311.2901, section 4.2).

use std::ops::Range;

use super::HeatMap;

/// Cells that a patch reaches to each side of its centre.
const REACH: usize = 1;

/// A patch that is moved over an image from cell to cell: three cells a side, less at the edges. [`Occlusion::add`] takes how
/// much an answer falls behind each.
#[derive(Clone, Debug)]
pub struct Occlusion {
    /// Width and height of the image.
    size: [usize; 2],
    cells: [usize; 2],
    sums: Vec<f32>,
    counts: Vec<f32>,
}

impl Occlusion {
    /// For an image of that width and height, and that many cells a side: at most one for each pixel, at least one.
    pub fn new(size: [usize; 2], grid: usize) -> Occlusion {
        let cells = size.map(|side| grid.min(side).max(1));
        let patches = cells[0] * cells[1];
        Occlusion { size, cells, sums: vec![0.0; patches], counts: vec![0.0; patches] }
    }

    /// The number of patches, one centred on each cell.
    pub fn patches(&self) -> usize {
        self.sums.len()
    }

    /// The columns and rows of pixels that a patch covers.
    pub fn pixels(&self, patch: usize) -> [Range<usize>; 2] {
        let covered = self.covered(patch);
        [0, 1].map(|axis| {
            let edge = |cell: usize| cell * self.size[axis] / self.cells[axis];
            edge(covered[axis].start)..edge(covered[axis].end)
        })
    }

    /// Takes by how much the answer falls when a patch covers the image.
    pub fn add(&mut self, patch: usize, fall: f32) {
        let [columns, rows] = self.covered(patch);
        for row in rows {
            for cell in columns.clone().map(|column| row * self.cells[0] + column) {
                self.sums[cell] += fall;
                self.counts[cell] += 1.0;
            }
        }
    }

    /// For each cell the mean fall over the patches that covered it; 0 where none did.
    pub fn finish(self) -> HeatMap {
        let values = self.sums.iter().zip(&self.counts).map(|(sum, count)| sum / count.max(1.0)).collect();
        HeatMap { cells: self.cells, values }
    }

    /// The columns and rows of cells that a patch covers.
    fn covered(&self, patch: usize) -> [Range<usize>; 2] {
        let centre = [patch % self.cells[0], patch / self.cells[0]];
        [0, 1]
            .map(|axis| centre[axis].saturating_sub(REACH)..(centre[axis] + REACH + 1).min(self.cells[axis]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The map of an answer that is the mean brightness of a white image.
    fn of_brightness(size: [usize; 2], grid: usize) -> HeatMap {
        let mut occlusion = Occlusion::new(size, grid);
        for patch in 0..occlusion.patches() {
            let covered: usize = occlusion.pixels(patch).iter().map(ExactSizeIterator::len).product();
            occlusion.add(patch, covered as f32 / (size[0] * size[1]) as f32);
        }
        occlusion.finish()
    }

    #[test]
    fn every_cell_is_covered_at_any_size() {
        for size in [[1, 1], [2, 5], [28, 28], [96, 97], [224, 160]] {
            let map = of_brightness(size, 8);
            assert_eq!(map.cells(), size.map(|side| side.min(8)));
            assert!(map.values().iter().all(|fall| *fall > 0.0), "{size:?}: {map:?}");
        }
    }

    #[test]
    fn what_the_answer_depends_on_lights_up() {
        // The answer is the pixel in column 13 and row 2 of 16.
        let mut occlusion = Occlusion::new([16, 16], 8);
        for patch in 0..occlusion.patches() {
            let [columns, rows] = occlusion.pixels(patch);
            occlusion.add(patch, if columns.contains(&13) && rows.contains(&2) { 0.8 } else { 0.0 });
        }
        let map = occlusion.finish();
        let at = |column: usize, row: usize| map.values()[row * 8 + column];
        assert!((at(6, 1) - 0.8).abs() < 1e-6, "{map:?}");
        // Patches that cover the pixel reach two cells from its own.
        for (column, row) in (0..8).flat_map(|row| (0..8).map(move |column| (column, row))) {
            let is_near = usize::abs_diff(column, 6) <= 2 && usize::abs_diff(row, 1) <= 2;
            assert_eq!(at(column, row) > 0.0, is_near, "{column} {row}");
        }
    }
}
