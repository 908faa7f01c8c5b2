//! What the run's model says of its images: how right, how sure, where it errs, and what it looks at there.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use serde::Serialize;
use smalti_models::resize::{Interpolation, resize};
use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::calibration::{Reliability, reliability};
use smalti_trainer::evaluate::probe::linear::LinearHead;
use smalti_trainer::evaluate::{
    self, Evaluation, Predictions, label_errors, occlusion, probabilities, rollout,
};
use smalti_trainer::stages::finetune::Finetuned;
use smalti_trainer::train::ExecConfig;
use smalti_trainer::train::step::GradLanes;

use super::picture;

/// Bins of the reliability diagram.
const BINS: usize = 10;
/// Mistakes and suspects that are shown.
const SHOWN: usize = 12;
/// Side of their pictures in pixels.
const SIDE: usize = 144;
/// Folds in which each label that was learned from is held out once, and labels below which none is.
const FOLDS: usize = 5;
const LEAST_LABELS: usize = 20;

/// A model's answers about images that it has not learned from.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Answers {
    /// Which images: `test`, `val`, `held-out`.
    pub(super) split: String,
    /// How many there are; [`Evaluation::n`] of them, evenly spread, were looked at.
    pub(super) images: usize,
    pub(super) evaluation: Evaluation,
    pub(super) reliability: Reliability,
    pub(super) mistakes: Vec<Mistake>,
    /// Wrong answers.
    pub(super) wrong: usize,
    /// How maps of what the model looks at are made.
    pub(super) explained_by: Explain,
}

/// How a map of what a model looks at is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Explain {
    /// Parts are covered, and the answer changes.
    #[default]
    Occlusion,
    /// Attention is followed to the patches.
    Attention,
}

/// A wrong answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Mistake {
    /// The image's number among those that were asked about, and the class that is said.
    #[serde(skip)]
    id: usize,
    #[serde(skip)]
    class: usize,
    pub(super) place: String,
    pub(super) truth: String,
    pub(super) said: String,
    /// Of the class that is said, and of the true one.
    pub(super) probability: f64,
    pub(super) of_truth: f64,
    #[serde(skip)]
    pub(super) photo: String,
    /// What was looked at, where there was time to find out.
    #[serde(skip)]
    pub(super) heat: Option<String>,
}

/// An image whose label is likely wrong.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Suspect {
    pub(super) place: String,
    pub(super) label: String,
    pub(super) said: String,
    pub(super) probability: f64,
    pub(super) of_label: f64,
    /// Whether the label was learned from.
    pub(super) learned: bool,
    #[serde(skip)]
    pub(super) photo: String,
}

/// Images, what a model says of them, and how sure it is `[images, classes]`.
pub(super) struct Asked {
    pub(super) data: Dataset,
    pub(super) found: Predictions,
    pub(super) probabilities: Vec<f64>,
}

impl Asked {
    /// Asks about at most `most` images, evenly spread.
    pub(super) fn new(model: &Finetuned, data: &Dataset, most: usize, exec: &ExecConfig) -> Result<Asked> {
        let count = data.len().min(most);
        let data = data.select(&(0..count).map(|i| i * data.len() / count.max(1)).collect::<Vec<_>>());
        let loader = evaluate::loader(&data, &model.preprocess, exec)?;
        let lanes = GradLanes::new(exec.threads, 0)?;
        let found = evaluate::predict(&model.model, &model.params, &loader, &lanes, &|| None)?;
        let rows = found.logits.chunks_exact(found.classes);
        let probabilities = rows.flat_map(|row| probabilities(row, 1.0)).collect();
        Ok(Asked { data, found, probabilities })
    }

    /// Each image's number, row of probabilities and label, where it has one.
    fn labelled(&self) -> impl Iterator<Item = (usize, &[f64], usize)> {
        let rows = self.probabilities.chunks_exact(self.found.classes.max(1));
        let rows = self.found.ids.iter().zip(rows).zip(&self.found.labels);
        rows.filter_map(|((id, row), label)| Some((*id as usize, row, (*label)? as usize)))
    }
}

/// The class with the highest probability, and that.
fn surest(row: &[f64]) -> (usize, f64) {
    row.iter().copied().enumerate().fold((0, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a })
}

