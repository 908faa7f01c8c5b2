//! The images of a run: the audit's findings, and a contact sheet of each class.

use serde::Serialize;
use smalti_trainer::data::{Dataset, Splits, audit};
use smalti_trainer::{Result, sheet};

use super::picture;
use super::source::RunImages;

/// Images of a row of a contact sheet, and their side in pixels.
const COLUMNS: usize = 8;
const SIDE: usize = 72;
/// Classes that have a row: of more, those with the most images.
const MAX_ROWS: usize = 30;

/// A data set as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DataSummary {
    pub(super) audit: audit::Report,
    /// Images that were learned from, and how many of them had a label that counted.
    pub(super) learned: usize,
    pub(super) labelled: usize,
    /// Labels of each class.
    pub(super) labels: Vec<audit::Class>,
    #[serde(skip)]
    pub(super) sheets: Vec<Sheet>,
}

/// Some images of one class.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    /// The class; none for images without a label.
    pub(super) class: Option<String>,
    pub(super) images: usize,
    pub(super) shown: usize,
    pub(super) uri: String,
}

impl DataSummary {
    /// Looks at the images, at most `most` of each split.
    pub(super) fn gather(images: &RunImages, most: usize) -> Result<DataSummary> {
        let learned = &images.learned;
        let counts = learned.class_counts();
        let labels = learned.classes().iter().zip(&counts);
        let mut classes: Vec<usize> = (0..counts.len()).filter(|class| counts[*class] > 0).collect();
        if classes.len() > MAX_ROWS {
            classes.sort_by_key(|class| std::cmp::Reverse(counts[*class]));
            classes.truncate(MAX_ROWS);
        }
        let rows = classes.into_iter().map(Some).chain([None]);
        Ok(DataSummary {
            audit: audit::look(&Splits::read(&images.root)?, most)?,
            learned: learned.len(),
            labelled: counts.iter().sum(),
            labels: labels
                .map(|(name, images)| audit::Class { name: name.clone(), images: *images })
                .collect(),
            sheets: rows.filter_map(|class| Sheet::of(learned, class).transpose()).collect::<Result<_>>()?,
        })
    }
}

impl Sheet {
    /// Images of a class, or without one; none where there is none that can be read.
    fn of(data: &Dataset, class: Option<usize>) -> Result<Option<Sheet>> {
        let label = class.map(|class| class as u32);
        let images: Vec<usize> = (0..data.len()).filter(|i| data.label(*i) == label).collect();
        let count = images.len().min(COLUMNS);
        let chosen = (0..count).map(|i| images[i * images.len() / count]);
        let tiles: Vec<_> = chosen.filter_map(|i| picture::thumbnail(data, i, SIDE).ok()).collect();
        if tiles.is_empty() {
            return Ok(None);
        }
        let name = class.and_then(|class| data.classes().get(class)).cloned();
        let uri = picture::uri(&sheet::sheet(&tiles, COLUMNS, 0)?)?;
        Ok(Some(Sheet { class: name, images: images.len(), shown: tiles.len(), uri }))
    }
}
