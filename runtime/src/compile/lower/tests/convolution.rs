//! Convolutions, pooling, and what is folded into them.

use smalti_kernels::Activation;

use super::*;
use crate::compile::merge::merge;

/// The image under a convolution of 3 x 3 with three channels, which lies as rows of pixels.
fn map() -> Graph {
    let mut graph = Graph::new();
    graph.floats("stem", &[3, 3, 3, 3], |i| (i % 5) as f32 - 2.0);
    graph.node("Conv", &["image", "stem"], "map", [ints("pads", &[1, 1, 1, 1])]);
    graph
}

/// The kinds of all steps once merged.
fn kinds(graph: Graph, outputs: &str) -> Vec<&'static str> {
    graph.lowered(outputs, |mut lowered| {
        merge(&mut lowered);
        lowered.steps.iter().map(Step::kind).collect()
    })
}

#[test]
fn a_convolution_reads_the_image_where_it_lies() {
    map().lowered("map", |lowered| {
        let Some(Step::Linear { conv: Some(conv), .. }) = lowered.steps.first() else {
            panic!("{:?}", lowered.steps)
        };
        assert!(conv.image.is_some());
        assert_eq!((conv.windows.padding, conv.windows.count(), conv.channels), ([1, 1], 16, 3));
    });
    // The corner: the four pixels of each channel within the image, with weights of the order channel, row, column.
    let weight = |output: usize, i: usize| ((output * 27 + i) % 5) as f32 - 2.0;
    let taps = [(0, 4), (1, 5), (4, 7), (5, 8)];
    let corner: f32 =
        (0..3).flat_map(|c| taps.map(|(pixel, tap)| (pixel + 16 * c) as f32 * weight(1, 9 * c + tap))).sum();
    assert_eq!(map().run("map")[16], corner, "outputs are in the order of the graph");
}

#[test]
fn an_activation_of_a_sum_and_a_batch_norm_take_no_steps() {
    let mut graph = map();
    for name in ["scale", "shift", "mean", "variance"] {
        graph.floats(name, &[3], |i| i as f32 + 1.0);
    }
    graph.floats("w", &[3, 3, 3, 3], |i| (i % 7) as f32);
    graph.node("Conv", &["map", "w"], "product", [ints("pads", &[1, 1, 1, 1])]);
    graph.node("BatchNormalization", &["product", "scale", "shift", "mean", "variance"], "norm", []);
    graph.node("Add", &["map", "norm"], "sum", []);
    graph.node("Relu", &["sum"], "y", []);
    graph.node("GlobalAveragePool", &["y"], "mean_of_y", []);
    graph.lowered("mean_of_y", |mut lowered| {
        merge(&mut lowered);
        let [_, Step::Linear { activation, activate_sum, residual, .. }, Step::Mean { .. }] =
            &lowered.steps[..]
        else {
            panic!("{:?}", lowered.steps)
        };
        assert_eq!((*activation, *activate_sum, residual.is_some()), (Activation::RELU, true, true));
    });
}

#[test]
fn padding_goes_into_a_convolution_and_nowhere_else() {
    let padded = |pads: &[i64]| {
        let mut graph = map();
        graph.ints("pads", &[8], pads);
        graph.node("Pad", &["map", "pads"], "padded", []);
        graph
    };
    let mut graph = padded(&[0, 0, 0, 1, 0, 0, 2, 3]);
    graph.floats("w", &[3, 1, 3, 3], |i| i as f32);
    graph.node("Conv", &["padded", "w"], "y", [int("group", 3), ints("pads", &[1, 0, 0, 0])]);
    graph.lowered("y", |lowered| {
        let Some(Step::Linear { conv: Some(conv), .. }) = lowered.steps.get(1) else { panic!("no layer") };
        assert_eq!((conv.windows.padding, conv.windows.input, conv.windows.output), ([1, 1], [4, 4], [5, 6]));
        assert_eq!((conv.groups, conv.channels), (3, 1));
    });
    let mut graph = padded(&[0, 0, 1, 1, 0, 0, 1, 1]);
    graph.node("Relu", &["padded"], "y", []);
    assert!(graph.refusal("y").contains("a padding that no convolution follows"));
    assert!(padded(&[0, 1, 0, 0, 0, 0, 0, 0]).refusal("padded").contains("other axes"));
}

