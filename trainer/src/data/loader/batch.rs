//! What a loader hands out.

use std::ops::Range;

/// Images that the model sees together. Of several ranks each has its own part of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch's number in the epoch, from 0.
    pub index: u64,
    /// The images' numbers in the data set.
    pub ids: Vec<u32>,
    /// For each view the normalised pixels, `[image, channel, row, column]`.
    pub views: Vec<Vec<f32>>,
    /// The images' labels.
    pub labels: Vec<Option<u32>>,
    /// Images of the whole batch.
    pub total: usize,
    /// Where in the whole batch this rank's own images are.
    pub own: Range<usize>,
    /// Where in this part they begin; around them are images that they are mixed with.
    pub at: usize,
}

impl Batch {
    /// How many images the batch holds.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it holds none: only where a rank has no share of a small batch.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The first view's pixels.
    pub fn pixels(&self) -> &[f32] {
        self.views.first().map_or(&[], Vec::as_slice)
    }

    /// The first view's pixels.
    pub fn pixels_mut(&mut self) -> &mut [f32] {
        self.views.first_mut().map_or(&mut [], Vec::as_mut_slice)
    }

    /// Where in this part the images are that have these places in the whole batch.
    pub fn places(&self, whole: Range<usize>) -> Range<usize> {
        let place = |i: usize| (i + self.at).saturating_sub(self.own.start);
        place(whole.start)..place(whole.end)
    }
}
