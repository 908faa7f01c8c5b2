//! The set as PNG files, one folder for each class.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::ImageEncoder;
use rayon::prelude::*;
use smalti_models::image::Image;

use super::{classes, draw, label};
use crate::error::{Error, Result};
use crate::files;

/// A set to be written as PNG files.
#[derive(Clone, Copy, Debug)]
pub struct Drawing {
    /// Images to learn from.
    pub train: usize,
    /// Images to measure by.
    pub test: usize,
    /// Their side in pixels.
    pub size: usize,
    /// The seed of the set.
    pub seed: u64,
}

impl Drawing {
    /// The files, relative to the set's folder: `train/CLASS/NUMBER.png` and `test/CLASS/NUMBER.png`.
    pub fn files(&self) -> Vec<PathBuf> {
        let names = classes();
        let file = |i: usize| {
            let split = if i < self.train { "train" } else { "test" };
            Path::new(split).join(&names[label(i as u64) as usize]).join(format!("{i:06}.png"))
        };
        (0..self.train + self.test).map(file).collect()
    }

    /// Draws all images into `folder`. Errors: as soon as one cannot be written, or with [`Error::Interrupted`] when
    /// `stop` says so.
    pub fn write(&self, folder: &Path, stop: &(dyn Fn() -> Option<u8> + Sync)) -> Result<()> {
        if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            let place = folder.display();
            return Err(Error::Usage(format!("{place} is not empty: expected a new folder for the images")));
        }
        let files = self.files();
        let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        folders.iter().try_for_each(|name| files::make_folder(&folder.join(name)))?;
        files.par_iter().enumerate().try_for_each(|(i, name)| {
            if let Some(code) = stop() {
                return Err(Error::Interrupted { step: 0, code });
            }
            let (image, _) = draw(self.seed, i as u64, self.size)?;
            let path = folder.join(name);
            let bytes =
                encode_png(&image).map_err(|e| Error::data(path.display().to_string(), e.to_string()))?;
            // Not through a buffer that swallows the error of a full disk when it is dropped.
            std::fs::write(&path, bytes).map_err(Error::file("write", &path))
        })
    }
}

fn encode_png(image: &Image) -> image::ImageResult<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let (width, height) = (image.width() as u32, image.height() as u32);
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(
        image.data(),
        width,
        height,
        image::ExtendedColorType::Rgb8,
    )?;
    Ok(bytes.into_inner())
}

/// Writes `train` images to learn from and `test` others to measure by as PNG files into `folder/train/CLASS` and
/// `folder/test/CLASS`.
pub fn write(folder: &Path, train: usize, test: usize, size: usize, seed: u64) -> Result<()> {
    Drawing { train, test, size, seed }.write(folder, &|| None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Split};

    #[test]
    fn a_written_set_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/set");
        write(&path, 30, 10, 16, 9).unwrap();
        let train = Dataset::open(&path, Split::Train).unwrap();
        let test = Dataset::open(&path, Split::Test).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (30, 10, &classes()[..]));
        // By class, then by number: the first is image 0, the next 10.
        assert_eq!(train.image(1).unwrap(), draw(9, 10, 16).unwrap().0);
        assert_eq!((train.label(4), test.image(9).unwrap()), (Some(1), draw(9, 39, 16).unwrap().0));
        let again = write(&path, 1, 1, 16, 9).unwrap_err();
        assert!(again.exit_code() == 2 && again.to_string().contains("not empty"), "{again}");
        let files = Drawing { train: 30, test: 10, size: 16, seed: 9 }.files();
        assert!(files.len() == 40 && files.iter().all(|file| path.join(file).is_file()));
        let stopped =
            Drawing { train: 3, test: 1, size: 16, seed: 9 }.write(&dir.path().join("b"), &|| Some(130));
        assert_eq!(stopped.unwrap_err().exit_code(), 130);
    }
}
