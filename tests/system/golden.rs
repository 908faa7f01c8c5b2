//! Losses, gradients and optimizer steps from the same weights as PyTorch's, to the tolerances of
//! `golden/README.md`: the f64 path to the golden files' own storage, the f32 path to float32's rounding.

use smalti_models::names::Role;
use smalti_models::{DecoderConfig, MaeConfig, Pooling};
use smalti_system_tests::cases::{Case, distance, largest_difference};
use smalti_trainer::model::ops::Float;
use smalti_trainer::model::params::Layout;
use smalti_trainer::model::{Classifier, Grads, Mae, classifier, mae};
use smalti_trainer::objective::{CrossEntropy, Mask, PixelLoss};
use smalti_trainer::train::optim::{AdamW, Rates, RunningStatistics, adamw};
use smalti_trainer::train::step::{BatchPlan, GradLanes};

/// How far values may be from the golden ones.
struct Tolerance {
    loss: f64,
    gradient: f64,
    values: f64,
}

/// f64 differs by how the tensors are stored (f32), and by the order of its sums in the losses.
const WIDE: Tolerance = Tolerance { loss: 1e-10, gradient: 1e-6, values: 1e-6 };
/// What is still safe for f32.
const NARROW: Tolerance = Tolerance { loss: 3e-6, gradient: 2e-5, values: 2e-5 };
/// The losses of ten steps in f32. AdamW with bias corrections of other betas than the kernel's is 3e-6 off.
const STEPS: f64 = 1e-6;
/// The same with convolutions, whose gradients (2e-6 off) are rounded elsewhere than PyTorch's, by Winograd's filtering. AdamW's
/// first steps make a whole step of the smallest gradient, so weights part; the norm of the gradient then says nothing.
const HYBRID_STEPS: f64 = 2e-4;

/// Every gradient against its golden tensor, by name.
fn check_gradients<R: Float>(case: &Case, prefix: &str, layout: &Layout, grads: &[R], tolerance: f64) {
    for (spec, slot) in layout.iter() {
        // What stands in place of the gradients of running statistics are those of the batch.
        let prefix = if spec.role.is_statistic() { "running" } else { prefix };
        let Some(want) = case.floats_if::<R>(&format!("{prefix}.{}", spec.name)) else {
            assert_eq!(spec.role, Role::Positions, "no golden gradient of {}", spec.name);
            assert!(slot.of(grads).iter().all(|g| g.wide() == 0.0), "{} is fixed", spec.name);
            continue;
        };
        let off = distance(slot.of(grads), &want);
        assert!(off <= tolerance, "{prefix}.{} is off by {off:.1e}, at most {tolerance:.0e}", spec.name);
    }
}

fn check(what: &str, off: f64, tolerance: f64) {
    assert!(off <= tolerance, "{what} is off by {off:.1e}, at most {tolerance:.0e}");
}

/// The masked autoencoder of `mae.safetensors`.
fn autoencoder(case: &Case) -> Mae {
    let decoder = case.get("decoder");
    let count = |key: &str| decoder[key].as_u64().expect("a count") as usize;
    let decoder = DecoderConfig {
        kind: Default::default(),
        dim: count("dim"),
        depth: count("depth"),
        heads: count("heads"),
    };
    Mae::new(&MaeConfig { encoder: case.vit(), decoder }).unwrap()
}

/// The golden mask of one step.
fn mask(case: &Case, step: usize) -> Mask {
    let (batch, seen, patches) = (case.count("batch"), case.count("visible"), case.vit().patches() as u32);
    let all = case.places("kept").unwrap();
    let visible = all[step * batch * seen..][..batch * seen].to_vec();
    let images = visible.chunks_exact(seen);
    let hidden = images.flat_map(|seen| (0..patches).filter(|place| !seen.contains(place))).collect();
    Mask { visible, hidden }
}

