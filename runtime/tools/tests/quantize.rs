//! Quantizing all kinds of exports.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use smalti_models::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use smalti_runtime::models::contract::golden_image;
use smalti_runtime::models::preprocess::FitMode;
use smalti_runtime::models::resize::Interpolation;
use smalti_runtime::{Error, Model, Preprocess, gate, inspect, selftest};
use smalti_tools::quantize::{Budget, Method, Quantized, Settings, quantize};
use smalti_tools::samples::{Sample, Source};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name)
}

/// The float models.
fn float_models() -> Vec<PathBuf> {
    let entries = fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path());
    let onnx = entries.filter(|path| path.extension().is_some_and(|end| end == "onnx"));
    let mut found: Vec<_> = onnx.filter(|path| !path.ends_with("colours_qdq.onnx")).collect();
    found.sort();
    assert!(found.len() >= 10);
    found
}

/// A model with preprocessing, its own or this.
fn open(path: &Path) -> Model {
    let model = Model::open(path).unwrap();
    if model.preprocess().is_some() {
        return model;
    }
    let (img_size, channels) = (model.input().width, model.input().channels);
    let (mean, std) = (vec![0.5; channels], vec![0.5; channels]);
    let (fit, interpolation) = (FitMode::Squash, Interpolation::Bilinear);
    model
        .with_preprocess(Preprocess { img_size, channels, fit, resize: None, interpolation, mean, std })
        .unwrap()
}

/// Images from memory.
fn patterns(model: &Model, count: u64) -> Vec<Sample> {
    let image = |i| golden_image(i, model.input().width, model.input().channels).unwrap();
    let sample =
        |i: u64| Sample { name: format!("pattern {i}"), source: Source::Memory(image(i)), class: None };
    (0..count).map(sample).collect()
}

fn quantized(path: &Path, settings: &Settings<'_>) -> Result<Quantized, Error> {
    let model = open(path);
    let samples = patterns(&model, 24);
    quantize(&fs::read(path).unwrap(), &model, &samples, &samples, settings)
}

fn anything() -> Settings<'static> {
    Settings { budget: Budget { points: 1.0, flips: 1.0, cosine: -1.0 }, ..Settings::default() }
}

fn graph(bytes: &[u8]) -> GraphProto {
    ModelProto::decode(bytes).unwrap().graph.unwrap()
}

/// The node that computes a value.
fn source<'a>(graph: &'a GraphProto, value: &str) -> Option<&'a NodeProto> {
    graph.node.iter().find(|node| node.output.iter().any(|output| output == value))
}

#[test]
fn every_export_is_quantized_and_stays_close() {
    for path in float_models() {
        for method in [Method::Minmax, Method::Percentile, Method::Mse] {
            let found = quantized(&path, &Settings { method, ..anything() });
            let found = found.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // Patches, one block (qkv, proj, fc1, fc2), and the head or two.
            assert!((6..=7).contains(&found.layers.len()), "{}", path.display());
            assert!(found.comparison.cosine > 0.99, "{} {method:?}: {:?}", path.display(), found.comparison);
            for row in &found.layers {
                assert!(row.sqnr_db > 15.0 && row.scale.is_normal() && row.range.0 <= 0.0, "{row:?}");
            }
        }
    }
}

/// Whether the products of two neighbouring inputs fit into 16 bits, as other engines add them on AVX2.
fn neighbours_fit(weight: &TensorProto, axis: i64) -> bool {
    let (rows, columns) = (weight.dims[0] as usize, weight.dims[1..].iter().product::<i64>() as usize);
    let (inputs, outputs) = if axis == 1 { (rows, columns) } else { (columns, rows) };
    let at = |k: usize, n: usize| {
        let place = if axis == 1 { k * columns + n } else { n * columns + k };
        weight.raw_data[place] as i8
    };
    let fits = |k: usize, n: usize, low: i8, high: i8| {
        let pair = [at(k, n), if k + 1 < inputs { at(k + 1, n) } else { 0 }];
        pair.iter().map(|&w| i32::from(w.clamp(low, high))).sum::<i32>().abs() * 255 < 1 << 15
    };
    (0..inputs).step_by(2).all(|k| (0..outputs).all(|n| fits(k, n, 0, 127) && fits(k, n, -127, 0)))
}

