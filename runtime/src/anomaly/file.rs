//! A detector as a file.

use std::path::Path;

use super::coreset::Points;
use super::{AnomalyDetector, Measure};
use crate::error::Result;
use crate::gaussian::{Gaussian, factor_len};
use crate::load::Model;
use crate::store::{Kind, Reader, Writer};
use crate::trust::Trust;

/// The most tokens that are remembered.
pub(super) const MAX_POINTS: usize = 20_000;
/// The most rows or columns of places.
const MAX_SIDE: usize = 1024;
/// The most values of a token.
const MAX_DIM: usize = 16_384;
/// The most bytes of the name of a value.
const MAX_NAME: usize = 4096;

const KIND: Kind = Kind { name: "anomaly detector", magic: *b"smaltian", version: 1, max_bytes: 256 << 20 };

/// The measures by their numbers in a file.
const MEASURES: [Measure; 3] = [Measure::Both, Measure::Tokens, Measure::Embedding];

impl AnomalyDetector {
    /// Reads the detector of a model. Of what models must show, `trust` asks detectors for the signature.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for a file that cannot be read; [`Error::Refused`](crate::Error::Refused) for one that
    /// is damaged, not signed as asked, or of another model.
    pub fn open(path: impl AsRef<Path>, model: &Model, trust: &Trust) -> Result<AnomalyDetector> {
        AnomalyDetector::from_bytes(&KIND.read(path.as_ref(), trust)?, model)
    }

    /// As [`AnomalyDetector::open`], of bytes in memory.
    ///
    /// # Errors
    /// See there.
    pub fn from_bytes(bytes: &[u8], model: &Model) -> Result<AnomalyDetector> {
        let mut reader = KIND.unseal(model.digest(), bytes)?;
        let tokens = reader.text(MAX_NAME, "tokens")?;
        let grid = [side(&mut reader)?, side(&mut reader)?];
        let measure = MEASURES.get(reader.count(MEASURES.len() - 1, "measure")?).copied().unwrap_or_default();
        let dim = reader.count(MAX_DIM, "values of a token")?;
        let count = reader.count(MAX_POINTS, "remembered tokens")?;
        let rows = reader.floats(dim * count, "remembered tokens")?;
        let points = Points::new(&rows, dim)
            .ok_or_else(|| reader.refused("remembered tokens", format!("{count} of {dim} values"), "some"))?;
        let embedding = reader.count(MAX_DIM, "values of an embedding")?;
        if embedding != model.embedding_dim() {
            let allowed = model.embedding_dim().to_string();
            return Err(reader.refused("values of an embedding", embedding.to_string(), &allowed));
        }
        let mean = reader.floats(embedding, "mean")?;
        let factor = reader.floats(factor_len(embedding), "covariance")?;
        let gaussian = Gaussian::new(mean, factor).ok_or_else(|| {
            reader.refused("covariance", "a diagonal that is not positive", "a positive one")
        })?;
        let scales = [positive(&mut reader, "scale")?, positive(&mut reader, "scale")?];
        let threshold = positive(&mut reader, "threshold")?;
        let false_alarms = reader.float("false alarms")?;
        if !(0.0..0.5).contains(&false_alarms) {
            return Err(reader.refused("false alarms", false_alarms.to_string(), "0 to 0.5"));
        }
        let images = reader.u32("number of images")? as usize;
        reader.end()?;
        Ok(AnomalyDetector {
            model: model.digest(),
            tokens,
            grid,
            measure,
            rows,
            points,
            gaussian,
            scales,
            threshold,
            false_alarms,
            images,
        })
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.text(&self.tokens);
        self.grid.iter().for_each(|side| writer.count(*side));
        writer.count(MEASURES.iter().position(|measure| *measure == self.measure).unwrap_or(0));
        writer.count(self.points.dim());
        writer.count(self.points.len());
        writer.floats(&self.rows);
        writer.count(self.gaussian.dim());
        self.gaussian.parts().iter().for_each(|part| writer.floats(part));
        writer.floats(&self.scales);
        writer.float(self.threshold);
        writer.float(self.false_alarms);
        writer.count(self.images);
        KIND.seal(self.model, writer)
    }

    /// Writes the file. A crash at any moment leaves the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), and [`Error::Usage`](crate::Error::Usage) for a detector that is too large.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        KIND.save(path.as_ref(), &self.to_bytes())
    }
}

fn side(reader: &mut Reader<'_>) -> Result<usize> {
    let side = reader.count(MAX_SIDE, "places")?;
    if side > 0 { Ok(side) } else { Err(reader.refused("places", "0", "at least 1")) }
}

fn positive(reader: &mut Reader<'_>, place: &str) -> Result<f32> {
    let found = reader.float(place)?;
    if found > 0.0 { Ok(found) } else { Err(reader.refused(place, found.to_string(), "a positive number")) }
}
