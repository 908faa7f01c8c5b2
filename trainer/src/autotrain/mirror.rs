//! Whether a mirrored photo is still one of its class.
//!
//! Left and right may be what tells classes apart (turns of a road, letters). A logistic regression on whole images, none of them
//! mirrored, says what held-out images are and what their mirror images are. Where it is right about the ones and not about the
//! others, mirroring would teach what is wrong.

use smalti_trainer::Result;
use smalti_trainer::data::{Dataset, augment};
use smalti_trainer::evaluate::top;

use super::Autotrain;
use super::compare::predictions;
use super::folds::folds;
use super::frozen::Frozen;

/// Images that are in memory at a time.
const BATCH: usize = 64;
/// Folds of the labelled images.
const FOLDS: usize = 3;
/// What counts as a difference, in standard errors, and as a share of the images.
const ERRORS: f64 = 2.0;
const SHARE: f64 = 0.05;

/// Whether mirror images are taken for other classes.
pub(super) fn changes_classes(job: &Autotrain<'_>, frozen: &Frozen, labelled: &Dataset) -> Result<bool> {
    let whole = frozen.whole();
    let mirrored = embed_mirrored(job, frozen, labelled, &whole.images)?;
    let classes = whole.classes;
    let [mut lost, mut won] = [0; 2];
    for fold in folds(labelled, FOLDS) {
        let head = whole.fit(Some(&fold.kept), Some(frozen.decay))?;
        let [says, says_mirrored] = [head.logits(&whole.rows)?, head.logits(&mirrored.rows)?];
        for (i, (image, label)) in whole.images.iter().zip(&whole.labels).enumerate() {
            if fold.held.binary_search(&(*image as usize)).is_err() {
                continue;
            }
            let Ok(j) = mirrored.images.binary_search(image) else { continue };
            let is_right =
                |logits: &[f32], row: usize| top(&logits[row * classes..][..classes]) == *label as usize;
            match (is_right(&says, i), is_right(&says_mirrored, j)) {
                (true, false) => lost += 1,
                (false, true) => won += 1,
                _ => {}
            }
        }
    }
    Ok(is_loss(lost, won, whole.images.len()))
}

/// Whether so many images that are no longer right, against those that are right now, are more than chance.
fn is_loss(lost: usize, won: usize, images: usize) -> bool {
    let difference = lost as f64 - won as f64;
    difference > ERRORS * ((lost + won) as f64).sqrt() && difference > SHARE * images as f64
}

/// Mirror images by the numbers of the images.
struct Mirrored {
    /// Rising.
    images: Vec<u32>,
    /// `[images, dim]`.
    rows: Vec<f32>,
}

/// Mirrors and embeds the labelled images of these numbers.
fn embed_mirrored(
    job: &Autotrain<'_>,
    frozen: &Frozen,
    labelled: &Dataset,
    numbers: &[u32],
) -> Result<Mirrored> {
    let mut all = Mirrored { images: Vec::new(), rows: Vec::new() };
    for numbers in numbers.chunks(BATCH) {
        // What cannot be read has no embedding of its own either.
        let mirror = |&number: &u32| {
            let i = number as usize;
            let image = labelled.image_for(i, frozen.classifier.preprocess.side()).ok()?;
            Some((number, (augment::mirrored(image).ok()?, labelled.label(i))))
        };
        let (numbers, images): (Vec<u32>, Vec<_>) = numbers.iter().filter_map(mirror).unzip();
        if images.is_empty() {
            continue;
        }
        let images = Dataset::from_images(labelled.classes().to_vec(), images)?;
        let found = predictions(job, &frozen.classifier, &images)?;
        all.images.extend(found.ids.iter().map(|id| numbers[*id as usize]));
        all.rows.extend(found.embeddings);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::is_loss;

    #[test]
    fn only_a_clear_loss_counts() {
        assert!(is_loss(20, 2, 60) && is_loss(9, 0, 60));
        assert!(!is_loss(6, 5, 60) && !is_loss(3, 0, 60) && !is_loss(2, 20, 60) && !is_loss(0, 0, 60));
        // Of very many images a few are no reason.
        assert!(!is_loss(30, 5, 1000) && is_loss(100, 5, 1000));
    }
}
