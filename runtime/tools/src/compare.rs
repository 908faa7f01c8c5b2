//! Do two models say the same? Answers, vectors and numbers over the same images.

use serde::Serialize;

use crate::eval::share;
use crate::samples::{Outputs, Sample, labelled, outputs};
use smalti_runtime::Model;
use smalti_runtime::session::Output;
use smalti_runtime::{Error, Result};

/// How to compare.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Threads, each with a session of its own.
    pub threads: usize,
    /// Called with the number of runs done and in all (two an image); from any thread.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings { threads: 1, progress: &|_, _| {} }
    }
}

/// An image that the two models take for different things.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// The image.
    pub name: String,
    /// The first model's answer.
    pub from: String,
    /// The second model's answer.
    pub to: String,
    /// What it is, where that is known.
    pub truth: Option<String>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// Images that both models answered.
    pub n: u64,
    /// The share of images with the same best label.
    pub agreement: f64,
    /// Mean cosine between the models' vectors.
    pub cosine: f64,
    /// Which vectors those are: `embedding` if both models give one, or `logits`.
    pub cosine_of: &'static str,
    /// Largest difference of a logit.
    pub largest_difference: f32,
    /// Accuracy of the first model, if every image has a class.
    pub accuracy_a: Option<f64>,
    /// Accuracy of the second model, if every image has a class.
    pub accuracy_b: Option<f64>,
    /// Images with different best labels, in order.
    pub flips: Vec<Flip>,
    /// Images that cannot be used, with the reason, in order.
    pub bad: Vec<(String, String)>,
}

/// Runs both models over all samples. Each prepares images as its own record says.
///
/// Errors: [`Error::Usage`] for models with different numbers of classes, [`Error::Data`] if no image can be used.
pub fn compare(a: &Model, b: &Model, samples: &[Sample], settings: &Settings<'_>) -> Result<Comparison> {
    let (classes_a, classes_b) = (a.labels().len(), b.labels().len());
    if classes_a != classes_b {
        return Err(Error::Usage(format!(
            "models with {classes_a} and {classes_b} classes cannot be compared"
        )));
    }
    let total = 2 * samples.len();
    let first = outputs(a, samples, settings.threads, &|done| (settings.progress)(done, total))?;
    let done = samples.len();
    let second = outputs(b, samples, settings.threads, &|more| (settings.progress)(done + more, total))?;
    of_outputs(a.labels(), samples, &first, &second)
}

/// Compares what two models gave for the same samples.
pub fn of_outputs(
    labels: &[String],
    samples: &[Sample],
    first: &Outputs,
    second: &Outputs,
) -> Result<Comparison> {
    let mut sums = Sums::default();
    let (mut flips, mut bad) = (Vec::new(), Vec::new());
    let label = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
    for ((sample, a), b) in samples.iter().zip(first).zip(second) {
        let (a, b) = match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(problem), _) | (_, Err(problem)) => {
                bad.push((sample.name.clone(), problem.clone()));
                continue;
            }
        };
        let (best_a, best_b) = (best(&a.logits), best(&b.logits));
        sums.add(a, b, [best_a, best_b].map(|best| Some(best) == sample.class));
        if best_a != best_b {
            let truth = sample.class.map(label);
            flips.push(Flip { name: sample.name.clone(), from: label(best_a), to: label(best_b), truth });
        }
    }
    if sums.n == 0 {
        let place = samples.first().map_or("images", |sample| sample.name.as_str());
        let problem = bad.first().map_or("no images", |(_, problem)| problem.as_str());
        return Err(Error::data(place, format!("none of {} images can be used: {problem}", samples.len())));
    }
    let accuracy = |right: u64| labelled(samples).then(|| share(right, sums.n));
    Ok(Comparison {
        n: sums.n,
        agreement: share(sums.n - flips.len() as u64, sums.n),
        cosine: sums.cosines / sums.n as f64,
        cosine_of: if sums.embeddings { "embedding" } else { "logits" },
        largest_difference: sums.largest_difference,
        accuracy_a: accuracy(sums.right[0]),
        accuracy_b: accuracy(sums.right[1]),
        flips,
        bad,
    })
}

