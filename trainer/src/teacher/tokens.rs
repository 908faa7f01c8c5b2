//! Networks whose output is many vectors, tokens `[1, T, K]` or maps `[1, K, H, W]`: their mean becomes the embedding.

use smalti_models::contract::EMBEDDING;
use smalti_models::onnx::tensor_proto::DataType;
use smalti_models::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto,
};

/// The name of the output that is added.
const POOLED: &str = "smalti.pooled";
/// From this opset on ReduceMean takes its axes as an input.
const AXES_ARE_AN_INPUT: i64 = 18;

/// Makes the mean of the wanted output's vectors the model's output, and gives its name; none if the output is one vector.
/// Without a wish that is any output `[1, K]`, else the first.
pub(super) fn pool(model: &mut ModelProto, wanted: Option<&str>) -> Option<String> {
    let axes_are_an_input = model.opset_import.iter().any(|import| import.version >= AXES_ARE_AN_INPUT);
    let graph = model.graph.as_mut()?;
    let output = match wanted {
        Some(name) => graph.output.iter().find(|output| output.name == name)?,
        None if graph.output.iter().any(|output| rank(output) == Some(2)) => return None,
        None => graph.output.first()?,
    };
    let axes: &[i64] = match rank(output)? {
        3 => &[1],
        4 => &[2, 3],
        _ => return None,
    };
    let name = output.name.clone();
    add_mean(graph, name, axes, axes_are_an_input);
    Some(POOLED.into())
}

/// The value whose mean over places is the wanted output, if it is one: behind it come an average and at most changes of shape.
/// Without a wish the output is `embedding`, else the only one.
pub(super) fn averaged(graph: &GraphProto, wanted: Option<&str>) -> Option<String> {
    let outputs = || graph.output.iter().map(|output| output.name.as_str());
    let mut name = match wanted {
        Some(name) => name,
        None => outputs().find(|name| *name == EMBEDDING).or_else(|| outputs().next())?,
    };
    loop {
        let node = graph.node.iter().find(|node| node.output.first().is_some_and(|output| output == name))?;
        match &*node.op_type {
            "Flatten" | "Reshape" | "Squeeze" | "Identity" => name = node.input.first()?,
            "GlobalAveragePool" | "ReduceMean" => return node.input.first().cloned(),
            _ => return None,
        }
    }
}

/// Axes of a value, if they are declared.
fn rank(value: &ValueInfoProto) -> Option<usize> {
    let type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    Some(tensor.shape.as_ref()?.dim.len())
}

/// Appends a ReduceMean, and leaves its result as the only output.
fn add_mean(graph: &mut GraphProto, of: String, axes: &[i64], axes_are_an_input: bool) {
    let mut node = NodeProto {
        name: POOLED.into(),
        op_type: "ReduceMean".into(),
        input: vec![of],
        output: vec![POOLED.into()],
        attribute: vec![AttributeProto::int("keepdims", 0)],
        ..NodeProto::default()
    };
    if axes_are_an_input {
        let name = format!("{POOLED}.axes");
        node.input.push(name.clone());
        graph.initializer.push(TensorProto {
            name,
            dims: vec![axes.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: axes.to_vec(),
            ..TensorProto::default()
        });
    } else {
        node.attribute.push(AttributeProto::ints("axes", axes));
    }
    graph.node.push(node);
    graph.output = vec![ValueInfoProto::tensor(POOLED, DataType::Float, None)];
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use smalti_models::onnx::OperatorSetIdProto;

    use super::*;
    use crate::teacher::{Grid, Hints, OnnxTeacher, Teacher as _};

    fn value(name: &str, dims: &[usize]) -> ValueInfoProto {
        ValueInfoProto::tensor(name, DataType::Float, Some(dims))
    }

    /// Maps of 5 channels on 4 x 4 pixels, and the same as 16 tokens.
    fn model(opset: i64) -> ModelProto {
        let node = |op: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
            name: output.into(),
            op_type: op.into(),
            input: input.iter().map(|&name| name.into()).collect(),
            output: vec![output.into()],
            attribute,
            ..NodeProto::default()
        };
        let weight = TensorProto {
            name: "w".into(),
            dims: vec![5, 3, 1, 1],
            data_type: DataType::Float as i32,
            float_data: (0..15).map(|i| i as f32 - 7.0).collect(),
            ..TensorProto::default()
        };
        let shape = TensorProto {
            name: "shape".into(),
            dims: vec![3],
            data_type: DataType::Int64 as i32,
            int64_data: vec![1, 5, 16],
            ..TensorProto::default()
        };
        let graph = GraphProto {
            name: "maps".into(),
            node: vec![
                node("Conv", &["image", "w"], "maps", vec![]),
                node("Reshape", &["maps", "shape"], "rows", vec![]),
                node("Transpose", &["rows"], "tokens", vec![AttributeProto::ints("perm", &[0, 2, 1])]),
            ],
            initializer: vec![weight, shape],
            input: vec![value("image", &[1, 3, 4, 4])],
            output: vec![value("tokens", &[1, 16, 5]), value("maps", &[1, 5, 4, 4])],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { version: opset, ..OperatorSetIdProto::default() }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    #[test]
    fn the_mean_of_tokens_or_maps_is_the_embedding() {
        let pixels: Vec<f32> = (0..48).map(|i| (i % 11) as f32).collect();
        let mean = |channel: usize| pixels[16 * channel..][..16].iter().sum::<f32>() / 16.0;
        let want: Vec<f32> =
            (0..5).map(|j| (0..3).map(|c| mean(c) * ((3 * j + c) as f32 - 7.0)).sum()).collect();
        for (opset, output) in [(17, None), (18, None), (17, Some("maps")), (18, Some("maps"))] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), model(opset).encode_to_vec()).unwrap();
            let hints = Hints { output: output.map(str::to_owned), ..Hints::default() };
            let teacher = OnnxTeacher::open(file.path(), &hints).unwrap();
            let found = teacher.embed(&pixels).unwrap();
            assert_eq!((teacher.config().width, found.len()), (5, 5));
            assert!(found.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-4), "{found:?} {want:?}");
            // A vector for each pixel, row by row.
            assert_eq!(teacher.grid(), Some(Grid { side: 4, values: 5 }));
            let seen = teacher.see(&[&pixels[..], &pixels[..]].concat()).unwrap();
            assert_eq!((seen.embeddings.len(), seen.tokens.len()), (2 * 5, 2 * 16 * 5));
            let first = |place: usize| (0..3).map(|c| pixels[16 * c + place] * (c as f32 - 7.0)).sum::<f32>();
            assert!((0..16).all(|place| (seen.tokens[5 * place] - first(place)).abs() < 1e-4), "{output:?}");
        }
    }

    #[test]
    fn one_vector_is_left_as_it_is() {
        let mut of_one = model(17);
        if let Some(graph) = &mut of_one.graph {
            graph.output.push(value("pooled", &[1, 5]));
        }
        assert_eq!(pool(&mut of_one, None), None);
        assert_eq!(pool(&mut of_one, Some("nothing")), None);
        assert_eq!(pool(&mut of_one, Some("tokens")).as_deref(), Some(POOLED));
        let graph = of_one.graph.unwrap();
        assert_eq!(averaged(&graph, Some(POOLED)).as_deref(), Some("tokens"));
        assert_eq!(averaged(&graph, Some("maps")), None, "a convolution's");
        assert_eq!(averaged(&graph, Some("nothing")), None);
    }
}
