//! How parameters move, from flags.

use std::time::Duration;

use smalti_models::Stem;
use smalti_trainer::model::precision::Precision;
use smalti_trainer::train::OptimConfig;
use smalti_trainer::train::optim::{LrDecay, MatrixOptimizer, schedule::scaled_rate};
use smalti_trainer::{Error, Result, clock};

use super::defaults::{Defaults, MUON_LR, OPTIMIZER};
use super::{fill, named};
use crate::args::training::OptimArgs;

const SCHEDULES: [(&str, LrDecay); 2] = [("cosine", LrDecay::Cosine), ("linear", LrDecay::Linear)];

/// CPU time as `--budget` says it: `90s`, `10m`, `1.5h`.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    const UNITS: [(&str, f64); 3] = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let seconds = unit.and_then(|(number, unit)| Some(number.trim().parse::<f64>().ok()? * unit));
    seconds
        .filter(|seconds| (1.0..=1e7).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| Error::Usage(format!("budget is `{text}`: expected a time such as 90s, 10m or 2h")))
}

/// Turns --budget into --steps: what is left of it after the CPU time so far and after `reserved` seconds for something
/// else, at this CPU time a step. False where there is no budget.
pub(crate) fn spend_budget(
    args: &mut OptimArgs,
    reserved: f64,
    cpu_per_step: impl FnOnce() -> Result<f64>,
) -> Result<bool> {
    let Some(budget) = args.budget.take() else { return Ok(false) };
    let budget = duration(&budget)?.as_secs_f64();
    let per_step = cpu_per_step()?.max(1e-6);
    let left = budget - reserved - clock::cpu_time().as_secs_f64();
    args.steps = Some(((left / per_step) as u64).max(1));
    (args.epochs, args.warmup_epochs) = (None, None);
    Ok(true)
}

/// Validations of a run whose length is given in steps, at most: passes over few images are put together to one epoch.
const EPOCHS: u64 = 40;

/// How long a run is.
struct Length {
    epochs: u64,
    steps: Option<u64>,
    repeat: usize,
    /// Epochs, with a fraction.
    whole: f64,
}

/// The length of a run over so many images: --steps, else --epochs, else the default, but not less than learning needs.
fn length(args: &mut OptimArgs, defaults: &Defaults, images: usize, batch_size: usize) -> Length {
    let per_pass = (images as f64 / batch_size.max(1) as f64).max(1.0);
    let is_short = (defaults.epochs as f64 * per_pass) < defaults.min_steps as f64;
    if args.epochs.is_none() && args.steps.is_none() && is_short {
        args.steps = Some(defaults.min_steps);
    }
    let Some(steps) = args.steps else {
        let epochs = fill(&mut args.epochs, defaults.epochs);
        return Length { epochs, steps: None, repeat: 1, whole: epochs as f64 };
    };
    let repeat = (steps as f64 / EPOCHS as f64 / per_pass).ceil().clamp(1.0, 1e6);
    let whole = steps as f64 / (per_pass * repeat);
    let epochs = (whole.ceil() as u64).clamp(1, 1_000_000);
    Length { epochs, steps: Some(steps), repeat: repeat as usize, whole }
}

