//! The messages of an ONNX file, in the schema's names and field numbers (`onnx.proto`, IR version 8).
//!
//! Only what is read, written, or refused: every other field, such as the metadata that PyTorch's exporter attaches to
//! each node, is skipped while decoding and takes no memory. A message that is refused wherever it occurs is an
//! [`Ignored`]: that it is there says enough.

use prost::Message;
use prost::bytes::Bytes;

/// A message of any kind, of which only the presence is kept.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Ignored {}

/// A model file.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The version of the file format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// The version of each set of operators that the nodes use.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The program that wrote the file.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// The version of that program.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// The namespace of the model's name.
    #[prost(string, tag = "4")]
    pub domain: String,
    /// The version of the graph.
    #[prost(int64, tag = "5")]
    pub model_version: i64,
    /// A description for people.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// What is computed.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// What the file says about itself, by key.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// Graphs for training.
    #[prost(message, repeated, tag = "20")]
    pub training_info: Vec<Ignored>,
    /// Operators that the file itself defines.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

impl ModelProto {
    /// Gives back what lists took for more elements than they have: decoding grows them by doubling.
    pub fn shrink(&mut self) {
        let Some(graph) = &mut self.graph else { return };
        graph.initializer.shrink_to_fit();
        graph.node.shrink_to_fit();
        for node in &mut graph.node {
            node.input.shrink_to_fit();
            node.output.shrink_to_fit();
            node.attribute.shrink_to_fit();
        }
    }
}

/// A set of operators and its version.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    /// The set's name; empty for ONNX's own operators.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// The version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A key and its value.
#[derive(Clone, PartialEq, Message)]
pub struct StringStringEntryProto {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An operator that a file defines: its name.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    /// The operator's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
}

/// A computation: nodes in the order of the data, with their weights.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// The nodes, in topological order.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// The graph's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The weights.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Weights as lists of values that are not 0.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<Ignored>,
    /// A description for people.
    #[prost(string, tag = "10")]
    pub doc_string: String,
    /// What goes in.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// What comes out.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of values in between.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// The names of the values that go in; empty for one that is left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// The names of the values that come out.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// The node's name, for people.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// The set of operators that it is from.
    #[prost(string, tag = "7")]
    pub domain: String,
    /// What is fixed about the operation.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// A description for people.
    #[prost(string, tag = "6")]
    pub doc_string: String,
}

/// One attribute of a node; `type` says which field has its value.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// The attribute's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// In a function's body, the function's attribute that this one stands for.
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
    /// A description for people.
    #[prost(string, tag = "13")]
    pub doc_string: String,
    /// The type of the value.
    #[prost(enumeration = "attribute_proto::AttributeType", tag = "20")]
    pub r#type: i32,
    /// A number.
    #[prost(float, tag = "2")]
    pub f: f32,
    /// An integer.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// Text.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    /// A tensor.
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<TensorProto>>,
    /// A subgraph: a branch of an `If`, say.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<GraphProto>>,
    /// Integers.
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    /// Subgraphs.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<Ignored>,
}

impl AttributeProto {
    /// An integer.
    pub fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto { i, ..AttributeProto::of(name, attribute_proto::AttributeType::Int) }
    }

    /// Integers.
    pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        let ints = ints.to_vec();
        AttributeProto { ints, ..AttributeProto::of(name, attribute_proto::AttributeType::Ints) }
    }

    /// A real number.
    pub fn float(name: &str, f: f32) -> AttributeProto {
        AttributeProto { f, ..AttributeProto::of(name, attribute_proto::AttributeType::Float) }
    }

    fn of(name: &str, kind: attribute_proto::AttributeType) -> AttributeProto {
        AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
    }
}

/// What belongs to [`AttributeProto`].
pub mod attribute_proto {
    /// Types of attributes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    #[allow(missing_docs)]
    pub enum AttributeType {
        Undefined = 0,
        Float = 1,
        Int = 2,
        String = 3,
        Tensor = 4,
        Graph = 5,
        Floats = 6,
        Ints = 7,
        Strings = 8,
        Tensors = 9,
        Graphs = 10,
        SparseTensor = 11,
        SparseTensors = 12,
        TypeProto = 13,
        TypeProtos = 14,
    }
}

