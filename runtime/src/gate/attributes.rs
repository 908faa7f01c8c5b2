//! Attributes: which names a node may carry, of which type, within which range.

use smalti_models::onnx::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType};

use crate::error::{Error, Result};

/// The type and range of one attribute.
pub(super) enum Check {
    /// An integer within bounds.
    Int(i64, i64),
    /// A finite number within bounds.
    Float(f32, f32),
    /// At most so many integers, each within bounds.
    Ints(usize, i64, i64),
    /// One of these words.
    Text(&'static [&'static str]),
    /// A tensor, checked like a weight.
    Tensor,
    /// A subgraph.
    Graph,
}

/// One attribute that an operator may have.
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) check: Check,
}

impl Check {
    /// The ONNX type that goes with this check.
    fn attribute_type(&self) -> AttributeType {
        match self {
            Check::Int(..) => AttributeType::Int,
            Check::Float(..) => AttributeType::Float,
            Check::Ints(..) => AttributeType::Ints,
            Check::Text(_) => AttributeType::String,
            Check::Tensor => AttributeType::Tensor,
            Check::Graph => AttributeType::Graph,
        }
    }

    /// Whether the attribute's value is within range.
    fn holds(&self, attribute: &AttributeProto) -> bool {
        match self {
            Check::Int(low, high) => (*low..=*high).contains(&attribute.i),
            Check::Float(low, high) => (*low..=*high).contains(&attribute.f),
            Check::Ints(most, low, high) => {
                attribute.ints.len() <= *most && attribute.ints.iter().all(|i| (*low..=*high).contains(i))
            }
            Check::Text(words) => words.iter().any(|word| word.as_bytes() == attribute.s),
            Check::Tensor => attribute.t.is_some(),
            Check::Graph => attribute.g.is_some(),
        }
    }

    /// What is allowed, for messages.
    fn allowed(&self) -> String {
        match self {
            Check::Int(low, high) => format!("an integer from {low} to {high}"),
            Check::Float(low, high) => format!("a number from {low} to {high}"),
            Check::Ints(most, low, high) => format!("at most {most} integers from {low} to {high}"),
            Check::Text(words) => format!("one of {}", words.join(", ")),
            Check::Tensor => "a tensor".into(),
            Check::Graph => "a subgraph".into(),
        }
    }

    /// The value found, for messages.
    fn found(&self, attribute: &AttributeProto) -> String {
        match self {
            Check::Int(..) => attribute.i.to_string(),
            Check::Float(..) => attribute.f.to_string(),
            Check::Ints(..) => format!("{:?}", attribute.ints.iter().take(12).collect::<Vec<_>>()),
            Check::Text(_) => format!("`{}`", String::from_utf8_lossy(&attribute.s)),
            Check::Tensor | Check::Graph => "nothing".into(),
        }
    }
}

/// Checks every attribute of a node by name, type and range; `place` names the node in messages.
pub(super) fn check(place: &str, node: &NodeProto, table: &[Attribute]) -> Result<()> {
    for (i, attribute) in node.attribute.iter().enumerate() {
        let name = &attribute.name;
        let Some(rule) = table.iter().find(|rule| rule.name == name) else {
            let names: Vec<_> = table.iter().map(|rule| rule.name).collect();
            let allowed = if names.is_empty() { "no attributes".into() } else { names.join(", ") };
            return Err(Error::refused(place, format!("attribute `{name}`"), allowed));
        };
        let refuse = |found: String| {
            Err(Error::refused(format!("{place}, attribute `{name}`"), found, rule.check.allowed()))
        };
        if node.attribute.iter().take(i).any(|earlier| earlier.name == *name) {
            return refuse("it twice".into());
        }
        if attribute.r#type != rule.check.attribute_type() as i32 || !attribute.ref_attr_name.is_empty() {
            return refuse(format!("attribute type {}", attribute.r#type));
        }
        let is_stray = attribute.g.is_some() && !matches!(rule.check, Check::Graph);
        if is_stray || !attribute.graphs.is_empty() {
            return refuse("a subgraph".into());
        }
        if !rule.check.holds(attribute) {
            return refuse(rule.check.found(attribute));
        }
    }
    Ok(())
}

/// The attribute of that name, if the node has it.
pub fn find<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// The tensor attribute of that name.
pub(super) fn tensor<'a>(node: &'a NodeProto, name: &str) -> Option<&'a TensorProto> {
    find(node, name)?.t.as_deref()
}

/// Whether the windows of a convolution that passed the gate, of this height and width, lie side by side: a product with
/// patches.
pub fn windows_touch(node: &NodeProto, sides: [usize; 2]) -> bool {
    let ints = |name: &str| find(node, name).map(|attribute| &attribute.ints[..]);
    ints("strides").is_some_and(|strides| strides == sides.map(|side| side as i64))
        && ints("pads").is_none_or(|pads| pads.iter().all(|&pad| pad == 0))
        && ints("dilations").is_none_or(|dilations| dilations.iter().all(|&step| step == 1))
        && find(node, "group").is_none_or(|group| group.i == 1)
}
