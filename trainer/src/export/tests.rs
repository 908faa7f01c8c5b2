//! What is in the file, read back as messages.

use std::collections::{BTreeMap, HashSet};

use prost::Message;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::type_proto;
use smalti_models::preprocess::FitMode;
use smalti_models::resize::Interpolation;
use smalti_models::{Pooling, Stem, Variant, VitConfig};

use super::*;
use crate::model::precision::Precision;

const VIT: VitConfig = VitConfig {
    img_size: 12,
    patch_size: 4,
    channels: 3,
    dim: 24,
    depth: 2,
    heads: 3,
    stem: Stem::Patches,
    variant: Variant::PLAIN,
};

fn details() -> Details {
    Details {
        names: ["cat", "dog's", "Füchsin"].map(String::from).to_vec(),
        preprocess: Preprocess {
            img_size: 12,
            channels: 3,
            fit: FitMode::Crop,
            resize: None,
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

fn model(pool: Pooling) -> (Classifier, Vec<f32>) {
    let model = Classifier::new(&VIT, 3, pool).unwrap();
    let params = model.layout().init(1);
    (model, params)
}

fn exported(pool: Pooling, form: InputForm) -> (Classifier, Vec<f32>, ModelProto) {
    let (model, params) = model(pool);
    let bytes = export(&model, &params, &details(), form).unwrap();
    assert_eq!(bytes, export(&model, &params, &details(), form).unwrap(), "not the same bytes twice");
    (model, params, ModelProto::decode(&bytes[..]).unwrap())
}

#[test]
fn a_model_that_was_trained_in_bf16_is_exported_in_f32() {
    let (model, params) = model(Pooling::Mean);
    let trained =
        Classifier::with_precision(model.vit(), model.classes(), Pooling::Mean, Precision::Bf16).unwrap();
    let [file, same] = [&model, &trained].map(|m| export(m, &params, &details(), InputForm::U8Nhwc).unwrap());
    assert!(file == same);
}

#[test]
fn operators_are_few_and_counted() {
    for (pool, form) in [(Pooling::Mean, InputForm::U8Nhwc), (Pooling::Token, InputForm::F32Nchw)] {
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
            Pooling::Mean => want.extend([("Slice", 1), ("ReduceMean", 1)]),
            Pooling::Token => want.extend([("Gather", 1)]),
        }
        if form == InputForm::U8Nhwc {
            want.insert("Cast", 1);
            *want.entry("Transpose").or_default() += 1;
        }
        assert_eq!(found, want);
    }
}

/// What a node makes of values `[channels, positions]`, for the operators of a convolutional stem.
fn evaluate(
    graph: &GraphProto,
    node: &smalti_models::onnx::NodeProto,
    known: &Known,
) -> (Vec<usize>, Vec<f32>) {
    let (shape, x) = &known[&node.input[0]];
    let stored = |i: usize| graph.initializer.iter().find(|tensor| tensor.name == node.input[i]);
    let floats = |i: usize| -> Vec<f32> {
        let tensor = stored(i).unwrap();
        tensor.raw_data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    match node.op_type.as_str() {
        "Cast" => (shape.clone(), x.clone()),
        // Bytes, channels last, to planes.
        "Transpose" if shape.len() == 4 => {
            let (channels, area) = (shape[3], shape[1] * shape[2]);
            let planes = (0..channels).flat_map(|c| x.iter().skip(c).step_by(channels).copied());
            let planes: Vec<f32> = planes.collect();
            assert_eq!(planes.len(), channels * area);
            (vec![1, channels, shape[1], shape[2]], planes)
        }
        "Relu" => (shape.clone(), x.iter().map(|x| x.max(0.0)).collect()),
        "Mul" | "Add" => {
            let area = shape[2] * shape[3];
            let other = match known.get(&node.input[1]) {
                Some((_, other)) => other.clone(),
                None => floats(1).into_iter().flat_map(|x| vec![x; area]).collect(),
            };
            let both = x.iter().zip(&other);
            let y = both.map(|(x, y)| if node.op_type == "Mul" { x * y } else { x + y });
            (shape.clone(), y.collect())
        }
        "Conv" => {
            let stride = node.attribute.iter().find(|a| a.name == "strides").unwrap().ints[0] as usize;
            let (inputs, side) = (shape[1], shape[2]);
            let (weight, bias, out_side) = (floats(1), floats(2), side.div_ceil(stride));
            let pixel = |c: usize, y: usize, x_: usize| {
                let inside = (1..=side).contains(&y) && (1..=side).contains(&x_);
                if inside { x[(c * side + y - 1) * side + x_ - 1] } else { 0.0 }
            };
            let value = |at: usize| {
                let (o, i, j) = (at / out_side / out_side, at / out_side % out_side, at % out_side);
                let terms = (0..9 * inputs).map(|term| {
                    let (c, r, t) = (term / 9, term / 3 % 3, term % 3);
                    pixel(c, i * stride + r, j * stride + t) * weight[o * 9 * inputs + term]
                });
                terms.sum::<f32>() + bias[o]
            };
            (
                vec![1, bias.len(), out_side, out_side],
                (0..bias.len() * out_side * out_side).map(value).collect(),
            )
        }
        other => panic!("{other} in a stem"),
    }
}

type Known = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

#[test]
fn a_convolutional_stem_is_exported_folded() {
    let stem = Stem::Convolutions;
    let vit = VitConfig {
        img_size: 32,
        patch_size: 16,
        channels: 3,
        dim: 16,
        depth: 1,
        heads: 2,
        stem,
        variant: Variant::PLAIN,
    };
    let model = Classifier::new(&vit, 3, Pooling::Mean).unwrap();
    let mut params: Vec<f32> = model.layout().init(1);
    // Norms unlike fresh ones. The blocks stay fresh, so the embedding is the mean of the stem's tokens.
    for (spec, slot) in model.layout().iter().filter(|(spec, _)| spec.name.contains(".bn.")) {
        let of = |i: usize| 0.3 * ((spec.name.len() * 31 + i * 7) as f32).sin();
        slot.of_mut(&mut params).iter_mut().enumerate().for_each(|(i, x)| *x += of(i));
    }
    let mut details = details();
    details.preprocess.img_size = 32;
    let image = golden_image(0, 32, 3).unwrap();
    let mut planes = vec![0.0; 3 * 32 * 32];
    details.preprocess.normalise(image.data(), &mut planes).unwrap();
    let visible = Mask::none(1, 4).visible;
    let input =
        classifier::Input { pixels: &planes, visible: &visible, drop: None, batch: 1, batch_weight: None };
    let mut acts = classifier::Activations::default();
    let (_, want) = model.predict(&params, input, &mut acts);

    for form in [InputForm::U8Nhwc, InputForm::F32Nchw] {
        let bytes = export(&model, &params, &details, form).unwrap();
        let graph = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
        assert!(graph.node.iter().all(|node| node.op_type != "BatchNormalization"));
        let input = match form {
            InputForm::U8Nhwc => (vec![1, 32, 32, 3], image.data().iter().map(|&x| f32::from(x)).collect()),
            InputForm::F32Nchw => (vec![1, 3, 32, 32], planes.clone()),
        };
        let mut known = BTreeMap::from([("image".to_string(), input)]);
        for node in graph.node.iter().take_while(|node| node.op_type != "Reshape") {
            let value = evaluate(&graph, node, &known);
            known.insert(node.output[0].clone(), value);
        }
        let (shape, map) = &known["stages.relu"];
        assert_eq!(shape, &[1, 16, 2, 2]);
        for (want, plane) in want.iter().zip(map.chunks_exact(4)) {
            let mean = plane.iter().sum::<f32>() / 4.0;
            assert!((want - mean).abs() < 1e-4, "{mean} instead of {want}");
        }
        assert!(graph.initializer.iter().all(|tensor| tensor.name != "cls_token"));
        assert_eq!(port(&graph.output[1]).2, [1, 16]);
    }
}

#[test]
fn values_are_defined_once_and_before_use() {
    for (pool, form) in [(Pooling::Mean, InputForm::F32Nchw), (Pooling::Token, InputForm::U8Nhwc)] {
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
    let (_, _, file) = exported(Pooling::Mean, InputForm::U8Nhwc);
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
    let (_, _, file) = exported(Pooling::Mean, InputForm::F32Nchw);
    assert_eq!(port(&file.graph.unwrap().input[0]), ("image", floats, vec![1, 3, 12, 12]));
}

#[test]
fn weights_are_the_models() {
    let (model, params, file) = exported(Pooling::Token, InputForm::F32Nchw);
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
    let (_, _, file) = exported(Pooling::Mean, InputForm::U8Nhwc);
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
    graph.initializer[7].edit_raw(|raw| raw[0] ^= 1);
    assert_ne!(digest(&graph), record.weights_sha256);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (model, params) = model(Pooling::Mean);
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
    let (model, params) = model(Pooling::Mean);
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
