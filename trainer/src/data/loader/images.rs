//! The images of a data set, decoded, prepared for every view, and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::cache::{Cache, Prepared};
use super::queue::lock;
use super::settings::{LoaderSettings, OnBad};
use crate::data::Dataset;
use crate::data::augment::Base;
use crate::error::{Error, Result};

/// Reads images by their number in the data set.
pub(super) struct Images {
    pub(super) data: Dataset,
    /// What is made of each image, without repetitions.
    bases: Vec<Base>,
    /// For each view the number of its base.
    of_view: Vec<usize>,
    cache: Cache,
    max_bad: f64,
    on_bad: OnBad,
    bad: Mutex<BTreeMap<usize, String>>,
}

impl Images {
    pub(super) fn new(data: Dataset, settings: &LoaderSettings) -> Images {
        let mut bases: Vec<Base> = Vec::new();
        let mut of_view = Vec::new();
        for base in settings.views.iter().map(|view| view.base()) {
            let known = bases.iter().position(|known| *known == base);
            of_view.push(known.unwrap_or(bases.len()));
            if known.is_none() {
                bases.push(base);
            }
        }
        // Raw images that need no preparation are in memory already.
        let shape = data.shape().map(|(width, height, channels)| [width, height, channels]);
        let as_is = shape.is_some_and(|shape| bases.iter().all(|base| base.keeps(shape)));
        let cache = if as_is { Cache::none() } else { Cache::new(data.len(), settings.cache.clone()) };
        let (max_bad, on_bad) = (settings.max_bad, settings.on_bad);
        Images { data, bases, of_view, cache, max_bad, on_bad, bad: Mutex::default() }
    }

    /// The number of a view's base in what [`Images::usable`] returns.
    pub(super) fn base_of(&self, view: usize) -> usize {
        self.of_view[view]
    }

    /// The unusable images found so far: where each is, and why.
    pub(super) fn bad(&self) -> Vec<String> {
        lock(&self.bad).values().cloned().collect()
    }

    /// The image wanted, or what takes its place: its number, and what was made of it.
    pub(super) fn usable(&self, wanted: usize) -> Result<Option<(usize, Arc<Prepared>)>> {
        let n = self.data.len();
        for step in 0..n {
            let i = (wanted + step) % n;
            match self.prepared(i) {
                Ok(image) => return Ok(Some((i, image))),
                Err(why) => self.note_bad(i, &why)?,
            }
            if self.on_bad == OnBad::Skip {
                return Ok(None);
            }
        }
        Err(Error::data(self.data.root(), format!("none of the {n} images can be used")))
    }

    /// Image `i`, decoded and prepared for all views.
    fn prepared(&self, i: usize) -> Result<Arc<Prepared>> {
        if let Some(image) = self.cache.get(i) {
            return Ok(image);
        }
        if let Some(why) = self.data.known_bad(i) {
            return Err(Error::data(self.data.place(i), why));
        }
        // Decoded once: what needs less is made of the same pixels.
        let side = self.bases.iter().map(Base::side).max().unwrap_or(1);
        let mut image = Some(self.data.image_for(i, side)?);
        let mut prepared = Vec::with_capacity(self.bases.len());
        for (b, base) in self.bases.iter().enumerate() {
            let image = if b + 1 < self.bases.len() { image.clone() } else { image.take() };
            let Some(image) = image else { continue };
            prepared.push(base.make(image).map_err(|e| Error::data(self.data.place(i), e.to_string()))?);
        }
        let prepared = Arc::new(prepared);
        self.cache.put(i, &prepared);
        Ok(prepared)
    }

    /// Counts an unusable image; an error when there are too many.
    fn note_bad(&self, i: usize, why: &Error) -> Result<()> {
        self.data.note_bad(i, why);
        let mut bad = lock(&self.bad);
        bad.entry(i).or_insert_with(|| self.data.known_bad(i).unwrap_or_else(|| why.to_string()));
        let (found, n, most) = (bad.len(), self.data.len(), self.max_bad);
        let too_many = found as f64 > most * n as f64 && (found > 1 || most == 0.0);
        if !too_many && found < n {
            return Ok(());
        }
        let first: Vec<&str> = bad.values().take(3).map(String::as_str).collect();
        let problem = format!(
            "at least {found} of {n} images cannot be used, more than --max-bad {}% allows; the first: {}",
            most * 100.0,
            first.join("; ")
        );
        Err(Error::data(self.data.root(), problem))
    }
}
