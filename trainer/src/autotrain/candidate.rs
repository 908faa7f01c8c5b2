//! The classifiers that compete for the labels.
//!
//! Three come out of one fine-tuning of the start: the logistic regression on the frozen encoder that it begins with, its
//! outcome, and the mean of both (WiSE-FT, arXiv 2109.01903). Where the start has seen other people's photos alone, the same
//! model from scratch competes with them.

use serde::{Deserialize, Serialize};

/// What a classifier begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Origin {
    /// An encoder that has learned before.
    Start,
    /// Nothing.
    Scratch,
}

/// A way to a classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) name: &'static str,
    pub(super) origin: Origin,
    /// The share of its first weights that it keeps.
    pub(super) interpolate: f64,
}

const FINE_TUNED: Candidate = Candidate { name: "fine-tuned", origin: Origin::Start, interpolate: 0.0 };
const HALF_WAY: Candidate =
    Candidate { name: "fine-tuned, half way", origin: Origin::Start, interpolate: 0.5 };
pub(super) const FROZEN: Candidate =
    Candidate { name: "frozen encoder, logistic head", origin: Origin::Start, interpolate: 1.0 };
pub(super) const FROM_SCRATCH: Candidate =
    Candidate { name: "trained from scratch", origin: Origin::Scratch, interpolate: 0.0 };

/// Those that compete next to a start, in the order in which equal ones are preferred.
pub(super) fn candidates(with_scratch: bool) -> Vec<Candidate> {
    let all = [HALF_WAY, FROZEN, FINE_TUNED, FROM_SCRATCH];
    all.into_iter().filter(|candidate| with_scratch || candidate.origin == Origin::Start).collect()
}
