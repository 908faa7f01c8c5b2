//! Which model files may be opened: those that carry a signature by a key, and are no older than a version.
//!
//! A signature is one of [minisign](https://jedisct1.github.io/minisign/)'s, in a file beside the model
//! (`model.onnx.minisig`). It covers every byte of the model, its version among them; what is checked are the bytes
//! that are then opened, not the file as it may be a moment later.

mod signature;
mod version;

use std::path::Path;

use smalti_models::ModelRecord;

pub use signature::{PublicKey, beside, read as signature_beside};
pub use version::Version;

use crate::error::{Error, Result};
use crate::gate::Limits;
use crate::load;
use crate::pieces::Pieces;

/// What a model file must show. The default asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The key that must have signed it.
    pub key: Option<PublicKey>,
    /// The lowest version, against going back to one with known faults.
    pub min_version: Option<Version>,
}

impl Trust {
    /// Reads a model file and checks its signature, if one is asked for. The version is for [`Trust::check_version`].
    pub fn read(&self, path: &Path, limits: &Limits) -> Result<Vec<u8>> {
        self.read_pieces(path, limits).map(Pieces::into_vec)
    }

    /// As [`Trust::read`], in pieces.
    pub(crate) fn read_pieces(&self, path: &Path, limits: &Limits) -> Result<Pieces<'static>> {
        let file = load::read_pieces(path, limits)?;
        self.check_pieces(&file, self.signature_of(path)?.as_deref())?;
        Ok(file)
    }

    /// The signature beside a file, if one is asked for.
    pub(crate) fn signature_of(&self, path: &Path) -> Result<Option<String>> {
        self.key.as_ref().map(|_| signature::read(path)).transpose()
    }

    /// Checks the signature of bytes that are in memory, if one is asked for.
    pub fn check(&self, bytes: &[u8], signature: Option<&str>) -> Result<()> {
        self.check_pieces(&bytes.into(), signature)
    }

    /// As [`Trust::check`], of bytes in pieces.
    pub(crate) fn check_pieces(&self, file: &Pieces<'_>, signature: Option<&str>) -> Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        let none = || Error::refused("signature", "none", "one by the key that was given");
        key.check_pieces(file, signature.ok_or_else(none)?).map(drop)
    }

    /// Checks the version in a model's record, if one is asked for.
    pub fn check_version(&self, record: Option<&ModelRecord>) -> Result<()> {
        let Some(lowest) = &self.min_version else { return Ok(()) };
        let found = record.map(|record| record.version.as_str());
        if found.and_then(Version::parse).is_some_and(|version| version >= *lowest) {
            return Ok(());
        }
        let found = found.map_or("none".into(), |found| format!("`{found}`"));
        Err(Error::refused(
            "metadata `version`",
            found,
            format!("{lowest} or later, written as numbers and dots"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    fn model(name: &str) -> Model {
        Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)).unwrap()
    }

    #[test]
    fn a_lower_version_is_refused_and_so_is_none() {
        let trust = |text: &str| Trust { min_version: Version::parse(text), key: None };
        let ours = model("colours_u8.onnx");
        let version = ours.record().unwrap().version.clone();
        trust(&version).check_version(ours.record()).unwrap();
        trust("0").check_version(ours.record()).unwrap();
        let error = trust("1000.1").check_version(ours.record()).unwrap_err();
        assert!(error.exit_code() == 3 && error.to_string().contains("1000.1"), "{error}");
        assert_eq!(trust("0").check_version(model("torch_vit.onnx").record()).unwrap_err().exit_code(), 3);
        Trust::default().check_version(model("torch_vit.onnx").record()).unwrap();
    }
}
