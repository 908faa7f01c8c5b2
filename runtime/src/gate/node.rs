//! One node under check: its place in messages, its inputs as they are known, its attributes.

use std::rc::Rc;

use smalti_models::onnx::NodeProto;

use super::attributes;
use super::limits::Limits;
use super::value::{Kind, Value};
use super::weights::MAX_RANK;
use crate::error::{Error, Result};

/// A node whose attributes and number of inputs and outputs have been checked.
pub(super) struct Node<'a> {
    /// `node NAME (OPERATOR)`.
    pub(super) place: String,
    pub(super) proto: &'a NodeProto,
    pub(super) opset: i64,
    pub(super) limits: &'a Limits,
    /// Inputs; an optional one that is left out is none.
    pub(super) inputs: Vec<Option<Rc<Value<'a>>>>,
}

/// How messages name a node.
pub(super) fn place(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name };
    format!("node `{name}` ({})", node.op_type)
}

impl<'a> Node<'a> {
    /// A refusal of this node.
    pub(super) fn refuse<T>(&self, found: impl Into<String>, allowed: impl Into<String>) -> Result<T> {
        Err(Error::refused(&self.place, found, allowed))
    }

    /// An input that has to be there.
    pub(super) fn input(&self, i: usize) -> Result<&Value<'a>> {
        match self.optional(i) {
            Some(value) => Ok(value),
            None => self.refuse(format!("no input {i}"), "all required inputs"),
        }
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, i: usize) -> Option<&Value<'a>> {
        self.inputs.get(i)?.as_deref()
    }

    /// An input of that element type.
    pub(super) fn input_of(&self, i: usize, kind: Kind) -> Result<&Value<'a>> {
        let value = self.input(i)?;
        if value.kind == kind {
            return Ok(value);
        }
        self.refuse(format!("input {i} of type {}", value.describe()), kind.name())
    }

    /// The integers of an input that shape arithmetic needs.
    pub(super) fn known(&self, i: usize) -> Result<&[i64]> {
        let value = self.input_of(i, Kind::I64)?;
        match &value.ints {
            Some(ints) => Ok(ints),
            None => self.refuse(
                format!("input {i} ({}) that is computed while running", value.describe()),
                "a short list of integers that is known beforehand (static shapes)",
            ),
        }
    }

    /// The same, as a list: what is a single number there is no list.
    pub(super) fn list(&self, i: usize) -> Result<&[i64]> {
        match self.input(i)?.rank() {
            1 => self.known(i),
            rank => self.refuse(format!("input {i} of rank {rank}"), "a list of integers (rank 1)"),
        }
    }

    /// Integers that are an attribute before the opset `since` and an input from there on; none if they are left out.
    pub(super) fn moved_ints(&self, name: &str, i: usize, since: i64) -> Result<Option<&[i64]>> {
        match (self.ints(name), self.optional(i)) {
            (Some(ints), None) if self.opset < since => Ok(Some(ints)),
            (None, Some(_)) if self.opset >= since => self.known(i).map(Some),
            (None, None) => Ok(None),
            _ => self.refuse(
                format!("{name} in the wrong place"),
                format!("an attribute up to opset {}, an input from {since}", since - 1),
            ),
        }
    }

    /// An integer attribute.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        attributes::find(self.proto, name).map(|attribute| attribute.i)
    }

    /// A list-of-integers attribute.
    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        attributes::find(self.proto, name).map(|attribute| attribute.ints.as_slice())
    }

    /// An axis in `-rank..rank`, counted from the front.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let signed = rank as i64;
        if (-signed..signed).contains(&axis) {
            return Ok(axis.rem_euclid(signed) as usize);
        }
        self.refuse(format!("axis {axis}"), format!("{} to {} (rank {rank})", -signed, signed - 1))
    }

    /// Distinct axes in `-rank..rank`, counted from the front.
    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        if axes.len() > MAX_RANK {
            return self.refuse(format!("{} axes", axes.len()), format!("at most {MAX_RANK}"));
        }
        let mut found = Vec::new();
        for &axis in axes {
            let axis = self.axis(axis, rank)?;
            if found.contains(&axis) {
                return self.refuse(format!("axes {axes:?} with axis {axis} twice"), "distinct axes");
            }
            found.push(axis);
        }
        Ok(found)
    }
}
