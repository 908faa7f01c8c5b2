//! Graphs that are drawn by a seed: where our own kernels run one, tract gives the same answers.

use prost::Message;
use smalti_models::onnx::tensor_shape_proto::{Dimension, dimension};
use smalti_models::onnx::{
    GraphProto, ModelProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use smalti_runtime::Model;

use super::draw::{Dice, Draw, Value};
use super::{answers, distance};

impl Draw {
    /// A weight of floats or of bytes.
    fn weight(&mut self, dims: [i64; 2]) -> String {
        if self.dice.roll(2) == 0 {
            return self.floats(&dims, 0.5);
        }
        let bytes = (0..dims[0] * dims[1]).map(|_| (self.dice.roll(255) as i32 - 127) as i8 as u8).collect();
        let (weight, axis) = (self.constant(3, &dims, bytes), self.dice.roll(3));
        let (scale, attributes): (_, &[(&str, &[i64])]) = match axis {
            0 => (vec![0.004], &[]),
            axis => {
                let scales = (0..dims[axis - 1]).map(|_| 0.003 + 0.002 * self.dice.float().abs()).collect();
                (scales, if axis == 1 { &[("axis", &[0])] } else { &[("axis", &[1])] })
            }
        };
        let shape: &[i64] = if axis == 0 { &[] } else { &[scale.len() as i64] };
        let scale =
            self.constant(1, shape, scale.iter().flat_map(|scale: &f32| scale.to_le_bytes()).collect());
        self.node("DequantizeLinear", &[&weight, &scale], attributes)
    }

    fn attention(&mut self, x: &str, tokens: i64) -> String {
        let mut side = |perm: &[i64]| {
            let weight = self.floats(&[8, 8], 0.5);
            let mut y = self.node("MatMul", &[x, &weight], &[]);
            if self.dice.roll(3) == 0 {
                y = self.pair(&y);
            }
            let heads = self.reshape(&y, &[1, tokens, 2, 4]);
            self.node("Transpose", &[&heads], &[("perm", perm)])
        };
        let [q, k, v] = [side(&[0, 2, 1, 3]), side(&[0, 2, 3, 1]), side(&[0, 2, 1, 3])];
        let mut scores = self.node("MatMul", &[&q, &k], &[]);
        if self.dice.roll(2) == 0 {
            scores = self.chain(&scores, &[("Mul", Some(0.5))]);
        }
        if self.dice.roll(3) == 0 {
            scores = self.pair(&scores);
        }
        let mut weights = self.node("Softmax", &[&scores], &[("axis", &[-1])]);
        if self.dice.roll(3) == 0 {
            weights = self.pair(&weights);
        }
        let mixed = self.node("MatMul", &[&weights, &v], &[]);
        let back = self.node("Transpose", &[&mixed], &[("perm", &[0, 2, 1, 3])]);
        self.reshape(&back, &[1, tokens, 8])
    }

    /// One more value, made of `x`, which has tokens of some width.
    fn step(&mut self, (x, dims): &Value, other: &Value) -> Value {
        let &[_, tokens, width] = &dims[..] else { return (x.clone(), dims.clone()) };
        let same = |name: String| (name, dims.clone());
        match self.dice.roll(14) {
            0 | 1 => same(self.pair(x)),
            2 => {
                let out = self.dice.pick(&[8, 8, 6]);
                let (x, weight) = (
                    if self.dice.roll(2) == 0 { self.pair(x) } else { x.clone() },
                    self.weight([width, out]),
                );
                (self.node("MatMul", &[&x, &weight], &[]), vec![1, tokens, out])
            }
            3 => {
                let shapes = [vec![8], vec![1, 8], vec![tokens, 1], vec![tokens, 8], vec![1]];
                let shape = &shapes[self.dice.roll(5)];
                let c = self.floats(shape, 1.0);
                let (rows, weight) = (self.reshape(x, &[tokens, width]), self.weight([8, width]));
                let y = self.node("Gemm", &[&rows, &weight, &c], &[("transB", &[1])]);
                (self.reshape(&y, &[1, tokens, 8]), vec![1, tokens, 8])
            }
            4 => same(self.gelu(x)),
            5 => {
                let (value, op) = (0.3 + self.dice.float().abs(), self.dice.pick(&["Mul", "Div"]));
                same(self.chain(x, &[(op, Some(value))]))
            }
            6 => {
                let steps = self.dice.pick(&[
                    &[("Neg", None)][..],
                    &[("Relu", None)],
                    &[("Add", Some(2.0)), ("Relu", None)],
                ]);
                let x = self.pair(x);
                same(self.chain(&x, steps))
            }
            7 => {
                let row = self.floats(&[width], 1.0);
                let op = self.dice.pick(&["Add", "Mul"]);
                same(self.node(op, &[x, &row], &[]))
            }
            8 => {
                let (scale, shift) = (self.floats(&[width], 1.0), self.floats(&[width], 1.0));
                same(self.node("LayerNormalization", &[x, &scale, &shift], &[("axis", &[-1])]))
            }
            9 if other.1 == *dims => same(self.node("Add", &[x, &other.0], &[])),
            10 if width == 8 => same(self.attention(x, tokens)),
            11 => {
                let index: Vec<i64> = (0..3).map(|_| self.dice.roll(tokens as usize) as i64).collect();
                let index = self.ints(&index);
                (self.node("Gather", &[x, &index], &[("axis", &[1])]), vec![1, 3, width])
            }
            12 => {
                let turned = self.node("Transpose", &[x], &[("perm", &[0, 2, 1])]);
                same(self.reshape(&turned, dims))
            }
            13 => {
                let token = self.floats(&[1, 1, width], 1.0);
                (self.node("Concat", &[&token, x], &[("axis", &[1])]), vec![1, tokens + 1, width])
            }
            _ => same(self.node("Softmax", &[x], &[("axis", &[-1])])),
        }
    }
}

fn port(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&dim: &i64| Dimension { value: Some(dimension::Value::DimValue(dim)), ..Default::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: 1, shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

/// Patches, or maps on even seeds, as tokens; then steps of transformers; then a mean and a layer.
pub(super) fn graph(seed: u64) -> ModelProto {
    drawn(seed).0
}

/// The graph, and whether a window of a pooling lies beside its map.
fn drawn(seed: u64) -> (ModelProto, bool) {
    let mut draw = Draw {
        dice: Dice(fastrand::Rng::with_seed(seed)),
        nodes: Vec::new(),
        constants: Vec::new(),
        beside: false,
    };
    let (side, map, count) = if seed.is_multiple_of(2) {
        let side = draw.dice.pick(&[8, 13]);
        let (map, dims) = draw.map("image", [side; 2]);
        (side, map, dims[2] * dims[3])
    } else {
        let (kernel, bias) = (draw.floats(&[8, 3, 4, 4], 0.3), draw.floats(&[8], 1.0));
        (8, draw.node("Conv", &["image", &kernel, &bias], &[("strides", &[4, 4])]), 4)
    };
    let rows = draw.reshape(&map, &[1, 8, count]);
    let tokens = draw.node("Transpose", &[&rows], &[("perm", &[0, 2, 1])]);
    let mut values: Vec<Value> = vec![(tokens, vec![1, count, 8])];
    for _ in 0..1 + draw.dice.roll(7) {
        let last = values.len();
        let (x, other) = (last - 1 - draw.dice.roll(last.min(2)), draw.dice.roll(last));
        let (x, other) = (values[x].clone(), values[other].clone());
        let next = draw.step(&x, &other);
        values.push(next);
    }
    let (x, dims) = values.pop().unwrap();
    let mean = draw.node("ReduceMean", &[&x], &[("axes", &[1]), ("keepdims", &[0])]);
    let (weight, bias) = (draw.weight([dims[2], 5]), draw.floats(&[5], 1.0));
    let logits = draw.node("Gemm", &[&mean, &weight, &bias], &[]);
    let graph = GraphProto {
        name: "drawn".into(),
        node: draw.nodes,
        initializer: draw.constants,
        input: vec![port("image", &[1, 3, side, side])],
        output: vec![port(&logits, &[1, 5])],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    let model =
        ModelProto { ir_version: 9, opset_import: vec![opset], graph: Some(graph), ..Default::default() };
    (model, draw.beside)
}

/// The largest step of a quantization: a sum in another order may move a value by one.
fn step(model: &ModelProto) -> f32 {
    let graph = model.graph.as_ref().unwrap();
    let scales = graph.node.iter().filter(|node| node.op_type == "QuantizeLinear").map(|node| &node.input[1]);
    let tensors = scales.filter_map(|name| graph.initializer.iter().find(|tensor| tensor.name == *name));
    let bytes = tensors.filter_map(|tensor| tensor.raw_data.first_chunk());
    bytes.map(|bytes| f32::from_le_bytes(*bytes)).fold(0.0, f32::max)
}

/// Seeds of graphs that our own kernels run.
#[derive(Default)]
struct Ran {
    ours: usize,
    /// Those whose answers differ by more than floats do: a sum in another order moves a value by one level.
    moved: usize,
    wrong: Vec<String>,
}

/// Runs drawn graphs on both backends.
fn run(seeds: std::ops::Range<u64>) -> Ran {
    let mut ran = Ran::default();
    for seed in seeds {
        let proto = graph(seed);
        let bytes = proto.encode_to_vec();
        let model = Model::from_bytes(&bytes).unwrap_or_else(|error| panic!("{seed}: {error}"));
        if model.fallback_reason().is_some() {
            continue;
        }
        let engine = match Model::from_bytes_on_tract(&bytes) {
            Err(error) if error.exit_code() == 3 => continue,
            engine => engine.unwrap_or_else(|error| panic!("{seed}: {error}")),
        };
        ran.ours += 1;
        let patterns = [seed, seed + 1];
        let (a, b) = match [&model, &engine].map(|model| answers(model, &patterns)) {
            [Ok(a), Ok(b)] => (a, b),
            // Numbers without end, on both.
            [Err(a), Err(b)] if a.exit_code() == b.exit_code() => continue,
            found => {
                ran.wrong.push(format!("{seed}: {found:?}"));
                continue;
            }
        };
        let far = a.iter().zip(&b).map(|(a, b)| distance(a, b)).fold(0.0, f32::max);
        ran.moved += usize::from(far > 1e-4);
        if far > 1e-4 + 2.0 * step(&proto) {
            ran.wrong.push(format!("{seed}: off by {far}: {a:?} for {b:?}"));
        }
    }
    ran
}

#[test]
fn drawn_graphs_give_the_same_on_both_backends() {
    let Ran { ours, moved, wrong } = run(0..400);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ours > 200, "{ours} ran on our kernels");
    assert!(moved <= ours / 50, "{moved} of {ours} differ by more than floats do");
    let beside = (0..100_000).filter(|seed| drawn(*seed).1).take(20);
    let ran: Vec<Ran> = beside.map(|seed| run(seed..seed + 1)).collect();
    let wrong: Vec<&String> = ran.iter().flat_map(|ran| &ran.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let ours: usize = ran.iter().map(|ran| ran.ours).sum();
    assert!(ours > 5, "{ours} whose pooling has a window beside its map ran on our kernels");
}

#[test]
#[ignore = "minutes; SMALTI_GRAPHS=20000 cargo test --release -p smalti-runtime --test operators -- --ignored"]
fn many_drawn_graphs_give_the_same_on_both_backends() {
    let count = std::env::var("SMALTI_GRAPHS").map_or(20_000, |count| count.parse().unwrap());
    let Ran { ours, moved, wrong } = run(0..count);
    println!("{ours} of {count} graphs ran on our kernels, {moved} of them moved by levels");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
