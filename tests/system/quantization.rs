//! What the trainer exports is quantized by the kernels that run it.

use smalti_models::presets::Preset;
use smalti_models::{Pooling, VitConfig};
use smalti_runtime::gate::{self, Limits};
use smalti_runtime::taps::Taps;
use smalti_runtime::{Model, selftest};
use smalti_system_tests::cases::largest_difference;
use smalti_system_tests::drawn::Drawn;
use smalti_tools::quantize::{Budget, Settings, quantize};
use smalti_tools::samples::{Sample, Source};
use smalti_trainer::export::{InputForm, export};

/// The largest difference between our kernels and tract, in relation to a value's largest element.
const TOLERANCE: f64 = 1e-5;

/// Quantizes a model with drawn weights and holds it to the float one; the number of layers in int8.
fn quantized(vit: &VitConfig, form: InputForm) -> usize {
    let drawn = Drawn::new(vit, 7, Pooling::Mean, 3);
    let bytes = export(&drawn.model, &drawn.params, &drawn.details, form).unwrap();
    let model = Model::from_bytes(&bytes).unwrap();
    let sample =
        |(i, image)| Sample { name: format!("image {i}"), source: Source::Memory(image), class: None };
    let samples: Vec<Sample> = drawn.images(12).into_iter().enumerate().map(sample).collect();
    values_are_those_of_tract(&bytes, &model, &samples[0]);
    let budget = Budget { points: 1.0, flips: 1.0, cosine: -1.0 };
    let found =
        quantize(&bytes, &model, &samples, &samples, &Settings { budget, ..Settings::default() }).unwrap();
    assert!(found.comparison.cosine > 0.99, "{:?}", found.comparison);
    assert!(found.layers.iter().all(|row| row.sqnr_db > 15.0), "{:?}", found.layers);
    let int8 = Model::from_bytes(&found.bytes).unwrap();
    assert_eq!(int8.fallback_reason(), None);
    selftest::judge(&selftest::run(&int8).unwrap()).unwrap();
    found.layers.iter().filter(|row| !row.kept_float).count()
}

/// Every value that a layer takes is shown by our kernels, and as by tract where that is in the build.
fn values_are_those_of_tract(bytes: &[u8], model: &Model, sample: &Sample) {
    let graph = gate::open(bytes, &Limits::default()).unwrap().0.graph.unwrap();
    let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let mut names: Vec<&str> = Vec::new();
    for node in &graph.node {
        let is_layer = matches!(&*node.op_type, "MatMul" | "Gemm" | "Conv") && is_weight(&node.input[1]);
        if is_layer && !names.contains(&&*node.input[0]) {
            names.push(&node.input[0]);
        }
    }
    let show = |mut taps: Taps| {
        let mut shown = vec![(Vec::new(), Vec::new()); names.len()];
        let see = |i: usize, values: &[f32], shape: &[usize]| {
            shown[i] = (shape.to_vec(), values.to_vec());
            Ok(())
        };
        taps.run_image(sample.open_for(model).unwrap().view(), see).unwrap();
        shown
    };
    let ours = Taps::new(bytes, model, &names).unwrap();
    assert_eq!(ours.fallback_reason(), None);
    let ours = show(ours);
    let tract = match Taps::new_on_tract(bytes, model, &names) {
        Ok(taps) => show(taps),
        // Not in this build.
        Err(error) => return assert_eq!(error.exit_code(), 3, "{error}"),
    };
    for (((shape, found), (wanted_shape, wanted)), name) in ours.iter().zip(&tract).zip(&names) {
        assert_eq!(shape, wanted_shape, "{name}");
        let size = f64::from(wanted.iter().fold(1e-6, |most: f32, x| most.max(x.abs())));
        let off = largest_difference(found, wanted);
        assert!(off <= TOLERANCE * size, "{name} is off by {off:.1e}, it reaches {size}");
    }
}

#[test]
fn nano_is_quantized() {
    let vit = Preset::Nano.encoder(32, 4, 3);
    // Patches, six blocks of four layers, the head.
    assert_eq!(quantized(&vit, InputForm::U8Nhwc), 26);
    assert_eq!(quantized(&vit, InputForm::F32Nchw), 26);
}

#[test]
fn a_hybrid_is_quantized() {
    let vit = Preset::HybridNano.encoder(64, 16, 3);
    for form in [InputForm::U8Nhwc, InputForm::F32Nchw] {
        // More than its two blocks and the head: convolutions.
        assert!(quantized(&vit, form) > 9);
    }
}
