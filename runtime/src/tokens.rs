//! Tokens: values inside a graph that stand for places of the image, a vector each.
//!
//! Any such value of a file can be shown, of a vision transformer `[1, T, D]`, of a convolutional network `[1, C, H, W]`;
//! nothing has to be exported anew. In a quantized graph they are floats between the quantized layers.

use std::collections::HashSet;

use smalti_models::onnx::{GraphProto, NodeProto};

use crate::error::{Error, Result};
use crate::gate::{Fact, Facts, Input, Kind};

/// The most tokens in front of those of the image: class token, distillation token, registers.
const MAX_PREFIX: usize = 16;

/// Which value of a graph is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// The one that tells places apart best: see [`TokenGrid`].
    #[default]
    Default,
    /// The value of that name.
    Value(String),
}

/// The places of an image that a value has a vector for.
///
/// By default it is the last map with twice as many places along each side as the last tokens, where a network has one:
/// early enough to tell small things, late enough to tell what they are, as in PatchCore (arXiv 2106.08265, section 3.1). In a
/// network of one size of map it is the residual stream half-way down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrid {
    /// The value's name in the file.
    pub name: String,
    /// Places from top to bottom.
    pub rows: usize,
    /// Places from left to right.
    pub columns: usize,
    /// Values of each token.
    pub dim: usize,
    /// Tokens in front that stand for no place.
    prefix: usize,
    /// Whether channels come first.
    is_map: bool,
}

impl TokenGrid {
    /// Finds the value that is asked for.
    ///
    /// # Errors
    /// [`Error::Usage`] for a value that is not there or has no grid, and for a graph without any.
    pub(crate) fn choose(
        graph: &GraphProto,
        facts: &Facts,
        input: &Input,
        source: &TokenSource,
    ) -> Result<TokenGrid> {
        let grid = |node: &NodeProto| {
            let name = node.output.first()?;
            TokenGrid::of(name, facts.get(name)?, input)
        };
        match source {
            TokenSource::Default => default(graph, facts, grid).ok_or_else(|| {
                Error::Usage("the model has no value with a vector for each place of the image".into())
            }),
            TokenSource::Value(name) => {
                let node = graph.node.iter().find(|node| node.output.first() == Some(name));
                node.and_then(grid).ok_or_else(|| {
                    let expected =
                        "a float value [1, tokens, D] or [1, C, H, W] with a vector for each place";
                    Error::Usage(format!("tokens `{name}`: the graph has no such value; expected {expected}"))
                })
            }
        }
    }

    /// The grid that a value has, if it has one.
    fn of(name: &str, fact: &Fact, input: &Input) -> Option<TokenGrid> {
        if fact.constant || fact.kind != Kind::F32 {
            return None;
        }
        let name = name.to_owned();
        match fact.dims[..] {
            // An image's own planes are no tokens.
            [1, dim, rows, columns] if dim > input.channels && rows * columns > 1 => {
                let fits = rows * input.width == columns * input.height;
                fits.then_some(TokenGrid { name, rows, columns, dim, prefix: 0, is_map: true })
            }
            [1, tokens, dim] => (0..=MAX_PREFIX.min(tokens)).find_map(|prefix| {
                let [rows, columns] = sides(tokens - prefix, input)?;
                Some(TokenGrid { name: name.clone(), rows, columns, dim, prefix, is_map: false })
            }),
            _ => None,
        }
    }

    /// Number of tokens.
    pub fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// Values of all tokens.
    pub fn values(&self) -> usize {
        self.count() * self.dim
    }

    /// Values of the value in the graph, with those that stand for no place.
    pub(crate) fn values_in_graph(&self) -> usize {
        (self.prefix + self.count()) * self.dim
    }

    /// Puts the value's elements, in the graph's order, into `tokens`: row by row, a vector for each place.
    pub(crate) fn collect(&self, values: &[f32], tokens: &mut Vec<f32>) {
        tokens.clear();
        if !self.is_map {
            tokens.extend_from_slice(values.get(self.prefix * self.dim..).unwrap_or_default());
            return;
        }
        let count = self.count();
        for place in 0..count {
            tokens.extend(values.iter().skip(place).step_by(count));
        }
    }
}

/// Rows and columns of that many places, in the image's shape.
fn sides(places: usize, input: &Input) -> Option<[usize; 2]> {
    let rows = (places * input.height / input.width.max(1)).isqrt();
    let columns = places.checked_div(rows)?;
    (places > 1 && rows * columns == places && rows * input.width == columns * input.height)
        .then_some([rows, columns])
}

