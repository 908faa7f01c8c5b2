//! The set as PNG files, one folder for each class.

use std::path::Path;

use rayon::prelude::*;

use super::{classes, draw, label};
use crate::error::{Error, Result};
use crate::files;

/// Writes `train` images to learn from and `test` others to measure by as PNG files, `folder/train/CLASS/NUMBER.png` and
/// `folder/test/CLASS/NUMBER.png`.
///
/// # Errors
/// A folder that is not empty, or the file system.
pub fn write(folder: &Path, train: usize, test: usize, size: usize, seed: u64) -> Result<()> {
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let place = folder.display();
        return Err(Error::Usage(format!("{place} is not empty: expected a new folder for the images")));
    }
    let names = classes();
    (0..train + test).into_par_iter().try_for_each(|i| {
        let split = if i < train { "train" } else { "test" };
        let class = folder.join(split).join(&names[label(i as u64) as usize]);
        files::make_folder(&class)?;
        let path = class.join(format!("{i:06}.png"));
        let (image, _) = draw(seed, i as u64, size)?;
        std::fs::write(&path, image.to_png()?).map_err(Error::file("write", &path))
    })
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
    }
}
