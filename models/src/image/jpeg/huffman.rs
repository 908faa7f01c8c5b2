//! Entropy-coded data: bits, and the codes in them. Whatever is irregular ends with `None`.

use memchr::memchr;

/// The bits that a table looks up at once; codes that are longer are few.
const BITS: u32 = 11;
/// The bits that are passed over at once, several codes where they fit.
const SKIP_BITS: u32 = 12;

/// The end of a block.
const END: u8 = 0;
/// A run of 16 zeros.
const ZEROS: u8 = 0xf0;

/// A coefficient by the bits of its code and value together.
#[derive(Clone, Copy, Default)]
struct Fast {
    value: i16,
    /// How many places on it is; 0 ends the block.
    step: u8,
    /// 0 if they are more than [`BITS`].
    bits: u8,
}

/// Codes without their values.
#[derive(Clone, Copy, Default)]
struct Skip {
    bits: u8,
    /// Places that they take, the end of the block as one.
    step: u8,
    ends: bool,
}

/// A Huffman table.
pub(super) struct Table {
    /// Length and symbol by the first bits; 0 for codes that are longer.
    short: Box<[(u8, u8); 1 << BITS]>,
    fast: Box<[Fast; 1 << BITS]>,
    /// Empty where no coefficients are passed over.
    skip: Vec<Skip>,
    /// Behind the last code of each length, in 16 bits.
    limits: [u32; 17],
    /// What leads from a code of each length to its symbol's place.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From how many codes there are of each length, and their symbols; `skips` if coefficients are passed over.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8], skips: bool) -> Option<Table> {
        let mut table = Table {
            short: Box::new([(0, 0); 1 << BITS]),
            fast: Box::new([Fast::default(); 1 << BITS]),
            skip: Vec::new(),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1..=16u32).zip(counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            // The code of ones alone stays free.
            if count > 0 && code + u32::from(count) >= 1 << length {
                return None;
            }
            for &symbol in symbols.get(place..place + usize::from(count))? {
                if length <= BITS {
                    let first = (code << (BITS - length)) as usize;
                    table.short.get_mut(first..first + (1 << (BITS - length)))?.fill((length as u8, symbol));
                }
                code += 1;
            }
            place += usize::from(count);
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for window in 0..1u32 << BITS {
            let (length, symbol) = table.short[window as usize];
            table.fast[window as usize] = table.fast(window, length, symbol);
        }
        if skips {
            table.skip = (0..1 << SKIP_BITS).map(|window| table.skip(window)).collect();
        }
        Some(table)
    }

    /// Length and symbol of a code that is longer than [`BITS`], by 16 bits that begin with it.
    #[cold]
    fn long(&self, code: u32) -> Option<(u32, u8)> {
        let length = (BITS + 1..=16).find(|length| code < self.limits[*length as usize])?;
        let place = (code >> (16 - length)) as i32 + self.offsets[length as usize];
        Some((length, self.symbols.get(usize::try_from(place).ok()?).copied()?))
    }

    fn fast(&self, window: u32, length: u8, symbol: u8) -> Fast {
        let (run, size) = (symbol >> 4, symbol & 15);
        let bits = length + size;
        match symbol {
            _ if length == 0 || u32::from(bits) > BITS => Fast::default(),
            END => Fast { value: 0, step: 0, bits },
            ZEROS => Fast { value: 0, step: 16, bits },
            _ if !is_usual(symbol) => Fast::default(),
            _ => {
                let value = (window >> (BITS - u32::from(bits))) & ((1 << size) - 1);
                Fast { value: extend(value, size.into()) as i16, step: run + 1, bits }
            }
        }
    }

