//! `compare`: do two models say the same?

use std::path::Path;

use serde_json::{Value, json};
use smalti_runtime::{Error, printable};
use smalti_tools::compare::{Comparison, Settings, compare};
use smalti_tools::eval::share;
use smalti_tools::samples;

use super::args::{Args, CompareArgs};
use super::out;
use super::progress::Progress;

/// The most flips that are listed.
const FLIPS: usize = 20;

pub(super) fn run(command: &CompareArgs, args: &Args) -> anyhow::Result<u8> {
    let a = super::open::open(&command.a, &command.file, &command.foreign)?;
    let b = super::open::open(&command.b, &command.file, &command.foreign)?;
    let samples = samples::folder(&command.data, a.labels())?;
    let progress = Progress::new(args.quiet);
    let step = |done, total| progress.step(done, total);
    let settings = Settings { threads: command.threads.into(), progress: &step };
    let found = compare(&a, &b, &samples, &settings)?;
    check_bad(&found, command.max_bad, &command.data)?;
    match args.json {
        true => out::json(as_json(&found))?,
        false => out::line(as_text(&found).trim_end())?,
    }
    judge(command, &found)?;
    out::next(args, &format!("smalti-run run {} IMAGES", out::quoted(&command.b)));
    Ok(0)
}

/// Fails below the agreement, or beyond the loss of accuracy, that was asked for.
fn judge(command: &CompareArgs, found: &Comparison) -> Result<(), Error> {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    if found.agreement < command.min_agreement {
        let (agreement, wanted) = (percent(found.agreement), percent(command.min_agreement));
        return Err(Error::GateFailed(format!(
            "compare: {agreement} of the answers agree, --min-agreement asks for {wanted}"
        )));
    }
    let Some(budget) = command.budget else { return Ok(()) };
    let (Some(a), Some(b)) = (found.accuracy_a, found.accuracy_b) else {
        let problem = "--budget needs a folder of class folders named as the model's labels";
        return Err(Error::Usage(problem.into()));
    };
    // Not to fail by the last bit of a difference.
    if a - b > budget + 1e-9 {
        let (a, b, budget) = (percent(a), percent(b), 100.0 * budget);
        return Err(Error::GateFailed(format!(
            "compare: accuracy falls from {a} to {b}, --budget allows {budget:.2} points"
        )));
    }
    Ok(())
}

/// Names the images that cannot be used, and fails if they are too many.
pub(super) fn check_bad(found: &Comparison, max_bad: f64, place: &Path) -> Result<(), Error> {
    for (path, problem) in &found.bad {
        out::error(format!("{path}: {problem}"));
    }
    let (bad, all) = (found.bad.len() as u64, found.bad.len() as u64 + found.n);
    if share(bad, all) <= max_bad {
        return Ok(());
    }
    let problem = format!("{bad} of {all} images cannot be used, more than --max-bad allows");
    Err(Error::Data { place: place.display().to_string(), problem })
}

fn as_json(found: &Comparison) -> Value {
    let flips: Vec<_> = found.flips.iter().take(FLIPS).collect();
    json!({
        "n": found.n,
        "agreement": found.agreement,
        "cosine": found.cosine,
        "cosine_of": found.cosine_of,
        "largest_difference": found.largest_difference,
        "a_accuracy": found.accuracy_a,
        "b_accuracy": found.accuracy_b,
        "flips": found.flips.len(),
        "first_flips": flips,
        "bad": found.bad.iter().map(|(path, error)| json!({ "path": path, "error": error })).collect::<Vec<_>>(),
    })
}

fn as_text(found: &Comparison) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mut text = String::new();
    if let (Some(a), Some(b)) = (found.accuracy_a, found.accuracy_b) {
        text += &format!("accuracy   {} and {} ({:+.2} points)\n", percent(a), percent(b), 100.0 * (b - a));
    }
    let (same, n) = (found.n - found.flips.len() as u64, found.n);
    text += &format!("agreement  {} ({same} of {n} answers are the same)\n", percent(found.agreement));
    text += &format!("cosine     {:.5} ({}, mean)\n", found.cosine, found.cosine_of);
    text += &format!("logits     differ by {:.3e} at most\n", found.largest_difference);
    for flip in found.flips.iter().take(FLIPS) {
        let truth = flip.truth.as_ref().map_or(String::new(), |truth| format!(" (it is {truth})"));
        text += &format!(
            "flip       {}\n",
            printable(&format!("{}: {} -> {}{truth}", flip.name, flip.from, flip.to))
        );
    }
    match found.flips.len().checked_sub(FLIPS) {
        Some(more @ 1..) => text + &format!("           and {more} more\n"),
        _ => text,
    }
}