#[test]
fn the_graph_has_onnx_own_form_of_quantization() {
    for path in float_models() {
        let (before, after) = (graph(&fs::read(&path).unwrap()), quantized(&path, &anything()).unwrap());
        let (layers, after) = (after.layers.len(), graph(&after.bytes));
        let with = |op: &str| after.node.iter().filter(|node| node.op_type == op).count();
        let layer = |node: &&NodeProto| matches!(&*node.op_type, "MatMul" | "Gemm" | "Conv");
        let mut inputs = HashSet::new();
        let mut found = 0;
        for node in after.node.iter().filter(layer) {
            let Some(weight) = source(&after, &node.input[1]).filter(|w| w.op_type == "DequantizeLinear")
            else {
                continue;
            };
            found += 1;
            let stored = after.initializer.iter().find(|tensor| tensor.name == weight.input[0]).unwrap();
            let axis = weight.attribute.iter().find(|attribute| attribute.name == "axis").unwrap().i;
            assert!(neighbours_fit(stored, axis), "{}", stored.name);
            let scales = after.initializer.iter().find(|tensor| tensor.name == weight.input[1]).unwrap();
            assert_eq!(scales.dims, [stored.dims[axis as usize]]);
            let dequantize = source(&after, &node.input[0]).unwrap();
            let quantize = source(&after, &dequantize.input[0]).unwrap();
            assert_eq!([&*dequantize.op_type, &*quantize.op_type], ["DequantizeLinear", "QuantizeLinear"]);
            inputs.insert(quantize.input[0].clone());
        }
        assert_eq!((found, with("QuantizeLinear")), (layers, inputs.len()));
        let names: HashSet<_> = after.node.iter().map(|node| &node.name).collect();
        assert_eq!(names.len(), after.node.len(), "names of nodes are unique");
        // Nodes whose numbers are known beforehand are gone.
        let there: HashSet<_> = before.node.iter().flat_map(|node| &node.output).collect();
        let added = after.node.iter().filter(|node| !node.output.iter().any(|name| there.contains(name)));
        assert_eq!(added.count(), layers + 2 * inputs.len());
        let ports =
            |graph: &GraphProto| graph.output.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        assert_eq!(ports(&after), ports(&before));
    }
}

#[test]
fn the_record_is_that_of_the_quantized_model() {
    for name in ["colours_u8.onnx", "colours_f32.onnx"] {
        let path = fixture(name);
        let found = quantized(&path, &anything()).unwrap();
        let inspection = inspect::inspect(&found.bytes).unwrap();
        assert_eq!(inspection.weights_intact(), Some(true));
        let (before, after) = (open(&path).record().unwrap().clone(), inspection.record.unwrap());
        assert_eq!(
            (&after.names, &after.preprocess, &after.training),
            (&before.names, &before.preprocess, &before.training)
        );
        assert_ne!(after.golden, before.golden);
        assert_eq!(after.quantization.unwrap()["method"], "percentile");
        let vectors = selftest::run(&Model::from_bytes(&found.bytes).unwrap()).unwrap();
        selftest::judge(&vectors).unwrap();
        assert!(vectors.iter().all(|vector| vector.difference == 0.0 && vector.allowed >= 0.02));
    }
}

#[test]
fn test_vectors_are_those_of_the_files_own_preprocessing() {
    let path = fixture("colours_f32.onnx");
    let model = open(&path);
    let own = model.preprocess().unwrap().clone();
    let model = model.with_preprocess(Preprocess { mean: vec![0.1; 3], ..own }).unwrap();
    let samples = patterns(&model, 8);
    let found = quantize(&fs::read(&path).unwrap(), &model, &samples, &samples, &anything()).unwrap();
    let vectors = selftest::run(&Model::from_bytes(&found.bytes).unwrap()).unwrap();
    selftest::judge(&vectors).unwrap();
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bytes =
        |threads| quantized(&fixture("timm_vit.onnx"), &Settings { threads, ..anything() }).unwrap().bytes;
    assert_eq!(bytes(1), bytes(3));
}

#[test]
fn a_constant_activation_keeps_a_positive_scale() {
    // A model whose weights are all zero has zeros, or constants, in front of every layer.
    let mut model = ModelProto::decode(&fs::read(fixture("timm_vit.onnx")).unwrap()[..]).unwrap();
    for weight in &mut model.graph.as_mut().unwrap().initializer {
        if weight.data_type == 1 {
            weight.edit_raw(|raw| raw.fill(0));
        }
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("zero.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let found = quantized(&path, &anything()).unwrap();
    assert!(
        found.layers.iter().all(|row| row.scale.is_normal() && row.scale > 0.0 && row.sqnr_db.is_finite())
    );
    gate::open(&found.bytes, &gate::Limits::default()).unwrap();
}

#[test]
fn an_activation_that_overflows_is_an_error() {
    let mut model = ModelProto::decode(&fs::read(fixture("torch_vit.onnx")).unwrap()[..]).unwrap();
    for weight in &mut model.graph.as_mut().unwrap().initializer {
        if weight.data_type == 1 {
            weight.edit_raw(|raw| raw.as_chunks_mut().0.fill(3e38f32.to_le_bytes()));
        }
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("huge.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let error = quantized(&path, &anything()).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
}

#[test]
fn what_is_quantized_already_or_has_no_layers_is_refused() {
    let error = quantized(&fixture("colours_qdq.onnx"), &anything()).unwrap_err();
    assert!(matches!(&error, Error::Usage(message) if message.contains("already")), "{error}");
    let model = open(&fixture("timm_vit.onnx"));
    let bytes = fs::read(fixture("timm_vit.onnx")).unwrap();
    let error = quantize(&bytes, &model, &[], &patterns(&model, 2), &anything()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    let error = quantize(&bytes, &model, &patterns(&model, 2), &[], &anything()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
}
