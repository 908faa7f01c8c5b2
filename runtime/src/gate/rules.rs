//! The table of operators: how many inputs and outputs, which attributes, which shapes come out, at what cost.
//!
//! Whatever is not in this table is refused. The list is what vision transformers and convolutional networks consist
//! of, as this project and as PyTorch exports them, with the shape arithmetic around them, and ONNX's own form of quantization.

use super::attributes::{Attribute, Check};
use super::branches;
use super::node::Node;
use super::shapes::{constant, elementwise, images, index, layout, normalise, product, quantize, resize};
use super::value::Value;
use crate::error::Result;

/// What the gate knows about one operator.
pub(super) struct Rule {
    pub(super) op: &'static str,
    /// Fewest and most inputs.
    pub(super) inputs: (usize, usize),
    /// Most outputs (the fewest are 1).
    pub(super) outputs: usize,
    /// First opset that has the operator in this form.
    pub(super) since: i64,
    pub(super) attributes: &'static [Attribute],
    pub(super) infer: for<'a> fn(&Node<'a>) -> Result<Vec<Value<'a>>>,
    pub(super) cost: Cost,
}

/// The work of a node.
pub(super) enum Cost {
    /// Nothing, or almost.
    Free,
    /// So many times the time of copying each element.
    Element(u64),
    /// A matrix product or convolution.
    Product,
    /// Each element of each window once.
    Windows,
}

/// The most inputs of `Concat` and outputs of `Split`.
const MANY: usize = 256;
/// The largest axis or dimension that an attribute may name; shapes bound it further.
const AXIS: i64 = super::weights::MAX_RANK as i64;

/// Attributes by name, type and range.
const fn attribute(name: &'static str, check: Check) -> Attribute {
    Attribute { name, check }
}

/// `axis`.
const AXIS_ONLY: &[Attribute] = &[attribute("axis", Check::Int(-AXIS, AXIS))];

/// How windows are padded without numbers.
const AUTO_PAD: Attribute =
    attribute("auto_pad", Check::Text(&["NOTSET", "SAME_LOWER", "SAME_UPPER", "VALID"]));

const BATCH_NORM: &[Attribute] = &[
    attribute("epsilon", Check::Float(1e-12, 1.0)),
    attribute("momentum", Check::Float(0.0, 1.0)),
    attribute("training_mode", Check::Int(0, 0)),
];

const MAX_POOL: &[Attribute] = &[
    AUTO_PAD,
    attribute("ceil_mode", Check::Int(0, 1)),
    attribute("dilations", Check::Ints(2, 1, 4096)),
    attribute("kernel_shape", Check::Ints(2, 1, 4096)),
    attribute("pads", Check::Ints(4, 0, 4096)),
    attribute("storage_order", Check::Int(0, 0)),
    attribute("strides", Check::Ints(2, 1, 4096)),
];

const AVERAGE_POOL: &[Attribute] = &[
    AUTO_PAD,
    attribute("ceil_mode", Check::Int(0, 0)),
    attribute("count_include_pad", Check::Int(0, 1)),
    attribute("kernel_shape", Check::Ints(2, 1, 4096)),
    attribute("pads", Check::Ints(4, 0, 4096)),
    attribute("strides", Check::Ints(2, 1, 4096)),
];

const ALPHA: &[Attribute] = &[attribute("alpha", Check::Float(-1e6, 1e6))];

const CONV: &[Attribute] = &[
    AUTO_PAD,
    attribute("dilations", Check::Ints(2, 1, 4096)),
    attribute("group", Check::Int(1, 65_536)),
    attribute("kernel_shape", Check::Ints(2, 1, 4096)),
    attribute("pads", Check::Ints(4, 0, 4096)),
    attribute("strides", Check::Ints(2, 1, 4096)),
];

const GEMM: &[Attribute] = &[
    attribute("alpha", Check::Float(-1e6, 1e6)),
    attribute("beta", Check::Float(-1e6, 1e6)),
    attribute("transA", Check::Int(0, 1)),
    attribute("transB", Check::Int(0, 1)),
];

