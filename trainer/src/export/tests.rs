//! What is in the file, read back as messages.

use std::collections::{BTreeMap, HashSet};

use prost::Message;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::type_proto;
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{Pool, VitConfig};

use super::*;

const VIT: VitConfig = VitConfig { img_size: 12, patch_size: 4, channels: 3, dim: 24, depth: 2, heads: 3 };

fn details() -> Details {
    Details {
        names: ["cat", "dog's", "Füchsin"].map(String::from).to_vec(),
        preprocess: Preprocess {
            img_size: 12,
            channels: 3,
            fit: FitMode::Crop,
            interpolation: Interpolation::Bicubic,
            mean: vec![0.49, 0.48, 0.45],
            std: vec![0.25, 0.24, 0.26],
        },
        description: "for a test".into(),
        license: "CC0-1.0".into(),
        version: "3".into(),
        training: serde_json::json!({"epochs": 1}),
    }
}

fn model(pool: Pool) -> (Classifier, Vec<f32>) {
    let model = Classifier::new(&VIT, 3, pool).unwrap();
    let params = model.layout().init(1);
    (model, params)
}

fn exported(pool: Pool, form: InputForm) -> (Classifier, Vec<f32>, ModelProto) {
    let (model, params) = model(pool);
    let bytes = export(&model, &params, &details(), form).unwrap();
    assert_eq!(bytes, export(&model, &params, &details(), form).unwrap(), "not the same bytes twice");
    (model, params, ModelProto::decode(&bytes[..]).unwrap())
}

#[test]
fn operators_are_few_and_counted() {
    for (pool, form) in [(Pool::Mean, InputForm::U8Nhwc), (Pool::Token, InputForm::F32Nchw)] {
        let (_, _, file) = exported(pool, form);
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        let graph = file.graph.as_ref().unwrap();
        graph.node.iter().for_each(|node| *found.entry(&node.op_type).or_default() += 1);
        let mut want = BTreeMap::from([
            ("Conv", 1),
            ("Concat", 1),
            // Positions and the head's bias; of each block four biases, two residuals, one in GELU.
            ("Add", 2 + 2 * 7),
            ("MatMul", 1 + 2 * 6),
            ("LayerNormalization", 1 + 2 * 2),
            ("Split", 2),
            ("Softmax", 2),
            ("Mul", 2 * 3),
            ("Div", 2),
            ("Erf", 2),
            ("Reshape", 1 + 2 * 4),
            ("Transpose", 1 + 2 * 4),
        ]);
        match pool {
            Pool::Mean => want.extend([("Slice", 1), ("ReduceMean", 1)]),
            Pool::Token => want.extend([("Gather", 1)]),
        }
        if form == InputForm::U8Nhwc {
            want.insert("Cast", 1);
            *want.entry("Transpose").or_default() += 1;
        }
        assert_eq!(found, want);
    }
}

#[test]
fn values_are_defined_once_and_before_use() {
    for (pool, form) in [(Pool::Mean, InputForm::F32Nchw), (Pool::Token, InputForm::U8Nhwc)] {
        let (_, _, file) = exported(pool, form);
        let graph = file.graph.unwrap();
        let mut known = HashSet::new();
        let stored = graph.initializer.iter().map(|tensor| &tensor.name);
        for name in stored.chain(graph.input.iter().map(|input| &input.name)) {
            assert!(known.insert(name), "{name} twice");
        }
        let mut used = HashSet::new();
        for node in &graph.node {
            for input in &node.input {
                assert!(known.contains(input), "{input} before its definition");
                used.insert(input);
            }
            for output in &node.output {
                assert!(known.insert(output), "{output} twice");
            }
            assert_eq!(node.name, node.output[0]);
        }
        used.extend(graph.output.iter().map(|output| &output.name));
        assert!(known.iter().all(|name| used.contains(name)), "something is of no use");
    }
}

/// Name, element type and shape of an input or output.
fn port(info: &smalti_models::onnx::ValueInfoProto) -> (&str, i32, Vec<i64>) {
    use smalti_models::onnx::tensor_shape_proto::dimension::Value::DimValue;
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        panic!("{} has no type", info.name)
    };
    let dims = tensor.shape.as_ref().unwrap().dim.iter();
    let size = |dim: &smalti_models::onnx::tensor_shape_proto::Dimension| match dim.value {
        Some(DimValue(size)) => size,
        _ => panic!("an open dimension"),
    };
    (&info.name, tensor.elem_type, dims.map(size).collect())
}

