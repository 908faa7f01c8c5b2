//! The state of a run: all that `--resume` needs, in one file that a rename makes whole.
//!
//! A safetensors file of any number of named vectors (parameters, moments, averages, statistics), with [`About`] as
//! JSON in its metadata. What each vector is for is known to whoever gave it its name; a new optimizer or an average
//! of weights is a new name and no new format. A digest covers all of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::data::Fingerprint;
use crate::error::{Error, Result};
use crate::files;
use crate::model::weights::file;

/// The format that this version writes. Format 1, of the first versions, is read too.
const FORMAT: u64 = 2;

/// What a state says besides its vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct About {
    /// The stage that wrote it; empty in format 1.
    pub stage: String,
    /// Steps done. With the settings' seed it fixes every random number to come and the place in the data.
    pub step: u64,
    /// Epochs that are done and validated.
    pub epochs: u64,
    /// Whether the stage has ended by itself.
    pub ended: bool,
    /// Steps so far that were left out, as their loss or gradient was no number.
    #[serde(skip_serializing_if = "is_zero")]
    pub setbacks: u32,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The loss at the start and lately.
    pub loss: Option<LossTrack>,
    /// The best validation so far.
    pub best: Option<Best>,
    /// The settings that decide what is computed.
    pub settings: Value,
    /// The data sets, by what they are used for; empty in format 1.
    pub data: BTreeMap<String, Fingerprint>,
}

/// The best validation of a run. Of equal scores the latest counts: it has seen more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The score, such as the accuracy on validation images.
    pub score: f64,
    /// The epoch after which it was measured, from 1.
    pub epoch: u64,
}

/// The loss over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossTrack {
    /// Of the first step, before any update.
    pub first: f64,
    /// Running mean.
    pub mean: f64,
}

/// All that a run needs to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Everything but the vectors.
    pub about: About,
    /// The vectors by name.
    pub vectors: BTreeMap<String, Vec<f32>>,
}

/// Writes a state; the one that was there goes to `previous`.
pub fn save(path: &Path, previous: &Path, about: &About, vectors: &[(&str, &[f32])]) -> Result<()> {
    let about = serde_json::to_value(about).map_err(|e| Error::Usage(format!("a state is no JSON: {e}")))?;
    let mut sorted = vectors.to_vec();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    let digest = digest(&about, &sorted);
    let details = json!({"format": FORMAT, "about": about, "sha256": digest});
    let shapes: Vec<[usize; 1]> = sorted.iter().map(|(_, values)| [values.len()]).collect();
    let tensors = sorted.iter().zip(&shapes).map(|((name, values), shape)| (*name, &shape[..], *values));
    files::write_keeping(path, Some(previous), &file::encode(path, tensors, &details)?)
}

