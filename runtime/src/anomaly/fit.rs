//! A detector from good images.
//!
//! The images are dealt to a few parts. What each part scores against a detector of the others says what good images reach
//! that were not learned from; the detector itself is then learned from all of them, and is a little stricter with what it
//! has seen than with what it will see.

use super::coreset::{self, Points};
use super::file;
use super::{AnomalyDetector, Finding, Measure, parts, tokens};
use crate::error::{Error, Result};
use crate::gaussian::Gaussian;
use crate::load::Model;
use crate::session::Output;

/// The fewest images.
const MIN_IMAGES: usize = 8;
/// Parts that are left out one after another.
const FOLDS: usize = 4;
/// The most tokens that remembered ones are chosen from; of more, some of every image.
const MAX_TOKENS: usize = 20_000;
/// The share of good images that reach a scale: 3 of 4.
const TYPICAL: f32 = 0.25;

/// How to learn.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The share of good images that may be taken for unusual ones.
    pub false_alarms: f32,
    /// Tokens to remember, at most.
    pub remember: usize,
    /// By what images are measured.
    pub measure: Measure,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { false_alarms: 0.01, remember: 500, measure: Measure::Both }
    }
}

/// What was learned of some images.
struct Learned {
    /// Remembered tokens.
    rows: Vec<f32>,
    points: Points,
    gaussian: Gaussian,
}

/// One good image: its tokens and its embedding.
type Good<'a> = (&'a [f32], &'a [f32]);

/// Learns from a model's answers to good images. The model shows tokens
/// ([`OpenOptions::tokens`](crate::OpenOptions::tokens)).
///
/// # Errors
/// [`Error::Usage`] for settings out of range, for a model without tokens or embedding; [`Error::Data`] for fewer than 8
/// images, or images that are all the same.
pub fn fit(model: &Model, answers: &[Output], settings: &Settings) -> Result<AnomalyDetector> {
    let Settings { false_alarms, remember, measure } = *settings;
    if !(0.0..0.5).contains(&false_alarms) || !(1..=file::MAX_POINTS).contains(&remember) {
        let found = format!("false alarms {false_alarms}, {remember} tokens");
        let allowed = format!("expected 0 to 0.5, and 1 to {} tokens", file::MAX_POINTS);
        return Err(Error::Usage(format!("{found}: {allowed}")));
    }
    let Some(grid) = model.tokens() else {
        return Err(Error::Usage("the model was opened without tokens".into()));
    };
    if answers.len() < MIN_IMAGES {
        let problem = format!("{} usable images: expected at least {MIN_IMAGES} good ones", answers.len());
        return Err(Error::data("good images", problem));
    }
    let good = answers.iter().map(|output| Ok((tokens(model, output)?, model.embedding_of(output)?)));
    let good: Vec<Good<'_>> = good.collect::<Result<_>>()?;
    let mut held_out = Vec::with_capacity(good.len());
    for part in 0..FOLDS {
        let others: Vec<Good<'_>> = every(&good, |i| i % FOLDS != part);
        let learned = learn(&others, grid.dim, remember)?;
        let mut finding = Finding::default();
        for (tokens, embedding) in every(&good, |i| i % FOLDS == part) {
            held_out.push(super::measure(
                &learned.points,
                &learned.gaussian,
                tokens,
                embedding,
                &mut finding,
            ));
        }
    }
    let scales = [0, 1].map(|way| {
        let reached = held_out.iter().map(|distances| distances[way]).collect();
        least_above(reached, TYPICAL).max(f32::MIN_POSITIVE)
    });
    let scores = held_out.iter().map(|distances| measure.of(parts(*distances, scales))).collect();
    let threshold = least_above(scores, false_alarms).max(f32::MIN_POSITIVE);
    let Learned { rows, points, gaussian } = learn(&good, grid.dim, remember)?;
    Ok(AnomalyDetector {
        model: model.digest(),
        tokens: grid.name.clone(),
        grid: [grid.rows, grid.columns],
        measure,
        rows,
        points,
        gaussian,
        scales,
        threshold,
        false_alarms,
        images: good.len(),
    })
}

/// The items whose numbers are wanted.
fn every<'a>(good: &[Good<'a>], is_wanted: impl Fn(usize) -> bool) -> Vec<Good<'a>> {
    good.iter().enumerate().filter(|(i, _)| is_wanted(*i)).map(|(_, good)| *good).collect()
}

/// Learns from images.
fn learn(good: &[Good<'_>], dim: usize, remember: usize) -> Result<Learned> {
    let all: usize = good.iter().map(|(tokens, _)| tokens.len() / dim).sum();
    let kept = all.min(MAX_TOKENS);
    let mut rows = Vec::with_capacity(kept * dim);
    // Spread evenly: every image, and other places of each.
    let flat = good.iter().flat_map(|(tokens, _)| tokens.chunks_exact(dim));
    let mut wanted = (0..kept).map(|i| i * all / kept).peekable();
    for (i, token) in flat.enumerate() {
        if wanted.next_if_eq(&i).is_some() {
            rows.extend_from_slice(token);
        }
    }
    let chosen = coreset::greedy(&rows, dim, remember);
    let rows: Vec<f32> = chosen.iter().flat_map(|&i| &rows[i * dim..(i + 1) * dim]).copied().collect();
    let embeddings: Vec<f32> = good.iter().flat_map(|(_, embedding)| *embedding).copied().collect();
    let embedding_dim = good.first().map_or(0, |(_, embedding)| embedding.len());
    let learned = Points::new(&rows, dim).zip(Gaussian::fit(&embeddings, embedding_dim));
    let (points, gaussian) = learned.ok_or_else(|| {
        Error::data("good images", "all the same to the model: expected photos that differ as good ones do")
    })?;
    Ok(Learned { rows, points, gaussian })
}

/// The least of some values that at most that share of them exceeds.
fn least_above(mut values: Vec<f32>, share: f32) -> f32 {
    values.sort_unstable_by(|a, b| b.total_cmp(a));
    let allowed = (f64::from(share) * values.len() as f64 + 1e-6) as usize;
    values.get(allowed).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_share_lies_above() {
        let values: Vec<f32> = (1..=100u8).map(f32::from).collect();
        for (share, wanted) in [(0.0, 100.0), (0.01, 99.0), (0.25, 75.0), (0.004, 100.0)] {
            let found = least_above(values.clone(), share);
            assert_eq!(found, wanted);
            let above = values.iter().filter(|value| **value > found).count();
            assert!(above as f32 <= 100.0 * share);
        }
        assert_eq!(least_above(Vec::new(), 0.1), 0.0);
    }
}
