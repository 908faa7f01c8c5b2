//! What a model looked at: which parts of an image its answer depends on.
//!
//! The map is found by occlusion (Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2): a patch covers one
//! place after another, and where the probability of the class falls, the answer depends on what was covered. That takes no
//! gradients, so it works for every model that runs here, int8 and convolutional ones too. The patch has the mean colour
//! of the images that the model learned from, which normalisation makes zero; the image's own mean holds some of what was
//! covered.

mod drawing;

use smalti_models::heat_map::{HeatMap, Occlusion};
use smalti_models::image::View;
use smalti_models::preprocess::Scratch;
use smalti_models::{Image, Preprocess};

use crate::bank::{Answer, ClassBank};
use crate::error::{Error, Result};
use crate::load::Model;
use crate::session::{Output, Session};

pub(crate) use drawing::draw;

/// What is asked of a map.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The number of the class; none for the most probable one.
    pub class: Option<usize>,
    /// Learned classes beside the model's; the class is then one of [`ClassBank::labels`].
    pub bank: Option<&'a ClassBank>,
    /// Cells a side, at most one for each pixel of the input: the model runs once for each cell, and once more.
    pub grid: usize,
}

impl Settings<'_> {
    /// The most cells a side: 4,096 runs.
    pub const MAX_GRID: usize = 64;
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings { class: None, bank: None, grid: 12 }
    }
}

/// A fall of the probability that is drawn at full strength, unless the largest one is more: where nothing matters, nothing
/// is to shine.
const FULL: f32 = 0.05;

/// How much the probability of a class falls when parts of an image are covered.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The number of the class.
    pub class: usize,
    /// Its probability for the whole image.
    pub probability: f32,
    /// How often the model ran.
    pub runs: usize,
    /// For each cell the mean fall of the probability over all patches that covered it: -1 to 1, negative where the class
    /// became more probable.
    pub map: HeatMap,
    /// What the model saw of the image: left, top, right, bottom as fractions of width and height.
    region: [f64; 4],
}

/// The place on which an answer depends most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// From the left, as a fraction of the image's width.
    pub x: f64,
    /// From the top, as a fraction of the image's height.
    pub y: f64,
    /// How much the probability falls when it is covered.
    pub fall: f32,
}

impl Explanation {
    /// The centre of the cell where the probability falls most; of equal ones the first.
    pub fn peak(&self) -> Peak {
        let ([x, y], fall) = self.map.peak();
        let [left, top, right, bottom] = self.region;
        Peak { x: left + x * (right - left), y: top + y * (bottom - top), fall }
    }

    /// The map over its image, in RGB: the image in grey, and over it dark blue where the answer does not depend on it,
    /// rose, and pale yellow where it depends most; darkened where the model did not see it. The longer side has 480 to
    /// 1024 pixels.
    ///
    /// # Errors
    /// [`Error::Data`] for an image that is too long to be drawn.
    pub fn over(&self, image: &Image) -> Result<Image> {
        let full = self.map.values().iter().copied().fold(FULL, f32::max);
        draw(&self.map, image, self.region, full)
    }
}

/// Covers one place of an image after another and measures by how much the probability of a class falls. `step` is called
/// before each run of the model with how many are done, and of how many; its error ends the work.
///
/// # Errors
/// [`Error::Usage`] for a model without preprocessing, a class that it does not have or a grid of other than 1 to
/// [`Settings::MAX_GRID`] cells, [`Error::Data`] for an image that the model cannot answer, and those of `step`.
pub fn occlusion(
    session: &mut Session,
    image: View<'_>,
    settings: &Settings<'_>,
    step: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Explanation> {
    let model = session.model().clone();
    let (preprocess, size) = (model.known_preprocess()?, model.input().size());
    let mut scratch = Scratch::default();
    let unusable = |error| Error::data("image", error);
    let pixels = preprocess.apply_to(size, image, &mut scratch).map_err(unusable)?;
    let from = [image.width(), image.height()];
    let region = preprocess.visible_region(from, size).map_err(unusable)?;

    if !(1..=Settings::MAX_GRID).contains(&settings.grid) {
        let (found, most) = (settings.grid, Settings::MAX_GRID);
        return Err(Error::Usage(format!("a grid of {found} cells a side: expected 1 to {most}")));
    }
    let mut occlusion = Occlusion::new(size, settings.grid);
    let patches = occlusion.patches();
    let (output, answer) = (model.output(), Answer::default());
    let mut runs = Runs { session, model: &model, bank: settings.bank, output, answer };
    step(0, patches + 1)?;
    let (class, probability) = runs.answer(pixels, settings.class)?;

    let (colour, mut covered) = (mean_colour(preprocess), pixels.to_vec());
    for patch in 0..patches {
        step(patch + 1, patches + 1)?;
        covered.copy_from_slice(pixels);
        let [columns, rows] = occlusion.pixels(patch);
        for row in covered.chunks_exact_mut(size[0] * colour.len()).skip(rows.start).take(rows.len()) {
            let pixels = row.chunks_exact_mut(colour.len());
            pixels.skip(columns.start).take(columns.len()).for_each(|pixel| pixel.copy_from_slice(&colour));
        }
        occlusion.add(patch, probability - runs.answer(&covered, Some(class))?.1);
    }
    Ok(Explanation { class, probability, runs: patches + 1, map: occlusion.finish(), region })
}

/// Runs of a model on prepared pixels.
struct Runs<'a> {
    session: &'a mut Session,
    model: &'a Model,
    bank: Option<&'a ClassBank>,
    output: Output,
    answer: Answer,
}

impl Runs<'_> {
    /// The probability of a class, or the most probable class and its probability.
    fn answer(&mut self, pixels: &[u8], class: Option<usize>) -> Result<(usize, f32)> {
        self.session.run_pixels_into(pixels, &mut self.output)?;
        match self.bank {
            Some(bank) => bank.answer_into(self.model, &self.output, &mut self.answer)?,
            None => self.model.rank_into(&self.output.logits, &mut self.answer.ranked),
        }
        let found = self.answer.ranked.iter().find(|(index, _)| class.is_none_or(|class| class == *index));
        found.copied().ok_or_else(|| {
            let (class, classes) = (class.unwrap_or_default(), self.answer.ranked.len());
            Error::Usage(format!("class {class} of a model with {classes} classes"))
        })
    }
}

/// The mean of each channel over the images that the model learned from.
fn mean_colour(preprocess: &Preprocess) -> Vec<u8> {
    // A conversion from floats saturates.
    preprocess.mean.iter().map(|mean| (255.0 * mean).round() as u8).collect()
}

#[cfg(test)]
mod tests;
