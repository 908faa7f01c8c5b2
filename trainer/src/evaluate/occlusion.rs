//! What a classifier looks at: how much less sure of a class it is where a part of the image is covered (Zeiler and Fergus 2014,
//! arXiv 1311.2901, section 4.2). It takes no gradients, so it works on any model that answers.

use smalti_models::Preprocess;

use super::{BATCH, probabilities};
use crate::error::{Error, Result};
use crate::model::classifier;
use crate::objective::mask::Mask;
use crate::stages::finetune::Finetuned;
use crate::train::step::{GradLanes, micro_batch};

/// Which parts are covered, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Side of the square that is covered, in pixels.
    pub side: usize,
    /// Pixels from one place of it to the next, both ways.
    pub stride: usize,
}

impl Cover {
    /// A quarter of an image's side, moved by half of that.
    pub fn of(img_size: usize) -> Cover {
        let side = (img_size / 4).max(1);
        Cover { side, stride: (side / 2).max(1) }
    }

    /// Where squares begin along one side, the last one at its end.
    fn starts(&self, img_size: usize) -> Vec<usize> {
        let last = img_size.saturating_sub(self.side);
        let mut starts: Vec<usize> = (0..last).step_by(self.stride.max(1)).collect();
        starts.push(last);
        starts
    }

    /// How often a model is asked about one image: for each place, and for the image as it is.
    pub fn questions(&self, img_size: usize) -> usize {
        self.starts(img_size).len().pow(2) + 1
    }
}

/// A map over an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Cells along each side.
    pub cells: usize,
    /// `[cells, cells]`; of occlusion the mean drop of the class's probability, over the squares that cover the cell.
    pub values: Vec<f64>,
}

/// The map of one image `[C, H, W]`, normalised. `ask` gives the probability of the class for each of a number of such images; what
/// is covered is 0, the mean colour.
///
/// # Errors
/// Those of `ask`.
pub fn map(
    planes: &[f32],
    img_size: usize,
    cover: Cover,
    mut ask: impl FnMut(&[f32], usize) -> Result<Vec<f64>>,
) -> Result<Map> {
    let starts = cover.starts(img_size);
    let places: Vec<[usize; 2]> =
        starts.iter().flat_map(|top| starts.iter().map(move |left| [*top, *left])).collect();
    let whole = ask(planes, 1)?.first().copied().unwrap_or(0.0);
    let cells = img_size.div_ceil(cover.stride.max(1));
    let (mut sums, mut counts) = (vec![0.0; cells * cells], vec![0usize; cells * cells]);
    for places in places.chunks(BATCH) {
        let mut covered = planes.repeat(places.len());
        for (image, [top, left]) in covered.chunks_exact_mut(planes.len()).zip(places) {
            for plane in image.chunks_exact_mut(img_size * img_size) {
                for row in plane.chunks_exact_mut(img_size).skip(*top).take(cover.side) {
                    row[*left..(*left + cover.side).min(img_size)].fill(0.0);
                }
            }
        }
        for (p, place) in ask(&covered, places.len())?.iter().zip(places) {
            // A cell counts where its middle is covered.
            let inside = |start: usize, cell: usize| {
                (start..start + cover.side)
                    .contains(&(cell * cover.stride + cover.stride / 2).min(img_size - 1))
            };
            for at in
                (0..cells * cells).filter(|at| inside(place[0], at / cells) && inside(place[1], at % cells))
            {
                sums[at] += whole - p;
                counts[at] += 1;
            }
        }
    }
    let values = sums.iter().zip(&counts).map(|(sum, n)| sum / (*n).max(1) as f64).collect();
    Ok(Map { cells, values })
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
) -> Result<Map> {
    let Preprocess { img_size, channels, .. } = model.preprocess;
    let mut planes = vec![0.0; img_size * img_size * channels];
    model.preprocess.normalise(bytes, &mut planes)?;
    if class >= model.model.classes() {
        return Err(Error::Usage(format!("class {class} of a model of {} classes", model.model.classes())));
    }
    map(&planes, img_size, Cover::of(img_size), |pixels, batch| {
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
    fn what_the_answer_depends_on_lights_up() {
        // The probability is the pixel at row 2, column 13 of 16.
        let mut planes = vec![0.0; 256];
        planes[2 * 16 + 13] = 0.8;
        let ask =
            |pixels: &[f32], n: usize| Ok((0..n).map(|i| f64::from(pixels[i * 256 + 2 * 16 + 13])).collect());
        let found = map(&planes, 16, Cover { side: 4, stride: 2 }, ask).unwrap();
        assert_eq!(found.cells, 8);
        assert!((found.values[8 + 6] - 0.8).abs() < 1e-6, "{found:?}");
        // Squares that cover the pixel reach as far as this.
        let lit = (0..64).filter(|at| found.values[*at] > 1e-6);
        assert!(lit.into_iter().all(|at| at / 8 <= 2 && at % 8 >= 5), "{found:?}");
    }

    #[test]
    fn every_cell_is_covered_at_any_size() {
        for img_size in [1, 2, 5, 28, 96, 97, 224] {
            let cover = Cover::of(img_size);
            let mut asked = 0;
            let found = map(&vec![1.0; img_size * img_size], img_size, cover, |pixels, n| {
                asked += n;
                // The mean brightness.
                let of = |image: &[f32]| f64::from(image.iter().sum::<f32>()) / image.len() as f64;
                Ok(pixels.chunks_exact(img_size * img_size).map(of).collect())
            })
            .unwrap();
            assert_eq!(asked, cover.questions(img_size));
            assert!(found.values.iter().all(|drop| *drop > 0.0), "{img_size}: {found:?}");
        }
    }
}
