//! An image set that needs no download: ten classes told apart by the form and texture of a pattern, nothing else.
//!
//! A class is a pattern: stripes of three directions, two kinds of checks, dots, a grid, rings, rays, or none. It
//! fills a shape, and everything else is nuisance, drawn anew for each image: the shape and its place, size, angle
//! and proportions, all colours, the pattern's period, phases and a small turn, the gradient behind it, blots, noise
//! over all of it. No pixel tells the class, so that a linear classifier on pixels fails; a pattern goes on where a
//! patch is hidden, so that a masked autoencoder learns patterns without being told of them. Every number comes from
//! the seed and the image's index by arithmetic that is the same on every machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::ImageEncoder;
use rayon::prelude::*;
use smalti_models::image::Image;

use super::Dataset;
use crate::error::{Error, Result};
use crate::files;
use crate::rng::{Rng, stream};

/// Shapes, each filling about the unit circle.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Disc,
    Ring,
    Square,
    Triangle,
    Cross,
}

const SHAPES: [Shape; 5] = [Shape::Cross, Shape::Disc, Shape::Ring, Shape::Square, Shape::Triangle];

/// What a class is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    Checks,
    Diamonds,
    Dots,
    Grid,
    Plain,
    Rays,
    Rings,
    StripesFlat,
    StripesSlanted,
    StripesUpright,
}

/// In the order of the alphabet, as the classes are when the set is read back from folders.
const PATTERNS: [(Pattern, &str); 10] = [
    (Pattern::Checks, "checks"),
    (Pattern::Diamonds, "diamonds"),
    (Pattern::Dots, "dots"),
    (Pattern::Grid, "grid"),
    (Pattern::Plain, "plain"),
    (Pattern::Rays, "rays"),
    (Pattern::Rings, "rings"),
    (Pattern::StripesFlat, "stripes-flat"),
    (Pattern::StripesSlanted, "stripes-slanted"),
    (Pattern::StripesUpright, "stripes-upright"),
];

/// Sub-pixels a side: the edges are as smooth as those of a photo.
const SAMPLES: usize = 4;

/// The longest side that is drawn.
const LARGEST: usize = 4096;

/// The names of the classes, in the order of the labels.
pub fn classes() -> Vec<String> {
    PATTERNS.iter().map(|(_, name)| (*name).to_string()).collect()
}

type Colour = [f64; 3];

/// Everything that is drawn in one image; lengths in 32nds of the image's side.
struct Scene {
    shape: Shape,
    pattern: Pattern,
    centre: [f64; 2],
    /// The inverse of turning and stretching: image to shape coordinates.
    to_shape: [[f64; 2]; 2],
    /// The pattern's first axis divided by its period; the second is at a right angle.
    axis: [f64; 2],
    phases: [f64; 2],
    /// The shape's two colours.
    ink: [Colour; 2],
    /// The ground's colours at its two ends, and its direction.
    ground: [Colour; 2],
    slope: [f64; 2],
    blots: Vec<Blot>,
}

struct Blot {
    centre: [f64; 2],
    radius: f64,
    colour: Colour,
}

fn colour(rng: &mut Rng) -> Colour {
    [rng.uniform(), rng.uniform(), rng.uniform()]
}

fn blend(a: Colour, b: Colour, t: f64) -> Colour {
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * t)
}

/// How far apart two colours are, in brightness above all.
fn distance(a: Colour, b: Colour) -> f64 {
    let d = [0, 1, 2].map(|c| a[c] - b[c]);
    let luma = 0.3 * d[0] + 0.6 * d[1] + 0.1 * d[2];
    luma.abs() + 0.25 * d.iter().map(|d| d.abs()).sum::<f64>() / 3.0
}

/// A colour at least `far` from each of the others; the best of 40 if none is.
fn distinct_colour(rng: &mut Rng, others: &[Colour], far: f64) -> Colour {
    let mut best = (-1.0, [0.5; 3]);
    for _ in 0..40 {
        let candidate = colour(rng);
        let nearest = others.iter().map(|o| distance(candidate, *o)).fold(f64::INFINITY, f64::min);
        if nearest > best.0 {
            best = (nearest, candidate);
        }
        if nearest >= far {
            break;
        }
    }
    best.1
}

fn direction(rng: &mut Rng) -> [f64; 2] {
    let angle = rng.range(0.0, std::f64::consts::TAU);
    [libm::cos(angle), libm::sin(angle)]
}

