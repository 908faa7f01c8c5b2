//! `smalti data`: a look over a data set before any training.
//!
//! Every image is decoded once, on all threads. A few hundred bytes of each are kept, and the report is made from them:
//! counts, sizes, unusable files, class balance, mean and standard deviation, and images that repeat each other
//! ([`duplicates`]). The report does not depend on the number of threads.

mod duplicates;
mod text;

use rayon::prelude::*;
use serde::Serialize;
use smalti_models::image::Image;

use super::dataset::Dataset;
use super::splits::Splits;
use super::{Split, statistics};
use crate::error::Result;
pub use duplicates::ImageHash;

/// Maximum number of images of each split that are audited.
pub const MAX_IMAGES: usize = 100_000;

/// How many places the report names of each kind of finding.
const NAMED: usize = 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where the data set is.
    pub path: String,
    /// What kind of data set it is.
    pub kind: String,
    /// Its splits.
    pub splits: Vec<SplitReport>,
    /// Images that cannot be used.
    pub unusable: Unusable,
    /// Images that repeat others.
    pub duplicates: Duplicates,
    /// What to think about before training, each in one sentence.
    pub advice: Vec<String>,
}

/// One split of a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// Which split.
    pub split: Split,
    /// How many images it has.
    pub images: usize,
    /// How many were looked at, evenly spread, unusable ones included.
    pub looked_at: usize,
    /// How many have a label.
    pub labelled: usize,
    /// How many there are of each class.
    pub classes: Vec<Class>,
    /// Widths in pixels.
    pub width: Spread,
    /// Heights in pixels.
    pub height: Spread,
    /// How many of those looked at are grey, with one channel.
    pub grey: usize,
    /// The mean of each channel, 0 to 1, every image counting the same.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel, 0 to 1.
    pub std: Vec<f64>,
}

/// A class and how many images it has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The class.
    pub name: String,
    /// Images of this class.
    pub images: usize,
}

/// How numbers are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: usize,
    /// The one in the middle.
    pub median: usize,
    /// The greatest.
    pub max: usize,
}

/// Images that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Unusable {
    /// How many.
    pub count: usize,
    /// The first of them: where each is and why.
    pub first: Vec<String>,
}

/// Images that repeat others.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Duplicates {
    /// Images with the very pixels of an earlier one.
    pub exact: usize,
    /// Images that look like an earlier one, those with the very pixels not counted.
    pub near: usize,
    /// Images of one split that repeat one of another split: they make a measurement look better than it is.
    pub across_splits: usize,
    /// Images with the very pixels of one with another label.
    pub labels_differ: usize,
    /// The first pairs.
    pub first: Vec<Pair>,
}

/// Two images that look alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Whether they have the very same pixels.
    pub exact: bool,
}

/// What is kept of one image.
struct Sample {
    width: usize,
    height: usize,
    channels: usize,
    /// Means of the channels and of their squares, 0 to 1.
    moments: [(f64, f64); 3],
    hash: ImageHash,
}

impl Report {
    /// How many of the images that were looked at can be used.
    pub fn usable(&self) -> usize {
        self.splits.iter().map(|split| split.looked_at).sum::<usize>() - self.unusable.count
    }
}

/// Looks a data set over, at most `most` images of each split ([`MAX_IMAGES`]).
///
/// # Errors
/// A split that cannot be opened. Images that cannot be used are part of the report.
pub fn look(data: &Splits, most: usize) -> Result<Report> {
    let mut splits = Vec::new();
    let mut unusable = Unusable::default();
    let mut entries = Vec::new();
    let mut sets = Vec::new();
    for &split in data.present() {
        let data = data.dataset(split)?;
        let chosen = statistics::spread(data.len(), most);
        let samples: Vec<Result<Sample>> = chosen.par_iter().map(|&i| Sample::at(&data, i)).collect();
        let mut good = Vec::new();
        for (&i, sample) in chosen.iter().zip(samples) {
            match sample {
                Ok(sample) => good.push((i, sample)),
                Err(why) => {
                    unusable.count += 1;
                    if unusable.first.len() < NAMED {
                        unusable.first.push(why.to_string());
                    }
                }
            }
        }
        splits.push(SplitReport::new(&data, split, chosen.len(), &good));
        let set = sets.len();
        entries.extend(good.into_iter().map(|(index, sample)| duplicates::Entry {
            set,
            index,
            hash: sample.hash,
        }));
        sets.push(data);
    }
    let mut report = Report {
        path: data.path().display().to_string(),
        kind: sets.first().map_or("", Dataset::kind).to_owned(),
        splits,
        unusable,
        duplicates: duplicates::find(&sets, &entries),
        advice: data.notes().to_vec(),
    };
    let advice = text::advice(&report);
    report.advice.extend(advice);
    Ok(report)
}

impl Sample {
    fn at(data: &Dataset, i: usize) -> Result<Sample> {
        let image = data.image(i)?;
        Ok(Sample {
            width: image.width(),
            height: image.height(),
            channels: image.channels(),
            moments: moments(&image),
            hash: ImageHash::of(image)?,
        })
    }
}