const HARD_SIGMOID: &[Attribute] =
    &[attribute("alpha", Check::Float(-1e6, 1e6)), attribute("beta", Check::Float(-1e6, 1e6))];

const LAYER_NORM: &[Attribute] = &[
    attribute("axis", Check::Int(-AXIS, AXIS)),
    attribute("epsilon", Check::Float(1e-12, 1.0)),
    attribute("stash_type", Check::Int(1, 1)),
];

const REDUCE: &[Attribute] = &[
    attribute("axes", Check::Ints(AXIS as usize, -AXIS, AXIS)),
    attribute("keepdims", Check::Int(0, 1)),
    attribute("noop_with_empty_axes", Check::Int(0, 0)),
];

const RESIZE: &[Attribute] = &[
    attribute("antialias", Check::Int(0, 0)),
    attribute(
        "coordinate_transformation_mode",
        Check::Text(&["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    ),
    attribute("cubic_coeff_a", Check::Float(-1.0, 0.0)),
    attribute("exclude_outside", Check::Int(0, 0)),
    attribute("extrapolation_value", Check::Float(-1e6, 1e6)),
    attribute("keep_aspect_ratio_policy", Check::Text(&["stretch"])),
    attribute("mode", Check::Text(&["nearest", "linear", "cubic"])),
    attribute("nearest_mode", Check::Text(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])),
];

const QUANTIZE: &[Attribute] = &[
    attribute("axis", Check::Int(-AXIS, AXIS)),
    attribute("block_size", Check::Int(0, 0)),
    attribute("output_dtype", Check::Int(0, 3)),
    attribute("saturate", Check::Int(1, 1)),
];

/// Axes, an attribute before opset 13.
const AXES: &[Attribute] = &[attribute("axes", Check::Ints(AXIS as usize, -AXIS, AXIS))];

/// A rule without attributes.
const fn plain(
    op: &'static str,
    inputs: (usize, usize),
    infer: for<'a> fn(&Node<'a>) -> Result<Vec<Value<'a>>>,
    cost: Cost,
) -> Rule {
    Rule { op, inputs, outputs: 1, since: *super::OPSETS.start(), attributes: &[], infer, cost }
}

impl Rule {
    /// The same rule with attributes.
    const fn with(self, attributes: &'static [Attribute]) -> Rule {
        Rule { attributes, ..self }
    }
}

/// Every operator that a model may use, in alphabetical order.
pub(super) const RULES: &[Rule] = &[
    plain("Abs", (1, 1), elementwise::unary, Cost::Element(1)),
    plain("Add", (2, 2), elementwise::binary, Cost::Element(1)),
    plain("And", (2, 2), elementwise::compare, Cost::Element(1)),
    plain("AveragePool", (1, 1), images::pool, Cost::Windows).with(AVERAGE_POOL),
    plain("BatchNormalization", (5, 5), images::batch_norm, Cost::Element(2)).with(BATCH_NORM),
    plain("Cast", (1, 1), elementwise::cast, Cost::Element(1))
        .with(&[attribute("saturate", Check::Int(0, 1)), attribute("to", Check::Int(1, 23))]),
    plain("Ceil", (1, 1), elementwise::whole, Cost::Element(1)),
    plain("Clip", (1, 3), images::clip, Cost::Element(1)),
    plain("Concat", (1, MANY), layout::concat, Cost::Element(1)).with(AXIS_ONLY),
    plain("Constant", (0, 0), constant::constant, Cost::Free).with(&[attribute("value", Check::Tensor)]),
    plain("ConstantOfShape", (1, 1), constant::of_shape, Cost::Element(1))
        .with(&[attribute("value", Check::Tensor)]),
    plain("Conv", (2, 3), product::conv, Cost::Product).with(CONV),
    plain("Cos", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("DequantizeLinear", (2, 3), quantize::dequantize, Cost::Element(2)).with(QUANTIZE),
    plain("Div", (2, 2), elementwise::binary, Cost::Element(2)),
    plain("Dropout", (1, 3), elementwise::identity, Cost::Free).with(&[
        attribute("ratio", Check::Float(0.0, 1.0)),
        attribute("seed", Check::Int(i64::MIN, i64::MAX)),
    ]),
    plain("Elu", (1, 1), elementwise::unary, Cost::Element(8)).with(ALPHA),
    plain("Equal", (2, 2), elementwise::compare, Cost::Element(1)),
    plain("Erf", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("Exp", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("Expand", (2, 2), layout::expand, Cost::Element(1)),
    plain("Flatten", (1, 1), layout::flatten, Cost::Free).with(AXIS_ONLY),
    plain("Floor", (1, 1), elementwise::whole, Cost::Element(1)),
    plain("Gather", (2, 2), index::gather, Cost::Element(1)).with(AXIS_ONLY),
    plain("GatherND", (2, 2), index::gather_nd, Cost::Element(1))
        .with(&[attribute("batch_dims", Check::Int(0, 0))]),
    Rule {
        since: 20,
        ..plain("Gelu", (1, 1), elementwise::unary, Cost::Element(16))
            .with(&[attribute("approximate", Check::Text(&["none", "tanh"]))])
    },
    plain("Gemm", (2, 3), product::gemm, Cost::Product).with(GEMM),
    plain("GlobalAveragePool", (1, 1), images::global_average, Cost::Element(1)),
    plain("GlobalMaxPool", (1, 1), images::global_average, Cost::Element(1)),
    plain("Greater", (2, 2), elementwise::compare, Cost::Element(1)),
    Rule { since: 12, ..plain("GreaterOrEqual", (2, 2), elementwise::compare, Cost::Element(1)) },
    plain("HardSigmoid", (1, 1), elementwise::unary, Cost::Element(2)).with(HARD_SIGMOID),
    Rule { since: 14, ..plain("HardSwish", (1, 1), elementwise::unary, Cost::Element(2)) },
    plain("Identity", (1, 1), elementwise::identity, Cost::Free),
    Rule { outputs: MANY, ..plain("If", (1, 1), branches::infer, Cost::Free).with(branches::ATTRIBUTES) },
    plain("InstanceNormalization", (3, 3), images::instance_norm, Cost::Element(8))
        .with(&[attribute("epsilon", Check::Float(1e-12, 1.0))]),
    plain("IsNaN", (1, 1), elementwise::is_nan, Cost::Element(1)),
    Rule {
        since: 17,
        ..plain("LayerNormalization", (2, 3), normalise::layer_norm, Cost::Element(8)).with(LAYER_NORM)
    },
    plain("LeakyRelu", (1, 1), elementwise::unary, Cost::Element(1)).with(ALPHA),
    plain("Less", (2, 2), elementwise::compare, Cost::Element(1)),
    Rule { since: 12, ..plain("LessOrEqual", (2, 2), elementwise::compare, Cost::Element(1)) },
    plain("Log", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("MatMul", (2, 2), product::mat_mul, Cost::Product),
    plain("Max", (1, MANY), elementwise::extreme, Cost::Element(1)),
    plain("MaxPool", (1, 1), images::pool, Cost::Windows).with(MAX_POOL),
    plain("Min", (1, MANY), elementwise::extreme, Cost::Element(1)),
    plain("Mod", (2, 2), elementwise::binary, Cost::Element(4)).with(&[attribute("fmod", Check::Int(0, 0))]),
    plain("Mul", (2, 2), elementwise::binary, Cost::Element(1)),
    plain("Neg", (1, 1), elementwise::unary, Cost::Element(1)),
    plain("Not", (1, 1), elementwise::not, Cost::Element(1)),
    plain("Or", (2, 2), elementwise::compare, Cost::Element(1)),
    plain("Pad", (2, 4), images::pad, Cost::Element(1))
        .with(&[attribute("mode", Check::Text(&["constant"]))]),
    plain("Pow", (2, 2), elementwise::binary, Cost::Element(32)),
    plain("QuantizeLinear", (2, 3), quantize::quantize, Cost::Element(4)).with(QUANTIZE),
    plain("Range", (3, 3), constant::range, Cost::Element(1)),
    plain("Reciprocal", (1, 1), elementwise::unary, Cost::Element(2)),
    plain("ReduceL2", (1, 2), normalise::reduce_mean, Cost::Element(1)).with(REDUCE),
    plain("ReduceMax", (1, 2), normalise::reduce_mean, Cost::Element(1)).with(REDUCE),
    plain("ReduceMean", (1, 2), normalise::reduce_mean, Cost::Element(1)).with(REDUCE),
    plain("ReduceSum", (1, 2), normalise::reduce_sum, Cost::Element(1)).with(REDUCE),
    plain("Relu", (1, 1), elementwise::unary, Cost::Element(1)),
    plain("Reshape", (2, 2), layout::reshape, Cost::Free).with(&[attribute("allowzero", Check::Int(0, 1))]),
    plain("Resize", (1, 4), resize::resize, Cost::Element(32)).with(RESIZE),
    plain("ScatterND", (3, 3), index::scatter_nd, Cost::Element(1))
        .with(&[attribute("reduction", Check::Text(&["none"]))]),
    plain("Shape", (1, 1), index::shape, Cost::Free)
        .with(&[attribute("end", Check::Int(-AXIS, AXIS)), attribute("start", Check::Int(-AXIS, AXIS))]),
    plain("Sigmoid", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("Sin", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("Size", (1, 1), index::size, Cost::Free),
    plain("Slice", (3, 5), index::slice, Cost::Element(1)),
    plain("Softmax", (1, 1), normalise::softmax, Cost::Element(8)).with(AXIS_ONLY),
    plain("Softplus", (1, 1), elementwise::unary, Cost::Element(16)),
    Rule {
        outputs: MANY,
        ..plain("Split", (1, 2), index::split, Cost::Element(1)).with(&[
            attribute("axis", Check::Int(-AXIS, AXIS)),
            attribute("num_outputs", Check::Int(1, MANY as i64)),
            attribute("split", Check::Ints(MANY, 1, i64::MAX)),
        ])
    },
    plain("Sqrt", (1, 1), elementwise::unary, Cost::Element(2)),
    plain("Squeeze", (1, 2), layout::squeeze, Cost::Free).with(AXES),
    plain("Sub", (2, 2), elementwise::binary, Cost::Element(1)),
    plain("Tanh", (1, 1), elementwise::unary, Cost::Element(8)),
    plain("Tile", (2, 2), layout::tile, Cost::Element(1)),
    plain("Transpose", (1, 1), layout::transpose, Cost::Element(1))
        .with(&[attribute("perm", Check::Ints(AXIS as usize, 0, AXIS))]),
    plain("Unsqueeze", (1, 2), layout::unsqueeze, Cost::Free).with(AXES),
    plain("Where", (3, 3), elementwise::choose, Cost::Element(2)),
];

/// What is allowed in the place of an operator without a rule, and what helps.
pub(super) fn allowed(op: &str) -> String {
    let is_quantized = op.starts_with("QLinear") || op.ends_with("Integer") || op == "DynamicQuantizeLinear";
    if is_quantized {
        return "QuantizeLinear and DequantizeLinear with fixed scales: quantize the float model by `smalti-run quantize`".into();
    }
    let names = RULES.iter().map(|rule| rule.op).collect::<Vec<_>>().join(" ");
    format!("{names}; PyTorch's exporter with dynamo=True writes fewer operators")
}

/// The rule for an operator, if the profile has it.
pub(super) fn find(op: &str) -> Option<&'static Rule> {
    RULES.binary_search_by(|rule| rule.op.cmp(op)).ok().map(|i| &RULES[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found() {
        assert!(RULES.is_sorted_by(|a, b| a.op < b.op));
        for rule in RULES {
            assert!(find(rule.op).is_some_and(|found| found.op == rule.op));
        }
        assert!(find("Loop").is_none());
        assert!(allowed("Loop").contains("dynamo=True"));
        for op in ["MatMulInteger", "QLinearConv", "DynamicQuantizeLinear"] {
            assert!(find(op).is_none() && allowed(op).contains("smalti-run quantize"));
        }
    }
}
