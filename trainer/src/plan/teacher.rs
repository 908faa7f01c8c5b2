//! Which network a teacher is.

use std::path::{Path, PathBuf};

use smalti_models::{Pooling, VitConfig, starts};
use smalti_trainer::evaluate::probe;
use smalti_trainer::model::weights::Weights;
use smalti_trainer::stages::finetune::Finetuned;
use smalti_trainer::stages::import::{self, ImportSettings};
use smalti_trainer::teacher::{self, Hints, NetworkTeacher, Teacher};
use smalti_trainer::{Error, Result};

use super::import::{file, plan as plan_import};
use super::{check_network, required};
use crate::args::ImportArgs;
use crate::args::distil::TeacherArgs;

/// Opens the teacher that the flags name: an ONNX file, weights of timm or Hugging Face or a start of ours, or a run.
pub(crate) fn open(args: &TeacherArgs) -> Result<Box<dyn Teacher>> {
    let path = required(&args.teacher, "--teacher", "an ONNX file, a safetensors file or a run")?;
    check_network(&path, &[])?;
    if is_weights(&path) {
        let (network, file) = imported(&path, args)?;
        return Ok(Box::new(NetworkTeacher::new(network, &file)?));
    }
    if args.teacher_img_size.is_some() {
        let problem =
            "--teacher-img-size is for a safetensors file: an ONNX file and a run have one input size";
        return Err(Error::Usage(problem.into()));
    }
    let single = |values: &Vec<f64>| values.iter().map(|&x| x as f32).collect();
    let hints = Hints {
        output: args.teacher_output.clone(),
        mean: args.teacher_mean.as_ref().map(single),
        std: args.teacher_std.as_ref().map(single),
    };
    teacher::open(&path, &hints)
}

/// Whether this is a safetensors file, the name of a start, or a folder with such a file that is no run.
fn is_weights(path: &Path) -> bool {
    match path.is_dir() {
        true => file(path).is_ok(),
        false if path.to_str().is_some_and(|name| starts::find(name).is_some()) => true,
        false => path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")),
    }
}

/// A run, or weights that were not imported as one, as something that embeds images.
pub(crate) fn embedder(path: &Path) -> Result<Finetuned> {
    check_network(path, &[])?;
    match is_weights(path) {
        true => Ok(imported(path, &TeacherArgs::default())?.0),
        false => probe::load(path),
    }
}

/// The network of weights that were not imported as a run, and their file.
fn imported(source: &Path, args: &TeacherArgs) -> Result<(Finetuned, PathBuf)> {
    let path = file(source)?;
    let weights = Weights::open(&path)?;
    let settings = match weights.stated()? {
        Some(_) if args.teacher_mean.is_some() => {
            let problem = format!("--teacher-mean and --teacher-std: {} states its own", path.display());
            return Err(Error::Usage(problem));
        }
        Some((encoder, preprocess)) => {
            let img_size = args.teacher_img_size.unwrap_or(encoder.img_size);
            ImportSettings {
                preprocess: preprocess.with_img_size(img_size),
                encoder: VitConfig { img_size, ..encoder },
                pool: Pooling::Mean,
                labels: Vec::new(),
            }
        }
        None => {
            let wanted = ImportArgs {
                img_size: args.teacher_img_size,
                mean: args.teacher_mean.clone(),
                std: args.teacher_std.clone(),
                ..ImportArgs::default()
            };
            ImportSettings { labels: Vec::new(), ..plan_import(&wanted, &path, &weights)? }
        }
    };
    let (network, loaded) = import::read(&weights, &settings)?;
    log::info!("{}: {loaded}", path.display());
    Ok((network, path))
}
