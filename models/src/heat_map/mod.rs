//! Maps of values over an image: found by covering one part after another ([`Occlusion`]), drawn in colours
//! ([`HeatMap::over`]).

mod occlusion;
mod overlay;
mod palette;

pub use occlusion::Occlusion;

use crate::error::{Error, Result};

/// A value for each cell of a grid over an image.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Columns and rows.
    cells: [usize; 2],
    /// Row by row.
    values: Vec<f32>,
}

impl HeatMap {
    /// A map of that many columns and rows, its values row by row.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of values, or none.
    pub fn new(cells: [usize; 2], values: Vec<f32>) -> Result<HeatMap> {
        if values.is_empty() || cells[0].checked_mul(cells[1]) != Some(values.len()) {
            let expected = format!("expected a value for each of {} x {} cells", cells[0], cells[1]);
            return Err(Error::Config { field: "map", found: format!("{} values", values.len()), expected });
        }
        Ok(HeatMap { cells, values })
    }

    /// Columns and rows.
    pub fn cells(&self) -> [usize; 2] {
        self.cells
    }

    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The cell of the largest value, of equal ones the first, as the place of its centre (from the left and from the top, as
    /// fractions of the map's width and height), and the value.
    pub fn peak(&self) -> ([f64; 2], f32) {
        let start = (0, f32::NEG_INFINITY);
        let larger =
            |best: (usize, f32), (i, &value): (usize, &f32)| if value > best.1 { (i, value) } else { best };
        let (cell, value) = self.values.iter().enumerate().fold(start, larger);
        let [columns, rows] = self.cells;
        let centre = |i: usize, count: usize| (i as f64 + 0.5) / count as f64;
        ([centre(cell % columns, columns), centre(cell / columns, rows)], value)
    }

    /// The value at a place (fractions of the map's width and height), between the cells' centres in proportion; none outside
    /// the map.
    pub fn at(&self, place: [f64; 2]) -> Option<f32> {
        if !place.iter().all(|part| (0.0..=1.0).contains(part)) {
            return None;
        }
        let [(left, right, x), (top, below, y)] = [0, 1].map(|axis| {
            let last = self.cells[axis] - 1;
            let at = (place[axis] * self.cells[axis] as f64 - 0.5).clamp(0.0, last as f64);
            let first = at as usize;
            (first, (first + 1).min(last), (at - first as f64) as f32)
        });
        let value = |column: usize, row: usize| self.values[row * self.cells[0] + column];
        let line = |row: usize| (1.0 - x) * value(left, row) + x * value(right, row);
        Some((1.0 - y) * line(top) + y * line(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_those_of_the_cells() {
        let map = HeatMap::new([2, 2], vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        let places = [[0.25, 0.25], [0.5, 0.5], [0.0, 0.99], [1.0, 0.0], [1.01, 0.5], [0.5, f64::NAN]];
        let wanted = [Some(0.0), Some(1.5), Some(2.0), Some(1.0), None, None];
        assert_eq!(places.map(|place| map.at(place)), wanted);
        assert_eq!(HeatMap::new([1, 1], vec![7.0]).unwrap().at([0.3, 0.9]), Some(7.0));
    }

    #[test]
    fn the_peak_is_the_centre_of_a_cell() {
        let map = HeatMap::new([3, 2], vec![0.0, -1.0, 2.0, 0.0, 2.0, 1.0]).unwrap();
        assert_eq!(map.peak(), ([5.0 / 6.0, 0.25], 2.0));
        let nowhere = HeatMap::new([1, 2], vec![f32::NAN; 2]).unwrap();
        assert_eq!(nowhere.peak().0, [0.5, 0.25]);
    }

    #[test]
    fn a_map_has_a_value_for_each_cell() {
        assert!(HeatMap::new([2, 2], vec![0.0; 3]).is_err());
        assert!(HeatMap::new([0, 2], Vec::new()).is_err());
        assert!(HeatMap::new([usize::MAX, 2], vec![0.0]).is_err());
    }
}
