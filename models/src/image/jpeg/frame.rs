//! What precedes the scans: sizes, components and tables.

use super::huffman::Table;
use super::planes::Plane;
use super::progressive::Progress;
use super::{damaged, standard, unsupported};
use crate::error::Result;
use crate::image::reduce::reduction;
use crate::image::{Limits, check_pixels};

/// Components that a frame has at most.
pub(super) const MAX_COMPONENTS: usize = 4;

/// Tables by their numbers; each holds until another takes its place.
#[derive(Default)]
pub(super) struct Tables {
    quantisation: [Option<[i32; 64]>; 4],
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
    /// MCUs between restarts; 0 for none.
    pub(super) interval: usize,
}

/// How many codes there are of each length, and their symbols.
type Codes = ([u8; 16], Vec<u8>);

impl Tables {
    /// Reads Huffman tables (DHT).
    pub(super) fn read_codes(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let (symbols, rest) =
                rest.split_at_checked(counts.iter().map(|count| usize::from(*count)).sum())?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some((*counts, symbols.to_vec()));
            body = rest;
        }
        Some(())
    }

    /// Reads quantisation tables (DQT), of 8 or 16 bits.
    pub(super) fn read_quantisation(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let mut table = [0; 64];
            let width = if kind >> 4 == 0 { 1 } else { 2 };
            let (values, rest) = rest.split_at_checked(64 * width)?;
            for (value, bytes) in table.iter_mut().zip(values.chunks(width)) {
                *value = bytes.iter().fold(0, |value, byte| value << 8 | i32::from(*byte));
            }
            *self.quantisation.get_mut(usize::from(kind & 15))? = Some(table);
            body = rest;
        }
        Some(())
    }

    /// Reads how often restarts come (DRI).
    pub(super) fn read_interval(&mut self, body: &[u8]) -> Option<()> {
        self.interval = u16::from_be_bytes(body.try_into().ok()?).into();
        Some(())
    }

    pub(super) fn quantisation(&self, number: usize) -> Option<[i32; 64]> {
        *self.quantisation.get(number)?
    }

    /// The table for differences of means; the standard's where the file has none.
    pub(super) fn dc(&self, number: u8) -> Option<Table> {
        codes(&self.dc, &standard::DC, number, false)
    }

    /// The table for other coefficients; the standard's where the file has none. `skips` if they are passed over.
    pub(super) fn ac(&self, number: u8, skips: bool) -> Option<Table> {
        codes(&self.ac, &standard::AC, number, skips)
    }
}

fn codes(tables: &[Option<Codes>], standard: &[([u8; 16], &[u8])], number: u8, skips: bool) -> Option<Table> {
    match tables.get(usize::from(number))? {
        Some((counts, symbols)) => Table::new(counts, symbols, skips),
        None => {
            let (counts, symbols) = standard.get(usize::from(number))?;
            Table::new(counts, symbols, skips)
        }
    }
}

/// An image as its scans fill it.
pub(super) struct Frame {
    pub(super) is_progressive: bool,
    /// Blocks that scans have read so far.
    pub(super) visits: u64,
    /// Pixels of the image that comes out.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Columns and rows of MCUs.
    pub(super) mcus: [usize; 2],
    pub(super) components: Vec<Component>,
}

/// A component of a frame.
pub(super) struct Component {
    pub(super) id: u8,
    /// Blocks of an MCU: columns and rows.
    pub(super) sampling: [usize; 2],
    /// Columns and rows of blocks that hold pixels, which are all in a scan of this component alone.
    pub(super) blocks: [usize; 2],
    table: usize,
    /// In zigzag order; all 0 before the first scan.
    pub(super) quantisation: [i32; 64],
    pub(super) was_scanned: bool,
    pub(super) progress: Progress,
    pub(super) plane: Plane,
}

impl Component {
    /// Takes the quantisation table that holds at its first scan.
    pub(super) fn begin_scan(&mut self, tables: &Tables) -> Option<()> {
        if !self.was_scanned {
            self.quantisation = tables.quantisation(self.table)?;
            self.was_scanned = true;
        }
        Some(())
    }
}

impl Frame {
    /// From the frame's marker and content, in a file with so many bytes of coded data; reduced for a resize to `side`.
    pub(super) fn read(
        marker: u8,
        body: &[u8],
        coded: usize,
        limits: &Limits,
        side: Option<usize>,
    ) -> Result<Frame> {
        match marker {
            0xc0..=0xc2 => {}
            0xc3 => return Err(unsupported("lossless")),
            0xc9 | 0xca => return Err(unsupported("arithmetic coding")),
            _ => return Err(unsupported("hierarchical, or lossless with arithmetic coding")),
        }
        let problem = || damaged("the frame's header is no header");
        let (&[bits, height, low_height, width, low_width, count], rest) =
            body.split_first_chunk().ok_or_else(problem)?;
        let [width, height] =
            [[width, low_width], [height, low_height]].map(|side| usize::from(u16::from_be_bytes(side)));
        let (components, rest) = rest.as_chunks::<3>();
        if components.len() != usize::from(count) || !rest.is_empty() {
            return Err(problem());
        }
        if bits != 8 {
            return Err(unsupported(&format!("{bits} bits a sample")));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported(&format!("{count} components")));
        }
        if width * height == 0 {
            return Err(unsupported(&format!("{width} x {height} pixels")));
        }
        check_pixels(width as u64, height as u64, limits)?;
        let reduction = side.map_or(1, |side| reduction(width, height, side));
        let mut samplings: Vec<[usize; 2]> = components
            .iter()
            .map(|&[_, sampling, _]| [sampling >> 4, sampling & 15].map(usize::from))
            .collect();
        if samplings.iter().flatten().any(|side| !(1..=4).contains(side)) {
            return Err(problem());
        }
        if let [alone] = &mut samplings[..] {
            // It is not interleaved, whatever its sampling.
            *alone = [1, 1];
        }
        let size = [width, height];
        let most = [0, 1].map(|axis| samplings.iter().map(|sampling| sampling[axis]).max().unwrap_or(1));
        let mcus = [0, 1].map(|axis| size[axis].div_ceil(8 * most[axis]));
        let blocks =
            |sampling: [usize; 2]| [0, 1].map(|axis| (size[axis] * sampling[axis]).div_ceil(8 * most[axis]));
        // Each block has a code of one bit at least, so that a short file cannot ask for much memory.
        let least: usize = samplings.iter().map(|&sampling| blocks(sampling).iter().product::<usize>()).sum();
        if least > 8 * coded {
            return Err(damaged(&format!("it is too short for {width} x {height} pixels")));
        }
        let is_progressive = marker == 0xc2;
        let component = |(&[id, _, table], &sampling): (&[u8; 3], &[usize; 2])| {
            let plane = Plane::new(size, sampling, most, mcus, 8 / reduction)
                .ok_or_else(|| unsupported("components sampled in fractions of each other"))?;
            let kept = [0, 1].map(|axis| if is_progressive { mcus[axis] * sampling[axis] } else { 0 });
            Ok(Component {
                id,
                sampling,
                blocks: blocks(sampling),
                table: table.into(),
                quantisation: [0; 64],
                was_scanned: false,
                progress: Progress::new(kept),
                plane,
            })
        };
        Ok(Frame {
            is_progressive,
            visits: 0,
            width: width.div_ceil(reduction),
            height: height.div_ceil(reduction),
            mcus,
            components: components.iter().zip(&samplings).map(component).collect::<Result<_>>()?,
        })
    }
}
