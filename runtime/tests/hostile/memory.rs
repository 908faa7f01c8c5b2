//! Small files that ask for gigabytes or minutes: refused, or answered, within little of either.

use std::time::{Duration, Instant};

use prost::Message;
use smalti_models::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
};
use smalti_runtime::Model;

use super::{answer, keep, proto};

/// Bytes that opening a small file and running it may take.
const BYTES: u64 = 64 << 20;
/// On a busy machine.
const TIME: Duration = Duration::from_secs(8);

/// A graph in front of a small model's logits.
struct Attack {
    graph: GraphProto,
}

impl Attack {
    fn new() -> Attack {
        let model = proto("torch_vit.onnx");
        Attack { graph: model.graph.unwrap() }
    }

    fn tensor(&mut self, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> String {
        let name = format!("attack.c{}", self.graph.initializer.len());
        let tensor = TensorProto {
            name: name.clone(),
            dims: dims.to_vec(),
            data_type,
            raw_data: raw_data.into(),
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        name
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(7, &[values.len() as i64], bytes)
    }

    fn floats(&mut self, dims: &[i64]) -> String {
        let count = dims.iter().product::<i64>();
        let bytes = (0..count).flat_map(|i| (i as f32 * 1e-3).to_le_bytes()).collect();
        self.tensor(1, dims, bytes)
    }

    fn node(&mut self, op: &str, input: &[&str], axis: Option<i64>) -> String {
        let output = format!("attack.v{}", self.graph.node.len());
        let kind = AttributeType::Int as i32;
        let attribute =
            axis.map(|i| AttributeProto { name: "axis".into(), r#type: kind, i, ..Default::default() });
        self.graph.node.push(NodeProto {
            op_type: op.into(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attribute.into_iter().collect(),
            ..Default::default()
        });
        output
    }

    /// A node with lists of integers.
    fn windows(&mut self, op: &str, input: &[&str], lists: &[(&str, &[i64])]) -> String {
        let output = self.node(op, input, None);
        let attribute = lists.iter().map(|&(name, ints)| {
            let (kind, i, ints) = match name {
                "group" => (AttributeType::Int, ints[0], Vec::new()),
                _ => (AttributeType::Ints, 0, ints.to_vec()),
            };
            AttributeProto { name: name.into(), r#type: kind as i32, i, ints, ..Default::default() }
        });
        self.graph.node.last_mut().unwrap().attribute = attribute.collect();
        output
    }

    fn image(&self) -> String {
        self.graph.input[0].name.clone()
    }

    fn expand(&mut self, x: &str, dims: &[i64]) -> String {
        let shape = self.ints(dims);
        self.node("Expand", &[x, &shape], None)
    }

    /// The last row of a matrix, as a number.
    fn corner(&mut self, x: &str, rank: i64) -> String {
        let axes: Vec<i64> = (0..rank).collect();
        let [starts, ends, axes] =
            [vec![0; rank as usize], vec![1; rank as usize], axes].map(|list| self.ints(&list));
        let corner = self.node("Slice", &[x, &starts, &ends, &axes], None);
        let shape = self.ints(&[1, 1]);
        self.node("Reshape", &[&corner, &shape], None)
    }

    /// The file; `number` is added to the logits.
    fn file(mut self, number: &str) -> Vec<u8> {
        let logits = self.graph.output[0].name.clone();
        let sum = self.node("Add", &[&logits, number], None);
        self.graph.output[0].name = sum;
        let model = proto("torch_vit.onnx");
        ModelProto { graph: Some(self.graph), ..model }.encode_to_vec()
    }
}

/// Opens and runs; fails where that takes too much.
fn endure(name: &str, bytes: &[u8]) {
    keep(name, bytes);
    let start = Instant::now();
    let mut ended = None;
    let used = allocation_counter::measure(|| {
        ended = Some(Model::from_bytes(bytes).and_then(|model| answer(&model, 0.0)).map(drop));
    });
    let (ended, time) = (ended.unwrap(), start.elapsed());
    let what = format!("{name} ({} bytes): {ended:?}, {} bytes, {time:?}", bytes.len(), used.bytes_max);
    assert!(ended.as_ref().err().is_none_or(|error| error.exit_code() == 3), "{what}");
    assert!(used.bytes_max < BYTES && time < TIME, "{what}");
    println!("{what}");
}

#[test]
fn constants_are_not_made_larger_than_the_file_allows() {
    for size in [1 << 12, 1 << 18, 1 << 20, 1 << 22] {
        let mut a = Attack::new();
        let one = a.floats(&[1]);
        let mut sum = a.expand(&one, &[16, size]);
        for _ in 0..3 {
            let more = a.expand(&one, &[16, size]);
            sum = a.node("Add", &[&sum, &more], None);
        }
        let number = a.corner(&sum, 2);
        endure(&format!("four expansions to 16 x {size}"), &a.file(&number));

        let mut a = Attack::new();
        let shape = a.ints(&[size, 16]);
        let zeros = a.node("ConstantOfShape", &[&shape], None);
        let number = a.corner(&zeros, 2);
        endure(&format!("zeros of {size} x 16"), &a.file(&number));

        let mut a = Attack::new();
        let (column, row) = (a.floats(&[1 << 10, 1]), a.floats(&[1, 1 << 10]));
        let outer = a.node("MatMul", &[&column, &row], None);
        let wide = a.expand(&outer, &[size >> 10, 1 << 10, 1 << 10]);
        let number = a.corner(&wide, 3);
        endure(&format!("an outer product {} times", size >> 10), &a.file(&number));

        let mut a = Attack::new();
        let bytes = a.tensor(2, &[1], vec![7]);
        let bytes = a.expand(&bytes, &[size, 64]);
        let scale = a.tensor(1, &[], 0.5f32.to_le_bytes().to_vec());
        let real = a.node("DequantizeLinear", &[&bytes, &scale], None);
        let number = a.corner(&real, 2);
        endure(&format!("dequantized bytes, {size} x 64"), &a.file(&number));
    }
}

#[test]
fn doubling_is_bounded() {
    for rounds in [8, 16, 24, 40] {
        let mut a = Attack::new();
        let mut x = a.floats(&[4, 4]);
        for _ in 0..rounds {
            x = a.node("Concat", &[&x, &x], Some(0));
        }
        let number = a.corner(&x, 2);
        endure(&format!("{rounds} doublings"), &a.file(&number));

        // Of integers, which shape arithmetic keeps.
        let mut a = Attack::new();
        let mut x = a.ints(&[1, 1, 1, 1]);
        for _ in 0..rounds {
            x = a.node("Concat", &[&*x; 200], Some(0));
        }
        let float = a.graph.node.len();
        let x = a.node("Cast", &[&x], None);
        a.graph.node[float].attribute = vec![AttributeProto {
            name: "to".into(),
            r#type: AttributeType::Int as i32,
            i: 1,
            ..Default::default()
        }];
        let number = a.corner(&x, 1);
        endure(&format!("{rounds} times 200 integers"), &a.file(&number));
    }
}

#[test]
fn picking_the_same_again_is_bounded() {
    for (rows, rounds) in [(1 << 10, 2), (1 << 10, 6), (1 << 12, 3)] {
        let mut a = Attack::new();
        let (mut x, index) = (a.floats(&[1, 8]), a.ints(&vec![0; rows]));
        for _ in 0..rounds {
            x = a.node("Gather", &[&x, &index], Some(0));
            let shape = a.ints(&[1, -1]);
            x = a.node("Reshape", &[&x, &shape], None);
        }
        let number = a.corner(&x, 2);
        endure(&format!("{rounds} times {rows} rows"), &a.file(&number));
    }
}

#[test]
fn constant_products_are_bounded() {
    for side in [256, 1024, 2048] {
        let mut a = Attack::new();
        let one = a.floats(&[1]);
        let x = a.expand(&one, &[side, side]);
        let mut product = x.clone();
        for _ in 0..20 {
            product = a.node("MatMul", &[&product, &x], None);
        }
        let number = a.corner(&product, 2);
        endure(&format!("20 products of {side} x {side}"), &a.file(&number));
    }
}

#[test]
fn what_depends_on_the_image_is_bounded_too() {
    let logits = || proto("torch_vit.onnx").graph.unwrap().output[0].name.clone();
    for size in [1 << 10, 1 << 16, 1 << 20, 1 << 23] {
        // In the engine, which knows no exponentials of ours.
        let mut a = Attack::new();
        let wide = a.expand(&logits(), &[size, 3]);
        let wide = a.node("Exp", &[&wide], None);
        let number = a.corner(&wide, 2);
        endure(&format!("logits {size} times, exponentials"), &a.file(&number));

        // On our own kernels: copies, and constants as large.
        let mut a = Attack::new();
        let one = a.floats(&[1]);
        let mut wide = a.expand(&logits(), &[size, 3]);
        let large = a.expand(&one, &[size, 3]);
        for _ in 0..8 {
            wide = a.node("Add", &[&wide, &large], None);
        }
        let number = a.corner(&wide, 2);
        endure(&format!("logits {size} times, and constants"), &a.file(&number));

        let mut a = Attack::new();
        let (index, weight) = (a.ints(&vec![0; 1 << 10]), a.floats(&[3, 1]));
        let mut wide = logits();
        for _ in 0..(size as u64).ilog2() / 10 {
            wide = a.node("Gather", &[&wide, &index], Some(0));
            let shape = a.ints(&[-1, 3]);
            wide = a.node("Reshape", &[&wide, &shape], None);
        }
        let product = a.node("MatMul", &[&wide, &weight], None);
        let number = a.corner(&product, 2);
        endure(&format!("logits {size} times by indices"), &a.file(&number));
    }
}

#[test]
fn the_work_of_a_small_file_is_bounded() {
    let logits = || proto("torch_vit.onnx").graph.unwrap().output[0].name.clone();
    for side in [512, 1024, 2500] {
        let mut a = Attack::new();
        let column = a.expand(&logits(), &[side, 3]);
        let one = a.floats(&[3, 1]);
        let row = a.expand(&one, &[3, side]);
        let mut x = a.node("MatMul", &[&column, &row], None);
        for _ in 0..20 {
            x = a.node("MatMul", &[&x, &x], None);
            x = a.node("Tanh", &[&x], None);
        }
        let number = a.corner(&x, 2);
        endure(&format!("20 products of computed {side} x {side}"), &a.file(&number));
    }
}

#[test]
fn windows_are_bounded() {
    for size in [16, 256, 1024, 4096] {
        let pads = [size; 4];
        let image = Attack::new().image();
        let convolution = |name: &str, weight: &[i64], groups: [i64; 1], more: &[(&str, &[i64])]| {
            let mut a = Attack::new();
            let weight = a.floats(weight);
            let lists: Vec<(&str, &[i64])> = more.iter().copied().chain([("group", &groups[..])]).collect();
            let map = a.windows("Conv", &[&image, &weight], &lists);
            let number = a.corner(&map, 4);
            endure(&format!("{name} {size}"), &a.file(&number));
        };
        convolution("a convolution within", &[8, 3, 3, 3], [1], &[("pads", &pads)]);
        convolution("a depthwise convolution within", &[96, 1, 3, 3], [3], &[("pads", &pads)]);
        convolution(
            "a convolution dilated by",
            &[64, 3, 3, 3],
            [1],
            &[("pads", &pads), ("dilations", &[size; 2])],
        );
        convolution(
            "a convolution with strides of",
            &[8, 3, 3, 3],
            [1],
            &[("pads", &pads), ("strides", &[size; 2])],
        );
        convolution("a long convolution within", &[4, 3, 1, 64], [1], &[("pads", &[0, size, 0, size])]);

        // A window as large as the map, whose weight is a constant that the file does not store.
        let mut a = Attack::new();
        let shape = a.ints(&[1, 3, size, size]);
        let weight = a.node("ConstantOfShape", &[&shape], None);
        let map = a.windows("Conv", &[&image, &weight], &[("pads", &pads)]);
        let number = a.corner(&map, 4);
        endure(&format!("a window of zeros, {size} wide"), &a.file(&number));

        let mut a = Attack::new();
        let lists: [(&str, &[i64]); 2] = [("kernel_shape", &[size; 2]), ("pads", &[size - 1; 4])];
        let map = a.windows("MaxPool", &[&image], &lists);
        let number = a.corner(&map, 4);
        endure(&format!("a pooling over windows of {size}"), &a.file(&number));

        let mut a = Attack::new();
        let pads = a.ints(&[0, 0, size, size, 0, 0, size, size]);
        let map = a.node("Pad", &[&image, &pads], None);
        let weight = a.floats(&[8, 3, 3, 3]);
        let map = a.windows("Conv", &[&map, &weight], &[]);
        let number = a.corner(&map, 4);
        endure(&format!("an image within zeros of {size}"), &a.file(&number));

        // Each layer a little larger than the one before.
        let mut a = Attack::new();
        let mut map = image.clone();
        for _ in 0..12 {
            let weight = a.floats(&[3, 1, 3, 3]);
            map = a.windows("Conv", &[&map, &weight], &[("pads", &[size / 4; 4]), ("group", &[3])]);
        }
        let number = a.corner(&map, 4);
        endure(&format!("12 convolutions within {}", size / 4), &a.file(&number));
    }
}
