//! Scans: which blocks lie in one, and the blocks of a sequential file.

use super::damaged;
use super::frame::{Component, Frame, MAX_COMPONENTS, Tables};
use super::huffman::{Bits, Table};
use super::progressive::Band;
use crate::error::Result;

/// Bytes behind the last block that do no harm: some cameras fill the scan up. More of them say that codes were lost.
const MAX_LEFT_OVER: usize = 64;

/// The most blocks that all scans may read, a second or two of work. 64 megapixels have three million of them, each of which
/// five or so scans read in files as they are written; hundreds of scans that bring nothing are an attack.
const MAX_VISITS: u64 = 1 << 26;

/// A component in a scan.
pub(super) struct Scanned {
    /// Which of the frame's components it is.
    index: usize,
    dc: Option<Table>,
    ac: Option<Table>,
}

/// What is carried from block to block, up to a restart.
pub(super) struct State<'a> {
    pub(super) bits: Bits<'a>,
    /// The last block's mean of each component, quantised.
    pub(super) means: [i32; MAX_COMPONENTS],
    /// Blocks to come in which a progressive scan has nothing new.
    pub(super) run: u32,
}

impl Frame {
    /// Reads a scan from its header and data.
    pub(super) fn scan(&mut self, tables: &Tables, header: &[u8], data: &[u8]) -> Result<()> {
        let problem = || damaged("a scan's header does not fit the frame, or its tables are missing");
        let (scanned, band) = self.header(tables, header).ok_or_else(problem)?;
        let blocks =
            |scanned: &Scanned| self.components[scanned.index].blocks.iter().product::<usize>() as u64;
        self.visits += scanned.iter().map(blocks).sum::<u64>();
        if self.visits > MAX_VISITS {
            return Err(damaged("it has more scans than an image of its size needs"));
        }
        let mut state = State { bits: Bits::new(data), means: [0; MAX_COMPONENTS], run: 0 };
        let interval = tables.interval;
        let read = match band {
            None => self.blocks(&scanned, interval, &mut state, |state, i, component, at| {
                let Scanned { dc: Some(dc), ac: Some(ac), .. } = &scanned[i] else { return None };
                sequential(state, i, component, dc, ac, at)
            }),
            Some(band) => self.blocks(&scanned, interval, &mut state, |state, i, component, at| {
                let table = if band.is_dc() { &scanned[i].dc } else { &scanned[i].ac };
                band.block(state, i, &mut component.progress, table.as_ref(), at)
            }),
        };
        let is_whole = read.is_some() && state.bits.left_over() <= MAX_LEFT_OVER;
        is_whole
            .then_some(())
            .ok_or_else(|| damaged("the data of a scan end early, or have codes that no image has"))
    }

    /// The scan's components, and what a progressive one brings of them.
    fn header(&mut self, tables: &Tables, header: &[u8]) -> Option<(Vec<Scanned>, Option<Band>)> {
        let (&count, rest) = header.split_first()?;
        let (selectors, &[start, end, bits]) = rest.split_at_checked(2 * usize::from(count))? else {
            return None;
        };
        let band = if self.is_progressive { Some(Band::new(start, end, bits)?) } else { None };
        let is_alone = count == 1;
        if !(1..=MAX_COMPONENTS).contains(&usize::from(count))
            || band.is_some_and(|band| !band.is_dc() && !is_alone)
        {
            return None;
        }
        let mut scanned: Vec<Scanned> = Vec::new();
        for &[id, numbers] in selectors.as_chunks::<2>().0 {
            let index = self.components.iter().position(|component| component.id == id)?;
            let component = &mut self.components[index];
            if scanned.iter().any(|scanned| scanned.index == index) {
                return None;
            }
            match band {
                Some(band) => component.progress.begin(band)?,
                None if component.was_scanned => return None,
                None => {}
            }
            component.begin_scan(tables)?;
            let skips = component.plane.side == 1 && band.is_none();
            let [needs_dc, needs_ac] = band.map_or([true; 2], Band::tables);
            let mut table = Scanned { index, dc: None, ac: None };
            if needs_dc {
                table.dc = Some(tables.dc(numbers >> 4)?);
            }
            if needs_ac {
                table.ac = Some(tables.ac(numbers & 15, skips)?);
            }
            scanned.push(table);
        }
        Some((scanned, band))
    }

    /// Calls `block` with each block of a scan: which of the scan's components it belongs to, its row and column. `None`
    /// unless they are all there.
    #[inline(always)]
    fn blocks(
        &mut self,
        scanned: &[Scanned],
        interval: usize,
        state: &mut State<'_>,
        mut block: impl FnMut(&mut State<'_>, usize, &mut Component, [usize; 2]) -> Option<()>,
    ) -> Option<()> {
        // A component alone has no MCUs but its blocks.
        let mcus = match scanned {
            [alone] => self.components[alone.index].blocks,
            _ => self.mcus,
        };
        let (mut until_restart, mut restarts) = (interval, 0u8);
        for row in 0..mcus[1] {
            for column in 0..mcus[0] {
                if interval > 0 && until_restart == 0 {
                    if state.bits.restart()? != 0xd0 + restarts % 8 {
                        return None;
                    }
                    restarts = restarts.wrapping_add(1);
                    until_restart = interval;
                    (state.means, state.run) = ([0; MAX_COMPONENTS], 0);
                }
                until_restart = until_restart.wrapping_sub(1);
                for (i, scanned_one) in scanned.iter().enumerate() {
                    let component = &mut self.components[scanned_one.index];
                    let [columns, rows] = if scanned.len() == 1 { [1, 1] } else { component.sampling };
                    for y in 0..rows {
                        for x in 0..columns {
                            block(state, i, component, [row * rows + y, column * columns + x])?;
                        }
                    }
                }
            }
            if !state.bits.is_sound() {
                return None;
            }
        }
        Some(())
    }
}

/// Reads a block of a sequential file.
#[inline(never)]
fn sequential(
    state: &mut State<'_>,
    i: usize,
    component: &mut Component,
    dc: &Table,
    ac: &Table,
    at: [usize; 2],
) -> Option<()> {
    let (bits, mean) = (&mut state.bits, &mut state.means[i]);
    *mean += bits.difference(dc)?;
    if mean.abs() > 1 << 15 {
        return None;
    }
    let quantisation = &component.quantisation;
    let mean = *mean * quantisation[0];
    if component.plane.side == 1 {
        bits.skip(ac)?;
        component.plane.flat(at, mean);
        return Some(());
    }
    let (plane, mut is_flat) = (&mut component.plane, true);
    bits.coefficients(ac, |place, value| {
        plane.set(place, value * quantisation[place & 63]);
        is_flat = false;
    })?;
    if is_flat {
        plane.flat(at, mean);
    } else {
        plane.set_mean(mean);
        plane.end_block(at);
    }
    Some(())
}
