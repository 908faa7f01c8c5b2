//! Attention, by what it computes.

use super::*;

/// Attention of the tokens with two heads of width 3, after `between` the products and the softmax.
fn attention(between: impl FnOnce(&mut Graph)) -> Graph {
    let mut graph = Graph::tokens();
    graph.ints("heads", &[4], &[1, 4, 2, 3]);
    graph.node("Reshape", &["tokens", "heads"], "split", []);
    graph.node("Transpose", &["split"], "q", [ints("perm", &[0, 2, 1, 3])]);
    graph.node("Transpose", &["split"], "k", [ints("perm", &[0, 2, 3, 1])]);
    graph.node("MatMul", &["q", "k"], "scores", []);
    between(&mut graph);
    graph.node("Softmax", &["scaled"], "probabilities", [int("axis", -1)]);
    graph.node("MatMul", &["probabilities", "q"], "y", []);
    graph
}

fn scaled(by: f32) -> Graph {
    attention(|graph| {
        graph.floats("factor", &[], move |_| by);
        graph.node("Mul", &["scores", "factor"], "scaled", []);
    })
}

#[test]
fn all_heads_are_one_step() {
    scaled(0.25).lowered("y", |lowered| {
        let Some(Step::Attention { qkv: [q, k, v], shape, .. }) = lowered.steps.get(2) else {
            panic!("{:?}", lowered.steps)
        };
        assert_eq!((shape.heads, shape.tokens, shape.key, shape.value, shape.scale), (2, 4, 3, 3, 0.25));
        assert_eq!((q, q), (k, v));
        assert_eq!((q.head, q.row), (3, 6));
    });
}

#[test]
fn a_scale_may_stand_on_either_side_of_the_product() {
    let mut graph = Graph::tokens();
    graph.floats("half", &[], |_| 0.5);
    graph.node("Mul", &["tokens", "half"], "q", []);
    graph.node("Transpose", &["q"], "k", [ints("perm", &[0, 2, 1])]);
    graph.node("MatMul", &["q", "k"], "scores", []);
    graph.node("Softmax", &["scores"], "probabilities", [int("axis", -1)]);
    graph.node("MatMul", &["probabilities", "tokens"], "y", []);
    graph.lowered("y", |lowered| {
        let Some(Step::Attention { shape, .. }) = lowered.steps.last() else { panic!("{:?}", lowered.steps) };
        assert_eq!((shape.heads, shape.scale), (1, 0.25));
    });
}

#[test]
fn what_has_more_in_it_is_refused() {
    assert!(scaled(-1.0).refusal("y").contains("not positive"));
    let masked = attention(|graph| {
        graph.floats("mask", &[4, 4], |i| i as f32);
        graph.node("Add", &["scores", "mask"], "scaled", []);
    });
    assert!(masked.refusal("y").contains("a mask in attention"));
    let squashed = attention(|graph| graph.node("Tanh", &["scores"], "scaled", []));
    assert!(squashed.refusal("y").contains("attention with more in it"));
    let mut graph = Graph::tokens();
    graph.node("Softmax", &["tokens"], "y", [int("axis", 1)]);
    assert!(graph.refusal("y").contains("other axes than the last"));
}

#[test]
fn a_softmax_of_rows_is_a_step_of_its_own() {
    let mut graph = Graph::tokens();
    graph.node("Softmax", &["tokens"], "y", [int("axis", 2)]);
    assert_eq!(graph.kinds("y"), ["softmax"]);
}
