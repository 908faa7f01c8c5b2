//! A list of images with their labels: a split, or a choice of its images.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smalti_models::image::Image;

use super::classes::MAX_CLASSES;
use super::listing::Listing;
use super::source::{Source, Store};
use crate::error::{Error, Result};

/// A list of images, each with a label or without. Cheap to clone and to cut: the images are shared.
#[derive(Clone)]
pub struct Dataset {
    source: Arc<Source>,
    classes: Arc<[String]>,
    /// For each image its number in the source.
    items: Arc<[u32]>,
    /// For each image its class.
    labels: Arc<[Option<u32>]>,
}

/// An image, whatever data set lists it.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    /// A file of its own.
    File(&'a Path),
    /// A number in one source.
    Item(usize, u32),
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images in {} classes of {}", self.len(), self.classes.len(), self.root())
    }
}

impl Dataset {
    /// A data set of images in memory.
    pub fn from_images(classes: Vec<String>, images: Vec<(Image, Option<u32>)>) -> Result<Dataset> {
        let (images, labels) = images.into_iter().unzip();
        let (source, splits) = (Source::memory(images), Vec::new());
        Dataset::from_listing(Listing { source, labels, classes, splits, notes: Vec::new() })
    }

    pub(crate) fn from_listing(found: Listing) -> Result<Dataset> {
        let Listing { source, labels, classes, .. } = found;
        let (n, k) = (source.len(), classes.len());
        if n == 0 {
            return Err(Error::data(source.root(), "no images, expected at least one"));
        }
        if n > u32::MAX as usize || k > MAX_CLASSES {
            let problem = format!("{n} images in {k} classes, at most {} in {MAX_CLASSES}", u32::MAX);
            return Err(Error::data(source.root(), problem));
        }
        if labels.len() != n {
            return Err(Error::data(source.root(), format!("{} labels for {n} images", labels.len())));
        }
        if let Some(i) = labels.iter().position(|l| l.is_some_and(|l| l as usize >= k)) {
            let label = labels[i].unwrap_or_default();
            return Err(Error::data(
                source.place(i),
                format!("label {label}, but there are {k} classes (0-based)"),
            ));
        }
        Ok(Dataset {
            source: Arc::new(source),
            classes: classes.into(),
            items: (0..n as u32).collect(),
            labels: labels.into(),
        })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none: only a selection of none is empty.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The names of the classes, in the order of their labels. None for an unlabelled data set.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The label of image `i`, if it has one.
    pub fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied().flatten()
    }

    /// The labels of all images, or an error naming the first image without one.
    pub fn labels(&self) -> Result<Vec<u32>> {
        if self.classes.is_empty() {
            return Err(Error::data(
                self.root(),
                "the images carry no labels, expected class folders, a CSV table `path,label`, IDX or CIFAR-10 \
                 files; an unlabelled set can only be pretrained on; `smalti label` gives labels",
            ));
        }
        let labels: Option<Vec<u32>> = self.labels.iter().copied().collect();
        labels.ok_or_else(|| {
            let first = self.labels.iter().position(Option::is_none).unwrap_or_default();
            let missing = self.labels.iter().filter(|l| l.is_none()).count();
            let problem = format!("no label; {missing} of {} images have none", self.len());
            Error::data(self.place(first), problem)
        })
    }

    /// The images that have a label.
    pub fn labelled(&self) -> Dataset {
        let labelled: Vec<usize> = (0..self.len()).filter(|&i| self.label(i).is_some()).collect();
        self.select(&labelled)
    }

    /// How many images have each label.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for label in self.labels.iter().flatten() {
            if let Some(count) = counts.get_mut(*label as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Where image `i` is, for messages.
    pub fn place(&self, i: usize) -> String {
        self.items.get(i).map_or_else(|| self.root(), |&item| self.source.place(item as usize))
    }

    /// What image `i` is called within its data set, the same wherever the data set lies: a path from its root, a file
    /// and a number.
    pub fn key(&self, i: usize) -> String {
        self.items.get(i).map_or_else(String::new, |&item| self.source.key(item as usize))
    }

    /// Where the data set is, for messages.
    pub fn root(&self) -> String {
        self.source.root()
    }

    /// What kind of data set this is, for messages.
    pub fn kind(&self) -> &'static str {
        self.source.kind()
    }

    /// Channels and size shared by all images where the kind of data set fixes them: `(width, height, channels)`.
    pub fn shape(&self) -> Option<(usize, usize, usize)> {
        self.source.shape()
    }

    /// Image `i` as it was made, turned as its EXIF record says.
    pub fn image(&self, i: usize) -> Result<Image> {
        self.image_at(i, None)
    }

