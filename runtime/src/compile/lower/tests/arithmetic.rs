//! Sums, factors and functions of single values.

use smalti_kernels::Activation;

use super::*;
use crate::compile::step::Pointwise;

/// A layer of the value `x`, which then has to be there.
fn used(graph: &mut Graph, x: &str) {
    graph.floats("m", &[6, 3], |i| i as f32);
    graph.node("MatMul", &[x, "m"], "y", []);
}

#[test]
fn constants_of_a_row_or_of_all_values_are_added() {
    for dims in [&[6][..], &[4, 6], &[1, 4, 6]] {
        let mut graph = Graph::tokens();
        graph.floats("c", dims, |i| i as f32);
        graph.node("Add", &["c", "tokens"], "y", []);
        let want = TOKENS.concat().into_iter().enumerate();
        let len = dims.iter().product::<i64>() as usize;
        let want: Vec<f32> = want.map(|(i, x)| x + (i % len) as f32).collect();
        assert_eq!(graph.run("y"), want, "{dims:?}");
    }
}

#[test]
fn a_factor_waits_until_its_product_is_needed() {
    let scaled = || {
        let mut graph = Graph::tokens();
        graph.floats("two", &[], |_| 2.0);
        graph.node("Mul", &["tokens", "two"], "double", []);
        graph.node("Div", &["double", "two"], "same", []);
        graph
    };
    let mut graph = scaled();
    used(&mut graph, "double");
    graph.lowered("y", |lowered| {
        let scale = &lowered.steps[2];
        assert!(matches!(scale, Step::Pointwise { function: Pointwise::Scale(2.0), .. }), "{scale:?}");
    });
    // What cancels out is no step.
    let mut graph = scaled();
    used(&mut graph, "same");
    assert_eq!(graph.kinds("y"), ["linear f32"]);
}

#[test]
fn gelu_is_known_whatever_the_order_of_its_nodes() {
    for order in [["half", "x", "sum"], ["x", "sum", "half"], ["sum", "half", "x"]] {
        let mut graph = Graph::tokens();
        graph.floats("root", &[], |_| std::f32::consts::SQRT_2);
        graph.floats("one", &[], |_| 1.0);
        graph.floats("half", &[], |_| 0.5);
        graph.node("Identity", &["tokens"], "x", []);
        graph.node("Div", &["x", "root"], "quotient", []);
        graph.node("Erf", &["quotient"], "erf", []);
        graph.node("Add", &["erf", "one"], "sum", []);
        graph.node("Mul", &order[..2], "part", []);
        graph.node("Mul", &["part", order[2]], "gelu", []);
        used(&mut graph, "gelu");
        graph.lowered("y", |lowered| {
            let step = &lowered.steps[2];
            let Step::Pointwise { function: Pointwise::Activation(found), .. } = step else {
                panic!("{order:?}: {step:?}")
            };
            assert_eq!(*found, Activation::Gelu, "{order:?}");
        });
    }
}

#[test]
fn channels_of_the_image_are_normalised_one_by_one() {
    let mut graph = Graph::new();
    graph.floats("factors", &[1, 3, 1, 1], |i| (i + 1) as f32);
    graph.floats("offsets", &[1, 3, 1, 1], |i| 1.0 - i as f32);
    graph.node("Mul", &["image", "factors"], "scaled", []);
    graph.node("Add", &["scaled", "offsets"], "normalised", []);
    graph.node("GlobalAveragePool", &["normalised"], "means", []);
    // The image counts from 0: its channels' means are 7.5, 23.5 and 39.5.
    assert_eq!(graph.run("means"), [8.5, 47.0, 117.5]);
}

