//! Operators that move values.

use super::*;
use crate::compile::step::Values;

#[test]
fn a_reshape_of_turned_values_puts_them_in_order() {
    let mut graph = Graph::tokens();
    graph.ints("flat", &[2], &[1, 24]);
    graph.node("Transpose", &["tokens"], "turned_again", [ints("perm", &[0, 2, 1])]);
    graph.node("Reshape", &["turned_again", "flat"], "y", []);
    let want: Vec<f32> = (0..6).flat_map(|j| TOKENS.map(|token| token[j])).collect();
    assert_eq!(graph.run("y"), want);
}

#[test]
fn parts_of_an_axis_are_views() {
    let sliced = |starts: &[i64], steps: &[i64]| {
        let mut graph = Graph::tokens();
        graph.ints("starts", &[1], starts);
        graph.ints("ends", &[1], &[i64::MAX]);
        graph.ints("axes", &[1], &[1]);
        graph.ints("steps", &[1], steps);
        graph.node("Slice", &["tokens", "starts", "ends", "axes", "steps"], "y", []);
        graph
    };
    sliced(&[-1], &[1]).lowered("y", |lowered| {
        assert_eq!(lowered.steps.len(), 2);
        assert_eq!((lowered.outputs[0].offset, lowered.outputs[0].rows), (18, 1));
    });
    assert_eq!(sliced(&[1], &[2]).run("y"), [TOKENS[1], TOKENS[3]].concat());
    let mut graph = Graph::tokens();
    graph.node("Split", &["tokens"], "a b c", [int("axis", 2)]);
    graph.node("Add", &["a", "c"], "y", []);
    let want: Vec<f32> = TOKENS.iter().flat_map(|t| [t[0] + t[4], t[1] + t[5]]).collect();
    assert_eq!(graph.run("y"), want);
}

#[test]
fn picked_rows_are_a_view_where_they_are_regular_and_a_copy_elsewhere() {
    let picked = |indices: &[i64]| {
        let mut graph = Graph::tokens();
        graph.ints("indices", &[indices.len() as i64], indices);
        graph.node("Gather", &["tokens", "indices"], "y", [int("axis", 1)]);
        graph
    };
    assert_eq!(picked(&[1, 2]).lowered("y", |lowered| lowered.steps.len()), 2);
    picked(&[3, 0, -1]).lowered("y", |lowered| {
        let Some(Step::Copy { values: Values::Places(places), .. }) = lowered.steps.last() else {
            panic!("no copy")
        };
        assert_eq!((places.len(), places[0]), (18, 18));
    });
    assert_eq!(picked(&[3, 0, -1]).run("y"), [TOKENS[3], TOKENS[0], TOKENS[3]].concat());
}

#[test]
fn parts_go_below_each_other() {
    let mut graph = Graph::tokens();
    graph.floats("cls", &[1, 1, 6], |i| i as f32);
    graph.node("Concat", &["cls", "tokens"], "y", [int("axis", 1)]);
    graph.lowered("y", |lowered| {
        let [.., Step::StoreConstant { values, out: a, at: 0 }, Step::Copy { out: b, at: 6, .. }] =
            &lowered.steps[..]
        else {
            panic!("{:?}", lowered.steps)
        };
        assert_eq!((values.len(), a), (6, b));
    });
}

#[test]
fn parts_side_by_side_are_stored_below_each_other() {
    let mut graph = Graph::tokens();
    graph.node("Concat", &["tokens", "tokens"], "y", [int("axis", 2)]);
    let want: Vec<f32> = TOKENS.iter().flat_map(|token| [&token[..], token].concat()).collect();
    assert_eq!(graph.run("y"), want);
}
