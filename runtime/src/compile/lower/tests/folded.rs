//! Shape arithmetic, which the gate puts constants in the place of, and constants that are computed.

use smalti_models::onnx::GraphProto;

use super::*;
use crate::gate::floats;

/// The graph behind the gate, with a product of the tokens and `name`, of any type, and that one's numbers.
fn behind_gate(mut graph: Graph, name: &str) -> (GraphProto, Vec<f32>) {
    graph.node("Cast", &[name], "real", [int("to", 1)]);
    graph.node("Mul", &["tokens", "real"], "y", []);
    let (graph, _) = graph.checked("y");
    let stored = graph.initializer.iter().find(|tensor| tensor.name == "real").expect("no constant");
    let numbers = floats(stored).collect();
    (graph, numbers)
}

/// The numbers of `name`, which the gate knows.
fn known(graph: Graph, name: &str) -> Vec<f32> {
    let (graph, numbers) = behind_gate(graph, name);
    assert!(graph.node.iter().all(|node| node.op_type != "Cast"), "what is known is no node");
    numbers
}

/// Why the gate refuses a graph that reads `name`.
fn refused(mut graph: Graph, name: &str) -> String {
    graph.node("Cast", &[name], "real", [int("to", 1)]);
    graph.node("Mul", &["tokens", "real"], "y", []);
    graph.opened("y").unwrap_err().to_string()
}

fn range(start: i64, limit: i64, step: i64) -> Graph {
    let mut graph = Graph::tokens();
    for (name, value) in [("start", start), ("limit", limit), ("step", step)] {
        graph.ints(name, &[], &[value]);
    }
    graph.node("Range", &["start", "limit", "step"], "range", []);
    graph
}

