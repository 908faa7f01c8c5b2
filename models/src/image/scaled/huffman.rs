//! Entropy-coded data: bits, and the codes in them. Whatever is irregular ends with `None`.

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
    skip: Box<[Skip; 1 << SKIP_BITS]>,
    /// Behind the last code of each length, in 16 bits.
    limits: [u32; 17],
    /// What leads from a code of each length to its symbol's place.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From how many codes there are of each length, and their symbols.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Table> {
        let mut table = Table {
            short: Box::new([(0, 0); 1 << BITS]),
            fast: Box::new([Fast::default(); 1 << BITS]),
            skip: Box::new([Skip::default(); 1 << SKIP_BITS]),
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
        for window in 0..1u32 << SKIP_BITS {
            table.skip[window as usize] = table.skip(window);
        }
        Some(table)
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

/// The bits of a scan from one restart to the next.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, uppermost first.
    next: u64,
    /// How many of these count.
    left: u32,
    /// How many were made up behind the data's end.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Bits<'a> {
        Bits { data, at: 0, next: 0, left: 0, made_up: 0 }
    }

    /// At least 32 bits.
    #[inline(always)]
    fn fill(&mut self) {
        if self.left >= 32 {
            return;
        }
        if let Some(bytes) = self.data.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_be_bytes(*bytes);
            let has_ff = (!word).wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 != 0;
            if !has_ff {
                self.next |= word >> self.left;
                let whole = (63 - self.left) / 8;
                self.at += whole as usize;
                self.left += 8 * whole;
                return;
            }
        }
        self.fill_by_bytes();
    }

    #[cold]
    fn fill_by_bytes(&mut self) {
        while self.left <= 56 {
            let byte = match self.data.get(self.at..).unwrap_or_default() {
                [0xff, 0, ..] => {
                    self.at += 2;
                    0xff
                }
                [byte, ..] if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.made_up = self.made_up.saturating_add(8);
                    0
                }
            };
            self.next |= u64::from(byte) << (56 - self.left);
            self.left += 8;
        }
    }

    #[inline(always)]
    fn drop(&mut self, count: u32) {
        self.next <<= count;
        self.left -= count;
    }

    /// The value of the next `size` bits, at most 16.
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        let value = (self.next >> 1 >> (63 - size)) as u32;
        self.drop(size);
        extend(value, size)
    }

    /// The next symbol.
    #[inline(always)]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let (length, symbol) = table.short[(self.next >> (64 - BITS)) as usize];
        if length > 0 {
            self.drop(length.into());
            return Some(symbol);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Table) -> Option<u8> {
        let code = (self.next >> 48) as u32;
        let length = (BITS + 1..=16).find(|length| code < table.limits[*length as usize])?;
        let place = (code >> (16 - length)) as i32 + table.offsets[length as usize];
        self.drop(length);
        table.symbols.get(usize::try_from(place).ok()?).copied()
    }

    /// How far a block's mean is from that of the block before.
    #[inline(always)]
    pub(super) fn difference(&mut self, table: &Table) -> Option<i32> {
        self.fill();
        let size = self.symbol(table)?;
        (size <= 11).then(|| self.value(size.into()))
    }

    /// Reads a block's other coefficients: `keep` gets each with its place (1 to 63, in zigzag order).
    #[inline(always)]
    pub(super) fn coefficients(&mut self, table: &Table, mut keep: impl FnMut(usize, i32)) -> Option<()> {
        let mut place = 0;
        while place < 63 {
            self.fill();
            let fast = table.fast[(self.next >> (64 - BITS)) as usize];
            let (step, value) = if fast.bits > 0 {
                self.drop(fast.bits.into());
                (fast.step, fast.value.into())
            } else {
                self.coefficient(table)?
            };
            if step == 0 {
                return Some(());
            }
            place += usize::from(step);
            if place > 63 {
                return None;
            }
            keep(place, value);
        }
        Some(())
    }

    /// One coefficient: how many places on, 0 at the block's end, and its value.
    fn coefficient(&mut self, table: &Table) -> Option<(u8, i32)> {
        match self.symbol(table)? {
            END => Some((0, 0)),
            symbol if is_usual(symbol) => Some(((symbol >> 4) + 1, self.value((symbol & 15).into()))),
            _ => None,
        }
    }

    /// Passes over a block's other coefficients.
    #[inline(always)]
    pub(super) fn skip(&mut self, table: &Table) -> Option<()> {
        let mut place = 0;
        while place < 63 {
            self.fill();
            let skip = table.skip[(self.next >> (64 - SKIP_BITS)) as usize];
            let next = place + usize::from(skip.step);
            // A code behind the block's last place belongs to the next block.
            if skip.bits > 0 && next <= 63 {
                self.drop(skip.bits.into());
                if skip.ends {
                    return Some(());
                }
                place = next;
                continue;
            }
            let (step, _) = self.coefficient(table)?;
            if step == 0 {
                return Some(());
            }
            place += usize::from(step);
            if place > 63 {
                return None;
            }
        }
        Some(())
    }

    /// Whether all bits so far were there.
    pub(super) fn is_sound(&self) -> bool {
        self.made_up <= self.left
    }

    /// The marker behind the data, if all of it was read; goes on behind that.
    pub(super) fn marker(&mut self) -> Option<u8> {
        let unread = self.left.checked_sub(self.made_up)?;
        let rest = self.data.get(self.at..)?;
        let filling = rest.iter().position(|byte| *byte != 0xff)?;
        let marker = *rest.get(filling)?;
        if unread >= 8 || filling == 0 || marker == 0 {
            return None;
        }
        *self = Bits { data: self.data, at: self.at + filling + 1, next: 0, left: 0, made_up: 0 };
        Some(marker)
    }
}
