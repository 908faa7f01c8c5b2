//! Which positions of the maps of a convolutional stem can be seen: those under visible patches.

use std::ops::Range;

/// The visible patches of a batch of images.
#[derive(Clone, Debug, Default)]
pub(super) struct Visible {
    /// Patches along a side.
    grid: usize,
    /// Whether each patch is visible `[batch, grid, grid]`; empty where all are.
    patches: Vec<bool>,
}

/// Neighbouring positions of a row that can all be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The row.
    pub(super) row: usize,
    /// Their columns.
    pub(super) columns: Range<usize>,
}

impl Visible {
    /// Patches `[batch, visible]` of `batch` images with `grid` x `grid` patches.
    pub(super) fn set(&mut self, grid: usize, visible: &[u32], batch: usize) {
        let patches = grid * grid;
        self.grid = grid;
        self.patches.clear();
        let each = visible.len() / batch.max(1);
        if each == patches {
            return;
        }
        self.patches.resize(batch * patches, false);
        for (i, &id) in visible.iter().enumerate() {
            self.patches[i / each.max(1) * patches + id as usize] = true;
        }
    }

    /// The visible positions of an image's map of `side` x `side` positions, row by row.
    pub(super) fn runs(&self, image: usize, side: usize) -> impl Iterator<Item = Run> {
        let (grid, cell) = (self.grid, side / self.grid.max(1));
        let whole =
            self.patches.is_empty().then_some((0..side).map(move |row| Run { row, columns: 0..side }));
        let parts = (0..if self.patches.is_empty() { 0 } else { side * grid }).filter_map(move |i| {
            let (row, patch) = (i / grid, i % grid);
            let id = (image * grid + row / cell) * grid + patch;
            self.patches[id].then_some(Run { row, columns: patch * cell..(patch + 1) * cell })
        });
        whole.into_iter().flatten().chain(parts)
    }

    /// The visible values of a map `[side, side, channels]`, in as few ranges as there are.
    pub(super) fn ranges(
        &self,
        image: usize,
        side: usize,
        channels: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let all = self.patches.is_empty();
        let whole = all.then_some(0..side * side * channels);
        let runs = (!all).then(|| self.runs(image, side));
        let parts = runs.into_iter().flatten().map(move |Run { row, columns }| {
            (row * side + columns.start) * channels..(row * side + columns.end) * channels
        });
        whole.into_iter().chain(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_visible_patches() {
        let mut visible = Visible::default();
        visible.set(2, &[1, 2, 0, 3], 2);
        let run = |row, columns| Run { row, columns };
        let found: Vec<Run> = visible.runs(1, 4).collect();
        assert_eq!(found, [run(0, 0..2), run(1, 0..2), run(2, 2..4), run(3, 2..4)]);
        assert_eq!(visible.ranges(0, 2, 3).collect::<Vec<_>>(), [3..6, 6..9]);
        visible.set(2, &[0, 1, 2, 3, 0, 1, 2, 3], 2);
        assert_eq!(visible.runs(1, 2).collect::<Vec<_>>(), [run(0, 0..2), run(1, 0..2)]);
        assert!(visible.ranges(1, 2, 3).eq(std::iter::once(0..12)));
    }
}