#[test]
fn a_gate_is_two_layers_and_their_product() {
    let graph = || {
        let mut graph = Graph::tokens();
        graph.floats("a", &[6, 6], |i| (i % 5) as f32 - 2.0);
        graph.floats("b", &[6, 6], |i| (i % 7) as f32 - 3.0);
        graph.node("MatMul", &["tokens", "a"], "gate", []);
        graph.node("MatMul", &["tokens", "b"], "value", []);
        graph.node("Sigmoid", &["gate"], "share", []);
        graph.node("Mul", &["gate", "share"], "silu", []);
        graph.node("Mul", &["silu", "value"], "y", []);
        graph
    };
    let row = |weight: &dyn Fn(usize) -> f32, token: &[f32]| -> Vec<f32> {
        (0..6).map(|j| (0..6).map(|i| token[i] * weight(i * 6 + j)).sum()).collect()
    };
    let want: Vec<f32> = TOKENS
        .iter()
        .flat_map(|token| {
            let gate = row(&|i| (i % 5) as f32 - 2.0, &token[..]);
            let value = row(&|i| (i % 7) as f32 - 3.0, &token[..]);
            gate.iter().zip(&value).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect::<Vec<f32>>()
        })
        .collect();
    let found = graph().run("y");
    assert!(
        found.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)),
        "{found:?} {want:?}"
    );
    assert_eq!(graph().kinds("y"), ["linear f32", "linear f32", "pointwise", "multiply"]);
}

#[test]
fn functions_without_kernels_and_other_pairs_are_refused() {
    let mut graph = Graph::tokens();
    graph.node("Mul", &["tokens", "tokens"], "square", []);
    used(&mut graph, "square");
    assert!(graph.refusal("y").contains("no kernel for"));
    let mut graph = Graph::tokens();
    graph.floats("square", &[6, 6], |i| i as f32);
    graph.node("MatMul", &["tokens", "square"], "other", []);
    graph.node("Div", &["tokens", "other"], "y", []);
    assert!(graph.refusal("y").contains("two sides under another operator"));
    let mut graph = Graph::tokens();
    graph.floats("c", &[6], |i| i as f32 + 1.0);
    graph.node("Div", &["c", "tokens"], "y", []);
    assert!(graph.refusal("y").contains("an operator without kernels"));
}

#[test]
fn differences_and_quotients_are_sums_and_products() {
    let of = |op: &str, sides: [&str; 2]| {
        let mut graph = Graph::tokens();
        graph.floats("c", &[6], |i| (1 << i) as f32);
        graph.node(op, &sides, "y", []);
        graph.run("y")
    };
    let each = |f: fn(f32, f32) -> f32| -> Vec<f32> {
        TOKENS.iter().flat_map(|token| (0..6).map(|i| f(token[i], (1 << i) as f32))).collect()
    };
    assert_eq!(of("Sub", ["tokens", "c"]), each(|x, c| x - c));
    assert_eq!(of("Sub", ["c", "tokens"]), each(|x, c| c - x));
    assert_eq!(of("Div", ["tokens", "c"]), each(|x, c| x / c));
    // Two computed sides, one of which is the same for all rows.
    let mut graph = Graph::tokens();
    graph.node("ReduceMean", &["tokens"], "mean", [ints("axes", &[1]), int("keepdims", 1)]);
    graph.node("Sub", &["tokens", "mean"], "y", []);
    let mean = [5.0, 6.0, 9.0, 10.0, 21.0, 22.0];
    let want: Vec<f32> = TOKENS.iter().flat_map(|token| (0..6).map(|i| token[i] - mean[i])).collect();
    assert_eq!(graph.run("y"), want);
}

#[test]
fn constants_are_computed_beforehand() {
    let folded = |divisor: f32| {
        let mut graph = Graph::tokens();
        graph.floats("a", &[6], |i| i as f32 + 1.0);
        graph.floats("b", &[], move |_| divisor);
        graph.node("Neg", &["a"], "negative", []);
        graph.node("Div", &["negative", "b"], "c", []);
        graph.node("Add", &["tokens", "c"], "y", []);
        graph
    };
    folded(2.0).lowered("y", |lowered| {
        let Some(Step::AddConstant { values, .. }) = lowered.steps.last() else { panic!("no sum") };
        assert_eq!(values[..], [-0.5, -1.0, -1.5, -2.0, -2.5, -3.0]);
    });
    assert!(folded(0.0).refusal("y").contains("not finite"));
}
