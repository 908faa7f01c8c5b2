//! The convolutional stem within a classifier and an autoencoder: gradients, masks, statistics.

use smalti_models::names::Role;
use smalti_models::{DecoderConfig, DecoderKind, MaeConfig, Pooling, Stem, VitConfig};

use crate::model::classifier::{Activations, Classifier, Input};
use crate::model::grads::Grads;
use crate::model::mae::{self, Mae};
use crate::model::ops::check::{Check, dot, values};
use crate::objective::Mask;

const IMAGES: usize = 3;
const SIDE: usize = 32;
/// Three of the four patches of each image.
const THREE: [u32; 9] = [2, 0, 3, 1, 3, 0, 0, 2, 1];

/// A model, a point to differentiate at, and images.
struct Case {
    model: Classifier,
    params: Vec<f64>,
    pixels: Vec<f64>,
    visible: Vec<u32>,
}

impl Case {
    fn new(visible: &[u32]) -> Case {
        let stem = Stem::Convolutions;
        let vit = VitConfig {
            img_size: SIDE,
            patch_size: 16,
            channels: 3,
            dim: 16,
            depth: 1,
            heads: 2,
            stem,
            variant: Default::default(),
        };
        let model = Classifier::new(&vit, 3, Pooling::Mean).unwrap();
        let noise = values(model.layout().len(), 4);
        let start = model.layout().init::<f64>(3);
        let params = start.iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
        Case { model, params, pixels: values(IMAGES * 3 * SIDE * SIDE, 2), visible: visible.to_vec() }
    }

    fn all() -> Case {
        Case::new(&Mask::none(IMAGES, 4).visible)
    }

    /// In training, with a third of the weight of a batch.
    fn input(&self) -> Input<'_, f64> {
        let batch_weight = Some(1.0 / 9.0);
        Input { pixels: &self.pixels, visible: &self.visible, drop: None, batch: IMAGES, batch_weight }
    }

    fn statistics(&self) -> Vec<&str> {
        let specs = self.model.layout().iter().map(|(spec, _)| spec);
        specs.filter(|spec| spec.role.is_statistic()).map(|spec| spec.name.as_str()).collect()
    }

    /// Logits times `pull`, and the gradient.
    fn gradient(&self, params: &[f64], pull: &[f64], grads: &mut [f64]) -> f64 {
        let (mut acts, mut grads) = (Activations::default(), Grads::new(grads));
        let loss = dot(self.model.predict(params, self.input(), &mut acts).0, pull);
        acts.dlogits = pull.to_vec();
        self.model.head_backward(params, &mut acts, &mut grads);
        self.model.embed_backward(params, self.input(), &mut acts, &mut grads);
        loss
    }
}

#[test]
fn gradients_match_finite_differences() {
    let pull = values(IMAGES * 3, 8);
    for case in [Case::all(), Case::new(&THREE)] {
        let check = Check::at(case.model.layout(), case.params.clone()).skip(&case.statistics()).with_kinks();
        check.run(
            |p| dot(case.model.predict(p, case.input(), &mut Activations::default()).0, &pull),
            |p, grads| {
                case.gradient(p, &pull, grads);
            },
        );
    }
}