/// A stored tensor, in row-major order. One of the fields that end in `_data` has its elements.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// The shape.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// The type of the elements.
    #[prost(enumeration = "tensor_proto::DataType", tag = "2")]
    pub data_type: i32,
    /// Which part of a tensor in several pieces this is.
    #[prost(message, optional, tag = "3")]
    pub segment: Option<Ignored>,
    /// Elements of type `FLOAT`.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of type `INT32` and of all shorter ones.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of type `STRING`.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    /// Elements of type `INT64`.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// The tensor's name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// A description for people.
    #[prost(string, tag = "12")]
    pub doc_string: String,
    /// Elements of any type but `STRING`, as little-endian bytes.
    #[prost(bytes = "bytes", tag = "9")]
    pub raw_data: Bytes,
    /// Elements of type `DOUBLE`.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of type `UINT64` and `UINT32`.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Whether the elements are in this file.
    #[prost(enumeration = "tensor_proto::DataLocation", optional, tag = "14")]
    pub data_location: Option<i32>,
    /// Where they are if not.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
}

impl TensorProto {
    /// A tensor of bytes as `raw_data` has them.
    pub fn raw(name: &str, elements: tensor_proto::DataType, shape: &[usize], bytes: Vec<u8>) -> TensorProto {
        TensorProto {
            name: name.into(),
            dims: shape.iter().map(|&dim| dim as i64).collect(),
            data_type: elements as i32,
            raw_data: bytes.into(),
            ..Default::default()
        }
    }

    /// Changes `raw_data`, which clones of the tensor share until then.
    pub fn edit_raw(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::from(std::mem::take(&mut self.raw_data));
        change(&mut bytes);
        self.raw_data = bytes.into();
    }
}

/// What belongs to [`TensorProto`].
pub mod tensor_proto {
    /// Types of elements.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    #[allow(missing_docs)]
    pub enum DataType {
        Undefined = 0,
        Float = 1,
        Uint8 = 2,
        Int8 = 3,
        Uint16 = 4,
        Int16 = 5,
        Int32 = 6,
        Int64 = 7,
        String = 8,
        Bool = 9,
        Float16 = 10,
        Double = 11,
        Uint32 = 12,
        Uint64 = 13,
        Complex64 = 14,
        Complex128 = 15,
        Bfloat16 = 16,
        Float8e4m3fn = 17,
        Float8e4m3fnuz = 18,
        Float8e5m2 = 19,
        Float8e5m2fnuz = 20,
        Uint4 = 21,
        Int4 = 22,
        Float4e2m1 = 23,
    }

    impl DataType {
        /// The schema's name in lower case: `float`, `uint8`.
        pub fn name(self) -> String {
            format!("{self:?}").to_ascii_lowercase()
        }
    }

    /// Where a tensor's elements are.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
    #[repr(i32)]
    pub enum DataLocation {
        /// In the message itself.
        Default = 0,
        /// In another file.
        External = 1,
    }
}

/// A value's name and type.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    /// A description for people.
    #[prost(string, tag = "3")]
    pub doc_string: String,
}

impl ValueInfoProto {
    /// A tensor of a fixed shape, or of whatever shape where none is given.
    pub fn tensor(name: &str, elements: tensor_proto::DataType, shape: Option<&[usize]>) -> ValueInfoProto {
        let dim = |&size: &usize| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(size as i64)),
            ..Default::default()
        };
        let shape = shape.map(|shape| TensorShapeProto { dim: shape.iter().map(dim).collect() });
        let tensor = type_proto::Tensor { elem_type: elements as i32, shape };
        let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
    }
}

/// A value's type.
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    /// The type, if it is a tensor.
    #[prost(oneof = "type_proto::Value", tags = "1")]
    pub value: Option<type_proto::Value>,
    /// What the value stands for.
    #[prost(string, tag = "6")]
    pub denotation: String,
}

