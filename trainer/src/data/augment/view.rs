//! One of the forms in which a batch shows an image.

use smalti_models::Preprocess;
use smalti_models::image::Image;

use super::Augment;
use super::base::Base;
use super::draw::Draw;
use crate::error::Result;

/// How an image becomes a model's input: the changes, and the input's shape and normalisation. The views of a batch
/// may differ in both: weak and strong changes for a consistency loss, or crops of another size for a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The changes to the image.
    pub augment: Augment,
    /// The model's input.
    pub preprocess: Preprocess,
    /// The short side of the image that random resized crops are cut from, if not twice the model's: views that agree in
    /// it cut the same parts at their own sizes.
    pub cut_from: Option<usize>,
}

impl View {
    /// A view whose crops follow from its own size.
    pub fn new(augment: Augment, preprocess: Preprocess) -> View {
        View { augment, preprocess, cut_from: None }
    }

    /// Refuses settings that cannot be carried out.
    pub fn check(&self) -> Result<()> {
        self.preprocess.check()?;
        self.augment.check(self.preprocess.img_size)
    }

    /// Values of one image: channels x side x side.
    pub fn values(&self) -> usize {
        self.preprocess.channels * self.preprocess.img_size * self.preprocess.img_size
    }

    /// The part of the work that is the same whenever the image is seen.
    pub(crate) fn base(&self) -> Base {
        Base::of(&self.augment, &self.preprocess, self.cut_from)
    }

    /// Changes an image that [`View::base`] made and writes it normalised to `out`: `[channel, row, column]`.
    pub(crate) fn apply(&self, base: &Image, draw: Draw, out: &mut [f32]) -> Result<()> {
        self.augment.apply(base, &self.preprocess, draw, out)
    }
}
