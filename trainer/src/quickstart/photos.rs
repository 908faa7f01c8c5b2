//! The photos of a quickstart, out of the program into a folder.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use smalti_models::photos::GROCERIES;
use smalti_trainer::run::Owner;
use smalti_trainer::{Error, Result, files};

/// The largest photo, in bytes.
const LARGEST: u64 = 1 << 20;
/// One photo of so many is kept in the short form.
const SHORT: usize = 4;

/// Writes the photos into the folder `name` of the owner's.
pub(super) fn unpack(name: &str, owner: &Owner, is_short: bool) -> Result<()> {
    let photos =
        read(is_short).map_err(|e| Error::Usage(format!("the photos in the program are damaged: {e}")))?;
    let photos: Vec<(PathBuf, Vec<u8>)> =
        photos.into_iter().map(|(path, bytes)| (Path::new(name).join(path), bytes)).collect();
    let folder = owner.folder().join(name);
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let place = folder.display();
        return Err(Error::Usage(format!("{place} is not empty: expected a new folder for the photos")));
    }
    owner.add(photos.iter().map(|(path, _)| path.as_path()))?;
    for (path, bytes) in &photos {
        let path = owner.folder().join(path);
        path.parent().map_or(Ok(()), files::make_folder)?;
        // They can be written again at any time, so nothing waits for the disk.
        std::fs::write(&path, bytes).map_err(|error| {
            // Half a photo would be one more broken file.
            let _ = std::fs::remove_file(&path);
            Error::file("write", &path)(error)
        })?;
    }
    Ok(())
}

/// The photos by their paths.
fn read(is_short: bool) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut photos = Vec::new();
    for (i, member) in tar::Archive::new(GROCERIES).entries()?.enumerate() {
        let member = member?;
        let path = member.path()?.into_owned();
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(std::io::Error::other(format!("the path {}", path.display())));
        }
        if is_short && !i.is_multiple_of(SHORT) {
            continue;
        }
        let mut bytes = Vec::new();
        member.take(LARGEST).read_to_end(&mut bytes)?;
        photos.push((path, bytes));
    }
    Ok(photos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_photos_are_whole() {
        let photos = read(false).unwrap();
        let of = |split: &str| photos.iter().filter(|(path, _)| path.starts_with(split)).count();
        assert_eq!([of("train"), of("test"), of("unlabelled")], [100, 200, 140]);
        assert!(
            photos
                .iter()
                .all(|(_, bytes)| bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]))
        );
        assert!((100..120).contains(&read(true).unwrap().len()));
    }
}