#[test]
fn ranges_are_known() {
    assert_eq!(known(range(0, 6, 1), "range"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(known(range(7, -4, -2), "range"), [7.0, 5.0, 3.0, 1.0, -1.0, -3.0]);
    for (start, limit, step) in [(0, 6, 0), (0, 6, -1), (0, i64::MAX, 1), (i64::MIN, i64::MAX, 3)] {
        let why = refused(range(start, limit, step), "range");
        assert!(why.contains("Range") && why.contains("numbers between bounds"), "{why}");
    }
    let mut graph = Graph::tokens();
    graph.floats("start", &[], |_| 0.5);
    graph.floats("limit", &[], |_| 3.25);
    graph.floats("step", &[], |_| 0.5);
    graph.node("Range", &["start", "limit", "step"], "range", []);
    assert_eq!(known(graph, "range"), [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
}

#[test]
fn comparisons_and_choices_are_known() {
    let compared = |op: &str, is_float: bool| {
        let mut graph = Graph::tokens();
        match is_float {
            true => {
                graph.floats("a", &[4, 1], |i| i as f32);
                graph.floats("b", &[], |_| 2.0);
            }
            false => {
                graph.ints("a", &[4, 1], &[0, 1, 2, 3]);
                graph.ints("b", &[], &[2]);
            }
        }
        graph.node(op, &["a", "b"], "holds", []);
        known(graph, "holds")
    };
    for (op, wanted) in [
        ("Equal", [0.0, 0.0, 1.0, 0.0]),
        ("Greater", [0.0, 0.0, 0.0, 1.0]),
        ("GreaterOrEqual", [0.0, 0.0, 1.0, 1.0]),
        ("Less", [1.0, 1.0, 0.0, 0.0]),
        ("LessOrEqual", [1.0, 1.0, 1.0, 0.0]),
    ] {
        assert_eq!((compared(op, true), compared(op, false)), (wanted.to_vec(), wanted.to_vec()), "{op}");
    }
    for (op, wanted) in [("And", [0.0, 0.0, 0.0, 1.0]), ("Or", [0.0, 1.0, 1.0, 1.0])] {
        let mut graph = Graph::tokens();
        graph.constant("a", DataType::Bool, &[4, 1], vec![0, 1, 0, 1]);
        graph.constant("b", DataType::Bool, &[4, 1], vec![1, 1, 0, 0]);
        graph.node("Not", &["b"], "c", []);
        graph.node(op, &["a", "c"], "holds", []);
        assert_eq!(known(graph, "holds"), wanted);
    }
    let mut graph = Graph::tokens();
    graph.constant("holds", DataType::Bool, &[4, 1], vec![0, 1, 0, 1]);
    graph.floats("a", &[], |_| -100.0);
    graph.floats("b", &[4, 1], |i| i as f32);
    graph.node("Where", &["holds", "a", "b"], "chosen", []);
    assert_eq!(known(graph, "chosen"), [0.0, -100.0, 2.0, -100.0]);
    let mut graph = Graph::tokens();
    graph.floats("b", &[], |_| 2.0);
    graph.node("Less", &["tokens", "b"], "holds", []);
    assert!(refused(graph, "holds").contains("known beforehand"));
}

fn scattered(indices: &[i64], updates: &[i64]) -> Graph {
    let mut graph = Graph::tokens();
    graph.ints("data", &[4, 1], &[5, 6, 7, 8]);
    graph.ints("indices", &[indices.len() as i64, 1], indices);
    graph.ints("updates", &[updates.len() as i64, 1], updates);
    graph.node("ScatterND", &["data", "indices", "updates"], "changed", []);
    graph
}

#[test]
fn scattered_numbers_are_known() {
    assert_eq!(known(scattered(&[2, -4], &[1, 2]), "changed"), [2.0, 6.0, 1.0, 8.0]);
    assert!(refused(scattered(&[4], &[1]), "changed").contains("index 4"));
    assert!(refused(scattered(&[1, 2], &[1]), "changed").contains("an update for each index"));
    // Stored real numbers, which may be more than shape arithmetic has.
    let mut graph = Graph::tokens();
    graph.floats("data", &[20, 6], |i| i as f32);
    graph.ints("indices", &[1, 2], &[19, 5]);
    graph.floats("updates", &[1], |_| 0.5);
    graph.node("ScatterND", &["data", "indices", "updates"], "changed", []);
    graph.ints("rows", &[1], &[19]);
    graph.node("Gather", &["changed", "rows"], "last", [int("axis", 0)]);
    assert_eq!(known(graph, "last"), [114.0, 115.0, 116.0, 117.0, 118.0, 0.5]);
    let mut graph = Graph::tokens();
    graph.ints("indices", &[1, 2], &[0, 1]);
    graph.floats("updates", &[1, 6], |_| 0.5);
    graph.node("ScatterND", &["tokens", "indices", "updates"], "changed", []);
    assert!(refused(graph, "changed").contains("known beforehand"));
}

#[test]
fn whole_numbers_are_known() {
    for (op, wanted) in
        [("Ceil", [-1.0, 0.0, 1.0, 3.0]), ("Floor", [-2.0, -1.0, 0.0, 2.0]), ("Cast", [-1.0, 0.0, 0.0, 2.0])]
    {
        let mut graph = Graph::tokens();
        graph.floats("x", &[4, 1], |i| [-1.5, -0.25, 0.5, 2.75][i]);
        match op {
            "Cast" => graph.node("Cast", &["x"], "whole", [int("to", 7)]),
            _ => graph.node(op, &["x"], "whole", []),
        }
        assert_eq!(known(graph, "whole"), wanted, "{op}");
    }
    let cast = |value: f32, to: i64| {
        let mut graph = Graph::tokens();
        graph.floats("x", &[], move |_| value);
        graph.node("Cast", &["x"], "whole", [int("to", to)]);
        graph
    };
    assert_eq!((known(cast(-0.5, 9), "whole"), known(cast(-7.9, 6), "whole")), (vec![1.0], vec![-7.0]));
    for (value, to) in [(1e30, 7), (3e9, 6), (1.0, 2)] {
        assert!(refused(cast(value, to), "whole").contains("a cast from float32"));
    }
    let mut graph = Graph::tokens();
    graph.node("Cast", &["tokens"], "whole", [int("to", 7)]);
    assert!(refused(graph, "whole").contains("known beforehand"));
}

#[test]
fn sums_of_known_integers_are_known() {
    let summed = |axes: &[i64], last: i64| {
        let mut graph = Graph::tokens();
        graph.ints("x", &[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, last]);
        graph.ints("axes", &[axes.len() as i64], axes);
        graph.node("ReduceSum", &["x", "axes"], "sum", [int("keepdims", 0)]);
        graph.ints("shape", &[3], &[1, -1, 1]);
        graph.node("Reshape", &["sum", "shape"], "column", []);
        graph
    };
    let mut rows = summed(&[0], 8);
    assert_eq!(known(summed(&[-1], 8), "column"), [3.0, 7.0, 11.0, 15.0]);
    rows.node("Transpose", &["sum"], "flipped", []);
    rows.node("Reshape", &["flipped", "shape"], "turned_column", []);
    assert_eq!(known(rows, "turned_column"), [6.0, 10.0, 8.0, 12.0]);
    assert!(refused(summed(&[0, 1, 2], i64::MAX), "column").contains("64 bits"));
}

/// What DINOv2 makes of the number of its position embeddings.
#[test]
fn roots_of_squares_are_whole() {
    for side in 1..=96 {
        let mut graph = Graph::tokens();
        graph.floats("count", &[], |_| (side * side) as f32);
        graph.floats("half", &[], |_| 0.5);
        graph.node("Pow", &["count", "half"], "root", []);
        graph.node("Cast", &["root"], "side", [int("to", 7)]);
        assert_eq!(known(graph, "side"), [side as f32]);
    }
}

#[test]
fn parts_and_bounds_of_known_numbers_are_known() {
    let mut graph = Graph::tokens();
    graph.floats("a", &[2, 1], |i| i as f32);
    graph.floats("b", &[2, 2], |i| 10.0 + i as f32);
    graph.node("Concat", &["a", "b"], "joined", [int("axis", 1)]);
    graph.node("Transpose", &["joined"], "flipped", []);
    graph.ints("starts", &[1], &[1]);
    graph.ints("ends", &[1], &[3]);
    graph.node("Slice", &["flipped", "starts", "ends"], "part", []);
    graph.ints("row", &[], &[1]);
    graph.node("Gather", &["part", "row"], "picked", [int("axis", 1)]);
    graph.floats("low", &[], |_| 12.5);
    graph.node("Clip", &["picked", "low"], "bounded", []);
    graph.ints("shape", &[3], &[1, 2, 1]);
    graph.node("Reshape", &["bounded", "shape"], "column", []);
    graph.ints("four", &[3], &[2, 2, 1]);
    graph.node("Expand", &["column", "four"], "spread", []);
    graph.ints("rows", &[3], &[1, 4, 1]);
    graph.node("Reshape", &["spread", "rows"], "column_of_four", []);
    assert_eq!(known(graph, "column_of_four"), [12.5, 13.0, 12.5, 13.0]);
    let mut graph = Graph::tokens();
    graph.ints("a", &[2, 1], &[1, 2]);
    graph.ints("b", &[2, 1], &[3, 4]);
    graph.node("Concat", &["a", "b"], "joined", [int("axis", -1)]);
    graph.node("Size", &["joined"], "size", []);
    graph.ints("flat", &[2], &[4, 1]);
    graph.node("Reshape", &["joined", "flat"], "column", []);
    graph.node("Mul", &["column", "size"], "product", []);
    assert_eq!(known(graph, "product"), [4.0, 12.0, 8.0, 16.0]);
}

#[test]
fn weights_stay_nodes_and_what_nothing_reads_goes() {
    let mut graph = Graph::tokens();
    graph.floats("weight", &[1, 96, 6], |i| i as f32);
    graph.node("Shape", &["weight"], "shape", []);
    graph.ints("rows", &[1], &[1]);
    graph.node("Gather", &["shape", "rows"], "count", [int("axis", 0)]);
    graph.floats("other", &[96, 6], |i| i as f32);
    graph.node("Transpose", &["other"], "moved", []);
    graph.node("MatMul", &["tokens", "moved"], "product", []);
    graph.node("Cast", &["count"], "real", [int("to", 1)]);
    graph.node("Mul", &["product", "real"], "y", []);
    let (graph, summary) = graph.checked("y");
    let names: Vec<&str> = graph.initializer.iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(names, ["w", "columns", "other", "real"]);
    let operators: Vec<&str> = graph.node.iter().map(|node| &*node.op_type).collect();
    assert_eq!(operators, ["Conv", "Reshape", "Transpose", "Transpose", "MatMul", "Mul"]);
    assert!(!summary.facts.contains_key("shape") && summary.facts.contains_key("real"));
}

#[test]
fn empty_parts_are_left_out() {
    let mut graph = Graph::tokens();
    graph.floats("none", &[1, 0, 6], |_| 0.0);
    graph.node("Concat", &["none", "tokens"], "y", [int("axis", 1)]);
    assert_eq!(graph.run("y"), TOKENS.concat());
    let mut graph = Graph::tokens();
    graph.floats("none", &[1, 0, 6], |_| 0.0);
    assert!(refused(graph, "none").contains("not empty"));
}

#[test]
fn resized_constants_are_added() {
    let resized = |sizes: &[i64]| {
        let mut graph = Graph::tokens();
        graph.floats("table", &[1, 6, 1, 2], |i| i as f32);
        graph.ints("sizes", &[4], sizes);
        graph.node("Resize", &["table", "", "", "sizes"], "larger", []);
        graph.node("Reshape", &["larger", "columns"], "flat", []);
        graph.node("Transpose", &["flat"], "positions", [ints("perm", &[0, 2, 1])]);
        graph
    };
    let mut graph = resized(&[1, 6, 2, 2]);
    graph.node("Add", &["tokens", "positions"], "y", []);
    let wanted = |i: usize| TOKENS[i / 6][i % 6] + (2 * (i % 6) + i / 6 % 2) as f32;
    assert_eq!(graph.run("y"), (0..24).map(wanted).collect::<Vec<f32>>());
    assert!(refused(resized(&[1, 3, 4, 2]), "positions").contains("sides from 1"));
    let mut graph = Graph::new();
    graph.ints("sizes", &[4], &[1, 3, 8, 8]);
    graph.node("Resize", &["image", "", "", "sizes"], "larger", []);
    graph.node("Relu", &["larger"], "y", []);
    assert!(graph.opened("y").unwrap_err().to_string().contains("such as position embeddings"));
}