#[test]
fn a_convolution_of_pixels_is_a_linear_layer_of_the_map() {
    let mut graph = map();
    graph.floats("w", &[5, 3, 1, 1], |i| i as f32);
    graph.node("Conv", &["map", "w"], "y", []);
    graph.node("MaxPool", &["y"], "z", [ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]);
    assert_eq!(kinds(graph, "z")[..3], ["convolution f32", "linear f32", "max pool"]);
}

#[test]
fn maps_are_added_and_scaled_where_they_lie() {
    let mut graph = map();
    graph.floats("c", &[1, 3, 1, 1], |i| i as f32 + 1.0);
    graph.node("MaxPool", &["map"], "pool", [ints("kernel_shape", &[1, 1])]);
    graph.node("Div", &["pool", "c"], "scaled", []);
    graph.node("Add", &["scaled", "pool"], "sum", []);
    graph.node("GlobalAveragePool", &["sum"], "y", []);
    assert_eq!(kinds(graph, "y"), ["convolution f32", "max pool", "add", "add", "mean"]);
}

/// A map and one value for each of its channels, made of the map by a convolution of `[3, 3, 1, 1]`.
fn squeezed() -> Graph {
    let mut graph = map();
    graph.floats("w", &[3, 3, 1, 1], |i| (i % 4) as f32 * 1e-3);
    graph.node("GlobalAveragePool", &["map"], "means", []);
    graph.node("Conv", &["means", "w"], "scores", []);
    graph
}

#[test]
fn a_map_is_scaled_by_a_value_for_each_channel() {
    let graph = |sides: [&str; 2]| {
        let mut graph = squeezed();
        graph.node("HardSigmoid", &["scores"], "scales", [float("alpha", 1.0 / 6.0)]);
        graph.node("Mul", &sides, "scaled", []);
        graph
    };
    let [map_values, scores] =
        [map().run("map"), squeezed().run("scores")].map(|values| values.into_iter().map(f64::from));
    let scales: Vec<f64> = scores.map(|score| (score / 6.0 + 0.5).clamp(0.0, 1.0)).collect();
    let want: Vec<f64> = map_values.enumerate().map(|(i, value)| value * scales[i / 16]).collect();
    for sides in [["map", "scales"], ["scales", "map"]] {
        let kinds = kinds(graph(sides), "scaled");
        assert_eq!(kinds, ["convolution f32", "mean", "linear f32", "multiply", "copy"], "{sides:?}");
        let found = graph(sides).run("scaled");
        let close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-5 * b.abs().max(1.0);
        assert!(found.len() == want.len() && found.iter().zip(&want).all(close), "{found:?} {want:?}");
    }
}

#[test]
fn values_for_another_axis_than_the_channels_are_repeated() {
    let kinds = |order: [i64; 4]| {
        let mut graph = squeezed();
        graph.node("Transpose", &["scores"], "turned", [ints("perm", &order)]);
        graph.node("MaxPool", &["map"], "part", [ints("kernel_shape", &[2, 2])]);
        graph.node("Mul", &["part", "turned"], "y", []);
        graph.lowered("y", |lowered| lowered.steps.iter().map(Step::kind).collect::<Vec<_>>())
    };
    // The part of the map is 3 x 3 x 3, so that all of these broadcast.
    let along = ["copy", "multiply", "copy"];
    for (order, want) in
        [([0, 2, 1, 3], along), ([0, 2, 3, 1], along), ([1, 0, 2, 3], ["copy", "copy", "multiply"])]
    {
        assert_eq!(kinds(order)[4..], want, "{order:?}");
    }
}
