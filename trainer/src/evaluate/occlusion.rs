//! What a classifier looks at: how much less sure of a class it is where a part of the image is covered (Zeiler and Fergus 2014,
//! arXiv 1311.2901, section 4.2). It takes no gradients, so it works on any model that answers.

use smalti_models::Preprocess;
use smalti_models::heat_map::{HeatMap, Occlusion};

use super::{BATCH, probabilities};
use crate::error::{Error, Result};
use crate::model::classifier;
use crate::objective::mask::Mask;
use crate::stages::finetune::Finetuned;
use crate::train::step::{GradLanes, micro_batch};

/// Cells a side, so that a patch of three is more than a quarter of it.
const GRID: usize = 8;

/// The map of one image `[C, H, W]`, normalised. `ask` gives the probability of the class for each of a number of such images; what
/// is covered is 0, the mean colour.
fn map(
    planes: &[f32],
    img_size: usize,
    mut ask: impl FnMut(&[f32], usize) -> Result<Vec<f64>>,
) -> Result<HeatMap> {
    let mut occlusion = Occlusion::new([img_size; 2], GRID);
    let whole = ask(planes, 1)?.first().copied().unwrap_or(0.0);
    let patches: Vec<usize> = (0..occlusion.patches()).collect();
    for patches in patches.chunks(BATCH) {
        let mut covered = planes.repeat(patches.len());
        for (image, patch) in covered.chunks_exact_mut(planes.len()).zip(patches) {
            let [columns, rows] = occlusion.pixels(*patch);
            for plane in image.chunks_exact_mut(img_size * img_size) {
                let rows = plane.chunks_exact_mut(img_size).skip(rows.start).take(rows.len());
                rows.for_each(|row| row[columns.clone()].fill(0.0));
            }
        }
        for (p, patch) in ask(&covered, patches.len())?.iter().zip(patches) {
            occlusion.add(*patch, (whole - p) as f32);
        }
    }
    Ok(occlusion.finish())
}

/// The map of a classifier's class `class` over an image of the model's input size, as bytes.
///
/// # Errors
/// An image of another size.
pub fn of_classifier(
    model: &Finetuned,
    bytes: &[u8],
    class: usize,
    lanes: &GradLanes<classifier::Activations<f32>>,
) -> Result<HeatMap> {
    let Preprocess { img_size, channels, .. } = model.preprocess;
    let mut planes = vec![0.0; img_size * img_size * channels];
    model.preprocess.normalise(bytes, &mut planes)?;
    if class >= model.model.classes() {
        return Err(Error::Usage(format!("class {class} of a model of {} classes", model.model.classes())));
    }
    map(&planes, img_size, |pixels, batch| {
        let vit = model.model.vit();
        let visible = Mask::none(batch, vit.patches()).visible;
        let input = classifier::Input { pixels, visible: &visible, drop: None, batch, batch_weight: None };
        let parts = lanes.map(batch, micro_batch(vit.tokens()), |part, acts| {
            let (logits, _) = model.model.predict(&model.params, input.slice(part.start, part.end), acts);
            let rows = logits.chunks_exact(model.model.classes());
            rows.map(|row| probabilities(row, 1.0)[class]).collect::<Vec<_>>()
        });
        Ok(parts.into_iter().flatten().collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_peaks_at_the_pixel_that_answers() {
        // The probability is the pixel in row 2 and column 13 of 16.
        let mut planes = vec![0.0; 256];
        planes[2 * 16 + 13] = 0.8;
        let mut asked = 0;
        let ask = |pixels: &[f32], n: usize| {
            asked += n;
            Ok((0..n).map(|i| f64::from(pixels[i * 256 + 2 * 16 + 13])).collect())
        };
        let found = map(&planes, 16, ask).unwrap();
        assert_eq!((found.cells(), asked), ([8, 8], 65));
        assert!((found.values()[8 + 6] - 0.8).abs() < 1e-6, "{found:?}");
        assert_eq!(found.values()[7 * 8], 0.0);
    }
}
