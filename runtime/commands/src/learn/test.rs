//! `learn test`: accuracy with a bank, on old classes and new ones.

use serde_json::{Value, json};
use smalti_runtime::bank::ClassBank;
use smalti_runtime::{Error, images};
use smalti_tools::eval::share as part;

use super::{TestArgs, open_both};
use crate::args::Args;
use crate::out;

/// What came of the images of one class.
#[derive(Clone, Default)]
struct Row {
    n: u64,
    correct: u64,
    /// Taken for a learned class.
    learned: u64,
    /// Taken for nothing that is known.
    rejected: u64,
    /// Rightly answered by the model without the bank.
    before: u64,
}

pub(super) fn run(command: &TestArgs, args: &Args) -> anyhow::Result<u8> {
    let (model, bank) = open_both(&command.bank)?;
    let labelled = images::labelled(&command.folder, bank.labels())?;
    let mut session = model.session()?;
    let (mut output, mut answer) = (model.output(), bank.answer());
    let (mut rows, mut bad) = (vec![Row::default(); bank.labels().len()], 0u64);
    let mut ranked = Vec::new();
    for (path, class) in &labelled.images {
        let run = images::open_for(path, &model).and_then(|image| {
            session.run_image_into(image.view(), &mut output)?;
            bank.answer_into(&model, &output, &mut answer)
        });
        match run {
            Ok(()) => {}
            Err(Error::Data { problem, .. }) => {
                out::error(Error::data(path.display().to_string(), problem));
                bad += 1;
                continue;
            }
            Err(other) => return Err(other.into()),
        }
        let found = answer.ranked.first().map_or(0, |best| best.0);
        model.rank_into(&output.logits, &mut ranked);
        let row = &mut rows[*class];
        row.n += 1;
        row.correct += u64::from(found == *class);
        row.learned += u64::from(bank.is_learned(&bank.labels()[found]));
        row.rejected += u64::from(model.embeds() && found == 0);
        row.before += u64::from(!model.embeds() && ranked.first().is_some_and(|best| best.0 == *class));
    }
    let seen: u64 = rows.iter().map(|row| row.n).sum();
    if part(bad, bad + seen) > command.max_bad {
        let problem = format!("{bad} of {} images cannot be used, more than --max-bad allows", bad + seen);
        return Err(Error::data(command.folder.display().to_string(), problem).into());
    }
    let report = Report { bank: &bank, own: if model.embeds() { 0 } else { model.labels().len() }, rows };
    match args.json {
        true => out::json(report.as_json())?,
        false => out::line(&report.as_text())?,
    }
    super::next(&command.bank, args);
    Ok(0)
}

/// What a test found.
struct Report<'a> {
    bank: &'a ClassBank,
    /// How many labels are the model's own.
    own: usize,
    rows: Vec<Row>,
}

impl Report<'_> {
    /// The sum over the model's own classes, or over the learned ones that it does not have.
    fn sum(&self, is_old: bool) -> Row {
        let mut sum = Row::default();
        let (old, new) = self.rows.split_at(self.own);
        for row in if is_old { old } else { new } {
            sum.n += row.n;
            sum.correct += row.correct;
            sum.learned += row.learned;
            sum.rejected += row.rejected;
            sum.before += row.before;
        }
        sum
    }

    fn as_json(&self) -> Value {
        let (old, new) = (self.sum(true), self.sum(false));
        let classes = self.rows.iter().zip(self.bank.labels()).enumerate().filter(|(_, (row, _))| row.n > 0);
        let classes = classes.map(|(label, (row, name))| {
            json!({
                "label": name, "learned": self.bank.is_learned(name), "old": label < self.own, "n": row.n,
                "accuracy": part(row.correct, row.n), "rejected": row.rejected,
            })
        });
        json!({
            "accuracy": part(old.correct + new.correct, old.n + new.n),
            "n": old.n + new.n,
            "old_accuracy": part(old.correct, old.n),
            "old_accuracy_without_bank": part(old.before, old.n),
            "old_n": old.n,
            "old_taken_for_learned": part(old.learned, old.n),
            "new_accuracy": part(new.correct, new.n),
            "new_n": new.n,
            "rejected": old.rejected + new.rejected,
            "classes": classes.collect::<Vec<_>>(),
        })
    }

    fn as_text(&self) -> String {
        let (old, new) = (self.sum(true), self.sum(false));
        let percent = |x: u64, n: u64| format!("{:.1} %", 100.0 * part(x, n));
        let mut lines = Vec::new();
        if old.n > 0 {
            let (now, before) = (percent(old.correct, old.n), percent(old.before, old.n));
            let taken = percent(old.learned, old.n);
            lines.push(format!(
                "old classes   {now} of {} images, {before} without the bank; {taken} taken for learned classes",
                old.n
            ));
        }
        if new.n > 0 {
            lines.push(format!("new classes   {} of {} images", percent(new.correct, new.n), new.n));
        }
        if old.rejected + new.rejected > 0 {
            lines.push(format!("rejected      {} images", old.rejected + new.rejected));
        }
        for (row, name) in self.rows.iter().zip(self.bank.labels()).filter(|(row, _)| row.n > 0) {
            let mark = if self.bank.is_learned(name) { "learned" } else { "" };
            lines.push(format!("  {name:24} {:>7} of {:<6} {mark}", percent(row.correct, row.n), row.n));
        }
        lines.join("\n")
    }
}
