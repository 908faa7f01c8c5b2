//! Values that are shown while a program runs.

use super::*;
use crate::compile::compile_taps;

/// What a program shows of a graph on an image that counts from 0, in the order of `names`: shape and elements.
fn shown(graph: Graph, outputs: &str, names: &[&str]) -> Vec<(Vec<usize>, Vec<f32>)> {
    let (graph, summary) = graph.checked(outputs);
    let program = compile_taps(&graph, &summary.facts, BUDGET, names).unwrap();
    let (mut arena, mut copy) = (program.arena(1), Vec::new());
    let image: Vec<f32> = (0..48).map(|i| i as f32).collect();
    let image = ImageView::F32(&image);
    let mut found = vec![(Vec::new(), Vec::new()); names.len()];
    let mut done = 0;
    for tap in program.taps() {
        program.run_steps(done..tap.after(), &mut arena, image);
        done = tap.after();
        found[tap.index()] = (tap.dims().to_vec(), tap.read(&arena, image, &mut copy).to_vec());
    }
    found
}

/// Why no program shows the values.
fn refusal(graph: Graph, outputs: &str, names: &[&str]) -> String {
    let (graph, summary) = graph.checked(outputs);
    compile_taps(&graph, &summary.facts, BUDGET, names).unwrap_err()
}

/// A layer on each token, a GELU, a residual sum; of the result the first token.
fn layers() -> Graph {
    let mut graph = Graph::tokens();
    graph.floats("weight", &[6, 6], |i| (i % 5) as f32 - 2.0);
    graph.floats("bias", &[6], |i| i as f32);
    graph.ints("first", &[], &[0]);
    graph.node("MatMul", &["tokens", "weight"], "product", []);
    graph.node("Add", &["product", "bias"], "sum", []);
    graph.node("Relu", &["sum"], "active", []);
    graph.node("Add", &["active", "tokens"], "residual", []);
    graph.node("Gather", &["residual", "first"], "token", [int("axis", 1)]);
    graph
}

#[test]
fn values_are_shown_that_a_program_merges_or_leaves_out() {
    let names = ["image", "patches", "tokens", "product", "sum", "active", "residual"];
    let found = shown(layers(), "token", &names);
    for (name, (dims, values)) in names.iter().zip(&found).skip(1) {
        // The whole program of a graph that ends there.
        assert_eq!(*values, layers().run(name), "{name}");
        assert_eq!(dims[..], if *name == "patches" { vec![1, 6, 2, 2] } else { vec![1, 4, 6] }, "{name}");
    }
    assert_eq!(found[0], (vec![1, 3, 4, 4], (0..48).map(|i| i as f32).collect()));
    // Nothing but what the values need is computed.
    let (graph, summary) = layers().checked("token");
    let program = compile_taps(&graph, &summary.facts, BUDGET, &["tokens"]).unwrap();
    assert_eq!(program.steps().len(), 2);
}

#[test]
fn a_buffer_is_used_again_once_its_value_was_shown() {
    let chain = |names: &[&str]| {
        let mut graph = Graph::tokens();
        graph.floats("weight", &[6, 6], |i| (i % 5) as f32 - 2.0);
        for (from, to) in [("tokens", "a"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")] {
            graph.node("MatMul", &[from, "weight"], to, []);
        }
        let (graph, summary) = graph.checked("e");
        compile_taps(&graph, &summary.facts, BUDGET, names).unwrap().arena_bytes(1)
    };
    assert_eq!(chain(&["a", "b", "c", "d", "e"]), chain(&["e"]));
}

#[test]
fn a_map_is_shown_with_channels_outermost_and_within_its_padding() {
    let mut graph = Graph::new();
    graph.floats("w", &[2, 3, 3, 3], |i| (i % 5) as f32 - 2.0);
    graph.ints("pads", &[8], &[0, 0, 1, 1, 0, 0, 0, 0]);
    graph.node("Mul", &["image", "half"], "dark", []);
    graph.floats("half", &[], |_| 0.5);
    graph.node("Pad", &["dark", "pads"], "padded", []);
    graph.node("Conv", &["padded", "w"], "map", []);
    graph.node("Relu", &["map"], "active", []);
    graph.node("GlobalAveragePool", &["active"], "mean", []);
    let found = shown(graph, "mean", &["dark", "padded", "active"]);
    let [(_, dark), (dims, padded), (_, active)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&dims[..], dark[47], padded.len()), (&[1, 3, 5, 5][..], 23.5, 75));
    assert!((0..5).all(|x| padded[x] == 0.0 && padded[5 * x] == 0.0));
    assert_eq!([padded[6], padded[24], padded[25 + 6]], [0.0, 7.5, 8.0]);
    // A pixel of the second channel, by the formula.
    let value: f32 =
        (0..27).map(|i| padded[i / 9 * 25 + i % 9 / 3 * 5 + i % 3] * (((27 + i) % 5) as f32 - 2.0)).sum();
    assert_eq!(active[9], value.max(0.0));
}

#[test]
fn values_that_no_step_computes_are_named() {
    let why = refusal(layers(), "token", &["tokens", "elsewhere"]);
    assert!(why.contains("`elsewhere` is no value"), "{why}");
    let mut graph = Graph::tokens();
    graph.node("Transpose", &["tokens"], "swapped", [ints("perm", &[0, 2, 1])]);
    graph.node("MatMul", &["tokens", "swapped"], "scores", []);
    graph.node("Softmax", &["scores"], "shares", []);
    graph.node("MatMul", &["shares", "tokens"], "mixed", []);
    let why = refusal(graph, "mixed", &["shares"]);
    assert!(why.contains("`shares` (Softmax)") && why.contains("no step computes"), "{why}");
}
