//! SHA-256, by which files are told apart.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub(crate) [u8; Digest::LEN]);

impl Digest {
    /// Bytes of a digest.
    pub(crate) const LEN: usize = 32;

    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::of_all([bytes])
    }

    /// The digest of pieces one behind the other.
    pub(crate) fn of_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hash = Sha256::new();
        pieces.into_iter().for_each(|piece| hash.update(piece));
        Digest(hash.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_sha256sum_writes_it() {
        // FIPS 180-2, appendix B.1.
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), wanted);
        assert_eq!(Digest::of_all([&b"a"[..], b"", b"bc"]), Digest::of(b"abc"));
    }
}
