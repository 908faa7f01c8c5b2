//! Changes to one image before the model sees it.
//!
//! [`Augment`] holds the settings. [`Augment::pixel_steps`] and [`Augment::value_steps`] list the steps in the order in
//! which they are applied: a new step is a function in one file of this folder, an entry in one of the two lists, and
//! a random stream of its own in [`draw`]. A [`View`] is an augmentation together with the model's input.

mod base;
mod colour;
mod crop;
mod draw;
mod erasing;
mod geometric;
mod jitter;
mod op;
mod policy;
mod view;

#[cfg(test)]
mod golden;

use std::borrow::Cow;

use smalti_models::Preprocess;
use smalti_models::image::Image;

use crate::error::{Error, Result};
use crate::rng::Rng;

pub(crate) use base::Base;
pub use crop::CropKind;
pub(crate) use draw::Draw;
pub use geometric::{Canvas, Sampling, mirrored};
pub use op::{Op, OpSet};
pub use policy::Policy;
pub use view::View;

/// How images are changed in training. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Augment {
    /// Which part of the image the model sees.
    pub crop: CropKind,
    /// Whether half of the images are mirrored, left for right.
    pub flip: bool,
    /// Operations drawn at random: RandAugment or TrivialAugment.
    #[serde(skip_serializing_if = "Policy::is_none")]
    pub policy: Policy,
    /// Operations that the policy never draws.
    #[serde(skip_serializing_if = "OpSet::is_empty")]
    pub skip: OpSet,
    /// Brightness, contrast and saturation are each multiplied by `1 - jitter` to `1 + jitter`; 0 for off.
    pub jitter: f32,
    /// Probability that a rectangle is filled with noise (arXiv 1708.04896); 0 for off.
    pub erasing: f32,
}

/// A step on 8-bit pixels.
enum PixelStep {
    Crop(CropKind),
    Flip(bool),
    Policy(Policy, OpSet),
    Jitter(f32),
}

/// A step on normalised values.
enum ValueStep {
    Erase(f32),
}

impl Augment {
    /// The steps before the normalisation, in order.
    fn pixel_steps(&self) -> [PixelStep; 4] {
        [
            PixelStep::Crop(self.crop),
            PixelStep::Flip(self.flip),
            PixelStep::Policy(self.policy, self.skip),
            PixelStep::Jitter(self.jitter),
        ]
    }

    /// The steps after the normalisation, in order.
    fn value_steps(&self) -> [ValueStep; 1] {
        [ValueStep::Erase(self.erasing)]
    }

    /// Refuses settings that cannot be carried out on a model's input of `img_size` pixels a side.
    pub fn check(&self, img_size: usize) -> Result<()> {
        self.crop.check(img_size)?;
        self.policy.check(self.skip)?;
        for (name, value) in [("jitter", self.jitter), ("erasing", self.erasing)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Usage(format!("{name} is {value}, expected 0 to 1")));
            }
        }
        Ok(())
    }

    /// Changes an image that [`Base`] prepared and writes it normalised to `out`: `[channel, row, column]`.
    fn apply(&self, base: &Image, input: &Preprocess, draw: Draw, out: &mut [f32]) -> Result<()> {
        let (mut shared, mut repeated) = (draw.shared(), draw.repeated());
        let mut image = Cow::Borrowed(base);
        for step in self.pixel_steps() {
            let rng = if step.places() { repeated.as_mut().unwrap_or(&mut shared) } else { &mut shared };
            image = step.apply(image, input, draw, rng)?;
        }
        input.normalise(image.data(), out)?;
        for ValueStep::Erase(probability) in self.value_steps() {
            if probability > 0.0 && shared.chance(f64::from(probability)) {
                erasing::erase(out, input.img_size, &mut shared);
            }
        }
        Ok(())
    }
}

impl PixelStep {
    /// Whether the step says which part of the image is seen, and how it lies.
    fn places(&self) -> bool {
        matches!(self, PixelStep::Crop(_) | PixelStep::Flip(_))
    }