fn name(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

impl Answers {
    /// What a model says of held-out images, of `images` in all; maps of what it looks at are made for no longer than `time`.
    pub(super) fn gather(
        model: &Finetuned,
        asked: &Asked,
        (split, images): (&str, usize),
        exec: &ExecConfig,
        (explain, time): (Explain, Duration),
    ) -> Result<Answers> {
        let sure: Vec<(f64, bool)> =
            asked.labelled().map(|(_, row, label)| (surest(row).1, surest(row).0 == label)).collect();
        let mut wrong: Vec<(usize, &[f64], usize)> =
            asked.labelled().filter(|(_, row, label)| surest(row).0 != *label).collect();
        wrong.sort_by(|a, b| surest(b.1).1.total_cmp(&surest(a.1).1));
        let mut mistakes = Vec::new();
        for &(id, row, label) in wrong.iter().take(SHOWN) {
            let (said, probability) = surest(row);
            let Ok(photo) = picture::thumbnail(&asked.data, id, SIDE) else { continue };
            mistakes.push(Mistake {
                id,
                place: asked.data.key(id),
                class: said,
                truth: name(&model.labels, label),
                said: name(&model.labels, said),
                probability,
                of_truth: row.get(label).copied().unwrap_or(0.0),
                photo: picture::uri(&photo)?,
                heat: None,
            });
        }
        let mut answers = Answers {
            split: split.to_owned(),
            images,
            evaluation: asked.found.evaluate(&model.labels)?,
            reliability: reliability(&sure, BINS),
            wrong: wrong.len(),
            mistakes,
            explained_by: explain,
        };
        // The page is worth having without them.
        if let Err(why) = answers.explain(model, &asked.data, exec, time) {
            log::warn!("the page does not show what the model looks at: {why}");
        }
        Ok(answers)
    }

    /// Adds maps of what the model looks at, the surest mistakes first, for as long as there is time.
    fn explain(
        &mut self,
        model: &Finetuned,
        data: &Dataset,
        exec: &ExecConfig,
        time: Duration,
    ) -> Result<()> {
        let (until, lanes) = (Instant::now() + time, GradLanes::new(exec.threads, 0)?);
        for mistake in self.mistakes.iter_mut().take_while(|_| Instant::now() < until) {
            let preprocess = &model.preprocess;
            let input = preprocess.apply(&data.image_for(mistake.id, preprocess.side())?)?;
            let map = match self.explained_by {
                Explain::Occlusion => occlusion::of_classifier(model, input.data(), mistake.class, &lanes)?,
                Explain::Attention => rollout::of_classifier(model, input.data())?,
            };
            // At the size of the pictures around it.
            let photo = resize(&input, SIDE, SIDE, Interpolation::Bicubic)?;
            mistake.heat =
                Some(picture::uri(&picture::heat(&photo, &map, self.explained_by == Explain::Attention)?)?);
        }
        Ok(())
    }
}

/// Labels that are likely wrong, the likeliest first: those of held-out images by the model, those that it has learned from by
/// logistic regressions on its embeddings that have not seen them.
pub(super) fn suspects(
    model: &Finetuned,
    held_out: Option<&Asked>,
    learned: Option<&Asked>,
) -> Result<Vec<Suspect>> {
    let mut found = Vec::new();
    for (asked, is_learned) in [(held_out, false), (learned, true)] {
        let Some(asked) = asked else { continue };
        let rows: Vec<(usize, &[f64], usize)> = asked.labelled().collect();
        let labels: Vec<u32> = rows.iter().map(|(.., label)| *label as u32).collect();
        let probabilities = if is_learned {
            match held_out_probabilities(asked)? {
                Some(probabilities) => probabilities,
                None => continue,
            }
        } else {
            rows.iter().flat_map(|(_, row, _)| row.iter().copied()).collect()
        };
        let classes = asked.found.classes;
        for i in label_errors::suspects(&probabilities, &labels, classes).into_iter().take(SHOWN) {
            let row = &probabilities[i * classes..(i + 1) * classes];
            let ((id, _, label), (said, probability)) = (rows[i], surest(row));
            let Ok(photo) = picture::thumbnail(&asked.data, id, SIDE) else { continue };
            found.push(Suspect {
                place: asked.data.key(id),
                label: name(&model.labels, label),
                said: name(&model.labels, said),
                probability,
                of_label: row[label],
                learned: is_learned,
                photo: picture::uri(&photo)?,
            });
        }
    }
    // What was learned from can be mended before the next training.
    let margin = |suspect: &Suspect| suspect.of_label - suspect.probability;
    found.sort_by(|a, b| b.learned.cmp(&a.learned).then(margin(a).total_cmp(&margin(b))));
    found.truncate(SHOWN);
    Ok(found)
}

/// The probabilities `[labelled, classes]` of labelled images by regressions that learned from the others; none where there are
/// too few.
fn held_out_probabilities(asked: &Asked) -> Result<Option<Vec<f64>>> {
    let (dim, classes) = (asked.found.dim, asked.found.classes);
    let rows = asked.found.embeddings.chunks_exact(dim.max(1)).zip(&asked.found.labels);
    let rows: Vec<(&[f32], u32)> = rows.filter_map(|(row, label)| Some((row, (*label)?))).collect();
    if rows.len() < LEAST_LABELS {
        return Ok(None);
    }
    // Every fold has its share of each class.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| (rows[*i].1, *i));
    let mut fold = vec![0; rows.len()];
    order.iter().enumerate().for_each(|(place, i)| fold[*i] = place % FOLDS);
    let of = |is_in: &dyn Fn(usize) -> bool| {
        let chosen = (0..rows.len()).filter(|i| is_in(*i)).map(|i| rows[i]);
        let (rows, labels): (Vec<&[f32]>, Vec<u32>) = chosen.unzip();
        (rows.concat(), labels)
    };
    let (all, labels) = of(&|_| true);
    let images: Vec<u32> = (0..labels.len() as u32).collect();
    let decay = LinearHead::fit(&all, &labels, &images, dim, classes)?.decay;
    let mut found = vec![0.0; rows.len() * classes];
    for held in 0..FOLDS {
        let (kept, labels) = of(&|i| fold[i] != held);
        let images: Vec<u32> = (0..labels.len() as u32).collect();
        let head = LinearHead::fit_with(&kept, &labels, &images, dim, classes, Some(decay))?;
        let (rest, _) = of(&|i| fold[i] == held);
        let places = (0..rows.len()).filter(|i| fold[*i] == held);
        for (i, logits) in places.zip(head.logits(&rest)?.chunks_exact(classes)) {
            found[i * classes..(i + 1) * classes].copy_from_slice(&probabilities(logits, 1.0));
        }
    }
    Ok(Some(found))
}

/// The wrong answers that are most frequent: true class, what is said, how often.
pub(super) fn confusions(evaluation: &Evaluation, most: usize) -> Vec<(usize, usize, usize)> {
    let cells = evaluation
        .confusion
        .iter()
        .enumerate()
        .flat_map(|(truth, row)| row.iter().enumerate().map(move |(said, count)| (truth, said, *count)));
    let mut found: Vec<_> = cells.filter(|(truth, said, count)| truth != said && *count > 0).collect();
    found.sort_by_key(|(.., count)| Reverse(*count));
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use smalti_models::Image;

    #[test]
    fn the_most_frequent_mistakes_come_first() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let labels: Vec<Option<u32>> = [0, 0, 0, 1, 1, 2].map(Some).into();
        let found = evaluate::evaluate(&[1, 1, 0, 1, 2, 2], &labels, &names).unwrap();
        assert_eq!(confusions(&found, 5), [(0, 1, 2), (1, 2, 1)]);
        assert_eq!(confusions(&found, 1).len(), 1);
    }

    #[test]
    fn held_out_answers_do_not_know_the_label() {
        // Two clouds; one image in the wrong one.
        let (mut embeddings, mut labels) = (Vec::new(), Vec::new());
        for i in 0..40 {
            let class = i % 2;
            let x = if class == 0 { 1.0 } else { -1.0 };
            embeddings.extend([x + 0.01 * (i as f32), 0.02 * (i as f32)]);
            labels.push(Some(if i == 4 { 1 } else { class as u32 }));
        }
        let found = Predictions {
            classes: 2,
            dim: 2,
            ids: (0..40).collect(),
            logits: vec![0.0; 80],
            embeddings,
            labels,
        };
        let image = || (Image::new(1, 1, 1, vec![0]).unwrap(), None);
        let data = Dataset::from_images(vec![], (0..40).map(|_| image()).collect()).unwrap();
        let asked = Asked { data, found, probabilities: vec![0.5; 80] };
        let said = held_out_probabilities(&asked).unwrap().unwrap();
        let labels: Vec<u32> = asked.found.labels.iter().flatten().copied().collect();
        assert_eq!(label_errors::suspects(&said, &labels, 2), [4]);
    }
}