impl Scene {
    fn new(label: u32, rng: &mut Rng) -> Scene {
        let (pattern, _) = PATTERNS[label as usize % PATTERNS.len()];
        let shape = SHAPES[rng.below(SHAPES.len())];
        let radius = rng.range(13.0, 19.0);
        let room = (18.0 - radius * 0.9).max(2.0);
        let centre = [16.0 + rng.range(-room, room), 16.0 + rng.range(-room, room)];
        let stretch = rng.range(0.85, 1.18);
        let [cos, sin] = direction(rng);
        let (a, b) = (1.0 / (radius * stretch), stretch / radius);
        let to_shape = [[cos * a, sin * a], [-sin * b, cos * b]];

        let (turn, period) = (rng.range(-0.2, 0.2), rng.range(5.0, 8.0));
        let axis = [libm::cos(turn) / period, libm::sin(turn) / period];
        let phases = [rng.uniform(), rng.uniform()];

        let from = colour(rng);
        let other = colour(rng);
        let ground = [from, blend(from, other, rng.range(0.2, 0.6))];
        let slope = direction(rng).map(|d| d / 45.0);
        let first = distinct_colour(rng, &ground, 0.3);
        let second = distinct_colour(rng, &[ground[0], ground[1], first], 0.3);

        let mut blots = Vec::new();
        for _ in 0..2 + rng.below(4) {
            let radius = rng.range(1.2, 3.2);
            let centre = [rng.range(0.0, 32.0), rng.range(0.0, 32.0)];
            blots.push(Blot { centre, radius, colour: colour(rng) });
        }
        Scene { shape, pattern, centre, to_shape, axis, phases, ink: [first, second], ground, slope, blots }
    }

    /// The colour at a point.
    fn at(&self, x: f64, y: f64) -> Colour {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let u = self.to_shape[0][0] * dx + self.to_shape[0][1] * dy;
        let v = self.to_shape[1][0] * dx + self.to_shape[1][1] * dy;
        if self.shape.holds(u, v) {
            let along = self.axis[0] * dx + self.axis[1] * dy;
            let across = self.axis[0] * dy - self.axis[1] * dx;
            return self.ink[usize::from(self.pattern.marks(along, across, self.phases))];
        }
        for blot in &self.blots {
            let (dx, dy) = (x - blot.centre[0], y - blot.centre[1]);
            if dx * dx + dy * dy < blot.radius * blot.radius {
                return blot.colour;
            }
        }
        let t = (self.slope[0] * (x - 16.0) + self.slope[1] * (y - 16.0) + 0.5).clamp(0.0, 1.0);
        blend(self.ground[0], self.ground[1], t)
    }
}

/// The part behind the point.
fn part(x: f64) -> f64 {
    x - libm::floor(x)
}

impl Pattern {
    /// Whether a point, in periods from the shape's centre, has the second colour.
    fn marks(self, x: f64, y: f64, [first, second]: [f64; 2]) -> bool {
        let half = |t: f64| part(t) >= 0.5;
        let diagonal = std::f64::consts::FRAC_1_SQRT_2;
        match self {
            Pattern::Checks => half(x + first) != half(y + second),
            Pattern::Diamonds => half((x + y) * diagonal + first) != half((x - y) * diagonal + second),
            Pattern::Dots => {
                let (x, y) = (part(x + first) - 0.5, part(y + second) - 0.5);
                x * x + y * y < 0.1
            }
            Pattern::Grid => part(x + first) < 0.3 || part(y + second) < 0.3,
            Pattern::Plain => false,
            Pattern::Rays => half(8.0 * libm::atan2(y, x) / std::f64::consts::TAU + first),
            Pattern::Rings => half(libm::sqrt(x * x + y * y) + first),
            Pattern::StripesFlat => half(y + first),
            Pattern::StripesSlanted => half((x + y) * diagonal + first),
            Pattern::StripesUpright => half(x + first),
        }
    }
}

impl Shape {
    fn holds(self, u: f64, v: f64) -> bool {
        let squared = u * u + v * v;
        match self {
            Shape::Disc => squared < 0.81,
            Shape::Ring => (0.25..1.0).contains(&squared),
            Shape::Square => u.abs().max(v.abs()) < 0.8,
            // The three sides lie 0.55 from the middle; 0.866... is the sine of 60 degrees.
            Shape::Triangle => v < 0.55 && 0.866_025_403_784_438_6 * u.abs() - 0.5 * v < 0.55,
            Shape::Cross => {
                let (u, v) = (u.abs(), v.abs());
                u.min(v) < 0.3 && u.max(v) < 1.0
            }
        }
    }
}

/// The label of image `index`: labels take turns.
fn label(index: u64) -> u32 {
    (index % PATTERNS.len() as u64) as u32
}