    fn apply<'a>(
        self,
        image: Cow<'a, Image>,
        input: &Preprocess,
        draw: Draw,
        shared: &mut Rng,
    ) -> Result<Cow<'a, Image>> {
        let changed = match self {
            PixelStep::Crop(CropKind::Padded(pad)) => crop::padded(&image, pad, mean_colour(input), shared)?,
            PixelStep::Crop(CropKind::RandomResized { scale, ratio }) => {
                crop::random_resized(&image, scale, ratio, input, shared)?
            }
            PixelStep::Flip(true) if shared.chance(0.5) => mirrored(image.into_owned())?,
            PixelStep::Policy(policy, skip) if !policy.is_none() => {
                let canvas = Canvas { sampling: Sampling::Bilinear, fill: mean_colour(input) };
                policy.apply(image.into_owned(), skip, canvas, &mut draw.policy())?
            }
            PixelStep::Jitter(strength) if strength > 0.0 => {
                jitter::jitter(image.into_owned(), strength, shared)?
            }
            PixelStep::Crop(CropKind::None)
            | PixelStep::Flip(_)
            | PixelStep::Policy(..)
            | PixelStep::Jitter(_) => return Ok(image),
        };
        Ok(Cow::Owned(changed))
    }
}

/// The data set's mean colour, which fills places outside an image; grey is the first of the three.
fn mean_colour(input: &Preprocess) -> [u8; 3] {
    [0, 1, 2].map(|c| (input.mean.get(c).copied().unwrap_or(0.5) * 255.0).round() as u8)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};
    use smalti_models::preprocess::FitMode;
    use smalti_models::resize::Interpolation;

    use super::*;

    pub(super) fn input(img_size: usize, channels: usize) -> Preprocess {
        let (mean, std) = (vec![0.0; channels], vec![1.0 / 255.0; channels]);
        Preprocess {
            img_size,
            channels,
            fit: FitMode::Crop,
            resize: None,
            interpolation: Interpolation::Bilinear,
            mean,
            std,
        }
    }

    pub(super) fn draw(image: u64) -> Draw {
        Draw { seed: 1, pass: 0, image, view: 0, crop_of: None }
    }

    /// An image whose first channel is its column and last its row, both from 1.
    pub(super) fn places(size: usize) -> Image {
        let pixels = (0..size * size).flat_map(|p| [(p % size + 1) as u8, 99, (p / size + 1) as u8]);
        Image::new(size, size, 3, pixels.collect()).unwrap()
    }

    /// The model's input of 8 pixels a side, on the scale 0 to 255.
    pub(super) fn applied(augment: Augment, image: &Image, draw: Draw) -> Vec<f32> {
        let view = View::new(augment, input(8, image.channels()));
        let base = view.base().make(image.clone()).unwrap();
        let mut out = vec![0.0; 64 * image.channels()];
        view.apply(&base, draw, &mut out).unwrap();
        out
    }

    #[test]
    fn none_is_the_image() {
        let out = applied(Augment::default(), &places(8), draw(0));
        assert!(
            out.iter().take(64).enumerate().all(|(p, v)| (v - (p % 8 + 1) as f32).abs() < 1e-3),
            "{out:?}"
        );
    }

    /// Published runs were made with these bits.
    #[test]
    fn crop_flip_jitter_and_erasing_keep_their_bits() {
        let crops = [CropKind::None, CropKind::Padded(3), CropKind::random_resized(0.2)];
        let others = [(true, 0.0, 0.0), (false, 0.3, 0.0), (false, 0.0, 0.6), (true, 0.4, 0.5)];
        let mut digests = Vec::new();
        for (crop, (flip, jitter, erasing)) in crops.into_iter().flat_map(|c| others.map(|o| (c, o))) {
            let augment = Augment { crop, flip, jitter, erasing, ..Augment::default() };
            let mut hash = Sha256::new();
            for (width, height, channels) in [(8, 8, 3), (8, 8, 1), (31, 20, 3), (20, 45, 1)] {
                let pixels = (0..width * height * channels).map(|i| (i * i * 7 % 251) as u8).collect();
                let image = Image::new(width, height, channels, pixels).unwrap();
                for i in 0..30 {
                    applied(augment, &image, draw(i)).iter().for_each(|v| hash.update(v.to_le_bytes()));
                }
            }
            digests.push(hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect::<String>());
        }
        let expected = [
            ["8a68d77f536483b4", "7b9504d1348097cd", "c3e41bdfdff7b4d1", "f4b705ca122d144a"],
            ["52cd9222c9bc5b3e", "3a87e38324153adc", "80b62d878155d693", "24b016e08386029e"],
            ["90dc41367cdfc9a1", "a97a3a4bcb607789", "437b2b065da01dba", "bd02c0c7c0d9d687"],
        ];
        assert_eq!(digests, expected.concat());
    }

    #[test]
    fn a_policy_leaves_the_other_steps_their_numbers() {
        let image = Image::new(8, 8, 3, vec![100; 192]).unwrap();
        let plain = Augment { flip: true, erasing: 1.0, ..Augment::default() };
        let skip = Op::ALL.into_iter().filter(|op| *op != Op::Rotate).collect();
        let turned = Augment { policy: Policy::Trivial, skip, ..plain };
        // On a grey of the mean colour a rotation changes nothing, so that all else must be the same.
        let mut mean = input(8, 3);
        mean.mean = vec![100.0 / 255.0; 3];
        let out = |augment| {
            let mut out = vec![0.0; 192];
            View::new(augment, mean.clone()).apply(&image, draw(5), &mut out).unwrap();
            out
        };
        assert_eq!(out(plain), out(turned));
    }

    #[test]
    fn a_repeated_crop_shows_the_same_part_at_any_size() {
        let augment = Augment { crop: CropKind::random_resized(0.2), flip: true, ..Augment::default() };
        let ramp = |img_size: usize| {
            let view = View { cut_from: Some(40), ..View::new(augment, input(img_size, 3)) };
            let image = view.base().make(places(90)).unwrap();
            assert_eq!((image.width(), image.height()), (40, 40));
            move |pass: u64, crop_of: Option<u64>| {
                let mut out = vec![0.0; 3 * img_size * img_size];
                view.apply(&image, Draw { pass, crop_of, ..draw(2) }, &mut out).unwrap();
                // The mean place of the part, and its first and last column: where it is, how large, which way round.
                let column = |x: usize| out.iter().skip(x).step_by(img_size).take(img_size).sum::<f32>();
                (column(0) / img_size as f32, column(img_size - 1) / img_size as f32)
            }
        };
        let (small, large) = (ramp(8), ramp(24));
        for pass in 0..20 {
            assert_eq!(small(pass, None), small(100 + pass, Some(pass)));
            let (a, b) = (small(pass, None), large(7, Some(pass)));
            assert!((a.0 - b.0).abs() < 5.0 && (a.1 - b.1).abs() < 5.0, "{pass}: {a:?} {b:?}");
        }
        assert_ne!(small(0, Some(1)), small(0, Some(2)));
        let jittered = Augment { jitter: 0.5, ..augment };
        let out = |pass| applied(jittered, &places(8), Draw { pass, crop_of: Some(1), ..draw(0) });
        assert_ne!(out(3), out(4), "colours do not repeat");
    }

    #[test]
    fn every_view_draws_its_own_numbers() {
        let augment = Augment { crop: CropKind::Padded(2), policy: Policy::Trivial, ..Augment::default() };
        let outs: Vec<Vec<f32>> =
            (0..4).map(|view| applied(augment, &places(8), Draw { view, ..draw(3) })).collect();
        assert!((1..4).all(|i| outs[i] != outs[0] && outs[i] != outs[i - 1]));
    }

    #[test]
    fn settings_of_older_runs_are_read_and_written_as_they_were() {
        let text = r#"{"crop":{"padded":4},"flip":true,"jitter":0.5,"erasing":0.0}"#;
        let augment: Augment = serde_json::from_str(text).unwrap();
        assert_eq!((augment.crop, augment.policy), (CropKind::Padded(4), Policy::None));
        assert_eq!(serde_json::to_string(&augment).unwrap(), text);
        let skip = [Op::Rotate, Op::Color].into_iter().collect();
        let policy = Policy::Rand { ops: 2, magnitude: 9 };
        let augment = Augment { policy, skip, ..augment };
        let text = serde_json::to_string(&augment).unwrap();
        assert!(text.contains(r#""skip":["rotate","color"]"#), "{text}");
        assert_eq!(serde_json::from_str::<Augment>(&text).unwrap(), augment);
    }
}
