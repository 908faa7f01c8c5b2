//! Our messages as tract's. Names and numbers move over; nothing is copied.

use smalti_models::onnx;
use tract_onnx::pb;

/// A model as tract takes it.
///
/// What the gate refuses wherever it occurs (lists of subgraphs, functions, training information, sparse and segmented
/// tensors) is left out.
pub(super) fn model(from: onnx::ModelProto) -> pb::ModelProto {
    pb::ModelProto {
        ir_version: from.ir_version,
        opset_import: all(from.opset_import, |onnx::OperatorSetIdProto { domain, version }| {
            pb::OperatorSetIdProto { domain, version }
        }),
        producer_name: from.producer_name,
        producer_version: from.producer_version,
        domain: from.domain,
        model_version: from.model_version,
        doc_string: from.doc_string,
        graph: from.graph.map(graph),
        metadata_props: all(from.metadata_props, entry),
        ..Default::default()
    }
}

fn all<A, B>(from: Vec<A>, convert: impl Fn(A) -> B) -> Vec<B> {
    from.into_iter().map(convert).collect()
}

fn entry(from: onnx::StringStringEntryProto) -> pb::StringStringEntryProto {
    pb::StringStringEntryProto { key: from.key, value: from.value }
}

fn graph(from: onnx::GraphProto) -> pb::GraphProto {
    pb::GraphProto {
        node: all(from.node, node),
        name: from.name,
        initializer: all(from.initializer, tensor),
        doc_string: from.doc_string,
        input: all(from.input, value_info),
        output: all(from.output, value_info),
        value_info: all(from.value_info, value_info),
        ..Default::default()
    }
}

fn node(from: onnx::NodeProto) -> pb::NodeProto {
    pb::NodeProto {
        input: from.input,
        output: from.output,
        name: from.name,
        op_type: from.op_type,
        domain: from.domain,
        attribute: all(from.attribute, attribute),
        doc_string: from.doc_string,
    }
}

fn attribute(from: onnx::AttributeProto) -> pb::AttributeProto {
    pb::AttributeProto {
        name: from.name,
        ref_attr_name: from.ref_attr_name,
        doc_string: from.doc_string,
        r#type: from.r#type,
        f: from.f,
        i: from.i,
        s: from.s,
        t: from.t.map(|t| tensor(*t)),
        g: from.g.map(|g| graph(*g)),
        ints: from.ints,
        ..Default::default()
    }
}

fn tensor(from: onnx::TensorProto) -> pb::TensorProto {
    pb::TensorProto {
        dims: from.dims,
        data_type: from.data_type,
        segment: None,
        float_data: from.float_data,
        int32_data: from.int32_data,
        string_data: from.string_data,
        int64_data: from.int64_data,
        name: from.name,
        doc_string: from.doc_string,
        raw_data: from.raw_data.into(),
        double_data: from.double_data,
        uint64_data: from.uint64_data,
        data_location: from.data_location,
        external_data: all(from.external_data, entry),
    }
}

fn value_info(from: onnx::ValueInfoProto) -> pb::ValueInfoProto {
    let r#type = from.r#type.map(|from| {
        let value = from.value.map(|onnx::type_proto::Value::TensorType(tensor)| {
            let shape = tensor.shape.map(|shape| pb::TensorShapeProto { dim: all(shape.dim, dimension) });
            pb::type_proto::Value::TensorType(pb::type_proto::Tensor { elem_type: tensor.elem_type, shape })
        });
        pb::TypeProto { value, denotation: from.denotation }
    });
    pb::ValueInfoProto { name: from.name, r#type, doc_string: from.doc_string }
}

fn dimension(from: onnx::tensor_shape_proto::Dimension) -> pb::tensor_shape_proto::Dimension {
    use onnx::tensor_shape_proto::dimension::Value as From;
    use pb::tensor_shape_proto::dimension::Value as To;
    let value = from.value.map(|value| match value {
        From::DimValue(value) => To::DimValue(value),
        From::DimParam(name) => To::DimParam(name),
    });
    pb::tensor_shape_proto::Dimension { value, denotation: from.denotation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// All model files of the tests.
    fn files() -> Vec<std::path::PathBuf> {
        let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let folders = [tests.join("models"), tests.join("operators/graphs")];
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")).collect()
    }

    #[test]
    fn a_converted_file_is_what_tract_decodes() {
        let files = files();
        assert!(files.len() > 20);
        for path in files {
            let bytes = std::fs::read(&path).unwrap();
            let ours = onnx::ModelProto::decode(&bytes[..]).unwrap();
            let tracts = pb::ModelProto::decode(&bytes[..]).unwrap();
            assert!(model(ours.clone()) == tracts, "{}", path.display());
            // And back: nothing that tract knows of these files is missing in ours.
            let again = onnx::ModelProto::decode(&tracts.encode_to_vec()[..]).unwrap();
            assert!(again == ours, "{}", path.display());
        }
    }
}