    fn skip(&self, window: u32) -> Skip {
        let mut found = Skip::default();
        while u32::from(found.bits) < SKIP_BITS && found.step < 64 {
            let rest = window << found.bits & ((1 << SKIP_BITS) - 1);
            let (length, symbol) = self.short[(rest >> (SKIP_BITS - BITS)) as usize];
            let is_whole = length > 0 && u32::from(found.bits + length) <= SKIP_BITS;
            if !is_whole || !is_usual(symbol) {
                break;
            }
            found.bits += length + (symbol & 15);
            found.step += if symbol == END { 1 } else { (symbol >> 4) + 1 };
            if symbol == END {
                found.ends = true;
                break;
            }
        }
        found
    }
}

/// Whether a block of 8-bit pixels can have it.
fn is_usual(symbol: u8) -> bool {
    symbol == END || symbol == ZEROS || (1..=10).contains(&(symbol & 15))
}

/// The value of so many bits: those that begin with 0 are negative.
fn extend(value: u32, size: u32) -> i32 {
    let is_negative = size > 0 && value >> (size - 1) == 0;
    value as i32 - if is_negative { (1 << size) - 1 } else { 0 }
}

/// Zeros behind an interval's bytes, of which eight are read at a time.
const PADDING: usize = 8;

/// The codes of a scan, from one restart to the next.
pub(super) struct Bits<'a> {
    /// What follows these in the scan.
    rest: &'a [u8],
    /// Without what is stuffed into them, and with [`PADDING`].
    bytes: Vec<u8>,
    cursor: Cursor,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Bits<'a> {
        let mut bits =
            Bits { rest: data, bytes: Vec::with_capacity(data.len() + PADDING), cursor: Cursor::default() };
        bits.load();
        bits
    }

    /// Takes bytes up to the next marker.
    fn load(&mut self) {
        self.bytes.clear();
        self.cursor = Cursor::default();
        loop {
            let length = memchr(0xff, self.rest).unwrap_or(self.rest.len());
            self.bytes.extend_from_slice(&self.rest[..length]);
            self.rest = &self.rest[length..];
            let Some(rest) = self.rest.strip_prefix(&[0xff, 0]) else { break };
            self.bytes.push(0xff);
            self.rest = rest;
        }
        self.bytes.extend([0; PADDING]);
    }

    /// The next `size` bits, at most 16, as a number.
    pub(super) fn number(&mut self, size: u32) -> u32 {
        self.cursor.fill(&self.bytes);
        self.cursor.number(size)
    }

    /// The next symbol and, of `size_of` it, a value of so many bits.
    #[inline(always)]
    pub(super) fn symbol_and_value(
        &mut self,
        table: &Table,
        size_of: impl Fn(u8) -> u32,
    ) -> Option<(u8, i32)> {
        self.cursor.fill(&self.bytes);
        let symbol = self.cursor.symbol(table)?;
        Some((symbol, self.cursor.value(size_of(symbol))))
    }

    /// How far a block's mean is from that of the block before.
    #[inline(always)]
    pub(super) fn difference(&mut self, table: &Table) -> Option<i32> {
        self.cursor.fill(&self.bytes);
        let size = self.cursor.symbol(table)?;
        (size <= 11).then(|| self.cursor.value(size.into()))
    }

    /// Reads a block's other coefficients: `keep` gets each with its place (1 to 63, in zigzag order).
    #[inline(always)]
    pub(super) fn coefficients(&mut self, table: &Table, mut keep: impl FnMut(usize, i32)) -> Option<()> {
        // A copy, so that it stays in registers.
        let (mut cursor, mut place) = (self.cursor, 0);
        while place < 63 {
            cursor.fill(&self.bytes);
            let fast = table.fast[(cursor.next >> (64 - BITS)) as usize];
            let (step, value) = if fast.bits > 0 {
                cursor.drop(fast.bits.into());
                (fast.step, fast.value.into())
            } else {
                let (step, value);
                (cursor, step, value) = cursor.coefficient(table)?;
                (step, value)
            };
            if step == 0 {
                break;
            }
            place += usize::from(step);
            if place > 63 {
                return None;
            }
            keep(place, value);
        }
        self.cursor = cursor;
        Some(())
    }

    /// Passes over a block's other coefficients.
    #[inline(always)]
    pub(super) fn skip(&mut self, table: &Table) -> Option<()> {
        let (mut cursor, mut place) = (self.cursor, 0);
        while place < 63 {
            cursor.fill(&self.bytes);
            let skip =
                table.skip.get((cursor.next >> (64 - SKIP_BITS)) as usize).copied().unwrap_or_default();
            let next = place + usize::from(skip.step);
            // A code behind the block's last place belongs to the next block.
            if skip.bits > 0 && next <= 63 {
                cursor.drop(skip.bits.into());
                if skip.ends {
                    break;
                }
                place = next;
                continue;
            }
            let step;
            (cursor, step, _) = cursor.coefficient(table)?;
            if step == 0 {
                break;
            }
            place += usize::from(step);
            if place > 63 {
                return None;
            }
        }
        self.cursor = cursor;
        Some(())
    }

    /// Whether all bits so far were there.
    pub(super) fn is_sound(&self) -> bool {
        self.cursor.position() <= 8 * (self.bytes.len() - PADDING)
    }

    /// Whole bytes that were not read up to the next marker.
    fn unread(&self) -> usize {
        (8 * (self.bytes.len() - PADDING)).saturating_sub(self.cursor.position()) / 8
    }

    /// Whole bytes of the scan that were not read, but for filling.
    pub(super) fn left_over(&self) -> usize {
        self.unread() + self.rest.iter().skip_while(|byte| **byte == 0xff).count()
    }

    /// The marker behind these codes, if all of them were read; goes on behind that.
    pub(super) fn restart(&mut self) -> Option<u8> {
        let filling = self.rest.iter().position(|byte| *byte != 0xff)?;
        if !self.is_sound() || self.unread() > 0 || filling == 0 {
            return None;
        }
        let marker = self.rest[filling];
        self.rest = &self.rest[filling + 1..];
        self.load();
        Some(marker)
    }
}

