//! Changes of bytes without knowledge of what they hold, after AFL's havoc stage.

/// Numbers from a seed: SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.number() % end as u64) as usize }
    }
}

/// Numbers at the edges of types.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    16,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// The longest input that mutation makes.
const LONGEST: usize = 1 << 20;

/// Changes an input in one to sixteen places; `other` is another seed, parts of which may come over.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..1 << random.below(5) {
        let at = random.below(bytes.len());
        match random.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.number() as u8,
            2 => {
                let width = 1 << random.below(4);
                let edge = EDGES[random.below(EDGES.len())];
                let number = if random.below(2) == 0 {
                    edge.to_le_bytes()[..width].to_vec()
                } else {
                    edge.to_be_bytes()[8 - width..].to_vec()
                };
                overwrite(bytes, at, &number);
            }
            3 => drop(bytes.drain(at..at + random.below(bytes.len() - at + 1))),
            4 => bytes.truncate(at),
            // A part of itself again, or of another file.
            5 => insert(bytes, at, &part(&bytes.clone(), random)),
            6 => insert(bytes, at, &part(other, random)),
            7 => overwrite(bytes, at, &part(other, random)),
            _ => insert(bytes, at, &random.number().to_le_bytes()[..random.below(9)]),
        }
    }
    bytes.truncate(LONGEST);
}

/// Some bytes, seldom many.
fn part(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let start = random.below(bytes.len());
    let most = (bytes.len() - start).min(1 << random.below(13));
    bytes[start..start + random.below(most + 1)].to_vec()
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}

fn overwrite(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..].iter_mut().zip(part).for_each(|(byte, with)| *byte = *with);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_input_and_others_make_others() {
        let made = |seed: u64| {
            let mut bytes = vec![7; 100];
            mutate(&mut bytes, b"another", &mut Random(seed));
            bytes
        };
        assert_eq!(made(3), made(3));
        let different = (0..100).filter(|seed| made(*seed) != made(seed + 1)).count();
        assert!(different > 90, "{different}");
    }

    #[test]
    fn nothing_becomes_something() {
        let mut random = Random(1);
        let lengths: Vec<usize> = (0..50)
            .map(|_| {
                let mut bytes = Vec::new();
                mutate(&mut bytes, &[], &mut random);
                bytes.len()
            })
            .collect();
        assert!(lengths.iter().any(|length| *length > 0) && lengths.contains(&0), "{lengths:?}");
    }
}
