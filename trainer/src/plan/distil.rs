//! The plan of a distillation.

use smalti_models::Pooling;
use smalti_trainer::data::{Dataset, Mix};
use smalti_trainer::stages::distil::DistilSettings;
use smalti_trainer::teacher::cache::Crops;
use smalti_trainer::teacher::{Teacher, TokenTargets};
use smalti_trainer::{Error, Result};

use super::defaults::{CROPS, DISTIL};
use super::finetune::Init;
use super::{augment, fill, optim};
use crate::args::DistilArgs;

/// The share of a budget that the teacher may take.
pub(crate) const OF_TEACHER: f64 = 0.4;

/// Most images whose tokens are learned by default: they are kept in memory, 18 kB for each with 6 x 6 places.
const MOST_WITH_TOKENS: usize = 50_000;

/// The crops that fit into a budget, unless the user says how many, and the CPU time in seconds that the teacher takes for
/// them.
pub(crate) fn crops_within(args: &mut DistilArgs, images: usize, cpu_per_image: f64) -> Result<f64> {
    let a_pass = images as f64 * cpu_per_image;
    if let Some(budget) = &args.optim.budget {
        let passes = OF_TEACHER * optim::duration(budget)?.as_secs_f64() / a_pass.max(1e-9);
        fill(&mut args.teacher.crops, (passes as u64).clamp(1, CROPS));
    }
    Ok(args.teacher.crops.unwrap_or(CROPS) as f64 * a_pass)
}

/// Settings for these images and this teacher; the arguments say all of them afterwards.
pub(crate) fn plan(
    args: &mut DistilArgs,
    init: &Init,
    teacher: &dyn Teacher,
    data: &Dataset,
) -> Result<DistilSettings> {
    let (teacher, grid) = (teacher.config(), teacher.grid());
    let (encoder, preprocess) = init.model(&mut args.size, &mut args.images, data)?;
    let optim = optim::optim(&mut args.optim, DISTIL.layer_decay, &DISTIL, encoder.stem, data.len())?;
    let augment = augment::augment(&mut args.images, encoder.img_size, &DISTIL)?;
    let crops = Crops {
        passes: fill(&mut args.teacher.crops, CROPS),
        augment: smalti_trainer::data::Augment {
            crop: augment.crop,
            flip: augment.flip,
            ..Default::default()
        },
        cut_from: teacher.preprocess.img_size.max(2 * encoder.img_size),
        seed: optim.seed,
    };
    let mix = Mix { mixup: fill(&mut args.mixup, 0.0), cutmix: fill(&mut args.cutmix, 0.0) };
    let by_default = grid.is_some() && mix.cutmix <= 0.0 && data.len() <= MOST_WITH_TOKENS;
    let token_values = match (fill(&mut args.token_targets, by_default), grid) {
        (true, Some(grid)) => TokenTargets::of(grid, encoder.grid()).values,
        (true, None) => {
            let problem =
                "token-targets: the teacher has no square grid of vectors whose mean is its embedding";
            return Err(Error::Usage(problem.into()));
        }
        (false, _) => 0,
    };
    let settings = DistilSettings {
        pool: Pooling::Mean,
        mix,
        token_values,
        teacher: teacher.clone(),
        encoder,
        preprocess,
        optim,
        augment,
        crops,
    };
    settings.check()?;
    Ok(settings)
}