    /// As [`Dataset::image`], for a resize of the short side to `side` pixels: of a much larger JPEG a smaller picture is
    /// decoded ([`decode_for`](smalti_models::image::decode_for)), as the runtime does.
    pub fn image_for(&self, i: usize, side: usize) -> Result<Image> {
        self.image_at(i, Some(side))
    }

    fn image_at(&self, i: usize, side: Option<usize>) -> Result<Image> {
        match self.items.get(i) {
            Some(&item) => self.source.image(item as usize, side),
            None => Err(Error::data(self.root(), format!("no image {i}, there are {}", self.len()))),
        }
    }

    /// The images with these numbers, in this order; numbers out of range are left out.
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let pairs = indices.iter().filter_map(|&i| Some((*self.items.get(i)?, *self.labels.get(i)?)));
        let (items, labels): (Vec<u32>, Vec<Option<u32>>) = pairs.unzip();
        Dataset { items: items.into(), labels: labels.into(), ..self.clone() }
    }

    /// The same images, none with a label.
    pub fn without_labels(&self) -> Dataset {
        Dataset { labels: vec![None; self.len()].into(), ..self.clone() }
    }

    /// The same images with the labels that `labelled` has of them, and no others, under its classes.
    pub fn with_labels_of(&self, labelled: &Dataset) -> Dataset {
        let label_of: HashMap<Identity<'_>, Option<u32>> = labelled
            .items
            .iter()
            .zip(&*labelled.labels)
            .map(|(item, label)| (labelled.identity(*item), *label))
            .collect();
        let labels =
            self.items.iter().map(|item| label_of.get(&self.identity(*item)).copied().flatten()).collect();
        Dataset { classes: labelled.classes.clone(), labels, ..self.clone() }
    }

    /// What tells whether an image of another data set is the same one.
    fn identity(&self, item: u32) -> Identity<'_> {
        match self.source.file(item as usize) {
            Some(file) => Identity::File(file),
            None => Identity::Item(Arc::as_ptr(&self.source) as usize, item),
        }
    }

    /// These images and those of another data set, which lose their labels. An image that both have is there once.
    ///
    /// # Errors
    /// Images that are not files of their own.
    pub fn with_images_of(&self, other: &Dataset) -> Result<Dataset> {
        let mut files = self.files()?;
        let mut labels = self.labels.to_vec();
        let known: HashSet<PathBuf> = files.iter().cloned().collect();
        let more = other.files()?;
        files.extend(more.into_iter().filter(|file| !known.contains(file)));
        labels.resize(files.len(), None);
        let source = Source::new(Path::new(&self.root()), self.kind(), Store::Files(files));
        let (classes, splits) = (self.classes.to_vec(), Vec::new());
        Dataset::from_listing(Listing { source, labels, classes, splits, notes: Vec::new() })
    }

    /// The files of all images, in order.
    ///
    /// # Errors
    /// Images that are not files of their own.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let files = self.items.iter().map(|&item| self.source.file(item as usize).map(Path::to_owned));
        files.collect::<Option<_>>().ok_or_else(|| {
            let problem = format!("{}: expected a folder of image files or a table of them", self.kind());
            Error::data(self.root(), problem)
        })
    }

    /// The same images under another list of classes, labels translated by name: for measuring a model, whose list
    /// this is, on a data set of its own.
    pub fn with_classes(&self, classes: &[String]) -> Result<Dataset> {
        let places: Vec<Option<u32>> = self
            .classes
            .iter()
            .map(|name| classes.iter().position(|c| c == name).map(|p| p as u32))
            .collect();
        let mut labels = Vec::with_capacity(self.len());
        for (i, label) in self.labels.iter().enumerate() {
            labels.push(match label {
                None => None,
                Some(label) => match places.get(*label as usize) {
                    Some(Some(place)) => Some(*place),
                    _ => {
                        let name = self.classes.get(*label as usize).map_or("?", String::as_str);
                        let known =
                            classes.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
                        let problem =
                            format!("class `{name}` is not one of the {} expected: {known}", classes.len());
                        return Err(Error::data(self.place(i), problem));
                    }
                },
            });
        }
        Ok(Dataset { classes: classes.into(), labels: labels.into(), ..self.clone() })
    }

    /// Marks image `i` as unusable, naming it to the user the first time.
    pub(crate) fn note_bad(&self, i: usize, why: &Error) {
        if let Some(&item) = self.items.get(i) {
            self.source.note_bad(item as usize, why);
        }
    }

    /// Whether image `i` is known to be unusable, and why.
    pub(crate) fn known_bad(&self, i: usize) -> Option<String> {
        self.source.known_bad(*self.items.get(i)? as usize)
    }
}