/// How parameters move in a run over so many images; the layer decay is the caller's.
pub(crate) fn optim(
    args: &mut OptimArgs,
    layer_decay: f64,
    defaults: &Defaults,
    stem: Stem,
    images: usize,
) -> Result<OptimConfig> {
    let precision = precision(args.precision.as_deref());
    args.precision = Some(precision.name().into());
    let batch_size = fill(&mut args.batch_size, defaults.batch_size);
    let accum_iter = fill(&mut args.accum_iter, 1);
    let batch_size = batch_size.saturating_mul(accum_iter);
    let length = length(args, defaults, images, batch_size);
    let lr = args.lr.unwrap_or_else(|| scaled_rate(args.blr.unwrap_or(defaults.blr), batch_size));
    (args.lr, args.blr) = (Some(lr), None);
    let betas = fill(&mut args.betas, defaults.betas.to_vec());
    let [beta1, beta2] = betas[..] else {
        return Err(Error::Usage(format!("betas are {betas:?}: expected two numbers, such as 0.9,0.95")));
    };
    let name =
        SCHEDULES.iter().find(|(_, decay)| *decay == defaults.schedule).map_or("cosine", |(name, _)| name);
    let clip_grad = fill(&mut args.clip_grad, defaults.clip_grad);
    let optimizer = fill(&mut args.optimizer, OPTIMIZER.into());
    let is_hybrid = stem == Stem::Convolutions && optimizer == "adamw";
    let optim = OptimConfig {
        epochs: length.epochs,
        steps: length.steps,
        repeat: length.repeat,
        batch_size,
        lr,
        betas: [beta1, beta2],
        weight_decay: fill(&mut args.weight_decay, defaults.weight_decay),
        layer_decay,
        block_lr: fill(&mut args.block_lr, if is_hybrid { defaults.block_lr } else { 1.0 }),
        warmup_epochs: fill(&mut args.warmup_epochs, defaults.warmup * length.whole),
        schedule: named("schedule", &fill(&mut args.schedule, name.into()), &SCHEDULES)?,
        matrices: match optimizer.as_str() {
            "muon" => MatrixOptimizer::Muon(fill(&mut args.muon_lr, MUON_LR)),
            _ if args.muon_lr.is_some() => {
                return Err(Error::Usage("muon-lr is Muon's alone: add --optimizer muon".into()));
            }
            _ => MatrixOptimizer::AdamW,
        },
        clip_grad: (clip_grad != 0.0).then_some(clip_grad),
        seed: fill(&mut args.seed, 0),
        precision,
    };
    optim.check()?;
    Ok(optim)
}

