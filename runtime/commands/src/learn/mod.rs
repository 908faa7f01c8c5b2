//! `learn`: classes from a few images each, in a file beside the model.

mod test;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as Flags, Subcommand};
use serde_json::{Value, json};
use smalti_runtime::bank::{Answer, ClassBank, MAX_NEGATIVES};
use smalti_runtime::trust::Trust;
use smalti_runtime::{Error, Image, Model, Output, Prediction, Ranked, Session, images};
use smalti_tools::samples::spread;

use super::args::{Args, FileArgs, ForeignArgs, share};
use super::inputs::{self, Tally};
use super::{open, out};

const EXAMPLE: &str = "Example:\n  smalti-run learn add model.onnx classes.bank mug mug1.jpg mug2.jpg mug3.jpg --negatives others/";

#[derive(Debug, Subcommand)]
pub(crate) enum LearnCommand {
    /// Add images of a class: a new one, or more of one that was learned. Makes the bank if there is none.
    #[command(after_help = EXAMPLE)]
    Add(AddArgs),
    /// Forget a class.
    #[command(after_help = "Example:\n  smalti-run learn remove model.onnx classes.bank mug")]
    Remove {
        #[command(flatten)]
        bank: BankArgs,
        /// The class.
        class: String,
    },
    /// The classes of a bank, and how it is calibrated.
    #[command(after_help = "Example:\n  smalti-run learn list model.onnx classes.bank")]
    List(BankArgs),
    /// Accuracy over a folder of class folders, the model's own classes and learned ones.
    #[command(after_help = "Example:\n  smalti-run learn test model.onnx classes.bank photos/")]
    Test(TestArgs),
}

#[derive(Debug, Flags)]
pub(crate) struct BankArgs {
    /// The model file (.onnx).
    pub(crate) model: PathBuf,
    /// The class bank.
    pub(crate) bank: PathBuf,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) foreign: ForeignArgs,
}

#[derive(Debug, Flags)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) bank: BankArgs,
    /// The class.
    pub(crate) class: String,
    /// Images of it: files, folders, `-` for one image on standard input.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// Images of anything but learned classes, such as those of the model's own: with them a share of false accepts can be
    /// held, and more of the new class is recognised. They are kept in the bank, 512 at most.
    #[arg(long, value_name = "DIR")]
    pub(crate) negatives: Vec<PathBuf>,
    /// The share of negatives that may be taken for a learned class [default: what the bank has, else 1%].
    #[arg(long, value_parser = share)]
    pub(crate) false_accepts: Option<f64>,
}

#[derive(Debug, Flags)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) bank: BankArgs,
    /// A folder of class folders; of one with splits (`train/` and `test/` or `val/`) the test split, else val.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The share of unusable images that is put up with, e.g. 5%.
    #[arg(long, default_value = "5%", value_parser = share)]
    pub(crate) max_bad: f64,
}

pub(super) fn run(command: &LearnCommand, args: &Args) -> anyhow::Result<u8> {
    match command {
        LearnCommand::Add(command) => add(command, args),
        LearnCommand::Remove { bank, class } => remove(bank, class, args),
        LearnCommand::List(bank) => list(bank, args),
        LearnCommand::Test(command) => test::run(command, args),
    }
}

/// The model and its bank.
fn open_both(args: &BankArgs) -> Result<(Model, ClassBank), Error> {
    let model = open::open(&args.model, &args.file, &args.foreign)?;
    let bank = open_bank(&args.bank, &model, &open::trust(&args.file)?)?;
    Ok((model, bank))
}

/// The bank of a model.
pub(super) fn open_bank(place: &Path, model: &Model, trust: &Trust) -> Result<ClassBank, Error> {
    ClassBank::open(place, model, trust).map_err(|error| error.in_file(place))
}

/// The bank of a model, or one without classes where there is no file yet.
pub(super) fn open_or_new(place: &Path, model: &Model, trust: &Trust) -> Result<ClassBank, Error> {
    if place.exists() { open_bank(place, model, trust) } else { ClassBank::new(model) }
}

fn add(command: &AddArgs, args: &Args) -> anyhow::Result<u8> {
    let place = &command.bank.bank;
    let model = open::open(&command.bank.model, &command.bank.file, &command.bank.foreign)?;
    let mut bank = open_or_new(place, &model, &open::trust(&command.bank.file)?)?;
    let mut session = model.session()?;
    let false_accepts = command.false_accepts.map_or(bank.false_accepts(), |share| share as f32);
    let (negatives, bad_negatives) = answers(&mut session, &negatives(&command.negatives)?)?;
    if !negatives.is_empty() || command.false_accepts.is_some() {
        bank.add_negatives(&model, &negatives, false_accepts)?;
    }
    let (examples, tally) = answers(&mut session, &command.images)?;
    if examples.is_empty() {
        let problem = format!("none of the images can be used, so `{}` is not learned", command.class);
        return Err(Error::data(place.display().to_string(), problem).into());
    }
    let added = bank.add(&command.class, &model, &examples)?;
    bank.save(place)?;
    if !args.quiet {
        if added < examples.len() {
            out::note(format!("{} images are in the bank already", examples.len() - added));
        }
        let fewest = (1.0 / bank.false_accepts()).ceil();
        if !bank.calibration().is_enough() {
            out::note(
                "not recognised yet, as nothing says how alike is alike enough: give a second image, or --negatives DIR",
            );
        } else if bank.negatives() == 0 {
            out::note(
                "no negatives: nobody knows how many images of other things are taken for learned classes; give --negatives DIR",
            );
        } else if (bank.negatives() as f32) < fewest {
            let found = bank.negatives();
            out::note(format!(
                "{found} negatives cannot show that share of false accepts: give {fewest} or more"
            ));
        }
    }
    match args.json {
        true => {
            let failed = tally.failed + bad_negatives.failed;
            out::json(as_json(&bank, json!({ "class": command.class, "added": added, "failed": failed })))?;
        }
        false => {
            out::line(&format!("{}: {added} images of `{}` added", place.display(), command.class))?;
            out::line(&as_text(&bank))?;
        }
    }
    next(&command.bank, args);
    Ok(if tally.failed > 0 { inputs::BAD_INPUT } else { 0 })
}