/// Loss, gradients and predictions of the first step, with normalised and with raw targets.
fn check_mae<R: Float>(tolerance: &Tolerance) {
    let case = Case::open("mae");
    let (model, mask) = (autoencoder(&case), mask(&case, 0));
    let (params, pixels) = (case.flat::<R>(model.layout(), "weights"), case.floats::<R>("pixels"));
    let input = mask.input(&pixels, case.count("batch"));
    let (weight, mut acts) = (1.0 / mask.hidden.len() as f64, mae::Activations::default());
    for (normalise, key, prefix) in [(true, "loss", "grads"), (false, "loss-raw", "grads_raw")] {
        let mut grads = vec![R::ZERO; params.len()];
        let objective = PixelLoss { normalise, weight };
        let loss = objective.gradient(&model, &params, input, &mut acts, &mut Grads::new(&mut grads));
        check(key, (loss - case.number(key)).abs(), tolerance.loss);
        check_gradients(&case, prefix, model.layout(), &grads, tolerance.gradient);
    }
    let (all, len, patches) = (case.floats::<R>("pred"), case.vit().patch_len(), case.vit().patches());
    let each = patches - case.count("visible");
    let rows = mask.hidden.iter().enumerate().map(|(i, &id)| i / each * patches + id as usize);
    let want: Vec<R> = rows.flat_map(|row| all[row * len..][..len].iter().copied()).collect();
    check("pred", largest_difference(model.predict(&params, input, &mut acts), &want), tolerance.values);
}

#[test]
fn masked_autoencoder_in_f64() {
    check_mae::<f64>(&WIDE);
}

#[test]
fn masked_autoencoder_in_f32() {
    check_mae::<f32>(&NARROW);
}

#[test]
fn masked_autoencoder_trains_as_pytorch_does() {
    let case = Case::open("mae");
    let (model, batch) = (autoencoder(&case), case.count("batch"));
    let (mut params, pixels) = (case.flat::<f32>(model.layout(), "weights"), case.floats::<f32>("pixels"));
    let mut adamw = AdamW::new(model.layout(), case.betas(), case.number("weight-decay"), Rates::default());
    let mut lanes = GradLanes::<mae::Activations<f32>>::new(2, params.len()).unwrap();
    for (step, (want, norm)) in case.numbers("losses").into_iter().zip(case.numbers("grad-norms")).enumerate()
    {
        let mask = mask(&case, step);
        let input = mask.input(&pixels, batch);
        let objective = PixelLoss { normalise: true, weight: 1.0 / mask.hidden.len() as f64 };
        let sum = lanes.sum(BatchPlan::new(batch, 3), |images, acts, grads| {
            objective.gradient(&model, &params, input.slice(images.start, images.end), acts, grads)
        });
        sum.unwrap();
        let (loss, found) = lanes.finish(|loss, grads| {
            adamw.update(case.number("lr"), 1.0, grads, &mut params);
            (loss, adamw::norm(grads))
        });
        check(&format!("loss of step {step}"), (loss - want).abs(), STEPS);
        check("gradient norm", (found / norm - 1.0).abs(), NARROW.gradient);
    }
}

/// A fine-tuning case with its model and inputs.
struct Finetune<R> {
    case: Case,
    model: Classifier,
    params: Vec<R>,
    pixels: Vec<R>,
    targets: Vec<R>,
    /// `[steps, batch, visible]`; empty where every patch is seen.
    kept: Vec<u32>,
    /// `[steps, depth, 2, batch]`, if any.
    keep: Option<Vec<R>>,
}

impl<R: Float> Finetune<R> {
    fn open(name: &str) -> Finetune<R> {
        let case = Case::open(name);
        let (classes, smoothing) = (case.count("classes"), case.number("smoothing"));
        let pool: Pooling = serde_json::from_value(case.get("pool").clone()).unwrap();
        let model = Classifier::new(&case.vit(), classes, pool).unwrap();
        let smooth = |label: R| R::of(label.wide() * (1.0 - smoothing) + smoothing / classes as f64);
        Finetune {
            params: case.flat(model.layout(), "weights"),
            pixels: case.floats("pixels"),
            targets: case.floats::<R>("labels").into_iter().map(smooth).collect(),
            kept: case.places("kept").unwrap_or_default(),
            keep: case.floats_if("keep"),
            model,
            case,
        }
    }

    /// The places of the visible patches of one step.
    fn visible(&self, step: usize) -> Vec<u32> {
        let (batch, steps) = (self.case.count("batch"), self.case.count("steps"));
        match self.kept.len() / steps {
            0 => Mask::none(batch, self.case.vit().patches()).visible,
            each => self.kept[step * each..][..each].to_vec(),
        }
    }

