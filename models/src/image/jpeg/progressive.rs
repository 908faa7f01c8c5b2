//! Progressive files (ITU-T T.81, annex G): scans bring bands of coefficients, first coarsely, then bit by bit.

use super::frame::Component;
use super::huffman::{Bits, Table};
use super::scan::State;

/// What has not been read of a coefficient, in [`Progress`].
const ALL: u8 = u8::MAX;

/// The coefficients that a scan brings.
#[derive(Clone, Copy)]
pub(super) struct Band {
    /// Places in zigzag order, the last one among them.
    start: usize,
    end: usize,
    /// The lowest bit that was known before; 0 if none was.
    high: u8,
    /// The lowest bit that is known now.
    low: u8,
}

impl Band {
    /// From the end of a scan's header.
    pub(super) fn new(start: u8, end: u8, bits: u8) -> Option<Band> {
        let (high, low) = (bits >> 4, bits & 15);
        let is_known = start <= end && end <= 63 && (start > 0 || end == 0) && low <= 13;
        let follows = high == 0 || high == low + 1;
        (is_known && follows).then_some(Band { start: start.into(), end: end.into(), high, low })
    }

    /// Whether it brings means, which all components may share a scan for.
    pub(super) fn is_dc(self) -> bool {
        self.start == 0
    }

    /// Whether codes of means are needed, and others.
    pub(super) fn tables(self) -> [bool; 2] {
        [self.is_dc() && self.high == 0, !self.is_dc()]
    }

    /// Reads a block.
    #[inline(always)]
    pub(super) fn block(
        self,
        state: &mut State<'_>,
        i: usize,
        progress: &mut Progress,
        table: Option<&Table>,
        [row, column]: [usize; 2],
    ) -> Option<()> {
        let block = progress.coefficients.get_mut(row * progress.columns + column)?;
        match (self.is_dc(), self.high) {
            (true, 0) => {
                let mean = &mut state.means[i];
                *mean += state.bits.difference(table?)?;
                if mean.abs() > 1 << 15 {
                    return None;
                }
                block[0] = (*mean << self.low) as i16;
            }
            (true, _) => block[0] |= (state.bits.number(1) << self.low) as i16,
            (false, 0) => self.first(state, block, table?)?,
            (false, _) => self.refine(state, block, table?)?,
        }
        Some(())
    }

    fn first(self, state: &mut State<'_>, block: &mut [i16; 64], table: &Table) -> Option<()> {
        if state.run > 0 {
            state.run -= 1;
            return Some(());
        }
        let mut place = self.start;
        while place <= self.end {
            let (symbol, value) = state.bits.symbol_and_value(table, |symbol| u32::from(symbol & 15))?;
            let zeros = symbol >> 4;
            match symbol & 15 {
                0 if zeros == 15 => place += 16,
                0 => {
                    state.run = run(&mut state.bits, zeros) - 1;
                    return Some(());
                }
                _ => {
                    place += usize::from(zeros);
                    *block[..=self.end].get_mut(place)? = (value << self.low) as i16;
                    place += 1;
                }
            }
        }
        Some(())
    }

    fn refine(self, state: &mut State<'_>, block: &mut [i16; 64], table: &Table) -> Option<()> {
        let (bit, mut place) = (1i16 << self.low, self.start);
        let block = &mut block[..=self.end];
        while state.run == 0 && place <= self.end {
            let (symbol, _) = state.bits.symbol_and_value(table, |_| 0)?;
            let mut zeros = symbol >> 4;
            let value = match symbol & 15 {
                0 if zeros < 15 => {
                    state.run = run(&mut state.bits, zeros);
                    break;
                }
                0 => 0,
                1 if state.bits.number(1) == 1 => bit,
                1 => -bit,
                _ => return None,
            };
            // Behind so many zeros; what is not zero on the way gets a bit.
            loop {
                match block.get_mut(place) {
                    Some(known) if *known != 0 => refine(&mut state.bits, known, bit),
                    Some(_) if zeros > 0 => zeros -= 1,
                    _ => break,
                }
                place += 1;
            }
            if value != 0 {
                *block.get_mut(place)? = value;
            }
            place += 1;
        }
        if state.run > 0 {
            for known in block.iter_mut().skip(place).filter(|known| **known != 0) {
                refine(&mut state.bits, known, bit);
            }
            state.run -= 1;
        }
        Some(())
    }
}

/// How many blocks end here, this one among them.
fn run(bits: &mut Bits<'_>, size: u8) -> u32 {
    (1 << size) + bits.number(size.into())
}

/// Reads a bit of a coefficient that is not zero.
fn refine(bits: &mut Bits<'_>, known: &mut i16, bit: i16) {
    if bits.number(1) == 1 && *known & bit == 0 {
        *known = known.wrapping_add(if *known > 0 { bit } else { -bit });
    }
}

/// What is known of a component's coefficients.
pub(super) struct Progress {
    /// In zigzag order, quantised.
    coefficients: Vec<[i16; 64]>,
    /// Blocks of a row.
    columns: usize,
    /// How many bits of each are missing.
    missing: [u8; 64],
}

impl Progress {
    /// Of so many columns and rows of blocks.
    pub(super) fn new([columns, rows]: [usize; 2]) -> Progress {
        Progress { coefficients: vec![[0; 64]; columns * rows], columns, missing: [ALL; 64] }
    }

    /// Notes what a scan brings; `None` if that is not what comes next.
    pub(super) fn begin(&mut self, band: Band) -> Option<()> {
        let expected = if band.high == 0 { ALL } else { band.high };
        for missing in &mut self.missing[band.start..=band.end] {
            if *missing != expected {
                return None;
            }
            *missing = band.low;
        }
        Some(())
    }
}

impl Component {
    /// Transforms all blocks of a progressive file; `None` if some of their bits never came.
    pub(super) fn finish_progress(&mut self) -> Option<()> {
        let Component { progress, plane, quantisation, .. } = self;
        if progress.missing != [0; 64] {
            return None;
        }
        for (index, block) in progress.coefficients.iter().enumerate() {
            let at = [index / progress.columns, index % progress.columns];
            let mean = i32::from(block[0]) * quantisation[0];
            if plane.side == 1 || block[1..].iter().all(|value| *value == 0) {
                plane.flat(at, mean);
                continue;
            }
            plane.set_mean(mean);
            for (place, (&value, step)) in block.iter().zip(quantisation.iter()).enumerate().skip(1) {
                if value != 0 {
                    plane.set(place, i32::from(value) * step);
                }
            }
            plane.end_block(at);
        }
        Some(())
    }
}
