//! Changes of bytes without knowledge of what they hold, after AFL's havoc stage.

use fastrand::Rng;

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
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..1 << rng.usize(..5) {
        let at = rng.usize(..bytes.len().max(1));
        match rng.usize(..9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.usize(..8),
            1 if !bytes.is_empty() => bytes[at] = rng.u8(..),
            2 => {
                let width = 1 << rng.usize(..4);
                let edge = EDGES[rng.usize(..EDGES.len())];
                let number = if rng.bool() {
                    edge.to_le_bytes()[..width].to_vec()
                } else {
                    edge.to_be_bytes()[8 - width..].to_vec()
                };
                overwrite(bytes, at, &number);
            }
            3 => drop(bytes.drain(at..at + rng.usize(..=bytes.len() - at))),
            4 => bytes.truncate(at),
            // A part of itself again, or of another file.
            5 => insert(bytes, at, &part(&bytes.clone(), rng)),
            6 => insert(bytes, at, &part(other, rng)),
            7 => overwrite(bytes, at, &part(other, rng)),
            _ => insert(bytes, at, &rng.u64(..).to_le_bytes()[..rng.usize(..9)]),
        }
    }
    bytes.truncate(LONGEST);
}

/// Some bytes, seldom many.
fn part(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let start = rng.usize(..bytes.len().max(1));
    let most = (bytes.len() - start).min(1 << rng.usize(..13));
    bytes[start..start + rng.usize(..=most)].to_vec()
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
            mutate(&mut bytes, b"another", &mut Rng::with_seed(seed));
            bytes
        };
        assert_eq!(made(3), made(3));
        let different = (0..100).filter(|seed| made(*seed) != made(seed + 1)).count();
        assert!(different > 90, "{different}");
    }

    #[test]
    fn nothing_becomes_something() {
        let mut rng = Rng::with_seed(1);
        let lengths: Vec<usize> = (0..50)
            .map(|_| {
                let mut bytes = Vec::new();
                mutate(&mut bytes, &[], &mut rng);
                bytes.len()
            })
            .collect();
        assert!(lengths.iter().any(|length| *length > 0) && lengths.contains(&0), "{lengths:?}");
    }
}