    fn input<'a>(&'a self, step: usize, visible: &'a [u32]) -> classifier::Input<'a, R> {
        let each = self.case.vit().depth * 2 * self.case.count("batch");
        let drop = self.keep.as_deref().map(|keep| &keep[step * each..][..each]);
        classifier::Input {
            pixels: &self.pixels,
            visible,
            drop,
            batch: self.case.count("batch"),
            batch_weight: Some(1.0 / self.case.count("batch") as f64),
        }
    }

    /// Loss and gradients of one step.
    fn gradient(&self, step: usize, params: &[R]) -> (f64, Vec<R>) {
        let objective =
            CrossEntropy { targets: &self.targets, weight: 1.0 / self.case.count("batch") as f64 };
        let (visible, mut values) = (self.visible(step), vec![R::ZERO; params.len()]);
        let (mut acts, mut grads) = (Default::default(), Grads::new(&mut values));
        let loss = objective.gradient(&self.model, params, self.input(step, &visible), &mut acts, &mut grads);
        (loss, values)
    }
}

/// Loss, gradients, logits and embeddings of the first step.
fn check_finetune<R: Float>(name: &str, tolerance: &Tolerance) {
    let run = Finetune::<R>::open(name);
    let (loss, grads) = run.gradient(0, &run.params);
    check("loss", (loss - run.case.number("loss")).abs(), tolerance.loss);
    check_gradients(&run.case, "grads", run.model.layout(), &grads, tolerance.gradient);
    let (visible, mut acts) = (run.visible(0), classifier::Activations::default());
    let (logits, embedding) = run.model.predict(&run.params, run.input(0, &visible), &mut acts);
    check("logits", largest_difference(logits, &run.case.floats("logits")), tolerance.values);
    check("embedding", largest_difference(embedding, &run.case.floats("embedding")), tolerance.values);
}

/// Ten steps with AdamW, layer-wise rates, clipping, and the final weights where the case has them.
fn check_training(name: &str) {
    let run = Finetune::<f32>::open(name);
    let (case, layout) = (&run.case, run.model.layout());
    let mut params = run.params.clone();
    let rates = Rates { layer_decay: case.number("layer-decay"), ..Rates::default() };
    let mut adamw = AdamW::new(layout, case.betas(), case.number("weight-decay"), rates);
    for (step, (want, norm)) in case.numbers("losses").into_iter().zip(case.numbers("grad-norms")).enumerate()
    {
        let (loss, mut grads) = run.gradient(step, &params);
        RunningStatistics::new(layout).take(&mut grads);
        let is_hybrid = !case.vit().stem.is_patches();
        let tolerance = if is_hybrid { HYBRID_STEPS } else { STEPS };
        check(&format!("{name}: loss of step {step}"), (loss - want).abs(), tolerance);
        let found = adamw::norm(&grads);
        if !is_hybrid || step == 0 {
            check("gradient norm", (found / norm - 1.0).abs(), NARROW.gradient);
        }
        let scale = adamw::clip_factor(found, case.get("clip").as_f64());
        adamw.update(case.number("lr"), scale, &grads, &mut params);
    }
    if case.get("final").as_bool() == Some(true) {
        check_final(case, layout, &params);
    }
}

fn check_final(case: &Case, layout: &Layout, params: &[f32]) {
    let dim = case.vit().dim;
    for (spec, slot) in layout.iter() {
        let (mut found, mut want) = (slot.of(params).to_vec(), case.floats(&format!("final.{}", spec.name)));
        if spec.name.ends_with("attn.qkv.bias") {
            // The keys' bias has no true gradient: AdamW moves it by rounding alone.
            found.drain(dim..2 * dim);
            want.drain(dim..2 * dim);
        }
        check(&format!("final.{}", spec.name), distance(&found, &want), 1e-5);
    }
}

const FINETUNE: [&str; 5] =
    ["finetune_token", "finetune_mean", "finetune_drop_path", "finetune_drop_tokens", "finetune_hybrid"];

#[test]
fn classifiers_in_f64() {
    FINETUNE.iter().for_each(|name| check_finetune::<f64>(name, &WIDE));
}

#[test]
fn classifiers_in_f32() {
    FINETUNE.iter().for_each(|name| check_finetune::<f32>(name, &NARROW));
}

#[test]
fn classifiers_train_as_pytorch_does() {
    FINETUNE.iter().for_each(|name| check_training(name));
}
