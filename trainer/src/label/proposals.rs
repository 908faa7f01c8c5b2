//! What a classifier says of images without a label: a class to confirm, and which image to ask about first.

use std::path::Path;

use smalti_trainer::Result;
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate::{self, probe, top};
use smalti_trainer::stages::finetune;
use smalti_trainer::train::ExecConfig;

/// What a classifier says of each row of a table.
pub(super) struct Proposals {
    classes: Vec<String>,
    /// Of each row the likeliest class, its probability, and how much likelier it is than the second; none of a file that
    /// cannot be read.
    said: Vec<Option<Said>>,
}

#[derive(Clone, Copy)]
struct Said {
    class: usize,
    probability: f32,
    margin: f32,
}

impl Proposals {
    /// Asks the classifier of a run.
    ///
    /// # Errors
    /// A run without a classifier; errors of the images.
    pub(super) fn new(run: &Path, data: &Dataset, exec: &ExecConfig) -> Result<Proposals> {
        let model = finetune::load(run)?;
        let found = probe::embed(&model, data, exec)?;
        let mut said = vec![None; data.len()];
        for (id, logits) in found.ids.iter().zip(found.logits.chunks_exact(found.classes.max(1))) {
            let (class, margin) = (top(logits), evaluate::margin(logits));
            let probability = evaluate::probabilities(logits, 1.0)[class] as f32;
            said[*id as usize] = Some(Said { class, probability, margin });
        }
        Ok(Proposals { classes: model.labels, said })
    }

    /// The classes that it knows.
    pub(super) fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The likeliest class of a row, and its probability.
    pub(super) fn of(&self, row: usize) -> Option<(&str, f32)> {
        let said = self.said.get(row).copied().flatten()?;
        Some((self.classes.get(said.class)?, said.probability))
    }

    /// Sorts rows so that those come first between whose two likeliest classes least is to choose (margin sampling).
    pub(super) fn sort(&self, rows: &mut [usize]) {
        let margin =
            |row: usize| self.said.get(row).copied().flatten().map_or(f32::INFINITY, |said| said.margin);
        rows.sort_by(|a, b| margin(*a).total_cmp(&margin(*b)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_certain_come_first_and_what_cannot_be_read_last() {
        let said = |margin| Some(Said { class: 1, probability: 0.6, margin });
        let said = vec![said(0.5), None, said(0.1), said(0.3)];
        let proposals = Proposals { classes: vec!["a".into(), "b".into()], said };
        let mut rows = [0, 1, 2, 3];
        proposals.sort(&mut rows);
        assert_eq!(rows, [2, 3, 0, 1]);
        assert_eq!((proposals.of(0), proposals.of(1), proposals.of(9)), (Some(("b", 0.6)), None, None));
    }
}
