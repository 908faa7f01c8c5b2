//! Files of what was learned beside a model: a frame that says what they are and which model they belong to.
//!
//! Numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the kind of file |
//! | 4 | its version |
//! | 8 | length of the whole file |
//! | 32 | SHA-256 of the model ([`Model::digest`](crate::Model::digest)) |
//! | | what was learned |
//! | 32 | SHA-256 of everything before |
//!
//! The digest at the end finds damage; against tampering there are the signatures that models have ([`crate::trust`]).

mod reader;
mod writer;

use std::path::Path;

pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::Staged;
use crate::gate::Limits;
use crate::trust::Trust;

/// A kind of file.
pub(crate) struct Kind {
    /// What people call it.
    pub(crate) name: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    /// The most bytes of a file.
    pub(crate) max_bytes: u64,
}

/// Bytes in front of what was learned.
const HEAD: usize = 8 + 4 + 8 + Digest::LEN;

impl Kind {
    /// A refusal of a file of this kind.
    pub(crate) fn refused(&self, place: &str, found: impl Into<String>, allowed: impl Into<String>) -> Error {
        Error::refused(place, found, allowed).about(self.name)
    }

    /// A whole file with what was learned beside a model.
    pub(crate) fn seal(&self, model: Digest, learned: Writer) -> Vec<u8> {
        let learned = learned.into_bytes();
        let length = HEAD + learned.len() + Digest::LEN;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&(length as u64).to_le_bytes());
        bytes.extend_from_slice(&model.0);
        bytes.extend_from_slice(&learned);
        bytes.extend_from_slice(&Digest::of(&bytes).0);
        bytes
    }

    /// What was learned, of a whole file that belongs to this model.
    ///
    /// # Errors
    /// [`Error::Refused`] for a file of another kind or version, of another length than it says, damaged, or of another
    /// model.
    pub(crate) fn unseal<'a>(&self, model: Digest, bytes: &'a [u8]) -> Result<Reader<'a>> {
        let name = self.name;
        let mut head = Reader::new(name, bytes);
        if head.bytes(8, "kind")? != self.magic {
            return Err(self.refused("file", format!("no {name}"), format!("a {name} that Smalti wrote")));
        }
        let version = head.u32("version")?;
        if version != self.version {
            let allowed = format!("{}; make the file anew with this version of Smalti", self.version);
            return Err(self.refused("version", version.to_string(), allowed));
        }
        let (said, found) = (head.u64("length")?, bytes.len() as u64);
        if said != found || bytes.len() < HEAD + Digest::LEN {
            return Err(self.refused(
                "length",
                format!("{found} bytes"),
                format!("{said}, as the file says"),
            ));
        }
        let (content, digest) = bytes.split_at(bytes.len() - Digest::LEN);
        if Digest::of(content).0 != digest {
            return Err(self.refused("digest", "other bytes than were written", "a file without damage"));
        }
        let made_for = head.bytes(Digest::LEN, "model")?;
        if made_for != model.0 {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let allowed = format!("{model}, the model that was opened; make the file anew for this one");
            return Err(self.refused("model", format!("SHA-256 {}", hex(made_for)), allowed));
        }
        Ok(Reader::new(name, content.get(HEAD..).unwrap_or_default()))
    }

    /// Reads a whole file, signed if `trust` asks for that.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read; [`Error::Refused`] for one that is too large, or not signed as asked.
    pub(crate) fn read(&self, path: &Path, trust: &Trust) -> Result<Vec<u8>> {
        let limits = Limits { file_bytes: self.max_bytes, ..Limits::default() };
        let bytes = trust.read(path, &limits).map_err(|error| error.about(self.name))?;
        if bytes.len() as u64 > self.max_bytes {
            let found = format!("more than {} bytes", self.max_bytes);
            return Err(self.refused("file", found, "at most as many"));
        }
        Ok(bytes)
    }

    /// Writes a whole file. A crash at any moment leaves the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Usage`] for more bytes than would be read again, [`Error::Io`].
    pub(crate) fn save(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.max_bytes {
            let (found, most) = (bytes.len(), self.max_bytes);
            return Err(Error::Usage(format!("a {} of {found} bytes: at most {most} are read", self.name)));
        }
        Staged::write(path, bytes)?.commit()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const KIND: Kind = Kind { name: "test file", magic: *b"smalti-t", version: 3, max_bytes: 1000 };

    fn file() -> Vec<u8> {
        let mut learned = Writer::default();
        learned.u32(7);
        learned.text("a name");
        learned.floats(&[1.5, -2.0]);
        KIND.seal(Digest::of(b"model"), learned)
    }

    fn refusal(bytes: &[u8]) -> String {
        let error = KIND.unseal(Digest::of(b"model"), bytes).map(drop).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    }

    #[test]
    fn what_was_sealed_is_read_again() {
        let bytes = file();
        let mut reader = KIND.unseal(Digest::of(b"model"), &bytes).unwrap();
        assert_eq!(reader.u32("number").unwrap(), 7);
        assert_eq!(reader.text(10, "name").unwrap(), "a name");
        assert_eq!(reader.floats(2, "values").unwrap(), [1.5, -2.0]);
        reader.end().unwrap();
    }

    #[test]
    fn damage_is_found_at_every_byte_and_length() {
        let bytes = file();
        for i in 0..bytes.len() {
            let mut other = bytes.clone();
            other[i] ^= 1;
            refusal(&other);
            refusal(&bytes[..i]);
        }
        assert!(refusal(&[&bytes[..], &[0]].concat()).contains("length"));
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_to_do() {
        let other = KIND.unseal(Digest::of(b"other"), &file()).map(drop).unwrap_err().to_string();
        let digests = [Digest::of(b"model"), Digest::of(b"other")].map(|digest| digest.to_string());
        assert!(digests.iter().all(|digest| other.contains(digest)) && other.contains("anew"), "{other}");
        assert!(other.starts_with("test file refused: model"), "{other}");
        assert!(refusal(b"PK\x03\x04 something else").contains("no test file"));
        let mut newer = file();
        newer[8] = 4;
        assert!(refusal(&newer).contains("version: found 4"));
    }

    #[test]
    fn large_files_are_neither_written_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("x");
        assert_eq!(KIND.save(&place, &[0; 1001]).unwrap_err().exit_code(), 2);
        std::fs::write(&place, [0; 1001]).unwrap();
        let error = KIND.read(&place, &Trust::default()).unwrap_err();
        assert!(error.exit_code() == 3 && error.to_string().contains("1000 bytes"), "{error}");
        KIND.save(&place, &file()).unwrap();
        assert_eq!(KIND.read(&place, &Trust::default()).unwrap(), file());
    }

    /// Offers `read` every truncation of a valid file and many changes of its bytes, the digest made right again behind
    /// them, so that the content is looked at.
    pub(crate) fn batter(bytes: &[u8], read: impl Fn(&[u8]) -> Result<()>) {
        read(bytes).unwrap();
        let refused = |bytes: &[u8]| {
            if let Err(error) = read(bytes) {
                assert_eq!(error.exit_code(), 3, "{error}");
            }
        };
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err());
            refused(&sealed(bytes[..length].to_vec()));
        }
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..20_000usize {
            let mut other = bytes.to_vec();
            for _ in 0..1 + round % 3 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let place = (random >> 8) as usize % other.len();
                other[place] = match round % 4 {
                    0 => 0xff,
                    1 => 0,
                    _ => random as u8,
                };
            }
            refused(&other);
            refused(&sealed(other));
        }
    }

    /// The bytes with the length and the digest that they should have.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(end) = bytes.len().checked_sub(Digest::LEN).filter(|end| *end >= HEAD) {
            let length = bytes.len() as u64;
            bytes[12..20].copy_from_slice(&length.to_le_bytes());
            let digest = Digest::of(&bytes[..end]);
            bytes[end..].copy_from_slice(&digest.0);
        }
        bytes
    }
}
