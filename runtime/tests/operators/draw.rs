//! Graphs under construction, by a seed.

use fastrand::Rng;
use smalti_models::onnx::attribute_proto::AttributeType;
use smalti_models::onnx::{AttributeProto, NodeProto, TensorProto};

/// Choices.
pub(super) struct Dice(pub(super) Rng);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0.usize(..sides)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    /// In [-1, 1).
    pub(super) fn float(&mut self) -> f32 {
        2.0 * self.0.f32() - 1.0
    }
}

/// A value of the graph: its name and shape.
pub(super) type Value = (String, Vec<i64>);

/// A graph under construction.
pub(super) struct Draw {
    pub(super) dice: Dice,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) constants: Vec<TensorProto>,
    /// Whether a window of a pooling lies beside its map.
    pub(super) beside: bool,
}

impl Draw {
    pub(super) fn constant(&mut self, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> String {
        let name = format!("c{}", self.constants.len());
        let tensor = TensorProto {
            name: name.clone(),
            dims: dims.to_vec(),
            data_type,
            raw_data: raw_data.into(),
            ..Default::default()
        };
        self.constants.push(tensor);
        name
    }

    pub(super) fn floats(&mut self, dims: &[i64], scale: f32) -> String {
        let count = dims.iter().product::<i64>();
        let bytes = (0..count).flat_map(|_| (self.dice.float() * scale).to_le_bytes()).collect();
        self.constant(1, dims, bytes)
    }

    pub(super) fn number(&mut self, value: f32) -> String {
        self.constant(1, &[], value.to_le_bytes().to_vec())
    }

    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(7, &[values.len() as i64], bytes)
    }

    pub(super) fn node(&mut self, op: &str, input: &[&str], attributes: &[(&str, &[i64])]) -> String {
        let attribute = attributes.iter().map(|&(name, values)| {
            let is_list = matches!(name, "perm" | "strides" | "axes" | "kernel_shape" | "dilations" | "pads");
            let kind = if is_list { AttributeType::Ints } else { AttributeType::Int };
            let (i, ints) = if is_list { (0, values.to_vec()) } else { (values[0], Vec::new()) };
            AttributeProto { name: name.into(), r#type: kind as i32, i, ints, ..Default::default() }
        });
        let output = format!("v{}", self.nodes.len());
        self.nodes.push(NodeProto {
            op_type: op.into(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attribute.collect(),
            ..Default::default()
        });
        output
    }

    pub(super) fn reshape(&mut self, x: &str, dims: &[i64]) -> String {
        let shape = self.ints(dims);
        self.node("Reshape", &[x, &shape], &[])
    }

    /// A quantization and its counterpart, now and then one of other parameters.
    pub(super) fn pair(&mut self, x: &str) -> String {
        // No multiples of each other: sums of levels would lie in the middle of others.
        let scale = self.dice.pick(&[0.0213, 0.0517, 0.0109, 0.0037]);
        let (kind, zero) = (self.dice.pick(&[2, 3]), self.dice.pick(&[0u8, 100, 128, 200]));
        let (scale, zero) = (self.number(scale), self.constant(kind, &[], vec![zero]));
        let levels = self.node("QuantizeLinear", &[x, &scale, &zero], &[]);
        let levels = if self.dice.roll(4) == 0 { self.node("Identity", &[&levels], &[]) } else { levels };
        let scale = if self.dice.roll(5) == 0 { self.number(0.0171) } else { scale };
        self.node("DequantizeLinear", &[&levels, &scale, &zero], &[])
    }

    pub(super) fn chain(&mut self, x: &str, steps: &[(&str, Option<f32>)]) -> String {
        steps.iter().fold(x.to_owned(), |x, (op, value)| match value {
            Some(value) => {
                let value = self.number(*value);
                self.node(op, &[&x, &value], &[])
            }
            None => self.node(op, &[&x], &[]),
        })
    }

    pub(super) fn gelu(&mut self, x: &str) -> String {
        let erf =
            self.chain(x, &[("Div", Some(std::f32::consts::SQRT_2)), ("Erf", None), ("Add", Some(1.0))]);
        let product = self.node("Mul", &[x, &erf], &[]);
        self.chain(&product, &[("Mul", Some(0.5))])
    }
}
