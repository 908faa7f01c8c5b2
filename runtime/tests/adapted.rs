//! The same model in other forms of file: half precision, the other layouts of an image, an open batch, an open size,
//! weights in another file, weights among the inputs. Each answers as the original.

use std::path::{Path, PathBuf};

use prost::Message;
use smalti_models::onnx::tensor_proto::{DataLocation, DataType};
use smalti_models::onnx::tensor_shape_proto::dimension::Value as Dimension;
use smalti_models::onnx::{
    AttributeProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, type_proto,
};
use smalti_runtime::gate::{Form, floats};
use smalti_runtime::trust::{PublicKey, Trust};
use smalti_runtime::{Model, OpenOptions};

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

fn original(name: &str) -> ModelProto {
    ModelProto::decode(&std::fs::read(models().join(name)).unwrap()[..]).unwrap()
}

/// What a model says of an image.
fn answer(model: &Model) -> Vec<f32> {
    let (mut session, count) = (model.session().unwrap(), model.input().values());
    let bytes: Vec<u8> = (0..count).map(|i| (i * 73 + 19) as u8).collect();
    let output = match model.input().form {
        Form::U8Nhwc => session.run_pixels(&bytes),
        Form::F32Nchw => {
            let floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 128.0 - 1.0).collect();
            session.run_floats(&floats)
        }
    };
    output.unwrap().logits
}

fn opened(proto: &ModelProto) -> Model {
    Model::from_bytes(&proto.encode_to_vec()).unwrap()
}

/// Holds a changed model to the original's answers, to the last bit.
fn answers_alike(name: &str, change: impl FnOnce(&mut ModelProto)) {
    let mut proto = original(name);
    let wanted = answer(&opened(&proto));
    change(&mut proto);
    assert_eq!(answer(&opened(&proto)), wanted, "{name}");
}

fn input(proto: &mut ModelProto) -> &mut ValueInfoProto {
    &mut proto.graph.as_mut().unwrap().input[0]
}

fn tensor(info: &mut ValueInfoProto) -> &mut type_proto::Tensor {
    let Some(type_proto::Value::TensorType(tensor)) = &mut info.r#type.as_mut().unwrap().value else {
        panic!("no tensor")
    };
    tensor
}

#[test]
fn an_open_batch_is_one_image() {
    answers_alike("timm_vit.onnx", |proto| {
        let graph = proto.graph.as_mut().unwrap();
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            tensor(info).shape.as_mut().unwrap().dim[0].value = Some(Dimension::DimParam("batch".into()));
        }
    });
}

/// The file takes the image in another layout and turns it back.
fn turned(proto: &mut ModelProto, order: [usize; 4], back: &[i64]) {
    let image = input(proto);
    let name = image.name.clone();
    let shape = tensor(image).shape.as_mut().unwrap();
    shape.dim = order.map(|axis| shape.dim[axis].clone()).to_vec();
    let nodes = &mut proto.graph.as_mut().unwrap().node;
    for input in nodes.iter_mut().flat_map(|node| &mut node.input).filter(|input| **input == name) {
        *input = "inside".into();
    }
    let turn = NodeProto {
        op_type: "Transpose".into(),
        input: vec![name],
        output: vec!["inside".into()],
        attribute: vec![AttributeProto::ints("perm", back)],
        ..Default::default()
    };
    nodes.insert(0, turn);
}

#[test]
fn the_other_layouts_are_turned() {
    answers_alike("timm_vit.onnx", |proto| turned(proto, [0, 2, 3, 1], &[0, 3, 1, 2]));
    answers_alike("colours_u8.onnx", |proto| turned(proto, [0, 3, 1, 2], &[0, 2, 3, 1]));
}

#[test]
fn weights_may_be_inputs_too() {
    answers_alike("torch_vit.onnx", |proto| {
        let graph = proto.graph.as_mut().unwrap();
        for weight in &graph.initializer {
            let dims: Vec<usize> = weight.dims.iter().map(|&dim| dim as usize).collect();
            let kind = DataType::try_from(weight.data_type).unwrap();
            graph.input.push(ValueInfoProto::tensor(&weight.name, kind, Some(&dims)));
        }
    });
}

