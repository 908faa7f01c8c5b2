//! Functions of quantized values: what the nodes after a `QuantizeLinear` make of each of its 256 levels.
//!
//! A table is exact, whatever the function: each node is computed in f32 for each level, as the graph says.

use std::rc::Rc;

use smalti_kernels::{LevelMap, QuantParams};

/// A number for each level.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// The quantization whose levels they are; none where the values are bytes already, as an image's.
    of: Option<QuantParams>,
    values: Rc<[f32; 256]>,
}

impl Table {
    /// The bytes themselves.
    pub(super) fn of_bytes() -> Table {
        Table { of: None, values: Rc::new(std::array::from_fn(|level| level as f32)) }
    }

    /// The levels of a quantization as integers: from 0, or from -128 where they are signed.
    pub(super) fn of_levels(of: QuantParams, is_signed: bool) -> Table {
        let lowest = if is_signed { -128.0 } else { 0.0 };
        Table { of: Some(of), values: Rc::new(std::array::from_fn(|level| level as f32 + lowest)) }
    }

    /// The quantization whose levels they are.
    pub(super) fn levels_of(&self) -> Option<QuantParams> {
        self.of
    }

    /// The numbers, lowest level first.
    pub(super) fn values(&self) -> &Rc<[f32; 256]> {
        &self.values
    }

    /// Whether each byte stands for itself.
    pub(super) fn is_bytes(&self) -> bool {
        *self == Table::of_bytes()
    }

    /// A function of the numbers.
    pub(super) fn map(&self, function: impl Fn(f32) -> f32) -> Table {
        Table { of: self.of, values: Rc::new(self.values.map(function)) }
    }

    /// A function of the numbers of two tables of the same levels; none of others.
    pub(super) fn zip(&self, other: &Table, function: impl Fn(f32, f32) -> f32) -> Option<Table> {
        let values = || std::array::from_fn(|level| function(self.values[level], other.values[level]));
        (self.of == other.of).then(|| Table { of: self.of, values: Rc::new(values()) })
    }

    /// What a kernel computes; none of bytes.
    pub(super) fn level_map(&self) -> Option<LevelMap> {
        Some(LevelMap::new(self.of?, &self.values))
    }

    /// Whether each level stands for the value that `quantize` gives it: its bytes are then the levels.
    pub(super) fn is_round_trip(&self, quantize: QuantParams) -> bool {
        self.of.is_some()
            && (0..=255).zip(self.values.iter()).all(|(level, &value)| quantize.value(level) == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_a_round_trip_until_something_is_done_to_it() {
        let quantize = QuantParams::new(0.1, 128 + 20).unwrap();
        let levels = Table::of_levels(quantize, true);
        assert_eq!((levels.values[0], levels.values[255]), (-128.0, 127.0));
        let pair = levels.map(|level| (level - 20.0) * 0.1);
        assert!(pair.is_round_trip(quantize));
        assert!(!pair.map(|x| -x).is_round_trip(quantize));
        let other = QuantParams::new(0.2, 128 + 20).unwrap();
        assert!(!pair.is_round_trip(other) && levels.map(|level| (level - 20.0) * 0.2).is_round_trip(other));
        assert_eq!(pair.zip(&pair, |a, b| a * b).unwrap(), pair.map(|a| a * a));
        assert!(pair.zip(&Table::of_levels(other, true), |a, b| a + b).is_none());
        assert!(Table::of_bytes().is_bytes() && Table::of_bytes().level_map().is_none());
    }
}
