//! What a model looked at: which parts of an image its answer depends on.
//!
//! The map is found by occlusion (Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2): a patch covers one
//! place after another, and where the probability of the class falls, the answer depends on what was covered. That takes no
//! gradients, so it works for every model that runs here, int8 and convolutional ones too. The patch has the mean colour
//! of the images that the model learned from, which normalisation makes zero; the image's own mean holds some of what was
//! covered.

mod overlay;
mod palette;

use smalti_models::Preprocess;
use smalti_models::image::View;
use smalti_models::preprocess::Scratch;

use crate::error::{Error, Result};
use crate::load::Model;
use crate::session::{Output, Session};

pub use palette::palette;

/// Cells that a patch reaches to each side of its centre: a quarter of the image at the default grid, about as much as in
/// the paper.
const REACH: usize = 1;

/// What is asked of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The number of the class; none for the most probable one.
    pub class: Option<usize>,
    /// Cells a side, at most one for each pixel of the input: the model runs once for each cell, and once more.
    pub grid: usize,
}

impl Settings {
    /// The most cells a side: 4,096 runs.
    pub const MAX_GRID: usize = 64;
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { class: None, grid: 12 }
    }
}

/// How much the probability of a class falls when parts of an image are covered.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// The number of the class.
    pub class: usize,
    /// Its probability for the whole image.
    pub probability: f32,
    /// How often the model ran.
    pub runs: usize,
    /// Cells across and down.
    cells: [usize; 2],
    /// Rows of cells: the mean fall of the probability over all patches that covered the cell.
    falls: Vec<f32>,
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

impl HeatMap {
    /// Cells across and down.
    pub fn cells(&self) -> [usize; 2] {
        self.cells
    }

    /// For each cell, row by row, the mean fall of the probability over all patches that covered it: -1 to 1, negative
    /// where the class became more probable.
    pub fn falls(&self) -> &[f32] {
        &self.falls
    }

    /// The centre of the cell where the probability falls most; of equal ones the first.
    pub fn peak(&self) -> Peak {
        let start = (0, f32::NEG_INFINITY);
        let larger =
            |best: (usize, f32), (i, &fall): (usize, &f32)| if fall > best.1 { (i, fall) } else { best };
        let (cell, fall) = self.falls.iter().enumerate().fold(start, larger);
        let [left, top, right, bottom] = self.region;
        let centre =
            |i: usize, count: usize, from: f64, to: f64| from + (to - from) * (i as f64 + 0.5) / count as f64;
        let [across, down] = self.cells;
        Peak {
            x: centre(cell % across, across, left, right),
            y: centre(cell / across, down, top, bottom),
            fall,
        }
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
    settings: &Settings,
    step: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<HeatMap> {
    let model = session.model().clone();
    let (preprocess, size) = (model.known_preprocess()?, model.input().size());
    let mut scratch = Scratch::default();
    let unusable = |error| Error::data("image", error);
    let pixels = preprocess.apply_to(size, image, &mut scratch).map_err(unusable)?;
    let (from, channels) = ([image.width(), image.height()], preprocess.channels);
    let [left, top, right, bottom] = preprocess.visible_region(from, size).map_err(unusable)?;
    let [width, height] = from.map(|side| side as f64);
    let region = [left / width, top / height, right / width, bottom / height];

    if !(1..=Settings::MAX_GRID).contains(&settings.grid) {
        let (found, most) = (settings.grid, Settings::MAX_GRID);
        return Err(Error::Usage(format!("a grid of {found} cells a side: expected 1 to {most}")));
    }
    let cells = size.map(|side| settings.grid.min(side));
    let patches = cells[0] * cells[1];
    let mut runs = Runs { session, model: &model, output: model.output(), ranked: Vec::new() };
    step(0, patches + 1)?;
    let (class, probability) = runs.answer(pixels, settings.class)?;

    let (colour, mut covered) = (mean_colour(preprocess), pixels.to_vec());
    let (mut sums, mut counts) = (vec![0.0; patches], vec![0.0; patches]);
    for patch in 0..patches {
        step(patch + 1, patches + 1)?;
        let reach = [patch % cells[0], patch / cells[0]]
            .map(|centre| (centre.saturating_sub(REACH), centre + REACH + 1));
        let [across, down] = [0, 1].map(|axis| reach[axis].0..reach[axis].1.min(cells[axis]));
        let edge = |axis: usize, cell: usize| cell * size[axis] / cells[axis];
        let row = edge(0, across.start) * channels..edge(0, across.end) * channels;
        covered.copy_from_slice(pixels);
        for y in edge(1, down.start)..edge(1, down.end) {
            let row = y * size[0] * channels + row.start..y * size[0] * channels + row.end;
            covered[row].chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(&colour));
        }
        let fall = probability - runs.answer(&covered, Some(class))?.1;
        for cell in down.flat_map(|y| across.clone().map(move |x| y * cells[0] + x)) {
            sums[cell] += fall;
            counts[cell] += 1.0;
        }
    }
    let falls = sums.iter().zip(&counts).map(|(sum, count)| sum / count).collect();
    Ok(HeatMap { class, probability, runs: patches + 1, cells, falls, region })
}

/// Runs of a model on prepared pixels.
struct Runs<'a> {
    session: &'a mut Session,
    model: &'a Model,
    output: Output,
    ranked: Vec<(usize, f32)>,
}

impl Runs<'_> {
    /// The probability of a class, or the most probable class and its probability.
    fn answer(&mut self, pixels: &[u8], class: Option<usize>) -> Result<(usize, f32)> {
        self.session.run_pixels_into(pixels, &mut self.output)?;
        self.model.rank_into(&self.output.logits, &mut self.ranked);
        let found = self.ranked.iter().find(|(index, _)| class.is_none_or(|class| class == *index));
        found.copied().ok_or_else(|| {
            let (class, classes) = (class.unwrap_or_default(), self.ranked.len());
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
