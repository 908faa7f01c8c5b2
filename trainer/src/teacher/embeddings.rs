//! What a frozen network says of whole images, kept in files of some thousand images each, so that an interrupted command
//! continues where it was:
//!
//! ```text
//! embeddings   f16 [images, width]   zeros where an image cannot be used
//! metadata     smalti: JSON of the first image, the network and the images
//! ```

use std::path::{Path, PathBuf};

use half::f16;
use serde_json::{Value, json};

use super::Teacher;
use crate::data::{Dataset, Loader, LoaderSettings};
use crate::error::{Error, Result};
use crate::files;
use crate::model::weights::file;
use crate::run::Owner;
use crate::train::ExecConfig;

/// Images of a batch.
const BATCH: usize = 64;
/// Images of a file: a multiple of a batch.
const PART: usize = 32 * BATCH;
/// The name of the only tensor.
const EMBEDDINGS: &str = "embeddings";
/// The folder of the files, in the owner's.
pub const FOLDER: &str = "embeddings";

/// An embedding of each image of a data set.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// `[images, width]`; zeros where an image cannot be used.
    pub rows: Vec<f32>,
    /// Values of an embedding.
    pub width: usize,
}

impl Embeddings {
    /// Lets the network see every image that the folder has no embedding of. `progress` hears of images embedded and images
    /// in all, and says whether to stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `progress` says so; too many images that cannot be read; the file system.
    pub fn of_images(
        owner: &Owner,
        network: &dyn Teacher,
        data: &Dataset,
        exec: &ExecConfig,
        progress: &mut dyn FnMut(usize, usize) -> Option<u8>,
    ) -> Result<Embeddings> {
        let config = network.config();
        let (width, all) = (config.width, data.len());
        let images = data.without_labels().fingerprint().digest;
        let parts = Parts { owner, width, all, about: json!({"network": config, "images": images}) };
        let mut rows = vec![0.0; all * width];
        let mut saved = parts.load(&mut rows);
        let rest: Vec<usize> = (saved..all).collect();
        if rest.is_empty() {
            return Ok(Embeddings { rows, width });
        }
        files::make_folder(&owner.folder().join(FOLDER))?;
        let settings = LoaderSettings {
            threads: exec.loader_threads,
            cache: exec.cache.clone(),
            max_bad: exec.max_bad,
            ..LoaderSettings::new(BATCH, config.preprocess.clone())
        };
        let (loader, first) = (Loader::new(data.select(&rest), settings)?, saved);
        for batch in loader.epoch(0, 0) {
            let batch = batch?;
            let embeddings = network.embed(batch.pixels())?;
            for (id, row) in batch.ids.iter().zip(embeddings.chunks_exact(width)) {
                // Rounded as a file keeps them, so that an interruption changes no bit.
                let place = rows[(first + *id as usize) * width..].iter_mut();
                place.zip(row).for_each(|(place, x)| *place = f16::from_f32(*x).to_f32());
            }
            let done = first + batch.index as usize * BATCH + batch.total;
            while saved + PART <= done {
                saved = parts.save(saved, &rows)?;
            }
            if let Some(code) = progress(done, all) {
                return Err(Error::Interrupted { step: 0, code });
            }
        }
        while saved < all {
            saved = parts.save(saved, &rows)?;
        }
        Ok(Embeddings { rows, width })
    }

    /// The embedding of image `i`; none if it cannot be used.
    pub fn of(&self, i: usize) -> Option<&[f32]> {
        let row = self.rows.get(i * self.width..(i + 1) * self.width)?;
        row.iter().any(|x| *x != 0.0).then_some(row)
    }
}

/// The files of one network's embeddings of one data set.
struct Parts<'a> {
    owner: &'a Owner,
    width: usize,
    all: usize,
    /// Whom they belong to.
    about: Value,
}