/// What is added up over the images.
#[derive(Default)]
struct Sums {
    n: u64,
    cosines: f64,
    embeddings: bool,
    largest_difference: f32,
    right: [u64; 2],
}

impl Sums {
    fn add(&mut self, a: &Output, b: &Output, right: [bool; 2]) {
        let (x, y) = match (&a.embedding, &b.embedding) {
            (Some(x), Some(y)) if x.len() == y.len() => (x, y),
            _ => (&a.logits, &b.logits),
        };
        self.embeddings = !std::ptr::eq(x, &a.logits);
        self.n += 1;
        self.cosines += cosine(x, y);
        let differences = a.logits.iter().zip(&b.logits).map(|(a, b)| (a - b).abs());
        self.largest_difference = differences.fold(self.largest_difference, f32::max);
        self.right.iter_mut().zip(right).for_each(|(sum, right)| *sum += u64::from(right));
    }
}

/// Cosine of the angle between two vectors; 1 for two zero vectors, 0 if one is zero.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    match norms > 0.0 {
        true => dot(a, b) / norms,
        false => f64::from(u8::from(a.iter().chain(b).all(|&value| value == 0.0))),
    }
}

/// The first of the largest logits.
pub(crate) fn best(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(logits: &[f32], embedding: Option<&[f32]>) -> Result<Output, String> {
        Ok(Output { logits: logits.to_vec(), embedding: embedding.map(<[f32]>::to_vec), tokens: None })
    }

    fn sample(name: &str, class: Option<usize>) -> Sample {
        Sample { class, ..Sample::file(name.into(), None) }
    }

    #[test]
    fn agreement_flips_and_accuracy() {
        let labels = ["x".to_owned(), "y".to_owned()];
        let samples =
            [sample("1", Some(0)), sample("2", Some(1)), sample("3", Some(1)), sample("4", Some(0))];
        let a = [output(&[1.0, 0.0], None), output(&[1.0, 0.0], None), output(&[0.0, 2.0], None)];
        let b = [output(&[1.0, 0.0], None), output(&[0.0, 1.0], None), output(&[0.0, 1.5], None)];
        let with_bad =
            |outputs: [Result<Output, String>; 3]| [&outputs[..], &[Err("cut off".into())]].concat();
        let found = of_outputs(&labels, &samples, &with_bad(a), &with_bad(b)).unwrap();
        assert_eq!((found.n, found.agreement, found.largest_difference), (3, 2.0 / 3.0, 1.0));
        assert_eq!((found.accuracy_a, found.accuracy_b), (Some(2.0 / 3.0), Some(1.0)));
        assert_eq!((found.cosine, found.cosine_of), (2.0 / 3.0, "logits"));
        let flip = Flip { name: "2".into(), from: "x".into(), to: "y".into(), truth: Some("y".into()) };
        assert_eq!((found.flips, found.bad), (vec![flip], vec![("4".into(), "cut off".into())]));
    }

    #[test]
    fn embeddings_are_compared_where_both_have_them() {
        let both = [output(&[1.0], Some(&[1.0, 0.0]))];
        let other = [output(&[1.0], Some(&[0.0, 3.0]))];
        let found = of_outputs(&[], &[sample("1", None)], &both.to_vec(), &other.to_vec()).unwrap();
        assert_eq!((found.cosine, found.cosine_of, found.accuracy_a), (0.0, "embedding", None));
        let error = of_outputs(&[], &[sample("1", None)], &vec![Err("bad".into())], &other.to_vec());
        assert_eq!(error.unwrap_err().exit_code(), 5);
    }

    #[test]
    fn cosines_of_zero_vectors_are_defined() {
        assert_eq!((cosine(&[0.0], &[0.0]), cosine(&[0.0], &[1.0])), (1.0, 0.0));
        assert!((cosine(&[1.0, 1.0], &[2.0, 2.0]) - 1.0).abs() < 1e-12);
        assert_eq!((best(&[1.0, 3.0, 3.0]), best(&[])), (1, 0));
    }
}
