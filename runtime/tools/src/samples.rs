//! Images to calibrate with and to measure on, from a folder or from memory, with their classes where known.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use smalti_models::Image;

use crate::threads;
use smalti_runtime::Model;
use smalti_runtime::images::{self, DataFolder};
use smalti_runtime::session::Output;
use smalti_runtime::{Error, Result};

/// One image.
#[derive(Clone, Debug)]
pub struct Sample {
    /// How messages name it.
    pub name: String,
    /// Where its pixels are.
    pub source: Source,
    /// Its class among the model's labels, where that is known.
    pub class: Option<usize>,
}

/// Where a sample's pixels are.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read and decoded when it is needed.
    File(PathBuf),
    /// Already decoded.
    Memory(Image),
}

impl Sample {
    /// An image file.
    pub fn file(path: PathBuf, class: Option<usize>) -> Sample {
        Sample { name: path.display().to_string(), source: Source::File(path), class }
    }

    /// The image as far as that model needs it; an error of kind [`Error::Data`] names a file that cannot be used.
    pub fn open_for(&self, model: &Model) -> Result<Cow<'_, Image>> {
        Ok(match &self.source {
            Source::File(path) => Cow::Owned(images::open_for(path, model)?),
            Source::Memory(image) => Cow::Borrowed(image),
        })
    }
}

/// The images of a folder to measure on ([`DataFolder::labelled`]), without classes where those are not the labels
/// ([`DataFolder::measuring`]).
///
/// # Errors
/// See [`DataFolder::read`].
pub fn folder(path: &Path, labels: &[String]) -> Result<Vec<Sample>> {
    Ok(measuring(&DataFolder::read(path, labels)?, labels))
}

/// [`folder`] of one that has been read.
pub fn measuring(data: &DataFolder, labels: &[String]) -> Vec<Sample> {
    match data.labelled(labels) {
        Ok(found) => {
            found.split.iter().for_each(|split| log::info!("measuring on the {split} split"));
            found.images.into_iter().map(|(path, class)| Sample::file(path, Some(class))).collect()
        }
        Err(why) => {
            log::info!("measuring without labels: {why}");
            data.measuring().into_iter().map(|path| Sample::file(path, None)).collect()
        }
    }
}

/// The images of a folder to calibrate with ([`DataFolder::calibration`]), without classes.
pub fn calibration(data: &DataFolder) -> Vec<Sample> {
    data.calibration().into_iter().map(|path| Sample::file(path, None)).collect()
}

/// Whether every sample has a class. No samples have none.
pub fn labelled(samples: &[Sample]) -> bool {
    !samples.is_empty() && samples.iter().all(|sample| sample.class.is_some())
}

/// At most `most` of the items, spread evenly: the first, and the others at equal distances.
pub fn spread<T: Clone>(items: &[T], most: usize) -> Vec<T> {
    let kept = most.min(items.len());
    (0..kept).filter_map(|i| items.get(i * items.len() / kept)).cloned().collect()
}

/// What a model gives for each sample, or what is wrong with the sample; in order.
pub type Outputs = Vec<Result<Output, String>>;

/// Runs a model over all samples, `threads` at a time; `step` is called after each with how many are done.
///
/// Samples that cannot be used are part of the answer; any other failure ends the run.
pub fn outputs(
    model: &Model,
    samples: &[Sample],
    threads: usize,
    step: &(dyn Fn(usize) + Sync),
) -> Result<Outputs> {
    let done = AtomicUsize::new(0);
    let step = || step(done.fetch_add(1, Ordering::Relaxed) + 1);
    threads::share("run a model over images", samples, threads, |part| one_thread(model, part, &step))
}

/// One thread's share.
fn one_thread(model: &Model, samples: &[Sample], step: &(dyn Fn() + Sync)) -> Result<Outputs> {
    let mut session = model.session()?;
    let mut outputs = Vec::with_capacity(samples.len());
    for sample in samples {
        let output = sample.open_for(model).and_then(|image| session.classify(&image));
        outputs.push(match output {
            Ok(prediction) => Ok(prediction.output),
            Err(Error::Data { problem, .. }) => Err(problem),
            Err(other) => return Err(other),
        });
        step();
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_evenly() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4), [0, 2, 5, 7]);
        assert_eq!(spread(&[1, 2], 5), [1, 2]);
        assert!(spread(&[1, 2], 0).is_empty() && spread::<u8>(&[], 3).is_empty());
    }

    #[test]
    fn a_folder_has_classes_only_where_the_labels_match() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("cat")).unwrap();
        std::fs::write(root.path().join("cat/1.png"), b"x").unwrap();
        let labels = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let class = |names: &[&str]| folder(root.path(), &labels(names)).unwrap()[0].class;
        assert_eq!((class(&["dog", "cat"]), class(&["dog", "ant"])), (Some(1), None));
        assert_eq!(folder(&root.path().join("none"), &labels(&["cat"])).unwrap_err().exit_code(), 6);
    }

    #[test]
    fn a_bad_sample_is_part_of_the_answer() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models");
        let model = Model::open(models.join("colours_u8.onnx")).unwrap();
        let red = Sample::file(models.join("red.png"), Some(0));
        let samples = [red.clone(), Sample::file("none.png".into(), None), red];
        let found = outputs(&model, &samples, 2, &|_| ()).unwrap();
        assert!(found[0].is_ok() && found[1].is_err());
        assert_eq!(found[0], found[2]);
        assert!(outputs(&model, &[], 2, &|_| ()).unwrap().is_empty());
    }
}