#[test]
fn inputs_and_outputs_have_fixed_shapes() {
    let (_, _, file) = exported(Pool::Mean, InputForm::U8Nhwc);
    assert_eq!((file.ir_version, file.opset_import[0].version), (8, 17));
    let graph = file.graph.unwrap();
    let ports: Vec<_> = graph.input.iter().chain(&graph.output).map(port).collect();
    let [bytes, floats] = [DataType::Uint8 as i32, DataType::Float as i32];
    assert_eq!(
        ports,
        [
            ("image", bytes, vec![1, 12, 12, 3]),
            ("logits", floats, vec![1, 3]),
            ("embedding", floats, vec![1, 24])
        ]
    );
    let (_, _, file) = exported(Pool::Mean, InputForm::F32Nchw);
    assert_eq!(port(&file.graph.unwrap().input[0]), ("image", floats, vec![1, 3, 12, 12]));
}

#[test]
fn weights_are_the_models() {
    let (model, params, file) = exported(Pool::Token, InputForm::F32Nchw);
    let graph = file.graph.unwrap();
    for (spec, slot) in model.layout().iter() {
        let stored = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name);
        let (tensor, transposed) = match stored(&spec.name) {
            Some(tensor) => (tensor, false),
            None => (stored(&format!("{}_t", spec.name)).unwrap(), true),
        };
        let dims: Vec<usize> = tensor.dims.iter().map(|&size| size as usize).collect();
        let values: Vec<f32> =
            tensor.raw_data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if transposed {
            assert_eq!(dims, [spec.shape[1], spec.shape[0]], "{}", spec.name);
            let back = (0..dims[1]).flat_map(|i| values[i..].iter().step_by(dims[1]));
            assert!(back.eq(slot.of(&params)), "{}", spec.name);
        } else {
            assert_eq!(dims, spec.shape, "{}", spec.name);
            assert_eq!(values, slot.of(&params), "{}", spec.name);
        }
    }
}

#[test]
fn the_record_is_read_back_and_its_digest_holds() {
    let (_, _, file) = exported(Pool::Mean, InputForm::U8Nhwc);
    let pairs = file.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()));
    let record = ModelRecord::from_metadata(pairs).unwrap().unwrap();
    let details = details();
    assert_eq!((&record.names, &record.preprocess), (&details.names, &details.preprocess));
    assert_eq!(
        (record.task.as_str(), record.license.as_str(), record.version.as_str()),
        ("classify", "CC0-1.0", "3")
    );
    assert_eq!(record.training, details.training);
    assert_eq!(record.golden.len(), 3);
    let mut graph = file.graph.unwrap();
    assert_eq!(digest(&graph), record.weights_sha256);
    graph.initializer[7].raw_data[0] ^= 1;
    assert_ne!(digest(&graph), record.weights_sha256);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (model, params) = model(Pool::Mean);
    let refused = |params: &[f32], change: fn(&mut Details), part: &str| {
        let mut details = details();
        change(&mut details);
        let error = export(&model, params, &details, InputForm::U8Nhwc).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&params[1..], |_| {}, "parameters");
    refused(&params, |details| details.names.truncate(2), "2 labels for 3 classes");
    refused(&params, |details| details.preprocess.img_size = 16, "16 pixels");
    refused(&params, |details| details.preprocess.std[0] = 0.0, "std");
    refused(&params, |details| details.names[0].clear(), "label 0");
    let mut params = params.clone();
    params[5] = f32::NAN;
    refused(&params, |_| {}, "`cls_token` has values that are not finite");
}

#[test]
fn a_file_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (model, params) = model(Pool::Mean);
    let path = folder.path().join("model.onnx");
    write(&path, &model, &params, &details(), InputForm::U8Nhwc).unwrap();
    let bytes = export(&model, &params, &details(), InputForm::U8Nhwc).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let nowhere = folder.path().join("no/such/model.onnx");
    let error = write(&nowhere, &model, &params, &details(), InputForm::U8Nhwc).unwrap_err();
    assert_eq!(error.exit_code(), 6);
}

#[test]
fn forms_have_names() {
    for form in [InputForm::U8Nhwc, InputForm::F32Nchw] {
        assert_eq!(form.to_string().parse::<InputForm>().unwrap(), form);
        assert_eq!(serde_json::to_value(form).unwrap(), form.name());
    }
    assert!("nchw".parse::<InputForm>().is_err());
}