/// The value that tells places apart best.
fn default(
    graph: &GraphProto,
    facts: &Facts,
    grid: impl Fn(&NodeProto) -> Option<TokenGrid>,
) -> Option<TokenGrid> {
    // Scores of attention have the shape of maps; maps come from convolutions and what is done to their values.
    let (mut maps, mut streams, mut convolved) = (Vec::new(), Vec::new(), HashSet::new());
    for node in &graph.node {
        let of_map = || node.input.iter().any(|input| convolved.contains(&**input));
        match &*node.op_type {
            "MatMul" | "Gemm" | "Softmax" | "Reshape" | "Transpose" => continue,
            "Conv" => {}
            // Branches meet: what both give was computed.
            "Add" if node.input.iter().all(|input| facts.get(input).is_some_and(|fact| !fact.constant)) => {
                streams.extend(grid(node).filter(|_| !of_map()));
            }
            _ => {}
        }
        if node.op_type == "Conv" || of_map() {
            convolved.extend(node.output.iter().map(String::as_str));
            // What a quantizer puts in between is the same map again.
            let is_new = node.op_type != "DequantizeLinear";
            maps.extend(grid(node).filter(|grid| grid.is_map && is_new));
        }
    }
    let last = streams.last().or(maps.last())?;
    let is_finer = |map: &&TokenGrid| map.rows >= 2 * last.rows && map.columns >= 2 * last.columns;
    let finer = maps.iter().rev().find(is_finer).cloned();
    // The sums of a block are two, behind attention and behind the perceptron.
    let half_way = (streams.len() / 2).saturating_sub(1) | 1;
    finer.or_else(|| streams.get(half_way).or(Some(last)).cloned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::gate::{self, Form, Limits};
    use crate::load::{Model, OpenOptions};

    fn choose(file: &str, source: &TokenSource) -> Result<TokenGrid> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let (proto, summary) = gate::open(&std::fs::read(path).unwrap(), &Limits::default()).unwrap();
        TokenGrid::choose(&proto.graph.unwrap(), &summary.facts, &summary.input, source)
    }

    #[test]
    fn places_are_told_from_what_stands_in_front() {
        let input = Input { name: String::new(), form: Form::U8Nhwc, width: 224, height: 224, channels: 3 };
        let fact = |dims: &[usize]| Fact {
            dims: dims.into(),
            constant: false,
            kind: Kind::F32,
            ints: None,
            floats: None,
        };
        let found = |dims: &[usize]| {
            TokenGrid::of("x", &fact(dims), &input)
                .map(|grid| (grid.rows, grid.columns, grid.dim, grid.prefix))
        };
        assert_eq!(found(&[1, 196, 8]), Some((14, 14, 8, 0)));
        assert_eq!(found(&[1, 197, 8]), Some((14, 14, 8, 1)));
        assert_eq!(found(&[1, 198, 8]), Some((14, 14, 8, 2)));
        assert_eq!(found(&[1, 261, 8]), Some((16, 16, 8, 5)));
        assert_eq!(found(&[1, 24, 12, 12]), Some((12, 12, 24, 0)));
        for none in
            [&[1, 8][..], &[1, 1, 8], &[1, 24, 12, 6], &[1, 3, 224, 224], &[1, 24, 1, 1], &[2, 196, 8]]
        {
            assert_eq!(found(none), None, "{none:?}");
        }
        let wide = Input { width: 96, height: 48, ..input };
        let grid = TokenGrid::of("x", &fact(&[1, 33, 8]), &wide).unwrap();
        assert_eq!((grid.rows, grid.columns, grid.prefix), (4, 8, 1));
    }

    #[test]
    fn by_default_they_are_a_finer_map_or_the_stream_half_way() {
        let found = |file: &str| choose(file, &TokenSource::Default).unwrap();
        let grid = found("../models/ready/waste.onnx");
        assert_eq!((&*grid.name, grid.rows, grid.columns, grid.dim), ("stages.2", 12, 12, 96));
        assert_eq!(found("../models/ready/waste-int8.onnx"), grid);
        let grid = found("tests/models/colours_u8.onnx");
        assert_eq!((&*grid.name, grid.rows, grid.columns, grid.prefix), ("blocks.0/residual2", 2, 2, 1));
    }

    #[test]
    fn names_that_are_no_tokens_are_wrong_usage() {
        for name in ["nowhere", "logits", "image", "blocks.0.attn/scores"] {
            let error = choose("tests/models/colours_u8.onnx", &TokenSource::Value(name.into())).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn maps_become_rows_of_places() {
        let grid = TokenGrid { name: "x".into(), rows: 1, columns: 2, dim: 3, prefix: 0, is_map: true };
        let mut tokens = Vec::new();
        grid.collect(&[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], &mut tokens);
        assert_eq!(tokens, [1.0, 10.0, 100.0, 2.0, 20.0, 200.0]);
        let grid = TokenGrid { prefix: 1, is_map: false, ..grid };
        grid.collect(&[9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut tokens);
        assert_eq!(tokens, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn tokens_change_no_answer_and_come_from_both_backends_alike() {
        let options = OpenOptions { tokens: Some(TokenSource::Default), ..OpenOptions::default() };
        for name in ["waste.onnx", "waste-int8.onnx"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/ready").join(name);
            let plain = Model::open(&path).unwrap();
            let pixels: Vec<u8> = (0..plain.input().values()).map(|i| (i * i % 251) as u8).collect();
            let wanted = plain.session().unwrap().run_pixels(&pixels).unwrap();
            let model = Model::open_with(&path, &options).unwrap();
            assert_eq!((model.fallback_reason(), model.digest()), (None, plain.digest()));
            let mut session = model.session().unwrap();
            let found = session.run_pixels(&pixels).unwrap();
            let again = session.run_pixels(&pixels).unwrap();
            assert_eq!(
                (&found.logits, &found.embedding, &found),
                (&wanted.logits, &wanted.embedding, &again)
            );
            assert_eq!(found.tokens.as_ref().map(Vec::len), Some(144 * 96));
            let mean = |place: usize| found.tokens.as_ref().unwrap()[96 * place..][..96].iter().sum::<f32>();
            assert!((0..144).any(|place| (mean(place) - mean(0)).abs() > 0.1));
            if cfg!(feature = "tract") {
                let tract =
                    Model::from_bytes_on_tract_with(&std::fs::read(&path).unwrap(), &options).unwrap();
                let other = tract.session().unwrap().run_pixels(&pixels).unwrap();
                let pairs = found.tokens.iter().flatten().zip(other.tokens.iter().flatten());
                let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let allowed = if name.contains("int8") { 0.5 } else { 1e-3 };
                assert!(other.embedding.is_some() && off < allowed, "{name}: {off}");
            }
        }
    }
}
