//! The images to choose from, with the labels that there are.

use std::path::Path;

use smalti_trainer::Result;
use smalti_trainer::data::{Dataset, Split};

/// The images of a folder that may be learned from; labels are those of a table, or of class folders, or `none`.
///
/// # Errors
/// Images that are not files of a folder, which a table could not name.
pub(super) fn open(folder: &Path, labels: Option<&Path>) -> Result<Dataset> {
    let data = Dataset::open(folder, Split::Train)?;
    data.files()?;
    let Some(path) = labels else { return Ok(data) };
    if path == Path::new("none") {
        return Ok(data.without_labels());
    }
    let labels = Dataset::from_table(path, folder)?.labelled();
    let known = data.with_labels_of(&labels);
    // A table may name images from elsewhere, too.
    match known.labelled().len() < labels.len() {
        true => Ok(known.with_images_of(&labels)?.with_labels_of(&labels)),
        false => Ok(known),
    }
}
