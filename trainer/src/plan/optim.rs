//! How parameters move, from flags.

use smalti_trainer::model::precision::Precision;
use smalti_trainer::train::OptimConfig;
use smalti_trainer::train::optim::{LrDecay, MatrixOptimizer, schedule::scaled_rate};
use smalti_trainer::{Error, Result};

use super::defaults::{Defaults, MUON_LR, OPTIMIZER};
use super::{fill, named};
use crate::args::training::OptimArgs;

const SCHEDULES: [(&str, LrDecay); 2] = [("cosine", LrDecay::Cosine), ("linear", LrDecay::Linear)];

/// The optim; the layer decay is the caller's.
pub(crate) fn optim(args: &mut OptimArgs, layer_decay: f64, defaults: &Defaults) -> Result<OptimConfig> {
    let precision = precision(args.precision.as_deref());
    args.precision = Some(precision.name().into());
    let epochs = fill(&mut args.epochs, defaults.epochs);
    let batch_size = fill(&mut args.batch_size, defaults.batch_size);
    let accum_iter = fill(&mut args.accum_iter, 1);
    let batch_size = batch_size.saturating_mul(accum_iter);
    let lr = args.lr.unwrap_or_else(|| scaled_rate(args.blr.unwrap_or(defaults.blr), batch_size));
    (args.lr, args.blr) = (Some(lr), None);
    let betas = fill(&mut args.betas, defaults.betas.to_vec());
    let [beta1, beta2] = betas[..] else {
        return Err(Error::Usage(format!("betas are {betas:?}: expected two numbers, such as 0.9,0.95")));
    };
    let name =
        SCHEDULES.iter().find(|(_, decay)| *decay == defaults.schedule).map_or("cosine", |(name, _)| name);
    let clip_grad = fill(&mut args.clip_grad, defaults.clip_grad);
    let optim = OptimConfig {
        epochs,
        batch_size,
        lr,
        betas: [beta1, beta2],
        weight_decay: fill(&mut args.weight_decay, defaults.weight_decay),
        layer_decay,
        warmup_epochs: fill(&mut args.warmup_epochs, defaults.warmup * epochs as f64),
        schedule: named("schedule", &fill(&mut args.schedule, name.into()), &SCHEDULES)?,
        matrices: match fill(&mut args.optimizer, OPTIMIZER.into()).as_str() {
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
    use crate::plan::defaults::{FINETUNE, PRETRAIN};

    #[test]
    fn the_rate_follows_the_images_of_a_step() {
        let mut args = OptimArgs { accum_iter: Some(2), ..OptimArgs::default() };
        let found = optim(&mut args, 1.0, &PRETRAIN).unwrap();
        assert_eq!((found.batch_size, found.lr, found.warmup_epochs), (256, 2e-3, 1.0));
        assert_eq!(args.lr, Some(2e-3));
        assert_eq!(
            args.precision.as_deref(),
            Some(Precision::fastest().name()),
            "what auto is goes into the run"
        );
        assert_eq!(
            optim(&mut args, 1.0, &FINETUNE).unwrap(),
            found,
            "arguments are complete after the first plan"
        );
        let mut args = OptimArgs { blr: Some(1e-3), batch_size: Some(512), ..OptimArgs::default() };
        assert_eq!(optim(&mut args, 1.0, &PRETRAIN).unwrap().lr, 2e-3);
    }

    #[test]
    fn a_precision_that_is_named_is_taken() {
        assert_eq!(precision(Some("bf16")), Precision::Bf16);
        assert_eq!(precision(Some("f32")), Precision::F32);
        assert_eq!(precision(None), precision(Some("auto")));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused =
            |args: OptimArgs| optim(&mut args.clone(), 1.0, &PRETRAIN).unwrap_err().exit_code() == 2;
        assert!(refused(OptimArgs { betas: Some(vec![0.9]), ..OptimArgs::default() }));
        assert!(refused(OptimArgs { lr: Some(f64::NAN), ..OptimArgs::default() }));
        assert!(refused(OptimArgs { epochs: Some(0), ..OptimArgs::default() }));
        assert!(refused(OptimArgs {
            batch_size: Some(usize::MAX),
            accum_iter: Some(9),
            ..OptimArgs::default()
        }));
        assert!(refused(OptimArgs { clip_grad: Some(-1.0), ..OptimArgs::default() }));
    }
}
