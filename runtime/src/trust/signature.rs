//! Signatures as minisign writes them, in both of its forms: of the file (`Ed`) and of its hash (`ED`).

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use minisign_verify::Signature;

use crate::error::{Error, Result};
use crate::pieces::Pieces;

/// The most bytes of a key or signature file; they have four lines at most.
const MAX: u64 = 16 << 10;

/// A key that signs models, the public half.
#[derive(Clone, Debug)]
pub struct PublicKey(minisign_verify::PublicKey);

impl PublicKey {
    /// A key as `minisign -G` prints it, or what its `.pub` file holds.
    pub fn parse(text: &str) -> Result<PublicKey> {
        let text = text.trim();
        let key = match text.lines().count() {
            0 | 1 => minisign_verify::PublicKey::from_base64(text),
            _ => minisign_verify::PublicKey::decode(text),
        };
        key.map(PublicKey).map_err(|error| {
            Error::Usage(format!("this is no minisign key ({error}): expected what `minisign -G` wrote"))
        })
    }

    /// A key that is named: as it is printed, or by its file.
    pub fn named(text: &str) -> Result<PublicKey> {
        if let Ok(key) = PublicKey::parse(text) {
            return Ok(key);
        }
        let path = Path::new(text);
        PublicKey::parse(&small(path).map_err(Error::io("read the key", path))?)
            .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
    }

    /// Checks that this key signed these bytes; the signature's comment, which it signed too.
    pub fn check(&self, bytes: &[u8], signature: &str) -> Result<String> {
        self.check_pieces(&bytes.into(), signature)
    }

    /// As [`PublicKey::check`], of bytes in pieces.
    pub(crate) fn check_pieces(&self, file: &Pieces<'_>, signature: &str) -> Result<String> {
        let refused = |found: String| Error::refused("signature", found, "one by the key that was given");
        let parsed = Signature::decode(signature.trim())
            .map_err(|error| refused(format!("none of minisign's ({error})")))?;
        let verified = match self.0.verify_stream(&parsed) {
            Ok(mut stream) => {
                file.iter().for_each(|piece| stream.update(piece));
                stream.finalize()
            }
            // The older form signs the file itself, so all of it is needed at once.
            Err(minisign_verify::Error::UnsupportedLegacyMode) => {
                let legacy = true;
                self.0.verify(&file.borrowed().into_vec(), &parsed, legacy)
            }
            Err(error) => Err(error),
        };
        verified.map_err(|error| match error {
            minisign_verify::Error::UnexpectedKeyId => refused("one by another key".into()),
            minisign_verify::Error::InvalidSignature => refused("one that is not for this file".into()),
            other => refused(other.to_string()),
        })?;
        Ok(parsed.trusted_comment().to_owned())
    }
}

/// Where the signature of a file is: beside it, `.minisig` behind its name.
pub fn beside(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".minisig");
    name.into()
}

/// The text of the signature beside a file; [`Error::Refused`] if there is none.
pub fn read(path: &Path) -> Result<String> {
    let place = beside(path);
    small(&place).map_err(|error| {
        let (found, allowed) = (format!("cannot read {}: {error}", place.display()), "a signature there");
        Error::refused("signature", found, allowed)
    })
}

/// A small text file.
fn small(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and signatures that Debian's minisign 0.11 made: see `tests/signed/make`.
    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signed").join(name)
    }

    fn text(name: &str) -> String {
        std::fs::read_to_string(fixture(name)).unwrap()
    }

    #[test]
    fn both_of_minisigns_forms_are_known() {
        let key = PublicKey::parse(&text("test.pub")).unwrap();
        let message = text("message.txt");
        for name in ["message.txt.minisig", "message.txt.legacy.minisig"] {
            assert_eq!(key.check(message.as_bytes(), &text(name)).unwrap(), "for Smalti's tests");
        }
        let line = text("test.pub").lines().nth(1).unwrap().to_owned();
        PublicKey::named(&line).unwrap().check(message.as_bytes(), &text("message.txt.minisig")).unwrap();
    }

    #[test]
    fn any_change_is_refused() {
        let key = PublicKey::named(fixture("test.pub").to_str().unwrap()).unwrap();
        let message = text("message.txt").into_bytes();
        for name in ["message.txt.minisig", "message.txt.legacy.minisig"] {
            let signature = text(name);
            for i in 0..message.len() {
                let mut other = message.clone();
                other[i] ^= 1;
                assert_eq!(key.check(&other, &signature).unwrap_err().exit_code(), 3);
            }
            assert!(key.check(&message[1..], &signature).is_err());
            // In the signature, in the trusted comment, in its signature.
            for line in 1..4 {
                let mut lines: Vec<String> = signature.lines().map(str::to_owned).collect();
                let middle = lines[line].len() / 2;
                let letter = if lines[line].as_bytes()[middle] == b'A' { "B" } else { "A" };
                lines[line].replace_range(middle..=middle, letter);
                assert!(key.check(&message, &lines.join("\n")).is_err(), "{lines:?}");
            }
            for length in 0..signature.trim().len() {
                assert!(key.check(&message, &signature[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn another_key_is_named_as_the_reason() {
        let other = PublicKey::parse(&text("other.pub")).unwrap();
        let error = other.check(text("message.txt").as_bytes(), &text("message.txt.minisig")).unwrap_err();
        assert!(error.to_string().contains("another key"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_wrong_usage_and_a_missing_file_says_so() {
        assert_eq!(PublicKey::parse("RWQ").unwrap_err().exit_code(), 2);
        assert_eq!(PublicKey::parse("").unwrap_err().exit_code(), 2);
        assert_eq!(PublicKey::named(fixture("message.txt").to_str().unwrap()).unwrap_err().exit_code(), 2);
        assert_eq!(PublicKey::named("/no/such/key").unwrap_err().exit_code(), 6);
    }
}
