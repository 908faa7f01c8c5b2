//! The plan of a fine-tuning run: where it starts, what it learns from, what it is measured on.

use std::path::{Path, PathBuf};

use smalti_models::{Pooling, Preprocess, VitConfig};
use smalti_trainer::data::{Dataset, LabelSpec, Mix, Split, Splits, pick_labels};
use smalti_trainer::model::weights::{Beside, Sizes, Weights};
use smalti_trainer::run::{ModelFiles, RunDir};
use smalti_trainer::stages::finetune::{FinetuneSettings, HeadInit};
use smalti_trainer::{Error, Result};

use super::defaults::{FINETUNE, SCRATCH};
use super::{augment, check_network, fill, images, labelled, named, optim, required, size};
use crate::args::FinetuneArgs;
use crate::args::training::{ImageArgs, SizeArgs};

const HEADS: [(&str, HeadInit); 2] = [("fresh", HeadInit::Fresh), ("probe", HeadInit::Probe)];
const POOLS: [(&str, Pooling); 2] = [("token", Pooling::Token), ("mean", Pooling::Mean)];

/// What a fine-tuning starts from.
#[derive(Debug)]
pub(crate) enum Init {
    /// Fresh parameters.
    Scratch,
    /// A file of weights whose encoder and preprocessing are stated, by a run or by Smalti's own metadata; and how tokens
    /// are pooled, where it was imported.
    Stated(PathBuf, VitConfig, Preprocess, Option<Pooling>),
    /// A file of weights that only its shapes describe, and the number of heads if a `config.json` states it.
    Sized(PathBuf, Sizes, Option<usize>),
    /// A file of weights, on a rank that was sent complete arguments.
    Sent(PathBuf),
}

impl Init {
    /// Looks at what `--init` names.
    pub(crate) fn read(init: &Option<PathBuf>) -> Result<Init> {
        let path = required(init, "--init", "a run, a safetensors file, the name of a start, or `scratch`")?;
        if path == Path::new("scratch") {
            return Ok(Init::Scratch);
        }
        check_network(&path, &["scratch"])?;
        if path.is_dir() {
            let run = RunDir::open(&path)?;
            let ModelFiles { config, preprocess, .. } = run.load_model_files()?;
            let pool = config.pool.filter(|_| run.is_imported());
            return Ok(Init::Stated(run.best_or_last(), config.encoder, preprocess, pool));
        }
        let folder = path.parent().filter(|folder| folder.join("config.json").is_file());
        if let Some(Ok(ModelFiles { config, preprocess, .. })) = folder.map(ModelFiles::load) {
            return Ok(Init::Stated(path, config.encoder, preprocess, None));
        }
        let weights = Weights::open(&path)?;
        if let Some((encoder, preprocess)) = weights.stated()? {
            return Ok(Init::Stated(path, encoder, preprocess, None));
        }
        if let Some(tensor) = weights.beyond_plain() {
            let problem = format!(
                "holds `{tensor}`, which a plain vision transformer has not: bring the network in by \
                 `smalti import {} -o RUN`, and start from RUN",
                path.display()
            );
            return Err(Error::Checkpoint { path, problem });
        }
        let beside = folder.map(Beside::network).transpose()?.unwrap_or_default();
        let mut sizes = weights.sizes()?;
        sizes.variant.norm_eps = beside.norm_eps.unwrap_or(sizes.variant.norm_eps);
        Ok(Init::Sized(path, sizes, beside.heads))
    }

    /// What `--init` names in arguments that another rank completed.
    pub(crate) fn sent(init: &Option<PathBuf>) -> Init {
        match init {
            Some(path) if path != Path::new("scratch") => Init::Sent(path.clone()),
            _ => Init::Scratch,
        }
    }

    /// The encoder and its input that start here and learn from `data`.
    pub(crate) fn model(
        &self,
        size: &mut SizeArgs,
        images: &mut ImageArgs,
        data: &Dataset,
    ) -> Result<(VitConfig, Preprocess)> {
        let encoder = match self {
            Init::Stated(_, encoder, ..) => size::from_init(size, encoder)?,
            Init::Sized(path, sizes, heads) => size::from_file(size, path, sizes, *heads)?,
            _ => size::encoder(size, || images::shape(data))?,
        };
        let preprocess = match self {
            Init::Stated(_, _, preprocess, _) => {
                let preprocess = preprocess.with_img_size(encoder.img_size);
                images::from_init(images, &preprocess)?;
                preprocess
            }
            _ => images::preprocess(images, &encoder, data)?,
        };
        Ok((encoder, preprocess))
    }

    /// The file of weights.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Init::Scratch => None,
            Init::Stated(path, ..) | Init::Sized(path, ..) | Init::Sent(path) => Some(path),
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
    let (encoder, preprocess) = init.model(&mut args.size, &mut args.images, train)?;
    // What was imported is best read as it was trained.
    let pool = match init {
        Init::Stated(_, _, _, Some(Pooling::Token)) => "token",
        _ => "mean",
    };
    let regular = &mut args.regular;
    let layer_decay = fill(&mut regular.layer_decay, defaults.layer_decay);
    let settings = FinetuneSettings {
        pool: named("pool", &fill(&mut args.pool, pool.into()), &POOLS)?,
        optim: optim::optim(&mut args.optim, layer_decay, defaults, encoder.stem, train.len())?,
        augment: augment::augment(&mut args.images, encoder.img_size, defaults)?,
        mix: Mix {
            mixup: fill(&mut regular.mixup, defaults.mixup),
            cutmix: fill(&mut regular.cutmix, defaults.cutmix),
        },
        smoothing: fill(&mut regular.smoothing, defaults.smoothing),
        drop_path: fill(&mut regular.drop_path, defaults.drop_path),
        token_drop: fill(&mut regular.token_drop, defaults.token_drop),
        head: named("head", &fill(&mut regular.head, "fresh".into()), &HEADS)?,
        ema: fill(&mut regular.ema, 0.0),
        interpolate: fill(&mut regular.interpolate, 0.0),
        encoder,
        preprocess,
    };
    settings.check()?;
    Ok(settings)
}
