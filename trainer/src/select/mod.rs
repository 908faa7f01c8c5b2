//! `smalti select`: which images to label first.
//!
//! [`images`] opens the folder with the labels that there are; an encoder embeds every image, in parts that an
//! interruption keeps; [`smalti_trainer::selection`] picks, and [`repeats`] turns away what looks like an image that has a
//! label or was picked; [`outcome`] writes the table, the contact sheet and the copies.

mod images;
mod outcome;
mod repeats;

use std::path::{Path, PathBuf};

use serde_json::json;
use smalti_models::starts;
use smalti_trainer::data::Dataset;
use smalti_trainer::evaluate;
use smalti_trainer::run::Owner;
use smalti_trainer::run::owner::{self, Claim};
use smalti_trainer::selection::{self, Pool};
use smalti_trainer::teacher::{Embeddings, Teacher, embeddings};
use smalti_trainer::train::ExecConfig;
use smalti_trainer::{Error, Result};

use crate::args::distil::TeacherArgs;
use crate::args::{Global, SelectArgs, config};
use crate::commands::{self, runs};
use crate::console::log::next;
use crate::console::out;
use crate::console::progress::Count;
use crate::console::signals::Stop;
use crate::plan::{self, fill, required};
use outcome::Outcome;
use repeats::Repeats;

const SETTINGS: &str = "config.toml";
/// The table of labels, and the chosen images on one sheet.
const TABLE: &str = "labels.csv";
const SHEET: &str = "sheet.jpg";
/// What the command writes into its folder.
const FILES: [&str; 4] = [SETTINGS, TABLE, SHEET, embeddings::FOLDER];

pub(crate) fn run(args: SelectArgs, global: &Global) -> anyhow::Result<()> {
    let out = args.out.clone().unwrap_or_else(|| "smalti-select".into());
    let (resumes, overwrite) = (args.resume == Some(true), args.overwrite == Some(true));
    let file = config::file(global, resumes.then_some(out.as_path()));
    let mut args: SelectArgs = config::merge(args, file.as_deref())?;
    let folder = plan::folder(&args.data)?;
    let number = required(&args.number, "--number", "how many images to choose")?;
    let seed = fill(&mut args.seed, 0);
    let (exec, stop) = (commands::machine(&args.machine)?, Stop::listen());
    let data = images::open(&folder, args.labels.as_deref())?;
    let unlabelled = data.len() - data.labelled().len();
    if unlabelled == 0 {
        let problem = "every image has a label: expected images outside of class folders; `--labels none` passes over labels";
        return Err(Error::data(data.root(), problem).into());
    }
    if !(1..=unlabelled).contains(&number) {
        let problem = format!("number is {number}: expected 1 to {unlabelled}, the images without a label");
        return Err(Error::Usage(problem).into());
    }
    args.copy.as_deref().map_or(Ok(()), |copy| outcome::check_copy(copy, &folder))?;
    let network = plan::teacher::open(&encoder(&args)?)?;
    let owner = claim(&out, &args, &data, resumes, overwrite)?;
    owner.write(SETTINGS, config::to_toml(&SelectArgs { data: None, ..args.clone() })?.as_bytes())?;
    let found = embed(&owner, &*network, &data, &exec, &stop, global)?;
    let doubt = doubt(&*network, &found)?;
    let picked = pick(&data, &found, doubt.as_deref(), number, seed, &stop)?;
    let outcome = Outcome { data: &data, picked: &picked, folder: &folder };
    let table = outcome.write(&owner, args.copy.as_deref())?;
    tell_outcome(&args, &table, &picked, &data, doubt.is_some(), global)
}

/// The encoder that the arguments name.
fn encoder(args: &SelectArgs) -> Result<TeacherArgs> {
    if args.teacher.crops.is_some() {
        return Err(Error::Usage(
            "crops is for `smalti distil`: images are chosen by what they show whole".into(),
        ));
    }
    if args.teacher.teacher.is_some() {
        return Ok(args.teacher.clone());
    }
    let init = args.init.clone().unwrap_or_else(|| starts::STARTS[0].name.into());
    Ok(TeacherArgs { teacher: Some(runs::of_train(&init)), ..args.teacher.clone() })
}