/// A place in bytes, and the bits that come next.
#[derive(Clone, Copy, Default)]
struct Cursor {
    at: usize,
    /// Uppermost first.
    next: u64,
    /// How many of these count.
    left: u32,
}

impl Cursor {
    /// At least 56 bits; zeros behind the end.
    #[inline(always)]
    fn fill(&mut self, bytes: &[u8]) {
        let word = bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |word| u64::from_be_bytes(*word));
        self.next |= word >> self.left;
        self.at += (63 - self.left as usize) / 8;
        self.left |= 56;
    }

    /// Bits that were read.
    fn position(&self) -> usize {
        8 * self.at - self.left as usize
    }

    #[inline(always)]
    fn drop(&mut self, count: u32) {
        self.next <<= count;
        self.left -= count;
    }

    #[inline(always)]
    fn number(&mut self, size: u32) -> u32 {
        let number = (self.next >> 1 >> (63 - size)) as u32;
        self.drop(size);
        number
    }

    /// The value of the next `size` bits, at most 16.
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        extend(self.number(size), size)
    }

    /// The next symbol.
    #[inline(always)]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let (length, symbol) = table.short[(self.next >> (64 - BITS)) as usize];
        if length > 0 {
            self.drop(length.into());
            return Some(symbol);
        }
        let (length, symbol) = table.long((self.next >> 48) as u32)?;
        self.drop(length);
        Some(symbol)
    }

    /// Behind one coefficient; how many places on that is, 0 at the block's end, and its value.
    #[inline(never)]
    fn coefficient(mut self, table: &Table) -> Option<(Cursor, u8, i32)> {
        match self.symbol(table)? {
            END => Some((self, 0, 0)),
            symbol if is_usual(symbol) => {
                let value = self.value((symbol & 15).into());
                Some((self, (symbol >> 4) + 1, value))
            }
            _ => None,
        }
    }
}