/// Changes all tensors of floats in a file.
fn change_floats(proto: &mut ModelProto, change: impl Fn(&mut TensorProto)) {
    let graph = proto.graph.as_mut().unwrap();
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let tensors =
        graph.initializer.iter_mut().chain(attributes.filter_map(|attribute| attribute.t.as_deref_mut()));
    tensors.filter(|tensor| tensor.data_type == DataType::Float as i32).for_each(change);
}

#[test]
fn half_precision_is_widened() {
    // Weights that bfloat16 holds exactly, so that both files are the same model. GELU's √2 is rounded in one alone.
    let mut rounded = original("timm_vit.onnx");
    change_floats(&mut rounded, |tensor| {
        if tensor.dims.is_empty() {
            return;
        }
        let bytes = floats(tensor).flat_map(|value| (value.to_bits() & 0xffff_0000).to_le_bytes());
        tensor.raw_data = bytes.collect::<Vec<u8>>().into();
        tensor.float_data.clear();
    });
    let wanted = answer(&opened(&rounded));
    let mut half = rounded.clone();
    change_floats(&mut half, |tensor| {
        let halves = floats(tensor).flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes());
        tensor.raw_data = halves.collect::<Vec<u8>>().into();
        tensor.data_type = DataType::Bfloat16 as i32;
    });
    let graph = half.graph.as_mut().unwrap();
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        tensor(info).elem_type = DataType::Bfloat16 as i32;
    }
    assert_eq!(answer(&opened(&half)), wanted);
}

/// A folder with a model whose weights are in another file.
fn apart(name: &str) -> tempfile::TempDir {
    let (folder, mut proto, mut data) = (tempfile::tempdir().unwrap(), original(name), Vec::new());
    for weight in &mut proto.graph.as_mut().unwrap().initializer {
        let bytes = std::mem::take(&mut weight.raw_data);
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        weight.external_data = vec![
            entry("location", "model.onnx.data".into()),
            entry("offset", data.len().to_string()),
            entry("length", bytes.len().to_string()),
        ];
        weight.data_location = Some(DataLocation::External as i32);
        data.extend_from_slice(&bytes);
    }
    std::fs::write(folder.path().join("model.onnx"), proto.encode_to_vec()).unwrap();
    std::fs::write(folder.path().join("model.onnx.data"), data).unwrap();
    folder
}

#[test]
fn weights_beside_the_model_are_read_if_asked_to() {
    let folder = apart("timm_vit.onnx");
    let path = folder.path().join("model.onnx");
    let error = Model::open(&path).unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("--external-data"), "{error}");
    let options = OpenOptions { external_data: true, ..OpenOptions::default() };
    let model = Model::open_with(&path, &options).unwrap();
    assert_eq!(answer(&model), answer(&opened(&original("timm_vit.onnx"))));
    // A signature covers one file.
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signed/test.pub");
    let key = PublicKey::named(key.to_str().unwrap()).unwrap();
    let signed = models().join("../signed/colours_u8.onnx.minisig");
    std::fs::copy(signed, folder.path().join("model.onnx.minisig")).unwrap();
    std::fs::copy(models().join("colours_u8.onnx"), &path).unwrap();
    let trust = Trust { key: Some(key), ..Trust::default() };
    let error = Model::open_with(&path, &OpenOptions { trust, ..options }).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("does not cover"), "{error}");
}

#[test]
fn an_open_size_is_fixed_by_an_option() {
    let mut proto = original("timm_vit.onnx");
    let shape = tensor(input(&mut proto)).shape.as_mut().unwrap();
    for (dim, name) in shape.dim[2..].iter_mut().zip(["height", "width"]) {
        dim.value = Some(Dimension::DimParam(name.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    let error = Model::open(&path).unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("--img-size"), "{error}");
    let options = OpenOptions { input_size: Some([8, 8]), ..OpenOptions::default() };
    let model = Model::open_with(&path, &options).unwrap();
    assert_eq!(answer(&model), answer(&opened(&original("timm_vit.onnx"))));
}