/// Reads a state.
pub fn load(path: &Path) -> Result<State> {
    let unusable = |problem: String| Error::Checkpoint { path: path.into(), problem };
    let (tensors, details, text) = file::load_with_text(path)?;
    let vectors: BTreeMap<String, Vec<f32>> =
        tensors.into_iter().map(|(name, tensor)| (name, tensor.values)).collect();
    let (about, expected) = match details["format"].as_u64() {
        Some(FORMAT) => {
            let sorted: Vec<(&str, &[f32])> =
                vectors.iter().map(|(name, values)| (name.as_str(), &values[..])).collect();
            let about = serde_json::from_value(details["about"].clone())
                .map_err(|e| unusable(format!("cannot be understood: {e}")))?;
            (about, digest(&details["about"], &sorted))
        }
        None if details.get("settings").is_some() => (first_format(&details), first_digest(&vectors)),
        found => {
            return Err(unusable(format!(
                "is not the state of a run that this version of smalti can read (format {}, expected up to {FORMAT}): \
                 resume the run with the version that wrote it",
                found.map_or("unknown".into(), |format| format.to_string())
            )));
        }
    };
    // Two texts can be one number: the last digits of a fraction.
    let again = details.to_string();
    let is_as_written = details["format"].is_null() || again == text;
    if details["sha256"] != expected || !is_as_written {
        return Err(unusable("is damaged: its digest does not match its contents".into()));
    }
    Ok(State { about, vectors })
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn update(hash: &mut Sha256, values: &[f32]) {
    values.iter().for_each(|x| hash.update(x.to_le_bytes()));
}

fn digest(about: &Value, vectors: &[(&str, &[f32])]) -> String {
    let mut hash = Sha256::new();
    hash.update(about.to_string());
    for (name, values) in vectors {
        hash.update([0]);
        hash.update(name);
        hash.update([0]);
        update(&mut hash, values);
    }
    hex(hash)
}

/// The digest of format 1: over parameters and both moments.
fn first_digest(vectors: &BTreeMap<String, Vec<f32>>) -> String {
    let mut hash = Sha256::new();
    ["params", "m", "v"].iter().filter_map(|name| vectors.get(*name)).for_each(|v| update(&mut hash, v));
    hex(hash)
}

/// What format 1 says, in today's words.
fn first_format(details: &Value) -> About {
    let mut settings = details["settings"].clone();
    if let Some(settings) = settings.as_object_mut()
        && let Some(mut optim) = settings.remove("course")
    {
        if let Some(optim) = optim.as_object_mut() {
            optim.remove("checkpoint-minutes");
        }
        settings.insert("optim".into(), optim);
    }
    let best = details["best"].as_f64().map(|score| Best { score, epoch: 0 });
    About {
        step: details["step"].as_u64().unwrap_or_default(),
        seconds: details["seconds"].as_f64().unwrap_or_default(),
        best,
        settings,
        ..About::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            stage: "pretrain".into(),
            step: 7,
            epochs: 2,
            seconds: 1.5,
            best: Some(Best { score: 0.25, epoch: 2 }),
            settings: json!({"seed": 3}),
            ..About::default()
        }
    }

    #[test]
    fn any_named_vectors_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.state");
        let before = folder.path().join("previous.state");
        save(&path, &before, &about(), &[("params", &[1.0, 2.0]), ("ema", &[0.5]), ("a/b", &[])]).unwrap();
        let state = load(&path).unwrap();
        assert_eq!(state.about, about());
        let names: Vec<&str> = state.vectors.keys().map(String::as_str).collect();
        assert_eq!((names, &state.vectors["params"][..]), (vec!["a/b", "ema", "params"], &[1.0, 2.0][..]));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.state");
        let before = folder.path().join("previous.state");
        // Seventeen digits, whose last ones may change without the number.
        let about = About { seconds: 0.1 + 0.2, ..about() };
        save(&path, &before, &about, &[("params", &[1.0; 20]), ("m", &[0.5; 20])]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(load(&path).unwrap_err().exit_code(), 5, "{cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            match load(&path) {
                Err(error) => assert_eq!(error.exit_code(), 5),
                Ok(state) => panic!("bit {bit} of byte {} is not noticed: {state:?}", bit / 8),
            }
        }
    }

    #[test]
    fn the_first_format_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.state");
        let vectors = [("params", [1.0f32, 2.0]), ("m", [3.0, 4.0]), ("v", [5.0, 6.0])];
        let mut hash = Sha256::new();
        vectors.iter().for_each(|(_, values)| update(&mut hash, values));
        let details = json!({
            "step": 5, "seconds": 2.0, "best": 0.5, "sha256": hex(hash),
            "settings": {"course": {"seed": 1, "checkpoint-minutes": 5.0}, "mask-ratio": 0.75},
        });
        file::save(&path, vectors.iter().map(|(name, v)| (*name, &[2usize][..], &v[..])), &details).unwrap();
        let state = load(&path).unwrap();
        assert_eq!((state.about.step, state.about.best.map(|best| best.score)), (5, Some(0.5)));
        assert_eq!(state.about.settings, json!({"optim": {"seed": 1}, "mask-ratio": 0.75}));
        assert_eq!(state.vectors["v"], [5.0, 6.0]);
    }
}
