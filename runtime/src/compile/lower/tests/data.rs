//! Functions that are carried along.

use super::*;

#[test]
fn a_function_is_computed_once_for_all_who_need_it() {
    let mut graph = Graph::tokens();
    graph.floats("two", &[], |_| 2.0);
    graph.floats("m", &[6, 6], |i| i as f32);
    graph.node("Mul", &["tokens", "two"], "a", []);
    graph.node("Add", &["tokens", "tokens"], "b", []);
    graph.node("MatMul", &["a", "m"], "y", []);
    graph.node("MatMul", &["b", "m"], "z", []);
    assert_eq!(graph.kinds("y z"), ["pointwise", "linear f32", "linear f32"]);
}

#[test]
fn a_function_waits_while_values_are_moved() {
    let mut graph = Graph::tokens();
    graph.floats("two", &[], |_| 2.0);
    graph.ints("row", &[], &[0]);
    graph.floats("m", &[6, 6], |i| i as f32);
    graph.node("Mul", &["tokens", "two"], "double", []);
    graph.node("Gather", &["double", "row"], "first", [int("axis", 1)]);
    graph.node("Div", &["first", "two"], "same", []);
    graph.node("MatMul", &["same", "m"], "y", []);
    assert_eq!(graph.kinds("y"), ["linear f32"]);
}

#[test]
fn nothing_is_computed_of_the_image_itself() {
    let mut graph = Graph::new();
    graph.floats("two", &[], |_| 2.0);
    graph.node("Mul", &["image", "two"], "y", []);
    assert!(graph.refusal("y").contains("image itself"));
}
