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
fn a_constant_added_to_the_scores_is_a_bias() {
    let masked = |dims: &[i64]| {
        attention(|graph| {
            graph.floats("half", &[], |_| 0.5);
            graph.floats("mask", dims, |i| i as f32);
            graph.node("Mul", &["scores", "half"], "halved", []);
            graph.node("Add", &["halved", "mask"], "scaled", []);
        })
    };
    // Of its own for each head, or the same for all; in front of the factor.
    for (dims, of_head) in [(&[1, 2, 4, 4][..], 16), (&[4, 4][..], 0)] {
        masked(dims).lowered("y", |lowered| {
            let Some(Step::Attention { shape, maps, .. }) = lowered.steps.get(2) else {
                panic!("{:?}", lowered.steps)
            };
            let want: Vec<f32> = (0..32).map(|i| 2.0 * (i / 16 * of_head + i % 16) as f32).collect();
            assert_eq!((shape.scale, maps.bias.as_ref()), (0.5, Some(&want)));
        });
    }
}

#[test]
fn attention_with_more_in_it_is_products() {
    let kinds = |graph: Graph| graph.kinds("y");
    let tail = ["softmax", "copy", "product"];
    assert_eq!(kinds(scaled(-1.0))[..4], ["copy", "copy", "product", "pointwise"]);
    assert_eq!(kinds(scaled(-1.0))[4..], tail);
    let squashed = attention(|graph| graph.node("Tanh", &["scores"], "scaled", []));
    assert!(squashed.refusal("y").contains("no kernel for"));
    // Over the tokens: of columns, one after the other.
    let mut graph = Graph::tokens();
    graph.node("Softmax", &["tokens"], "y", [int("axis", 1)]);
    let found = graph.run("y");
    for column in 0..6 {
        let total: f32 = TOKENS.iter().map(|token| (token[column] - 30.0).exp()).sum();
        for (row, token) in TOKENS.iter().enumerate() {
            assert!((found[row * 6 + column] - (token[column] - 30.0).exp() / total).abs() < 1e-6);
        }
    }
}

#[test]
fn norms_that_are_written_out_are_norms() {
    let axes = || [ints("axes", &[-1])];
    let graph = |is_centred: bool| {
        let mut graph = Graph::tokens();
        graph.floats("two", &[], |_| 2.0);
        graph.floats("eps", &[], |_| 0.25);
        graph.node("ReduceMean", &["tokens"], "mean", axes());
        graph.node("Sub", &["tokens", "mean"], "centred", []);
        let x = if is_centred { "centred" } else { "tokens" };
        graph.node("Pow", &[x, "two"], "squares", []);
        graph.node("ReduceMean", &["squares"], "variance", axes());
        graph.node("Add", &["variance", "eps"], "shifted", []);
        graph.node("Sqrt", &["shifted"], "deviation", []);
        graph.node("Div", &[x, "deviation"], "y", []);
        graph
    };
    assert_eq!(graph(true).kinds("y"), ["layer norm"]);
    assert_eq!(graph(false).kinds("y"), ["RMS norm"]);
    // The root belongs to another value than what it divides.
    let mut other = graph(true);
    other.node("Div", &["tokens", "deviation"], "z", []);
    assert!(other.refusal("z").contains("part of a norm"));
}

#[test]
fn a_softmax_of_rows_is_a_step_of_its_own() {
    let mut graph = Graph::tokens();
    graph.node("Softmax", &["tokens"], "y", [int("axis", 2)]);
    assert_eq!(graph.kinds("y"), ["softmax"]);
}
