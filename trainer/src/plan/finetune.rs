//! The plan of a fine-tuning run: where it starts, what it learns from, what it is measured on.

use std::path::{Path, PathBuf};

use smalti_models::{Pool, Preprocess, VitConfig};
use smalti_trainer::data::{Dataset, LabelSpec, Mix, Split, Splits, pick_labels};
use smalti_trainer::run::{RunDir, load_config};
use smalti_trainer::stages::finetune::FinetuneSettings;
use smalti_trainer::{Error, Result};

use super::defaults::{FINETUNE, SCRATCH};
use super::{fill, images, labelled, named, optim, required, size};
use crate::args::FinetuneArgs;

const POOLS: [(&str, Pool); 2] = [("token", Pool::Token), ("mean", Pool::Mean)];

/// What a fine-tuning starts from.
#[derive(Debug)]
pub(crate) enum Init {
    /// Fresh parameters.
    Scratch,
    /// The file of an encoder's tensors, with sizes and preprocessing where they are known.
    File(PathBuf, Option<(VitConfig, Preprocess)>),
}

impl Init {
    /// What `--init` names.
    pub(crate) fn read(init: &Option<PathBuf>) -> Result<Init> {
        let path = required(init, "--init", "a pretrained run, a safetensors file, or `scratch`")?;
        if path == Path::new("scratch") {
            return Ok(Init::Scratch);
        }
        if path.is_dir() {
            let run = RunDir::open(&path)?;
            let (config, preprocess, _) = run.load_config()?;
            let best = run.model("best");
            let file = if best.is_file() { best } else { run.model("last") };
            return Ok(Init::File(file, Some((config.encoder, preprocess))));
        }
        std::fs::metadata(&path).map_err(Error::file("read", &path))?;
        let beside = path.parent().filter(|folder| folder.join("config.json").is_file());
        let known = match beside.map(load_config) {
            Some(Ok((config, preprocess, _))) => Some((config.encoder, preprocess)),
            Some(Err(why)) => {
                // Others write files of this name too.
                log::warn!("{why}; sizes are taken from the flags");
                None
            }
            None => None,
        };
        Ok(Init::File(path, known))
    }

    /// What `--init` names, where all that is to be known of it has been said in other arguments.
    pub(crate) fn told(init: &Option<PathBuf>) -> Init {
        match init {
            Some(path) if path != Path::new("scratch") => Init::File(path.clone(), None),
            _ => Init::Scratch,
        }
    }

    /// The file of tensors.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Init::Scratch => None,
            Init::File(path, _) => Some(path),
        }
    }
}

/// The images of a fine-tuning run.
pub(crate) struct Sets {
    /// Labelled images to learn from.
    pub(crate) train: Dataset,
    /// Labelled images that choose the best epoch.
    pub(crate) val: Option<Dataset>,
    /// Labelled images to measure on, and which split they are.
    pub(crate) test: Option<(Dataset, Split)>,
}

/// The images that the arguments name. Images without labels are named to the user now, before training.
pub(crate) fn sets(args: &mut FinetuneArgs) -> Result<Sets> {
    let data = Splits::open(&required(&args.data, "--data", "a data set with labels")?)?;
    let all = data.dataset(Split::Train)?;
    let spec: LabelSpec = fill(&mut args.labels, "all".into()).parse()?;
    let seed = fill(&mut args.label_seed, 0);
    let mut picked = pick_labels(&all, &spec, seed)?;
    let val = match args.val.as_deref() {
        None => held_out(&data, Split::Val, "they do not choose the best epoch")?,
        Some("none") => None,
        Some(path) if Dataset::is_data_set(Path::new(path)) => Some(val_set(Path::new(path), all.classes())?),
        Some(spec) => Some(held_back(&all, &mut picked, &spec.parse()?, seed)?),
    };
    let test = match held_out(&data, Split::Test, "accuracy is not measured on them")? {
        Some(test) => Some((test, Split::Test)),
        None => val.clone().map(|val| (val, Split::Val)),
    };
    Ok(Sets { train: all.select(&picked), val, test })
}

/// The labelled images of a split, if there are any.
fn held_out(data: &Splits, split: Split, left_out: &str) -> Result<Option<Dataset>> {
    if !data.has(split) {
        return Ok(None);
    }
    let labelled = labelled(&data.dataset(split)?, split, left_out);
    Ok(Some(labelled).filter(|labelled| !labelled.is_empty()))
}

/// The validation images of a data set of their own.
fn val_set(path: &Path, classes: &[String]) -> Result<Dataset> {
    let data = Dataset::open(path, Split::All)?;
    let labelled = labelled(&data, Split::All, "they do not choose the best epoch");
    if labelled.is_empty() {
        let problem = "no image has a label, expected labelled images for --val";
        return Err(Error::data(path.display().to_string(), problem));
    }
    labelled.with_classes(classes)
}

/// Takes validation images out of the train split: a file's, or a draw among the labelled ones.
fn held_back(all: &Dataset, picked: &mut Vec<usize>, spec: &LabelSpec, seed: u64) -> Result<Dataset> {
    let val: Vec<usize> = match spec {
        LabelSpec::File(_) => pick_labels(all, spec, seed)?,
        _ => pick_labels(&all.select(picked), spec, seed)?
            .iter()
            .filter_map(|&i| picked.get(i).copied())
            .collect(),
    };
    // Both are rising.
    picked.retain(|i| val.binary_search(i).is_err());
    if picked.is_empty() {
        return Err(Error::Usage("--val takes every labelled image: none is left to learn from".into()));
    }
    Ok(all.select(&val))
}

/// Settings for these images; the arguments say all of them afterwards.
pub(crate) fn plan(args: &mut FinetuneArgs, init: &Init, train: &Dataset) -> Result<FinetuneSettings> {
    let defaults = if matches!(init, Init::Scratch) { &SCRATCH } else { &FINETUNE };
    let (encoder, preprocess) = match init {
        Init::File(_, Some((encoder, preprocess))) => {
            size::from_init(&mut args.size, encoder)?;
            images::from_init(&mut args.images, preprocess)?;
            (encoder.clone(), preprocess.clone())
        }
        _ => {
            let encoder = size::encoder(&mut args.size, || images::shape(train))?;
            let preprocess = images::preprocess(&mut args.images, &encoder, train)?;
            (encoder, preprocess)
        }
    };
    let regular = &mut args.regular;
    let layer_decay = fill(&mut regular.layer_decay, defaults.layer_decay);
    let settings = FinetuneSettings {
        pool: named("pool", &fill(&mut args.pool, "mean".into()), &POOLS)?,
        optim: optim::optim(&mut args.optim, layer_decay, defaults)?,
        augment: optim::augment(&mut args.images, encoder.img_size, defaults)?,
        mix: Mix {
            mixup: fill(&mut regular.mixup, defaults.mixup),
            cutmix: fill(&mut regular.cutmix, defaults.cutmix),
        },
        smoothing: fill(&mut regular.smoothing, defaults.smoothing),
        drop_path: fill(&mut regular.drop_path, defaults.drop_path),
        token_drop: fill(&mut regular.token_drop, defaults.token_drop),
        encoder,
        preprocess,
    };
    settings.check()?;
    Ok(settings)
}