impl Parts<'_> {
    /// The file whose first image is this one.
    fn name(first: usize) -> PathBuf {
        Path::new(FOLDER).join(format!("part-{:04}.safetensors", first / PART))
    }

    fn about(&self, first: usize) -> Value {
        json!({"first": first, "of": self.about})
    }

    /// Reads what an interrupted command left; gives the number of images of it.
    fn load(&self, rows: &mut [f32]) -> usize {
        let mut first = 0;
        while first < self.all {
            let count = PART.min(self.all - first);
            let Ok((mut tensors, about)) = file::load(&self.owner.folder().join(Parts::name(first))) else {
                break;
            };
            let tensor = tensors.remove(EMBEDDINGS).filter(|tensor| tensor.shape == [count, self.width]);
            // What another network left is written over.
            let Some(tensor) = tensor.filter(|_| about == self.about(first)) else { break };
            rows[first * self.width..][..count * self.width].copy_from_slice(&tensor.values);
            first += count;
        }
        first
    }

    /// Saves the part that begins with this image; gives the first of the next.
    fn save(&self, first: usize, rows: &[f32]) -> Result<usize> {
        let (count, name) = (PART.min(self.all - first), Parts::name(first));
        let values = &rows[first * self.width..][..count * self.width];
        self.owner.add([name.as_path()])?;
        let tensor = (EMBEDDINGS, &[count, self.width][..], values);
        file::save_half(&self.owner.folder().join(&name), [tensor], &self.about(first))?;
        Ok(first + count)
    }
}

#[cfg(test)]
mod tests {
    use smalti_models::{Image, Preprocess};

    use super::super::TeacherConfig;
    use super::*;
    use crate::run::owner::Claim;

    /// Answers with the mean of an image, and counts them.
    struct Mean(TeacherConfig, std::cell::Cell<usize>);

    impl Teacher for Mean {
        fn config(&self) -> &TeacherConfig {
            &self.0
        }

        fn embed(&self, pixels: &[f32]) -> Result<Vec<f32>> {
            self.1.set(self.1.get() + pixels.len() / 4);
            Ok(pixels.chunks_exact(4).flat_map(|image| [image.iter().sum::<f32>() / 4.0, 1.0]).collect())
        }
    }

    fn network(digest: &str) -> Mean {
        let preprocess = Preprocess {
            img_size: 2,
            channels: 1,
            fit: Default::default(),
            resize: None,
            interpolation: Default::default(),
            mean: vec![0.0],
            std: vec![1.0],
        };
        Mean(TeacherConfig { digest: digest.into(), width: 2, preprocess }, Default::default())
    }

    #[test]
    fn an_interrupted_command_continues_with_the_same_bits() {
        let images = (0..PART + 300).map(|i| (Image::new(2, 2, 1, vec![(i % 251) as u8; 4]).unwrap(), None));
        let data = Dataset::from_images(vec![], images.collect()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim {
            written_by: "select",
            names: &[],
            overwrite: false,
            inputs: &[],
            legacy: &[],
            resumable: true,
        };
        let owner = Owner::claim(folder.path(), &claim).unwrap();
        let exec = ExecConfig::new(1);
        let first = network("a");
        let stopped = Embeddings::of_images(&owner, &first, &data, &exec, &mut |done, _| {
            (done > PART + 100).then_some(130)
        });
        assert_eq!(stopped.unwrap_err().exit_code(), 130);
        let second = network("a");
        let all = Embeddings::of_images(&owner, &second, &data, &exec, &mut |_, _| None).unwrap();
        assert_eq!(second.1.get(), 300, "the first part is read from its file");
        let other = network("b");
        let again = Embeddings::of_images(&owner, &other, &data, &exec, &mut |_, _| None).unwrap();
        assert_eq!((other.1.get(), &again.rows), (PART + 300, &all.rows), "another network sees all of them");
        assert!((all.of(300).unwrap()[0] - 49.0 / 255.0).abs() < 1e-3);
        assert_eq!(all.of(PART + 300), None);
    }
}