/// What belongs to [`TypeProto`].
pub mod type_proto {
    /// The type of a tensor.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        /// The type of its elements.
        #[prost(enumeration = "super::tensor_proto::DataType", tag = "1")]
        pub elem_type: i32,
        /// Its shape, where that is known.
        #[prost(message, optional, tag = "2")]
        pub shape: Option<super::TensorShapeProto>,
    }

    /// Kinds of types.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// A tensor.
        #[prost(message, tag = "1")]
        TensorType(Tensor),
    }
}

/// A shape.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    /// The axes.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<tensor_shape_proto::Dimension>,
}

/// What belongs to [`TensorShapeProto`].
pub mod tensor_shape_proto {
    /// One axis.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dimension {
        /// Its length.
        #[prost(oneof = "dimension::Value", tags = "1, 2")]
        pub value: Option<dimension::Value>,
        /// What the axis stands for.
        #[prost(string, tag = "3")]
        pub denotation: String,
    }

    /// What belongs to [`Dimension`].
    pub mod dimension {
        /// The length of an axis.
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Value {
            /// A number.
            #[prost(int64, tag = "1")]
            DimValue(i64),
            /// A name for a number that is not fixed.
            #[prost(string, tag = "2")]
            DimParam(String),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that holds a message or bytes.
    fn field(number: u32, contents: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(contents.len() as u64, &mut bytes);
        [&bytes, contents].concat()
    }

    #[test]
    fn fields_are_where_the_schema_has_them() {
        let dimension = [&field(2, b"batch")[..], &field(3, b"N")].concat();
        let tensor_type = [&[0x08, 1][..], &field(2, &field(1, &dimension))].concat();
        let info = [&field(1, b"image")[..], &field(2, &field(1, &tensor_type))].concat();
        let tensor = [&[0x0a, 1, 2, 0x10, 3][..], &field(8, b"w"), &field(9, &[7, 8])].concat();
        let attribute = [&field(1, b"value")[..], &field(5, &tensor), &[0xa0, 0x01, 4]].concat();
        let node = [field(1, b"a"), field(2, b"b"), field(4, b"Constant"), field(5, &attribute)].concat();
        let graph = [field(1, &node), field(5, &tensor), field(11, &info)].concat();
        let model = [&[0x08, 8][..], &field(7, &graph), &field(8, &[0x10, 17])].concat();
        let model = ModelProto::decode(&model[..]).unwrap();
        assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
        let graph = model.graph.unwrap();
        let weight = &graph.initializer[0];
        assert_eq!((&*weight.name, &weight.dims[..], &weight.raw_data[..]), ("w", &[2][..], &[7, 8][..]));
        assert_eq!(weight.data_type(), tensor_proto::DataType::Int8);
        let node = &graph.node[0];
        assert_eq!((&*node.input[0], &*node.output[0], &*node.op_type), ("a", "b", "Constant"));
        assert_eq!(node.attribute[0].r#type(), attribute_proto::AttributeType::Tensor);
        assert_eq!(node.attribute[0].t.as_deref(), Some(weight));
        let Some(type_proto::Value::TensorType(tensor)) = &graph.input[0].r#type.as_ref().unwrap().value
        else {
            panic!("no tensor");
        };
        let dimension = &tensor.shape.as_ref().unwrap().dim[0];
        assert_eq!(dimension.value, Some(tensor_shape_proto::dimension::Value::DimParam("batch".into())));
    }

    #[test]
    fn what_is_refused_is_seen_and_nothing_else_of_it_kept() {
        let subgraph = field(1, &field(4, b"Loop"));
        let attribute = AttributeProto::decode(&field(11, &subgraph)[..]).unwrap();
        assert_eq!(attribute.graphs, [Ignored {}]);
        assert_eq!(attribute.encode_to_vec(), field(11, b""));
        let metadata = field(9, &field(1, b"pkg.torch.onnx.stack_trace"));
        assert_eq!(NodeProto::decode(&metadata[..]).unwrap(), NodeProto::default());
    }

    #[test]
    fn types_are_called_as_in_the_schema() {
        use tensor_proto::DataType;
        assert_eq!(
            [DataType::Float, DataType::Bfloat16, DataType::Float8e4m3fn].map(DataType::name),
            ["float", "bfloat16", "float8e4m3fn"]
        );
    }
}