/// What to type after a look at a bank, or a change of it.
fn next(bank: &BankArgs, args: &Args) {
    let (model, bank) = (out::quoted(&bank.model), out::quoted(&bank.bank));
    out::next(args, &format!("smalti-run run {model} IMAGES --bank {bank}"));
}

/// The files of the negatives, at most as many as a bank keeps, spread evenly.
fn negatives(folders: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for folder in folders {
        files.extend(images::list(folder)?);
    }
    Ok(spread(&files, MAX_NEGATIVES))
}

/// What the model says of images; those that cannot be used are reported.
pub(super) fn answers(session: &mut Session, files: &[PathBuf]) -> anyhow::Result<(Vec<Output>, Tally)> {
    let (model, mut answers) = (session.model().clone(), Vec::new());
    let tally = inputs::each(files, &model, |_, image: &Image| {
        let mut output = model.output();
        session.run_image_into(image.view(), &mut output)?;
        answers.push(output);
        Ok(Value::Null)
    })?;
    Ok((answers, tally))
}

fn remove(command: &BankArgs, class: &str, args: &Args) -> anyhow::Result<u8> {
    let (_, mut bank) = open_both(command)?;
    let known: Vec<String> = bank.classes().map(|(name, _)| name.to_owned()).collect();
    let removed = bank.remove(class).map_err(|error| open::did_you_mean(error, class, &known))?;
    bank.save(&command.bank)?;
    match args.json {
        true => out::json(json!({ "class": class, "removed": removed }))?,
        false => out::line(&format!("{}: `{class}` removed, {removed} images", command.bank.display()))?,
    }
    next(command, args);
    Ok(0)
}

fn list(command: &BankArgs, args: &Args) -> anyhow::Result<u8> {
    let (_, bank) = open_both(command)?;
    match args.json {
        true => out::json(as_json(&bank, json!({})))?,
        false => out::line(&as_text(&bank))?,
    }
    next(command, args);
    Ok(0)
}

/// A bank as `--json` shows it, with more fields.
pub(super) fn as_json(bank: &ClassBank, more: Value) -> Value {
    let calibration = bank.calibration();
    let classes = bank.classes().map(|(name, images)| json!({ "name": name, "images": images }));
    let mut object = json!({
        "classes": classes.collect::<Vec<_>>(),
        "negatives": bank.negatives(),
        "false_accepts": if bank.negatives() > 0 { json!(bank.false_accepts()) } else { Value::Null },
        "recognises": calibration.is_enough(),
        "accepted": calibration.accepted,
        "tried": calibration.tried,
        "recognised": calibration.recognised,
    });
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn as_text(bank: &ClassBank) -> String {
    let calibration = bank.calibration();
    let mut lines: Vec<String> =
        bank.classes().map(|(name, images)| format!("{name:24} {images} images")).collect();
    if lines.is_empty() {
        lines.push("no classes".into());
    }
    let (recognised, tried) = (calibration.recognised, calibration.tried);
    lines.push(format!("{recognised} of {tried} images are recognised by the others of their class"));
    lines.push(match bank.negatives() {
        0 => "no negatives: how many images of other things are taken for these is not known".into(),
        count => {
            let (accepted, allowed) = (calibration.accepted, 100.0 * bank.false_accepts());
            format!("{accepted} of {count} negatives are taken for these; {allowed} % are allowed")
        }
    });
    lines.join("\n")
}

/// Answers with a bank: what `run --bank` prints.
pub(super) struct Answerer {
    bank: Arc<ClassBank>,
    answer: Answer,
}

impl Answerer {
    pub(super) fn new(bank: Arc<ClassBank>) -> Answerer {
        Answerer { answer: bank.answer(), bank }
    }

    pub(super) fn open(place: &Path, model: &Model, trust: &Trust) -> Result<Answerer, Error> {
        Ok(Answerer::new(Arc::new(open_bank(place, model, trust)?)))
    }

    /// Ranks the learned labels among those of the model.
    pub(super) fn rank(&mut self, model: &Model, prediction: &mut Prediction) -> Result<(), Error> {
        self.bank.answer_into(model, &prediction.output, &mut self.answer)?;
        let label = |index: usize| self.bank.labels().get(index).cloned().unwrap_or_default();
        let ranked = self.answer.ranked.iter();
        prediction.ranked =
            ranked.map(|&(index, probability)| Ranked { label: label(index), index, probability }).collect();
        Ok(())
    }
}