/// Means of the three channels and of their squares; those of a grey image are all the same.
fn moments(image: &Image) -> [(f64, f64); 3] {
    let channels = image.channels();
    let mut sums = [(0u64, 0u64); 3];
    for pixel in image.data().chunks_exact(channels) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            sum.0 += u64::from(value);
            sum.1 += u64::from(value) * u64::from(value);
        }
    }
    if channels == 1 {
        sums = [sums[0]; 3];
    }
    let pixels = (image.width() * image.height()) as f64;
    sums.map(|(sum, squares)| (sum as f64 / pixels / 255.0, squares as f64 / pixels / (255.0 * 255.0)))
}

impl SplitReport {
    fn new(data: &Dataset, split: Split, looked_at: usize, samples: &[(usize, Sample)]) -> SplitReport {
        let grey = samples.iter().filter(|(_, sample)| sample.channels == 1).count();
        let channels = if grey == samples.len() && grey > 0 { 1 } else { 3 };
        let n = samples.len().max(1) as f64;
        let mean =
            |of: &dyn Fn(&Sample) -> f64| samples.iter().map(|(_, sample)| of(sample)).sum::<f64>() / n;
        let means: Vec<f64> = (0..channels).map(|c| mean(&|sample| sample.moments[c].0)).collect();
        let squares = (0..channels).map(|c| mean(&|sample| sample.moments[c].1));
        let std = squares.zip(&means).map(|(square, mean)| (square - mean * mean).max(0.0).sqrt()).collect();
        let classes = data.classes().iter().zip(data.class_counts());
        SplitReport {
            split,
            images: data.len(),
            looked_at,
            labelled: (0..data.len()).filter(|&i| data.label(i).is_some()).count(),
            classes: classes.map(|(name, images)| Class { name: name.clone(), images }).collect(),
            width: Spread::of(samples.iter().map(|(_, sample)| sample.width).collect()),
            height: Spread::of(samples.iter().map(|(_, sample)| sample.height).collect()),
            grey,
            mean: means,
            std,
        }
    }
}

impl Spread {
    fn of(mut values: Vec<usize>) -> Spread {
        values.sort_unstable();
        let at = |i: usize| values.get(i).copied().unwrap_or(0);
        Spread { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn save(path: &Path, size: (u32, u32), value: impl Fn(u32, u32) -> [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(size.0, size.1, |x, y| image::Rgb(value(x, y))).save(path).unwrap();
    }

    #[test]
    fn everything_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let wave =
            |a: u32, b: u32| move |x: u32, y: u32| [((x * a + y * b) % 256) as u8, (x * b % 256) as u8, 40];
        for i in 0..6 {
            save(&path(&format!("train/cat/{i}.png")), (40, 30), wave(3 + 7 * i, 11 + i * 5));
        }
        save(&path("train/dog/0.png"), (20, 50), wave(40, 2));
        // The same pixels under another label, and a slightly brighter copy in the other split.
        save(&path("train/dog/same.png"), (40, 30), wave(3, 11));
        save(&path("test/cat/near.png"), (40, 30), |x, y| wave(40, 2)(x, y).map(|v| v.saturating_add(1)));
        save(&path("test/dog/near.png"), (20, 50), |x, y| wave(40, 2)(x, y).map(|v| v.saturating_add(2)));
        std::fs::write(path("train/dog/text.jpg"), "text").unwrap();
        std::fs::write(path("test/dog/empty.png"), "").unwrap();

        let report = look(&Splits::open(dir.path()).unwrap(), MAX_IMAGES).unwrap();
        let [train, test] = &report.splits[..] else { panic!("{:?}", report.splits) };
        assert_eq!(report.usable(), 10);
        assert_eq!((train.images, train.labelled, train.looked_at, test.images), (9, 9, 9, 3));
        assert_eq!(train.classes[0], Class { name: "cat".into(), images: 6 });
        assert_eq!(train.width, Spread { min: 20, median: 40, max: 40 });
        assert!((train.mean[2] - 40.0 / 255.0).abs() < 1e-9 && train.std[2] < 1e-6, "{train:?}");
        assert_eq!(report.unusable.count, 2);
        assert!(report.unusable.first.iter().any(|f| f.contains("text.jpg")), "{:?}", report.unusable);
        let found = &report.duplicates;
        assert_eq!(
            (found.exact, found.near, found.across_splits, found.labels_differ),
            (1, 1, 1, 1),
            "{found:?}"
        );
        let text = report.to_string();
        for expected in ["9 images", "cat", "empty.png", "same.png", "another split"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["splits"][0]["split"], "train");
        assert_eq!(json["duplicates"]["exact"], 1);
    }

    #[test]
    fn some_of_the_images_are_enough() {
        let dir = tempfile::tempdir().unwrap();
        (0..10)
            .for_each(|i| save(&dir.path().join(format!("{i}.png")), (8, 8), |x, y| [(x * i + y) as u8; 3]));
        let report = look(&Splits::open(dir.path()).unwrap(), 4).unwrap();
        assert_eq!(
            (report.splits[0].images, report.splits[0].looked_at, report.splits[0].labelled),
            (10, 4, 0)
        );
        assert!(report.to_string().contains("no labels"));
    }
}