/// The images with other pixels in hidden patches.
fn with_other_hidden_pixels(case: &Case) -> Vec<f64> {
    let mut pixels = case.pixels.clone();
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (image, y, x) = (i / (3 * SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
        let patch = (y / 16 * 2 + x / 16) as u32;
        if !case.visible[image * 3..][..3].contains(&patch) {
            *pixel += 5.0;
        }
    }
    pixels
}

#[test]
fn hidden_pixels_have_no_influence() {
    let (case, pull) = (Case::new(&THREE), values(IMAGES * 3, 8));
    let pixels = with_other_hidden_pixels(&case);
    assert_ne!(pixels, case.pixels);
    let other = Case { pixels, ..Case::new(&THREE) };
    let [mut grads, mut same] = [0, 1].map(|_| vec![0.0; case.params.len()]);
    let loss = case.gradient(&case.params, &pull, &mut grads);
    assert_eq!(loss, other.gradient(&case.params, &pull, &mut same));
    assert_eq!(grads, same);
    // And of what they would be, without a mask, there is much.
    let [seen, changed] = [&case, &other].map(|case| {
        let all = Case { pixels: case.pixels.clone(), ..Case::all() };
        all.model.predict(&all.params, all.input(), &mut Activations::default()).0.to_vec()
    });
    assert!(seen.iter().zip(&changed).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn inference_takes_running_statistics_image_by_image() {
    let (case, mut grads) = (Case::all(), vec![0.0; Case::all().params.len()]);
    case.gradient(&case.params, &[0.0; IMAGES * 3], &mut grads);
    // One step of training with a momentum of 1: these images are a third of the batch.
    let mut params = case.params.clone();
    for (spec, slot) in case.model.layout().iter().filter(|(spec, _)| spec.role.is_statistic()) {
        let found = slot.of(&grads).iter().map(|value| 3.0 * value);
        slot.of_mut(&mut params).iter_mut().zip(found).for_each(|(running, value)| *running = value);
        assert!(slot.of(&params).iter().any(|value| *value != 0.0), "{}", spec.name);
    }
    let inference = Input { batch_weight: None, ..case.input() };
    let (mut acts, mut one) = (Activations::default(), Activations::default());
    let training = case.model.predict(&params, case.input(), &mut acts).0.to_vec();
    let logits = case.model.predict(&params, inference, &mut acts).0.to_vec();
    // The running variance is corrected for its number of positions.
    let near = |a: &f64, b: &f64| (a - b).abs() < 0.1 * b.abs().max(0.1);
    assert!(training.iter().zip(&logits).all(|(a, b)| near(a, b)), "{training:?} {logits:?}");
    for image in 0..IMAGES {
        let alone = case.model.predict(&params, inference.slice(image, image + 1), &mut one).0;
        assert_eq!(alone, &logits[image * 3..][..3]);
    }
}

#[test]
fn fast_f32_agrees_with_the_f64_reference() {
    let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    for case in [Case::all(), Case::new(&THREE)] {
        let (params, pixels) = (narrow(&case.params), narrow(&case.pixels));
        let input = Input {
            pixels: &pixels,
            visible: &case.visible,
            drop: None,
            batch: IMAGES,
            batch_weight: case.input().batch_weight,
        };
        let pull = values(IMAGES * 3, 8);
        let mut want = vec![0.0; params.len()];
        case.gradient(&case.params, &pull, &mut want);
        let (mut acts, mut got) = (Activations::default(), vec![0f32; params.len()]);
        case.model.predict(&params, input, &mut acts);
        acts.dlogits = narrow(&pull);
        case.model.head_backward(&params, &mut acts, &mut Grads::new(&mut got));
        case.model.embed_backward(&params, input, &mut acts, &mut Grads::new(&mut got));
        for (spec, slot) in case.model.layout().iter() {
            let (want, got) = (slot.of(&want), slot.of(&got));
            let size = want.iter().fold(0.0, |size: f64, x| size.max(x.abs())).max(1e-3);
            let error = want.iter().zip(got).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
            assert!(error < 1e-3 * size, "{}: {error:e} of {size:e}", spec.name);
        }
    }
}

#[test]
fn a_fresh_model_is_its_convolutions() {
    let case = Case::all();
    let (params, mut acts) = (case.model.layout().init::<f64>(0), Activations::default());
    let fresh = case.model.predict(&params, case.input(), &mut acts).1.to_vec();
    // Whatever the blocks' first layers are, they end in zeros.
    let mut other = params.clone();
    for (_, slot) in case.model.layout().iter().filter(|(spec, _)| spec.name.ends_with("fc1.weight")) {
        slot.of_mut(&mut other).iter_mut().for_each(|x| *x += 1.0);
    }
    assert_eq!(case.model.predict(&other, case.input(), &mut acts).1, &fresh);
}

/// An autoencoder, a point to differentiate at, and its fixed tensors.
fn autoencoder(kind: DecoderKind) -> (Mae, Vec<f64>) {
    let encoder = Case::all().model.vit().clone();
    let config = MaeConfig { encoder, decoder: DecoderConfig { kind, dim: 8, depth: 1, heads: 2 } };
    let mae = Mae::new(&config).unwrap();
    let noise = values(mae.layout().len(), 4);
    let params = mae.layout().init::<f64>(3).iter().zip(noise).map(|(p, v)| p + 0.1 * v).collect();
    (mae, params)
}

fn masked(pixels: &[f64]) -> mae::Input<'_, f64> {
    let (visible, hidden) = (&[2, 0, 1, 3, 0, 2], &[1, 3, 0, 2, 3, 1]);
    mae::Input { pixels, visible, hidden, batch: IMAGES, batch_weight: Some(1.0 / 3.0) }
}

#[test]
fn gradients_of_an_autoencoder_match_finite_differences() {
    let pixels = values(IMAGES * 3 * SIDE * SIDE, 2);
    for kind in [DecoderKind::Full, DecoderKind::Cross] {
        let (mae, params) = autoencoder(kind);
        let pull = values(6 * mae.config().encoder.patch_len(), 8);
        let specs = mae.layout().iter().map(|(spec, _)| spec);
        let fixed = specs.filter(|spec| spec.role.is_statistic() || spec.role == Role::Positions);
        let fixed: Vec<&str> = fixed.map(|spec| spec.name.as_str()).collect();
        Check::at(mae.layout(), params).skip(&fixed).with_kinks().run(
            |p| dot(mae.predict(p, masked(&pixels), &mut mae::Activations::default()), &pull),
            |p, grads| {
                let (mut acts, mut grads) = (mae::Activations::default(), Grads::new(grads));
                mae.predict(p, masked(&pixels), &mut acts);
                acts.dpredictions = pull.clone();
                mae.decode_backward(p, masked(&pixels), &mut acts, &mut grads);
                mae.encode_backward(p, masked(&pixels), &mut acts, &mut grads);
            },
        );
    }
}

#[test]
fn an_autoencoder_predicts_without_the_hidden_pixels() {
    let (mae, params) = autoencoder(DecoderKind::Full);
    let case = Case { visible: [2, 0, 0, 1, 3, 3, 0, 2, 2].to_vec(), ..Case::all() };
    let other = with_other_hidden_pixels(&case);
    for batch_weight in [Some(1.0 / 3.0), None] {
        let predict = |pixels: &[f64]| {
            let input = mae::Input { batch_weight, ..masked(pixels) };
            mae.predict(&params, input, &mut mae::Activations::default()).to_vec()
        };
        assert_eq!(predict(&case.pixels), predict(&other));
    }
}
