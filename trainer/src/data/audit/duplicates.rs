//! Images that repeat each other, found without comparing each with each.
//!
//! An image's hash is a difference hash (each of 64 bits says whether one of 9 x 8 grey values is brighter than its
//! neighbour) and a thumbnail of 8 x 8 colours. Two images look alike when at most [`DISTANCE`] bits differ and the
//! thumbnails are close. Hashes with few different bits agree in at least one of four bands of 16 bits, so only
//! images that share a band are compared, and each of them with a bounded number of neighbours.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use smalti_models::image::Image;
use smalti_models::resize::{Interpolation, resize};

use super::{Duplicates, NAMED, Pair};
use crate::data::dataset::Dataset;
use crate::error::Result;

/// Maximum number of bits in which the hashes of two images that look alike differ: one less than there are bands.
const DISTANCE: u32 = 3;
const BANDS: u32 = DISTANCE + 1;
/// Maximum difference of the thumbnails' bytes, on average.
const THUMBNAIL: u32 = 4;
/// Each image is compared with at most this many neighbours in each band.
const NEIGHBOURS: usize = 64;
const SIDE: usize = 8;

/// What tells an image from others.
#[derive(Clone, Debug)]
pub struct ImageHash {
    difference: u64,
    thumbnail: Vec<u8>,
    /// The start of a digest of size and pixels.
    pixels: u128,
}

/// An image's hash, and whose it is.
pub(super) struct Entry {
    /// The number of the data set.
    pub(super) set: usize,
    /// The number in the data set.
    pub(super) index: usize,
    pub(super) hash: ImageHash,
}

impl ImageHash {
    /// The hash of an image.
    ///
    /// # Errors
    /// An image too long to be resized.
    pub fn of(image: Image) -> Result<ImageHash> {
        let mut digest = Sha256::new();
        for size in [image.width(), image.height(), image.channels()] {
            digest.update((size as u64).to_le_bytes());
        }
        digest.update(image.data());
        let digest: [u8; 32] = digest.finalize().into();
        let pixels = digest.iter().take(16).fold(0, |all, byte| (all << 8) | u128::from(*byte));

        let colours = resize(&image, SIDE, SIDE, Interpolation::Bilinear)?.into_channels(3)?;
        let grey = resize(&image.into_channels(1)?, SIDE + 1, SIDE, Interpolation::Bilinear)?;
        let pairs = grey.data().chunks_exact(SIDE + 1).flat_map(|row| row.windows(2));
        let difference = pairs.fold(0, |bits, pair| (bits << 1) | u64::from(pair.first() < pair.last()));
        Ok(ImageHash { difference, thumbnail: colours.into_data(), pixels })
    }

    /// Whether two images look alike.
    pub fn looks_like(&self, other: &ImageHash) -> bool {
        if (self.difference ^ other.difference).count_ones() > DISTANCE {
            return false;
        }
        let apart: u32 =
            self.thumbnail.iter().zip(&other.thumbnail).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        apart <= THUMBNAIL * self.thumbnail.len() as u32
    }

    fn band(&self, band: u32) -> u16 {
        (self.difference >> (16 * band)) as u16
    }
}