/// Takes the folder; labels that were given since an earlier command wrote there are never removed.
fn claim(out: &Path, args: &SelectArgs, data: &Dataset, resumes: bool, overwrite: bool) -> Result<Owner> {
    let table = out.join(TABLE);
    if (resumes || overwrite) && outcome::has_new_labels(&table, args.data.as_deref().unwrap_or(out), data)? {
        let (table, out) = (table.display(), out.display());
        return Err(Error::Usage(format!(
            "{table} holds labels that were given since: name another folder than {out} with --out, and these labels with \
             --labels"
        )));
    }
    if resumes {
        return match owner::written_by(out).as_deref() {
            Some("select") => Owner::resume(out, "select", &[]),
            _ => {
                let problem =
                    format!("{} holds nothing of `smalti select`: leave --resume out", out.display());
                Err(Error::Usage(problem))
            }
        };
    }
    let paths = [
        ("DIR", &args.data),
        ("--labels", &args.labels),
        ("--init", &args.init),
        ("--teacher", &args.teacher.teacher),
    ];
    let inputs: Vec<(&str, PathBuf)> =
        paths.into_iter().filter_map(|(flag, path)| Some((flag, path.clone()?))).collect();
    let claim = Claim {
        written_by: "select",
        names: &FILES,
        overwrite,
        inputs: &inputs,
        legacy: &[],
        resumable: true,
    };
    Owner::claim(out, &claim)
}

/// What the encoder makes of every image.
fn embed(
    owner: &Owner,
    network: &dyn Teacher,
    data: &Dataset,
    exec: &ExecConfig,
    stop: &Stop,
    global: &Global,
) -> anyhow::Result<Embeddings> {
    let mut count = Count::new(global, "select", "images looked at");
    let found = Embeddings::of_images(owner, network, data, exec, &mut |done, all| {
        count.show(done, all);
        stop.code()
    });
    found.map_err(|error| match stop.code() {
        None => error.into(),
        Some(_) => {
            let out = out::quoted(owner.folder());
            anyhow::Error::from(error).context(format!(
                "stopped by a signal: continue with `smalti select DIR --resume --out {out}`"
            ))
        }
    })
}

/// How little sure the encoder's classifier is of each image, if it has one: 1 less the distance between the probabilities of
/// the two likeliest classes (margin sampling).
fn doubt(network: &dyn Teacher, found: &Embeddings) -> Result<Option<Vec<f32>>> {
    let Some(head) = network.head()? else { return Ok(None) };
    let logits = head.logits(&found.rows)?;
    Ok(Some(logits.chunks_exact(head.bias.len().max(1)).map(|row| 1.0 - evaluate::margin(row)).collect()))
}

fn pick(
    data: &Dataset,
    found: &Embeddings,
    doubt: Option<&[f32]>,
    number: usize,
    seed: u64,
    stop: &Stop,
) -> Result<Vec<usize>> {
    let labelled: Vec<bool> = (0..data.len()).map(|i| data.label(i).is_some()).collect();
    let pool = Pool { embeddings: &found.rows, dim: found.width, labelled: &labelled, doubt };
    let mut repeats = Repeats::of_labelled(data);
    let picked = selection::pick(&pool, number, seed, &mut |i| {
        stop.check()?;
        Ok(repeats.accept(data, i))
    })?;
    let rest = "all others repeat an image that is labelled or chosen, or cannot be read";
    match picked.len() {
        0 => return Err(Error::data(data.root(), format!("no image was chosen: {rest}"))),
        count if count < number => log::warn!("only {count} images were chosen: {rest}"),
        _ => {}
    }
    Ok(picked)
}

/// Says what was chosen, and what to do next.
fn tell_outcome(
    args: &SelectArgs,
    table: &Path,
    picked: &[usize],
    data: &Dataset,
    by_doubt: bool,
    global: &Global,
) -> anyhow::Result<()> {
    let labelled = data.labelled().len();
    let sheet = table.with_file_name(SHEET);
    if global.json {
        out::json(json!({
            "file": table, "sheet": sheet, "copy": args.copy, "number": picked.len(), "images": data.len(),
            "labelled": labelled, "by_uncertainty": by_doubt,
        }))?;
    } else {
        let how = if by_doubt {
            "by what the classifier is not sure about"
        } else {
            "typical ones of as many clusters"
        };
        out::text(&format!(
            "{} of {} images without a label, {how}: {}, to look at in {}",
            picked.len(),
            data.len() - labelled,
            table.display(),
            sheet.display()
        ))?;
    }
    let folder = out::quoted(args.data.as_deref().unwrap_or(Path::new("DIR")));
    let command = match &args.copy {
        Some(copy) => {
            let copy = out::quoted(copy);
            format!(
                "sort the images of {copy} into a folder for each class, then smalti train {copy} --unlabelled {folder}"
            )
        }
        None => format!("smalti label {folder} --labels {}", out::quoted(table)),
    };
    next(global, &command);
    Ok(())
}
