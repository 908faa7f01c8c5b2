//! The images of a quickstart: drawn for the occasion, or the user's own.

use std::path::{Path, PathBuf};

use smalti_trainer::Result;
use smalti_trainer::data::synthetic::Drawing;
use smalti_trainer::data::{Dataset, LabelSpec, Split, Splits, pick_labels};
use smalti_trainer::run::Owner;

use super::recipe::Recipe;

/// The seed of the drawn set.
const SEED: u64 = 0;
/// The share of the user's images that is kept back where there is no test split.
const HELD_OUT: f64 = 0.2;
/// More test images than this are not measured on.
const MAX_TEST_IMAGES: usize = 1000;

/// What a quickstart learns from and is measured on.
pub(super) struct Images {
    /// Where they are.
    pub(super) path: PathBuf,
    /// Images to learn from, labels or not.
    pub(super) train: Dataset,
    /// Held-out images; none without labels.
    pub(super) test: Option<Dataset>,
    /// Whether the test images were kept back from the train split.
    pub(super) held_out: bool,
}

/// Draws the set into `folder`, a subfolder of the owner's.
pub(super) fn draw(
    folder: &Path,
    recipe: &Recipe,
    owner: &Owner,
    stop: &(dyn Fn() -> Option<u8> + Sync),
) -> Result<()> {
    let drawing = Drawing { train: recipe.train, test: recipe.test, size: recipe.img_size, seed: SEED };
    let names: Vec<PathBuf> = drawing
        .files()
        .iter()
        .filter_map(|name| Some(folder.strip_prefix(owner.folder()).ok()?.join(name)))
        .collect();
    owner.add(names.iter().map(PathBuf::as_path))?;
    drawing.write(folder, stop)
}

/// Opens a set, with some of it for tests.
pub(super) fn open(path: &Path) -> Result<Images> {
    let data = Splits::open(path)?;
    let all = data.dataset(Split::Train)?;
    let at = |train, test, held_out| Images { path: path.into(), train, test, held_out };
    if all.classes().len() < 2 {
        return Ok(at(all, None, false));
    }
    for split in [Split::Test, Split::Val].into_iter().filter(|split| data.has(*split)) {
        let test = data.dataset(split)?.labelled();
        if !test.is_empty() {
            return Ok(at(all, Some(at_most(&test, MAX_TEST_IMAGES)), false));
        }
    }
    let held = pick_labels(&all, &LabelSpec::Share(HELD_OUT), SEED)?;
    let kept: Vec<usize> = (0..all.len()).filter(|i| held.binary_search(i).is_err()).collect();
    let test = at_most(&all.select(&held), MAX_TEST_IMAGES);
    Ok(at(all.select(&kept), Some(test), true))
}

/// At most so many images, evenly spread.
pub(super) fn at_most(data: &Dataset, most: usize) -> Dataset {
    let (len, n) = (data.len(), data.len().min(most));
    data.select(&(0..n).map(|i| i * len / n).collect::<Vec<_>>())
}