/// What `--precision` says; the fastest where it says `auto` or nothing.
pub(crate) fn precision(named: Option<&str>) -> Precision {
    let fastest = Precision::fastest();
    match named {
        Some("f32") => Precision::F32,
        Some("bf16") => {
            if fastest != Precision::Bf16 {
                log::warn!("this machine has no products of bf16: --precision bf16 is slower here than f32");
            }
            Precision::Bf16
        }
        _ => {
            log::info!("--precision auto is {fastest} on this machine");
            fastest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::defaults::{DISTIL, FINETUNE, PRETRAIN, SCRATCH};

    #[test]
    fn the_rate_follows_the_images_of_a_step() {
        let mut args = OptimArgs { accum_iter: Some(2), ..OptimArgs::default() };
        let found = optim(&mut args, 1.0, &PRETRAIN, Stem::Patches, 1 << 20).unwrap();
        assert_eq!((found.batch_size, found.lr, found.warmup_epochs), (256, 2e-3, 1.0));
        assert_eq!(args.lr, Some(2e-3));
        assert_eq!(
            args.precision.as_deref(),
            Some(Precision::fastest().name()),
            "what auto is goes into the run"
        );
        assert_eq!(
            optim(&mut args, 1.0, &FINETUNE, Stem::Patches, 1 << 20).unwrap(),
            found,
            "arguments are complete after the first plan"
        );
        let mut args = OptimArgs { blr: Some(1e-3), batch_size: Some(512), ..OptimArgs::default() };
        assert_eq!(optim(&mut args, 1.0, &PRETRAIN, Stem::Patches, 1 << 20).unwrap().lr, 2e-3);
    }

    #[test]
    fn a_run_has_the_steps_that_learning_needs() {
        let of = |mut args: OptimArgs, images| {
            let found = optim(&mut args, 1.0, &FINETUNE, Stem::Patches, images).unwrap();
            let same = optim(&mut args, 1.0, &FINETUNE, Stem::Patches, images).unwrap();
            assert_eq!(found, same, "arguments are complete after the first plan");
            assert!(args.epochs.is_some() != args.steps.is_some());
            (found.steps, found.epochs, found.repeat)
        };
        assert_eq!(of(OptimArgs::default(), 64_000), (None, 30, 1));
        assert_eq!(of(OptimArgs::default(), 60), (Some(500), 39, 13));
        assert_eq!(of(OptimArgs { epochs: Some(30), ..OptimArgs::default() }, 60), (None, 30, 1));
        let steps = |steps| OptimArgs { steps: Some(steps), ..OptimArgs::default() };
        assert_eq!(of(steps(10), 64_000), (Some(10), 1, 1));
        assert_eq!(of(steps(4000), 6400), (Some(4000), 40, 1));
        let found = optim(&mut steps(1000), 1.0, &FINETUNE, Stem::Patches, 60).unwrap();
        assert_eq!(found.schedule(25).total, 1000);
        assert_eq!(found.schedule(25).warmup, 100, "10 % of the steps");
        assert!(optim(&mut steps(0), 1.0, &FINETUNE, Stem::Patches, 60).is_err());
    }

    #[test]
    fn a_budget_becomes_steps() {
        for (text, seconds) in [("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0)] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds);
        }
        for text in ["", "10", "m", "0s", "-1m", "inf h", "nans", "1d"] {
            assert_eq!(duration(text).unwrap_err().exit_code(), 2, "{text}");
        }
        let mut args =
            OptimArgs { budget: Some("1000h".into()), warmup_epochs: Some(3.0), ..OptimArgs::default() };
        assert!(spend_budget(&mut args, 0.0, || Ok(36.0)).unwrap());
        let steps = args.steps.unwrap();
        assert!(steps > 99_000 && steps <= 100_000 && args.budget.is_none() && args.warmup_epochs.is_none());
        assert!(!spend_budget(&mut args, 0.0, || unreachable!()).unwrap());
    }

    #[test]
    fn a_precision_that_is_named_is_taken() {
        assert_eq!(precision(Some("bf16")), Precision::Bf16);
        assert_eq!(precision(Some("f32")), Precision::F32);
        assert_eq!(precision(None), precision(Some("auto")));
    }

    #[test]
    fn blocks_behind_convolutions_learn_slowly_from_scratch_by_adamw() {
        let of = |stem, optimizer: &str, given, defaults: &Defaults| {
            let mut args =
                OptimArgs { optimizer: Some(optimizer.into()), block_lr: given, ..OptimArgs::default() };
            optim(&mut args, 1.0, defaults, stem, 1000).unwrap().block_lr
        };
        let (hybrid, plain) = (Stem::Convolutions, Stem::Patches);
        assert_eq!([of(hybrid, "adamw", None, &SCRATCH), of(hybrid, "adamw", None, &DISTIL)], [0.2, 1.0]);
        assert_eq!([of(hybrid, "muon", None, &SCRATCH), of(plain, "adamw", None, &SCRATCH)], [1.0, 1.0]);
        assert_eq!(
            [of(hybrid, "adamw", None, &FINETUNE), of(hybrid, "adamw", Some(0.5), &SCRATCH)],
            [1.0, 0.5]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |args: OptimArgs| {
            optim(&mut args.clone(), 1.0, &PRETRAIN, Stem::Patches, 1000).unwrap_err().exit_code() == 2
        };
        assert!(refused(OptimArgs { betas: Some(vec![0.9]), ..OptimArgs::default() }));
        assert!(refused(OptimArgs { lr: Some(f64::NAN), ..OptimArgs::default() }));
        assert!(refused(OptimArgs { epochs: Some(0), ..OptimArgs::default() }));
        assert!(refused(OptimArgs {
            batch_size: Some(usize::MAX),
            accum_iter: Some(9),
            ..OptimArgs::default()
        }));
        assert!(refused(OptimArgs { block_lr: Some(2.0), ..OptimArgs::default() }));
        assert!(refused(OptimArgs { clip_grad: Some(-1.0), ..OptimArgs::default() }));
    }
}
