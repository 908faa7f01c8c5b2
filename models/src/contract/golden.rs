//! Test vectors: procedural images and the logits that the exporter's model gave for them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{check_digest, hex};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::preprocess::MAX_IMG_SIZE;

/// Maximum number of test vectors of a model.
const MAX_GOLDEN: usize = 64;

/// One test vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Which [`golden_image`].
    pub pattern: u64,
    /// SHA-256 of the image's bytes.
    pub sha256: String,
    /// What the model gives for it.
    pub logits: Vec<f32>,
}

impl Golden {
    /// The test vector of one image.
    pub fn new(pattern: u64, image: &Image, logits: Vec<f32>) -> Golden {
        Golden { pattern, sha256: hex(&Sha256::digest(image.data())), logits }
    }

    /// The image, if its bytes are those that the exporter saw.
    pub fn image(&self, img_size: usize, channels: usize) -> Result<Image> {
        let image = golden_image(self.pattern, img_size, channels)?;
        if hex(&Sha256::digest(image.data())) == self.sha256 {
            return Ok(image);
        }
        let problem = format!("pattern {} has another digest than the file says", self.pattern);
        Err(Error::Metadata { key: "golden", problem })
    }
}

/// Refuses test vectors that no model with so many classes can have given.
pub(super) fn check(golden: &[Golden], classes: usize) -> Result<()> {
    let refuse = |problem| Err(Error::Metadata { key: "golden", problem });
    if golden.len() > MAX_GOLDEN {
        return refuse(format!("{} test vectors, at most {MAX_GOLDEN} are read", golden.len()));
    }
    for vector in golden {
        check_digest("golden", &vector.sha256)?;
        if vector.logits.len() != classes {
            return refuse(format!("{} logits for {classes} names", vector.logits.len()));
        }
        if !vector.logits.iter().all(|logit| logit.is_finite()) {
            return refuse("a logit that is not finite".into());
        }
    }
    Ok(())
}

/// The test image number `pattern`: waves, blocks and noise, from integers only, the same everywhere.
pub fn golden_image(pattern: u64, img_size: usize, channels: usize) -> Result<Image> {
    if !(1..=MAX_IMG_SIZE).contains(&img_size) {
        let expected = format!("expected 1 to {MAX_IMG_SIZE}");
        return Err(Error::Config { field: "img-size", found: img_size.to_string(), expected });
    }
    let seed = mix(pattern);
    let mut data = Vec::with_capacity(img_size * img_size * channels);
    for y in 0..img_size as u64 {
        for x in 0..img_size as u64 {
            for channel in 0..channels as u64 {
                data.push(golden_value(mix(seed ^ channel), x, y, img_size as u64));
            }
        }
    }
    Image::new(img_size, img_size, channels, data)
}

/// One byte: a wave up to 127, a block up to 95, noise up to 31.
fn golden_value(seed: u64, x: u64, y: u64, size: u64) -> u8 {
    let (across, down) = (1 + seed % 4, 1 + (seed >> 8) % 4);
    let phase = (256 * (x * across + y * down) / size + (seed >> 16)) % 256;
    let wave = if phase < 128 { phase } else { 255 - phase };
    let block = size.div_ceil(8);
    let block = mix(seed ^ mix((x / block) << 32 | (y / block))) % 96;
    let noise = mix(seed ^ mix(!(x << 32 | y))) % 32;
    (wave + block + noise) as u8
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_never_change() {
        // A change here would fail the self-test of every model exported before.
        for (pattern, size, channels, digest) in [
            (0, 32, 3, "ecc269191a68ea5a04676224faaf25466a003021da242b7ea744760637b9fff5"),
            (1, 28, 1, "1e0184e740119446315173085590124349e443f686e57baeb273a3b5d95babf8"),
            (u64::MAX, 224, 3, "007a8cfef5bf0624db90b6bd95f2145b883c1ca2a57b13348911b1790514eb5d"),
        ] {
            let image = golden_image(pattern, size, channels).unwrap();
            assert_eq!(Golden::new(pattern, &image, vec![]).sha256, digest, "{pattern}");
        }
    }

    #[test]
    fn patterns_differ_and_fill_the_range() {
        let images = [0, 1, 2].map(|pattern| golden_image(pattern, 64, 3).unwrap());
        assert_ne!(images[0], images[1]);
        assert_ne!(images[1], images[2]);
        for image in &images {
            let (low, high) = (image.data().iter().min().unwrap(), image.data().iter().max().unwrap());
            assert!(*low < 40 && *high > 210, "{low} to {high}");
        }
        assert!(golden_image(0, 0, 3).is_err());
        assert!(golden_image(0, 4096, 3).is_err());
        assert!(golden_image(0, 32, 2).is_err());
        assert!(golden_image(0, 1, 1).is_ok());
    }

    #[test]
    fn a_vector_with_another_digest_is_refused() {
        let image = golden_image(7, 16, 3).unwrap();
        let mut golden = Golden::new(7, &image, vec![1.0]);
        assert_eq!(golden.image(16, 3).unwrap(), image);
        golden.pattern = 8;
        assert!(golden.image(16, 3).unwrap_err().to_string().contains("another digest"));
    }
}