/// Image `index` of the set of this seed, `size` pixels a side, and its label. The labels take turns.
pub fn draw(seed: u64, index: u64, size: usize) -> Result<(Image, u32)> {
    if !(1..=LARGEST).contains(&size) {
        return Err(Error::Usage(format!("images of {size} pixels a side, expected 1 to {LARGEST}")));
    }
    let mut rng = Rng::new(seed, stream::SYNTHETIC, [index]);
    let label = label(index);
    let scene = Scene::new(label, &mut rng);
    let unit = 32.0 / size as f64;
    let step = unit / SAMPLES as f64;
    let noise = rng.range(2.0, 10.0);
    let mut pixels = Vec::with_capacity(size * size * 3);
    for y in 0..size {
        for x in 0..size {
            let mut sum = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let sx = x as f64 * unit + ((sample % SAMPLES) as f64 + 0.5) * step;
                let sy = y as f64 * unit + ((sample / SAMPLES) as f64 + 0.5) * step;
                let colour = scene.at(sx, sy);
                (0..3).for_each(|c| sum[c] += colour[c]);
            }
            let grain = rng.bits().to_le_bytes();
            for c in 0..3 {
                // Two bytes make a triangular distribution of standard deviation 0.41 around 0.
                let grain = (f64::from(grain[2 * c]) + f64::from(grain[2 * c + 1]) - 255.0) / 255.0;
                let value = sum[c] * (255.0 / (SAMPLES * SAMPLES) as f64) + noise * 2.5 * grain;
                pixels.push(value.round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    Ok((Image::new(size, size, 3, pixels)?, label))
}

/// Images `first` to `first + count` of a set, in memory.
pub fn dataset(seed: u64, first: u64, count: usize, size: usize) -> Result<Dataset> {
    let drawn = (0..count).into_par_iter().map(|i| {
        let (image, label) = draw(seed, first + i as u64, size)?;
        Ok((image, Some(label)))
    });
    Dataset::from_images(classes(), drawn.collect::<Result<Vec<_>>>()?)
}

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
    fn the_seed_fixes_every_byte() {
        let (image, label) = draw(1, 7, 32).unwrap();
        assert_eq!((draw(1, 7, 32).unwrap(), label), ((image.clone(), 7), 7));
        assert_ne!(draw(2, 7, 32).unwrap().0, image);
        assert_ne!(draw(1, 17, 32).unwrap().0, image);
        assert!(draw(1, 7, 0).is_err() && draw(1, 7, usize::MAX).is_err());
        // Frozen: a change here changes every published number of the quickstart.
        let sum = |seed, size| {
            let images = (0..20).map(|i| draw(seed, i, size).unwrap().0);
            images
                .flat_map(Image::into_data)
                .fold(0u32, |sum, v| sum.rotate_left(5).wrapping_add(u32::from(v)))
        };
        assert_eq!((sum(0, 32), sum(3, 17)), (2_907_700_249, 2_911_605_364));
    }

    #[test]
    fn classes_take_turns() {
        let data = dataset(5, 30, 200, 8).unwrap();
        assert_eq!(data.class_counts(), [20; 10]);
        assert_eq!(data.label(1), Some(1));
        let mut sorted = classes();
        sorted.sort();
        assert_eq!(sorted, classes());
    }

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

    /// Accuracy on 1,000 images of ridge regression on the pixels of 2,000, solved by conjugate gradients.
    fn linear_accuracy(strength: f64) -> f64 {
        let (n, held_out, size) = (2000, 1000, 32);
        let data = dataset(11, 0, n + held_out, size).unwrap();
        let width = size * size * 3;
        let rows: Vec<Vec<f32>> = (0..data.len())
            .map(|i| data.image(i).unwrap().data().iter().map(|&v| f32::from(v) / 128.0 - 1.0).collect())
            .collect();
        let labels = data.labels().unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let scores: Vec<Vec<f64>> = (0..10u32)
            .into_par_iter()
            .map(|class| {
                let normal = |w: &[f32]| {
                    let mut out: Vec<f32> = w.iter().map(|w| w * strength as f32).collect();
                    for row in &rows[..n] {
                        let scale = dot(row, w) as f32;
                        out.iter_mut().zip(row).for_each(|(o, r)| *o += scale * r);
                    }
                    out
                };
                let mut residual = vec![0f32; width];
                for (row, label) in rows[..n].iter().zip(&labels) {
                    let target = if *label == class { 0.9 } else { -0.1 };
                    residual.iter_mut().zip(row).for_each(|(o, r)| *o += target * r);
                }
                let (mut w, mut direction) = (vec![0f32; width], residual.clone());
                let mut squared = dot(&residual, &residual);
                for _ in 0..30 {
                    let image = normal(&direction);
                    let step = squared / dot(&direction, &image);
                    w.iter_mut().zip(&direction).for_each(|(w, d)| *w += step as f32 * d);
                    residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step as f32 * i);
                    let next = dot(&residual, &residual);
                    let turn = (next / squared) as f32;
                    direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = turn * *d + r);
                    squared = next;
                }
                rows[n..].iter().map(|row| dot(row, &w)).collect()
            })
            .collect();
        let right = (0..held_out).filter(|&i| {
            let best = (0..10).max_by(|&a, &b| scores[a][i].total_cmp(&scores[b][i])).unwrap();
            best as u32 == labels[n + i]
        });
        right.count() as f64 / held_out as f64
    }

    #[test]
    fn a_linear_classifier_on_pixels_fails() {
        for strength in [100.0, 10_000.0] {
            let accuracy = linear_accuracy(strength);
            assert!(accuracy < 0.4, "{accuracy} at {strength}");
        }
    }
}
