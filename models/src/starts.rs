//! Starts: encoders that have learned from a teacher on other people's photos, for runs to begin with.
//!
//! Their weights are part of the program that uses them. `cards/` says what each has learned from, by which command, under
//! which licence, and what it cannot do.

/// An encoder to start from.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// What commands call it.
    pub name: &'static str,
    /// A safetensors file in f16, with encoder and preprocessing as metadata.
    pub weights: &'static [u8],
    /// SHA-256 of the weights, in hexadecimal digits.
    pub sha256: &'static str,
    /// The licence of the weights.
    pub license: &'static str,
    /// What it has learned from, in a few words.
    pub learned_from: &'static str,
}

/// All of them. The first is the default.
pub const STARTS: [Start; 1] = [Start {
    name: "photos-nano",
    weights: include_bytes!("../ready/photos-nano.safetensors"),
    sha256: include_str!("../ready/photos-nano.sha256"),
    license: "Apache-2.0",
    learned_from: "11,020 photos of clothes, groceries, waste, coins and land, taught by EfficientNet-Lite0",
}];

/// The start of this name.
pub fn find(name: &str) -> Option<&'static Start> {
    STARTS.iter().find(|start| start.name == name)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn weights_are_those_of_the_checksums_and_small() {
        for start in STARTS {
            let digest: String =
                Sha256::digest(start.weights).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, start.sha256.trim(), "{}", start.name);
            assert!(start.weights.len() < 3 << 20, "{}", start.name);
            assert!(find(start.name).is_some() && find("no-such").is_none());
        }
    }
}
