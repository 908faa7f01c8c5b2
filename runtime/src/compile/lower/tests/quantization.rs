//! Quantized graphs.

use super::*;
use crate::compile::step::Weight;

/// The tokens quantized and dequantized as `real`, levels from 0 to 255.
fn quantized() -> Graph {
    let mut graph = Graph::tokens();
    graph.floats("scale", &[], |_| 0.5);
    graph.constant("zero", DataType::Uint8, &[], vec![10]);
    graph.node("QuantizeLinear", &["tokens", "scale", "zero"], "levels", []);
    graph.node("DequantizeLinear", &["levels", "scale", "zero"], "real", []);
    graph
}

/// A weight of signed bytes, `m`, with a scale for each of its 3 outputs.
fn weight(graph: &mut Graph, zero: i8) {
    let values = (0..18).map(|i| (i - 9i8) as u8).collect();
    graph.constant("m.int8", DataType::Int8, &[6, 3], values);
    graph.floats("m.scale", &[3], |i| i as f32 + 1.0);
    graph.constant("m.zero", DataType::Int8, &[3], vec![zero as u8; 3]);
    graph.node("DequantizeLinear", &["m.int8", "m.scale", "m.zero"], "m", [int("axis", 1)]);
}

#[test]
fn a_layer_of_two_quantized_sides_multiplies_bytes() {
    let mut graph = quantized();
    weight(&mut graph, 0);
    graph.node("MatMul", &["real", "m"], "y", []);
    graph.node("MatMul", &["real", "m"], "z", []);
    graph.lowered("y z", |lowered| {
        // The bytes are made once.
        let kinds: Vec<_> = lowered.steps.iter().skip(2).map(Step::kind).collect();
        assert_eq!(kinds, ["quantize", "linear int8", "linear int8"]);
        let Some(Step::Linear { weight, .. }) = lowered.steps.last() else { panic!("no layer") };
        let Weight::Bytes(bytes, quantize) = &**weight else { panic!("no bytes") };
        assert_eq!((bytes.dims(), &bytes.scales[..]), (&[3, 6][..], &[1.0, 2.0, 3.0][..]));
        assert_eq!((quantize.scale(), quantize.zero()), (0.5, 10));
    });
}

#[test]
fn one_quantized_side_stays_in_floats() {
    let mut graph = Graph::tokens();
    weight(&mut graph, 0);
    graph.node("MatMul", &["tokens", "m"], "y", []);
    assert_eq!(graph.kinds("y"), ["linear f32"]);
    // Kernels want weights around 0.
    let mut graph = quantized();
    weight(&mut graph, 1);
    graph.node("MatMul", &["real", "m"], "y", []);
    assert_eq!(graph.kinds("y"), ["quantize", "linear f32"]);
}

#[test]
fn values_are_rounded_and_clipped_as_written() {
    let mut graph = quantized();
    graph.node("Identity", &["real"], "y", []);
    // Levels go from -5 to 122.5 in steps of a half: these numbers have one each.
    assert_eq!(graph.run("y"), TOKENS.concat());
    let mut graph = Graph::tokens();
    graph.floats("scale", &[], |_| 4.0);
    graph.constant("zero", DataType::Int8, &[], vec![124]);
    graph.node("QuantizeLinear", &["tokens", "scale", "zero"], "levels", []);
    graph.node("DequantizeLinear", &["levels", "scale", "zero"], "y", []);
    // To even where two are as near, and to 3 steps above the zero point at most.
    let want: Vec<f32> =
        TOKENS.concat().into_iter().map(|x| (4.0 * (x / 4.0).round_ties_even()).min(12.0)).collect();
    assert_eq!(graph.run("y"), want);
}

#[test]
fn scores_and_probabilities_may_be_quantized() {
    let mut graph = quantized();
    graph.node("Transpose", &["tokens"], "k", [ints("perm", &[0, 2, 1])]);
    graph.node("MatMul", &["tokens", "k"], "products", []);
    graph.node("QuantizeLinear", &["products", "scale", "zero"], "a", []);
    graph.node("DequantizeLinear", &["a", "scale", "zero"], "scores", []);
    graph.node("Softmax", &["scores"], "softmax", []);
    graph.node("QuantizeLinear", &["softmax", "scale", "zero"], "b", []);
    graph.node("DequantizeLinear", &["b", "scale", "zero"], "probabilities", []);
    graph.node("MatMul", &["probabilities", "tokens"], "y", []);
    graph.lowered("y", |lowered| {
        let Some(Step::Attention { maps, .. }) = lowered.steps.last() else { panic!("{:?}", lowered.steps) };
        assert!(maps.scores.is_some() && maps.probabilities.is_some());
    });
}

#[test]
fn a_second_quantization_is_one_of_the_first_ones_levels() {
    let mut graph = quantized();
    graph.node("QuantizeLinear", &["real", "scale", "zero"], "again", []);
    graph.node("DequantizeLinear", &["again", "scale", "zero"], "y", []);
    assert_eq!(graph.run("y"), TOKENS.concat());
}
