//! How alike is alike enough.
//!
//! An image's margin is its best similarity as a logit less the model's own best logit. The offset is what a margin must
//! exceed. Negatives give it directly: the least that lets no more of them through than the stated share. Without any it
//! comes from the bank's own images, each held against the others of its class: nine tenths of them pass, and how many
//! images of something else would, nobody knows. Where each class has one image there is nothing to go by, and none passes.

use super::space::{Neighbours, SHARPNESS, Space};
use super::{Class, Example};

/// The share of the bank's own images that need not pass where there are no negatives.
const SLACK: usize = 10;

/// What calibration found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calibration {
    /// What is taken off the logit of a learned class; infinite where nothing says how alike is alike enough, so that no
    /// image is taken for one.
    pub offset: f32,
    /// Negatives that are taken for a learned class.
    pub accepted: usize,
    /// The bank's images that could be held against others of their class.
    pub tried: usize,
    /// Those of them that are taken for their class then.
    pub recognised: usize,
}

impl Calibration {
    /// Whether learned classes are recognised at all: that takes negatives, or two images of a class.
    pub fn is_enough(&self) -> bool {
        self.offset.is_finite()
    }
}

/// The offset for a bank.
pub(super) fn calibrate(
    space: &Space,
    classes: &[Class],
    negatives: &[Example],
    false_accepts: f32,
) -> Calibration {
    if classes.is_empty() {
        return Calibration::default();
    }
    let (mut query, mut room) = (Vec::new(), Neighbours::default());
    let count = classes.len();
    let mut negative_margins: Vec<f32> = Vec::with_capacity(negatives.len());
    for negative in negatives {
        let is_mapped = space.map(&negative.embedding, &mut query);
        let best = (0..count).map(|class| space.similarity(&query, class, None, &mut room));
        let best = best.fold(-1.0, f32::max);
        negative_margins.push(SHARPNESS * if is_mapped { best } else { -1.0 } - negative.best);
    }
    // For each of the bank's own images its margin, and whether no other class is more alike.
    let mut own: Vec<(f32, bool)> = Vec::new();
    for (c, class) in classes.iter().enumerate().filter(|(_, class)| class.examples.len() > 1) {
        for (i, (vector, example)) in space.vectors(c).zip(&class.examples).enumerate() {
            let similarity = space.similarity(vector, c, Some(i), &mut room);
            let other = (0..count).filter(|other| *other != c);
            let other =
                other.map(|other| space.similarity(vector, other, None, &mut room)).fold(-1.0, f32::max);
            own.push((SHARPNESS * similarity - example.best, similarity > other));
        }
    }
    let offset = match (negative_margins.is_empty(), own.is_empty()) {
        (false, _) => {
            negative_margins.sort_unstable_by(|a, b| b.total_cmp(a));
            let allowed = (f64::from(false_accepts) * negative_margins.len() as f64 + 1e-6) as usize;
            negative_margins.get(allowed).copied().unwrap_or_default()
        }
        (true, false) => {
            let mut margins: Vec<f32> = own.iter().map(|(margin, _)| *margin).collect();
            margins.sort_unstable_by(f32::total_cmp);
            margins.get(margins.len() / SLACK).map_or(0.0, |margin| margin.next_down())
        }
        (true, true) => f32::INFINITY,
    };
    Calibration {
        offset,
        accepted: negative_margins.iter().filter(|margin| **margin > offset).count(),
        tried: own.len(),
        recognised: own.iter().filter(|(margin, is_best)| *margin > offset && *is_best).count(),
    }
}
