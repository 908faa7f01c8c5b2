//! Images that look like one that has a label or was chosen: labelling them would teach little.

use rayon::prelude::*;
use smalti_trainer::data::Dataset;
use smalti_trainer::data::audit::ImageHash;

/// The side that photos are decoded for: a hash looks at 9 x 8 pixels.
const SIDE: usize = 64;

/// What is labelled or chosen, by its looks.
pub(super) struct Repeats(Vec<ImageHash>);

impl Repeats {
    /// The labelled images, as far as they can be read.
    pub(super) fn of_labelled(data: &Dataset) -> Repeats {
        let labelled: Vec<usize> = (0..data.len()).filter(|i| data.label(*i).is_some()).collect();
        Repeats(labelled.into_par_iter().filter_map(|i| hash(data, i)).collect())
    }

    /// Whether an image can be read and looks like none of these; it is one of them from now on.
    pub(super) fn accept(&mut self, data: &Dataset, i: usize) -> bool {
        let Some(hash) = hash(data, i).filter(|hash| !self.0.iter().any(|known| known.looks_like(hash)))
        else {
            return false;
        };
        self.0.push(hash);
        true
    }
}

/// An image that cannot be read was named when it was embedded.
fn hash(data: &Dataset, i: usize) -> Option<ImageHash> {
    ImageHash::of(data.image_for(i, SIDE).ok()?).ok()
}