/// Finds the images among `entries` that repeat others.
pub(super) fn find(sets: &[Dataset], entries: &[Entry]) -> Duplicates {
    let mut pairs = exact(entries);
    let mut repeats = vec![false; entries.len()];
    pairs.iter().for_each(|&(_, b)| repeats[b] = true);
    let exact = pairs.len();
    pairs.extend(near(entries, &repeats));
    pairs.sort_unstable();

    let mut found = Duplicates { exact, ..Duplicates::default() };
    let (mut across, mut differ) = (vec![false; entries.len()], vec![false; entries.len()]);
    let mut near = repeats.iter().map(|_| false).collect::<Vec<_>>();
    for &(a, b) in &pairs {
        let (one, other) = (&entries[a], &entries[b]);
        near[b] |= !repeats[b];
        across[b] |= one.set != other.set;
        let label = |entry: &Entry| sets.get(entry.set).and_then(|data| data.label(entry.index));
        differ[b] |= repeats[b] && label(one) != label(other);
    }
    let count = |flags: &[bool]| flags.iter().filter(|flag| **flag).count();
    (found.near, found.across_splits, found.labels_differ) = (count(&near), count(&across), count(&differ));
    // What matters most comes first.
    pairs.sort_by_key(|&(_, b)| (!differ[b], !across[b]));
    let place = |entry: &Entry| sets.get(entry.set).map_or(String::new(), |data| data.place(entry.index));
    found.first = pairs
        .iter()
        .take(NAMED)
        .map(|&(a, b)| Pair { a: place(&entries[a]), b: place(&entries[b]), exact: repeats[b] })
        .collect();
    found
}

/// Each image with the very pixels of an earlier one, with the first of them.
fn exact(entries: &[Entry]) -> Vec<(usize, usize)> {
    let mut first = HashMap::new();
    let mut pairs = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let earlier = *first.entry(entry.hash.pixels).or_insert(i);
        if earlier != i {
            pairs.push((earlier, i));
        }
    }
    pairs
}

/// Pairs of images that look alike, leaving out those marked in `skip`.
fn near(entries: &[Entry], skip: &[bool]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let mut order: Vec<usize> = (0..entries.len()).filter(|&i| !skip[i]).collect();
    for band in 0..BANDS {
        order.sort_unstable_by_key(|&i| (entries[i].hash.band(band), entries[i].hash.difference, i));
        for (at, &a) in order.iter().enumerate() {
            let one = &entries[a].hash;
            let neighbours = order.iter().skip(at + 1).take(NEIGHBOURS);
            for &b in neighbours.take_while(|&&b| entries[b].hash.band(band) == one.band(band)) {
                let other = &entries[b].hash;
                // A pair that shares an earlier band was seen there.
                if (0..band).all(|earlier| one.band(earlier) != other.band(earlier)) && one.looks_like(other)
                {
                    pairs.push((a.min(b), a.max(b)));
                }
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: usize, difference: u64, value: u8) -> Entry {
        Entry {
            set: 0,
            index,
            hash: ImageHash { difference, thumbnail: vec![value; 192], pixels: index as u128 },
        }
    }

    #[test]
    fn bands_find_what_comparing_all_finds() {
        let mut rng = crate::rng::Rng::new(5, 0, []);
        let mut entries = Vec::new();
        for i in 0..300 {
            let hash = rng.bits();
            entries.push(entry(2 * i, hash, 0));
            let flips = (0..rng.below(6)).fold(0u64, |flips, _| flips | 1 << rng.below(64));
            entries.push(entry(2 * i + 1, hash ^ flips, 0));
        }
        let mut found = near(&entries, &vec![false; entries.len()]);
        found.sort_unstable();
        let mut expected = Vec::new();
        for a in 0..entries.len() {
            expected.extend(
                (a + 1..entries.len())
                    .filter(|&b| entries[a].hash.looks_like(&entries[b].hash))
                    .map(|b| (a, b)),
            );
        }
        assert!(expected.len() > 100);
        assert_eq!(found, expected);
    }

    #[test]
    fn other_colours_are_another_image() {
        let entries = [entry(0, 7, 10), entry(1, 7, 12), entry(2, 7, 60)];
        assert_eq!(near(&entries, &[false; 3]), [(0, 1)]);
    }

    #[test]
    fn work_is_bounded_for_hashes_all_alike() {
        let entries: Vec<Entry> = (0..20_000).map(|i| entry(i, 0, 0)).collect();
        let found = near(&entries, &vec![false; entries.len()]);
        assert!(found.len() <= entries.len() * NEIGHBOURS);
    }
}
