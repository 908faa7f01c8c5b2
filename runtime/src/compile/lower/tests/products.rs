//! Products with weights.

use super::*;
use crate::compile::step::Weight;

#[test]
fn a_product_with_a_matrix_is_a_linear_layer() {
    let mut graph = Graph::tokens();
    graph.floats("m", &[6, 3], |i| i as f32);
    graph.node("MatMul", &["tokens", "m"], "y", []);
    graph.lowered("y", |lowered| {
        let Some(Step::Linear { name, x, weight, bias, residual: None, .. }) = lowered.steps.last() else {
            panic!("no layer")
        };
        assert_eq!((&**name, [x.rows, x.cols], &bias[..]), ("y", [4, 6], &[0.0; 3][..]));
        let Weight::Floats(weight) = &**weight else { panic!("no floats") };
        // Outputs first, as kernels take it.
        assert_eq!(weight.dims(), [3, 6]);
        assert_eq!(weight.matrix().unwrap()(1, 2), 7.0);
    });
}

#[test]
fn other_products_are_of_pairs_of_matrices() {
    let mut graph = Graph::tokens();
    graph.floats("m", &[2, 6, 3], |i| f32::from(u8::from(i == 3 || i == 18)));
    graph.node("MatMul", &["tokens", "m"], "y", []);
    let column = |i: usize| TOKENS.iter().flat_map(move |token| [token[i], 0.0, 0.0]);
    assert_eq!(graph.run("y"), column(1).chain(column(0)).collect::<Vec<f32>>());
    // A product of constants is one.
    let mut graph = Graph::tokens();
    graph.floats("a", &[2, 6], |i| i as f32);
    graph.floats("b", &[6, 6], |i| f32::from(u8::from(i / 6 == i % 6)) * 2.0);
    graph.node("MatMul", &["a", "b"], "twice", []);
    graph.ints("rows", &[2], &[4, 6]);
    graph.node("Reshape", &["tokens", "rows"], "x", []);
    graph.node("Gemm", &["x", "twice"], "y", [int("transB", 1)]);
    let want: Vec<f32> = TOKENS
        .iter()
        .flat_map(|token| [0, 6].map(|first| (0..6).map(|i| 2.0 * (first + i) as f32 * token[i]).sum()))
        .collect();
    assert_eq!(graph.run("y"), want);
}

/// `2 · tokens · m + 3 · c` of the tokens as a matrix.
fn gemm(c: &[i64]) -> Graph {
    let mut graph = Graph::tokens();
    graph.ints("rows", &[2], &[4, 6]);
    graph.node("Reshape", &["tokens", "rows"], "x", []);
    graph.floats("m", &[2, 6], |i| f32::from(u8::from(i == 1 || i == 6)));
    graph.floats("c", c, |i| i as f32 + 1.0);
    let factors = [int("transB", 1), float("alpha", 2.0), float("beta", 3.0)];
    graph.node("Gemm", &["x", "m", "c"], "y", factors);
    graph
}

#[test]
fn factors_and_addends_of_a_gemm() {
    // Of the tokens, the second and the first value.
    let product = |row: usize, j: usize| 2.0 * TOKENS[row][1 - j];
    let places = || (0..4).flat_map(|row| [(row, 0), (row, 1)]);
    // One for each column is a bias, one for each value a step of its own.
    let want: Vec<f32> = places().map(|(row, j)| product(row, j) + 3.0 * (j as f32 + 1.0)).collect();
    assert_eq!(gemm(&[2]).kinds("y"), ["linear f32"]);
    assert_eq!(gemm(&[2]).run("y"), want);
    let want: Vec<f32> =
        places().map(|(row, j)| product(row, j) + 3.0 * ((2 * row + j) as f32 + 1.0)).collect();
    assert_eq!(gemm(&[4, 2]).kinds("y"), ["linear f32", "add"]);
    assert_eq!(gemm(&[4, 2]).run("y"), want);
}
